"""Cox regression with a ridge penalty, fast enough for cross-validation over many models.

lifelines fits one model in tens of milliseconds; a cross-validated table needs tens of thousands
of fits. This is the same Newton method with Efron's ties, every sum over risk sets a cumulative
sum. Penalties are counted in events: the penalised log partial likelihood is
``l(b) - sum_j penalty_j b_j**2 / 2``, and a standardised covariate carries about one unit of
information per event, so that a penalty of 1 weighs as much as one event.
"""

import numpy as np

from tumorbench_utils.survival.outcome import SurvivalError


def _from_zero(values: np.ndarray) -> np.ndarray:
    """Return the cumulative sums along the first axis, with a leading 0."""
    sums = np.zeros((len(values) + 1, *values.shape[1:]))
    np.cumsum(values, axis=0, out=sums[1:])
    return sums


class RiskSets:
    """The order of events and risk sets of one sample, worked out once for many fits.

    Parameters
    ----------
    times : ndarray, shape (n,)
    events : ndarray of bool, shape (n,)
        At least one event.
    """

    def __init__(self, times: np.ndarray, events: np.ndarray):
        self.order = np.lexsort((~events, times))  # by time, events before censorings
        ordered, seen = times[self.order], events[self.order]
        self.event_rows = np.flatnonzero(seen)
        at = ordered[self.event_rows]
        #: first row of the risk set of each event, and Efron's share of its tied deaths
        self.start = np.searchsorted(ordered, at, side="left")
        first = np.searchsorted(at, at, side="left")
        self.first, self.last = first, np.searchsorted(at, at, side="right")
        self.share = (np.arange(len(at)) - first) / (self.last - first)
        #: number of events up to and including each row's time
        self.passed = np.searchsorted(at, ordered, side="right")
        self.times, self.seen = ordered, seen

    def _denominators(self, weight: np.ndarray) -> np.ndarray:
        """Return Efron's sum of hazards over each event's risk set."""
        at_risk = weight[::-1].cumsum()[::-1][self.start]
        tied = _from_zero(weight[self.event_rows])
        return at_risk - self.share * (tied[self.last] - tied[self.first])

    def log_likelihood(self, risk: np.ndarray) -> float:
        """Return the log partial likelihood of log hazards, shape (n,), in the sample's order."""
        return self._ordered_likelihood(risk[self.order])

    def _ordered_likelihood(self, risk: np.ndarray) -> float:
        shift = risk.max()
        sums = self._denominators(np.exp(risk - shift))
        return float((risk[self.event_rows] - shift - np.log(sums)).sum())

    def derivatives(self, x: np.ndarray, risk: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return gradient (p,) and information (p, p); `x` and `risk` are in the sets' order."""
        weight = np.exp(risk - risk.max())
        inverse = 1 / self._denominators(weight)
        # sum over events of 1/phi while a row is at risk, less the share of its own ties
        total = _from_zero(inverse)[self.passed]
        shared = _from_zero(self.share * inverse)
        total[self.event_rows] -= shared[self.last] - shared[self.first]
        load = weight * total
        wx = weight[:, None] * x
        sums = wx[::-1].cumsum(axis=0)[::-1][self.start]
        tied = _from_zero(wx[self.event_rows])
        means = sums - self.share[:, None] * (tied[self.last] - tied[self.first])
        means *= inverse[:, None]
        gradient = (self.seen - load) @ x
        return gradient, (x * load[:, None]).T @ x - means.T @ means

    def survival(self, risk: np.ndarray, new: np.ndarray, days: np.ndarray) -> np.ndarray:
        """Return the survival that Breslow's cumulative hazard predicts for other patients.

        Parameters
        ----------
        risk : ndarray, shape (n,)
            Log hazards in the sample's order, from which the baseline is estimated.
        new : ndarray, shape (m,)
            Log hazards of the patients to predict.
        days : ndarray, shape (k,)
            Not beyond the last time of the sample.

        Returns
        -------
        ndarray, shape (m, k)
        """
        risk = risk[self.order]
        shift = risk.max()
        steps = 1 / np.exp(risk - shift)[::-1].cumsum()[::-1][self.start]
        hazard = np.r_[0, steps.cumsum() * np.exp(-shift)]
        at = np.searchsorted(self.times[self.event_rows], days, side="right")
        return np.exp(-np.exp(new)[:, None] * hazard[at])


def fit_ridge(
    sets: RiskSets, x: np.ndarray, penalty: np.ndarray, start: np.ndarray | None = None
) -> np.ndarray:
    """Return the coefficients that maximise the penalised partial likelihood.

    Parameters
    ----------
    sets : RiskSets
        Of the sample.
    x : ndarray, shape (n, p)
        Covariates in the sample's order; centred ones keep the exponentials small.
    penalty : ndarray, shape (p,)
        Weight of the penalty of each covariate, in events.
    start : ndarray, shape (p,), optional
        Coefficients to start from, for example those of a neighbouring penalty.

    Raises
    ------
    SurvivalError
        If the fit does not converge, as with an unpenalised covariate that separates the events.
    """
    x = x[sets.order]

    def objective(beta):
        return sets._ordered_likelihood(x @ beta) - 0.5 * (penalty * beta) @ beta

    beta = np.zeros(x.shape[1]) if start is None else start
    with np.errstate(all="ignore"):  # a fit that runs away overflows, and is refused below
        value = objective(beta)
        for _ in range(50):
            gradient, information = sets.derivatives(x, x @ beta)
            gradient -= penalty * beta
            step = np.linalg.solve(information + np.diag(penalty), gradient)
            if gradient @ step < 1e-9:
                return beta + step
            for _ in range(30):  # halve the step until the likelihood rises
                new = objective(beta + step)
                if new >= value:
                    break
                step /= 2
            beta, value = beta + step, new
    raise SurvivalError("the ridge Cox fit did not converge; use a larger penalty")
