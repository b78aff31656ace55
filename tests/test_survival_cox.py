"""Cox models against lifelines by hand, scikit-survival and known truth; what they refuse."""

import lifelines
import numpy as np
import pandas as pd
import pytest
from lifelines.datasets import load_rossi
from lifelines.statistics import proportional_hazard_test
from sksurv.linear_model import CoxPHSurvivalAnalysis
from sksurv.util import Surv

from tumorbench_utils.survival import SurvivalError, concordance, cox, likelihood_ratio_test
from tumorbench_utils.survival.ridge import RiskSets, fit_ridge

COVARIATES = ["fin", "age", "prio"]


@pytest.fixture(scope="module")
def rossi() -> pd.DataFrame:
    """Weeks to re-arrest of 432 released prisoners (Rossi et al. 1980), from lifelines."""
    return load_rossi().rename(columns={"week": "time_days", "arrest": "event"})


@pytest.fixture
def table() -> pd.DataFrame:
    """Exponential survival with log hazard 0.7 x, 0.5 in men, and a stage without effect."""
    rng = np.random.default_rng(0)
    x, male = rng.normal(size=200), rng.random(200) < 0.5
    death = rng.exponential(500 * np.exp(-0.7 * x - 0.5 * male)) + 1
    lost = rng.uniform(1, 1500, 200)
    return pd.DataFrame(
        {
            "patient_id": [f"p{i}" for i in range(200)],
            "time_days": np.minimum(death, lost),
            "event": (death <= lost).astype(int),
            "x": x,
            "sex": np.where(male, "male", "female"),
            "stage": pd.Categorical(rng.choice(["I", "II", "III"], 200)),
        }
    )


@pytest.mark.parametrize("penalizer", [0.0, 0.1])
def test_agrees_with_lifelines_by_hand(rossi, penalizer):
    result = cox(rossi, COVARIATES, penalizer)
    data = rossi[["time_days", "event", *COVARIATES]]
    fit = lifelines.CoxPHFitter(penalizer=penalizer).fit(data, "time_days", "event")
    for column, name in {"coef": "coef", "low": "exp(coef) lower 95%", "p": "p"}.items():
        assert result.summary[column].tolist() == pytest.approx(fit.summary[name].tolist())
    assert result.concordance == pytest.approx(fit.concordance_index_)
    assert (result.n, result.events, result.events_per_variable) == (432, 114, 38)
    test = proportional_hazard_test(fit, data, time_transform="rank").summary
    assert result.ph_test["p"].to_dict() == pytest.approx(test["p"].to_dict())
    assert result.ph_test.index.tolist() == COVARIATES


def test_agrees_with_scikit_survival(rossi):
    result = cox(rossi, COVARIATES)
    other = CoxPHSurvivalAnalysis(ties="efron").fit(
        rossi[COVARIATES].astype(float), Surv.from_arrays(rossi["event"] == 1, rossi["time_days"])
    )
    assert result.summary["coef"].tolist() == pytest.approx(other.coef_.tolist(), abs=1e-6)
    risk = rossi[COVARIATES].to_numpy() @ other.coef_
    assert result.concordance == pytest.approx(
        concordance(rossi["time_days"], rossi["event"], risk)
    )


def test_hazard_ratio_by_hand():
    # events at 1 (x=1), 2 (x=0), 3 (x=1), one censored at 4 (x=0); with the hazard ratio r the
    # partial likelihood is r/(2r+2) * 1/(r+2) * r/(r+1); its derivative is 0 where r*r - r = 4
    table = pd.DataFrame({"time_days": [1, 2, 3, 4], "event": [1, 1, 1, 0], "x": [1, 0, 1, 0]})
    ratio = cox(table, ["x"]).summary.loc["x", "hazard_ratio"]
    assert ratio == pytest.approx((1 + np.sqrt(17)) / 2, abs=1e-4)


def test_categories_are_indicators_against_the_first_level(table):
    result = cox(table, ["x", "sex", "stage"])
    assert result.summary.index.tolist() == ["x", "sex[male]", "stage[II]", "stage[III]"]
    assert result.references == {"sex": "female", "stage": "I"}
    other = table.assign(sex=pd.Categorical(table["sex"], ["male", "female"]))
    turned = cox(other, ["x", "sex", "stage"]).summary
    ratio = result.summary.loc["sex[male]", "hazard_ratio"]
    assert turned.loc["sex[female]", "hazard_ratio"] == pytest.approx(1 / ratio)


def test_interval_covers_the_truth():
    hits = 0
    for seed in range(50):
        rng = np.random.default_rng(seed)
        x = rng.normal(size=100)
        death, lost = rng.exponential(np.exp(-0.7 * x)) + 1e-3, rng.uniform(0, 3, 100) + 1e-3
        frame = pd.DataFrame({"time_days": np.minimum(death, lost), "event": death <= lost, "x": x})
        low, high = cox(frame, ["x"]).summary.loc["x", ["low", "high"]]
        hits += low <= np.exp(0.7) <= high
    assert hits >= 43  # 47.5 expected; fewer than 43 has a chance of 1%


def test_missing_covariates_are_counted(table):
    table.loc[:4, "x"] = np.nan
    table.loc[3:9, "stage"] = None
    result = cox(table, ["x", "stage"])
    assert result.missing.to_dict() == {"x": 5, "stage": 7}
    assert (result.n, result.left_out) == (190, 10)
    assert result.summary["coef"].tolist() == pytest.approx(
        cox(table[10:], ["x", "stage"]).summary["coef"].tolist()
    )


def test_hazards_that_cross_are_found():
    rng = np.random.default_rng(1)
    x = np.repeat([0, 1], 300)
    frame = pd.DataFrame(
        {
            "time_days": rng.weibull(np.where(x, 3.0, 0.7)) * 100 + 1,
            "event": 1,
            "x": x,
            "y": rng.normal(size=600),
        }
    )
    p = cox(frame, ["x", "y"]).ph_test["p"]
    assert p["x"] < 1e-6 < 0.001 < p["y"]


def test_likelihood_ratio_agrees_with_lifelines(rossi):
    result = likelihood_ratio_test(rossi, ["fin"], ["age", "prio"])
    data = rossi[["time_days", "event", *COVARIATES]]
    large = lifelines.CoxPHFitter().fit(data, "time_days", "event")
    small = lifelines.CoxPHFitter().fit(data.drop(columns=["age", "prio"]), "time_days", "event")
    assert result.statistic == pytest.approx(2 * (large.log_likelihood_ - small.log_likelihood_))
    assert result.degrees == 2 and 0 < result.p < 0.001


def test_likelihood_ratio_uses_the_same_rows_in_both_models(table):
    table.loc[:50, "stage"] = None
    result = likelihood_ratio_test(table, ["x"], ["stage"])
    complete = likelihood_ratio_test(table[51:], ["x"], ["stage"])
    assert result == pytest.approx(complete)


def test_likelihood_ratio_of_noise_holds_its_level():
    """Three components of noise beside a real covariate."""
    p = []
    for seed in range(50):
        rng = np.random.default_rng(seed)
        x = rng.normal(size=(90, 4))
        frame = pd.DataFrame(x, columns=["x", "pc1", "pc2", "pc3"])
        death, lost = rng.exponential(np.exp(-x[:, 0])) + 1e-3, rng.exponential(1.5, 90) + 1e-3
        frame = frame.assign(time_days=np.minimum(death, lost), event=death <= lost)
        p.append(likelihood_ratio_test(frame, ["x"], ["pc1", "pc2", "pc3"]).p)
    assert np.mean(np.array(p) < 0.05) <= 0.14  # 0.05 expected; 8 of 50 has a chance of 0.5%
    assert 0.3 < np.median(p) < 0.7


def change(**columns):
    return lambda table: table.assign(**columns)


BAD = {
    "constant": (change(x=3.0), ["x"], "'x' is constant"),
    "one category": (change(sex="male"), ["sex"], "'sex' is constant"),
    "collinear": (lambda t: t.assign(y=2 * t["x"] - 1), ["x", "y"], "linear combination"),
    "copy of a category": (
        lambda t: t.assign(m=t["sex"] == "male"),
        ["sex", "m"],
        "linear combination",
    ),
    "separation": (lambda t: t.assign(y=t["event"] * 1.0), ["x", "y"], "'y' separates"),
    "level without event": (
        lambda t: t.assign(y=np.where(t["event"] == 1, "a", np.where(t.index < 100, "a", "b"))),
        ["y"],
        r"'y\[b\]' separates",
    ),
    "joint separation": (
        lambda t: t.assign(
            event=1,
            a=t["x"],
            b=np.cos(np.arange(200)),
            time_days=1000 - 100 * (t["x"] + np.cos(np.arange(200))),
        ),
        ["a", "b"],
        "together separate|separates",
    ),
    "one time": (change(time_days=5.0, event=1), ["x"], "the same time"),
    "no event": (change(event=0), ["x"], "no event"),
    "no event in complete rows": (
        lambda t: t.assign(x=t["x"].where(t["event"] == 0)),
        ["x"],
        "no event among the",
    ),
    "all missing": (change(x=np.nan), ["x"], "no event among the 0 rows"),
    "zero time": (
        lambda t: t.assign(time_days=t["time_days"].where(t.index != 5, 0)),
        ["x"],
        "row 5",
    ),
    "missing time": (
        lambda t: t.assign(time_days=t["time_days"].where(t.index != 5)),
        ["x"],
        "time is missing or not finite in row 5",
    ),
    "event code": (lambda t: t.assign(event=t["event"] + 1), ["x"], "must be 1"),
    "event as text": (lambda t: t.assign(event=t["event"].astype(str)), ["x"], "must hold numbers"),
    "infinite": (lambda t: t.assign(x=t["x"].where(t.index != 5, np.inf)), ["x"], "infinite"),
    "numbers as text": (lambda t: t.assign(x=t["x"].astype(str)), ["x"], "numbers as text"),
    "dates": (change(x=pd.Timestamp("2020-01-01")), ["x"], "neither numbers nor text"),
    "absent": (lambda t: t, ["age"], "no column 'age'"),
    "no outcome": (lambda t: t.drop(columns="time_days"), ["x"], "no column 'time_days'"),
    "outcome as covariate": (lambda t: t, ["x", "event"], "'event' is the outcome"),
    "a string": (lambda t: t, "x", "list of column names"),
    "none": (lambda t: t, [], "empty"),
    "twice": (lambda t: t, ["x", "x"], "twice"),
    "no rows": (lambda t: t[:0], ["x"], "empty"),
    "several rows": (change(patient_id="p1"), ["x"], "'p1' has several rows"),
    "few events": (
        lambda t: t[t["event"].cumsum() <= 2],
        ["x", "sex", "stage"],
        "coefficients cannot be estimated",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_refuses(table, name):
    make, covariates, message = BAD[name]
    with pytest.raises(SurvivalError, match=message):
        cox(make(table), covariates)


@pytest.mark.parametrize("penalizer", [-1, np.nan, np.inf, "much", None])
def test_refuses_a_penalizer(table, penalizer):
    with pytest.raises(SurvivalError, match="penalizer"):
        cox(table, ["x"], penalizer)


@pytest.mark.parametrize("name", ["separation", "collinear"])
def test_a_penalty_decides_what_the_data_leave_open(table, name):
    make, covariates, _ = BAD[name]
    summary = cox(make(table), covariates, penalizer=0.1).summary
    assert np.isfinite(summary.to_numpy()).all()


def test_nullable_and_object_columns_are_numbers(table):
    expected = cox(table, ["x", "sex"]).summary
    other = table.assign(
        event=table["event"].astype("Int64"),
        x=table["x"].astype(object),
        sex=table["sex"].astype("string"),
        time_days=table["time_days"].astype("Float64"),
    )
    other.index = other.index[::-1]
    pd.testing.assert_frame_equal(cox(other, ["x", "sex"]).summary, expected)


# ------------------------------------------------------------------------- the fast ridge solver


def standardised(seed=0, n=180, p=6):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, p))
    x = (x - x.mean(axis=0)) / x.std(axis=0, ddof=1)
    time = np.ceil(rng.exponential(20 * np.exp(-x[:, 0])))  # many ties
    return x, time, rng.random(n) < 0.6


@pytest.mark.parametrize("penalty", [0.5, 20.0, 500.0])
def test_ridge_agrees_with_lifelines(penalty):
    x, time, event = standardised()
    beta = fit_ridge(RiskSets(time, event), x, np.full(6, penalty))
    frame = pd.DataFrame(x).assign(time=time, event=event)
    # lifelines counts its penalty per patient
    fit = lifelines.CoxPHFitter(penalizer=penalty / len(x)).fit(frame, "time", "event")
    assert beta == pytest.approx(fit.params_.to_numpy(), abs=1e-5)


def test_unpenalised_covariates_beside_a_ridge_agree_with_lifelines():
    x, time, event = standardised(1)
    penalty = np.array([0.0, 0, 30, 30, 30, 30])
    beta = fit_ridge(RiskSets(time, event), x, penalty, start=np.full(6, 0.3))
    frame = pd.DataFrame(x).assign(time=time, event=event)
    fit = lifelines.CoxPHFitter(penalizer=penalty / len(x)).fit(frame, "time", "event")
    assert beta == pytest.approx(fit.params_.to_numpy(), abs=1e-5)


def test_log_likelihood_gradient_and_information_agree():
    x, time, event = standardised(2, p=3)
    sets = RiskSets(time, event)
    beta = np.array([0.3, -0.2, 0.1])
    frame = pd.DataFrame(x).assign(time=time, event=event)
    fit = lifelines.CoxPHFitter().fit(frame, "time", "event")
    assert sets.log_likelihood(x @ fit.params_.to_numpy()) == pytest.approx(fit.log_likelihood_)
    gradient, information = sets.derivatives(x[sets.order], (x @ beta)[sets.order])
    h = 1e-5 * np.eye(3)
    numeric = [
        (sets.log_likelihood(x @ (beta + d)) - sets.log_likelihood(x @ (beta - d))) / 2e-5
        for d in h
    ]
    assert gradient == pytest.approx(np.array(numeric), abs=1e-5)
    slope = [sets.derivatives(x[sets.order], (x @ (beta + d))[sets.order])[0] for d in h]
    assert information == pytest.approx(-(np.array(slope) - gradient) / 1e-5, abs=1e-2)


def test_baseline_agrees_with_breslow_of_scikit_survival():
    x, time, event = standardised(3)
    model = CoxPHSurvivalAnalysis(ties="breslow").fit(x, Surv.from_arrays(event, time))
    baseline = RiskSets(time, event).baseline(x @ model.coef_)
    days = np.arange(1, 40)
    other = np.array([f(days) for f in model.predict_survival_function(x[:5])])
    assert baseline.survival(x[:5] @ model.coef_, days) == pytest.approx(other, abs=1e-8)
    with pytest.raises(SurvivalError, match="training patients were followed"):
        baseline.survival(np.zeros(1), np.array([time.max() + 1]))


def test_ridge_that_separates_without_penalty_is_refused():
    time, event = np.arange(1.0, 41), np.arange(40) % 2 == 0
    with pytest.raises(SurvivalError, match="did not converge"):
        fit_ridge(RiskSets(time, event), -time[:, None] / 10, np.zeros(1))
