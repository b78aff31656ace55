import numpy as np
import pandas as pd
import pytest

from tumorbench_utils import baselines, stats
from tumorbench_utils.cohorts import COHORTS, Cohort, read_released_table


def test_score_is_the_covariate_and_its_direction():
    table = pd.DataFrame({"size_mm": [3.0, np.nan, 12.5]}, index=["a", "b", "c"])
    up = baselines.covariate_score(table, "size_mm", 1)
    np.testing.assert_array_equal(up, [3.0, np.nan, 12.5])
    assert up.dtype == np.float64 and list(up.index) == ["a", "b", "c"]
    np.testing.assert_array_equal(baselines.covariate_score(table, "size_mm", -1), -up)
    pd.testing.assert_series_equal(baselines.covariate_score(table, "size_mm", "lower"), -up)
    assert table["size_mm"].tolist()[0] == 3.0  # the table is left as it was


def test_nullable_and_boolean_columns():
    table = pd.DataFrame(
        {"risk": pd.array([0, 5, pd.NA], dtype="Int64"), "benign": [True, False, True]}
    )
    np.testing.assert_array_equal(baselines.covariate_score(table, "risk", -1), [0, -5, np.nan])
    np.testing.assert_array_equal(baselines.covariate_score(table, "benign", 1), [1, 0, 1])


@pytest.mark.parametrize(
    "ordered",
    [
        ["0", "IA", "IB", "IIA", "IIB", "IIIA", "IIIB", "IV"],
        ["I", "II", "IIIa", "IIIb"],
        ["0", "1a", "1b", "2a", "2b", "3", "4"],
        ["Tis", "T1a", "T1b", "T2a", "T2b", "T3", "T4"],
        ["N0", "N1", "N2", "N3"],
        ["M0", "M1a", "M1b"],
    ],
)
def test_stages_are_put_in_order(ordered):
    table = pd.DataFrame({"stage": [*ordered, None, np.nan]})
    score = baselines.covariate_score(table, "stage", 1)
    assert (score.iloc[: len(ordered)].diff().dropna() > 0).all()
    assert score.iloc[len(ordered) :].isna().all()
    categories = table["stage"].astype("category")
    np.testing.assert_array_equal(
        baselines.covariate_score(table.assign(stage=categories), "stage", 1), score
    )


@pytest.mark.parametrize("wrong", ["squamous", "", "V", "5", "12.5", "IIIE", "T1a N0"])
def test_text_without_an_order_is_refused(wrong):
    with pytest.raises(ValueError, match="neither a number nor a stage"):
        baselines.covariate_score(pd.DataFrame({"stage": ["I", wrong]}), "stage", 1)


@pytest.mark.parametrize("wrong", [0, 2, "up", None, True])
def test_the_direction_must_be_said(wrong):
    with pytest.raises(ValueError, match="direction"):
        baselines.covariate_score(pd.DataFrame({"x": [1.0]}), "x", wrong)


def test_unknown_column_is_refused_and_an_infinite_value_is_not_scored():
    table = pd.DataFrame({"x": [1.0, np.inf]})
    with pytest.raises(ValueError, match="column 'y' must stand once"):
        baselines.covariate_score(table, "y", 1)
    with pytest.raises(ValueError, match="infinite"):
        stats.auc([0, 1], baselines.covariate_score(table, "x", 1))


def make_cohort(**columns):
    n = 40
    table = pd.DataFrame(
        {
            "patient_id": np.arange(n) // 2,
            "label": pd.array([0, 0, 1, 1] * (n // 4), dtype="Int64"),
            **columns,
        }
    )
    return Cohort(COHORTS["c4kc_kits"], "released", table)


def test_cohort_baselines_leave_out_what_is_missing_and_say_so():
    size = np.arange(40.0)
    size[3] = np.nan
    cohort = make_cohort(size_mm=size, stage=["1a", "3", "2", "4"] * 10)
    cohort.table.loc[0, "label"] = pd.NA
    frame = baselines.cohort_baselines(cohort).set_index("baseline")
    assert frame.loc["size", ["n", "missing", "direction"]].tolist() == [38, 1, -1]
    assert frame.loc["clinical", ["n", "missing", "patients"]].tolist() == [39, 0, 20]
    there = cohort.table[cohort.table["label"].notna() & cohort.table["size_mm"].notna()]
    expected = stats.auc(there["label"].astype(int), -there["size_mm"])
    assert frame.loc["size", "auc"] == pytest.approx(expected)
    assert (frame["low"] <= frame["auc"]).all() and (frame["auc"] <= frame["high"]).all()


def test_cohort_baselines_without_covariates_or_labels():
    assert baselines.cohort_baselines(make_cohort()).empty
    unlabelled = make_cohort(size_mm=np.arange(40.0))
    unlabelled.table["label"] = pd.array([pd.NA] * 40, dtype="Int64")
    assert baselines.cohort_baselines(unlabelled).empty


def test_intervals_resample_patients_not_lesions():
    # The same patients with ten identical lesions each tell no more.
    rng = np.random.default_rng(0)
    table = pd.DataFrame({"patient_id": range(60), "label": [0, 1] * 30})
    table["size_mm"] = rng.normal(size=60) + 0.8 * table["label"]
    once = Cohort(COHORTS["dlcs"], "released", table)
    often = Cohort(COHORTS["dlcs"], "released", pd.concat([table] * 10, ignore_index=True))
    widths = [
        (frame := baselines.cohort_baselines(c))["high"].iloc[0] - frame["low"].iloc[0]
        for c in (once, often)
    ]
    assert widths[1] == pytest.approx(widths[0], rel=0.15)


def test_rulers_beat_or_meet_the_published_models(reference):
    # Best of ten models by k nearest neighbours, as published.
    for name, best in (("dlcs", 0.676), ("c4kc_kits", 0.734)):
        table = read_released_table(name, reference / "cohorts" / "released")
        table = table[table["used_in_reference"]]
        score = baselines.covariate_score(table, "size_mm", COHORTS[name].size_direction)
        assert stats.auc(table["label"].astype(int), score) > best


def test_what_is_no_table_no_direction_and_no_number_is_refused():
    table = pd.DataFrame({"size_mm": [1.0, 2.0], "wave": [1j, 2.0]})
    with pytest.raises(ValueError, match="a DataFrame"):
        baselines.covariate_score({"size_mm": [1.0]}, "size_mm", 1)
    with pytest.raises(ValueError, match="direction must be"):
        baselines.covariate_score(table, "size_mm", [1])
    with pytest.raises((TypeError, ValueError)):
        baselines.covariate_score(table, "wave", 1)
