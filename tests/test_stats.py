"""Statistics against hand-worked cases, second libraries and simulations with known truth."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats as sps
from sklearn.metrics import roc_auc_score

from tumorbench_utils import stats
from tumorbench_utils.stats import repeated, roc


def clustered(rng, patients=60, share=0.6, gain=1.0, shared_label=False):
    """Two lesions per patient; `share` of the score's noise belongs to the patient."""
    codes = np.repeat(np.arange(patients), 2)
    y = rng.integers(0, 2, patients)[codes] if shared_label else rng.integers(0, 2, 2 * patients)
    noise = np.sqrt(share) * rng.normal(size=patients)[codes]
    score = gain * y + noise + np.sqrt(1 - share) * rng.normal(size=2 * patients)
    return y, score, codes


# ------------------------------------------------------------------------------------------ AUC


@pytest.mark.parametrize(
    ("y", "score", "expected"),
    [
        ([0, 0, 1, 1], [0.1, 0.4, 0.35, 0.8], 0.75),
        ([0, 1], [1, 1], 0.5),
        ([0, 0, 1], [1, 2, 2], 0.75),
        ([True, False], [0, 5], 0.0),
        ([1.0, 0.0], [5, 0], 1.0),
    ],
)
def test_auc_by_hand(y, score, expected):
    assert stats.auc(y, score) == expected


def test_auc_equals_scikit_learns_with_many_ties():
    rng = np.random.default_rng(0)
    for _ in range(20):
        y = rng.integers(0, 2, 80)
        score = rng.normal(size=80).round(1)
        assert stats.auc(y, score) == pytest.approx(roc_auc_score(y, score), abs=1e-14)


def test_auc_joins_series_by_their_index():
    y = pd.Series([0, 0, 1, 1], index=list("abcd"), dtype="Int64")
    score = pd.Series([0.8, 0.35, 0.4, 0.1], index=list("dcba"))
    assert stats.auc(y, score) == 0.75
    assert stats.auc(y, score.to_numpy()[::-1]) == 0.75


# ------------------------------------------------------------------------------------ bootstrap


def test_weighted_auc_is_that_of_repeated_cases():
    rng = np.random.default_rng(1)
    y, score, codes = clustered(rng, patients=15)
    score = score.round(1)
    counts = next(roc.resample_counts(codes, 5, seed=3))
    assert (counts.sum(axis=1) == len(y)).all()
    values = roc.WeightedAUC(y, score)(counts)
    for row, value in zip(counts, values, strict=True):
        rows = np.repeat(np.arange(len(y)), row)
        assert value == pytest.approx(roc_auc_score(y[rows], score[rows]))


def test_whole_patients_are_drawn():
    codes = np.array([0, 0, 1, 2, 2, 2])
    counts = np.concatenate(list(roc.resample_counts(codes, 200, seed=0)))
    assert (counts[:, 0] == counts[:, 1]).all()
    assert (counts[:, 3] == counts[:, 5]).all()
    assert counts[:, [0, 2, 3]].sum(axis=1).tolist() == [3] * 200


def test_bootstrap_is_reproducible_and_holds_its_estimate():
    y, score, codes = clustered(np.random.default_rng(2))
    value, low, high = stats.bootstrap_auc(y, score, codes, n=300, seed=1)
    assert value == pytest.approx(stats.auc(y, score))
    assert low < value < high
    again = stats.bootstrap_auc(y, score, codes, n=300, seed=1)
    assert again == (value, low, high)
    assert again.method == "bootstrap over patients"
    assert stats.bootstrap_auc(y, score, codes, n=300, seed=2) != (value, low, high)
    narrow = stats.bootstrap_auc(y, score, codes, n=300, seed=1, level=0.5)
    assert low < narrow[1] < narrow[2] < high


def test_intervals_cover_the_truth_if_patients_are_resampled():
    """Patients carry label and noise: lesion by lesion the interval is too narrow."""
    rng = np.random.default_rng(3)
    truth = sps.norm.cdf(1 / np.sqrt(2))
    inside = {"patients": 0, "lesions": 0}
    trials = 200
    for trial in range(trials):
        y, score, codes = clustered(rng, share=0.9, shared_label=True)
        for name, groups in (("patients", codes), ("lesions", None)):
            _, low, high = stats.bootstrap_auc(y, score, groups, n=300, seed=trial)
            inside[name] += low <= truth <= high
    assert 0.90 <= inside["patients"] / trials <= 0.99
    assert inside["lesions"] / trials < 0.88


# --------------------------------------------------------------------------------------- DeLong


def delong_by_definition(y, s1, s2):
    kernel = []
    for score in (s1, s2):
        ahead = np.subtract.outer(score[y == 1], score[y == 0])
        kernel.append((ahead > 0) + 0.5 * (ahead == 0))
    v10 = np.stack([k.mean(axis=1) for k in kernel])
    v01 = np.stack([k.mean(axis=0) for k in kernel])
    s = np.cov(v10) / v10.shape[1] + np.cov(v01) / v01.shape[1]
    diff = kernel[0].mean() - kernel[1].mean()
    return diff, diff / np.sqrt(s[0, 0] + s[1, 1] - 2 * s[0, 1])


def test_delong_follows_its_definition():
    rng = np.random.default_rng(4)
    y = rng.integers(0, 2, 60)
    s1, s2 = (rng.normal(size=60) + y).round(1), (rng.normal(size=60) + 0.3 * y).round(1)
    diff, z, p = stats.delong_test(y, s1, s2)
    assert (diff, z) == pytest.approx(delong_by_definition(y, s1, s2))
    assert p == pytest.approx(2 * sps.norm.sf(abs(z)))
    assert stats.delong_test(y, s2, s1) == pytest.approx((-diff, -z, p))
    assert stats.delong_test(y, s1, s2, groups=np.arange(60)) == pytest.approx((diff, z, p))


def test_delong_of_equal_and_of_perfect_orders():
    y, score = np.array([0, 1, 0, 1, 1]), np.array([1.0, 2, 3, 4, 5])
    assert stats.delong_test(y, score, 2 * score + 1) == (0, 0, 1)
    assert stats.delong_test(y, y, -y) == (1, np.inf, 0)


def test_delong_keeps_its_size_and_clusters_need_groups():
    rng = np.random.default_rng(5)
    rejected = {"independent": 0, "clustered": 0, "groups": 0}
    trials = 600
    for _ in range(trials):
        y = rng.integers(0, 2, 100)
        s1, s2 = rng.normal(size=(2, 100)) + y
        rejected["independent"] += stats.delong_test(y, s1, s2)[2] < 0.05
        y, s1, codes = clustered(rng, patients=50, share=0.9, shared_label=True)
        s2 = y + np.sqrt(0.9) * rng.normal(size=50)[codes] + np.sqrt(0.1) * rng.normal(size=100)
        rejected["clustered"] += stats.delong_test(y, s1, s2)[2] < 0.05
        rejected["groups"] += stats.delong_test(y, s1, s2, groups=codes)[2] < 0.05
    share = {name: count / trials for name, count in rejected.items()}
    assert 0.03 <= share["independent"] <= 0.075
    assert 0.03 <= share["groups"] <= 0.08
    assert share["clustered"] > 0.1


# ------------------------------------------------------------------------------ repeated splits


def test_corrected_interval_by_hand():
    low, high = stats.corrected_interval([0.6, 0.7, 0.8], n_train=70, n_test=30)
    half = 4.302652729911275 * np.sqrt((1 / 3 + 30 / 70) * 0.01)
    assert (low, high) == pytest.approx((0.7 - half, 0.7 + half))


def test_published_interval_by_hand():
    low, high = repeated.published_interval([0.6, 0.7, 0.8])
    half = 1.96 * 0.1 / np.sqrt(3)
    assert (low, high) == pytest.approx((0.7 - half, 0.7 + half))


def test_corrected_p_is_the_level_at_which_the_interval_touches():
    scores = np.array([0.55, 0.6, 0.52, 0.66])
    p = stats.corrected_p(scores.mean(), scores.std(ddof=1), 4, 70, 30)
    low, _ = stats.corrected_interval(scores, 70, 30, level=1 - p)
    assert low == pytest.approx(0.5)


# ----------------------------------------------------------------------------- many comparisons


def test_holm_by_hand():
    assert stats.holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    series = stats.holm(pd.Series([0.5, 0.9], index=["a", "b"]))
    assert series.to_dict() == {"a": 1.0, "b": 1.0}


def test_holm_keeps_the_familywise_error():
    rng = np.random.default_rng(6)
    false_alarm = [stats.holm(rng.uniform(size=10)).min() < 0.05 for _ in range(3000)]
    assert 0.035 <= np.mean(false_alarm) <= 0.065


def test_friedman_by_hand_and_with_ties():
    """Ranks 1 2 3, 1.5 1.5 3 and 1 3 2; the statistic is scipy's."""
    table = pd.DataFrame([[0.9, 0.8, 0.7], [0.6, 0.6, 0.5], [0.9, 0.1, 0.3]], columns=list("abc"))
    result = stats.friedman_nemenyi(table)
    assert result.mean_ranks.to_dict() == pytest.approx({"a": 3.5 / 3, "b": 6.5 / 3, "c": 8 / 3})
    assert (result.statistic, result.p) == pytest.approx(sps.friedmanchisquare(*table.T.values))


@pytest.mark.parametrize(
    ("models", "q"),
    [(2, 1.960), (3, 2.343), (4, 2.569), (5, 2.728), (6, 2.850), (8, 3.031), (10, 3.164)],
)
def test_critical_difference_uses_the_tabulated_quantiles(models, q):
    """Critical values of the two-tailed Nemenyi test: Demšar (2006), Table 5."""
    table = pd.DataFrame(np.random.default_rng(0).normal(size=(14, models)))
    expected = q * np.sqrt(models * (models + 1) / (6 * 14))
    assert stats.friedman_nemenyi(table).critical_difference == pytest.approx(expected, rel=3e-4)


def test_friedman_of_equal_models_finds_nothing():
    result = stats.friedman_nemenyi(pd.DataFrame(np.ones((4, 3))))
    assert (result.statistic, result.p) == (0, 1)
    assert (result.mean_ranks == 2).all()


def test_friedman_keeps_its_size():
    rng = np.random.default_rng(7)
    tables = (pd.DataFrame(rng.normal(size=(20, 5))) for _ in range(500))
    assert 0.03 <= np.mean([stats.friedman_nemenyi(t).p < 0.05 for t in tables]) <= 0.07


def test_resampled_ranks():
    performance = pd.DataFrame([[0.9, 0.7, 0.5], [0.8, 0.6, 0.7]], columns=list("abc"))
    certain = stats.resampled_ranks(performance, performance * 0, n=200)
    assert (certain["a"] == 1).all()
    assert set(certain["b"]) == {2.0, 2.5, 3.0}
    noisy = stats.resampled_ranks(performance, performance * 0 + 5, n=3000)
    assert noisy.mean().to_numpy() == pytest.approx([2, 2, 2], abs=0.06)
    renamed = stats.resampled_ranks(performance, performance[["c", "a", "b"]] * 0 + 5, n=3000)
    pd.testing.assert_frame_equal(renamed, noisy)
