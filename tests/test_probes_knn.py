"""The fast nearest neighbours against a plain loop over scikit-learn, ties included."""

import numpy as np
import pytest
from scipy.optimize import minimize
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.neighbors import KNeighborsClassifier
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

from tumorbench_utils.probes import KNNProbe, LinearProbe, knn, linear, run_probe
from tumorbench_utils.probes.inputs import ProbeInput
from tumorbench_utils.splits import Split, reference_splits

KINDS = ("plain", "duplicates", "collapsed", "rounded", "zeros")


def embeddings(kind, n=160, d=24, dtype=np.float32, seed=0):
    """Embeddings with a weak signal; the kinds differ in how many distances are tied."""
    rng = np.random.default_rng(seed)
    y = (rng.random(n) < 0.4).astype(int)
    X = rng.normal(size=(n, d)) + 0.3 * y[:, None]
    if kind == "duplicates":
        X[n // 2 :] = X[: n - n // 2]
    if kind == "collapsed":
        X = 1e-4 * X + rng.normal(size=d)
    if kind == "rounded":
        X = X.round().clip(-1, 1)
    if kind == "zeros":
        X[::5] = 0
    return X.astype(dtype), y


def by_scikit_learn(X, y, splits):
    """One classifier per k, visited in the published order; the first of equals is kept."""
    chosen, scores = [], []
    for split in splits:
        best, best_k = -1.0, None
        for k in knn.published_order():
            model = KNeighborsClassifier(k, metric="cosine").fit(X[split.train], y[split.train])
            area = roc_auc_score(y[split.val], model.predict_proba(X[split.val])[:, 1])
            if area > best:
                best, best_k = area, k
        model = KNeighborsClassifier(best_k, metric="cosine").fit(X[split.train], y[split.train])
        chosen.append(best_k)
        scores.append(roc_auc_score(y[split.test], model.predict_proba(X[split.test])[:, 1]))
    return chosen, scores


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_published_protocol_is_the_plain_loop(kind, dtype):
    X, y = embeddings(kind, dtype=dtype)
    splits = reference_splits(y, n_repeats=2)
    result = run_probe(X, y, splits, protocol="published")
    chosen, scores = by_scikit_learn(X, y, splits)
    assert result.chosen == chosen
    assert result.scores == pytest.approx(scores, abs=1e-12)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_every_k_has_scikit_learns_probabilities(kind, dtype):
    """Bit by bit."""
    X, y = embeddings(kind, dtype=dtype, seed=1)
    split = reference_splits(y, n_repeats=1)[0]
    share = KNNProbe(3).fit(X[split.train], y[split.train]).predict_proba_all(X[split.test])
    for k in range(1, 51):
        model = KNeighborsClassifier(k, metric="cosine").fit(X[split.train], y[split.train])
        assert (model.predict_proba(X[split.test])[:, 1] == share[:, k - 1]).all()


def test_nearest_neighbours_by_hand():
    """Angles of 0, 10, 20 and 90 degrees from the query, labels 1, 0, 1, 0."""
    angles = np.deg2rad([0, 10, 20, 90])
    X = np.column_stack([np.cos(angles), np.sin(angles)])
    probe = KNNProbe(2).fit(X, [1, 0, 1, 0])
    assert probe.predict_proba_all([[2.0, 0.0]], 4).tolist() == [[1, 0.5, 2 / 3, 0.5]]
    assert probe.predict_proba([[2.0, 0.0]]).tolist() == [[0.5, 0.5]]


def test_equal_areas_go_to_the_k_that_was_visited_first_or_to_the_largest():
    """Two clusters, one per label: every k up to the size of a cluster is perfect."""
    angles = np.r_[np.zeros(60), np.full(60, np.pi / 2)] + np.linspace(0, 0.1, 120)
    X, y = np.column_stack([np.cos(angles), np.sin(angles)]), np.repeat([0, 1], 60)
    split = Split(np.arange(5, 115), np.r_[:5, 115:117], np.arange(117, 120))
    data = ProbeInput(X, y, None, None, [split])
    assert knn.choose_k(data, split, "published") == (knn.published_order()[0], 1)
    assert knn.choose_k(data, split, "careful") == (50, 1)


def test_published_order_is_a_permutation():
    assert sorted(knn.published_order()) == list(range(1, 51))


@pytest.mark.parametrize("k", [0, -1, 11])
def test_neighbours_are_refused(k):
    X, y = embeddings("plain", n=10)
    y[:2] = 0, 1
    with pytest.raises(ValueError, match="neighbours"):
        KNNProbe(k).fit(X, y).predict_proba(X)


@pytest.mark.filterwarnings("ignore")
@parametrize_with_checks([KNNProbe(2), LinearProbe(), LinearProbe(scale=True)])
def test_probes_are_scikit_learn_estimators(estimator, check):
    check(estimator)


def test_linear_probe_is_the_published_softmax():
    """A softmax of two vectors with C=1, minimised directly, against the binary fit with C=2."""
    X, y = embeddings("plain", n=80, d=6, dtype=np.float64)

    def loss(parameters):
        weights, bias = parameters[:12].reshape(2, 6), parameters[12:]
        logits = X @ weights.T + bias
        log_share = logits - np.logaddexp(logits[:, 0], logits[:, 1])[:, None]
        return -log_share[np.arange(80), y].sum() + 0.5 * (weights**2).sum()

    best = minimize(loss, np.zeros(14), tol=1e-12, options={"maxiter": 5000}).x
    logits = X @ best[:12].reshape(2, 6).T + best[12:]
    softmax = 1 / (1 + np.exp(logits[:, 0] - logits[:, 1]))
    exact = LogisticRegression(C=2, tol=1e-10, max_iter=10_000).fit(X, y)
    assert exact.predict_proba(X)[:, 1] == pytest.approx(softmax, abs=1e-5)
    # The probe stops where lbfgs stops by default, as the published one did.
    assert LinearProbe().fit(X, y).predict_proba(X)[:, 1] == pytest.approx(softmax, abs=2e-3)


def test_published_linear_probe_is_scikit_learns():
    X, y = embeddings("plain")
    splits = reference_splits(y, n_repeats=2)
    result = run_probe(X, y, splits, "linear", protocol="published")
    for split, score in zip(splits, result.scores, strict=True):
        model = LogisticRegression(C=2, max_iter=1000).fit(X[split.train], y[split.train])
        expected = roc_auc_score(y[split.test], model.predict_proba(X[split.test])[:, 1])
        assert score == pytest.approx(expected, abs=1e-12)
    assert result.chosen == [2.0, 2.0]


@pytest.mark.parametrize("d", [8, 300])
def test_scaled_probe_is_a_plain_fit_on_scaled_features(d):
    """More features than rows are fitted in the span of the rows; the fit is the same."""
    X, y = embeddings("plain", n=60, d=d, dtype=np.float64)
    X[:, 3] = 7.0
    train, rest = np.arange(40), np.arange(40, 60)
    scaler = StandardScaler().fit(X[train])
    scaled = scaler.transform(X) / np.sqrt(d)
    scores = linear.scores_per_penalty(X[train], y[train], X[rest])
    for column, C in enumerate(linear.C_GRID):
        plain = LogisticRegression(C=C, tol=1e-9, max_iter=10_000).fit(scaled[train], y[train])
        expected = plain.decision_function(scaled[rest])
        assert scores[:, column] == pytest.approx(expected, abs=0.02 * np.abs(expected).max())
        probe = LinearProbe(C=C, scale=True).fit(X[train], y[train])
        assert probe.decision_function(X[rest]) == pytest.approx(scores[:, column], rel=1e-6)
