"""Several models together: votes weighted by alignment, and stacking."""

from itertools import product

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.metrics.pairwise import cosine_distances
from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold
from sklearn.preprocessing import StandardScaler

from tumorbench_utils import checks, stats
from tumorbench_utils.probes import knn
from tumorbench_utils.probes.inputs import PROTOCOLS, probe_input, rows_to_fit
from tumorbench_utils.probes.result import ProbeResult, collect

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

    ``stacking``: a logistic regression on the shares of all models [1]_; neighbours (5, 10, 15,
    25) and penalty ``C`` (0.25, 1, 4) are chosen by AUC.

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
    InputError
        As :func:`run_probe`; also with fewer than two models, or fewer rows than neighbours.

    See Also
    --------
    sklearn.ensemble.StackingClassifier : stacks models that see the same features.

    References
    ----------
    .. [1] Wolpert DH. Stacked generalization. Neural Netw 1992;5:241-259.
    """
    methods = {"alignment": _alignment, "stacking": _stacking, "best": _best}
    checks.one_of(method, "method of ensemble", methods)
    checks.one_of(protocol, "protocol", PROTOCOLS)
    if len(dict_of_X) < 2:
        raise checks.InputError("an ensemble needs the features of at least two models")
    splits, fit = list(splits), methods[method]
    models = {n: probe_input(X, y, splits, groups, f"X of {n}") for n, X in dict_of_X.items()}
    data = next(iter(models.values()))
    return collect(data, (fit(models, split, protocol) for split in data.splits), protocol)


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
    members = np.zeros((len(features), n, n), dtype=np.float32)
    for own, X in zip(members, features, strict=True):
        distances = cosine_distances(X)
        np.fill_diagonal(distances, np.inf)
        np.put_along_axis(own, np.argpartition(distances, k - 1, axis=1)[:, :k], 1, axis=1)
    flat = members.reshape(len(features), -1)
    overlap = (flat @ flat.T).astype(np.float64).sum(axis=1) - n * k  # less that with itself
    return overlap / overlap.sum() if overlap.any() else np.full(len(features), 1 / len(features))


def _alignment(models, split, protocol: str) -> tuple:
    rows, features = rows_to_fit(split, protocol), [data.X for data in models.values()]
    if protocol == "careful":
        features = [StandardScaler().fit_transform(X[rows]) for X in features]
    weights = alignment_weights(features)
    votes = _shares(models, protocol, rows, split.test, ALIGNMENT_K)[:, :, -1]
    chosen = dict(zip(models, weights.tolist(), strict=True))
    return chosen, np.average(votes, axis=1, weights=weights)


def _best(models, split, protocol: str) -> tuple:
    inner = {name: knn.choose_k(data, split, protocol)[1] for name, data in models.items()}
    name = max(inner, key=inner.get)
    k, scores = knn.fit_knn(models[name], split, protocol)
    return {"model": name, "k": k, "inner_auc": inner[name]}, scores


def _stacking(models, split, protocol: str) -> tuple:
    """Fit a regression on the shares of the models, and choose its settings.

    As published it is fitted and chosen on the same validation rows. The careful one is fitted out
    of fold, and chosen on validation rows that it has not seen. Choosing it on the same folds would
    not do: the shares of one fold hold the labels of the others, and a regression finds that on
    pure noise.
    """
    careful, y = protocol == "careful", next(iter(models.values())).y
    options = {} if careful else {"class_weight": "balanced", "max_iter": 1000}

    def regression(shares, rows, k, C):
        return LogisticRegression(C=C, **options).fit(shares[:, :, k - 1], y[rows])

    rows, voters, trials = split.val, rows_to_fit(split, protocol), []
    if careful:
        rows, inside = split.train, _out_of_fold(models, split.train)
    k_max = inside.shape[2] if careful else STACKING_GRID[-1][0]
    val = _shares(models, protocol, split.train, split.val, k_max)
    inside = inside if careful else val
    for k, C in STACKING_GRID:
        if k <= k_max:
            guess = regression(inside, rows, k, C).predict_proba(val[:, :, k - 1])[:, 1]
            trials.append({"k": k, "C": C, "inner_auc": stats.auc(y[split.val], guess)})
    chosen = max(trials, key=lambda trial: trial["inner_auc"])
    if careful:
        rows, inside = voters, _out_of_fold(models, voters)
    test = _shares(models, protocol, voters, split.test, chosen["k"])[:, :, -1]
    model = regression(inside, rows, chosen["k"], chosen["C"])
    return chosen, model.predict_proba(test)[:, 1]


def _shares(models, protocol: str, train, queries, k_max: int) -> np.ndarray:
    """Return the shares of all models, shape (queries, models, k)."""
    each = [knn.shares(data, protocol, train, queries, k_max) for data in models.values()]
    return np.stack(each, axis=1)


def _out_of_fold(models, rows) -> np.ndarray:
    """Return shares of `rows` from folds without them, shape (rows, models, k)."""
    folds = inner_folds(next(iter(models.values())), rows)
    (fewest, _), (most, _) = STACKING_GRID[0], STACKING_GRID[-1]
    k_max = max(fewest, min(most, *(len(inside) for inside, _ in folds)))
    shares = np.empty((len(rows), len(models), k_max))
    for inside, outside in folds:
        shares[outside] = _shares(models, "careful", rows[inside], rows[outside], k_max)
    return shares


def inner_folds(data, rows: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
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
    y, groups = data.y[rows], None if data.groups is None else data.groups[rows]
    units = np.arange(len(rows)) if groups is None else groups
    count = min(5, *(len(np.unique(units[y == label])) for label in (0, 1)))
    kind = StratifiedKFold if groups is None else StratifiedGroupKFold
    folds = kind(count, shuffle=True, random_state=0).split(rows, y, groups)
    return [(inside, outside) for inside, outside in folds if len(outside)]
