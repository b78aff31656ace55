"""Reproducibility: how much of a measurement is the subject, and how much the scanner."""

import numpy as np
import pandas as pd

from tumorbench_utils import checks
from tumorbench_utils.robustness.agreement import ENDS, REPEATABILITY, RobustnessError
from tumorbench_utils.stats import Estimate


def variance_components(values, *, n: int = 1000, seed: int = 0) -> pd.DataFrame:
    """Split the variance of repeated measurements into subjects, conditions and the rest.

    Two crossed random factors; estimates from expected mean squares [1]_. A negative estimate means
    that a component is smaller than its noise: it is set to 0 and marked.

    Parameters
    ----------
    values : array-like, shape (subjects, conditions) or (subjects, conditions, replicates)
        For example one feature of the same lesions on several scanners. Without replicates the
        interaction is part of ``residual``.
    n : int
        Bootstrap resamples of subjects for the 95% intervals.
    seed : int

    Returns
    -------
    DataFrame, index ``subject, condition[, interaction], residual``
        Columns ``value, low, high`` (variances), ``share`` of their sum and ``truncated`` (the
        estimate was negative). With few conditions the interval of ``condition`` is too short: it
        says how sure the value is for these conditions, not for others.

    Raises
    ------
    RobustnessError
        If there are fewer than 3 subjects or 2 conditions, or values are missing or all equal.

    References
    ----------
    .. [1] Searle, Casella and McCulloch (1992), Variance Components. Wiley.
    """
    estimate, *draws = _resampled(values, n, seed)
    low, high = np.quantile(np.maximum(draws, 0), ENDS, axis=0)
    kept = np.maximum(estimate, 0)
    columns = {"value": kept, "low": low, "high": high, "share": kept / kept.sum()}
    names = ["subject", "condition", "interaction", "residual"]
    index = [name for name in names if len(kept) == 4 or name != "interaction"]
    return pd.DataFrame({**columns, "truncated": estimate < 0}, index=index)


def reproducibility_coefficient(values, *, n: int = 1000, seed: int = 0) -> Estimate:
    """Return the reproducibility coefficient (RDC), in the unit of the measurement.

    ``1.96 √2`` times the root of the sum of all variance components but that of the subjects: one
    unchanged subject, measured under two of the conditions, differs by less in 95% of cases [1]_.

    Parameters
    ----------
    values, n, seed
        As for :func:`variance_components`; negative components count as 0.

    Returns
    -------
    Estimate
        The interval resamples subjects; it holds for these conditions.

    References
    ----------
    .. [1] Raunig et al. (2015), Quantitative imaging biomarkers: a review of statistical methods
       for technical performance assessment. Stat Methods Med Res 24(1).
    """
    components = np.maximum(_resampled(values, n, seed), 0)
    value, *draws = REPEATABILITY * np.sqrt(components[:, 1:].sum(axis=1))
    return Estimate(value, *np.quantile(draws, ENDS), "bootstrap of subjects")


def _resampled(values, n: int, seed: int) -> np.ndarray:
    """Return the components, and below them those of `n` resamples of subjects."""
    ndim = min(max(np.ndim(values), 2), 3)
    array = checks.numbers(values, "values", ndim=ndim, error=RobustnessError)
    array = array.reshape(*array.shape[:2], -1)
    if array.shape[0] < 3 or array.shape[1] < 2 or np.ptp(array) == 0:
        raise RobustnessError(
            "values has the shape (subjects, conditions[, replicates]) with at least 3 subjects, 2 "
            f"conditions and some variance; this one has the shape {array.shape}"
        )
    rng = np.random.default_rng(seed)
    rows = (rng.integers(0, len(array), len(array)) for _ in range(n))
    return np.array([_components(array), *(_components(array[picked]) for picked in rows)])


def _components(array: np.ndarray) -> np.ndarray:
    a, b, r = array.shape
    grand, rows, columns = array.mean(), array.mean(axis=(1, 2)), array.mean(axis=(0, 2))
    cells = array.mean(axis=2)
    ms_rows = b * r * np.sum((rows - grand) ** 2) / (a - 1)
    ms_columns = a * r * np.sum((columns - grand) ** 2) / (b - 1)
    inner = cells - rows[:, None] - columns[None, :] + grand
    ms_inner = r * np.sum(inner**2) / ((a - 1) * (b - 1))
    subject, condition = (ms_rows - ms_inner) / (b * r), (ms_columns - ms_inner) / (a * r)
    if r == 1:
        return np.array([subject, condition, ms_inner])
    ms_error = np.sum((array - cells[:, :, None]) ** 2) / (a * b * (r - 1))
    return np.array([subject, condition, (ms_inner - ms_error) / r, ms_error])
