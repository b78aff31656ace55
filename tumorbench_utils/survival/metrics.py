"""How good a prediction of survival is: concordance, time-dependent AUC, Brier score.

Risks point towards death: a higher risk means an earlier event. What censoring hides is made up
for by inverse probability of censoring weights (IPCW): a patient whose event was seen at t stands
for 1/G(t) patients, G(t) being the Kaplan-Meier probability of not yet being censored. G may be
estimated from other patients, those a model was trained on (`train`); then no time may lie where
those patients were no longer observed.
"""

import numpy as np
import pandas as pd
from scipy.integrate import trapezoid

from tumorbench_utils.checks import one_of
from tumorbench_utils.stats import Estimate
from tumorbench_utils.survival.curves import counts
from tumorbench_utils.survival.outcome import SurvivalError, beside, days, outcome, require


def _uncensored(at: np.ndarray, times, events, train=None) -> np.ndarray:
    """Return G: the probability of not being censored up to and including each of some times.

    At a tie the events come first: a patient who dies on the day when another is censored was no
    longer at risk of being censored. Raises where G is unknown or 0.
    """
    if train is not None:
        times, events = outcome(*train, needs_event=False)
    grid, at_risk, deaths = counts(times, events)
    at_risk = at_risk - deaths
    censored = counts(times, ~events)[2]
    step = np.divide(censored, at_risk, out=np.zeros(len(grid)), where=at_risk > 0)
    free = np.r_[1, np.cumprod(1 - step)][np.searchsorted(grid, at, side="right")]
    late = at[(free <= 1e-12) | (at > grid[-1])].min(initial=np.inf)
    known = f"patients were followed for {grid[-1]:g} days at most; stop earlier (smaller tau)"
    require(late == np.inf, f"no censoring weight is known at {late:g} days: {known}")
    return free


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
        Harrell [1]_ counts every pair once, which makes the result depend on the censoring. Uno
        [2]_ weights a pair by ``1/G(t)**2``, t the earlier time, which removes this dependence if
        censoring is independent of survival and of the risk.
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

    See Also
    --------
    lifelines.utils.concordance_index : Harrell's without tau, of predicted times: minus the risk.

    References
    ----------
    .. [1] Harrell et al. Evaluating the yield of medical tests. JAMA 1982.
    .. [2] Uno et al. On the C-statistics for evaluating overall adequacy of risk prediction
       procedures with censored survival data. Statistics in Medicine 2011.
    """
    one_of(method, "method", ("harrell", "uno"), error=SurvivalError)
    times, events, risks, earlier = _order(time, event, risk, tau)
    weights = np.ones(len(earlier))
    if method == "uno":
        weights = _uncensored(times[earlier], times, events, train) ** -2.0
    blocks = np.array_split(earlier, 1 + len(earlier) * len(times) // 2**22)  # bounds the memory
    sums = [[pair.sum(axis=1) for pair in _pairs(times, events, risks, rows)] for rows in blocks]
    pairs, right = np.concatenate(sums, axis=1) @ weights
    require(pairs, "no pair of patients is comparable: no time lies after an event")
    return float(right / pairs)


def _order(time, event, risk, tau) -> tuple[np.ndarray, ...]:
    """Return times, events, risks, and the rows that can be the earlier one of a pair."""
    times, events = outcome(time, event)
    limit = np.inf if tau is None else days(tau, "tau").item()
    return times, events, beside(time, risk, "risk"), np.flatnonzero(events & (times < limit))


def _pairs(times, events, risks, earlier) -> tuple[np.ndarray, np.ndarray]:
    """Return which patients each earlier one is comparable with, and the score of each pair."""
    start, own = times[earlier, None], risks[earlier, None]
    comparable = (times > start) | ((times == start) & ~events)
    return comparable, comparable * ((own > risks) + 0.5 * (own == risks))


def bootstrap_concordance(time, event, risk, tau=None, *, n=2000, seed=0) -> Estimate:
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
    times, events, risks, earlier = _order(time, event, risk, tau)
    rng = np.random.default_rng(seed)
    drawn = rng.multinomial(len(times), np.full(len(times), 1 / len(times)), size=n).astype(float)
    both = _pairs(times, events, risks, earlier)
    pairs, right = (((drawn[:, earlier] @ pair) * drawn).sum(axis=1) for pair in both)
    values = right[pairs > 0] / pairs[pairs > 0]
    return Estimate(value, *np.quantile(values, (0.025, 0.975)), "bootstrap")


def time_dependent_auc(time, event, risk, times, *, train=None) -> pd.Series:
    """Return the cumulative/dynamic AUC at given times [1]_ [2]_.

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

    See Also
    --------
    sksurv.metrics.cumulative_dynamic_auc : the same numbers (scikit-survival, GPL).

    References
    ----------
    .. [1] Uno et al. Evaluating prediction rules for t-year survivors. JASA 2007.
    .. [2] Hung and Chiang. Estimation methods for time-dependent AUC models with survival data.
       Canadian Journal of Statistics 2010.
    """
    durations, events, risks, _ = _order(time, event, risk, None)
    values = {}
    for day in days(times):
        case, control = events & (durations <= day), durations > day
        who = f"{case.sum()} patients with an event by then, {control.sum()} observed beyond"
        require(case.any() and control.any(), f"no AUC at {day:g} days: {who}")
        weights = 1 / _uncensored(durations[case], durations, events, train)
        others = np.sort(risks[control])
        wins = sum(np.searchsorted(others, risks[case], side=side) for side in ("left", "right"))
        values[day] = float(weights @ wins / (2 * weights.sum() * control.sum()))
    return pd.Series(values, name="auc").rename_axis("days")


def brier_score(time, event, survival, times, *, train=None) -> np.ndarray:
    """Return the Brier score of predicted survival probabilities at each time, see below."""
    durations, events = outcome(time, event, needs_event=False)
    horizon = days(times)
    rows = survival if np.ndim(survival) == 2 else [survival] * len(durations)  # one for everybody
    alive = beside(time, rows, "survival", ndim=2)
    if alive.shape[1] != len(horizon) or (np.abs(alive - 0.5) > 0.5 + 1e-9).any():
        found = f"{alive.shape[1]} columns, from {alive.min():g} to {alive.max():g}"
        raise SurvivalError(f"survival must hold {len(horizon)} columns of probabilities: {found}")
    dead = events[:, None] & (durations[:, None] <= horizon)
    seen = dead.any(axis=1)
    weight = np.zeros(len(durations))
    weight[seen] = 1 / _uncensored(durations[seen], durations, events, train)
    beyond = (durations[:, None] > horizon) / _uncensored(horizon, durations, events, train)
    return (alive**2 * dead * weight[:, None] + (1 - alive) ** 2 * beyond).mean(axis=0)


def integrated_brier(time, event, survival, times, *, train=None) -> float:
    """Return the mean Brier score of predicted survival over time [1]_.

    At each time t: the mean squared difference between the predicted survival and what came true,
    with weight ``1/G`` at their time for those who died by t, ``1/G(t)`` for those observed beyond
    t and 0 for those censored before. 0 is perfect; predicting 0.5 for everybody gives about 0.25.
    Between the given times the score is a straight line.

    Parameters
    ----------
    time, event : array-like, shape (n,)
        As for :func:`concordance`.
    survival : array-like, shape (n, len(times)) or (len(times),)
        Predicted probability of being alive at each time; one row for all patients alike.
    times : array-like of float
        Increasing days, at least two.
    train : (time, event), optional
        Patients from whom G is estimated; those scored if None.

    Raises
    ------
    SurvivalError
        If an input is not valid, a prediction is no probability, or G is unknown at a time.

    See Also
    --------
    sksurv.metrics.integrated_brier_score : the same numbers (scikit-survival, GPL).

    References
    ----------
    .. [1] Graf et al. Assessment and comparison of prognostic classification schemes for survival
       data. Statistics in Medicine 1999.
    """
    horizon = days(times)
    require(len(horizon) > 1, "an integrated Brier score needs at least two times")
    scores = brier_score(time, event, survival, horizon, train=train)
    return float(trapezoid(scores, horizon) / (horizon[-1] - horizon[0]))


def censored_label(time, event, horizon: float) -> pd.DataFrame:
    """Return the label "alive at `horizon`" with weights that make up for censoring.

    Dropping the patients censored before `horizon` (complete cases) keeps all early deaths but not
    all survivors, so that survival is underestimated. Inverse probability of censoring weights
    undo it: the deaths seen by then count ``1/G`` at their time, the patients observed to `horizon`
    ``1/G`` just before it, the censored ones 0.

    Parameters
    ----------
    time, event : array-like, shape (n,)
        As for :func:`concordance`.
    horizon : float
        Days, for example 730.

    Returns
    -------
    DataFrame
        ``label`` (Int64: 1 = alive at `horizon`, 0 = dead before, missing = censored before) and
        ``weight`` (0 where the label is missing). The index is that of `time` if it is a Series.

    Raises
    ------
    SurvivalError
        If an input is not valid or G is unknown at one of the times.
    """
    times, events = outcome(time, event, needs_event=False)
    day = days(horizon, "horizon").item()
    dead, alive = events & (times < day), times >= day
    known = dead | alive
    at = np.where(alive, np.nextafter(day, 0), times)[known]
    weight = np.zeros(len(times))
    weight[known] = 1 / _uncensored(at, times, events)
    label = pd.Series(alive, dtype="Int64").where(known).array
    index = time.index if isinstance(time, pd.Series) else None
    return pd.DataFrame({"label": label, "weight": weight}, index=index)
