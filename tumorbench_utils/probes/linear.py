"""Logistic regression on embeddings: as published, and with scaling and penalty chosen inside."""

import warnings

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data

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
        scaled = self._scaled(X)
        self.rows = None
        if X.shape[1] <= len(X):
            self.train = scaled
            return
        values, vectors = np.linalg.eigh(scaled @ scaled.T)
        kept = values > values.max() * len(X) * np.finfo(float).eps
        lengths = np.sqrt(values[kept])
        self.rows, self.weights = scaled, vectors[:, kept] / lengths
        self.train = vectors[:, kept] * lengths

    def _scaled(self, X: np.ndarray) -> np.ndarray:
        return self.scaler.transform(X.astype(np.float64)) / np.sqrt(X.shape[1])

    def __call__(self, X: np.ndarray) -> np.ndarray:
        scaled = self._scaled(X)
        return scaled if self.rows is None else (scaled @ self.rows.T) @ self.weights


class LinearProbe(ClassifierMixin, BaseEstimator):
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
    max_iter : int
        Largest number of lbfgs steps. A fit that stops there is used as it stands, as the
        reference did; ``n_iter_`` says how many were taken.

    Attributes
    ----------
    classes_ : ndarray, shape (2,)
    n_features_in_, n_iter_ : int
    """

    def __init__(self, C: float = 2.0, scale: bool = False, max_iter: int = 1000):
        self.C = C
        self.scale = scale
        self.max_iter = max_iter

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_class = False
        return tags

    def fit(self, X, y):
        """Fit on training rows.

        Parameters
        ----------
        X : array-like, shape (n, d)
        y : array-like, shape (n,)
            Two classes.
        """
        X, y = validate_data(self, X, y, dtype=[np.float64, np.float32])
        check_classification_targets(y)
        self.classes_ = np.unique(y)
        if len(self.classes_) != 2:
            raise ValueError(
                "Only binary classification is supported: a probe needs labels of two classes, "
                f"not of {len(self.classes_)} class{'es' * (len(self.classes_) != 1)}"
            )
        self._coordinates = _Coordinates(X) if self.scale else None
        rows = self._coordinates.train if self.scale else X
        self._model = _logistic(rows, y, self.C, self.max_iter)
        self.n_iter_ = int(self._model.n_iter_[0])
        return self

    def decision_function(self, X) -> np.ndarray:
        """Return the log-odds of the second class, shape (n,)."""
        check_is_fitted(self)
        X = validate_data(self, X, dtype=[np.float64, np.float32], reset=False)
        return self._model.decision_function(self._coordinates(X) if self.scale else X)

    def predict_proba(self, X) -> np.ndarray:
        """Return the probabilities of both classes, shape (n, 2)."""
        check_is_fitted(self)
        X = validate_data(self, X, dtype=[np.float64, np.float32], reset=False)
        return self._model.predict_proba(self._coordinates(X) if self.scale else X)

    def predict(self, X) -> np.ndarray:
        """Return the more probable class, shape (n,)."""
        second = self.decision_function(X) > 0
        return self.classes_[second.astype(int)]


def _logistic(X, y, C: float, max_iter: int = 1000) -> LogisticRegression:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return LogisticRegression(C=C, max_iter=max_iter).fit(X, y)


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
