"""How good a prediction of survival is: concordance, time-dependent AUC, Brier score, calibration.

Risks point towards death: a higher risk means an earlier event. What censoring hides is made up
for by inverse probability of censoring weights (IPCW): a patient whose event was seen at t stands
for 1/G(t) patients, G(t) being the Kaplan-Meier probability of not yet being censored. G may be
estimated from other patients, those a model was trained on (`train`); then no time may lie where
those patients were no longer observed.
"""

from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy.integrate import trapezoid

from tumorbench_utils.settings import unknown
from tumorbench_utils.survival.checks import (
    SurvivalError,
    horizons,
    numbers,
    one_day,
    outcome,
    same_rows,
)
from tumorbench_utils.survival.curves import counts, kaplan_meier

METHODS = ("harrell", "uno")


class _Censoring:
    """Kaplan-Meier estimate of the probability of not being censored up to and including t.

    At a tie the events come first: a patient who dies on the day when another is censored was no
    longer at risk of being censored.
    """

    def __init__(self, times: np.ndarray, events: np.ndarray):
        self.grid, at_risk, deaths = counts(times, events)
        at_risk = at_risk - deaths
        censored = counts(times, ~events)[2]
        step = np.divide(censored, at_risk, out=np.zeros(len(self.grid)), where=at_risk > 0)
        self.free = np.cumprod(1 - step)

    def __call__(self, days: np.ndarray) -> np.ndarray:
        """Return the probability at each time; raise where it is unknown or 0."""
        at = np.searchsorted(self.grid, days, side="right")
        free = np.r_[1, self.free][at]
        bad = (free <= 1e-12) | (days > self.grid[-1])
        if bad.any():
            raise SurvivalError(
                f"the censoring weights are not defined at {days[bad].min():g} days: the patients "
                f"they are estimated from were followed for {self.grid[-1]:g} days at most; stop "
                "earlier (smaller tau or times)"
            )
        return free


def _censoring(times, events, train) -> _Censoring:
    if train is None:
        return _Censoring(times, events)
    try:
        train_time, train_event = train
    except (TypeError, ValueError):
        raise SurvivalError("train must be a pair: (time, event)") from None
    return _Censoring(*outcome(train_time, train_event, needs_event=False, where="train"))


def concordance(time, event, risk, method="harrell", tau=None, *, train=None) -> float:
    """Return the share of comparable pairs of patients that a risk puts in the right order.

    A pair is comparable if the one with the shorter time had an event. It counts 1 if that one
    has the higher risk, 0.5 if the risks are equal. Of two events at the same time neither came
    first: no pair; an event and a censoring at the same time are one.

    Parameters
    ----------
    time, event : array-like, shape (n,)
        Days, above 0; 1 = event seen, 0 = censored.
    risk : array-like, shape (n,)
        Higher means an earlier event.
    method : {"harrell", "uno"}
        Harrell et al. (1982) counts every pair once, which makes the result depend on the
        censoring. Uno et al. (2011) weights a pair by ``1/G(t)**2``, t the earlier time, which
        removes this dependence if censoring is independent of survival and of the risk.
    tau : float, optional
        Only pairs whose earlier time is below `tau` days count. Compare models with the same one.
    train : (time, event), optional
        Patients from whom G is estimated; those scored if None. Used by ``"uno"`` only.

    Returns
    -------
    float
        1 for a perfect order, 0.5 for chance, 0 for a reversed order.

    Raises
    ------
    SurvivalError
        If an input is not valid, no pair is comparable, or G is unknown at one of the times.
    """
    if method not in METHODS:
        raise SurvivalError(unknown("method", method, METHODS))
    same_rows(time=time, risk=risk)
    times, events = outcome(time, event)
    risks = numbers(risk, "risk", len(times))
    limit = np.inf if tau is None else one_day(tau, "tau")
    earlier = np.flatnonzero(events & (times < limit))
    weights = np.ones(len(earlier))
    if method == "uno":
        weights = _censoring(times, events, train)(times[earlier]) ** -2.0
    right, pairs = _count_pairs(times, events, risks, earlier)
    if not pairs.any():
        raise SurvivalError("no pair of patients is comparable: no time lies after an event")
    return float(weights @ right / (weights @ pairs))


def _count_pairs(times, events, risks, earlier) -> tuple[np.ndarray, np.ndarray]:
    """Return per earlier patient the pairs in the right order and all pairs."""
    right, pairs = np.zeros(len(earlier)), np.zeros(len(earlier))
    size = max(1, 2**22 // len(times))  # bounds the memory
    for start in range(0, len(earlier), size):
        block = slice(start, start + size)
        comparable, score = _pairs(times, events, risks, earlier[block])
        right[block], pairs[block] = score.sum(axis=1), comparable.sum(axis=1)
    return right, pairs


def _pairs(times, events, risks, earlier) -> tuple[np.ndarray, np.ndarray]:
    """Return which patients each earlier one is comparable with, and the score of each pair."""
    start = times[earlier, None]
    comparable = (times > start) | ((times == start) & ~events)
    own = risks[earlier, None]
    return comparable, comparable * ((own > risks) + 0.5 * (own == risks))


class Concordance(NamedTuple):
    """A concordance and its 95% interval."""

    value: float
    low: float
    high: float


def bootstrap_concordance(time, event, risk, tau=None, *, n=2000, seed=0) -> Concordance:
    """Return Harrell's concordance of a fixed risk with the percentile interval of a bootstrap.

    Patients are drawn with replacement; a patient is never paired with a copy of itself.

    Parameters
    ----------
    time, event, risk, tau
        As for :func:`concordance`; one row per patient.
    n : int
        Number of bootstrap samples.
    seed : int

    Raises
    ------
    SurvivalError
        As :func:`concordance`.
    """
    value = concordance(time, event, risk, tau=tau)
    times, events = outcome(time, event)
    risks = numbers(risk, "risk", len(times))
    earlier = np.flatnonzero(events & (times < (np.inf if tau is None else tau)))
    comparable, score = _pairs(times, events, risks, earlier)
    rng = np.random.default_rng(seed)
    drawn = rng.multinomial(len(times), np.full(len(times), 1 / len(times)), size=n).astype(float)
    pairs = ((drawn[:, earlier] @ comparable) * drawn).sum(axis=1)
    right = ((drawn[:, earlier] @ score) * drawn).sum(axis=1)
    values = right[pairs > 0] / pairs[pairs > 0]
    low, high = np.quantile(values, (0.025, 0.975))
    return Concordance(value, float(low), float(high))


def time_dependent_auc(time, event, risk, times, *, train=None) -> pd.Series:
    """Return the cumulative/dynamic AUC at given times (Uno et al. 2007; Hung and Chiang 2010).

    At time t the cases are the patients whose event was seen by t, weighted by ``1/G`` at their
    time; the controls are those observed beyond t. The AUC is the weighted share of pairs of a
    case and a control in which the case has the higher risk (0.5 for equal risks).

    Parameters
    ----------
    time, event : array-like, shape (n,)
        As for :func:`concordance`.
    risk : array-like, shape (n,)
        Higher means an earlier event.
    times : float or array-like of float
        Increasing days.
    train : (time, event), optional
        Patients from whom G is estimated; those scored if None.

    Returns
    -------
    Series, index = times

    Raises
    ------
    SurvivalError
        If an input is not valid, a time has no case or no control, or G is unknown at the time of
        a case.
    """
    same_rows(time=time, risk=risk)
    durations, events = outcome(time, event)
    days = horizons(times)
    risks = numbers(risk, "risk", len(durations))
    censoring = _censoring(durations, events, train)
    values = [_auc(durations, events, risks, day, censoring) for day in days]
    return pd.Series(values, index=pd.Index(days, name="days"), name="auc")


def _auc(durations, events, risks, day, censoring) -> float:
    case, control = events & (durations <= day), durations > day
    if not case.any() or not control.any():
        raise SurvivalError(
            f"no AUC at {day:g} days: {case.sum()} patients with an event by then, "
            f"{control.sum()} observed beyond"
        )
    weights = 1 / censoring(durations[case])
    others = np.sort(risks[control])
    below = np.searchsorted(others, risks[case], side="left")
    not_above = np.searchsorted(others, risks[case], side="right")
    return float(weights @ (below + not_above) / (2 * weights.sum() * control.sum()))


def _probabilities(survival, rows: int, columns: int) -> np.ndarray:
    """Return predicted survival of shape (rows, columns); one row stands for all patients."""
    values = np.asarray(survival)
    if values.dtype.kind not in "iuf":
        raise SurvivalError(f"survival must hold numbers, not {values.dtype}")
    if values.shape == (columns,):
        values = np.tile(values, (rows, 1))
    if values.shape == (rows,) and columns == 1:
        values = values[:, None]
    if values.shape != (rows, columns):
        raise SurvivalError(
            f"survival has the shape {values.shape}; {rows} patients and {columns} times need "
            f"{(rows, columns)}"
        )
    if not ((values > -1e-9) & (values < 1 + 1e-9)).all():
        raise SurvivalError("survival must hold probabilities between 0 and 1, without gaps")
    return values


def brier_score(time, event, survival, times, *, train=None) -> pd.Series:
    """Return the Brier score of predicted survival probabilities (Graf et al. 1999).

    The mean squared difference between the predicted survival at t and what came true, with
    weight ``1/G`` at their time for those who died by t, ``1/G(t)`` for those observed beyond t and
    0 for those censored before. 0 is perfect; predicting 0.5 for everybody gives about 0.25.

    Parameters
    ----------
    time, event : array-like, shape (n,)
        As for :func:`concordance`.
    survival : array-like, shape (n, len(times)) or (len(times),)
        Predicted probability of being alive at each time; one row for all patients alike.
    times : float or array-like of float
        Increasing days.
    train : (time, event), optional
        Patients from whom G is estimated; those scored if None.

    Returns
    -------
    Series, index = times

    Raises
    ------
    SurvivalError
        If an input is not valid, a prediction is no probability, or G is unknown at a time.
    """
    durations, events = outcome(time, event, needs_event=False)
    days = horizons(times)
    alive = _probabilities(survival, len(durations), len(days))
    censoring = _censoring(durations, events, train)
    dead = events[:, None] & (durations[:, None] <= days)
    seen = dead.any(axis=1)
    weight = np.zeros(len(durations))
    weight[seen] = 1 / censoring(durations[seen])
    beyond = (durations[:, None] > days) / censoring(days)
    scores = (alive**2 * dead * weight[:, None] + (1 - alive) ** 2 * beyond).mean(axis=0)
    return pd.Series(scores, index=pd.Index(days, name="days"), name="brier")


def integrated_brier(time, event, survival, times, *, train=None) -> float:
    """Return the mean of :func:`brier_score` over time (trapezoids between the given times).

    Parameters
    ----------
    time, event, survival, times, train
        As for :func:`brier_score`; at least two times.

    Raises
    ------
    SurvivalError
        As :func:`brier_score`, and for fewer than two times.
    """
    days = horizons(times)
    if len(days) < 2:
        raise SurvivalError("an integrated Brier score needs at least two times")
    scores = brier_score(time, event, survival, days, train=train).to_numpy()
    return float(trapezoid(scores, days) / (days[-1] - days[0]))


def calibration(time, event, survival, days: float, bins: int = 5) -> pd.DataFrame:
    """Compare predicted survival at one time with what was observed, in groups of patients.

    Parameters
    ----------
    time, event : array-like, shape (n,)
        As for :func:`concordance`.
    survival : array-like, shape (n,)
        Predicted probability of being alive at `days`.
    days : float
        For example 365 or 730.
    bins : int
        Groups of about equal size, by predicted survival; equal predictions stay together.

    Returns
    -------
    DataFrame
        One row per group, lowest survival first: ``predicted`` (mean), ``observed`` (Kaplan-Meier
        at `days`), ``low``, ``high`` (its 95% interval), ``n``, ``events`` (by `days`). A group
        none of whom was followed that long has missing ``observed``, ``low`` and ``high``.

    Raises
    ------
    SurvivalError
        If an input is not valid or there are fewer patients than groups.
    """
    same_rows(time=time, survival=survival)
    times, events = outcome(time, event, needs_event=False)
    days = one_day(days, "days")
    predicted = _probabilities(numbers(survival, "survival", len(times)), len(times), 1)[:, 0]
    if not 1 <= bins <= len(times):
        raise SurvivalError(f"{len(times)} patients cannot be put into {bins} groups")
    cuts = np.unique(np.quantile(predicted, np.arange(1, bins) / bins))
    group = np.searchsorted(cuts, predicted, side="left")
    rows = []
    for g in np.unique(group):
        own = group == g
        row = {"predicted": predicted[own].mean(), "n": int(own.sum())}
        row["events"] = int((events[own] & (times[own] <= days)).sum())
        curve = kaplan_meier(times[own], events[own]).table
        line = curve[curve["time"] <= days].iloc[-1]
        known = curve["time"].iloc[-1] >= days or curve["survival"].iloc[-1] == 0
        row |= dict(
            zip(("observed", "low", "high"), line[["survival", "low", "high"]], strict=True)
        )
        rows.append(row if known else row | {"observed": None, "low": None, "high": None})
    return pd.DataFrame(rows).astype({"observed": float, "low": float, "high": float})[
        ["predicted", "observed", "low", "high", "n", "events"]
    ]


def censored_label(time, event, days: float, *, train=None) -> pd.DataFrame:
    """Return the label "alive at `days`" with weights that make up for censoring.

    Dropping the patients censored before `days` (complete cases) keeps all early deaths but not
    all survivors, so that survival is underestimated. Inverse probability of censoring weights
    undo it: the deaths seen by `days` count ``1/G`` at their time, the patients observed to `days`
    ``1/G`` just before it, the censored ones 0.

    Parameters
    ----------
    time, event : array-like, shape (n,)
        As for :func:`concordance`.
    days : float
        Horizon, for example 730.
    train : (time, event), optional
        Patients from whom G is estimated; those labelled if None.

    Returns
    -------
    DataFrame
        ``label`` (Int64: 1 = alive at `days`, 0 = dead before, missing = censored before) and
        ``weight`` (0 where the label is missing). The index is that of `time` if it is a Series.

    Raises
    ------
    SurvivalError
        If an input is not valid or G is unknown at one of the times.
    """
    times, events = outcome(time, event, needs_event=False)
    days = one_day(days, "days")
    censoring = _censoring(times, events, train)
    dead, alive = events & (times < days), times >= days
    weight = np.zeros(len(times))
    weight[dead] = 1 / censoring(times[dead])
    if alive.any():
        weight[alive] = 1 / censoring(np.array([np.nextafter(days, 0)]))
    label = pd.array(np.where(alive, 1, 0), dtype="Int64")
    label[~dead & ~alive] = pd.NA
    index = time.index if isinstance(time, pd.Series) else None
    return pd.DataFrame({"label": label, "weight": weight}, index=index)
