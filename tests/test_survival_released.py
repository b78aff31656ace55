"""The clinical models of the released tables against lifelines and scikit-survival by hand.

The raw CSV files are read here once more, with pandas alone, so that the way through
`load_cohort` and `clinical_table` is checked as well.
"""

import lifelines
import numpy as np
import pandas as pd
import pytest
import sksurv.metrics as sk
from sksurv.linear_model import CoxPHSurvivalAnalysis
from sksurv.util import Surv

from tumorbench_utils.cohorts import load_cohort
from tumorbench_utils.splits import grouped_splits
from tumorbench_utils.survival import (
    SurvivalError,
    clinical_table,
    concordance,
    cox,
    evaluate,
    kaplan_meier,
)

ROMAN = {"I": 1, "II": 2, "IIIa": 3, "IIIb": 3}


def radiomics(folder) -> pd.DataFrame:
    raw = pd.read_csv(folder / "nsclc_radiomics" / "annotations.csv")
    return pd.DataFrame(
        {
            "time_days": raw["Survival.time"],
            "event": raw["deadstatus.event"],
            "age": raw["age"],
            "male": raw["gender"].eq("male"),
            "score": raw["Overall.Stage"].map(ROMAN),
        }
    )


def radiogenomics(folder) -> pd.DataFrame:
    raw = pd.read_csv(folder / "nsclc_radiogenomics" / "annotations.csv")
    raw = raw[raw["Case ID"] != "R01-038"]
    return pd.DataFrame(
        {
            "time_days": raw["Survival.time"],
            "event": raw["deadstatus.event"],
            "age": raw["Age at Histological Diagnosis"],
            "male": raw["Gender"].eq("Male"),
        }
    )


def kits(folder) -> pd.DataFrame:
    raw = pd.read_csv(folder / "c4c-kits" / "data.csv")
    raw = raw[raw["vital_days_after_surgery"] > 0]
    return pd.DataFrame(
        {
            "time_days": raw["vital_days_after_surgery"],
            "event": raw["vital_status"].eq("dead"),
            "age": raw["age_at_nephrectomy"],
            "male": raw["gender"].eq("male"),
            "score": raw["pathology_t_stage"].str[0].astype(int),
            "size_mm": raw["radiographic_size"] * 10,
        }
    )


def liver(folder) -> pd.DataFrame:
    raw = pd.read_csv(folder / "colorectal_liver_metastases" / "data.csv")
    return pd.DataFrame(
        {
            "time_days": raw["overall_survival_months"] * 30.4375,
            "event": raw["vital_status"],
            "age": raw["age"],
            "male": raw["sex"].eq(1),
            "score": raw["clinrisk_score"].where(raw["clinrisk_score"] >= 0),
        }
    )


BY_HAND = {
    "nsclc_radiomics": (radiomics, 421, 373),
    "nsclc_radiogenomics": (radiogenomics, 143, 51),
    "c4kc_kits": (kits, 207, 21),
    "colorectal_liver_metastases": (liver, 197, 107),
}


@pytest.fixture(params=BY_HAND)
def both(request, reference, monkeypatch):
    """The clinical table of a cohort, and the same made by hand."""
    monkeypatch.setenv("TUMORBENCH_DATA", str(reference))
    by_hand, n, events = BY_HAND[request.param]
    clinical = clinical_table(load_cohort(request.param, "released"))
    hand = by_hand(reference / "cohorts" / "released").astype(float)
    assert len(hand) == n and hand["event"].sum() == events
    return clinical, hand


def test_medians(both):
    clinical, hand = both
    km = kaplan_meier(clinical.table["time_days"], clinical.table["event"])
    fit = lifelines.KaplanMeierFitter().fit(hand["time_days"], hand["event"])
    low, high = lifelines.utils.median_survival_times(fit.confidence_interval_).iloc[0]
    assert km.table["at_risk"][0] == len(hand)
    assert km.median == pytest.approx(fit.median_survival_time_)
    assert km.median_interval == pytest.approx((low, high))


def test_cox_models(both):
    clinical, hand = both
    result = cox(clinical.table, clinical.clinical)
    if "score" not in hand:  # the stage group is worked out by the reader
        hand["score"] = clinical.table["stage"].to_numpy()
    hand = hand[["time_days", "event", "age", "male", "score"]]
    complete = hand.dropna()
    fit = lifelines.CoxPHFitter().fit(complete, "time_days", "event")
    assert result.left_out == len(hand) - len(complete)
    assert result.summary["coef"].to_numpy() == pytest.approx(fit.params_.to_numpy(), abs=1e-6)
    assert result.summary["p"].to_numpy() == pytest.approx(fit.summary["p"].to_numpy(), abs=1e-6)
    other = CoxPHSurvivalAnalysis(ties="efron").fit(
        complete[["age", "male", "score"]],
        Surv.from_arrays(complete["event"] == 1, complete["time_days"]),
    )
    # lifelines stops iterating a little earlier: far within the standard error
    assert (result.summary["coef"] - other.coef_).abs().lt(0.001 * result.summary["se"]).all()
    assert result.concordance == pytest.approx(fit.concordance_index_, abs=1e-6)


def test_cross_validated_concordance(both):
    """Same splits, lifelines fits and scikit-survival scores: only the slight ridge differs."""
    clinical, _ = both
    table = clinical.table[clinical.table[clinical.clinical].notna().all(axis=1)].reset_index()
    splits = grouped_splits(table, stratify="event", n_repeats=5)
    result = evaluate(None, table["time_days"], table["event"], table[clinical.clinical], splits)
    data = table[["time_days", "event", *clinical.clinical]].assign(sex=table["sex"].eq("male"))
    data = data.astype(float)
    for number, split in enumerate(splits):  # noqa: B007 (used by query)
        train, test = data.iloc[np.r_[split.train, split.val]], data.iloc[np.sort(split.test)]
        fit = lifelines.CoxPHFitter().fit(train, "time_days", "event")
        risk = fit.predict_log_partial_hazard(test).to_numpy()
        y = [Surv.from_arrays(part["event"] == 1, part["time_days"]) for part in (train, test)]
        expected = {
            "uno": sk.concordance_index_ipcw(*y, risk, result.tau)[0],
            "harrell": concordance(test["time_days"], test["event"], risk, tau=result.tau),
        }
        own = result.scores.query("split == @number and model == 'clinical'").set_index("metric")
        for metric, value in expected.items():
            assert own["value"][metric] == pytest.approx(value, abs=0.03)


def test_stage_violates_proportional_hazards_in_nsclc_radiomics(reference, monkeypatch):
    monkeypatch.setenv("TUMORBENCH_DATA", str(reference))
    clinical = clinical_table(load_cohort("nsclc_radiomics", "released"))
    test = cox(clinical.table, clinical.clinical).ph_test
    assert test.loc["stage", "p"] < 0.05 < test.loc["age", "p"]


def test_no_follow_up_is_refused_and_then_listed(reference, monkeypatch):
    monkeypatch.setenv("TUMORBENCH_DATA", str(reference))
    cohort = load_cohort("c4kc_kits", "released")
    with pytest.raises(SurvivalError, match="time must be above 0 days"):
        cox(cohort.table, ["age"])
    excluded = clinical_table(cohort).excluded
    assert {row["lesion_id"][-3:] for row in excluded} == {"025", "185", "158"}
    assert {row["reason"] for row in excluded} == {"no follow-up"}


def test_disease_free_survival(reference, monkeypatch):
    monkeypatch.setenv("TUMORBENCH_DATA", str(reference))
    cohort = load_cohort("colorectal_liver_metastases", "released")
    clinical = clinical_table(cohort, ("dfs_days", "dfs_event"))
    raw = pd.read_csv(
        reference / "cohorts" / "released" / "colorectal_liver_metastases" / "data.csv"
    )
    fit = lifelines.KaplanMeierFitter().fit(
        raw["months_to_DFS_progression"] * 30.4375, raw["vital_status_DFS"]
    )
    km = kaplan_meier(clinical.table["time_days"], clinical.table["event"])
    assert km.median == pytest.approx(fit.median_survival_time_)
    with pytest.raises(SurvivalError, match="'dfs_days'"):
        clinical_table(load_cohort("c4kc_kits", "released"), ("dfs_days", "dfs_event"))
