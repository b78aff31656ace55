"""Cox regression on a table, with the checks a biostatistician makes before and after the fit."""

import re
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import pandas as pd
from lifelines import CoxPHFitter
from lifelines.exceptions import ConvergenceError, ConvergenceWarning
from lifelines.statistics import proportional_hazard_test
from scipy import stats as sps

from tumorbench_utils.checks import columns
from tumorbench_utils.survival.metrics import concordance
from tumorbench_utils.survival.model import Standardiser
from tumorbench_utils.survival.outcome import SurvivalError, outcome, require

OUTCOME = ("time_days", "event")

#: A quantity as text: a number, with a comma or point, perhaps with a sign or a bound before it.
_NUMBER = re.compile(r"\s*[<>≤≥~±+-]*\s*\d[\d ']*([.,]\d+)*(e[+-]?\d+)?\s*%?\s*", re.IGNORECASE)

_HINT = (
    ": a covariate is a linear combination of the others, or it separates the events completely "
    "(whoever dies has the highest value of all at risk); merge levels, use fewer, or a penalizer"
)


@dataclass(frozen=True, eq=False)
class CoxResult:
    """A fitted Cox model.

    Attributes
    ----------
    summary : DataFrame, index = covariates
        ``hazard_ratio`` per unit of the covariate, ``low`` and ``high`` (95% Wald interval), ``p``
        (Wald test), ``coef`` and ``se`` of the log hazard ratio. A level of a category stands as
        ``stage[II]``, against the level that is not there.
    concordance : float
        Harrell's C in the sample the model was fitted to: optimistic.
    n, events : int
        Patients and events in the fit.
    left_out : int
        Rows left out because a covariate is missing.
    log_likelihood : float
        Log partial likelihood, less the penalty where there is one.
    """

    summary: pd.DataFrame
    concordance: float
    n: int
    events: int
    left_out: int
    log_likelihood: float
    _fit: CoxPHFitter = field(repr=False)
    _data: pd.DataFrame = field(repr=False)

    @cached_property
    def ph_test(self) -> pd.DataFrame:
        """Test of proportional hazards per covariate: ``statistic`` (chi-squared, 1 df), ``p``.

        Scaled Schoenfeld residuals against the rank of time (Grambsch and Therneau 1994), as
        lifelines computes them. A small p says that the effect changes over time; the hazard ratio
        is then an average over the follow-up.
        """
        test = proportional_hazard_test(self._fit, self._data, time_transform="rank")
        table = test.summary.rename(columns={"test_statistic": "statistic"})
        return table.loc[self.summary.index, ["statistic", "p"]]


def cox(table: pd.DataFrame, covariates: Sequence[str], penalizer: float = 0.0) -> CoxResult:
    """Fit Cox's proportional hazards model [1]_ with lifelines (Efron's ties).

    Parameters
    ----------
    table : DataFrame
        One row per patient with ``time_days`` (above 0), ``event`` (1 = seen, 0 = censored) and
        the covariates.
    covariates : list of str
        Numeric and boolean columns enter as they are; the effect of a number is per unit and
        linear in the log hazard. Text and categorical columns enter as one indicator per level
        other than the first (in the order of the categories, else sorted). A code of numbers that
        are no quantity must be turned into a category first.
    penalizer : float
        Ridge penalty as in lifelines: ``n * penalizer / 2 * |b|**2`` is taken off the log
        likelihood, n patients and b the coefficients of standardised covariates.

    Returns
    -------
    CoxResult
        Rows with a missing covariate are left out and counted in ``left_out``.

    Raises
    ------
    SurvivalError
        If the outcome is not valid (a missing outcome too: leave such rows out first), a patient
        has several rows, a covariate holds numbers as text, is constant, is a combination of the
        others, separates the events completely, or there are not more events than coefficients.
        With a penalty the last three are fitted: the penalty decides what the data leave open.

    See Also
    --------
    lifelines.CoxPHFitter : the fit itself; it takes numbers only.

    References
    ----------
    .. [1] Cox. Regression models and life-tables. JRSS B 1972.
    """
    names = columns(table, [*covariates], error=SurvivalError)
    if not names or set(names) & set(OUTCOME):
        raise SurvivalError(f"covariates must name columns other than {OUTCOME}, not {names}")
    times, events = outcome(*(table[c] for c in columns(table, OUTCOME, error=SurvivalError)))
    if "patient_id" in table and table["patient_id"].duplicated().any():
        raise SurvivalError("a patient has several rows; a death must count once")
    require(0 <= penalizer < np.inf, f"penalizer must be a number, 0 or more, not {penalizer!r}")
    x = design(table[names])
    keep = x.notna().all(axis=1).to_numpy()
    times, events, x = times[keep], events[keep], x[keep].reset_index(drop=True)
    if not events.any() or np.ptp(times) == 0:
        gaps = table[names].isna().sum().to_dict()
        raise SurvivalError(f"no event, or one time, in {len(x)} complete rows; missing: {gaps}")
    # Standardised, so that neither the unit of a covariate nor its mean decides about convergence.
    standardise = Standardiser(x.to_numpy())
    z = pd.DataFrame(standardise(x.to_numpy()), columns=x.columns)
    require(z.any().all(), f"covariate {z.any().idxmin()!r} is constant in {len(z)} complete rows")
    enough = penalizer > 0 or z.shape[1] < events.sum()
    require(
        enough, f"{z.shape[1]} coefficients need more than {events.sum()} events, or a penalizer"
    )
    data = z.assign(**dict(zip(OUTCOME, (times, events), strict=True)))
    fit = _fit(data, penalizer)
    if penalizer == 0 and not (fit.summary["se(coef)"] <= 50).all():
        name = fit.summary["se(coef)"].idxmax()
        raise SurvivalError(f"the coefficient of {name!r} is not finite{_HINT}")
    coef, se = (fit.summary[column] * standardise.scale for column in ("coef", "se(coef)"))
    half = sps.norm.ppf(0.975) * se
    limits = pd.DataFrame({"hazard_ratio": coef, "low": coef - half, "high": coef + half})
    with np.errstate(over="ignore"):  # a unit so large that the ratio per unit is 0 or infinite
        summary = np.exp(limits).assign(p=fit.summary["p"], coef=coef, se=se)
    in_sample = concordance(times, events, z.to_numpy() @ fit.params_.to_numpy())
    counts = len(x), int(events.sum()), int((~keep).sum())
    return CoxResult(summary, in_sample, *counts, float(fit.log_likelihood_), fit, data)


def design(covariates: pd.DataFrame) -> pd.DataFrame:
    """Turn covariates into float columns, NaN where one is missing.

    Raises
    ------
    SurvivalError
        If a column holds neither numbers nor categories, one category only, infinite values or
        numbers written as text.
    """
    parts = []
    for name, column in covariates.items():
        if column.dtype == object:
            column = column.convert_dtypes()  # numbers beside None; text stays text
        if pd.api.types.is_numeric_dtype(column):
            part = column.astype("Float64").astype(float).to_frame(name)
        else:
            part = _indicators(column, name)
        if part.empty or np.isinf(part).any(axis=None):
            raise SurvivalError(f"covariate {name!r} is constant, or infinite in some row")
        parts.append(part)
    return pd.concat(parts, axis=1)


def _indicators(column: pd.Series, name: str) -> pd.DataFrame:
    """Return one 0/1 column per level but the first, NaN where missing."""
    text = isinstance(column.dtype, pd.StringDtype)
    if not text and not isinstance(column.dtype, pd.CategoricalDtype):
        raise SurvivalError(f"covariate {name!r} holds neither numbers nor text ({column.dtype})")
    levels = column.astype("category").cat.remove_unused_categories()
    # '1,5' and '2,5' are a quantity that was read as text, and no two groups of patients
    if text and np.mean([bool(_NUMBER.fullmatch(level)) for level in levels.cat.categories]) > 0.5:
        hint = 'pandas.to_numeric turns a quantity, astype("category") a code'
        raise SurvivalError(f"covariate {name!r} holds numbers as text: {hint}")
    indicators = pd.get_dummies(levels, drop_first=True, dtype=float).mask(column.isna())
    return indicators.set_axis([f"{name}[{level}]" for level in indicators], axis=1)


def _fit(data: pd.DataFrame, penalizer: float) -> CoxPHFitter:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.simplefilter("error", ConvergenceWarning)
        try:
            return CoxPHFitter(penalizer=penalizer).fit(data, *OUTCOME)
        except (ConvergenceError, ConvergenceWarning) as error:
            reason = str(error).strip().splitlines()[0].split(". ")[0]
            raise SurvivalError(f"the Cox model did not converge ({reason}){_HINT}") from error
