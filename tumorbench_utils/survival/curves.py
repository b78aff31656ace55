"""Curves without a model: Kaplan-Meier, log-rank, patients at risk, restricted mean survival."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pandas as pd
from lifelines import KaplanMeierFitter
from lifelines.statistics import multivariate_logrank_test
from scipy import stats as sps

from tumorbench_utils.survival.checks import SurvivalError, numbers, one_day, outcome, same_rows


class TestResult(NamedTuple):
    """A test statistic, its degrees of freedom and its p value."""

    statistic: float
    degrees: int
    p: float

    __test__ = False  # no test case for pytest


@dataclass(frozen=True, eq=False)
class KaplanMeier:
    """A survival curve as :func:`kaplan_meier` estimates it.

    Attributes
    ----------
    table : DataFrame
        One row per distinct time, from 0 on, with the columns ``time`` (days), ``survival``,
        ``low``, ``high`` (its 95% interval) and ``at_risk`` (patients under observation just
        before).
    median : float
        First time at which the survival is 0.5 or less, days; ``inf`` if it stays above.
    median_interval : tuple of float
        First times at which the lower and the upper limit of the survival are 0.5 or less; an end
        that is not reached is ``inf``.
    n, events : int
    """

    table: pd.DataFrame
    median: float
    median_interval: tuple[float, float]
    n: int
    events: int

    def at(self, days):
        """Return the survival at given times.

        Parameters
        ----------
        days : float or array-like of float
            Not negative.

        Returns
        -------
        float or ndarray
            As `days`. After the last time it is 0 if the curve has come down to 0.

        Raises
        ------
        SurvivalError
            If a time is negative or missing, or lies after the last contact with a patient who
            was then alive: the curve is not known there.
        """
        asked = numbers(np.atleast_1d(days), "days")
        last = self.table.iloc[-1]
        if (asked < 0).any():
            raise SurvivalError("days must not be negative")
        if (asked > last["time"]).any() and last["survival"] > 0:
            raise SurvivalError(
                f"the survival at {asked.max():g} days is not known: the last patient was censored "
                f"at {last['time']:g} days"
            )
        at = np.searchsorted(self.table["time"].to_numpy(), asked, side="right") - 1
        values = self.table["survival"].to_numpy()[at]
        return float(values[0]) if np.ndim(days) == 0 else values


def kaplan_meier(time, event) -> KaplanMeier:
    """Estimate a survival curve (Kaplan and Meier 1958) with lifelines.

    The intervals are those of Greenwood's variance on the log-minus-log scale (Kalbfleisch and
    Prentice 1980), which stay between 0 and 1. Those of the median invert the limits of the curve
    (Brookmeyer and Crowley 1982). Before the first event and after the survival has reached 0 the
    limits are the estimate itself: the data say nothing about the uncertainty there.

    Parameters
    ----------
    time : array-like, shape (n,)
        Days to the event or the last contact; above 0.
    event : array-like, shape (n,)
        1 if the event was seen, 0 if censored. Without any event the curve stays at 1.

    Raises
    ------
    SurvivalError
        If the outcome is empty or not valid.
    """
    times, events = outcome(time, event, needs_event=False)
    fit = KaplanMeierFitter().fit(times, events)
    limits = fit.confidence_interval_.to_numpy()
    table = pd.DataFrame(
        {
            "time": fit.survival_function_.index.to_numpy(dtype=float),
            "survival": fit.survival_function_.to_numpy()[:, 0],
            "low": limits[:, 0],
            "high": limits[:, 1],
            "at_risk": fit.event_table["at_risk"].to_numpy(dtype=int),
        }
    )
    return KaplanMeier(
        table=table,
        median=_first_below(table, "survival"),
        median_interval=(_first_below(table, "low"), _first_below(table, "high")),
        n=len(times),
        events=int(events.sum()),
    )


def _first_below(table: pd.DataFrame, column: str, level: float = 0.5) -> float:
    # a product of fractions that is 1/2 in exact arithmetic may come out an ulp above it
    below = table[column].to_numpy() <= level + 1e-12
    return float(table["time"].to_numpy()[below.argmax()]) if below.any() else np.inf


def number_at_risk(time, event, times, group=None) -> pd.DataFrame:
    """Count the patients still under observation.

    Parameters
    ----------
    time, event : array-like, shape (n,)
        As for :func:`kaplan_meier`.
    times : array-like of float
        Increasing days; 0 may be among them.
    group : array-like, shape (n,), optional
        Group of each patient.

    Returns
    -------
    DataFrame, index = group, columns = times
        Patients with ``time >= t``.
    """
    durations, _ = outcome(time, event, needs_event=False)
    names = _groups(time, group, len(durations))
    days = numbers(np.atleast_1d(np.asarray(times)), "times")
    counts = {
        name: (durations[names == name][:, None] >= days).sum(axis=0) for name in _sorted(names)
    }
    return pd.DataFrame.from_dict(counts, orient="index", columns=days)


def draw_curves(axes, time, event, group=None, ticks=(0, 365, 730, 1095, 1460, 1825)) -> None:
    """Draw survival curves with 95% bands and, under the axis, the patients at risk.

    Parameters
    ----------
    axes : matplotlib Axes
    time, event : array-like, shape (n,)
        As for :func:`kaplan_meier`.
    group : array-like, shape (n,), optional
        One curve per group, in sorted order; the lines under the axis have the same order.
    ticks : sequence of float
        Days; the curves end at the last.
    """
    durations, events = outcome(time, event, needs_event=False)
    names = _groups(time, group, len(durations))
    for name in _sorted(names):
        table = kaplan_meier(durations[names == name], events[names == name]).table
        shown = table[table["time"] <= ticks[-1]]
        if len(shown) < len(table):  # followed beyond the axis: draw up to its end
            shown = pd.concat([shown, shown.tail(1).assign(time=float(ticks[-1]))])
        (line,) = axes.step(shown["time"], shown["survival"], where="post", label=str(name))
        band = {"step": "post", "alpha": 0.2, "linewidth": 0, "color": line.get_color()}
        axes.fill_between(shown["time"], shown["low"], shown["high"], **band)
    at_risk = number_at_risk(durations, events, ticks, names)
    rows = "\n".join(map(str, at_risk.index))
    labels = ["\n".join([f"{day:g}", *map(str, at_risk[day])]) for day in at_risk.columns]
    axes.set_xticks(ticks, labels, fontsize=8)
    axes.annotate(
        f"days\n{rows}" if group is not None else "days\nat risk",
        (0, 0),
        xytext=(-24, -7),
        xycoords="axes fraction",
        textcoords="offset points",
        ha="right",
        va="top",
        fontsize=8,
    )
    axes.set(xlim=(0, ticks[-1]), ylim=(0, 1.02), ylabel="alive")


def logrank(time, event, group) -> TestResult:
    """Test whether the survival of two or more groups is the same (log-rank test, lifelines).

    Parameters
    ----------
    time, event : array-like, shape (n,)
        As for :func:`kaplan_meier`.
    group : array-like, shape (n,)
        Group of each patient; at least two groups.

    Returns
    -------
    TestResult
        Chi-squared statistic, degrees of freedom (groups - 1) and p value.

    Raises
    ------
    SurvivalError
        If the outcome is not valid, there is one group only, or a group is missing.
    """
    times, events = outcome(time, event)
    names = _groups(time, group, len(times))
    levels = _sorted(names)
    if len(levels) < 2:
        raise SurvivalError(f"the log-rank test needs two groups; all patients are in {levels[0]}")
    codes = np.array([levels.index(name) for name in names])
    result = multivariate_logrank_test(times, codes, events)
    return TestResult(float(result.test_statistic), len(levels) - 1, float(result.p_value))


class MeanDifference(NamedTuple):
    """Difference of two restricted mean survival times: second group minus first group.

    Attributes
    ----------
    difference, low, high : float
        Days, with the limits of the 95% interval.
    p : float
        Of the two-sided test of no difference (normal approximation).
    means : dict of str to float
        Restricted mean of either group, days; the first group comes first.
    """

    difference: float
    low: float
    high: float
    p: float
    means: dict


def rmst_difference(time, event, group, tau: float) -> MeanDifference:
    """Compare the mean survival time within `tau` days of two groups (Royston and Parmar 2013).

    The restricted mean is the area under the Kaplan-Meier curve up to `tau`. It needs no
    proportional hazards. Its variance is Greenwood's: ``sum_i A_i**2 d_i / (n_i (n_i - d_i))``,
    ``A_i`` the area right of the i-th event time.

    Parameters
    ----------
    time, event : array-like, shape (n,)
        As for :func:`kaplan_meier`.
    group : array-like, shape (n,)
        Two groups; the difference is that of the second in sorted order minus the first.
    tau : float
        Days; not after the last contact of either group.

    Raises
    ------
    SurvivalError
        If the outcome is not valid, there are not two groups, or `tau` lies beyond the follow-up
        of one of them.
    """
    times, events = outcome(time, event)
    names = _groups(time, group, len(times))
    levels = _sorted(names)
    if len(levels) != 2:
        raise SurvivalError(f"two groups are needed, not {len(levels)}: {levels}")
    tau = one_day(tau, "tau")
    means, variance = {}, 0.0
    for level in levels:
        chosen = names == level
        means[level], own = _restricted_mean(times[chosen], events[chosen], tau, level)
        variance += own
    difference = means[levels[1]] - means[levels[0]]
    if variance == 0:
        raise SurvivalError(f"neither group has an event before {tau:g} days")
    error = np.sqrt(variance)
    half = sps.norm.ppf(0.975) * error
    p = 2 * sps.norm.sf(abs(difference) / error)
    low, high = float(difference - half), float(difference + half)
    return MeanDifference(difference, low, high, float(p), means)


def _restricted_mean(times, events, tau, name) -> tuple[float, float]:
    """Return the area under the curve up to tau and its variance."""
    if times.max() < tau and not events[times == times.max()].all():
        raise SurvivalError(
            f"group {name!r} was followed for {times.max():g} days, less than tau = {tau:g}"
        )
    grid, at_risk, deaths = counts(times, events)
    survival = np.cumprod(1 - deaths / at_risk)
    edges = np.clip(np.r_[0, grid, np.inf], None, tau)
    areas = np.diff(edges) * np.r_[1, survival]
    right = areas[::-1].cumsum()[::-1][1:]  # area right of each time
    alive = at_risk - deaths
    share = np.divide(deaths, at_risk * alive, out=np.zeros(len(grid)), where=alive > 0)
    return float(areas.sum()), float((right**2 * share).sum())


def counts(times: np.ndarray, events: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the distinct times, the patients at risk just before them and the events at them."""
    grid, inverse, total = np.unique(times, return_inverse=True, return_counts=True)
    at_risk = total[::-1].cumsum()[::-1]
    return grid, at_risk, np.bincount(inverse, weights=events, minlength=len(grid))


def _groups(time, group, n: int) -> np.ndarray:
    """Return the group of each patient as an array of objects."""
    if group is None:
        return np.full(n, "all", dtype=object)
    same_rows(time=time, group=group)
    names = pd.Series(group).reset_index(drop=True)
    if len(names) != n:
        raise SurvivalError(f"group has {len(names)} values, time has {n}")
    if names.isna().any():
        raise SurvivalError(f"group is missing in {int(names.isna().sum())} rows")
    return names.to_numpy(dtype=object)


def _sorted(names: np.ndarray) -> list:
    """Return the distinct groups in order; in order of appearance if they cannot be sorted."""
    levels = list(dict.fromkeys(names))
    try:
        return sorted(levels)
    except TypeError:
        return levels
