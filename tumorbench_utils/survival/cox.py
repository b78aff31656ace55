"""Cox regression on a table, with the checks a biostatistician makes before and after the fit."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from numbers import Real

import numpy as np
import pandas as pd
from lifelines import CoxPHFitter
from lifelines.exceptions import ConvergenceError, ConvergenceWarning
from lifelines.statistics import proportional_hazard_test
from scipy import stats as sps
from scipy.linalg import qr

from tumorbench_utils.survival.checks import SurvivalError, columns, outcome
from tumorbench_utils.survival.curves import TestResult
from tumorbench_utils.survival.metrics import concordance

OUTCOME = ("time_days", "event")


@dataclass(frozen=True, eq=False)
class CoxResult:
    """A fitted Cox model.

    Attributes
    ----------
    summary : DataFrame, index = covariates
        ``hazard_ratio`` per unit of the covariate, ``low`` and ``high`` (95% Wald interval), ``p``
        (Wald test), ``coef`` and ``se`` of the log hazard ratio. A level of a category stands as
        ``stage[II]``, against the level in `references`.
    concordance : float
        Harrell's C in the sample the model was fitted to: optimistic.
    n, events : int
        Patients and events in the fit.
    missing : Series, index = covariates
        Rows in which each covariate is missing; a row that lacks any of them is left out.
    left_out : int
        Rows left out for that reason.
    references : dict of str to str
        Reference level of each categorical covariate.
    log_likelihood : float
        Log partial likelihood, less the penalty where there is one.
    events_per_variable : float
        Events over coefficients; below about 10 the estimates are unstable (Peduzzi et al. 1995).
    """

    summary: pd.DataFrame
    concordance: float
    n: int
    events: int
    missing: pd.Series
    left_out: int
    references: dict
    log_likelihood: float
    events_per_variable: float
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
        table = test.summary[["test_statistic", "p"]].set_axis(["statistic", "p"], axis=1)
        return table.reindex(self.summary.index)


def cox(table: pd.DataFrame, covariates: Sequence[str], penalizer: float = 0.0) -> CoxResult:
    """Fit Cox's proportional hazards model with lifelines (Efron's ties).

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
        Rows with a missing covariate are left out; how many stands in ``missing`` and
        ``left_out``.

    Raises
    ------
    SurvivalError
        If the outcome is not valid (a missing outcome too: leave such rows out first), a patient
        has several rows, a covariate is constant, is a combination of the others, separates the
        events completely, or there are not more events than coefficients. With a penalty the last
        three are fitted: the penalty decides what the data leave open.
    """
    x, missing, references = design(table, covariates)
    _check_patients(table, covariates)
    if not isinstance(penalizer, Real) or not 0 <= penalizer < np.inf:
        raise SurvivalError(f"penalizer must be a number, 0 or more, not {penalizer!r}")
    times, events = outcome(table["time_days"], table["event"])
    keep = x.notna().all(axis=1).to_numpy()
    times, events, x = times[keep], events[keep], x[keep].reset_index(drop=True)
    if not events.any():
        raise SurvivalError(
            f"no event among the {keep.sum()} rows that have all covariates; missing: "
            + ", ".join(f"{k} in {v}" for k, v in missing.items())
        )
    _check_design(x, times, events, penalized=penalizer > 0)
    data = x.assign(**{OUTCOME[0]: times, OUTCOME[1]: events})
    if np.ptp(times) == 0:
        raise SurvivalError(
            f"all patients have the same time, {times[0]:g} days: nothing to compare"
        )
    fit = _fit(data, penalizer)
    summary = fit.summary[
        ["exp(coef)", "exp(coef) lower 95%", "exp(coef) upper 95%", "p", "coef", "se(coef)"]
    ].set_axis(["hazard_ratio", "low", "high", "p", "coef", "se"], axis=1)
    if penalizer == 0:
        _check_finite(summary, x)
    return CoxResult(
        summary=summary.rename_axis("covariate"),
        concordance=concordance(times, events, x.to_numpy() @ fit.params_.to_numpy()),
        n=len(x),
        events=int(events.sum()),
        missing=missing,
        left_out=int((~keep).sum()),
        references=references,
        log_likelihood=float(fit.log_likelihood_),
        events_per_variable=float(events.sum() / x.shape[1]),
        _fit=fit,
        _data=data,
    )


def likelihood_ratio_test(
    table: pd.DataFrame, covariates: Sequence[str], added: Sequence[str]
) -> TestResult:
    """Test whether further covariates add to a Cox model: twice the gain in log likelihood.

    Both models are fitted to the rows that have all covariates. To ask whether an embedding adds
    to clinical data, add a few principal components, their number fixed before looking at any
    outcome; a score that was itself fitted to these outcomes would make the test meaningless.

    Parameters
    ----------
    table : DataFrame
        As for :func:`cox`.
    covariates, added : list of str
        Those of the smaller model, and those that the larger one has besides.

    Returns
    -------
    TestResult
        Chi-squared statistic, degrees of freedom (coefficients added) and p value.

    Raises
    ------
    SurvivalError
        As :func:`cox`.
    """
    both = columns(table, [*columns(table, covariates), *columns(table, added)])
    complete = table[table[both].notna().all(axis=1)]
    large, small = cox(complete, both), cox(complete, covariates)
    degrees = len(large.summary) - len(small.summary)
    statistic = 2 * (large.log_likelihood - small.log_likelihood)
    return TestResult(statistic, degrees, float(sps.chi2.sf(statistic, degrees)))


def design(
    table: pd.DataFrame, covariates: Sequence[str]
) -> tuple[pd.DataFrame, pd.Series, dict[str, str]]:
    """Turn covariates into numbers.

    Parameters
    ----------
    table : DataFrame
    covariates : list of str
        As for :func:`cox`.

    Returns
    -------
    x : DataFrame
        Float columns in the rows of `table`; NaN where a covariate is missing.
    missing : Series, index = covariates
        Rows in which each is missing.
    references : dict of str to str
        Reference level of each category.

    Raises
    ------
    SurvivalError
        If a column is missing, holds neither numbers nor categories, one category only, infinite
        values or numbers written as text.
    """
    names = columns(table, covariates)
    parts, references = [], {}
    for name in names:
        series = table[name]
        if series.dtype == object:
            series = series.convert_dtypes()  # numbers beside None; text stays text
        if pd.api.types.is_numeric_dtype(series) and not pd.api.types.is_complex_dtype(series):
            values = series.astype("Float64").to_numpy(dtype=float, na_value=np.nan)
            if np.isinf(values).any():
                raise SurvivalError(f"covariate {name!r} holds infinite values")
            parts.append(pd.DataFrame({name: values}, index=table.index))
        else:
            part, references[name] = _indicators(series, name)
            parts.append(part)
    x = pd.concat(parts, axis=1)
    return x, table[names].isna().sum().rename("missing"), references


def _check_patients(table: pd.DataFrame, names: Sequence[str]) -> None:
    """Refuse a table without outcome, the outcome as covariate, or a patient in several rows."""
    columns(table, OUTCOME)
    forbidden = [n for n in names if n in OUTCOME]
    if forbidden:
        raise SurvivalError(f"{forbidden[0]!r} is the outcome; it cannot be a covariate")
    if table.empty:
        raise SurvivalError("the table is empty: there is no patient")
    if "patient_id" in table.columns and table["patient_id"].duplicated().any():
        double = table.loc[table["patient_id"].duplicated(), "patient_id"].iloc[0]
        raise SurvivalError(
            f"patient {double!r} has several rows; one death must count once: keep one row each"
        )


def _indicators(series: pd.Series, name: str) -> tuple[pd.DataFrame, str]:
    """Return one 0/1 column per level but the first, NaN where missing, and the first level."""
    present = series.dropna()
    if not isinstance(series.dtype, pd.CategoricalDtype):
        if not all(isinstance(v, str) for v in present):
            kind = type(present.iloc[0]).__name__ if len(present) else series.dtype
            raise SurvivalError(
                f"covariate {name!r} holds neither numbers nor text ({kind}); convert the column"
            )
        if len(present) and pd.to_numeric(present, errors="coerce").notna().all():
            raise SurvivalError(
                f"covariate {name!r} holds numbers as text: use pandas.to_numeric for a quantity, "
                'astype("category") for a code'
            )
    levels = series.astype("category").cat.remove_unused_categories()
    if len(levels.cat.categories) < 2:
        raise SurvivalError(f"covariate {name!r} is constant: it has no effect to estimate")
    part = pd.DataFrame(
        {f"{name}[{level}]": (levels == level).astype(float) for level in levels.cat.categories[1:]}
    )
    return part.mask(series.isna()), str(levels.cat.categories[0])


def _check_design(x: pd.DataFrame, times, events, *, penalized: bool) -> None:
    """Refuse what has no estimate: constant, collinear or separating covariates."""
    values = x.to_numpy()
    spread = values.std(axis=0)
    constant = spread <= 1e-12 * np.abs(values).max(axis=0)
    if constant.any():
        raise SurvivalError(
            f"covariate {x.columns[constant][0]!r} is constant in the {len(x)} complete rows"
        )
    if penalized:
        return
    if x.shape[1] >= events.sum():
        raise SurvivalError(
            f"{x.shape[1]} coefficients cannot be estimated from {events.sum()} events; use fewer "
            "covariates or a penalizer"
        )
    scaled = (values - values.mean(axis=0)) / spread
    _, triangle, order = qr(scaled, mode="economic", pivoting=True)
    weak = np.abs(np.diag(triangle)) < 1e-6 * np.sqrt(len(x))
    if weak.any():
        raise SurvivalError(
            f"covariate {x.columns[order[weak.argmax()]]!r} is a linear combination of the others: "
            "drop one of them"
        )
    for name, column in zip(x.columns, values.T, strict=True):
        if _separates(column, times, events):
            raise SurvivalError(
                f"covariate {name!r} separates the events completely (whoever dies has the "
                "highest, or the lowest, value of all at risk): its hazard ratio is infinite; "
                "merge levels, drop it or use a penalizer"
            )


def _separates(column: np.ndarray, times: np.ndarray, events: np.ndarray) -> bool:
    """Return whether every event has the largest (or every one the smallest) value at risk."""
    order = np.argsort(-times, kind="stable")
    last = np.searchsorted(-times[order], -times[events], side="right") - 1
    highest = np.maximum.accumulate(column[order])[last]
    lowest = np.minimum.accumulate(column[order])[last]
    return bool((column[events] == highest).all() or (column[events] == lowest).all())


def _fit(data: pd.DataFrame, penalizer: float) -> CoxPHFitter:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.simplefilter("error", ConvergenceWarning)
        try:
            return CoxPHFitter(penalizer=penalizer).fit(data, *OUTCOME)
        except (ConvergenceError, ConvergenceWarning) as error:
            reason = str(error).strip().splitlines()[0].split(". ")[0]
            raise SurvivalError(
                f"the Cox model did not converge ({reason}); covariates that together separate "
                "the events or are almost collinear do this: use fewer, or a penalizer"
            ) from error


def _check_finite(summary: pd.DataFrame, x: pd.DataFrame) -> None:
    """Refuse a combination of covariates that separates: the coefficients run away together."""
    runaway = (summary["se"] * x.std()).abs() > 50
    if runaway.any() or not np.isfinite(summary.to_numpy()).all():
        name = summary.index[runaway.argmax()]
        raise SurvivalError(
            f"the coefficient of {name!r} is not finite: the covariates together separate the "
            "events completely; use fewer, or a penalizer"
        )
