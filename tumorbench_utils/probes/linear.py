"""Logistic regression on embeddings: as published, and with scaling and penalty chosen inside."""

import warnings

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from tumorbench_utils.probes.inputs import BinaryProbe, rows_to_fit

#: Penalties (inverse strengths) that the careful protocol chooses from, the strongest first.
C_GRID = (1e-2, 1e-1, 1.0, 1e1, 1e2, 1e3)


class _Coordinates:
    """Scaled features in coordinates that span the training rows and nothing else.

    A ridge penalty leaves the weights in the span of the training rows, so with fewer rows than
    features the fit is the same in as many coordinates as there are rows. Features are divided by
    their standard deviation in the training rows and by the root of their number: one penalty
    then means the same for 512 and for 4096 features.
    """

    def __init__(self, X: np.ndarray):
        self.scaler = StandardScaler().fit(X.astype(np.float64))
        self.train = self.rows = scaled = self._scaled(X)
        self.wide = X.shape[1] > len(X)
        if self.wide:
            values, vectors = np.linalg.eigh(scaled @ scaled.T)
            kept = values > values.max() * len(X) * np.finfo(float).eps
            lengths = np.sqrt(values[kept])
            self.weights, self.train = vectors[:, kept] / lengths, vectors[:, kept] * lengths

    def _scaled(self, X: np.ndarray) -> np.ndarray:
        return self.scaler.transform(X.astype(np.float64)) / np.sqrt(X.shape[1])

    def __call__(self, X: np.ndarray) -> np.ndarray:
        scaled = self._scaled(X)
        return (scaled @ self.rows.T) @ self.weights if self.wide else scaled


class LinearProbe(BinaryProbe):
    """Logistic regression on embeddings.

    The default is the published probe: raw features, lbfgs, at most 1000 steps. The reference
    fitted a softmax of two weight vectors with ``C=1``; only their difference matters, and half of
    the penalty falls on it, so that is today's binary regression with ``C=2``.

    Parameters
    ----------
    C : float
        Inverse strength of the ridge penalty.
    scale : bool
        Divide features by their standard deviation in the training rows and by the root of their
        number before fitting.

    Attributes
    ----------
    classes_ : ndarray, shape (2,)
    n_features_in_, n_iter_ : int
        ``n_iter_`` counts the lbfgs steps. A fit that stops at the 1000th is used as it stands, as
        the reference did.

    See Also
    --------
    sklearn.linear_model.LogisticRegression : the same fit; put it behind a ``StandardScaler``.

    References
    ----------
    .. [1] Alain G, Bengio Y. Understanding intermediate layers using linear classifier probes.
       arXiv:1610.01644, 2016.
    """

    def __init__(self, C: float = 2.0, scale: bool = False):
        self.C = C
        self.scale = scale

    def fit(self, X, y):
        """Fit on training rows.

        Parameters
        ----------
        X : array-like, shape (n, d)
        y : array-like, shape (n,)
            Two classes.
        """
        X, y = self._training(X, y)
        self._coordinates = _Coordinates(X) if self.scale else None
        self._model = _logistic(self._coordinates.train if self.scale else X, y, self.C)
        self.n_iter_ = int(self._model.n_iter_[0])
        return self

    def _given(self, X) -> np.ndarray:
        X = self._queries(X)
        return self._coordinates(X) if self.scale else X

    def decision_function(self, X) -> np.ndarray:
        """Return the log-odds of the second class, shape (n,)."""
        X = self._given(X)
        return self._model.decision_function(X)

    def predict_proba(self, X) -> np.ndarray:
        """Return the probabilities of both classes, shape (n, 2)."""
        X = self._given(X)
        return self._model.predict_proba(X)


def _logistic(X, y, C: float) -> LogisticRegression:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return LogisticRegression(C=C, max_iter=1000).fit(X, y)


def scores_per_penalty(X_train, y_train, X) -> np.ndarray:
    """Return the log-odds of label 1 under every penalty of :data:`C_GRID`.

    Parameters
    ----------
    X_train : ndarray, shape (n_train, d)
    y_train : ndarray of 0 and 1, shape (n_train,)
    X : ndarray, shape (n, d)

    Returns
    -------
    ndarray, shape (n, len(C_GRID))
        The columns are those of ``LinearProbe(C, scale=True)``.
    """
    coordinates = _Coordinates(X_train)
    rows = coordinates(X)
    models = (_logistic(coordinates.train, y_train, C) for C in C_GRID)
    return np.column_stack([model.decision_function(rows) for model in models])


def choose_penalty(data, split) -> float:
    """Return the penalty with the smallest validation log loss; the strongest of equals.

    The AUC would do as well for ranking lesions, but it does not see that a strong penalty shrinks
    every probability towards the class share.
    """
    X, y = data.X, data.y
    inside = scores_per_penalty(X[split.train], y[split.train], X[split.val])
    wrong_way = np.where(y[split.val][:, None] == 1, -inside, inside)
    loss = np.logaddexp(0, wrong_way).mean(axis=0)
    return C_GRID[int(np.argmax(loss <= loss.min() + 1e-12))]


def fit_linear(data, split, protocol: str) -> tuple[float, np.ndarray]:
    """Return the penalty and the probabilities of the test rows of a split under a protocol."""
    options = {} if protocol == "published" else {"C": choose_penalty(data, split), "scale": True}
    rows = rows_to_fit(split, protocol)
    probe = LinearProbe(**options).fit(data.X[rows], data.y[rows])
    return probe.C, probe.predict_proba(data.X[split.test])[:, 1]
