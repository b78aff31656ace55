"""Input of the statistics, checked before anything is computed."""

import numpy as np
import pandas as pd

_NUMBERS = (int, float, np.number, np.bool_)


def binary_labels(y, name: str = "y") -> np.ndarray:
    """Return labels as an integer array of 0 and 1 that holds both.

    Parameters
    ----------
    y : array-like, shape (n,)
        0 and 1 as integers, floats, booleans or pandas' nullable types.
    name : str
        What the labels are called in error messages.

    Raises
    ------
    ValueError
        If there are missing values, other values than 0 and 1, or one class only.
    """
    if np.ndim(y) != 1:
        raise ValueError(f"{name} must have one dimension, not {np.ndim(y)}")
    labels = pd.Series(y).reset_index(drop=True)
    if labels.empty:
        raise ValueError(f"{name} is empty")
    if labels.isna().any():
        raise ValueError(
            f"{name} has {int(labels.isna().sum())} missing labels of {len(labels)}; leave those "
            "rows out first"
        )
    if labels.dtype == object and not labels.map(lambda v: isinstance(v, _NUMBERS)).all():
        raise ValueError(f"{name} must hold numbers 0 and 1, not {labels.iloc[0]!r}")
    found = set(labels.unique().tolist())
    if not found <= {0, 1}:
        shown = sorted(map(str, found))[:5]
        raise ValueError(f"{name} must hold 0 and 1 only; it holds {', '.join(shown)}")
    if len(found) < 2:
        raise ValueError(
            f"{name} holds one class only ({len(labels)} times {int(labels.iloc[0])}); an area "
            "under the ROC curve needs both"
        )
    return labels.to_numpy(dtype=np.int64)


def refuse_text(array: np.ndarray) -> None:
    """Refuse text, dates and complex values, which numpy turns into numbers without a word.

    Raises
    ------
    ValueError
        If the array holds any.
    """
    kinds = {"U": "text", "S": "text", "m": "dates", "M": "dates", "c": "complex values"}
    kind = kinds.get(array.dtype.kind)
    if array.dtype == object and any(isinstance(v, str | bytes) for v in array.ravel()):
        kind = "text"
    if kind:
        raise ValueError(f"it holds {kind}")


def floats(values) -> np.ndarray:
    """Return real numbers as float64, of any shape.

    Raises
    ------
    TypeError, ValueError
        If one is no number.
    """
    array = np.asarray(values)
    refuse_text(array)
    return array.astype(np.float64)


def numbers(values, name: str, length: int | None = None) -> np.ndarray:
    """Return a finite float64 vector, or say what is wrong with it.

    Parameters
    ----------
    values : array-like, shape (n,)
    name : str
        What the values are called in error messages.
    length : int, optional
        How many there must be.
    """
    try:
        array = floats(values)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name} must hold numbers: {error}") from error
    if array.ndim != 1:
        raise ValueError(f"{name} must have one dimension, not {array.ndim}")
    if length is not None and len(array) != length:
        raise ValueError(f"{name} has {len(array)} values where {length} are needed")
    bad = np.flatnonzero(~np.isfinite(array))
    if bad.size:
        raise ValueError(
            f"{name} has {bad.size} values that are missing or infinite, the first at position "
            f"{bad[0]}"
        )
    return array


def _follow(labels, other, name: str):
    """Bring a Series into the order of the labels if both carry an index; never by position."""
    if not (isinstance(labels, pd.Series) and isinstance(other, pd.Series)):
        return other
    if labels.index.equals(other.index):
        return other
    if not labels.index.is_unique or not other.index.is_unique:
        raise ValueError(f"{name} and y have different indexes with repeated entries")
    apart = labels.index.symmetric_difference(other.index)
    if len(apart):
        raise ValueError(
            f"{name} and y have different indexes: {len(apart)} entries stand in one only, for "
            f"example {apart[0]!r}"
        )
    return other.reindex(labels.index)


def checked(y, scores: dict, groups=None) -> tuple[np.ndarray, list[np.ndarray], np.ndarray]:
    """Return labels, scores in their order, and groups as numbers from 0.

    Parameters
    ----------
    y : array-like, shape (n,)
    scores : dict of str to array-like, shape (n,)
        A Series beside a Series of labels is joined by index.
    groups : array-like, shape (n,), optional
        Without them every case is a group.
    """
    labels = binary_labels(y)
    arrays = [numbers(_follow(y, s, name), name, len(labels)) for name, s in scores.items()]
    if groups is None:
        return labels, arrays, np.arange(len(labels))
    groups = pd.Series(np.asarray(_follow(y, groups, "groups")))
    if len(groups) != len(labels):
        raise ValueError(f"groups has {len(groups)} values where {len(labels)} are needed")
    if groups.isna().any():
        raise ValueError(f"groups has {int(groups.isna().sum())} missing values")
    codes = pd.factorize(groups)[0]
    if codes.max() == 0:
        raise ValueError(f"all rows are of one group, {groups.iloc[0]!r}; at least two are needed")
    return labels, arrays, codes


def checked_level(level: float) -> float:
    """Return a confidence level, refused unless it lies between 0 and 1."""
    if not 0 < level < 1:
        raise ValueError(f"level must lie between 0 and 1, not {level!r}")
    return float(level)
