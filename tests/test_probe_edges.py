"""The boundary of statistics and probes: what would end in a silent wrong number is refused."""

import numpy as np
import pandas as pd
import pytest

from tumorbench_utils import checks, probes, splits, stats
from tumorbench_utils.probes.run import run_score

N = 120
rng = np.random.default_rng(0)
LABELS = np.arange(N) % 2
FEATURES = rng.normal(size=(N, 5)) + LABELS[:, None]
IDS = pd.Index([f"lesion-{i:03d}" for i in range(N)], name="lesion_id")
y, X = pd.Series(LABELS, IDS), pd.DataFrame(FEATURES, IDS)
PARTS = splits.reference_splits(LABELS, 2)
ONE = PARTS[0]
RESULT = probes.run_probe(X, y, PARTS)
FRAME = pd.DataFrame(np.eye(3), index=list("abc"), columns=list("xyz"))
S = np.arange(4.0)


def changed(row, column, value, kind=float):
    out = X.astype(kind)
    out.iloc[row, column] = value
    return out


def with_test(rows):
    return [ONE._replace(test=np.asarray(rows))]


REFUSED = {
    "no labels": (stats.auc, ([], []), "empty"),
    "one class": (stats.auc, ([1, 1], [1, 2]), "one class"),
    "other labels": (stats.auc, ([0, 1, 2], [1, 2, 3]), "0 and 1 only"),
    "missing label": (stats.auc, (pd.array([0, 1, None], dtype="Int64"), [1, 2, 3]), "missing"),
    "labels as text": (stats.auc, (["0", "1"], [1, 2]), "it holds text"),
    "labels as a matrix": (stats.auc, ([[0, 1]], [1]), "dimension"),
    "longer score": (stats.auc, ([0, 1], [1, 2, 3]), "3 rows where 2"),
    "missing score": (stats.auc, ([0, 1], [1, np.nan]), "the first in row 1"),
    "infinite score": (stats.auc, ([0, 1], [1, np.inf]), "infinite"),
    "score as text": (stats.auc, ([0, 1], pd.Series([1, "2"])), "it holds text"),
    "dates": (stats.auc, ([0, 1], pd.to_datetime(["2020", "2021"])), "it holds dates"),
    "complex score": (stats.auc, ([0, 1], [1, 4j]), "complex"),
    "other ids": (stats.auc, (y[:4], y[4:8]), "not of the same rows"),
    "ids twice": (stats.auc, (y[:2], y.iloc[[0, 0]]), "once each"),
    "one group": (stats.bootstrap_auc, (LABELS[:4], S, ["p"] * 4), "one group"),
    "missing group": (stats.bootstrap_auc, (LABELS[:4], S, ["p", None, "q", "r"]), "missing"),
    "fewer groups": (stats.bootstrap_auc, (LABELS[:4], S, ["p", "q", "r"]), "3 rows where 4"),
    "level in percent": (lambda: stats.bootstrap_auc(LABELS[:4], S, level=95), (), "level"),
    "one-class resamples": (
        stats.bootstrap_auc,
        ([0, 0, 1], [1, 2, 3], ["p", "p", "q"], 400),
        "one class only",
    ),
    "one positive in DeLong": (stats.delong_test, ([0, 0, 1], [1, 2, 3], [3, 2, 1]), "two cases"),
    "one split": (stats.corrected_interval, ([0.5], 7, 3), "two"),
    "no split": (stats.corrected_interval, ([], 7, 3), "two"),
    "missing fold": (stats.corrected_interval, ([0.5, np.nan], 7, 3), "missing"),
    "nothing to train on": (stats.corrected_interval, ([0.5, 0.6], 0, 3), "above 0"),
    "size not known": (stats.corrected_interval, ([0.5, 0.6], 7, np.nan), "above 0"),
    "no spread": (stats.corrected_p, (0.6, 0.0, 10, 70, 30), "nothing to test"),
    "no p value": (stats.holm, ([],), "p values"),
    "p above 1": (stats.holm, ([1.2],), "p values"),
    "p missing": (stats.holm, ([0.5, np.nan],), "missing"),
    "one cohort": (stats.friedman_nemenyi, (FRAME[:1],), "two cohorts"),
    "model twice": (stats.friedman_nemenyi, (FRAME.rename(columns={"y": "x"}),), "each once"),
    "performance missing": (stats.friedman_nemenyi, (FRAME.replace(1, np.nan),), "missing"),
    "performance as text": (stats.friedman_nemenyi, (FRAME.astype(str),), "it holds text"),
    "shorter y": (probes.run_probe, (X, y[:-1], PARTS), "not of the same rows"),
    "other lesions": (probes.run_probe, (X.set_axis(IDS + "x"), y, PARTS), "same rows"),
    "ids on one side": (probes.run_probe, (X, LABELS, PARTS), "names its rows"),
    "ids on the other": (probes.run_probe, (FEATURES, y, PARTS), "names its rows"),
    # Numbers from 0 in another order are names, too: by position the AUC fell from .99 to .52.
    "shuffled numbers": (
        probes.run_probe,
        (X.reset_index(drop=True).sample(frac=1, random_state=1), LABELS, PARTS),
        "names its rows",
    ),
    "a hole": (probes.run_probe, (changed(3, 4, np.nan), y, PARTS), "row 3, 4"),
    "infinity": (probes.run_probe, (changed(0, 0, np.inf), y, PARTS), "infinite"),
    "text": (probes.run_probe, (changed(0, 0, "high", object), y, PARTS), "it holds text"),
    "all constant": (probes.run_probe, (X * 0 + 1, y, PARTS), "same for every lesion"),
    "no columns": (probes.run_probe, (X.iloc[:, :0], y, PARTS), "same for every lesion"),
    "a vector": (probes.run_probe, (X[0], y, PARTS), "2 dimension"),
    "too large": (probes.run_probe, (X * 1e19, y, PARTS), r"column \d"),
    "too small": (probes.run_probe, (X * 1e-17, y, PARTS), "scale it"),
    "large constant": (probes.run_probe, (X.assign(c=1e30), y, PARTS), r"1e\+30 \(column 5\)"),
    "no splits": (probes.run_probe, (X, y, []), "no splits"),
    "two parts": (probes.run_probe, (X, y, [ONE._replace(val=ONE.train)]), "two parts"),
    "negative": (probes.run_probe, (X, y, with_test([-1, -2])), "positions from 0"),
    "truth values": (probes.run_probe, (X, y, with_test(LABELS == 1)), "positions|two parts"),
    "empty part": (probes.run_probe, (X, y, with_test(np.array([], int))), "split 0, test: y"),
    "one class in a part": (
        probes.run_probe,
        (X, y, [ONE._replace(val=ONE.val[LABELS[ONE.val] == 1])]),
        "split 0, val: y holds one class",
    ),
    "49 rows as published": (
        lambda: probes.run_probe(
            X[:80], y[:80], splits.reference_splits(y[:80], 1), "knn", protocol="published"
        ),
        (),
        "50 neighbours are wanted of",
    ),
    "probe": (probes.run_probe, (X, y, PARTS, "svm"), "unknown probe 'svm'"),
    "protocol": (lambda: probes.run_probe(X, y, PARTS, protocol="publish"), (), "did you mean"),
    "groups": (lambda: probes.run_probe(X, y, PARTS, groups=LABELS), (), "names its rows"),
    "score": (run_score, (y.where(y == 1), y, PARTS), "missing"),
    "one model": (probes.ensemble, ({"a": X}, y, PARTS), "at least two"),
    "ensemble": (probes.ensemble, ({"a": X, "b": X}, y, PARTS, "stackin"), "did you mean"),
    "shorter model": (probes.ensemble, ({"a": X, "b": X[1:]}, y, PARTS), "X of b"),
    "interval": (RESULT.interval, ("bca",), "method of interval"),
    "published level": (RESULT.interval, ("published", 0.9), r"0\.95 only"),
    "compared across splits": (
        probes.compare,
        ({"a": RESULT, "b": probes.run_probe(X, y, PARTS[:1])}, "a"),
        "different lesions",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused(case):
    function, arguments, message = REFUSED[case]
    with pytest.raises(checks.InputError, match=message):
        function(*arguments)


@pytest.mark.parametrize("shots", [5, [0], [1.5], ["3"], [1000]])
def test_shots_are_whole_numbers_and_there(shots):
    with pytest.raises((TypeError, ValueError)):
        probes.few_shot(X, y, PARTS, shots)


def test_an_unknown_reference_is_named():
    with pytest.raises(KeyError, match="b"):
        probes.compare({"a": RESULT}, "b")


@pytest.mark.parametrize("kind", [np.int64, np.int8, np.float32, np.bool_])
def test_numpy_scalars_in_a_column_of_objects_are_numbers(kind):
    labels = pd.Series([kind(v) for v in (0, 0, 1, 1)], dtype=object)
    assert stats.auc(labels, [0.1, 0.4, 0.35, 0.8]) == 0.75


@pytest.mark.parametrize("factor", [1e19, 1e-17, 1e-30])
def test_neighbours_do_not_depend_on_the_unit(factor):
    """Squares of 32-bit numbers leave their range at 1e19, and vanish at 1e-23."""
    small = FEATURES.astype(np.float32)
    plain = probes.KNNProbe(7).fit(small, LABELS).predict_proba(small)
    scaled = np.float32(factor) * small
    assert (probes.KNNProbe(7).fit(scaled, LABELS).predict_proba(scaled) == plain).mean() > 0.99


@pytest.mark.parametrize("probe", ["knn", "linear"])
@pytest.mark.parametrize("value", [-7.0, 9e14])
def test_a_constant_column_changes_nothing(probe, value):
    plain = probes.run_probe(X, y, PARTS, probe)
    padded = probes.run_probe(X.assign(c=value), y, PARTS, probe)
    assert padded.scores == pytest.approx(plain.scores, abs=0.01)
