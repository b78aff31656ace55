"""The published figures: keys, consistency, and what they say about their own making."""

import numpy as np
import pytest

from tumorbench_utils.results import published
from tumorbench_utils.splits import reference_splits

COHORTS = {
    "luna16",
    "dlcs",
    "nsclc_radiomics",
    "nsclc_radiogenomics",
    "c4kc_kits",
    "colorectal_liver_metastases",
}
MODELS = {
    "fmcib",
    "ct_fm",
    "ct_clip_vit",
    "pasta",
    "vista3d",
    "voco",
    "suprem",
    "merlin",
    "medimageinsight",
    "models_genesis",
}


def test_tables_use_the_keys_of_the_book():
    for name in ("knn_auc", "probes", "ensembles", "overlap", "cohort_sizes"):
        assert set(published(name)["cohort"]) <= COHORTS
    for name in ("knn_auc", "robustness_kappa", "rider_cosine", "parameters"):
        assert set(published(name)["model"]) == MODELS
    overlap = published("overlap")
    assert set(overlap["model"]) | set(overlap["other"]) == MODELS
    assert set(published("probes")["model"]) == MODELS - {"medimageinsight"} | {
        "untrained_resnet18"
    }
    with pytest.raises(KeyError, match="did you mean knn_auc"):
        published("knn_acu")


def test_tables_are_complete_and_hold_nobody():
    table = published("knn_auc")
    assert table.groupby("release").size().to_dict() == {"2025-03": 60, "2025-12": 54}
    assert not table.duplicated(["release", "cohort", "model"]).any()
    centre = (table["low"] + table["high"]) / 2
    assert centre.to_numpy() == pytest.approx(table["auc"].to_numpy(), abs=1e-12)
    for name in ("knn_auc", "probes", "robustness_kappa", "rider_cosine", "overlap"):
        assert not [column for column in published(name) if "id" in column.split("_")]


def test_releases_differ_where_the_readme_says():
    wide = published("knn_auc").pivot(index=["cohort", "model"], columns="release", values="auc")
    wide = wide.dropna()
    moved = (wide["2025-03"] - wide["2025-12"]).abs()
    large = moved[moved > 2e-4]
    assert set(large.index.get_level_values("model")) == {"voco"}
    small = {("dlcs", "ct_clip_vit"), ("dlcs", "merlin"), ("luna16", "pasta")}
    assert set(moved[(moved > 0) & (moved <= 2e-4)].index) - {("nsclc_radiomics", "voco")} == small


def test_probes_repeat_the_knn_of_the_second_release():
    probes, knn = published("probes"), published("knn_auc")
    knn = knn[knn["release"] == "2025-12"]
    both = probes[probes["probe"] == "knn"].merge(knn, on=["cohort", "model"])
    assert len(both) == 54
    assert both["auc_x"].to_numpy() == pytest.approx(both["auc_y"].to_numpy(), abs=1e-5)


@pytest.mark.parametrize("cohort", sorted(COHORTS - {"dlcs"}))
def test_published_intervals_hold_n_minus_one(cohort):
    """Sums of squared AUCs are whole numbers of squared steps; only n - 1 makes them so."""
    sizes = published("cohort_sizes").set_index("cohort").loc[cohort]
    labels = np.repeat([0, 1], [sizes["label_0"], sizes["label_1"]])
    test = labels[reference_splits(labels)[0].test]
    steps = 2 * int((test == 0).sum()) * int((test == 1).sum())
    table = published("knn_auc").query("cohort == @cohort and release == '2025-03'")
    total = 10 * table["auc"] * steps
    assert np.abs(total - total.round()).max() < 1e-6
    sd = (table["high"] - table["low"]) / 2 * np.sqrt(10) / 1.96

    def distance(ddof):
        squares = ((10 - ddof) * sd**2 + 10 * table["auc"] ** 2) * steps**2
        return np.abs(squares - squares.round())

    assert distance(1).max() < 0.01
    assert distance(0).max() > 0.3
