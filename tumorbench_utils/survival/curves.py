"""Curves without a model: Kaplan-Meier, patients at risk, restricted mean survival."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from lifelines import KaplanMeierFitter
from scipy import stats as sps

from tumorbench_utils.checks import aligned, numbers
from tumorbench_utils.stats import Estimate
from tumorbench_utils.survival.outcome import SurvivalError, outcome, require


@dataclass(frozen=True, eq=False)
class KaplanMeier:
    """A survival curve as :func:`kaplan_meier` estimates it.

    Attributes
    ----------
    table : DataFrame
        One row per distinct time, from 0 on, with the columns ``time`` (days), ``survival``,
        ``low``, ``high`` (its 95% interval) and ``at_risk`` (patients under observation just
        before).
    """

    table: pd.DataFrame

    @property
    def median(self) -> float:
        """First time at which the survival is 0.5 or less, days; ``inf`` if it stays above."""
        return self._half("survival")

    @property
    def median_interval(self) -> tuple[float, float]:
        """First times at which the limits are 0.5 or less; ``inf`` for one that stays above."""
        return self._half("low"), self._half("high")

    def _half(self, column: str) -> float:
        # a product of fractions that is 1/2 in exact arithmetic may come out an ulp above it
        below = self.table[column].to_numpy() <= 0.5 + 1e-12
        return float(self.table["time"][below.argmax()]) if below.any() else np.inf

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
        asked = numbers(np.atleast_1d(days), "days", error=SurvivalError)
        time, survival = self.table["time"].to_numpy(), self.table["survival"].to_numpy()
        if (asked < 0).any() or (survival[-1] > 0 and (asked > time[-1]).any()):
            known = f"from 0 to the last contact at {time[-1]:g} days"
            raise SurvivalError(f"the survival at {asked.tolist()} days is not known, only {known}")
        values = survival[np.searchsorted(time, asked, side="right") - 1]
        return float(values[0]) if np.ndim(days) == 0 else values


def kaplan_meier(time, event) -> KaplanMeier:
    """Estimate a survival curve [1]_ with lifelines, its times, events and rows checked.

    The intervals are those of Greenwood's variance on the log-minus-log scale [2]_, which stay
    between 0 and 1. Those of the median invert the limits of the curve [3]_. Before the first event
    and after the survival has reached 0 the limits are the estimate itself: the data say nothing
    about the uncertainty there.

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

    See Also
    --------
    lifelines.KaplanMeierFitter : gives the same numbers.

    References
    ----------
    .. [1] Kaplan and Meier. Nonparametric estimation from incomplete observations. JASA 1958.
    .. [2] Kalbfleisch and Prentice. The statistical analysis of failure time data. Wiley 1980.
    .. [3] Brookmeyer and Crowley. A confidence interval for the median survival time. Biometrics
       1982.
    """
    fit = KaplanMeierFitter().fit(*outcome(time, event, needs_event=False))
    table = pd.concat([fit.survival_function_, fit.confidence_interval_], axis=1)
    table = table.set_axis(["survival", "low", "high"], axis=1)
    table["at_risk"] = fit.event_table["at_risk"].astype(int)
    return KaplanMeier(table.rename_axis("time").reset_index())


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

    See Also
    --------
    lifelines.plotting.add_at_risk_counts
    """
    times, events = outcome(time, event, needs_event=False)
    group = ["at risk"] * len(times) if group is None else group
    names = np.asarray(aligned(time, group, "group", error=SurvivalError))
    for name in np.unique(names):
        table = kaplan_meier(times[names == name], events[names == name]).table
        (line,) = axes.step(table["time"], table["survival"], where="post", label=str(name))
        band = {"step": "post", "alpha": 0.2, "linewidth": 0, "color": line.get_color()}
        axes.fill_between(table["time"], table["low"], table["high"], **band)
    at_risk = {day: pd.Series(times >= day).groupby(names).sum() for day in ticks}
    labels = ["\n".join([f"{day:g}", *map(str, at_risk[day])]) for day in ticks]
    axes.set_xticks(ticks, labels, fontsize=8)
    style = {"ha": "right", "va": "top", "fontsize": 8, "textcoords": "offset points"}
    rows = "\n".join(["days", *map(str, np.unique(names))])
    axes.annotate(rows, (0, 0), xytext=(-24, -7), xycoords="axes fraction", **style)
    axes.set(xlim=(0, ticks[-1]), ylim=(0, 1.02), ylabel="alive")


def rmst_difference(time, event, group, tau: float) -> Estimate:
    """Return by how many days the mean survival time within `tau` days of two groups differs.

    The restricted mean is the area under the Kaplan-Meier curve up to `tau` [1]_. It needs no
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

    Returns
    -------
    Estimate
        Days, with the 95% interval.

    Raises
    ------
    SurvivalError
        If the outcome is not valid, there are not two groups, or `tau` lies beyond the follow-up
        of one of them.

    See Also
    --------
    lifelines.utils.restricted_mean_survival_time : the mean of one curve.

    References
    ----------
    .. [1] Royston and Parmar. Restricted mean survival time: an alternative to the hazard ratio.
       BMC Medical Research Methodology 2013.
    """
    times, events = outcome(time, event)
    names = np.asarray(aligned(time, group, "group", error=SurvivalError))
    levels = np.unique(names)
    require(len(levels) == 2, f"two groups are needed, not {len(levels)}: {levels.tolist()}")
    means, variances = zip(*(_rmst(times, events, names == g, tau, g) for g in levels), strict=True)
    half = sps.norm.ppf(0.975) * np.sqrt(sum(variances))
    require(half > 0, f"neither group has an event before {tau:g} days")
    difference = means[1] - means[0]
    return Estimate(difference, difference - half, difference + half, "Greenwood")


def _rmst(times, events, own, tau, name) -> tuple[float, float]:
    """Return the area under the curve of one group up to tau, and its variance."""
    times, events = times[own], events[own]
    if times.max() < tau and not events[times == times.max()].all():
        followed = f"followed for {times.max():g} days, less than tau = {tau:g}"
        raise SurvivalError(f"group {str(name)!r} was {followed}")
    grid, at_risk, deaths = counts(times, events)
    survival = np.cumprod(1 - deaths / at_risk)
    areas = np.diff(np.clip(np.r_[0, grid, np.inf], None, tau)) * np.r_[1, survival]
    right = areas[::-1].cumsum()[::-1][1:]  # area right of each time
    alive = at_risk - deaths
    share = np.divide(deaths, at_risk * alive, out=np.zeros(len(grid)), where=alive > 0)
    return float(areas.sum()), float((right**2 * share).sum())


def counts(times: np.ndarray, events: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the distinct times, the patients at risk just before them and the events at them."""
    grid, inverse, total = np.unique(times, return_inverse=True, return_counts=True)
    at_risk = total[::-1].cumsum()[::-1]
    return grid, at_risk, np.bincount(inverse, weights=events, minlength=len(grid))
