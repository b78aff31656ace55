import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import SimpleITK as sitk

from tumorbench_utils import results, survival
from tumorbench_utils.cohorts import COHORTS, Cohort, read_released_table
from tumorbench_utils.pages import cohort as page


def make_cohort(name="c4kc_kits", edition="released", n=60):
    rng = np.random.default_rng(0)
    label = pd.array(np.arange(n) % 3 > 0, dtype="Int64")
    label[5::10] = pd.NA
    table = pd.DataFrame(
        {
            "lesion_id": [f"L{i:02d}" for i in range(n)],
            "patient_id": [f"P{i // 2:02d}" for i in range(n)],
            "label": label,
            "label_reference": label,
            "used_in_reference": label.notna() if hasattr(label, "notna") else ~pd.isna(label),
            "size_mm": rng.uniform(5, 50, n),
            "stage": ["1a", "3"] * (n // 2),
            "isup_grade": [np.nan, 2.0, 3.0] * (n // 3),
            "time_days": rng.uniform(0, 3000, n),
            "event": pd.array(rng.random(n) < 0.4, dtype="Int64"),
        }
    )
    table["time_days"] = table["time_days"].where(table.index != 0, 0.0)
    return Cohort(COHORTS[name], edition, table)


FLOW = {
    "luna16": [1185, 677],
    "dlcs": [2487, 1714],
    "nsclc_radiomics": [421, 420],
    "nsclc_radiogenomics": [144, 143, 133],
    "c4kc_kits": [210, 134],
    "colorectal_liver_metastases": [197, 194],
    "rider_lung_ct": [52],
}


@pytest.mark.parametrize("name", list(COHORTS))
def test_flow_names_every_step_that_loses_lesions(name):
    steps = page.flow(COHORTS[name])
    assert steps["lesions"].tolist() == FLOW[name]
    assert (-steps["lesions"].diff().dropna() == steps["left_out"][:-1].to_numpy()).all()
    assert steps["reason"].iloc[:-1].str.len().gt(0).all() and steps["reason"].iloc[-1] == ""


def test_flow_is_that_of_the_released_tables(reference):
    for name, card in COHORTS.items():
        table = read_released_table(name, reference / "cohorts" / "released")
        steps = page.flow(card)["lesions"].tolist()
        used = table["used_in_reference"] & table["label"].notna()
        assert steps[-1] == (used.sum() if used.any() else len(table))
        if card.exclusions:
            assert len(table) in steps


def test_missing_compares_the_label_with_and_without_the_covariate():
    cohort = make_cohort()
    row = page.missing(cohort).loc["isup_grade"]
    gone = cohort.table["isup_grade"].isna()
    assert row["missing"] == 20 and row["share"] == pytest.approx(1 / 3)
    expected = cohort.table["label"][gone].mean()
    assert row["label 1 if missing"] == pytest.approx(expected)
    assert page.missing(make_cohort("rider_lung_ct")).empty


def test_anomalies_are_counted_with_an_example():
    cohort = make_cohort()
    assert page.anomalies(cohort).empty
    one = {"column": "age", "value": 1.0, "note": "a child"}
    cohort.table.attrs["anomalies"] = [one | {"lesion_id": lesion} for lesion in ("L03", "L05")]
    found = page.anomalies(cohort).loc[("age", "a child")]
    assert found.tolist() == [2, "L03"]


def test_leakage_of_a_table_in_which_patients_have_two_lesions():
    frame = page.leakage(make_cohort(n=120).table)
    published, grouped = frame["share"]
    assert published > 0.2 and grouped == 0


def test_comparison_puts_the_truth_beside_phantoms():
    cohort = make_cohort("dlcs", "phantom")
    signal = cohort.table["label"].astype("Float64").fillna(0).astype(float)
    cohort.table["true_logit"] = signal
    rows = page.comparison(cohort).set_index("name")
    assert rows.loc["best reachable (truth)", "auc"] == 1
    assert list(rows.index) == ["size: size_mm", "best reachable (truth)"]


def test_comparison_adds_the_published_rows_and_label_only_where_they_differ():
    cohort = make_cohort()
    names = page.comparison(cohort)["name"].tolist()
    assert names[:2] == ["size: minus size_mm", "clinical: minus stage"]
    assert names[2].startswith("best published: ") and len(names) == 3
    cohort.table.loc[0, "label_reference"] = 1 - cohort.table.loc[0, "label"]
    names = page.comparison(cohort)["name"].tolist()
    assert names[2:4] == [
        "size: minus size_mm, published rows and label",
        "clinical: minus stage, published rows and label",
    ]


def test_published_best_is_the_best_of_the_first_release():
    figures = results.published("knn_auc")
    first = figures[figures["release"] == figures["release"].min()]
    for name, rows in first.groupby("cohort"):
        assert page.published_best(name)["auc"] == rows["auc"].max()


def test_every_model_and_cohort_has_an_overlap_with_a_reason():
    overlap = results.published("pretraining_overlap")
    assert set(overlap["cohort"]) == set(COHORTS)
    assert set(overlap["model"]) == set(results.published("parameters")["model"])
    assert not overlap.duplicated(["model", "cohort"]).any() and len(overlap) == 70
    assert set(overlap["overlap"]) == {"seen", "possible", "unknown", "not seen"}
    assert overlap.notna().all(axis=None)


def test_lesions_per_patient_are_those_of_the_released_table(reference):
    table = read_released_table("dlcs", reference / "cohorts" / "released")
    used = table[table["used_in_reference"]]
    patients = used.groupby("patient_id").agg(
        lesions=("lesion_id", "size"), label=("label", "first")
    )
    counted = patients.value_counts().to_dict()
    stored = results.published("dlcs_lesions_per_patient")
    assert counted == {(r.lesions, r.label): r.patients for r in stored.itertuples()}


def test_pictures_are_cut_around_their_seed_front_up_right_side_left(tmp_path):
    array = np.full((80, 80, 80), -800, np.int16)
    array[40, 30, 50] = 300  # 10 mm to the front and 10 mm to the patient's left of the seed
    sitk.WriteImage(sitk.GetImageFromArray(array), str(tmp_path / "scan.nrrd"))
    row = {"image_path": str(tmp_path / "scan.nrrd"), "label": 1, "size_mm": 7.0}
    rows = pd.DataFrame([row | dict(coord_x=40, coord_y=40, coord_z=40)])
    _, axes = plt.subplots(1, 1, squeeze=False)
    page.draw_gallery(axes, Cohort(COHORTS["luna16"], "full", rows), rows)
    picture = axes[0, 0].get_images()[0].get_array()
    assert picture.shape == (64, 64)
    row, column = np.unravel_index(picture.argmax(), picture.shape)
    assert (row - 32, column - 32) == pytest.approx((-10, 10), abs=1)
    assert axes[0, 0].get_title() == "label 1, 7 mm"


def test_lesions_are_chosen_across_sizes_half_of_each_class():
    rows = page.across_sizes(make_cohort(), 6)
    assert rows["label"].tolist() == [0, 0, 0, 1, 1, 1]
    assert rows["size_mm"].iloc[:3].is_monotonic_increasing


def test_figures_take_what_the_tables_hold():
    cohort = make_cohort()
    cohort.table["patient_id"] = cohort.table["lesion_id"]
    _, axes = plt.subplots(2, 2)
    page.draw_flow(axes[0, 0], page.flow(cohort.card))
    page.draw_by_label(axes[0, 1], cohort.table, "size_mm")
    page.draw_comparison(axes[1, 0], page.comparison(cohort))
    # The patient with 0 days of follow-up is left out of the curve; the median is the library's.
    said = page.draw_survival(axes[1, 1], cohort)
    there = cohort.table[cohort.table["time_days"] > 0]
    curve = survival.kaplan_meier(there["time_days"], there["event"])
    assert f"median survival is {curve.median / 365.25:.1f} years" in said.data
    drawn = axes[1, 1].lines[0].get_ydata()
    assert drawn.min() == pytest.approx(curve.table["survival"].min())
    assert axes[0, 1].get_xscale() == "log"
    plt.close("all")
