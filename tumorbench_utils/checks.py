"""The boundary: what people hand in is checked here once, and nowhere else.

Functions that a person calls (the public names) pass their arguments through these few checks;
what they call inside trusts its input. Only what would end in a *silent* wrong number is refused:
text read as numbers, missing values, one class, rows in another order. What numpy, pandas or
scikit-learn refuse by themselves is left to them.
"""

from collections.abc import Iterable

import numpy as np
import pandas as pd

from tumorbench_utils.settings import unknown

_KINDS = {"U": "text", "S": "text", "m": "dates", "M": "dates", "c": "complex values"}


class InputError(ValueError):
    """Input that cannot mean what it should; the message says what, where, and what to do."""


def require(holds, message: str, *, error=InputError) -> None:
    """Raise `error` with `message` unless `holds`."""
    if not holds:
        raise error(message)


def one_of(value, kind: str, known: Iterable[str], *, error=InputError):
    """Return `value` if it is one of `known`, else raise naming the nearest ones."""
    if value not in list(known):
        raise error(unknown(kind, value, known))
    return value


def numbers(values, name: str, *, n: int | None = None, ndim: int = 1, error=InputError):
    """Return finite real numbers as a float64 array.

    Parameters
    ----------
    values : array-like
    name : str
        What they are called in the message.
    n : int, optional
        How many rows there must be.
    ndim : int
        How many dimensions there must be.
    error : type
        Subclass of :class:`InputError` that is raised.
    """
    try:
        array = np.asarray(values)
    except ValueError as cause:
        raise error(f"{name} must hold numbers in rows of one length") from cause
    kind = _KINDS.get(array.dtype.kind)
    if array.dtype == object:
        if any(isinstance(v, str | bytes) for v in array.ravel()):
            kind = "text"
        array = np.where(pd.isna(array), np.nan, array)
    if kind:
        raise error(f"{name} must hold numbers, but it holds {kind}")
    try:
        array = array.astype(np.float64)
    except (TypeError, ValueError) as cause:
        raise error(f"{name} must hold numbers: {cause}") from None
    if array.ndim != ndim:
        raise error(f"{name} must have {ndim} dimension(s), not {array.ndim}")
    if n is not None and len(array) != n:
        raise error(f"{name} has {len(array)} values where {n} are needed")
    bad = np.argwhere(~np.isfinite(array))
    if len(bad):
        where = ", ".join(map(str, bad[0]))
        raise error(f"{name}: {len(bad)} values are missing or infinite, the first in row {where}")
    return array


def labels(y, name: str = "y", *, both: bool = True, error=InputError) -> np.ndarray:
    """Return labels as an int64 array of 0 and 1; `both` asks for at least one of each."""
    array = numbers(y, name, error=error)
    wrong = array[~np.isin(array, (0, 1))]
    if not len(array) or len(wrong):
        found = f"it holds {wrong[0]:g}" if len(wrong) else "it is empty"
        raise error(f"{name} must hold 0 and 1 only; {found}")
    if both and len(set(array)) < 2:
        raise error(f"{name} holds one class only ({len(array)} times {array[0]:g}); it needs both")
    return array.astype(np.int64)


def aligned(y, values, name: str, *, strict: bool = False, error=InputError):
    """Return `values` in the order of `y`: by index if both have one, else by position.

    Parameters
    ----------
    y : array-like or pandas object, length n
    values : array-like or pandas object, length n
    name : str
        What `values` are called in the message.
    strict : bool
        Refuse a bare array beside a pandas object whose index does not count rows 0..n-1: its
        rows could be in any order.
    error : type
        Subclass of :class:`InputError` that is raised.
    """
    indexes = [v.index for v in (y, values) if isinstance(v, pd.Series | pd.DataFrame)]
    if len(indexes) < 2:
        if len(values) != len(y):
            raise error(f"{name} has {len(values)} rows where {len(y)} are needed")
        if strict and indexes and not indexes[0].equals(pd.RangeIndex(len(y))):
            raise error(
                f"{name} and y: one names its rows and the other does not; give both with the "
                "same index, or both as arrays in one order"
            )
        return values
    wanted, own = indexes
    if wanted.equals(own):
        return values
    apart = own.symmetric_difference(wanted)
    if len(apart) or not (own.is_unique and wanted.is_unique):
        example = [*apart, *own[own.duplicated()], *wanted[wanted.duplicated()]][0]
        raise error(f"{name} is not of the same rows, once each: look at {example!r}")
    return values.reindex(wanted)


def groups(values, y, name: str = "groups", *, strict=False, error=InputError) -> np.ndarray:
    """Return groups (patients) as numbers from 0, in the order of `y`; every row one if None."""
    if values is None:
        return np.arange(len(y))
    codes = pd.factorize(np.asarray(aligned(y, values, name, strict=strict, error=error)))[0]
    if (codes < 0).any():
        raise error(f"{name} is missing in row {np.flatnonzero(codes < 0)[0]}")
    return codes


def columns(table, names: Iterable[str], *, error=InputError) -> list[str]:
    """Return `names` as a list if `table` is a DataFrame that has each of them once."""
    if not isinstance(table, pd.DataFrame) or isinstance(names, str):
        raise error("a DataFrame and a list of column names are needed")
    names = list(names)
    for name in names:
        if names.count(name) > 1 or (table.columns == name).sum() != 1:
            raise error(
                f"column {name!r} must stand once in the table and be named once; the table has "
                f"{', '.join(map(str, table.columns))}"
            )
    return names


def share(value: float, name: str = "level") -> float:
    """Return a number between 0 and 1, both excluded."""
    if not 0 < value < 1:
        raise InputError(f"{name} must lie between 0 and 1, not {value!r}")
    return float(value)
