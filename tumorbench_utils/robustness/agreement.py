"""Repeatability and agreement of two measurements per subject.

Terms and estimators follow the Quantitative Imaging Biomarkers Alliance: Raunig et al. (2015),
Obuchowski and Bullen (2018). Subjects are independent: with several lesions of one patient, give
one of them or the patient's mean.
"""

from numbers import Real
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy import stats as sps

from tumorbench_utils.settings import unknown
from tumorbench_utils.stats.checks import floats


class RobustnessError(ValueError):
    """Measurements from which a repeatability or an agreement cannot be computed."""


class Estimate(NamedTuple):
    """A value and the ends of its interval."""

    value: float
    low: float
    high: float


def numbers(values, name: str) -> np.ndarray:
    """Return finite real numbers as float64, of any shape.

    Raises
    ------
    RobustnessError
        If one is text, a date, complex, missing or infinite, or so large or small that its square
        cannot be told from infinity or zero.
    """
    try:
        array = floats(values)
    except (TypeError, ValueError) as error:
        raise RobustnessError(f"{name} must hold numbers: {error}") from error
    if not np.isfinite(array).all():
        row = int(np.argwhere(~np.isfinite(array))[0][0]) if array.ndim else 0
        raise RobustnessError(f"{name} is missing or infinite at position {row}")
    largest = np.abs(array).max(initial=0)
    if largest > 1e100 or 0 < largest < 1e-100:
        raise RobustnessError(
            f"{name} holds values of the order of {largest:.0e}, whose squares cannot be computed; "
            "use another unit"
        )
    return array


def joined(first, second):
    """Return the second measurement in the order of the first, by subject (and by column).

    An array says nothing of subjects: with one, order is taken as given.

    Raises
    ------
    RobustnessError
        If a subject stands twice or lacks one of the two, or if columns differ.
    """
    if not all(isinstance(x, pd.DataFrame | pd.Series) for x in (first, second)):
        return second
    for name, frame in (("first", first), ("second", second)):
        if not frame.index.is_unique:
            twice = frame.index[frame.index.duplicated()][0]
            raise RobustnessError(f"{name} holds the subject {twice!r} twice")
    apart = first.index.symmetric_difference(second.index)
    if len(apart):
        raise RobustnessError(
            f"{len(apart)} subjects were measured once only, for example {apart[0]!r}; leave "
            "them out of both"
        )
    second = second.reindex(first.index)
    if not all(isinstance(x, pd.DataFrame) for x in (first, second)):
        return second
    if not (first.columns.is_unique and set(first.columns) == set(second.columns)):
        raise RobustnessError("the columns of the two measurements differ, or one stands twice")
    return second[first.columns]


def paired(first, second, minimum: int = 3) -> tuple[np.ndarray, np.ndarray]:
    """Return two measurements per subject as float64 vectors of one order.

    Parameters
    ----------
    first, second : array-like, shape (n,)
        Two Series are joined by their index, never by position.
    minimum : int
        Fewest subjects.

    Raises
    ------
    RobustnessError
        If a subject lacks one of the two, stands twice, or a value is missing or not a number.
    """
    second = joined(first, second)
    first, second = numbers(first, "first"), numbers(second, "second")
    for name, array in (("first", first), ("second", second)):
        if array.ndim != 1:
            raise RobustnessError(f"{name} must have one dimension, not the shape {array.shape}")
    if len(first) != len(second):
        raise RobustnessError(
            f"the measurements are not paired: {len(first)} first, {len(second)} second"
        )
    if len(first) < minimum:
        raise RobustnessError(f"at least {minimum} subjects are needed, not {len(first)}")
    return first, second


def tail_of(level: float) -> float:
    """Return the probability on either side of an interval of this level."""
    if isinstance(level, bool) or not isinstance(level, Real) or not 0 < level < 1:
        raise RobustnessError(f"level is a number between 0 and 1, not {level!r}")
    return (1 - level) / 2


def _root_of_mean_square(mean_square: float, n: int, level: float) -> Estimate:
    """Interval of a standard deviation whose n squares have one degree of freedom each."""
    tail = tail_of(level)
    value = np.sqrt(mean_square)
    low, high = (value * np.sqrt(n / sps.chi2.ppf(q, n)) for q in (1 - tail, tail))
    return Estimate(float(value), float(low), float(high))


def within_sd(first, second, *, level: float = 0.95) -> Estimate:
    """Return the within-subject standard deviation, in the unit of the measurement.

    ``wSD² = Σ d² / 2n`` for differences d (a shift between the two counts as variation); the
    interval is the chi-squared one with n degrees of freedom.

    Parameters
    ----------
    first, second : array-like, shape (n,)
    level : float

    Returns
    -------
    value, low, high : float

    Raises
    ------
    RobustnessError
        As :func:`paired`.
    """
    first, second = paired(first, second)
    return _root_of_mean_square(np.mean((first - second) ** 2) / 2, len(first), level)


#: Two measurements of one subject differ by less than this many within-subject SD in 95% of cases.
REPEATABILITY = float(sps.norm.ppf(0.975) * np.sqrt(2))


def repeatability_coefficient(
    first, second, *, relative: bool = False, level: float = 0.95
) -> Estimate:
    """Return the repeatability coefficient: RC, or %RC.

    Two measurements of one unchanged subject differ by less in 95% of cases.

    Parameters
    ----------
    first, second : array-like, shape (n,)
    relative : bool
        False: ``1.96 √2 wSD``, in the unit of the measurement. True: ``100 · 1.96 √2 wCV``, in per
        cent of the measurement, for errors that grow with it.
    level : float

    Returns
    -------
    value, low, high : float

    Raises
    ------
    RobustnessError
        As :func:`within_sd`, or :func:`within_cv` where `relative`.
    """
    if relative:
        found = within_cv(first, second, level=level)
        return Estimate(*(100 * REPEATABILITY * x for x in found))
    return Estimate(*(REPEATABILITY * x for x in within_sd(first, second, level=level)))


def within_cv(first, second, *, level: float = 0.95) -> Estimate:
    """Return the within-subject coefficient of variation (root mean square; 0.1 is 10%).

    ``wCV² = Σ (d² / 2m²) / n`` for differences d and means m of the pairs.

    Parameters
    ----------
    first, second : array-like, shape (n,)
        Above zero: a ratio needs a scale with a true zero.
    level : float

    Returns
    -------
    value, low, high : float

    Raises
    ------
    RobustnessError
        As :func:`paired`; also if a value is not above zero.
    """
    first, second = paired(first, second)
    if min(first.min(), second.min()) <= 0:
        raise RobustnessError(
            "a coefficient of variation needs measurements above zero; use within_sd or "
            "repeatability_coefficient for this one"
        )
    ratio = (first - second) / ((first + second) / 2)
    return _root_of_mean_square(np.mean(ratio**2) / 2, len(first), level)


def bland_altman(first, second, *, level: float = 0.95) -> pd.DataFrame:
    """Return the bias (first minus second) and the 95% limits of agreement with their intervals.

    The intervals of the limits are exact for normal differences (Carkeet 2015), from the
    non-central t distribution; Bland and Altman's own are approximations to them.

    Parameters
    ----------
    first, second : array-like, shape (n,)
    level : float
        Level of the intervals; the limits themselves always hold 95% of the differences.

    Returns
    -------
    DataFrame, index ``bias, lower, upper``, columns ``value, low, high``

    Raises
    ------
    RobustnessError
        As :func:`paired`.
    """
    first, second = paired(first, second)
    difference = first - second
    n, mean, sd = len(difference), difference.mean(), difference.std(ddof=1)
    tail, z = tail_of(level), sps.norm.ppf(0.975)
    half = sps.t.ppf(1 - tail, n - 1) * sd / np.sqrt(n)
    inner, outer = (
        sps.nct.ppf(q, n - 1, z * np.sqrt(n)) * sd / np.sqrt(n) for q in (tail, 1 - tail)
    )
    return pd.DataFrame(
        {
            "value": [mean, mean - z * sd, mean + z * sd],
            "low": [mean - half, mean - outer, mean + inner],
            "high": [mean + half, mean - inner, mean + outer],
        },
        index=["bias", "lower", "upper"],
    )


class MeanSquares(NamedTuple):
    """Mean squares of the two-way layout subjects x two measurements."""

    subjects: np.ndarray
    measurements: np.ndarray
    residual: np.ndarray


def mean_squares(first: np.ndarray, second: np.ndarray) -> MeanSquares:
    """Return the mean squares per column of (n,) or (n, d) measurements."""
    n = len(first)
    shift = first - second
    return MeanSquares(
        2 * ((first + second) / 2).var(axis=0, ddof=1),
        n / 2 * shift.mean(axis=0) ** 2,
        shift.var(axis=0, ddof=1) / 2,
    )


def icc_of(squares: MeanSquares, n: int, form: str, level: float) -> Estimate:
    """Return the ICC and its interval from mean squares; element by element."""
    rows, columns, error = squares
    tail = tail_of(level)
    with np.errstate(divide="ignore", invalid="ignore"):
        if form == "C1":
            value = (rows - error) / (rows + error)
            ratio, quantile = rows / error, sps.f.ppf(1 - tail, n - 1, n - 1)
            low, high = ratio / quantile, ratio * quantile
            return Estimate(value, (low - 1) / (low + 1), (high - 1) / (high + 1))
        value = (rows - error) / (rows + error + 2 * (columns - error) / n)
        a = 2 * value / (n * (1 - value))
        b = 1 + 2 * value * (n - 1) / (n * (1 - value))
        freedom = (a * columns + b * error) ** 2
        freedom = freedom / ((a * columns) ** 2 + (b * error) ** 2 / (n - 1))
        upper, lower = sps.f.ppf(1 - tail, n - 1, freedom), sps.f.ppf(1 - tail, freedom, n - 1)
        spread = 2 * columns + (n - 2) * error
        low = n * (rows - upper * error) / (upper * spread + n * rows)
        high = n * (lower * rows - error) / (spread + n * lower * rows)
    return Estimate(value, low, high)


def exact(squares: MeanSquares, form: str) -> np.ndarray:
    """Whether two measurements are equal, or up to a shift where the form forgives it."""
    return (squares.residual == 0) & ((squares.measurements == 0) | (form == "C1"))


def icc(first, second, form: str = "A1", *, level: float = 0.95) -> Estimate:
    """Return the intraclass correlation of a single measurement (McGraw and Wong 1996).

    Parameters
    ----------
    first, second : array-like, shape (n,)
    form : {"A1", "C1"}
        ``"A1"``: absolute agreement, two-way, a shift between the measurements counts.
        ``"C1"``: consistency, a constant shift is forgiven.
    level : float

    Returns
    -------
    value, low, high : float
        1: the measurements are equal (A1) or equal up to a shift (C1). 0 or less: subjects differ
        no more than measurements do. It depends on how much the subjects differ: quote it with
        :func:`within_sd`.

    Raises
    ------
    RobustnessError
        As :func:`paired`; also for an unknown form, or if all measurements or the means of all
        subjects are equal.
    """
    if form not in ("A1", "C1"):
        raise RobustnessError(unknown("form of the ICC", form, ("A1", "C1")))
    first, second = paired(first, second)
    squares = mean_squares(first, second)
    scale = max(np.abs(first).max(), np.abs(second).max())
    if max(squares) <= (1e-14 * scale) ** 2:
        raise RobustnessError("all measurements are equal: there is no variance to divide")
    if squares.subjects > 0 and exact(squares, form):
        return Estimate(1.0, 1.0, 1.0)
    found = Estimate(*(float(x) for x in icc_of(squares, len(first), form, level)))
    if not np.isfinite(found).all():
        raise RobustnessError(
            "the mean of the two measurements is the same for all subjects; an ICC has no interval "
            "here. Quote within_sd"
        )
    return found


def ccc(first, second, *, level: float = 0.95) -> Estimate:
    """Return the concordance correlation coefficient (Lin 1989, 2000).

    Parameters
    ----------
    first, second : array-like, shape (n,)
    level : float
        Of the interval on Fisher's z scale with Lin's asymptotic variance.

    Returns
    -------
    value, low, high : float

    Raises
    ------
    RobustnessError
        As :func:`paired`; also if one of the two does not vary.
    """
    first, second = paired(first, second)
    spread = first.std() * second.std()
    if spread == 0:
        raise RobustnessError("one of the measurements is the same for all subjects")
    covariance = np.mean((first - first.mean()) * (second - second.mean()))
    shift = first.mean() - second.mean()
    value = 2 * covariance / (first.var() + second.var() + shift**2)
    r, u2 = covariance / spread, shift**2 / spread
    if 1 - abs(value) < 1e-12:
        return Estimate(float(np.sign(value)), float(np.sign(value)), float(np.sign(value)))
    if abs(r) < 1e-12:
        raise RobustnessError("the measurements are uncorrelated; Lin's interval does not exist")
    variance = (
        (1 - r**2) * value**2 / ((1 - value**2) * r**2)
        + 2 * value**3 * (1 - value) * u2 / (r * (1 - value**2) ** 2)
        - value**4 * u2**2 / (2 * r**2 * (1 - value**2) ** 2)
    ) / (len(first) - 2)
    half = sps.norm.ppf(1 - tail_of(level)) * np.sqrt(max(variance, 0))
    return Estimate(float(value), *(float(np.tanh(np.arctanh(value) + s * half)) for s in (-1, 1)))
