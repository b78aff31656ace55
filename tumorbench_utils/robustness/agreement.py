"""Repeatability and agreement of two measurements per subject.

Terms and estimators follow the Quantitative Imaging Biomarkers Alliance: Raunig et al. (2015),
Obuchowski and Bullen (2018). Subjects are independent: with several lesions of one patient, give
one of them or the patient's mean.
"""

import numpy as np
import pandas as pd
from scipy import stats as sps

from tumorbench_utils import checks
from tumorbench_utils.stats import Estimate

#: Quantiles at the ends of a 95% interval.
ENDS = np.array([0.025, 0.975])

#: Two measurements of one subject differ by less than this many within-subject SD in 95% of cases.
REPEATABILITY = float(sps.norm.ppf(0.975) * np.sqrt(2))


class RobustnessError(checks.InputError):
    """Measurements from which a repeatability or an agreement cannot be computed."""


def paired(first, second, minimum: int = 3, ndim: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """Return two measurements per subject as float64 arrays of one order.

    Parameters
    ----------
    first, second : array-like, shape (n,), or (n, d) where `ndim` is 2
        Two pandas objects are joined by their index and columns, never by position.
    minimum : int
        Fewest subjects.
    ndim : int
        2: embeddings; a vector counts as one feature.

    Raises
    ------
    RobustnessError
        If a subject lacks one of the two or stands twice, features differ, or a value is missing
        or no number.
    """
    both = [x for x in (first, second) if isinstance(x, pd.Series | pd.DataFrame)]
    if not all(axis.is_unique for x in both for axis in x.axes):
        raise RobustnessError("a subject or a feature stands twice in one of the measurements")
    second = checks.aligned(first, second, "second", error=RobustnessError)
    if [x.ndim for x in both] == [2, 2]:
        second = checks.aligned(first.T, second.T, "second, features", error=RobustnessError).T
    first, second = (
        checks.numbers(x, name, ndim=min(ndim, max(np.ndim(x), 1)), error=RobustnessError)
        for name, x in (("first", first), ("second", second))
    )
    if len(first) < minimum or not first.size or first.shape != second.shape:
        message = f"at least {minimum} subjects are needed, twice, by the same features"
        raise RobustnessError(f"{message}, not {first.shape} and {second.shape}")
    return (first, second) if ndim == 1 else tuple(x.reshape(len(x), -1) for x in (first, second))


def _root_mean(squares: np.ndarray, factor: float) -> Estimate:
    """Estimate a standard deviation from squares with one degree of freedom each."""
    n, value = len(squares), factor * np.sqrt(squares.mean())
    low, high = value * np.sqrt(n / sps.chi2.ppf(ENDS[::-1], n))
    return Estimate(value, low, high, "chi-squared")


def repeatability_coefficient(first, second, *, relative: bool = False) -> Estimate:
    """Return the repeatability coefficient: RC, or %RC.

    Two measurements of one unchanged subject differ by less in 95% of cases. ``1.96 √2 wSD`` with
    the within-subject standard deviation ``wSD² = Σ d² / 2n`` of the differences d; a shift
    between the two measurements counts as variation.

    Parameters
    ----------
    first, second : array-like, shape (n,)
    relative : bool
        False: in the unit of the measurement. True: ``100 · 1.96 √2 wCV``, in per cent of the
        measurement, for errors that grow with it.

    Returns
    -------
    Estimate

    Raises
    ------
    RobustnessError
        As :func:`paired`, or :func:`within_cv` where `relative`.

    References
    ----------
    .. [1] Raunig et al. (2015), Quantitative imaging biomarkers: a review of statistical methods
       for technical performance assessment. Stat Methods Med Res 24(1).
    """
    if relative:
        found = within_cv(first, second)
        return Estimate(*(100 * REPEATABILITY * np.array(found)), found.method)
    first, second = paired(first, second)
    return _root_mean((first - second) ** 2 / 2, REPEATABILITY)


def within_cv(first, second) -> Estimate:
    """Return the within-subject coefficient of variation (root mean square; 0.1 is 10%).

    ``wCV² = Σ (d² / 2m²) / n`` for differences d and means m of the pairs.

    Parameters
    ----------
    first, second : array-like, shape (n,)
        Above zero: a ratio needs a scale with a true zero.

    Returns
    -------
    Estimate

    Raises
    ------
    RobustnessError
        As :func:`paired`; also if a value is not above zero.

    References
    ----------
    .. [1] Obuchowski and Bullen (2018), Quantitative imaging biomarkers: effect of sample size and
       bias on confidence interval coverage. Stat Methods Med Res 27(10).
    """
    first, second = paired(first, second)
    if min(first.min(), second.min()) <= 0:
        raise RobustnessError("a coefficient of variation needs measurements above zero")
    return _root_mean(((first - second) / ((first + second) / 2)) ** 2 / 2, 1)


def bland_altman(first, second) -> pd.DataFrame:
    """Return the bias (first minus second) and the 95% limits of agreement with their intervals.

    The intervals of the limits are exact for normal differences, from the non-central t
    distribution [2]_; Bland and Altman's own [1]_ are approximations to them.

    Parameters
    ----------
    first, second : array-like, shape (n,)

    Returns
    -------
    DataFrame, index ``bias, lower, upper``, columns ``value, low, high``

    Raises
    ------
    RobustnessError
        As :func:`paired`.

    See Also
    --------
    scipy.stats.ttest_rel : Gives the interval of the bias.

    References
    ----------
    .. [1] Bland and Altman (1986), Statistical methods for assessing agreement between two methods
       of clinical measurement. Lancet 327.
    .. [2] Carkeet (2015), Exact parametric confidence intervals for Bland-Altman limits of
       agreement. Optom Vis Sci 92(3).
    """
    first, second = paired(first, second)
    d, n, z = first - second, len(first), sps.norm.ppf(0.975)
    mean, sd, error = d.mean(), d.std(ddof=1), d.std(ddof=1) / np.sqrt(n)
    half = sps.t.ppf(ENDS[1], n - 1) * error
    inner, outer = sps.nct.ppf(ENDS, n - 1, z * np.sqrt(n)) * error
    rows = [0, -half, half], [-z * sd, -outer, -inner], [z * sd, inner, outer]
    return pd.DataFrame(mean + np.array(rows), ["bias", "lower", "upper"], ["value", "low", "high"])


def icc_by_column(first, second, form: str = "A1") -> np.ndarray:
    """Return ICC, lower and upper bound of every column, see :func:`icc`; NaN without variance.

    Parameters
    ----------
    first, second : ndarray, shape (n, d)

    Returns
    -------
    ndarray, shape (3, d)
    """
    checks.one_of(form, "form of the ICC", ("A1", "C1"))
    n, shift, tail = len(first), first - second, ENDS[1]
    # Mean squares of the two-way layout subjects x two measurements.
    rows = 2 * ((first + second) / 2).var(axis=0, ddof=1)
    columns = n / 2 * shift.mean(axis=0) ** 2
    error = shift.var(axis=0, ddof=1) / 2
    with np.errstate(divide="ignore", invalid="ignore"):
        if form == "C1":
            value, ratio = (rows - error) / (rows + error), rows / error
            quantile = sps.f.ppf(tail, n - 1, n - 1)
            low, high = ((q - 1) / (q + 1) for q in (ratio / quantile, ratio * quantile))
        else:
            value = (rows - error) / (rows + error + 2 * (columns - error) / n)
            # Degrees of freedom by Satterthwaite, as the bounds mix two mean squares.
            a = 2 * value / (n * (1 - value))
            b = 1 + 2 * value * (n - 1) / (n * (1 - value))
            freedom = (a * columns + b * error) ** 2
            freedom = freedom / ((a * columns) ** 2 + (b * error) ** 2 / (n - 1))
            upper, lower = sps.f.ppf(tail, n - 1, freedom), sps.f.ppf(tail, freedom, n - 1)
            spread = 2 * columns + (n - 2) * error
            low = n * (rows - upper * error) / (upper * spread + n * rows)
            high = n * (lower * rows - error) / (spread + n * lower * rows)
    # Equal measurements (up to a shift where the form forgives it) have no error to divide by.
    exact = (error == 0) & ((columns == 0) | (form == "C1"))
    found = np.where(exact, 1.0, [value, low, high])
    return np.where(rows > 0, found, np.nan)


def icc(first, second, form: str = "A1") -> Estimate:
    """Return the intraclass correlation of a single measurement.

    Parameters
    ----------
    first, second : array-like, shape (n,)
    form : {"A1", "C1"}
        ``"A1"``: absolute agreement, two-way, a shift between the measurements counts.
        ``"C1"``: consistency, a constant shift is forgiven.

    Returns
    -------
    Estimate
        1: the measurements are equal (A1) or equal up to a shift (C1). 0 or less: subjects differ
        no more than measurements do. It depends on how much the subjects differ: quote it with
        :func:`repeatability_coefficient`.

    Raises
    ------
    RobustnessError
        As :func:`paired`; also if all measurements or the means of all subjects are equal.

    References
    ----------
    .. [1] McGraw and Wong (1996), Forming inferences about some intraclass correlation
       coefficients. Psychol Methods 1(1).
    """
    first, second = paired(first, second)
    found = icc_by_column(first[:, None], second[:, None], form)[:, 0]
    scale = np.abs([first, second]).max()
    if not np.isfinite(found).all() or max(np.ptp(first), np.ptp(second)) <= 1e-14 * scale:
        raise RobustnessError("an ICC has no interval where subjects, or their means, are the same")
    return Estimate(*found, "McGraw and Wong")


def ccc(first, second) -> Estimate:
    """Return the concordance correlation coefficient.

    Parameters
    ----------
    first, second : array-like, shape (n,)

    Returns
    -------
    Estimate

    Raises
    ------
    RobustnessError
        As :func:`paired`; also if one of the two does not vary or they are uncorrelated.

    References
    ----------
    .. [1] Lin (1989), A concordance correlation coefficient to evaluate reproducibility.
       Biometrics 45(1); correction (2000), Biometrics 56(1).
    """
    first, second = paired(first, second)
    covariance = np.mean((first - first.mean()) * (second - second.mean()))
    spread = first.std() * second.std()
    if abs(covariance) <= 1e-12 * spread:
        raise RobustnessError("the measurements are uncorrelated, or one is the same for all")
    shift = first.mean() - second.mean()
    value = 2 * covariance / (first.var() + second.var() + shift**2)
    if 1 - abs(value) < 1e-12:
        return Estimate(*[np.sign(value)] * 3, "Lin")
    r, u2, rest = covariance / spread, shift**2 / spread, 1 - value**2
    variance = (
        (1 - r**2) * value**2 / (rest * r**2)
        + 2 * value**3 * (1 - value) * u2 / (r * rest**2)
        - value**4 * u2**2 / (2 * r**2 * rest**2)
    ) / (len(first) - 2)
    half = sps.norm.ppf(ENDS[1]) * np.sqrt(max(variance, 0))
    low, high = np.tanh(np.arctanh(value) + np.array([-half, half]))
    return Estimate(value, low, high, "Lin")
