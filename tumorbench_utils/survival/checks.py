"""Refuse outcomes, risks and horizons that cannot mean what they should."""

from collections.abc import Sequence
from numbers import Real

import numpy as np
import pandas as pd


class SurvivalError(ValueError):
    """Times, events, risks or covariates that a survival analysis cannot be made of."""


def _plain(values, name: str) -> np.ndarray:
    """Return numbers as a float array; NaN for missing values."""
    if isinstance(values, str) or np.ndim(values) != 1:
        raise SurvivalError(
            f"{name} must be one-dimensional, not of {np.ndim(values)} dimensions: give one value "
            "per patient"
        )
    if isinstance(values, np.ndarray) and values.dtype.kind in "biuf":
        return values.astype(float)  # the common case, without the detour
    series = pd.Series(values).reset_index(drop=True)
    if series.dtype == object:  # numbers beside None or pd.NA end up here
        wrong = series[[not (v is None or v is pd.NA or _is_number(v)) for v in series]]
    elif pd.api.types.is_numeric_dtype(series) and not pd.api.types.is_complex_dtype(series):
        wrong = series[:0]
    else:
        wrong = series
    if len(wrong):
        raise SurvivalError(f"{name} must hold numbers, not {wrong.iloc[0]!r} ({series.dtype})")
    return series.astype("Float64").to_numpy(dtype=float, na_value=np.nan)


def _is_number(value) -> bool:
    return isinstance(value, Real | np.bool_)


def _rows(mask: np.ndarray) -> str:
    """Name the first rows of a mask."""
    positions = np.flatnonzero(mask)
    text = ", ".join(str(i) for i in positions[:5])
    return f"row {text}" if len(positions) == 1 else f"rows {text}{', ...' * (len(positions) > 5)}"


def numbers(values, name: str, length: int | None = None) -> np.ndarray:
    """Return finite numbers as a float array.

    Parameters
    ----------
    values : array-like, shape (n,)
    name : str
        What the values are called in error messages.
    length : int, optional
        The number that there must be.

    Raises
    ------
    SurvivalError
        If they are not numbers, not finite, not one-dimensional or not so many.
    """
    array = _plain(values, name)
    if length is not None and len(array) != length:
        raise SurvivalError(f"{name} has {len(array)} values, time has {length}")
    if not np.isfinite(array).all():
        raise SurvivalError(f"{name} is missing or not finite in {_rows(~np.isfinite(array))}")
    return array


def outcome(
    time, event, *, needs_event: bool = True, where: str = ""
) -> tuple[np.ndarray, np.ndarray]:
    """Return times as floats and events as booleans.

    Parameters
    ----------
    time : array-like, shape (n,)
        Days from the start to the event or to the last contact; above 0.
    event : array-like, shape (n,)
        1 (or True) if the event was seen at `time`, 0 if the patient was censored then.
    needs_event : bool
        Whether at least one event is needed.
    where : str
        Put before the error message, for example ``"split 3, train"``.

    Raises
    ------
    SurvivalError
        If a value is missing, a time is not above 0, an event is neither 0 nor 1, the lengths or
        the indexes differ, there is no row, or there is no event.
    """
    where = f"{where}: " if where else ""
    try:
        same_rows(time=time, event=event)
        times, events = _plain(time, "time"), numbers(event, "event")
        if len(times) != len(events):
            raise SurvivalError(f"time has {len(times)} values, event has {len(events)}")
        if not len(times):
            raise SurvivalError("time is empty: there is no patient")
        numbers(times, "time")
    except SurvivalError as error:
        raise SurvivalError(f"{where}{error}") from None
    if (times <= 0).any():
        raise SurvivalError(
            f"{where}time must be above 0 days, but is not in {_rows(times <= 0)}: leave such "
            "patients out (and say so) or correct the time"
        )
    wrong = ~np.isin(events, (0, 1))
    if wrong.any():
        raise SurvivalError(
            f"{where}event must be 1 (seen) or 0 (censored), but {_rows(wrong)} hold "
            f"{events[wrong][0]:g}; were time and event swapped?"
        )
    if needs_event and not events.any():
        raise SurvivalError(f"{where}no event among {len(events)} patients")
    return times, events.astype(bool)


def same_rows(**values) -> None:
    """Raise if two pandas objects among the values do not hold the same rows in the same order."""
    named = {k: v for k, v in values.items() if isinstance(v, (pd.Series, pd.DataFrame))}
    first = next(iter(named), None)
    for name, value in named.items():
        if len(value) == len(named[first]) and not value.index.equals(named[first].index):
            raise SurvivalError(
                f"{name} and {first} have different indexes: put the rows in the same order "
                f"(.loc[{first}.index]) or pass plain arrays"
            )


def horizons(times, name: str = "times") -> np.ndarray:
    """Return positive, increasing days as an array.

    Raises
    ------
    SurvivalError
        If there is none, one is not above 0 or not finite, or they do not increase.
    """
    days = numbers(np.atleast_1d(np.asarray(times)), name)
    if not len(days) or (days <= 0).any() or (np.diff(days) <= 0).any():
        raise SurvivalError(f"{name} must be increasing days above 0, not {list(days)}")
    return days


def one_day(value, name: str) -> float:
    """Return a single number of days above 0.

    Raises
    ------
    SurvivalError
        If it is anything else.
    """
    if np.ndim(value) != 0:
        raise SurvivalError(f"{name} must be one number of days, not {np.size(value)}")
    return float(horizons(value, name)[0])


def columns(table: pd.DataFrame, names: Sequence[str]) -> list[str]:
    """Return column names as a list if the table has them all, each named once.

    Raises
    ------
    SurvivalError
        If `table` is no DataFrame, `names` is a string or empty, or a column is missing or twice
        there.
    """
    if not isinstance(table, pd.DataFrame):
        raise SurvivalError(f"table must be a DataFrame, not {type(table).__name__}")
    if isinstance(names, str):
        raise SurvivalError(f"covariates must be a list of column names: write [{names!r}]")
    names = list(names)
    if not names:
        raise SurvivalError("covariates is empty: name at least one column")
    absent = [n for n in names if n not in table.columns]
    if absent:
        raise SurvivalError(
            f"the table has no column {absent[0]!r}; it has {', '.join(map(str, table.columns))}"
        )
    double = [n for n in names if names.count(n) > 1 or (table.columns == n).sum() > 1]
    if double:
        raise SurvivalError(f"covariate {double[0]!r} is named twice")
    return names
