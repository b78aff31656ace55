"""Similarity of embeddings: hand-worked cases, invariances, nulls, and bad input."""

import numpy as np
import pandas as pd
import pytest
from scipy.spatial.distance import pdist
from scipy.stats import spearmanr
from sklearn.neighbors import NearestNeighbors

from tumorbench_utils import similarity
from tumorbench_utils.similarity import _halves, neighbours


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def test_overlap_of_four_directions_by_hand():
    # Angles in degrees. A: 0-10 and 80-95 are each other's neighbours. B: 0-95 and 10-80 are.
    def directions(*degrees):
        angles = np.deg2rad(degrees)
        return np.column_stack([np.cos(angles), np.sin(angles)])

    A, B = directions(0, 10, 80, 95), directions(0, 50, 60, 5)
    assert similarity.knn_overlap(A, B, k=1) == 0
    assert similarity.knn_overlap(A, A, k=1) == 1
    # Two of the three others, in A: {1,2} {0,2} {3,1} {2,1}; in B: {3,1} {2,3} {1,3} {0,1}.
    assert similarity.knn_overlap(A, B, k=2) == pytest.approx((1 + 1 + 2 + 1) / 4)


def test_overlap_equals_a_second_library(rng):
    A, B = rng.normal(size=(60, 7)), rng.normal(size=(60, 5))
    sets = []
    for values in (A, B):
        search = NearestNeighbors(n_neighbors=10, metric="cosine").fit(values)
        sets.append([set(row) for row in search.kneighbors(return_distance=False)])
    expected = np.mean([len(a & b) for a, b in zip(*sets, strict=True)])
    assert similarity.knn_overlap(A, B) == pytest.approx(expected)


def test_rsa_equals_a_second_library(rng):
    A, B = rng.normal(size=(40, 7)), rng.normal(size=(40, 5))
    expected = spearmanr(pdist(A, "cosine"), pdist(B, "cosine")).statistic
    assert similarity.rsa(A, B) == pytest.approx(expected, abs=1e-12)


def test_cka_equals_the_unbiased_estimator_written_out(rng):
    A, B = rng.normal(size=(12, 3)), rng.normal(size=(12, 4))

    def hsic(X, Y):
        n = len(X)
        K, L = X @ X.T, Y @ Y.T
        np.fill_diagonal(K, 0)
        np.fill_diagonal(L, 0)
        one = np.ones(n)
        return (
            np.trace(K @ L)
            + (one @ K @ one) * (one @ L @ one) / ((n - 1) * (n - 2))
            - 2 * (one @ K @ L @ one) / (n - 2)
        ) / (n * (n - 3))

    expected = hsic(A, B) / np.sqrt(hsic(A, A) * hsic(B, B))
    assert similarity.linear_cka(A, B) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("measure", ["linear_cka", "procrustes"])
def test_rotation_shift_and_scale_change_nothing(rng, measure):
    A = rng.normal(size=(50, 6))
    rotation = np.linalg.qr(rng.normal(size=(6, 6)))[0]
    moved = 3 * A @ rotation + rng.normal(size=6)
    assert similarity.MEASURES[measure](A, moved) == pytest.approx(1)


@pytest.mark.parametrize("measure", list(similarity.MEASURES))
def test_measures_are_symmetric_and_full_for_equal_embeddings(rng, measure):
    A, B = rng.normal(size=(40, 6)), rng.normal(size=(40, 9))
    function = similarity.MEASURES[measure]
    assert function(A, B) == pytest.approx(function(B, A))
    assert function(A, A) == pytest.approx(10 if measure == "knn_overlap" else 1)


def test_debiased_cka_of_unrelated_wide_embeddings_is_about_zero():
    values = [
        similarity.linear_cka(*np.random.default_rng(seed).normal(size=(2, 40, 400)))
        for seed in range(40)
    ]
    error = np.std(values, ddof=1) / np.sqrt(len(values))
    assert abs(np.mean(values)) < 4 * error


def test_null_of_the_overlap_has_its_known_mean(rng):
    A, B = rng.normal(size=(101, 5)), rng.normal(size=(101, 5))
    null = similarity.permutation_null("knn_overlap", A, B, n=300, seed=1)
    assert null.shape == (300,)
    assert null.mean() == pytest.approx(10 * 10 / 100, abs=4 * null.std() / np.sqrt(300))


@pytest.mark.parametrize("measure", list(similarity.MEASURES))
def test_fast_null_equals_the_measure_on_permuted_rows(rng, measure):
    A, B = rng.normal(size=(30, 5)), rng.normal(size=(30, 6))
    fast = similarity.permutation_null(measure, A, B, n=5, seed=3)
    function = similarity.MEASURES[measure]
    slow = similarity.permutation_null(lambda a, b: function(a, b), A, B, n=5, seed=3)
    np.testing.assert_allclose(fast, slow, atol=1e-5)


def test_permutation_p_values_are_uniform_without_a_relation():
    p = [
        similarity.pairwise(
            dict(zip("ab", np.random.default_rng(seed).normal(size=(2, 30, 4)), strict=True)),
            "rsa",
            n_permutations=99,
        )["p"].item()
        for seed in range(100)
    ]
    assert 0.35 < np.mean(p) < 0.65
    assert np.mean(np.array(p) <= 0.05) < 0.15


def test_pairwise_joins_by_lesion_and_finds_a_shared_signal(rng):
    lesions = [f"l{i}" for i in range(60)]
    shared = rng.normal(size=(60, 3))
    a = pd.DataFrame(np.hstack([shared, rng.normal(size=(60, 3))]), index=lesions)
    b = pd.DataFrame(shared @ rng.normal(size=(3, 5)), index=lesions).sample(frac=1, random_state=1)
    result = similarity.pairwise({"a": a, "b": b}, "linear_cka", n_permutations=99)
    assert result["p"].item() == pytest.approx(0.01)
    assert result["value"].item() > result["null_high"].item()


@pytest.mark.parametrize("measure", list(similarity.MEASURES))
def test_half_sample_interval_covers_the_expected_value(measure):
    # Two noisy views of one signal, two lesions per patient; what is expected of a sample this big.
    def views(seed, patients=40):
        rng = np.random.default_rng(seed)
        signal = np.repeat(rng.normal(size=(patients, 3)), 2, axis=0)
        signal = signal + 0.3 * rng.normal(size=signal.shape)
        return tuple(signal + 0.7 * rng.normal(size=signal.shape) for _ in range(2))

    function, patient = similarity.MEASURES[measure], np.repeat(np.arange(40), 2)
    truth = np.mean([function(*views(seed)) for seed in range(1000, 1100)])
    covered = []
    for seed in range(40):
        models = dict(zip("ab", views(seed), strict=True))
        row = similarity.pairwise(models, measure, n_halves=60, groups=patient).iloc[0]
        covered.append(row["low"] <= truth <= row["high"])
    assert np.mean(covered) > 0.8


def test_half_samples_keep_the_lesions_of_a_patient_together():
    halves = list(_halves(np.repeat(range(8), 3), 50, 0))
    assert all(half.reshape(8, 3).all(axis=1).sum() == 4 for half in halves)
    assert all(half.sum() == 12 for half in halves)
    assert len({tuple(half) for half in halves}) > 20


@pytest.mark.parametrize("measure", list(similarity.MEASURES))
def test_pairwise_equals_the_measure_and_the_spread_of_its_halves(rng, measure):
    models = {name: rng.normal(size=(30, d)) for name, d in zip("abc", (4, 60, 7), strict=True)}
    models["c"][:, :4] += 2 * models["a"]
    result = similarity.pairwise(models, measure, n_halves=20, seed=4)
    function, halves = similarity.MEASURES[measure], list(_halves(np.arange(30), 20, 4))
    for _, row in result.iterrows():
        A, B = models[row["first"]], models[row["second"]]
        draws = np.array([function(A[keep], B[keep]) for keep in halves])
        ends = function(A, B) + np.quantile(draws, [0.025, 0.975]) - draws.mean()
        expected = [function(A, B), *ends]
        np.testing.assert_allclose(row[["value", "low", "high"]].astype(float), expected, atol=1e-5)


def test_regress_out_leaves_nothing_of_a_linear_effect(rng):
    size = rng.normal(size=50)
    A = np.outer(size, [1.0, 2.0]) + 5
    np.testing.assert_allclose(similarity.regress_out(A, size), 0, atol=1e-10)
    B = rng.normal(size=(50, 3))
    left = similarity.regress_out(B, size)
    np.testing.assert_allclose(left.T @ size, 0, atol=1e-10)
    frame = pd.DataFrame(B, index=[f"l{i}" for i in range(50)])
    series = pd.Series(size, index=frame.index)[::-1]
    np.testing.assert_allclose(similarity.regress_out(frame, series), left)
    np.testing.assert_allclose(similarity.regress_out(B, size.tolist()), left)


A5 = np.eye(5)
NAMED = pd.DataFrame(np.eye(4), index=list("abcd"))
PAIRS = {
    "numbers of lesions": (A5, np.ones((6, 2)), "6 rows where 5"),
    "missing": (A5, np.full((5, 2), np.nan), "B: 10 values are missing"),
    "one dimension": (A5, np.ones(5), "2 dimension"),
    "text": (A5, [["1"] * 5] * 5, "text"),
    "mixed": (A5, np.array([["1", 2]] * 5, dtype=object), "text"),
    "complex": (A5, A5 * 1j, "complex"),
    "array beside names": (NAMED, np.eye(4), "names its rows"),
    "other lesions": (NAMED, NAMED.rename(index={"d": "e"}), "'[de]'"),
    "twice": (NAMED, NAMED.set_axis(list("abcc")), "look at '[cd]'"),
    "constant": (A5, np.ones((5, 3)), "same embedding"),
}


@pytest.mark.parametrize("name", PAIRS)
@pytest.mark.parametrize("measure", list(similarity.MEASURES.values()))
def test_bad_pairs_are_named(measure, name):
    A, B, message = PAIRS[name]
    with pytest.raises(similarity.SimilarityError, match=message):
        measure(A, B, **({"k": 2} if measure is similarity.knn_overlap else {}))


A10 = np.random.default_rng(0).normal(size=(10, 3))
HALVES = {"measure": "rsa", "n_halves": 5}
CALLS = {
    "neighbours": (lambda: similarity.knn_overlap(A10, A10), "no 10 neighbours"),
    "no neighbour": (lambda: similarity.knn_overlap(A10, A10, 0), "no 0 neighbours"),
    "part of one": (lambda: similarity.knn_overlap(A10, A10, 2.5), "no 2.5 neighbours"),
    "direction": (lambda: similarity.knn_overlap(A10, 0 * A10, 2), "row 0 is all zero"),
    "few": (lambda: similarity.linear_cka(A10[:3], A10[:3]), "at least 4 lesions"),
    "permutations": (lambda: similarity.permutation_null("rsa", A10, A10, 0), "above 0"),
    "one model": (lambda: similarity.pairwise({"a": A10}, "rsa"), "two models"),
    "patients": (
        lambda: similarity.pairwise({"a": A10, "b": A10}, groups=[0] * 10, **HALVES),
        "8 patients",
    ),
    "short groups": (
        lambda: similarity.pairwise({"a": A10, "b": A10}, groups=[0] * 9, **HALVES),
        "9 rows where 10",
    ),
    "no group": (
        lambda: similarity.pairwise({"a": A10, "b": A10}, groups=[None, *range(9)], **HALVES),
        "missing in row 0",
    ),
    "covariate rows": (lambda: similarity.regress_out(A10, np.ones(9)), "9 rows where 10"),
    "no covariate": (lambda: similarity.regress_out(A10, np.full(10, np.nan)), "missing"),
}


@pytest.mark.parametrize("name", CALLS)
def test_bad_calls_are_named(name):
    call, message = CALLS[name]
    with pytest.raises(similarity.SimilarityError, match=message):
        call()


@pytest.mark.parametrize(
    "call",
    [
        lambda: similarity.permutation_null("cka", A10, A10, 3),
        lambda: similarity.pairwise({"a": A10, "b": A10}, "cka"),
    ],
)
def test_unknown_measures_name_the_known(call):
    with pytest.raises(KeyError, match="known are knn_overlap"):
        call()


@pytest.mark.parametrize("measure", list(similarity.MEASURES.values()))
@pytest.mark.parametrize("value", [0.1, 1 / 3, -7e5, 1e-200])
def test_a_constant_embedding_is_named_whatever_its_value(rng, measure, value):
    A, constant = rng.normal(size=(40, 33)), np.full((40, 33), value)
    for pair in [(A, constant), (constant, A)]:
        with pytest.raises(similarity.SimilarityError, match="same embedding"):
            measure(*pair)


@pytest.mark.parametrize("measure", list(similarity.MEASURES.values()))
def test_scale_type_and_container_change_nothing(rng, measure):
    A, B = rng.integers(-9, 9, (40, 6)), rng.integers(-9, 9, (40, 5))
    expected = measure(A, B)
    for scale in (1e-200, 1e200):
        assert measure(A * scale, B) == pytest.approx(expected)
    assert measure(A.astype(np.float32), B.tolist()) == pytest.approx(expected)
    assert isinstance(expected, float)
    a, b = (pd.DataFrame(x, index=[f"l{i}" for i in range(40)]) for x in (A, B))
    assert measure(a, b[::-1]) == pytest.approx(expected)
    assert measure(a.astype("Int64"), b) == pytest.approx(expected)


def test_every_other_lesion_is_a_neighbour_at_the_largest_k(rng):
    A, B = rng.normal(size=(12, 3)), rng.normal(size=(12, 4))
    assert similarity.knn_overlap(A, B, np.int64(11)) == 11


def test_ties_share_the_places_that_are_left(rng):
    # All others are equally far, in every model and however the axes are turned.
    rotation = np.linalg.qr(rng.normal(size=(12, 12)))[0]
    for axes in (np.eye(12), rotation):
        np.testing.assert_allclose(neighbours(axes, 3), (1 - np.eye(12)) * 3 / 11)
    # One near lesion, then three equally far ones for the two places left.
    angles = np.deg2rad([0, 1, 30, 30, 30])
    row = neighbours(np.column_stack([np.cos(angles), np.sin(angles)]), 3)[0]
    np.testing.assert_allclose(row, [0, 1, 2 / 3, 2 / 3, 2 / 3])


def coarse(kind, seed, n=60):
    rng = np.random.default_rng(seed)
    if kind == "directions":
        return np.eye(3)[rng.integers(0, 3, n)]
    return rng.integers(1, 5, (n, 2)) if kind == "whole numbers" else rng.choice([-1, 1], (n, 1))


@pytest.mark.parametrize("kind", ["directions", "whole numbers", "signs"])
def test_unrelated_embeddings_with_ties_share_what_chance_gives(kind):
    values, p = [], []
    for seed in range(40):
        models = {"a": coarse(kind, 2 * seed), "b": coarse(kind, 2 * seed + 1)}
        row = similarity.pairwise(models, "knn_overlap", n_permutations=99).iloc[0]
        values.append(row["value"])
        p.append(row["p"])
    error = np.std(values, ddof=1) / np.sqrt(40)
    assert np.mean(values) == pytest.approx(100 / 59, abs=4 * error)
    assert 0.3 < np.mean(p) < 0.7 and np.mean(np.array(p) <= 0.05) < 0.2


def test_the_overlap_does_not_depend_on_the_order_of_tied_rows():
    A, B = coarse("whole numbers", 1), coarse("whole numbers", 2)
    mixed = np.random.default_rng(0).permutation(60)
    value = similarity.knn_overlap(A, B)
    assert similarity.knn_overlap(A[mixed], B[mixed]) == pytest.approx(value)


def test_null_depends_on_the_seed_alone(rng):
    A, B = rng.normal(size=(20, 3)), rng.normal(size=(20, 4))
    null = [similarity.permutation_null(similarity.rsa, A, B, 9, seed) for seed in (5, 5, 6)]
    np.testing.assert_array_equal(null[0], null[1])
    assert not np.array_equal(null[0], null[2])
    a = pd.DataFrame(A, index=[f"l{i}" for i in range(20)])
    b = pd.DataFrame(B, index=a.index).sample(frac=1, random_state=0)
    np.testing.assert_allclose(similarity.permutation_null("rsa", a, b, 9, 5), null[0])
