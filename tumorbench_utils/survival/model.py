"""A Cox model for more features than patients: principal components, then a ridge."""

import numpy as np

from tumorbench_utils.survival.outcome import require
from tumorbench_utils.survival.ridge import RiskSets, fit_ridge

#: Ridge penalties that are tried, in events, the largest first.
PENALTIES = np.logspace(4, 0, 9)

#: Principal components of an embedding that enter the model.
COMPONENTS = 32

#: Penalty of a clinical covariate, in events: keeps a level that no training patient died with
#: finite and changes little else.
CLINICAL_PENALTY = 1.0

#: Inner folds in which the penalty is chosen.
FOLDS = 5


class Standardiser:
    """Mean and standard deviation of training patients; a constant column becomes 0."""

    def __init__(self, x: np.ndarray):
        # powers of two leave every digit as it is and keep squares from over- or underflowing
        largest = np.abs(x).max(axis=0)
        exponent = np.frexp(largest)[1]
        self.mean, spread = x.mean(axis=0), np.ldexp(np.ldexp(x, -exponent).std(axis=0), exponent)
        constant = spread <= 1e-9 * largest
        self.scale = np.where(constant, 0, 1 / np.where(constant, 1, spread))

    def __call__(self, x: np.ndarray) -> np.ndarray:
        """Return standardised columns."""
        return (x - self.mean) * self.scale


class Components:
    """Leading principal components of standardised features, learnt on training patients.

    All components are divided by the standard deviation of the first, so that the ridge presses
    hardest on those that vary least.
    """

    def __init__(self, x: np.ndarray):
        self.standardise = Standardiser(x)
        z = self.standardise(x)
        require(z.any(), "every feature of X is constant among the training patients")
        # fewer patients than features: the eigenvectors of the small product matrix will do
        wide = z.shape[0] < z.shape[1]
        values, vectors = np.linalg.eigh(z @ z.T if wide else z.T @ z)
        order = np.argsort(values)[::-1][:COMPONENTS]
        order = order[values[order] > 1e-9 * values.max()]
        first = np.sqrt(values[order[0]] / len(z))
        vectors = vectors[:, order]
        self.axes = (z.T @ vectors / np.sqrt(values[order]) if wide else vectors) / first

    def __call__(self, x: np.ndarray) -> np.ndarray:
        """Return the components of patients, shape (n, at most 32)."""
        return self.standardise(x) @ self.axes


def patient_folds(events: np.ndarray, patients: np.ndarray, seed: int) -> np.ndarray:
    """Return the fold of each row; the patients with an event are shared out."""
    rank = np.argsort(np.argsort(patients))
    order = np.random.default_rng(seed).permutation(len(rank))
    order = order[np.argsort(~events[np.argsort(patients)][order], kind="stable")]
    fold = np.empty(len(rank), dtype=int)
    fold[order] = np.arange(len(rank)) % FOLDS
    return fold[rank]


class RidgeCox:
    """Cox model of clinical covariates and features with a ridge on the features.

    The penalty of the features is the one with the largest cross-validated partial likelihood
    (Verweij and van Houwelingen 1993) in folds of the training patients.
    The clinical covariates carry the fixed small penalty :data:`CLINICAL_PENALTY`.

    Parameters
    ----------
    features : ndarray, shape (n, p)
        Principal components; p may be 0.
    covariates : ndarray, shape (n, k)
        k may be 0.
    times, events, patients : ndarray, shape (n,)
        One row a patient; the folds go by the order of `patients`, not by that of the rows.
    seed : int
        Of the folds.
    """

    def __init__(self, features, covariates, times, events, patients, seed: int):
        self.standardise = Standardiser(covariates)
        x = np.hstack([self.standardise(covariates), features])
        self.sizes = covariates.shape[1], features.shape[1]
        self.sets, self.penalty = RiskSets(times, events), np.nan
        if features.shape[1]:
            self.penalty = self._choose(x, times, events, patient_folds(events, patients, seed))
        self.coefficients = fit_ridge(self.sets, x, self._weights(self.penalty))
        self.train_risk = x @ self.coefficients

    def _weights(self, penalty: float) -> np.ndarray:
        return np.repeat([CLINICAL_PENALTY, penalty], self.sizes)

    def _choose(self, x, times, events, fold) -> float:
        few = f"{events.sum()} training patients with an event are too few"
        require(events.sum() >= FOLDS, f"{few} to choose a penalty in {FOLDS} folds")
        gain = np.zeros(len(PENALTIES))
        for inner in (np.flatnonzero(fold != k) for k in range(FOLDS)):
            part, beta = RiskSets(times[inner], events[inner]), None
            for i, penalty in enumerate(PENALTIES):
                beta = fit_ridge(part, x[inner], self._weights(penalty), beta)
                risk = x @ beta
                gain[i] += self.sets.log_likelihood(risk) - part.log_likelihood(risk[inner])
        return float(PENALTIES[gain.argmax()])

    def risk(self, features: np.ndarray, covariates: np.ndarray) -> np.ndarray:
        """Return log hazards; higher means an earlier event."""
        return np.hstack([self.standardise(covariates), features]) @ self.coefficients

    def survival(self, risk: np.ndarray, days: np.ndarray) -> np.ndarray:
        """Return the survival (n, k) of patients with log hazards `risk` (n,) at k days."""
        return self.sets.survival(self.train_risk, risk, days)
