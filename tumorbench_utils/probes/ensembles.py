"""Several models together: votes weighted by alignment, and stacking."""

from itertools import combinations, product

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.metrics.pairwise import cosine_distances
from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold
from sklearn.preprocessing import StandardScaler

from tumorbench_utils import stats
from tumorbench_utils.probes import knn
from tumorbench_utils.probes.inputs import ProbeInput, check_splits, feature_array, probe_input
from tumorbench_utils.probes.result import ProbeResult
from tumorbench_utils.probes.run import (
    PROTOCOLS,
    Runner,
    careful_shares,
    choose_neighbours,
    rows_to_fit,
    run_checked,
    runner,
)
from tumorbench_utils.settings import unknown

METHODS = ("alignment", "stacking", "best")

#: Neighbours of a vote, and of the sets whose overlap weights it.
ALIGNMENT_K = 10

#: Neighbours and penalties that stacking chooses from, in the order they are tried.
STACKING_GRID = tuple(product((5, 10, 15, 25), (0.25, 1.0, 4.0)))


def ensemble(
    dict_of_X, y, splits, method="alignment", *, protocol="careful", groups=None
) -> ProbeResult:
    """Score an ensemble of nearest-neighbour probes, one per model.

    ``alignment``: the shares of label 1 among 10 neighbours, averaged over the models with weights
    proportional to the mean overlap of a model's neighbour sets with those of the others. No
    label enters a weight.

    ``stacking``: a logistic regression on the shares of all models; neighbours (5, 10, 15, 25) and
    penalty ``C`` (0.25, 1, 4) are chosen by AUC.

    ``best``: no ensemble but its honest opponent, the single model with the highest validation AUC
    in each split, by the nearest-neighbour probe of the protocol.

    ``protocol="published"``: raw features; alignment over all lesions, test lesions included;
    stacking with balanced classes, whose regression is fitted and chosen on the same validation
    rows. ``"careful"``: scaled features and nothing but training and validation rows; the
    regression is fitted on out-of-fold shares (folds by patient if `groups` are given) and chosen
    on validation rows that it has not seen.

    Parameters
    ----------
    dict_of_X : dict of str to DataFrame or array, shape (n, d_model)
        Embeddings per model; at least two.
    y, splits, groups
        As for :func:`run_probe`.
    method : {"alignment", "stacking", "best"}
    protocol : {"careful", "published"}

    Returns
    -------
    ProbeResult
        ``chosen`` holds the weights per model; the neighbours and the penalty; or the model and its
        neighbours.

    Raises
    ------
    ValueError
        As :func:`run_probe`; also with fewer than two models, or fewer rows than neighbours.
    """
    if method not in METHODS:
        raise ValueError(unknown("method of ensemble", method, METHODS))
    if protocol not in PROTOCOLS:
        raise ValueError(unknown("protocol", protocol, PROTOCOLS))
    if not isinstance(dict_of_X, dict) or len(dict_of_X) < 2:
        raise ValueError("an ensemble needs a dict with the features of at least two models")
    names = list(dict_of_X)
    data = probe_input(dict_of_X[names[0]], y, groups)
    features = [feature_array(dict_of_X[name], y, f"X of {name}") for name in names]
    if method == "alignment":
        fit = _Alignment(names, features, protocol)
    elif method == "best":
        fit = _Best(names, features, protocol)
    elif protocol == "published":
        fit = _PublishedStacking(features)
    else:
        fit = _CarefulStacking(features)
    run = Runner(f"{method} ensemble", protocol, fit)
    return run_checked(data, check_splits(splits, data.y), run, "auc")


def alignment_weights(features: list[np.ndarray], k: int = ALIGNMENT_K) -> np.ndarray:
    """Return weights per model, summing to 1, from the overlap of neighbour sets.

    Parameters
    ----------
    features : list of ndarray, shape (n, d_model)
        Rows are the same lesions in every one.
    k : int
        Size of the neighbour sets (cosine distance, the lesion itself left out); below n.

    Returns
    -------
    ndarray, shape (models,)
        Proportional to the mean overlap with the other models; equal if none overlaps.
    """
    n = len(features[0])
    if k >= n:
        raise ValueError(f"sets of {k} neighbours need more than {k} lesions, not {n}")
    members = []
    for X in features:
        distances = cosine_distances(X)
        np.fill_diagonal(distances, np.inf)
        nearest = np.argpartition(distances, k - 1, axis=1)[:, :k]
        members.append((np.arange(n)[:, None] * n + nearest).ravel())
    overlap = np.zeros(len(features))
    for a, b in combinations(range(len(features)), 2):
        shared = len(np.intersect1d(members[a], members[b], assume_unique=True))
        overlap[[a, b]] += shared
    return overlap / overlap.sum() if overlap.any() else np.full(len(features), 1 / len(features))


class _Alignment:
    def __init__(self, names, features, protocol):
        self.names, self.features, self.protocol = names, features, protocol
        if protocol == "published":
            self.tables = [knn.CosineTable(X) for X in features]
            self.weights = alignment_weights(features)

    def __call__(self, data: ProbeInput, split) -> tuple[dict, np.ndarray]:
        if self.protocol == "published":
            weights, k = self.weights, ALIGNMENT_K
            _need(k, split.train)
            votes = [t.counts(split.test, split.train, data.y, k)[:, -1] / k for t in self.tables]
        else:
            rows = rows_to_fit(split, "careful")
            _need(ALIGNMENT_K + 1, rows)
            weights = alignment_weights(
                [StandardScaler().fit_transform(X[rows]) for X in self.features]
            )
            votes = [
                careful_shares(X, data.y, rows, split.test, ALIGNMENT_K)[:, -1]
                for X in self.features
            ]
        chosen = dict(zip(self.names, weights.astype(float).tolist(), strict=True))
        return chosen, np.average(votes, axis=0, weights=weights)


class _Best:
    def __init__(self, names, features, protocol):
        self.names, self.features, self.protocol = names, features, protocol
        self.runners = [runner(ProbeInput(X, *[None] * 3), "knn", protocol) for X in features]

    def __call__(self, data: ProbeInput, split) -> tuple[dict, np.ndarray]:
        inner = [self._inner_auc(place, data, split) for place in range(len(self.names))]
        place = int(np.argmax(inner))
        own = data._replace(X=self.features[place])
        k, scores = self.runners[place].fit(own, split)
        return {"model": self.names[place], "k": k, "inner_auc": inner[place]}, scores

    def _inner_auc(self, place: int, data: ProbeInput, split) -> float:
        if self.protocol == "careful":
            return choose_neighbours(self.features[place], data.y, split)[1]
        table = self.runners[place].fit.table
        _need(knn.K_MAX, split.train)
        counts = table.counts(split.val, split.train, data.y, knn.K_MAX)
        return float(knn.auc_per_k(counts, data.y[split.val]).max())


def _need(k: int, rows) -> None:
    if len(rows) < k:
        raise ValueError(f"{k} neighbours were asked for, but a split has {len(rows)} rows to fit")


class _PublishedStacking:
    """The meta-learner is fitted and scored on the same validation rows, as the reference did."""

    def __init__(self, features):
        self.tables = [knn.CosineTable(X) for X in features]

    def __call__(self, data: ProbeInput, split) -> tuple[dict, np.ndarray]:
        k_max = max(k for k, _ in STACKING_GRID)
        _need(k_max, split.train)
        steps = np.arange(1, k_max + 1)
        val, test = (
            np.stack([t.counts(rows, split.train, data.y, k_max) / steps for t in self.tables])
            for rows in (split.val, split.test)
        )
        best, chosen, scores = -np.inf, None, None
        for k, strength in STACKING_GRID:
            meta = LogisticRegression(C=strength, class_weight="balanced", max_iter=1000)
            meta.fit(val[:, :, k - 1].T, data.y[split.val])
            area = stats.auc(data.y[split.val], meta.predict_proba(val[:, :, k - 1].T)[:, 1])
            if area > best:
                best, chosen = area, {"k": k, "C": strength, "inner_auc": area}
                scores = meta.predict_proba(test[:, :, k - 1].T)[:, 1]
        return chosen, scores


class _CarefulStacking:
    """The meta-learner is fitted out of fold, and chosen on validation rows it has not seen.

    Choosing it on the same folds would not do: the shares of one fold hold the labels of the
    others, and a regression finds that on pure noise.
    """

    def __init__(self, features):
        self.features = features

    def __call__(self, data: ProbeInput, split) -> tuple[dict, np.ndarray]:
        train = np.asarray(split.train)
        folded, k_max = self._out_of_fold(data, train)
        val = self._shares(data, train, split.val, k_max)
        best, chosen = -np.inf, None
        for k, strength in STACKING_GRID:
            if k > k_max:
                continue
            meta = LogisticRegression(C=strength).fit(folded[:, :, k - 1], data.y[train])
            area = stats.auc(data.y[split.val], meta.predict_proba(val[:, :, k - 1])[:, 1])
            if area > best:
                best, chosen = area, {"k": k, "C": strength, "inner_auc": area}
        k, rows = chosen["k"], rows_to_fit(split, "careful")
        folded, _ = self._out_of_fold(data, rows)
        meta = LogisticRegression(C=chosen["C"]).fit(folded[:, :, k - 1], data.y[rows])
        test = self._shares(data, rows, split.test, k)[:, :, -1]
        return chosen, meta.predict_proba(test)[:, 1]

    def _shares(self, data: ProbeInput, train, queries, k_max: int) -> np.ndarray:
        shares = [careful_shares(X, data.y, train, queries, k_max) for X in self.features]
        return np.stack(shares, axis=1)

    def _out_of_fold(self, data: ProbeInput, rows) -> tuple[np.ndarray, int]:
        """Shares of `rows` from folds without them, (rows, models, k), and the largest k."""
        folds = inner_folds(data, rows)
        smallest = min(len(inside) for inside, _ in folds)
        _need(min(k for k, _ in STACKING_GRID), range(smallest))
        k_max = min(max(k for k, _ in STACKING_GRID), smallest)
        shares = np.empty((len(rows), len(self.features), k_max))
        for inside, outside in folds:
            shares[outside] = self._shares(data, rows[inside], rows[outside], k_max)
        return shares, k_max


def inner_folds(data: ProbeInput, rows: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return up to five stratified folds of `rows`, by patient if patients are known.

    Returns
    -------
    list of (inside, outside)
        Positions in `rows`.

    Raises
    ------
    ValueError
        If a class has fewer than two cases (or patients).
    """
    y = data.y[rows]
    units = np.arange(len(rows)) if data.groups is None else data.groups[rows]
    fewest = min(len(np.unique(units[y == label])) for label in (0, 1))
    if fewest < 2:
        raise ValueError("folds inside a split need two cases of either class; use larger splits")
    count = min(5, fewest)
    if data.groups is None:
        folds = StratifiedKFold(count, shuffle=True, random_state=0)
    else:
        folds = StratifiedGroupKFold(count, shuffle=True, random_state=0)
    made = folds.split(rows, y, None if data.groups is None else units)
    return [(inside, outside) for inside, outside in made if len(outside)]
