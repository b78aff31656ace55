"""Repeatability and agreement: hand-worked cases, a second library, coverage, and bad input."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import SimpleITK as sitk
import torch

from tumorbench_utils import checks, robustness
from tumorbench_utils.patches import PatchError, PatchSpec
from tumorbench_utils.robustness import RobustnessError, embeddings, perturbation

FIRST = [20.16, 20.1, 18.59, 16.59, 15.71, 14.36, 17.45, 24.77, 14.78, 16.54, 20.55, 22.19]
SECOND = [21.24, 22.21, 15.85, 15.74, 18.65, 16.21, 19.01, 26.98, 17.07, 16.68, 25.04, 21.57]


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def pairs(rng, n=30, between=5.0, within=1.0, shift=0.0):
    truth = rng.normal(20, between, n)
    return truth + rng.normal(0, within, n), truth + shift + rng.normal(0, within, n)


@pytest.mark.parametrize(
    ("form", "value", "low", "high"), [("A1", 0.804118, 0.41, 0.94), ("C1", 0.842235, 0.54, 0.95)]
)
def test_icc_equals_pingouin(form, value, low, high):
    # pingouin 0.7.0, intraclass_corr; it rounds the intervals to two decimals.
    found = robustness.icc(FIRST, SECOND, form)
    assert found.value == pytest.approx(value, abs=1e-6)
    assert found[1:] == pytest.approx((low, high), abs=0.005)


def test_within_subject_statistics_by_hand():
    # Differences 1, -1, 2, means 10.5, 19.5, 29.
    first, second = [11, 19, 30], [10, 20, 28]
    found = robustness.repeatability_coefficient(first, second)
    assert found.value == pytest.approx(2.7718 * np.sqrt((1 + 1 + 4) / 6), abs=1e-3)
    assert found.method == "chi-squared"
    wcv = np.sqrt(((1 / 10.5) ** 2 + (1 / 19.5) ** 2 + (2 / 29) ** 2) / 6)
    assert robustness.within_cv(first, second).value == pytest.approx(wcv)


def test_bland_altman_by_hand():
    difference = np.array([1, -1, 2, 0, 3, -2, 1, 1, 0, -1.0])
    found = robustness.bland_altman(difference + 10, np.full(10, 10.0))
    mean, sd = difference.mean(), difference.std(ddof=1)
    assert found.loc["bias", "value"] == pytest.approx(mean)
    assert found.loc["upper", "value"] == pytest.approx(mean + 1.959964 * sd)
    assert found.loc["bias", "high"] == pytest.approx(mean + 2.262157 * sd / np.sqrt(10))
    up, down = found.loc["upper"], found.loc["lower"]
    assert up["low"] < up["value"] < up["high"]
    assert up["high"] - up["value"] > up["value"] - up["low"]
    assert mean - down["low"] == pytest.approx(up["high"] - mean)


def test_ccc_by_hand():
    # Means 2 and 3, variances 2/3 (n in the denominator), covariance 2/3.
    found = robustness.ccc([1, 2, 3], [2, 3, 4])
    assert found.value == pytest.approx(2 * (2 / 3) / (4 / 3 + 1))


@pytest.mark.parametrize(
    ("statistic", "truth"),
    [
        (lambda a, b: robustness.repeatability_coefficient(a, b), 2.7718),
        (lambda a, b: robustness.icc(a, b, "A1"), 25 / 26),
        (lambda a, b: robustness.icc(a, b, "C1"), 25 / 26),
        (lambda a, b: robustness.ccc(a, b), 25 / 26),
        (lambda a, b: robustness.bland_altman(a, b).loc["bias"].tolist(), 0.0),
        (lambda a, b: robustness.bland_altman(a, b).loc["upper"].tolist(), 1.959964 * np.sqrt(2)),
    ],
    ids=["rc", "icc_a1", "icc_c1", "ccc", "bias", "upper_limit"],
)
def test_intervals_cover_the_truth(statistic, truth):
    hits = 0
    for seed in range(400):
        _, low, high = statistic(*pairs(np.random.default_rng(seed), n=26))
        hits += low <= truth <= high
    # 400 draws at 95%: three standard errors are 3.3 points.
    assert 0.915 <= hits / 400 <= 0.985


def test_within_cv_covers_its_truth():
    hits = 0
    for seed in range(400):
        rng = np.random.default_rng(seed)
        truth = np.exp(rng.normal(3, 0.5, 26))
        a, b = (truth * (1 + 0.05 * rng.normal(size=26)) for _ in range(2))
        _, low, high = robustness.within_cv(a, b)
        hits += low <= 0.05 <= high
    assert 0.915 <= hits / 400 <= 0.985


def test_icc_a1_counts_a_shift_and_c1_forgives_it(rng):
    first, second = pairs(rng, shift=5)
    assert robustness.icc(first, second, "A1").value < 0.8
    assert robustness.icc(first, second, "C1").value > 0.9
    equal = robustness.icc(first, first)
    assert equal == (1, 1, 1)


def test_relative_repeatability_is_in_per_cent():
    first, second = [11, 19, 30], [10, 20, 28]
    relative = robustness.repeatability_coefficient(first, second, relative=True)
    expected = [277.1808 * x for x in robustness.within_cv(first, second)]
    assert relative == pytest.approx(expected, rel=1e-6)
    with pytest.raises(RobustnessError, match="above zero"):
        robustness.repeatability_coefficient([0, 1, 2], [1, 2, 3], relative=True)


def test_reliable_components_by_counting(rng):
    subjects = rng.normal(size=(30, 40))
    noise = np.repeat([0.01, 3.0], 20)
    first, second = (subjects + noise * rng.normal(size=(30, 40)) for _ in range(2))
    found = robustness.profile(first, second)
    assert found["icc_above_075"] == pytest.approx(0.5)
    assert found["icc_above_075_low"] <= 0.5 <= found["icc_above_075_high"]
    first[:, :10] = second[:, :10] = 1.0  # constant components are of no use
    assert robustness.profile(first, second)["icc_above_090"] == pytest.approx(0.25)


def test_interval_of_the_reliable_share_covers():
    # The share that a study of this size expects, by simulation, against its intervals.
    noise = np.linspace(0.1, 0.8, 30)

    def study(seed):
        rng = np.random.default_rng(seed)
        subjects = rng.normal(size=(26, 30))
        return robustness.profile(
            *(subjects + noise * rng.normal(size=subjects.shape) for _ in range(2))
        )

    found = pd.DataFrame([study(seed) for seed in range(150)]).filter(like="icc_above_075")
    low, high = found["icc_above_075_low"], found["icc_above_075_high"]
    truth = found["icc_above_075"].mean()
    assert ((low <= truth) & (truth <= high)).mean() >= 0.9


def test_profile_holds_what_the_functions_say(rng):
    first = rng.normal(size=(26, 12))
    second = first + 0.3 * rng.normal(size=first.shape)
    row = robustness.profile(first, second)
    assert row["n"] == 26 and row["chance"] == pytest.approx(1 / 26)
    again = robustness.reidentification(first, second)
    assert row["reidentification"] == again.value
    assert row["reidentification_low"] == again.low
    assert row["whitened_cosine"] == pytest.approx(
        embeddings.whitened_cosine(first, second)["within"].mean()
    )
    assert row["percentile_low"] <= row["percentile"] <= row["percentile_high"]
    assert not row["collapsed"]


def test_reidentification_and_discriminability_of_extremes(rng):
    first = rng.normal(size=(26, 10))
    near = first + 0.01 * rng.normal(size=first.shape)
    assert robustness.reidentification(first, near).value == 1
    assert robustness.discriminability(first, near).value == 1
    hits = [
        robustness.reidentification(*np.random.default_rng(s).normal(size=(2, 26, 10))).value
        for s in range(200)
    ]
    assert np.mean(hits) == pytest.approx(1 / 26, abs=0.01)
    value = [
        robustness.discriminability(*np.random.default_rng(s).normal(size=(2, 26, 10))).value
        for s in range(200)
    ]
    assert np.mean(value) == pytest.approx(0.5, abs=0.01)


def test_reidentification_by_hand_with_one_feature_and_a_tie():
    # Nearest first scans: 10 -> 10.4 itself; 20 -> 19 itself; 30 and 30 tie.
    found = robustness.reidentification([10, 20, 30, 30], [10.4, 19, 31, 33])
    assert found.value == pytest.approx((1 + 1 + 0.5 + 0.5) / 4)


def test_a_collapsed_embedding_has_high_cosine_and_is_found_out(rng):
    offset = 100 * np.ones(20)
    noise = [offset + 0.1 * rng.normal(size=(26, 20)) for _ in range(2)]
    table = embeddings.whitened_cosine(*noise)
    assert table["raw"].min() > 0.9999
    assert abs(table["within"].mean()) < 0.3
    assert abs(table["percentile"].mean() - 0.5) < 0.2
    assert robustness.collapse(noise[0])["collapsed"]
    good = rng.normal(size=(26, 20))
    table = embeddings.whitened_cosine(good, good + 0.1 * rng.normal(size=good.shape))
    assert table["within"].min() > 0.8
    assert not robustness.collapse(good)["collapsed"]


@pytest.mark.parametrize("unit", [1.0, 1e-20, 1e20])
def test_effective_rank_by_hand_in_any_unit(unit):
    def rank(rows):
        return robustness.collapse(unit * np.array(rows))["effective_rank"]

    assert rank([[1, 0], [-1, 0], [0, 1], [0, -1.0]]) == pytest.approx(2)
    assert rank(np.outer([1, 2, 3], [1, 1])) == pytest.approx(1)
    assert rank(np.full((4, 3), 0.1)) == 0
    good = robustness.collapse(unit * np.random.default_rng(0).normal(size=(26, 20)))
    assert not good["collapsed"]


def test_one_feature_tells_subjects_apart_in_any_unit():
    first, second = np.array([10, 20, 30, 40.0]), np.array([10.4, 19, 31, 39])
    for unit in (1, 1e-20, 1e20):
        assert robustness.reidentification(unit * first, unit * second).value == 1
        assert robustness.discriminability(unit * first, unit * second).value == 1


def test_component_icc_equals_the_single_one_and_leaves_constants_out(rng):
    first, second = rng.normal(size=(2, 20, 3)) + 3 * rng.normal(size=(20, 3))
    first[:, 1] = second[:, 1] = 4
    found = robustness.component_icc(first, second)
    assert found.index.tolist() == [0, 2]
    assert found.loc[2].tolist() == pytest.approx(robustness.icc(first[:, 2], second[:, 2]))


def test_series_are_joined_by_subject_never_by_position(rng):
    first = pd.Series(rng.normal(size=20), index=[f"p{i}" for i in range(20)])
    second = first.sample(frac=1, random_state=0)
    assert robustness.icc(first, second).value == pytest.approx(1)
    assert robustness.reidentification(first, second).value == 1
    for function in (robustness.icc, robustness.reidentification):
        with pytest.raises(RobustnessError, match="same rows, once each: look at 'p3'"):
            function(first, second.drop("p3"))
        with pytest.raises(RobustnessError, match="twice"):
            function(pd.concat([first, first[:1]]), second)


def test_columns_of_embeddings_are_joined_by_name(rng):
    first = pd.DataFrame(rng.normal(size=(12, 5)), columns=list("abcde"))
    second = first + 0.01
    assert robustness.reidentification(first, second[list("edcba")]).value == 1
    with pytest.raises(RobustnessError, match=r"features is not of the same rows.*'a'"):
        robustness.reidentification(first, second.rename(columns={"a": "z"}))


NAN = float("nan")
BOUNDARY = [
    ("icc", ([1, 2, 3], [1, 2]), "2 rows where 3"),
    ("ccc", ([1, 2], [1, 2]), "at least 3"),
    ("icc", ([], []), "at least 3"),
    ("within_cv", ([1, 2, NAN], [1, 2, 3]), "first: 1 values are missing"),
    ("bland_altman", (["a", "b", "c"], [1, 2, 3]), "numbers"),
    ("ccc", (["1", "2", "3"], [1, 2, 3]), "numbers"),
    ("icc", ([1j, 2, 3], [1, 2, 3]), "numbers"),
    ("bland_altman", ([[1, 2, 3]], [[1, 2, 3]]), "dimension"),
    ("within_cv", ([1, 2, -3], [1, 2, 3]), "above zero"),
    ("icc", ([1, 1, 1], [1, 1, 1]), "no interval"),
    ("icc", ([1, 1, 1], [2, 2, 2], "C1"), "no interval"),
    ("icc", ([1, 2, 3], [3, 2, 1]), "no interval"),
    ("icc", ([1, 2, 3], [1, 2, 4], "B1"), "unknown form"),
    ("ccc", ([1, 1, 1], [1, 2, 3]), "same for all"),
    ("reidentification", ([["a"]] * 3, [[1.0]] * 3), "numbers"),
    ("discriminability", (np.empty((12, 0)), np.empty((12, 0))), "same features"),
    ("whitened_cosine", (np.ones((9, 2)), np.ones((9, 2))), "at least 10"),
    ("whitened_cosine", (np.ones((12, 2)), np.ones((12, 2))), "nothing can be whitened"),
    ("collapse", ([[1, NAN], [1, 2], [2, 3]],), "missing or infinite"),
    ("collapse", (np.ones((2, 4)),), "at least 3"),
    ("collapse", (np.zeros((4, 2)),), "no direction"),
]


@pytest.mark.parametrize(("name", "arguments", "message"), BOUNDARY)
def test_what_would_give_a_wrong_number_is_refused(name, arguments, message):
    with pytest.raises(checks.InputError, match=message):
        getattr(robustness, name, embeddings.whitened_cosine)(*arguments)


@pytest.fixture
def cohort(tmp_path, rng):
    paths = []
    for n in range(2):
        image = sitk.GetImageFromArray(rng.normal(-500, 200, (24, 24, 24)).astype(np.int16))
        paths.append(str(tmp_path / f"{n}.nii.gz"))
        sitk.WriteImage(image, paths[-1])
    table = pd.DataFrame(
        {
            "lesion_id": ["a", "b", "c"],
            "image_path": [paths[0], paths[1], paths[0]],
            "coord_x": [10.0, 12, 14],
            "coord_y": [12.0, 12, 12],
            "coord_z": [12.0, 12, 12],
        }
    )
    return SimpleNamespace(table=table)


class Pixels:
    """A model whose embedding is the middle of the patch."""

    spec = PatchSpec(size=(8, 8, 8))
    dim = 8

    def encode(self, module, patches):
        return patches[:, 0, 3:5, 3:5, 3:5].flatten(1)


def test_jitter_shifts_each_lesion_by_the_stated_distance(cohort):
    moved = robustness.jitter(cohort, Pixels(), None, 3.0, n=4, seed=1)
    assert moved.shape == (12, 8)
    assert moved.index.names == ["trial", "lesion_id"]
    assert moved.loc[2].index.tolist() == ["a", "b", "c"]
    pd.testing.assert_frame_equal(
        moved, robustness.jitter(cohort, Pixels(), None, 3.0, n=4, seed=1)
    )
    np.testing.assert_allclose(np.linalg.norm(perturbation.shifts(3, 50, 0), axis=1), 3)


def test_jitter_of_zero_is_the_embedding_itself(cohort):
    still = robustness.jitter(cohort, Pixels(), torch.nn.Identity(), 0, n=2)
    pd.testing.assert_frame_equal(still.loc[0], still.loc[1])
    with pytest.raises(PatchError, match="finite"):
        robustness.jitter(cohort, Pixels(), None, NAN)


def test_jitter_of_several_models_reads_each_scan_once(cohort, monkeypatch):
    class Half(Pixels):
        spec = PatchSpec("SPL", size=(4, 4, 4))
        dim = 1

        def encode(self, module, patches):
            return patches.mean(dim=(1, 2, 3, 4))[:, None]

    calls = []
    original = perturbation.extract_patches

    def counted(image, seeds, specs):
        calls.append(image)
        return original(image, seeds, specs)

    monkeypatch.setattr(perturbation, "extract_patches", counted)
    pixels, half = robustness.jitter_all(cohort, [(Pixels(), None), (Half(), None)], 3.0, 4, 1)
    assert sorted(calls) == sorted(cohort.table["image_path"].unique())
    pd.testing.assert_frame_equal(pixels, robustness.jitter(cohort, Pixels(), None, 3.0, 4, 1))
    pd.testing.assert_frame_equal(half, robustness.jitter(cohort, Half(), None, 3.0, 4, 1))


def test_many_trials_are_cut_in_parts_and_stay_in_order(cohort, monkeypatch):
    whole = robustness.jitter(cohort, Pixels(), None, 3.0, n=7)
    monkeypatch.setattr(perturbation, "_SEEDS", 4)
    monkeypatch.setattr(perturbation, "_BATCH", 3)
    pd.testing.assert_frame_equal(robustness.jitter(cohort, Pixels(), None, 3.0, n=7), whole)


def test_trials_may_have_distances_of_their_own(cohort):
    encoders = [(Pixels(), None)]
    both = robustness.jitter_all(cohort, encoders, [2.0, 5.0], 2, seed=1)[0]
    for trial, mm in enumerate((2.0, 5.0)):
        alone = robustness.jitter(cohort, Pixels(), None, mm, 2, seed=1)
        pd.testing.assert_frame_equal(both.loc[trial], alone.loc[trial])
    with pytest.raises(ValueError, match="shape"):
        robustness.jitter_all(cohort, encoders, [2.0, 5.0], 3)


def test_equal_patches_are_encoded_once(cohort):
    counts = []

    class Counting(Pixels):
        def encode(self, module, patches):
            counts.append(len(patches))
            return super().encode(module, patches)

    robustness.jitter(cohort, Counting(), None, 0.0, n=10)
    assert sum(counts) <= 2 * len(cohort.table)


def test_a_scan_that_cannot_be_made_stops_the_run():
    def scans():
        raise OSError("the scanner is broken")
        yield

    with pytest.raises(OSError, match="broken"):
        robustness.encode_scans(scans(), [(Pixels(), None)])
    assert robustness.encode_scans([], [(Pixels(), None)])[0].shape == (0, 8)
