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
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.metrics import roc_auc_score
from sklearn.preprocessing import normalize
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data

from tumorbench_utils import settings

#: Neighbours that the published protocol tries: 1 to this.
K_MAX = 50

#: Above this many lesions the table of all distances is not kept (2 GB in double precision).
_LARGEST_TABLE = 16_000


@functools.cache
def published_order() -> tuple[int, ...]:
    """Return k = 1..50 in the order of the published search; equal scores go to the first."""
    table = pd.read_csv(settings.BOOK_ROOT / "data" / "published" / "optuna_grid_order.csv")
    return tuple(table.sort_values("visit")["k"])


def unit_distances(queries: np.ndarray, train: np.ndarray) -> np.ndarray:
    """Cosine distance of rows that have unit length, rounded as scikit-learn's is."""
    product = queries @ train.T
    product *= -1
    product += 1
    return np.clip(product, 0, 2, out=product)


def _nearest_positives(
    distances: np.ndarray, labels: np.ndarray, k_max: int, tolerance: float
) -> tuple[np.ndarray, np.ndarray]:
    """Count label 1 among the k nearest, and say where a tie leaves the count open.

    Returns
    -------
    counts : ndarray of int, shape (n, k_max)
    tied : ndarray of bool, shape (n, k_max)
        The k-th and the next neighbour differ by at most `tolerance`.
    """
    kept = min(k_max + 1, distances.shape[1])
    nearest = np.argpartition(distances, kept - 1, axis=1)[:, :kept]
    near = np.take_along_axis(distances, nearest, axis=1)
    order = np.argsort(near, axis=1)
    near = np.take_along_axis(near, order, axis=1)
    nearest = np.take_along_axis(nearest, order, axis=1)[:, :k_max]
    tied = np.zeros((len(distances), k_max), dtype=bool)
    tied[:, : kept - 1] = np.diff(near, axis=1) <= tolerance
    return np.cumsum(labels[nearest], axis=1), tied


def positive_counts(distances: np.ndarray, labels: np.ndarray, k_max: int) -> np.ndarray:
    """Count label 1 among the k nearest of every query, for k = 1 to `k_max`.

    Parameters
    ----------
    distances : ndarray, shape (n, n_train)
    labels : ndarray of 0 and 1, shape (n_train,)
    k_max : int
        At most `n_train`.

    Returns
    -------
    ndarray of int, shape (n, k_max)
        Ties are settled as ``KNeighborsClassifier`` settles them.
    """
    counts, tied = _nearest_positives(distances, labels, k_max, 0.0)
    for k in np.flatnonzero(tied.any(axis=0)) + 1:
        rows = np.flatnonzero(tied[:, k - 1])
        kept = np.argpartition(distances[rows], k - 1, axis=1)[:, :k]
        counts[rows, k - 1] = labels[kept].sum(axis=1)
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
        self.unit = normalize(X)
        self._table = unit_distances(self.unit, self.unit) if len(X) <= _LARGEST_TABLE else None
        self._exact_shapes: dict[tuple[int, int], bool] = {}
        self._tolerance = X.shape[1] * np.finfo(X.dtype).eps

    def counts(
        self, queries: np.ndarray, train: np.ndarray, labels: np.ndarray, k_max: int
    ) -> np.ndarray:
        """Count label 1 among the k nearest training rows, for k = 1 to `k_max`.

        Parameters
        ----------
        queries, train : ndarray of int
            Rows of the embeddings.
        labels : ndarray of 0 and 1, shape (n,)
            Labels of all rows.
        k_max : int
        """
        own = labels[train]
        if self._table is None:
            return positive_counts(self._exact(queries, train), own, k_max)
        block = self._table[np.ix_(queries, train)]
        if block.shape not in self._exact_shapes:
            exact = self._exact(queries, train)
            self._exact_shapes[block.shape] = np.array_equal(exact, block)
            return positive_counts(exact, own, k_max)
        if self._exact_shapes[block.shape]:
            return positive_counts(block, own, k_max)
        counts, tied = _nearest_positives(block, own, k_max, self._tolerance)
        if tied.any():
            return positive_counts(self._exact(queries, train), own, k_max)
        return counts

    def _exact(self, queries: np.ndarray, train: np.ndarray) -> np.ndarray:
        return unit_distances(self.unit[queries], self.unit[train])


def auc_per_k(counts: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Return the AUC of the shares that :func:`positive_counts` stands for, per k.

    Parameters
    ----------
    counts : ndarray of int, shape (n, k_max)
    y : ndarray of 0 and 1, shape (n,)
    """
    positives = int(y.sum())
    ranks = sps.rankdata(counts, axis=0)[y == 1].sum(axis=0)
    return (ranks - positives * (positives + 1) / 2) / (positives * (len(y) - positives))


def choose_k_as_published(counts: np.ndarray, y: np.ndarray) -> int:
    """Return the k with the highest validation AUC, ties as the published search broke them.

    The search kept the first k, in its own order, that reached the highest value of
    ``roc_auc_score``. Equal areas can differ there in the last bit, so the candidates are scored by
    that very function.

    Parameters
    ----------
    counts : ndarray of int, shape (n, k_max)
        From :func:`positive_counts`, for the validation rows.
    y : ndarray of 0 and 1, shape (n,)
    """
    area = auc_per_k(counts, y)
    best = set(np.flatnonzero(area >= area.max() - 1e-12) + 1)
    candidates = [k for k in published_order() if k in best]
    if len(candidates) == 1:
        return int(candidates[0])
    exact = [roc_auc_score(y, counts[:, k - 1] / k) for k in candidates]
    return int(candidates[int(np.argmax(exact))])


class KNNProbe(ClassifierMixin, BaseEstimator):
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
    """

    def __init__(self, n_neighbors: int = 10):
        self.n_neighbors = n_neighbors

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_class = False
        return tags

    def fit(self, X, y):
        """Keep the training rows.

        Parameters
        ----------
        X : array-like, shape (n, d)
        y : array-like, shape (n,)
            Two classes.

        Raises
        ------
        ValueError
            If there are not two classes, or fewer rows than neighbours.
        """
        X, y = validate_data(self, X, y, dtype=[np.float64, np.float32])
        check_classification_targets(y)
        self.classes_, codes = np.unique(y, return_inverse=True)
        if len(self.classes_) != 2:
            raise ValueError(
                "Only binary classification is supported: a probe needs labels of two classes, "
                f"not of {len(self.classes_)} class{'es' * (len(self.classes_) != 1)}"
            )
        self._check_k(self.n_neighbors, len(X))
        self._unit, self._labels = normalize(X), codes
        return self

    @staticmethod
    def _check_k(k, n_train: int) -> None:
        if not isinstance(k, int | np.integer) or isinstance(k, bool) or k < 1:
            raise ValueError(f"the number of neighbours must be a whole number above 0, not {k!r}")
        if k > n_train:
            raise ValueError(
                f"{k} neighbours were asked for, but there are {n_train} training rows"
            )

    def _counts(self, X, k_max: int) -> np.ndarray:
        check_is_fitted(self)
        self._check_k(k_max, len(self._labels))
        X = validate_data(self, X, dtype=[np.float64, np.float32], reset=False)
        return positive_counts(unit_distances(normalize(X), self._unit), self._labels, k_max)

    def predict_proba_all(self, X, k_max: int = K_MAX) -> np.ndarray:
        """Return the share of the second class among the k nearest, for k = 1 to `k_max`.

        Returns
        -------
        ndarray, shape (n, k_max)
        """
        return self._counts(X, k_max) / np.arange(1, k_max + 1)

    def predict_proba(self, X) -> np.ndarray:
        """Return the shares of both classes among the nearest neighbours, shape (n, 2)."""
        positive = self._counts(X, self.n_neighbors)[:, -1]
        return np.column_stack([self.n_neighbors - positive, positive]) / self.n_neighbors

    def predict(self, X) -> np.ndarray:
        """Return the class of the majority; an even vote goes to the first class."""
        share = self.predict_proba(X)[:, 1]
        return self.classes_[(share > 0.5).astype(int)]
