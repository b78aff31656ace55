"""Nearest neighbours by cosine distance: every k from one ordering, as scikit-learn has them.

The reference fits one classifier per k. All of them need the same distances, and the neighbours
for k are the first k of one ordering, so one product of matrices answers for every k.

Ties are the catch. Where the k-th and the next neighbour are equally far, scikit-learn keeps
whichever ``numpy.argpartition`` puts first, and rounding decides what is equal. Results therefore
stay the same to the last digit only if ties are found and settled by the same call on the same
bits: those of the distances between these queries and these training rows, not of a block cut out
of a larger product.
"""

import functools

import numpy as np
import pandas as pd
from sklearn.metrics import roc_auc_score
from sklearn.preprocessing import StandardScaler, normalize

from tumorbench_utils import checks, settings
from tumorbench_utils.probes.inputs import BinaryProbe, rows_to_fit
from tumorbench_utils.stats.roc import auc_per_column

#: Neighbours that the published protocol tries: 1 to this.
K_MAX = 50


@functools.cache
def published_order() -> tuple[int, ...]:
    """Return k = 1..50 in the order of the published search; equal scores go to the first."""
    table = pd.read_csv(settings.BOOK_ROOT / "data" / "published" / "optuna_grid_order.csv")
    return tuple(table.sort_values("visit")["k"])


def unit_rows(X: np.ndarray) -> np.ndarray:
    """Return rows of length one; a row of zeros stays.

    Every row is divided by a power of two first, which changes no bit of the result but keeps the
    squares of very large and very small numbers within range.
    """
    largest = np.maximum(X.max(axis=1, keepdims=True), -X.min(axis=1, keepdims=True))
    exponent = np.frexp(largest)[1]
    limit = np.finfo(X.dtype).maxexp - 2
    return normalize(X * np.exp2(-exponent.clip(-limit, limit), dtype=X.dtype))


def neighbour_shares(train, labels, queries, k_max: int) -> np.ndarray:
    """Return the share of label 1 among the k nearest of every query, for k = 1 to `k_max`.

    Parameters
    ----------
    train : ndarray of float, shape (n_train, d)
        Rows of zeros are at distance 1 from everything.
    labels : ndarray of 0 and 1, shape (n_train,)
    queries : ndarray of float, shape (n, d)
    k_max : int
        At most `n_train`.

    Returns
    -------
    ndarray, shape (n, k_max)
        Ties are settled as ``KNeighborsClassifier`` settles them.
    """
    if not 1 <= k_max <= len(labels):
        raise checks.InputError(f"{k_max} neighbours are wanted of {len(labels)} rows to fit")
    distances = np.clip(1 - unit_rows(queries) @ unit_rows(train).T, 0, 2)
    kept = min(k_max + 1, len(labels))
    nearest = np.argpartition(distances, kept - 1, axis=1)[:, :kept]
    order = np.argsort(np.take_along_axis(distances, nearest, axis=1), axis=1)
    nearest = np.take_along_axis(nearest, order, axis=1)
    tied = np.diff(np.take_along_axis(distances, nearest, axis=1), axis=1) == 0
    counts = np.cumsum(labels[nearest[:, :k_max]], axis=1)
    for k in np.flatnonzero(tied.any(axis=0)) + 1:  # the k-th neighbour and the next
        rows = np.flatnonzero(tied[:, k - 1])
        first = np.argpartition(distances[rows], k - 1, axis=1)[:, :k]
        counts[rows, k - 1] = labels[first].sum(axis=1)
    return counts / np.arange(1, k_max + 1)


def shares(data, protocol: str, train, queries, k_max: int) -> np.ndarray:
    """Return :func:`neighbour_shares` of rows of an embedding, scaled if the protocol is careful.

    Parameters
    ----------
    data : ProbeInput
    protocol : {"careful", "published"}
    train, queries : ndarray of int
        Rows of the embedding.
    k_max : int
    """
    rows = data.X[train], data.X[queries]
    if protocol == "careful":
        rows = map(StandardScaler().fit(rows[0]).transform, rows)
    fitted, asked = rows
    return neighbour_shares(fitted, data.y[train], asked, k_max)


def choose_k(data, split, protocol: str, k_max: int = K_MAX) -> tuple[int, float]:
    """Return the k with the highest validation AUC, and that AUC.

    Of equals the careful protocol takes the largest, which is the smoothest vote. The published
    search kept the first k, in its own order, that reached the highest value of
    ``roc_auc_score``. Equal areas can differ there in the last bit, so the candidates are scored by
    that very function.
    """
    careful, y = protocol == "careful", data.y[split.val]
    k_max = min(k_max, len(split.train)) if careful else k_max
    inside = shares(data, protocol, split.train, split.val, k_max)
    area = auc_per_column(inside, y)
    best = np.flatnonzero(area >= area.max() - 1e-12) + 1
    if not careful and len(best) > 1:
        order = [k for k in published_order() if k in best]
        best = [max(order, key=lambda k: roc_auc_score(y, inside[:, k - 1]))]
    return int(best[-1]), float(area.max())


def fit_knn(data, split, protocol: str, k_max: int = K_MAX) -> tuple[int, np.ndarray]:
    """Return the chosen k and the shares of the test rows of a split under a protocol."""
    k, _ = choose_k(data, split, protocol, k_max)
    return k, shares(data, protocol, rows_to_fit(split, protocol), split.test, k)[:, -1]


class KNNProbe(BinaryProbe):
    """Classify by the share of label 1 among the nearest neighbours in cosine distance.

    Same probabilities as ``KNeighborsClassifier(n_neighbors, metric="cosine")``, ties included;
    :meth:`predict_proba_all` gives those of every k up to a largest for the cost of one.

    Parameters
    ----------
    n_neighbors : int

    Attributes
    ----------
    classes_ : ndarray, shape (2,)
    n_features_in_ : int

    See Also
    --------
    sklearn.neighbors.KNeighborsClassifier : one k at a time.

    References
    ----------
    .. [1] Cover T, Hart P. Nearest neighbor pattern classification. IEEE Trans Inf Theory
       1967;13:21-27.
    """

    def __init__(self, n_neighbors: int = 10):
        self.n_neighbors = n_neighbors

    def fit(self, X, y):
        """Keep the training rows.

        Parameters
        ----------
        X : array-like, shape (n, d)
        y : array-like, shape (n,)
            Two classes.
        """
        self._rows, self._labels = self._training(X, y)
        return self

    def predict_proba_all(self, X, k_max: int = K_MAX) -> np.ndarray:
        """Return the share of the second class among the k nearest, for k = 1 to `k_max`.

        Returns
        -------
        ndarray, shape (n, k_max)
        """
        X = self._queries(X)
        return neighbour_shares(self._rows, self._labels, X, k_max)

    def predict_proba(self, X) -> np.ndarray:
        """Return the shares of both classes among the nearest neighbours, shape (n, 2)."""
        k = self.n_neighbors
        positive = np.rint(self.predict_proba_all(X, k)[:, -1] * k)
        return np.column_stack([k - positive, positive]) / k
