"""Many comparisons at once: adjusted p values and ranks of models over cohorts."""

from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy import stats as sps

from tumorbench_utils import checks


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
    """Return p values adjusted for their number after Holm [1]_.

    Parameters
    ----------
    p_values : array-like, shape (n,)

    Returns
    -------
    ndarray or Series, shape (n,)
        Adjusted p values in the given order; a Series if one was given.

    Raises
    ------
    InputError
        If there are none, or one is missing or outside 0 to 1.

    See Also
    --------
    statsmodels.stats.multitest.multipletests : ``method="holm"`` gives the same values.

    References
    ----------
    .. [1] Holm S. A simple sequentially rejective multiple test procedure. Scand J Stat
       1979;6:65-70.
    """
    p = checks.numbers(p_values, "p_values")
    if not len(p) or p.min() < 0 or p.max() > 1:
        raise checks.InputError(f"p values must lie between 0 and 1, one or more: {p}")
    order = np.argsort(p, kind="stable")
    stepped = np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1))
    adjusted = np.minimum(stepped, 1)[np.argsort(order)]
    if isinstance(p_values, pd.Series):
        return pd.Series(adjusted, index=p_values.index, name=p_values.name)
    return adjusted


def _table(performance: pd.DataFrame) -> np.ndarray:
    """Return the numbers of a table of cohorts x models, two of each and each once."""
    values = checks.numbers(performance, "performance", ndim=2)
    if min(values.shape) < 2 or not all(axis.is_unique for axis in performance.axes):
        raise checks.InputError("ranks need two cohorts and two models, each once")
    return values


def friedman_nemenyi(performance: pd.DataFrame, *, alpha: float = 0.05) -> FriedmanResult:
    """Compare models over cohorts by their ranks: Friedman's test [1]_ and Nemenyi's after it [2]_.

    Parameters
    ----------
    performance : DataFrame, cohorts x models
        Higher is better. Ties share their mean rank.
    alpha : float
        Level of Nemenyi's critical difference.

    Raises
    ------
    InputError
        If there are fewer than two cohorts or models, a value is missing or not a number, or a
        name stands twice.

    See Also
    --------
    scipy.stats.friedmanchisquare : the same statistic and p value for three models or more.

    References
    ----------
    .. [1] Friedman M. The use of ranks to avoid the assumption of normality implicit in the
       analysis of variance. J Am Stat Assoc 1937;32:675-701.
    .. [2] Demšar J. Statistical comparisons of classifiers over multiple data sets. J Mach Learn
       Res 2006;7:1-30.
    """
    values = _table(performance)
    cohorts, models = values.shape
    ranks = sps.rankdata(-values, axis=1)
    mean_ranks = ranks.mean(axis=0)
    spread = 12 * cohorts * np.sum((mean_ranks - (models + 1) / 2) ** 2) / (models * (models + 1))
    # Ties narrow the distribution of the ranks; where all are tied nothing is left to test.
    correction = np.mean([sps.tiecorrect(row) for row in ranks])
    statistic = spread / correction if correction > 1e-12 else 0.0
    # Nemenyi's q is the studentised range over infinite degrees of freedom, divided by root 2.
    q = sps.studentized_range.ppf(1 - checks.share(alpha), models, np.inf) / np.sqrt(2)
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
        Standard errors, joined by name; 0 leaves the sampling noise out.
    n, seed : int

    Returns
    -------
    DataFrame, shape (n, models)
        Final rank per draw and model, 1 is best; ties share the mean of their places.

    Raises
    ------
    KeyError, InputError
        If a performance has no error, or a value is missing.
    """
    values = _table(performance)
    noise = checks.numbers(errors.loc[performance.index, performance.columns], "errors", ndim=2)
    rng = np.random.default_rng(seed)
    cohorts = rng.integers(0, len(values), size=(n, len(values)))
    drawn = values[cohorts]
    drawn = drawn + rng.standard_normal(drawn.shape) * noise[cohorts]
    within = sps.rankdata(-drawn, axis=2).mean(axis=1)
    return pd.DataFrame(sps.rankdata(within, axis=1), columns=performance.columns)
