"""Nearest neighbours by cosine distance: every k from one ordering, as scikit-learn has them.

The reference fits one classifier per k. All of them need the same distances, and the neighbours
for k are the first k of one ordering, so one product of matrices answers for every k and split.

Ties are the catch. Where the k-th and the next neighbour are equally far, scikit-learn keeps
whichever ``numpy.argpartition`` puts first, and rounding decides what is equal. Results therefore
stay the same to the last digit only if ties are found and settled by the same call on the same
bits; :class:`CosineTable` does this.
"""

import functools

import numpy as np
import pandas as pd
from scipy import stats as sps
from sklearn.metrics import roc_auc_score
from sklearn.preprocessing import StandardScaler, normalize

from tumorbench_utils import checks, settings
from tumorbench_utils.probes.inputs import BinaryProbe, rows_to_fit

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


def unit_distances(queries: np.ndarray, train: np.ndarray) -> np.ndarray:
    """Cosine distance of rows that have unit length, rounded as scikit-learn's is."""
    return np.clip(1 - queries @ train.T, 0, 2)


def positive_counts(distances, labels, k_max, tolerance=0.0, exact=None) -> np.ndarray:
    """Count label 1 among the k nearest of every query, for k = 1 to `k_max`.

    Parameters
    ----------
    distances : ndarray, shape (n, n_train)
    labels : ndarray of 0 and 1, shape (n_train,)
    k_max : int
        At most `n_train`.
    tolerance : float
        Distances this close count as tied.
    exact : callable () -> ndarray, optional
        Gives the distances to settle ties by, if `distances` are not exact.

    Returns
    -------
    ndarray of int, shape (n, k_max)
        Ties are settled as ``KNeighborsClassifier`` settles them.
    """
    if not 1 <= k_max <= len(labels):
        raise checks.InputError(f"{k_max} neighbours are wanted of {len(labels)} rows to fit")
    kept = min(k_max + 1, len(labels))
    nearest = np.argpartition(distances, kept - 1, axis=1)[:, :kept]
    near = np.take_along_axis(distances, nearest, axis=1)
    order = np.argsort(near, axis=1)
    near = np.take_along_axis(near, order, axis=1)
    nearest = np.take_along_axis(nearest, order, axis=1)[:, :k_max]
    counts = np.cumsum(labels[nearest], axis=1)
    tied = np.diff(near, axis=1) <= tolerance  # the k-th neighbour and the next
    if exact is not None and tied.any():
        return positive_counts(exact(), labels, k_max)
    for k in np.flatnonzero(tied.any(axis=0)) + 1:
        rows = np.flatnonzero(tied[:, k - 1])
        first = np.argpartition(distances[rows], k - 1, axis=1)[:, :k]
        counts[rows, k - 1] = labels[first].sum(axis=1)
    return counts


class CosineTable:
    """All cosine distances of one set of embeddings, computed once and used for many splits.

    A block cut out of the full table can differ in the last bit from the same block computed on
    its own, since the libraries for products of matrices choose their path by shape. So the first
    block of every shape is computed both ways. If they agree bit by bit, the table is used as it
    is; if not, it is used wherever no two neighbours are close enough for rounding to matter, and
    the block is computed on its own where they are.

    Parameters
    ----------
    X : ndarray of float, shape (n, d)
        Embeddings; rows of zeros are at distance 1 from everything.
    """

    def __init__(self, X: np.ndarray):
        self.unit = unit_rows(X)
        self._table = unit_distances(self.unit, self.unit)
        self._exact_shapes: dict[tuple[int, int], bool] = {}
        self._tolerance = X.shape[1] * np.finfo(X.dtype).eps

    def counts(self, queries, train, labels, k_max: int) -> np.ndarray:
        """Count label 1 among the k nearest training rows, for k = 1 to `k_max`.

        Parameters
        ----------
        queries, train : ndarray of int
            Rows of the embeddings.
        labels : ndarray of 0 and 1, shape (n,)
            Labels of all rows.
        k_max : int
        """

        def exact():
            return unit_distances(self.unit[queries], self.unit[train])

        block, own = self._table[np.ix_(queries, train)], labels[train]
        if block.shape not in self._exact_shapes:
            self._exact_shapes[block.shape] = np.array_equal(exact(), block)
        if self._exact_shapes[block.shape]:
            return positive_counts(block, own, k_max)
        return positive_counts(block, own, k_max, self._tolerance, exact)


def auc_per_k(shares: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Return the AUC of the shares of label 1 among the k nearest, per k.

    Parameters
    ----------
    shares : ndarray, shape (n, k_max)
    y : ndarray of 0 and 1, shape (n,)
    """
    positives = int(y.sum())
    ranks = sps.rankdata(shares, axis=0)[y == 1].sum(axis=0)
    return (ranks - positives * (positives + 1) / 2) / (positives * (len(y) - positives))


def choose_k_as_published(shares: np.ndarray, y: np.ndarray) -> int:
    """Return the k with the highest validation AUC, ties as the published search broke them.

    The search kept the first k, in its own order, that reached the highest value of
    ``roc_auc_score``. Equal areas can differ there in the last bit, so the candidates are scored by
    that very function.

    Parameters
    ----------
    shares : ndarray, shape (n, k_max)
        For the validation rows.
    y : ndarray of 0 and 1, shape (n,)
    """
    area = auc_per_k(shares, y)
    best = set(np.flatnonzero(area >= area.max() - 1e-12) + 1)
    candidates = [k for k in published_order() if k in best]
    if len(candidates) > 1:
        candidates.sort(key=lambda k: -roc_auc_score(y, shares[:, k - 1]))  # equals stay in order
    return int(candidates[0])


class Neighbours:
    """Nearest neighbours of one set of embeddings under a protocol.

    Parameters
    ----------
    X : ndarray of float, shape (n, d)
    protocol : {"careful", "published"}
        ``published``: raw features, whose distances are kept between splits; ``careful``: features
        scaled by the rows that are fitted on.
    """

    def __init__(self, X: np.ndarray, protocol: str):
        self.X = X
        self.table = CosineTable(X) if protocol == "published" else None

    def shares(self, y: np.ndarray, train, queries, k_max: int) -> np.ndarray:
        """Return the share of label 1 among the k nearest, shape (queries, k_max).

        Parameters
        ----------
        y : ndarray of 0 and 1, shape (n,)
        train, queries : ndarray of int
            Rows of the embeddings.
        k_max : int
        """
        if self.table is not None:
            counts = self.table.counts(queries, train, y, k_max)
        else:
            scaler = StandardScaler().fit(self.X[train])
            rows = [unit_rows(scaler.transform(self.X[part])) for part in (queries, train)]
            counts = positive_counts(unit_distances(*rows), y[train], k_max)
        return counts / np.arange(1, k_max + 1)

    def choose(self, y: np.ndarray, split, k_max: int = K_MAX) -> tuple[int, float]:
        """Return the k with the highest validation AUC, and that AUC.

        Of equals the published protocol takes the one that its search visited first, the careful
        one the largest, which is the smoothest vote.
        """
        if self.table is None:
            k_max = min(k_max, len(split.train))
        shares, labels = self.shares(y, split.train, split.val, k_max), y[split.val]
        area = auc_per_k(shares, labels)
        if self.table is not None:
            return choose_k_as_published(shares, labels), float(area.max())
        return int(np.flatnonzero(area >= area.max() - 1e-12)[-1]) + 1, float(area.max())

    def fit(self, y: np.ndarray, split, k_max: int = K_MAX) -> tuple[int, np.ndarray]:
        """Return the chosen k and the shares of the test rows."""
        k, _ = self.choose(y, split, k_max)
        rows = rows_to_fit(split, "careful" if self.table is None else "published")
        return k, self.shares(y, rows, split.test, k)[:, -1]


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
        X, self._labels = self._training(X, y)
        self._unit = unit_rows(X)
        return self

    def predict_proba_all(self, X, k_max: int = K_MAX) -> np.ndarray:
        """Return the share of the second class among the k nearest, for k = 1 to `k_max`.

        Returns
        -------
        ndarray, shape (n, k_max)
        """
        distances = unit_distances(unit_rows(self._queries(X)), self._unit)
        return positive_counts(distances, self._labels, k_max) / np.arange(1, k_max + 1)

    def predict_proba(self, X) -> np.ndarray:
        """Return the shares of both classes among the nearest neighbours, shape (n, 2)."""
        k = self.n_neighbors
        positive = np.rint(self.predict_proba_all(X, k)[:, -1] * k)
        return np.column_stack([k - positive, positive]) / k
