"""Simulations with known truth: what intervals cover, what tests reject, and a leak to be found."""

import numpy as np
import pandas as pd
import pytest

from tumorbench_utils import probes, splits, stats


def test_published_intervals_are_too_narrow_and_corrected_ones_are_not():
    """Features without information: the true AUC of any probe is 0.5."""
    rng = np.random.default_rng(0)
    trials, covered = 110, {"published": 0, "corrected": 0}
    for _ in range(trials):
        y = rng.permutation(np.arange(120) % 2)
        X = rng.normal(size=(120, 6)).astype(np.float32)
        result = probes.run_probe(X, y, splits.reference_splits(y), protocol="published")
        for method in covered:
            low, high = result.interval(method)
            covered[method] += low <= 0.5 <= high
    share = {method: count / trials for method, count in covered.items()}
    assert share["published"] < 0.85
    assert share["corrected"] > 0.93


def test_corrected_intervals_cover_the_expected_auc_of_a_signal():
    """The truth is the mean over many cohorts; a probe on one cohort should bracket it."""
    rng = np.random.default_rng(1)
    results = []
    for _ in range(90):
        X = rng.normal(size=(120, 6))
        y = (rng.random(120) < 1 / (1 + np.exp(-1.5 * X[:, 0]))).astype(int)
        parts = splits.reference_splits(y)
        results.append(probes.run_probe(X, y, parts, protocol="published"))
    truth = np.mean([result.mean for result in results])
    assert 0.6 < truth < 0.8
    for method, least, most in (("corrected", 0.92, 1), ("published", 0, 0.75)):
        intervals = [result.interval(method) for result in results]
        assert least <= np.mean([low <= truth <= high for low, high in intervals]) <= most


@pytest.fixture(scope="module")
def leaky():
    """Half of every feature is the patient; label constant within a patient; no information."""
    rng = np.random.default_rng(2)
    patients = np.repeat(np.arange(60), 3)
    y = rng.permutation(np.arange(60) % 2)[patients]
    X = (rng.normal(size=(60, 20))[patients] + rng.normal(size=(180, 20))).astype(np.float32)
    return X, y, patients


def test_a_leak_is_found(leaky):
    """Lesion-wise splits recognise patients; grouped splits of the same data do not."""
    X, y, patients = leaky
    table = pd.DataFrame({"patient_id": patients})

    def grouped(labels):
        return splits.grouped_splits(table.assign(label=labels), n_repeats=5)

    def by_lesion(labels):
        return splits.reference_splits(labels, n_repeats=5)

    options = {"protocol": "published", "groups": patients, "n": 20}
    leak = probes.permutation_null(X, y, by_lesion, **options)
    assert leak.mean() > 0.65
    assert (leak > 0.5).all()
    clean = probes.permutation_null(X, y, grouped, **options)
    assert clean.mean() == pytest.approx(0.5, abs=0.05)
    # Labels permuted lesion by lesion would hide the leak.
    hidden = probes.permutation_null(X, y, by_lesion, protocol="published", n=20)
    assert hidden.mean() == pytest.approx(0.5, abs=0.05)


def test_comparisons_bracket_what_the_fits_do_on_new_patients():
    """Two embeddings of one truth with equal noise; 800 further patients tell what fits are worth.

    The bootstrap is about the fits. Whether the embeddings differ is another question, which the
    test on the differences per split answers at its level.
    """
    rng = np.random.default_rng(3)
    trials, n, new = 80, 60, 400
    covered = {"auc": 0, "difference": 0}
    refit = []
    for _ in range(trials):
        patients = np.repeat(np.arange(n + new), 2)
        truth = rng.normal(size=n + new)
        y = (rng.random(n + new) < 1 / (1 + np.exp(-2 * truth)))[patients].astype(int)
        table = pd.DataFrame({"label": y, "patient_id": patients}).iloc[: 2 * n]
        parts = splits.grouped_splits(table, n_repeats=3)
        fresh = [part._replace(test=np.arange(2 * n, 2 * (n + new))) for part in parts]
        here, there = {}, {}
        for name in "ab":
            X = truth[patients, None] + rng.normal(size=(n + new, 6))[patients]
            X = X + rng.normal(size=(len(X), 6))
            options = {"protocol": "published", "groups": patients}
            here[name] = probes.run_probe(X, y, parts, **options)
            there[name] = probes.run_probe(X, y, fresh, **options).mean
        row = probes.compare(here, "a", n=200).loc["b"]
        covered["auc"] += row["low"] <= there["b"] <= row["high"]
        difference = there["b"] - there["a"]
        covered["difference"] += row["difference_low"] <= difference <= row["difference_high"]
        refit.append(row["p_refit"])
    assert 0.87 <= covered["auc"] / trials <= 1
    assert 0.87 <= covered["difference"] / trials <= 1
    assert np.mean(np.array(refit) < 0.05) <= 0.08


@pytest.fixture(scope="module")
def ruler():
    rng = np.random.default_rng(4)
    size, other = rng.normal(size=(2, 240))
    y = (rng.random(240) < 1 / (1 + np.exp(-1.5 * size - 1.5 * other))).astype(int)
    noise = rng.normal(size=(240, 40))
    return size, other, noise, y, splits.reference_splits(y, n_repeats=5)


def test_an_embedding_of_size_adds_nothing_to_size(ruler):
    size, _, noise, y, parts = ruler
    X = size[:, None] * np.linspace(0.2, 1, 40) + noise
    results = probes.added_value(X, size[:, None], y, parts)
    assert results["embedding"].mean > 0.7
    row = probes.compare(results, "covariates", n=400).loc["both"]
    assert row["difference_low"] <= 0 <= row["difference_high"]
    assert abs(row["difference"]) < 0.03


def test_an_embedding_of_something_else_adds(ruler):
    size, other, noise, y, parts = ruler
    X = other[:, None] * np.linspace(0.2, 1, 40) + noise
    results = probes.added_value(X, size[:, None], y, parts)
    row = probes.compare(results, "covariates", n=400).loc["both"]
    assert row["difference_low"] > 0.02


def test_nested_models_do_not_reward_an_overfitted_embedding(ruler):
    """The log-odds are out of fold: noise in 400 columns does not push size aside."""
    size, _, _, y, parts = ruler
    X = np.random.default_rng(5).normal(size=(240, 400))
    results = probes.added_value(X, size[:, None], y, parts)
    assert results["both"].mean > results["covariates"].mean - 0.03


def test_careful_probabilities_are_calibrated(ruler):
    """Observed and predicted shares agree over the pooled predictions."""
    size, other, noise, y, parts = ruler
    X = np.column_stack([size, other, noise])
    pooled = probes.run_probe(X, y, parts, "linear").pooled()
    for part in (pooled[pooled["score"] < 0.5], pooled[pooled["score"] >= 0.5]):
        error = 3 * np.sqrt(0.25 / len(part))
        assert part["y"].mean() == pytest.approx(part["score"].mean(), abs=error)
    assert stats.auc(pooled["y"], pooled["score"]) > 0.75
