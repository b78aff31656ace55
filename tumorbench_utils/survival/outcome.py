"""Times and events as a person hands them in, looked at once."""

from functools import partial

import numpy as np

from tumorbench_utils import checks
from tumorbench_utils.checks import InputError, aligned, labels, numbers


class SurvivalError(InputError):
    """Times, events, risks or covariates that a survival analysis cannot be made of."""


require = partial(checks.require, error=SurvivalError)


def outcome(time, event, *, needs_event: bool = True) -> tuple[np.ndarray, np.ndarray]:
    """Return times as floats and events as booleans.

    Parameters
    ----------
    time : array-like, shape (n,)
        Days from the start to the event or to the last contact; above 0.
    event : array-like, shape (n,)
        1 (or True) if the event was seen at `time`, 0 if the patient was censored then.
    needs_event : bool
        Whether at least one event is needed.

    Raises
    ------
    SurvivalError
        If a value is missing, a time is not above 0, an event is neither 0 nor 1, the rows
        differ, or there is none.
    """
    times = numbers(time, "time", error=SurvivalError)
    event = aligned(time, event, "event", error=SurvivalError)
    events = labels(event, "event", both=False, error=SurvivalError).astype(bool)
    row = np.argmax(times <= 0)
    require((times > 0).all(), f"time must be above 0 days, but is not in row {row}: leave it out")
    require(events.any() or not needs_event, f"no event among {len(events)} patients")
    return times, events


def beside(time, values, name: str, ndim: int = 1) -> np.ndarray:
    """Return numbers in the rows of `time`; :class:`SurvivalError` if they are not of its rows."""
    values = aligned(time, values, name, error=SurvivalError)
    return numbers(values, name, ndim=ndim, error=SurvivalError)


def days(times, name: str = "times") -> np.ndarray:
    """Return days as an array; :class:`SurvivalError` unless they are above 0 and increase."""
    array = numbers(np.atleast_1d(times), name, error=SurvivalError)
    if not len(array) or array[0] <= 0 or (np.diff(array) <= 0).any():
        raise SurvivalError(f"{name} must be increasing days above 0, not {array.tolist()}")
    return array
