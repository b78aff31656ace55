"""Probes over splits: joining, results, few shots, ensembles and comparisons."""

import numpy as np
import pandas as pd
import pytest

from tumorbench_utils import probes, splits, stats
from tumorbench_utils.probes import ensembles
from tumorbench_utils.probes.compare import design, permuted
from tumorbench_utils.probes.result import resampled
from tumorbench_utils.probes.run import run_score
from tumorbench_utils.stats import repeated, roc

N = 120


@pytest.fixture(scope="module")
def data():
    """Two lesions per patient; three models that see the same truth through other noise."""
    rng = np.random.default_rng(0)
    truth = rng.normal(size=(N, 3))
    ids = pd.Index([f"lesion-{i:03d}" for i in range(N)], name="lesion_id")
    y = pd.Series((rng.random(N) < 1 / (1 + np.exp(-2 * truth[:, 0]))).astype(int), ids)
    models = {
        name: pd.DataFrame(
            (truth @ rng.normal(size=(3, 30)) + rng.normal(size=(N, 30))).astype(np.float32), ids
        )
        for name in ("a", "b", "c")
    }
    patients = pd.Series(np.arange(N) // 2, ids)
    return models, y, patients, pd.Series(truth[:, 0], ids)


@pytest.fixture(scope="module")
def parts(data):
    _, y, patients, _ = data
    table = pd.DataFrame({"label": y, "patient_id": patients})
    return splits.grouped_splits(table, n_repeats=4)


def reversed_rows(frame):
    return frame.iloc[::-1]


# ------------------------------------------------------------------------------------- joining


@pytest.mark.parametrize("probe", ["knn", "linear"])
def test_rows_are_joined_by_lesion_id(data, parts, probe):
    models, y, patients, _ = data
    straight = probes.run_probe(models["a"], y, parts, probe, groups=patients)
    shuffled = probes.run_probe(
        reversed_rows(models["a"]), y, parts, probe, groups=reversed_rows(patients)
    )
    arrays = probes.run_probe(
        models["a"].to_numpy(), y.to_numpy(), parts, probe, groups=patients.to_numpy()
    )
    assert (straight.scores == shuffled.scores).all()
    assert (straight.scores == arrays.scores).all()
    assert straight.interval("bootstrap") == shuffled.interval("bootstrap")


def test_the_careful_search_takes_what_is_there(data):
    models, y, _, _ = data
    rows = np.r_[np.flatnonzero(y == 0)[:24], np.flatnonzero(y == 1)[:24]]
    X, labels = models["a"].iloc[rows], y.iloc[rows]
    small = splits.reference_splits(labels, n_repeats=2)
    assert max(probes.run_probe(X, labels, small).chosen) <= 23


@pytest.mark.parametrize("probe", ["knn", "linear"])
@pytest.mark.parametrize("protocol", ["careful", "published"])
def test_constant_columns_change_nothing(data, parts, probe, protocol):
    models, y, _, _ = data
    padded = models["a"].assign(dead=np.float32(0), also=np.float32(0))
    plain = probes.run_probe(models["a"], y, parts, probe, protocol=protocol)
    result = probes.run_probe(padded, y, parts, probe, protocol=protocol)
    assert result.scores == pytest.approx(plain.scores, abs=0.01)


# ---------------------------------------------------------------------------------------- results


def test_result_holds_its_parts(data, parts):
    models, y, patients, _ = data
    result = probes.run_probe(models["a"], y, parts, "linear", groups=patients)
    assert len(result.scores) == len(result.chosen) == 4
    assert result.mean == pytest.approx(result.scores.mean())
    table = result.metrics()
    assert (table["auc"] == result.scores).all()
    assert table["brier"].between(0, 0.25).all()
    for split, part in result.predictions.groupby("split"):
        assert list(part["lesion_id"]) == list(y.index[parts[split].test])
        assert (part["y"].to_numpy() == y.to_numpy()[parts[split].test]).all()
    fitted = [len(split.train) + len(split.val) for split in parts]
    assert result.n_train == round(np.mean(fitted))
    pooled = result.pooled()
    assert pooled.index.is_unique
    assert (pooled["y"] == y[pooled.index]).all()


def test_intervals_of_a_result(data, parts):
    models, y, patients, _ = data
    result = probes.run_probe(models["a"], y, parts, groups=patients)
    assert result.interval() == stats.corrected_interval(
        result.scores, result.n_train, result.n_test
    )
    assert result.interval("published") == repeated.published_interval(result.scores)
    low, high = result.interval("bootstrap", n=300)
    assert low < result.mean < high
    wider = result.interval("bootstrap", level=0.99, n=300)
    assert wider[0] < low < high < wider[1]
    assert result.estimate("bootstrap").method == "bootstrap"
    assert result.estimate() == (result.mean, *result.interval())


def test_bootstrap_of_splits_is_that_of_copied_patients(data, parts):
    models, y, patients, _ = data
    result = probes.run_probe(models["a"], y, parts, groups=patients)
    values = resampled([result], n=5, seed=7)[:, 0]
    frame = result.predictions
    place = {p: i for i, p in enumerate(sorted(frame["position"].unique()))}
    code = dict(zip(frame["position"], pd.factorize(frame["group"])[0], strict=True))
    codes = np.array([code[p] for p in place])
    for value, counts in zip(values, next(roc.resample_counts(codes, 5, 7)), strict=True):
        areas = []
        for _, part in frame.groupby("split"):
            times = counts[[place[p] for p in part["position"]]]
            copied = part.loc[part.index.repeat(times)]
            areas.append(stats.auc(copied["y"].to_numpy(), copied["score"].to_numpy()))
        assert value == pytest.approx(np.mean(areas))


def test_a_ready_score_is_not_fitted(data, parts):
    _, y, patients, truth = data
    result = run_score(truth, y, parts, groups=patients)
    by_hand = [stats.auc(y.iloc[s.test], truth.iloc[s.test]) for s in parts]
    assert result.scores == pytest.approx(by_hand)
    assert result.metrics()[["brier", "balanced_accuracy"]].isna().all(axis=None)
    squeezed = run_score((truth - truth.min()) / np.ptp(truth), y, parts)
    assert squeezed.metrics().notna().all(axis=None)


# --------------------------------------------------------------------------------------- few shots


def test_few_shot_is_seeded_and_learns_with_more(data, parts):
    models, y, _, _ = data
    first = probes.few_shot(models["a"], y, parts, seed=3)
    assert list(first) == [1, 5, 10]
    again = probes.few_shot(models["a"], y, parts, shots=[10], seed=3)
    assert (first[10].scores == again[10].scores).all()
    other = probes.few_shot(models["a"], y, parts, shots=[10], seed=4)
    assert (first[10].scores != other[10].scores).any()
    assert all(k <= 2 * shots for shots, result in first.items() for k in result.chosen)


# --------------------------------------------------------------------------------------- ensembles


def test_alignment_weights_by_hand():
    """Four points on a circle: a and b share all neighbours, c only some."""

    def circle(*degrees):
        angle = np.deg2rad(degrees)
        return np.column_stack([np.cos(angle), np.sin(angle)])

    a = circle(0, 10, 90, 100)
    c = circle(0, 90, 10, 100)
    weights = ensembles.alignment_weights([a, a * 2, c], k=1)
    assert weights == pytest.approx([0.5, 0.5, 0])
    assert ensembles.alignment_weights([a, c], k=1).tolist() == [0.5, 0.5]


@pytest.mark.parametrize("protocol", ["careful", "published"])
@pytest.mark.parametrize("method", ["alignment", "stacking"])
def test_ensembles_do_not_lose_the_signal(data, parts, method, protocol):
    models, y, patients, _ = data
    shuffled = {name: frame.sample(frac=1, random_state=1) for name, frame in models.items()}
    result = probes.ensemble(shuffled, y, parts, method, protocol=protocol, groups=patients)
    single = np.mean([probes.run_probe(X, y, parts).mean for X in models.values()])
    assert result.mean > single - 0.05
    chosen = result.chosen[0]
    if method == "alignment":
        assert list(chosen) == ["a", "b", "c"]
        assert sum(chosen.values()) == pytest.approx(1)
    else:
        assert (chosen["k"], chosen["C"]) in ensembles.STACKING_GRID


@pytest.mark.parametrize("protocol", ["careful", "published"])
def test_the_best_model_is_picked_on_validation_lesions(data, parts, protocol):
    _, y, _, truth = data
    noise = pd.DataFrame(np.random.default_rng(9).normal(size=(N, 5)), y.index)
    both = {"noise": noise, "truth": pd.DataFrame({"x": np.sin(truth / 2), "y": np.cos(truth / 2)})}
    result = probes.ensemble(both, y, parts, "best", protocol=protocol)
    alone = probes.run_probe(both["truth"], y, parts, protocol=protocol)
    assert [chosen["model"] for chosen in result.chosen] == ["truth"] * len(parts)
    assert [chosen["k"] for chosen in result.chosen] == alone.chosen
    assert (result.scores == alone.scores).all()


def test_published_stacking_scores_the_rows_it_was_fitted_on(monkeypatch):
    """On noise, with nothing to choose: the published inner score sees signal, the other none."""
    monkeypatch.setattr(ensembles, "STACKING_GRID", ((10, 1.0),))
    rng = np.random.default_rng(1)
    inner = {"published": [], "careful": []}
    for _ in range(12):
        y = rng.permutation(np.arange(N) % 2)
        noise = {name: rng.normal(size=(N, 10)) for name in "abcd"}
        parts = splits.reference_splits(y, n_repeats=2)
        for protocol, found in inner.items():
            result = probes.ensemble(noise, y, parts, "stacking", protocol=protocol)
            found.extend(chosen["inner_auc"] for chosen in result.chosen)
    assert np.mean(inner["published"]) > 0.65
    assert np.mean(inner["careful"]) == pytest.approx(0.5, abs=0.07)


# ------------------------------------------------------------------------------------- comparisons


def test_compare_finds_a_model_that_is_worse(data, parts):
    _, y, patients, truth = data
    noise = pd.Series(np.random.default_rng(5).normal(size=N), y.index)
    results = {
        name: run_score(score, y, parts, groups=patients)
        for name, score in (("truth", truth), ("same", 2 * truth), ("noise", noise))
    }
    table = probes.compare(results, "truth", n=300)
    assert (
        table.loc["same", ["difference", "difference_low", "difference_high"]].tolist() == [0] * 3
    )
    assert table.loc["same", "p"] == 1
    assert table.loc["noise", "difference_high"] < 0
    assert table.loc["noise", "p_holm"] == pytest.approx(2 * table.loc["noise", "p"])
    assert table.loc["noise", "p_holm"] < 0.01
    assert table.loc["truth", ["difference", "p", "p_holm"]].isna().all()


def test_design_turns_covariates_into_numbers():
    table = pd.DataFrame(
        {
            "age": pd.array([50, None, 70], dtype="Int64"),
            "sex": ["f", "m", "f"],
            "stage": pd.Categorical(["I", None, "II"]),
        },
        index=list("abc"),
    )
    out = design(table, ["age", "sex", "stage"])
    assert out["age"].tolist() == [50, 60, 70]
    assert out["age_missing"].tolist() == [0, 1, 0]
    assert out["sex=m"].tolist() == [0, 1, 0]
    assert out.filter(like="stage=").to_numpy().sum() == 1
    assert out["stage_missing"].tolist() == [0, 1, 0]


def test_permuted_labels_keep_patients_together():
    rng = np.random.default_rng(0)
    groups = np.array([0, 0, 1, 2, 2, 3, 1, 4])
    y = np.array([1, 1, 0, 0, 0, 1, 0, 0])
    for _ in range(20):
        moved = permuted(y, groups, rng)
        assert sorted(moved) == sorted(y)
        pairs = {tuple(moved[groups == g]) for g in (0, 1, 2)}
        assert pairs == {(1, 1), (0, 0)}
        assert sorted(moved[[5, 7]]) == [0, 1]
