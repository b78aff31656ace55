"""Probes over splits: joining, bad input, results, few shots, ensembles and comparisons."""

import numpy as np
import pandas as pd
import pytest

from tumorbench_utils import probes, splits, stats
from tumorbench_utils.probes import ensembles
from tumorbench_utils.probes.compare import permuted
from tumorbench_utils.probes.result import resampled

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


# ----------------------------------------------------------------------------- joining and refusing


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


def test_a_filtered_table_counts_rows_and_takes_arrays(data, parts):
    models, y, _, _ = data
    filtered = pd.Series(y.to_numpy(), index=np.arange(N) * 3, dtype="Int64")
    a = probes.run_probe(models["a"].to_numpy(), filtered, parts)
    b = probes.run_probe(models["a"], y, parts)
    assert (a.scores == b.scores).all()


def wrong_input(models, y, parts):
    X = models["a"]
    twice = X.set_axis([X.index[0], *X.index[:-1]])
    hole, endless, text = X.copy(), X.copy(), X.astype(object)
    hole.iloc[3, 4] = np.nan
    endless.iloc[0, 0] = np.inf
    text.iloc[0, 0] = "high"
    cut = parts[0]._replace(val=np.flatnonzero(y.to_numpy() == 1)[:5])
    shared = parts[0]._replace(val=parts[0].train)
    far = parts[0]._replace(test=np.array([0, N]))
    floats = parts[0]._replace(test=parts[0].test.astype(float))
    missing = y.astype("Int64").mask(np.arange(N) == 5)
    return {
        "shorter labels": (X, y.iloc[:-1], parts, "120 rows and y has 119"),
        "other lesions": (X.set_axis(X.index + "x"), y, parts, "not of the same lesions"),
        "repeated ids": (twice, y, parts, "more than once"),
        "ids on one side": (X, y.to_numpy(), parts, "names its lesions"),
        "ids on the other": (X.to_numpy(), y, parts, "names its lesions"),
        "ids and row numbers": (X, y.reset_index(drop=True), parts, "not of the same lesions"),
        "a hole": (hole, y, parts, "row 'lesion-003', column 4"),
        "infinity": (endless, y, parts, "missing or infinite"),
        "text": (text, y, parts, "numbers"),
        "all constant": (X * 0 + 1, y, parts, "same for every lesion"),
        "no columns": (X.iloc[:, :0], y, parts, "lesions x features"),
        "one column as vector": (X.iloc[:, 0], y, parts, "lesions x features"),
        "one class": (X, y * 0, parts, "one class"),
        "missing label": (X, missing, parts, "missing"),
        "other labels": (X, y + 1, parts, "0 and 1"),
        "one class in a part": (X, y, [cut], "split 0, val: all 5 lesions have label 1"),
        "no splits": (X, y, [], "no splits"),
        "a lesion in two parts": (X, y, [shared], "two parts"),
        "positions outside": (X, y, [far], "run from 0 to 120"),
        "positions as floats": (X, y, [floats], "whole numbers"),
        "empty part": (X, y, [parts[0]._replace(val=np.array([], int))], "no rows"),
    }


CASES = (
    "shorter labels",
    "other lesions",
    "repeated ids",
    "ids on one side",
    "ids on the other",
    "ids and row numbers",
    "a hole",
    "infinity",
    "text",
    "all constant",
    "no columns",
    "one column as vector",
    "one class",
    "missing label",
    "other labels",
    "one class in a part",
    "no splits",
    "a lesion in two parts",
    "positions outside",
    "positions as floats",
    "empty part",
)


@pytest.mark.parametrize("case", CASES)
def test_wrong_input_is_refused(data, parts, case):
    models, y, _, _ = data
    X, labels, cut, message = wrong_input(models, y, parts)[case]
    with pytest.raises(ValueError, match=message):
        probes.run_probe(X, labels, cut)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"probe": "svm"}, "unknown probe 'svm'"),
        ({"protocol": "publish"}, "did you mean published"),
        ({"metric": "accuracy"}, "unknown metric"),
        ({"groups": np.arange(N - 1)}, "groups has 119 rows"),
        ({"groups": np.where(np.arange(N) == 3, np.nan, 1)}, "groups has 1 missing"),
    ],
)
def test_unknown_options_are_refused(data, parts, options, message):
    models, y, _, _ = data
    with pytest.raises(ValueError, match=message):
        probes.run_probe(models["a"].to_numpy(), y.to_numpy(), parts, **options)


def test_few_rows(data):
    """The published search fails below 50 training rows; the careful one asks for fewer."""
    models, y, _, _ = data
    rows = np.r_[np.flatnonzero(y == 0)[:24], np.flatnonzero(y == 1)[:24]]
    X, labels = models["a"].iloc[rows], y.iloc[rows]
    small = splits.reference_splits(labels, n_repeats=2)
    with pytest.raises(ValueError, match="50 neighbours, but a split has 23 training rows"):
        probes.run_probe(X, labels, small, protocol="published")
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
    assert result.interval("published") == stats.published_interval(result.scores)
    low, high = result.interval("bootstrap", n=300)
    assert low < result.mean < high
    wider = result.interval("bootstrap", level=0.99, n=300)
    assert wider[0] < low < high < wider[1]
    with pytest.raises(ValueError, match="method of interval"):
        result.interval("bca")
    with pytest.raises(ValueError, match=r"0\.95 only"):
        result.interval("published", level=0.9)
    other = probes.run_probe(models["a"], y, parts, metric="brier")
    with pytest.raises(ValueError, match="AUC"):
        other.interval("bootstrap")


def test_bootstrap_of_splits_is_that_of_copied_patients(data, parts):
    models, y, patients, _ = data
    result = probes.run_probe(models["a"], y, parts, groups=patients)
    values = resampled([result], n=5, seed=7)[:, 0]
    frame = result.predictions
    place = {p: i for i, p in enumerate(sorted(frame["position"].unique()))}
    code = dict(zip(frame["position"], pd.factorize(frame["group"])[0], strict=True))
    codes = np.array([code[p] for p in place])
    for value, counts in zip(values, next(stats.resample_counts(codes, 5, 7)), strict=True):
        areas = []
        for _, part in frame.groupby("split"):
            times = counts[[place[p] for p in part["position"]]]
            copied = part.loc[part.index.repeat(times)]
            areas.append(stats.auc(copied["y"].to_numpy(), copied["score"].to_numpy()))
        assert value == pytest.approx(np.mean(areas))


def test_a_ready_score_is_not_fitted(data, parts):
    _, y, patients, truth = data
    result = probes.run_score(truth, y, parts, groups=patients, name="truth")
    by_hand = [stats.auc(y.iloc[s.test], truth.iloc[s.test]) for s in parts]
    assert result.scores == pytest.approx(by_hand)
    assert result.probe == "truth"
    assert result.metrics()[["brier", "balanced_accuracy"]].isna().all(axis=None)
    squeezed = probes.run_score((truth - truth.min()) / np.ptp(truth), y, parts)
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


@pytest.mark.parametrize("shots", [[], [0], [1.5], ["3"], [True], [1000]])
def test_few_shot_refuses(data, parts, shots):
    models, y, _, _ = data
    with pytest.raises(ValueError, match=r"shots|were asked for"):
        probes.few_shot(models["a"], y, parts, shots=shots)


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
    with pytest.raises(ValueError, match="more than 4 lesions"):
        ensembles.alignment_weights([a, c], k=4)


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


def test_ensembles_refuse(data, parts):
    models, y, _, _ = data
    with pytest.raises(ValueError, match="at least two"):
        probes.ensemble({"a": models["a"]}, y, parts)
    with pytest.raises(ValueError, match="did you mean stacking"):
        probes.ensemble(models, y, parts, "stackin")
    with pytest.raises(ValueError, match="unknown protocol"):
        probes.ensemble(models, y, parts, protocol="new")
    with pytest.raises(ValueError, match="X of b has 119 rows"):
        probes.ensemble({"a": models["a"], "b": models["b"].iloc[1:]}, y, parts)


# ------------------------------------------------------------------------------------- comparisons


def test_compare_finds_a_model_that_is_worse(data, parts):
    _, y, patients, truth = data
    noise = pd.Series(np.random.default_rng(5).normal(size=N), y.index)
    results = {
        name: probes.run_score(score, y, parts, groups=patients, name=name)
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


def test_compare_refuses(data, parts):
    models, y, _, _ = data
    result = probes.run_probe(models["a"], y, parts)
    other = probes.run_probe(models["a"], y, parts[:2])
    with pytest.raises(KeyError, match="unknown result"):
        probes.compare({"a": result}, "b")
    with pytest.raises(ValueError, match="different lesions"):
        probes.compare({"a": result, "b": other}, "a")
    brier = probes.run_probe(models["a"], y, parts, metric="brier")
    with pytest.raises(ValueError, match="by the AUC"):
        probes.compare({"a": result, "b": brier}, "a")


def test_design_turns_covariates_into_numbers():
    table = pd.DataFrame(
        {
            "age": pd.array([50, None, 70], dtype="Int64"),
            "sex": ["f", "m", "f"],
            "stage": pd.Categorical(["I", None, "II"]),
            "empty": [None, None, None],
        },
        index=list("abc"),
    )
    out = probes.design(table, ["age", "sex", "stage"])
    assert out["age"].tolist() == [50, 60, 70]
    assert out["age_missing"].tolist() == [0, 1, 0]
    assert out["sex=m"].tolist() == [0, 1, 0]
    assert out.filter(like="stage=").to_numpy().sum() == 1
    assert out["stage_missing"].tolist() == [0, 1, 0]
    with pytest.raises(ValueError, match="no value"):
        probes.design(table, ["empty"])
    with pytest.raises(ValueError, match="no column"):
        probes.design(table, ["weight"])


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
