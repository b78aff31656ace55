"""Reproducibility: how much of a measurement is the subject, and how much the scanner.

Terms as in Raunig et al. (2015); components by the analysis of variance (Searle, Casella and
McCulloch 1992).
"""

import numpy as np
import pandas as pd

from tumorbench_utils.robustness.agreement import (
    REPEATABILITY,
    Estimate,
    RobustnessError,
    tail_of,
)


def variance_components(values, *, n: int = 1000, seed: int = 0, level: float = 0.95):
    """Split the variance of repeated measurements into subjects, conditions and the rest.

    Two crossed random factors; estimates from expected mean squares. A negative estimate means
    that a component is smaller than its noise: it is set to 0 and marked.

    Parameters
    ----------
    values : array-like, shape (subjects, conditions) or (subjects, conditions, replicates)
        For example one feature of the same lesions on several scanners. Without replicates the
        interaction is part of ``residual``.
    n : int
        Bootstrap resamples of subjects for the intervals.
    seed : int
    level : float

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
    """
    array = _layout(values)
    estimate, draws = _components(array), _resampled(array, n, seed)
    tail = tail_of(level)
    low, high = np.quantile(np.maximum(draws, 0), [tail, 1 - tail], axis=0)
    names = ["subject", "condition", "interaction", "residual"]
    if array.shape[2] == 1:
        names.remove("interaction")
    kept = np.maximum(estimate, 0)
    return pd.DataFrame(
        {
            "value": kept,
            "low": low,
            "high": high,
            "share": kept / kept.sum(),
            "truncated": estimate < 0,
        },
        index=names,
    )


def reproducibility_coefficient(
    values, *, n: int = 1000, seed: int = 0, level: float = 0.95
) -> Estimate:
    """Return the reproducibility coefficient (RDC), in the unit of the measurement.

    ``1.96 √2`` times the root of the sum of all variance components but that of the subjects: one
    unchanged subject, measured under two of the conditions, differs by less in 95% of cases.

    Parameters
    ----------
    values, n, seed, level
        As for :func:`variance_components`; negative components count as 0.

    Returns
    -------
    value, low, high : float
        The interval resamples subjects; it holds for these conditions.

    Raises
    ------
    RobustnessError
        As :func:`variance_components`.
    """
    array, tail = _layout(values), tail_of(level)
    draws = np.vstack([_components(array), _resampled(array, n, seed)])
    found = REPEATABILITY * np.sqrt(np.maximum(draws[:, 1:], 0).sum(axis=1))
    return Estimate(float(found[0]), *(float(q) for q in np.quantile(found[1:], [tail, 1 - tail])))


def _layout(values) -> np.ndarray:
    """Return the values as (subjects, conditions, replicates)."""
    try:
        array = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise RobustnessError(f"values must hold numbers, one in every cell: {error}") from error
    if array.ndim == 2:
        array = array[:, :, None]
    if array.ndim != 3 or array.shape[0] < 3 or array.shape[1] < 2 or array.shape[2] < 1:
        raise RobustnessError(
            "values has the shape (subjects, conditions[, replicates]) with at least 3 subjects "
            f"and 2 conditions, not {np.shape(values)}"
        )
    if not np.isfinite(array).all():
        raise RobustnessError("values holds missing or infinite entries; every cell is needed")
    if np.ptp(array) == 0:
        raise RobustnessError("all measurements are equal: there is no variance to split")
    return array


def _resampled(array: np.ndarray, n: int, seed: int) -> np.ndarray:
    """Return the components of `n` resamples of subjects, shape (n, components)."""
    if isinstance(n, bool) or not isinstance(n, int | np.integer) or n < 1:
        raise RobustnessError(f"the number of resamples is a whole number above 0, not {n!r}")
    rng = np.random.default_rng(seed)
    rows = (rng.integers(0, len(array), len(array)) for _ in range(n))
    return np.array([_components(array[picked]) for picked in rows])


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
