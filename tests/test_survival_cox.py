"""Cox models against lifelines by hand, scikit-survival and known truth; what they refuse."""

import lifelines
import numpy as np
import pandas as pd
import pytest
from lifelines.datasets import load_rossi
from lifelines.statistics import proportional_hazard_test
from sksurv.linear_model import CoxPHSurvivalAnalysis
from sksurv.util import Surv

from tumorbench_utils.survival import SurvivalError, concordance, cox
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
    assert (result.n, result.events, result.left_out) == (432, 114, 0)
    assert result.log_likelihood == pytest.approx(fit.log_likelihood_)
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


@pytest.mark.parametrize("unit", [1e-9, 1e-6, 1e6, 1e200])
def test_the_unit_of_a_covariate_changes_its_coefficient_only(table, unit):
    one, other = cox(table, ["x", "sex"]), cox(table.assign(x=table["x"] * unit), ["x", "sex"])
    assert other.summary["p"].tolist() == pytest.approx(one.summary["p"].tolist(), rel=1e-9)
    scaled = other.summary[["coef", "se"]].mul([unit, 1], axis=0)
    assert scaled.to_numpy() == pytest.approx(one.summary[["coef", "se"]].to_numpy(), rel=1e-9)
    assert other.concordance == one.concordance
    assert other.ph_test["p"].tolist() == pytest.approx(one.ph_test["p"].tolist())


@pytest.mark.parametrize(
    "make",
    [
        lambda t: t.assign(y=t["event"] * 1.0),
        lambda t: t.assign(y=2 * t["x"] - 1),
    ],
    ids=["separation", "collinear"],
)
def test_a_penalty_decides_what_the_data_leave_open(table, make):
    with pytest.raises(SurvivalError, match=r"separates|combination"):
        cox(make(table), ["x", "y"])
    summary = cox(make(table), ["x", "y"], penalizer=0.1).summary
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


def test_predicted_survival_agrees_with_breslow_of_scikit_survival():
    x, time, event = standardised(3)
    model = CoxPHSurvivalAnalysis(ties="breslow").fit(x, Surv.from_arrays(event, time))
    days, risk = np.arange(1, 40), x @ model.coef_
    other = np.array([f(days) for f in model.predict_survival_function(x[:5])])
    own = RiskSets(time, event).survival(risk, risk[:5], days)
    assert own == pytest.approx(other, abs=1e-8)


def test_ridge_that_separates_without_penalty_is_refused():
    time, event = np.arange(1.0, 41), np.arange(40) % 2 == 0
    with pytest.raises(SurvivalError, match="did not converge"):
        fit_ridge(RiskSets(time, event), -time[:, None] / 10, np.zeros(1))
