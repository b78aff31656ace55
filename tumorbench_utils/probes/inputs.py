"""What a probe is given, checked before anything is computed."""

from typing import NamedTuple

import numpy as np
import pandas as pd

from tumorbench_utils import stats
from tumorbench_utils.stats.checks import refuse_text


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
    """

    X: np.ndarray
    y: np.ndarray
    groups: np.ndarray | None
    index: pd.Index


def joined(data, name: str, y, y_name: str = "y"):
    """Bring `data` into the order of `y`: by index if both have one, by position if neither has.

    A bare array may stand beside a Series or DataFrame whose index only counts rows, but not
    beside one that names lesions: their order could be any.

    Raises
    ------
    ValueError
        If the lengths differ, ids stand twice, the ids are not the same set, or one side names
        lesions and the other does not.
    """
    if len(data) != len(y):
        raise ValueError(
            f"{name} has {len(data)} rows and {y_name} has {len(y)}; give both for the same lesions"
        )
    indexes = {
        side: values.index
        for side, values in ((name, data), (y_name, y))
        if isinstance(values, pd.DataFrame | pd.Series)
    }
    if len(indexes) < 2:
        for side, index in indexes.items():
            if not pd.api.types.is_integer_dtype(index):
                bare = y_name if side == name else name
                raise ValueError(
                    f"{side} names its lesions and {bare} does not; give both with an index of "
                    "lesion_id, or both as arrays in one order"
                )
        return data
    for side, index in indexes.items():
        if not index.is_unique:
            twice = index[index.duplicated()][0]
            raise ValueError(f"{side} holds the id {twice!r} more than once")
    own, wanted = indexes[name], indexes[y_name]
    apart = own.symmetric_difference(wanted)
    if len(apart):
        raise ValueError(
            f"{name} and {y_name} are not of the same lesions: {len(apart)} ids stand in one "
            f"only, for example {apart[0]!r}; give both an index of lesion_id"
        )
    return data.reindex(wanted)


def feature_array(X, y, name: str = "X") -> np.ndarray:
    """Return features in the order of `y` as a finite float array; float32 stays float32.

    Raises
    ------
    ValueError
        If the shape is wrong, a value is missing, infinite or no number, or every column is
        constant.
    """
    if np.ndim(X) != 2 or 0 in np.shape(X):
        raise ValueError(f"{name} must be lesions x features, not of shape {np.shape(X)}")
    frame = joined(X, name, y)
    try:
        array = np.asarray(frame)
        refuse_text(array)
        if array.dtype != np.float32:
            array = array.astype(np.float64)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name} must hold numbers only: {error}") from error
    bad = np.argwhere(~np.isfinite(array))
    if len(bad):
        row, column = bad[0]
        if isinstance(frame, pd.DataFrame):
            row, column = frame.index[row], frame.columns[column]
        raise ValueError(
            f"{name} has {len(bad)} values that are missing or infinite, the first in row {row!r}, "
            f"column {column!r}"
        )
    if (array == array[0]).all():
        raise ValueError(f"{name} is the same for every lesion; there is nothing to learn from")
    return np.ascontiguousarray(array)


def probe_input(X, y, groups=None) -> ProbeInput:
    """Check and join features, labels and patients.

    Parameters
    ----------
    X : DataFrame or array, shape (n, d)
        A DataFrame with an index of lesion ids is joined to `y` by it, whatever its order.
    y : Series or array, shape (n,)
        Labels 0 and 1.
    groups : Series or array, shape (n,), optional
        Patient of each lesion.

    Raises
    ------
    ValueError
        If anything is missing, of another length, about other lesions or of one class.
    """
    labels = stats.binary_labels(y)
    array = feature_array(X, y)
    codes = None
    if groups is not None:
        groups = pd.Series(np.asarray(joined(groups, "groups", y)))
        if groups.isna().any():
            raise ValueError(f"groups has {int(groups.isna().sum())} missing values")
        codes = pd.factorize(groups)[0]
    index = y.index if isinstance(y, pd.Series) else pd.RangeIndex(len(labels))
    return ProbeInput(array, labels, codes, index)


def check_splits(splits, y: np.ndarray) -> list:
    """Return the splits as a list after checking them against the labels.

    Raises
    ------
    ValueError
        If there is none, a position is outside the labels or stands in two parts of one split, or
        a part holds one class only.
    """
    splits = list(splits)
    if not splits:
        raise ValueError("there are no splits")
    for number, split in enumerate(splits):
        if not all(hasattr(split, part) for part in ("train", "val", "test")):
            raise ValueError(
                f"splits must be a list of splits with .train, .val and .test; number {number} is "
                f"{type(split).__name__}"
            )
        parts = {part: np.asarray(getattr(split, part)) for part in ("train", "val", "test")}
        for part, rows in parts.items():
            where = f"split {number}, {part}"
            if not rows.size:
                raise ValueError(f"{where}: no rows")
            if rows.ndim != 1 or rows.dtype.kind not in "iu":
                raise ValueError(f"{where}: positions must be a vector of whole numbers")
            if rows.min() < 0 or rows.max() >= len(y):
                raise ValueError(
                    f"{where}: positions run from {rows.min()} to {rows.max()} but there are "
                    f"{len(y)} labels; make the splits from the same table"
                )
            if len(set(y[rows])) < 2:
                raise ValueError(
                    f"{where}: all {len(rows)} lesions have label {y[rows[0]]}; a score needs both "
                    "classes in every part. Use fewer or stratified splits"
                )
        together = np.concatenate(list(parts.values()))
        if len(np.unique(together)) < len(together):
            raise ValueError(f"split {number}: a lesion stands in two parts, or twice in one")
    return splits
