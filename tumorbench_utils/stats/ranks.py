"""Many comparisons at once: adjusted p values and ranks of models over cohorts."""

from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy import stats as sps

from tumorbench_utils.stats.checks import checked_level, numbers


class FriedmanResult(NamedTuple):
    """What :func:`friedman_nemenyi` found.

    Attributes
    ----------
    statistic : float
        Friedman's chi-squared, corrected for ties.
    p : float
        Its p value from the chi-squared distribution with ``models - 1`` degrees of freedom.
    mean_ranks : Series, index = models
        Mean rank over the cohorts; 1 is best. Sorted, the best first.
    critical_difference : float
        Nemenyi's: two models differ if their mean ranks lie at least this far apart.
    """

    statistic: float
    p: float
    mean_ranks: pd.Series
    critical_difference: float


def holm(p_values):
    """Return p values adjusted for their number after Holm (1979).

    Parameters
    ----------
    p_values : array-like, shape (n,)

    Returns
    -------
    ndarray or Series, shape (n,)
        Adjusted p values in the given order; a Series if one was given.

    Raises
    ------
    ValueError
        If there are none, or one is missing or outside 0 to 1.
    """
    p = numbers(p_values, "p_values")
    if not len(p):
        raise ValueError("there are no p values to adjust")
    if p.min() < 0 or p.max() > 1:
        raise ValueError(f"p values must lie between 0 and 1; they run from {p.min()} to {p.max()}")
    order = np.argsort(p, kind="stable")
    stepped = np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1))
    adjusted = np.empty(len(p))
    adjusted[order] = np.minimum(stepped, 1)
    if isinstance(p_values, pd.Series):
        return pd.Series(adjusted, index=p_values.index, name=p_values.name)
    return adjusted


def friedman_nemenyi(performance: pd.DataFrame, *, alpha: float = 0.05) -> FriedmanResult:
    """Compare models over cohorts by their ranks (Friedman 1937; Nemenyi 1963; Demšar 2006).

    Parameters
    ----------
    performance : DataFrame, cohorts x models
        Higher is better. Ties share their mean rank.
    alpha : float
        Level of Nemenyi's critical difference.

    Raises
    ------
    TypeError
        If `performance` is not a DataFrame.
    ValueError
        If there are fewer than two cohorts or models, a value is missing or not a number, or a
        name stands twice.
    """
    if not isinstance(performance, pd.DataFrame):
        raise TypeError("performance must be a DataFrame with cohorts as rows, models as columns")
    cohorts, models = performance.shape
    if cohorts < 2 or models < 2:
        raise ValueError(f"ranks need two cohorts and two models, not {cohorts} and {models}")
    for what, names in (("cohort", performance.index), ("model", performance.columns)):
        if not names.is_unique:
            raise ValueError(f"{what} {names[names.duplicated()][0]!r} stands twice")
    values = np.column_stack([numbers(performance[m], f"model {m!r}") for m in performance])
    ranks = sps.rankdata(-values, axis=1)
    tied = sum(
        float((counts**3 - counts).sum())
        for counts in (np.unique(row, return_counts=True)[1] for row in ranks)
    )
    mean_ranks = ranks.mean(axis=0)
    spread = 12 * cohorts * np.sum((mean_ranks - (models + 1) / 2) ** 2) / (models * (models + 1))
    correction = 1 - tied / (cohorts * models * (models**2 - 1))
    statistic = spread / correction if correction > 1e-12 else 0.0
    q = sps.studentized_range.ppf(1 - checked_level(alpha), models, np.inf) / np.sqrt(2)
    return FriedmanResult(
        float(statistic),
        float(sps.chi2.sf(statistic, models - 1)),
        pd.Series(mean_ranks, index=performance.columns, name="mean_rank").sort_values(),
        float(q * np.sqrt(models * (models + 1) / (6 * cohorts))),
    )


def resampled_ranks(
    performance: pd.DataFrame, errors: pd.DataFrame, n: int = 2000, seed: int = 0
) -> pd.DataFrame:
    """Draw the final ranks of models again and again, as other cohorts and samples would give them.

    Every draw takes cohorts with replacement, adds normal noise of the given standard errors to
    each performance, ranks the models within cohorts and ranks their mean ranks.

    Parameters
    ----------
    performance : DataFrame, cohorts x models
        Higher is better.
    errors : DataFrame, cohorts x models
        Standard errors; 0 leaves the sampling noise out.
    n, seed : int

    Returns
    -------
    DataFrame, shape (n, models)
        Final rank per draw and model, 1 is best; ties share the mean of their places.

    Raises
    ------
    ValueError
        If the tables have other rows or columns, or an error is missing or negative.
    """
    friedman_nemenyi(performance)
    if not performance.index.equals(errors.index) or not performance.columns.equals(errors.columns):
        raise ValueError(
            "performance and errors must have the same cohorts and models in one order"
        )
    noise = errors.to_numpy(dtype=float)
    if not (noise >= 0).all():
        raise ValueError("standard errors must be numbers of at least 0")
    rng = np.random.default_rng(seed)
    cohorts = rng.integers(0, len(performance), size=(n, len(performance)))
    drawn = performance.to_numpy(dtype=float)[cohorts]
    drawn = drawn + rng.standard_normal(drawn.shape) * noise[cohorts]
    within = sps.rankdata(-drawn, axis=2).mean(axis=1)
    return pd.DataFrame(sps.rankdata(within, axis=1), columns=performance.columns)
