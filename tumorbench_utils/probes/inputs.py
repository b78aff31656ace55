"""What probes are given: features, labels, patients and splits, checked where they come in."""

from typing import NamedTuple

import numpy as np
import pandas as pd
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data

from tumorbench_utils import checks
from tumorbench_utils.splits import Split

PROTOCOLS = ("careful", "published")


class ProbeInput(NamedTuple):
    """Features, labels and patients in one order: that of the labels.

    Attributes
    ----------
    X : ndarray of float32 or float64, shape (n, d)
    y : ndarray of int, shape (n,)
    groups : ndarray of int, shape (n,), or None
        Patient of each lesion as a number from 0.
    index : Index, length n
        Lesion ids, or positions if arrays were given.
    splits : list of Split
    """

    X: np.ndarray
    y: np.ndarray
    groups: np.ndarray | None
    index: pd.Index
    splits: list[Split]


def probe_input(X, y, splits, groups=None, name: str = "X") -> ProbeInput:
    """Check and join features, labels, patients and splits.

    Parameters
    ----------
    X : DataFrame or array, shape (n, d)
        A DataFrame with an index of lesion ids is joined to `y` by it, whatever its order.
        32-bit numbers stay such numbers.
    y : Series or array, shape (n,)
        Labels 0 and 1.
    splits : iterable of Split
    groups : Series or array, shape (n,), optional
        Patient of each lesion.
    name : str
        What the features are called in messages.

    Raises
    ------
    InputError
        If anything is missing, infinite, no number, of another length, about other lesions or of
        one class; if the features are all constant, or beyond 1e15 or below 1e-15.
    """
    labels = checks.labels(y)
    codes = None if groups is None else checks.groups(groups, y, strict=True)
    index = y.index if isinstance(y, pd.Series) else pd.RangeIndex(len(labels))
    joined = np.asarray(checks.aligned(y, X, name, strict=True))
    array = checks.numbers(joined, name, ndim=2)
    low, high = array.min(axis=0), array.max(axis=0)
    if (low == high).all():
        raise checks.InputError(f"{name} is the same for every lesion: nothing to learn from")
    # Squares of 32-bit numbers leave their range at 1e19, and a constant column of 1e30 drowns the
    # others in the rounding error of its own mean.
    largest = np.maximum(-low, high)
    if not 1e-15 < (most := largest.max()) < 1e15:
        raise checks.InputError(f"{name} runs to {most:.0e} (column {largest.argmax()}): scale it")
    array = np.ascontiguousarray(joined if joined.dtype == np.float32 else array)
    return ProbeInput(array, labels, codes, index, check_splits(splits, labels))


def check_splits(splits, y: np.ndarray) -> list:
    """Return splits as a list: no case on two sides, and both classes on every side.

    Raises
    ------
    InputError
        If it is otherwise.
    """
    splits = [Split(split.train, split.val, split.test) for split in splits]
    if not splits:
        raise checks.InputError("there are no splits")
    for number, split in enumerate(splits):
        rows = np.concatenate(split)
        # Negative positions would count from the end, and truth values as rows 0 and 1.
        if rows.dtype.kind not in "iu" or rows.min() < 0 or len(np.unique(rows)) < len(rows):
            raise checks.InputError(f"split {number}: positions from 0, no lesion in two parts")
        for name, part in split._asdict().items():
            checks.labels(y[part], f"split {number}, {name}: y")
    return splits


def rows_to_fit(split, protocol: str = "careful") -> np.ndarray:
    """Return the rows that the final fit of a split sees."""
    return split.train if protocol == "published" else np.concatenate([split.train, split.val])


class BinaryProbe(ClassifierMixin, BaseEstimator):
    """What both probes share: two classes, and scikit-learn's checks of input."""

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_class = False
        return tags

    def _training(self, X, y) -> tuple[np.ndarray, np.ndarray]:
        X, y = validate_data(self, X, y, dtype=[np.float64, np.float32])
        check_classification_targets(y)
        self.classes_, codes = np.unique(y, return_inverse=True)
        if len(self.classes_) != 2:
            raise checks.InputError("Only binary classification is supported, not one class")
        return X, codes

    def _queries(self, X) -> np.ndarray:
        check_is_fitted(self)
        return validate_data(self, X, dtype=[np.float64, np.float32], reset=False)

    def predict(self, X) -> np.ndarray:
        """Return the more probable class; an even vote goes to the first."""
        second = self.predict_proba(X)[:, 1] > 0.5
        return self.classes_[second.astype(int)]
