"""What the functions of `survival` refuse, and how a cohort becomes a table of patients."""

import numpy as np
import pandas as pd
import pytest

from tumorbench_utils import survival as s
from tumorbench_utils.cohorts import Cohort, CohortCard
from tumorbench_utils.splits import Split

TIME, EVENT, RISK = [1.0, 2, 3, 4], [1, 0, 1, 1], [1.0, 2, 3, 4]
TRAIN = ([1, 2], [1, 0])


def frame(**columns) -> pd.DataFrame:
    """A table of 40 patients, 30 of whom died; the columns given replace its own."""
    rng = np.random.default_rng(0)
    table = pd.DataFrame(
        {"time_days": rng.exponential(500, 40) + 1, "event": np.arange(40) % 4 > 0}
    )
    return table.assign(x=rng.normal(size=40), y=rng.normal(size=40)).assign(**columns)


def cross_validated(X=None, **changes):
    """Evaluate an embedding and a covariate of the 40 patients in two splits."""
    table = frame()
    half = np.arange(20), np.arange(0), np.arange(20, 40)
    splits = [Split(*half), Split(*half[::-1])]
    X = np.random.default_rng(1).normal(size=(40, 5)) if X is None else X
    given = {"covariates": table[["x"]], "splits": splits, **changes}
    time, event = given.pop("time", table["time_days"]), given.pop("event", table["event"])
    return s.evaluate(X, time, event, **given)


text = ["1,5", "2,5", "4,5", "9,5"] * 10
REFUSED = {
    # outcomes
    "zero time": (
        lambda: s.kaplan_meier([0, 1, 2], [1, 0, 1]),
        "above 0 days, but is not in row 0",
    ),
    "missing time": (lambda: s.kaplan_meier([np.nan, 1], [1, 0]), "time: 1 values are missing"),
    "missing, nullable": (lambda: s.kaplan_meier(pd.array([None, 1]), [1, 0]), "time: 1 values"),
    "infinite time": (lambda: s.kaplan_meier([np.inf, 1], [1, 0]), "infinite"),
    "numbers as text": (lambda: s.kaplan_meier(["1", "2"], [1, 0]), "holds text"),
    "dates": (lambda: s.kaplan_meier(pd.to_datetime(["2020-01-01"]), [1]), "holds dates"),
    "two columns": (lambda: s.kaplan_meier([[1, 2], [3, 4]], [1, 0]), "1 dimension"),
    "code 2": (lambda: s.kaplan_meier([1, 2], [1, 2]), "event must hold 0 and 1 only; it holds 2"),
    "swapped": (lambda: s.kaplan_meier([1, 0], [700, 800]), "it holds 700"),
    "missing event": (lambda: s.kaplan_meier([1, 2], [1, None]), "event: 1 values are missing"),
    "lengths": (lambda: s.kaplan_meier([1, 2], [1]), "1 rows where 2"),
    "empty": (lambda: s.kaplan_meier([], []), "empty"),
    "other rows": (
        lambda: s.kaplan_meier(pd.Series([1, 2], list("ab")), pd.Series([1, 0], list("ac"))),
        "same rows",
    ),
    # groups and restricted means
    "one group": (lambda: s.rmst_difference(TIME, EVENT, list("aaaa"), 2), "two groups"),
    "tau beyond": (
        lambda: s.rmst_difference(TIME, [1, 1, 0, 0], list("aabb"), 9),
        "'b' was followed",
    ),
    "early tau": (lambda: s.rmst_difference(TIME, EVENT, list("aabb"), 0.5), "neither group"),
    # measures
    "method": (lambda: s.concordance(TIME, EVENT, RISK, "harel"), "did you mean harrell"),
    "short": (lambda: s.concordance(TIME, EVENT, [1.0, 2]), "risk has 2 rows"),
    "missing risk": (lambda: s.concordance(TIME, EVENT, [1, 2, 3, np.nan]), "risk: .* row 3"),
    "no event": (lambda: s.concordance(TIME, [0] * 4, RISK), "no event among 4"),
    "tau of 0": (lambda: s.concordance(TIME, EVENT, RISK, tau=0), "above 0"),
    "no pair": (lambda: s.concordance(TIME, [0, 0, 0, 1], RISK), "no pair"),
    "short training": (
        lambda: s.concordance(TIME, EVENT, RISK, "uno", train=TRAIN),
        "followed for 2 days",
    ),
    "no case": (lambda: s.time_dependent_auc(TIME, EVENT, RISK, 0.5), "0 patients with an event"),
    "no control": (lambda: s.time_dependent_auc(TIME, EVENT, RISK, 4), "0 observed beyond"),
    "order": (lambda: s.time_dependent_auc(TIME, EVENT, RISK, [3, 2]), "increasing"),
    "no probability": (
        lambda: s.integrated_brier(TIME, EVENT, np.full((4, 2), 1.2), [1.5, 2.5]),
        "probabilities",
    ),
    "missing probability": (
        lambda: s.integrated_brier(TIME, EVENT, np.full((4, 2), np.nan), [1.5, 2.5]),
        "missing",
    ),
    "turned": (
        lambda: s.integrated_brier(TIME, EVENT, np.full((2, 4), 0.5), [1.5, 2.5]),
        "2 rows where 4",
    ),
    "three columns": (
        lambda: s.integrated_brier(TIME, EVENT, [0.5] * 3, [1.5, 2.5]),
        "2 columns of probabilities: 3",
    ),
    "one time": (lambda: s.integrated_brier(TIME, EVENT, [0.5], [1.5]), "two times"),
    # Cox
    "absent": (lambda: s.cox(frame(), ["age"]), "'age'"),
    "outcome": (lambda: s.cox(frame(), ["x", "event"]), "other than"),
    "no outcome": (lambda: s.cox(frame().drop(columns="event"), ["x"]), "'event'"),
    "twice": (lambda: s.cox(frame(), ["x", "x"]), "named once"),
    "none": (lambda: s.cox(frame(), []), "covariates must name"),
    "several rows": (lambda: s.cox(frame(patient_id="p1"), ["x"]), "a patient has several rows"),
    "negative penalizer": (lambda: s.cox(frame(), ["x"], -1), "penalizer"),
    "missing penalizer": (lambda: s.cox(frame(), ["x"], np.nan), "penalizer"),
    "constant": (lambda: s.cox(frame(x=3.1), ["x"]), "'x' is constant"),
    "one category": (lambda: s.cox(frame(x="male"), ["x"]), "'x' is constant"),
    "infinite covariate": (lambda: s.cox(frame(x=[np.inf] * 40), ["x"]), "'x' is .*infinite"),
    "decimal comma": (lambda: s.cox(frame(x=text), ["x"]), "'x' holds numbers as text"),
    "bounds": (lambda: s.cox(frame(x=["< 5", "5.5", "7"] * 13 + ["NA"]), ["x"]), "numbers as text"),
    "covariate dates": (
        lambda: s.cox(frame(x=pd.Timestamp("2020-01-01")), ["x"]),
        "neither numbers nor text",
    ),
    "collinear": (lambda: s.cox(frame(y=2 * frame()["x"] - 1), ["x", "y"]), "combination"),
    "copy of a category": (
        lambda: s.cox(frame(x=["a", "b"] * 20, y=[True, False] * 20), ["x", "y"]),
        "combination",
    ),
    "separation": (lambda: s.cox(frame(y=frame()["event"] * 1.0), ["x", "y"]), "separates"),
    "together": (
        lambda: s.cox(
            frame(time_days=900 - 100 * (frame()["x"] + frame()["y"]), event=1), ["x", "y"]
        ),
        "separates",
    ),
    "level without event": (
        lambda: s.cox(frame(y=np.where(np.arange(40) % 8 == 0, "a", "b")), ["y"]),
        "separates",
    ),
    "few events": (lambda: s.cox(frame(event=np.arange(40) < 2), ["x", "y"]), "more than 2 events"),
    "no event left": (lambda: s.cox(frame(x=np.nan), ["x"]), "0 complete rows; .*'x': 40"),
    "or one time": (lambda: s.cox(frame(time_days=5.0), ["x"]), "or one time"),
    # cross-validation
    "missing feature": (lambda: cross_validated(np.full((40, 2), np.nan)), "X: 80 values"),
    "one dimension": (lambda: cross_validated(np.ones(40)), "X must have 2 dimension"),
    "text feature": (lambda: cross_validated(np.full((40, 2), "a")), "X must hold numbers"),
    "constant features": (lambda: cross_validated(np.ones((40, 5))), "constant among the training"),
    "fewer rows": (lambda: cross_validated(np.ones((39, 5))), "X has 39 rows"),
    "nothing": (lambda: s.evaluate(None, TIME, EVENT), "give an embedding"),
    "covariate text": (
        lambda: cross_validated(covariates=frame(x=text)[["x"]]),
        "'x' holds numbers",
    ),
    "event code": (lambda: cross_validated(event=[2] * 40), "it holds 2"),
    "overlap": (
        lambda: cross_validated(splits=[Split([0, 1], [2], [2, 3])] * 2),
        "split 0 has a pat",
    ),
    "leak": (
        lambda: cross_validated(groups=np.arange(40) // 3),
        "split 0 has a patient in training and in test",
    ),
    "no event in test": (
        lambda: cross_validated(splits=[Split([1, 2, 3], [], [0, 4])] * 2),
        "no event in training or in test",
    ),
    "far tau": (lambda: cross_validated(tau=1e6), "smaller tau"),
    "missing group": (
        lambda: cross_validated(groups=[None, *range(39)]),
        "groups is missing in row 0",
    ),
    "events for a penalty": (
        lambda: cross_validated(event=np.arange(40) % 10 == 0),
        "too few to choose a penalty",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refuses(name):
    call, message = REFUSED[name]
    with pytest.raises(s.SurvivalError, match=message):
        call()


def test_codes_and_mixed_text_are_categories():
    codes = frame(x=["T1", "T2", "3", "T4"] * 10, y=pd.Categorical(["1", "2"] * 20))
    names = ["x[T1]", "x[T2]", "x[T4]", "y[2]"]
    assert s.cox(codes, ["x", "y"], 0.1).summary.index.tolist() == names


def cohort(table: pd.DataFrame) -> Cohort:
    return Cohort(CohortCard(key="own", title="own"), "phantom", table)


def lesions(**columns) -> pd.DataFrame:
    """Six lesions of four patients: a has three, b has not been followed."""
    return pd.DataFrame(
        {
            "lesion_id": [f"l{i}" for i in range(6)],
            "patient_id": list("aaabcd"),
            "time_days": [100.0, 100, 100, 0, 300, np.nan],
            "event": pd.array([1, 1, 1, 0, 1, None], dtype="Int64"),
            "size_mm": [5.0, 9, np.nan, 4, 3, 2],
        }
    ).assign(**columns)


def test_one_row_a_patient_and_the_others_are_listed():
    clinical = s.clinical_table(cohort(lesions()))
    assert clinical.table.index.tolist() == ["l1", "l4"]  # the largest lesion stands for a
    reasons = {row["lesion_id"]: row["reason"] for row in clinical.excluded}
    other = "another lesion of the patient"
    assert reasons == {"l0": other, "l2": other, "l3": "no follow-up", "l5": "no outcome"}
    unknown = s.clinical_table(cohort(lesions().drop(columns="size_mm")))
    assert unknown.table.index.tolist() == ["l0", "l4"]


@pytest.mark.parametrize(
    ("sex", "expected"),
    [([0, 1, 1, 0, 1, 1], [1, 1]), (["M", "F", "F", "m", "M", None], ["f", "m"])],
)
def test_sex_may_be_a_number_or_text(sex, expected):
    clinical = s.clinical_table(cohort(lesions(sex=sex)))
    assert clinical.table["sex"].tolist() == expected and clinical.clinical == ["sex"]


def test_tables_without_patients_to_follow_are_refused():
    for table, message in (
        (lesions(event=pd.array([1, 0, 1, 0, 1, 0])), "patient 'a' has two values of 'event'"),
        (lesions(time_days=0.0), "no row with a follow-up"),
        (lesions().drop(columns="event"), "'event'"),
    ):
        with pytest.raises(s.SurvivalError, match=message):
            s.clinical_table(cohort(table))
