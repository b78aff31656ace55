"""Cross-validated survival prediction from an embedding, clinical covariates, or both."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from threadpoolctl import threadpool_limits

from tumorbench_utils.settings import unknown
from tumorbench_utils.splits import Split, grouped_splits
from tumorbench_utils.stats import corrected_interval
from tumorbench_utils.survival.checks import SurvivalError, one_day, outcome, same_rows
from tumorbench_utils.survival.cox import design
from tumorbench_utils.survival.curves import counts
from tumorbench_utils.survival.metrics import (
    concordance,
    integrated_brier,
    time_dependent_auc,
)
from tumorbench_utils.survival.model import Components, RidgeCox

#: Horizons of the time-dependent AUC and of the predicted survival, days: one, two, three years.
HORIZONS = (365, 730, 1095)

EMBEDDING, CLINICAL, BOTH = "embedding", "clinical", "clinical + embedding"
KAPLAN_MEIER = "Kaplan-Meier"


@dataclass(frozen=True, eq=False)
class SurvivalResult:
    """What :func:`evaluate` found.

    Attributes
    ----------
    scores : DataFrame
        ``split, model, metric, value``: ``harrell`` and ``uno`` (concordance up to `tau`),
        ``auc_365``, ``auc_730``, ``auc_1095`` (time-dependent AUC) and ``brier`` (integrated up to
        `tau`; lower is better), on the test patients of each split. The model
        ``"Kaplan-Meier"`` predicts the same curve for everybody: the Brier score to beat.
    predictions : DataFrame
        ``split, row, model, risk, high_risk, survival_365, ...`` of every test patient: `row` is
        its position, `risk` the log hazard, `high_risk` whether it lies above the median of the
        training patients, ``survival_365`` the predicted survival at 365 days.
    chosen : DataFrame
        ``split, model, penalty``: the ridge penalty that the training patients chose.
    n, events : int
        Patients analysed, and events among them.
    missing : Series, index = covariates
        Rows in which each covariate is missing.
    left_out : int
        Rows left out because a covariate is missing.
    tau : float
        Days; shared by all models and splits.
    n_train, n_test : float
        Mean number of patients trained and tested on.
    skipped : list of dict
        ``metric, reason``: measures that some split has no patients for.
    """

    scores: pd.DataFrame
    predictions: pd.DataFrame
    chosen: pd.DataFrame
    n: int
    events: int
    missing: pd.Series
    left_out: int
    tau: float
    n_train: float
    n_test: float
    skipped: list

    def _values(self, model: str, metric: str) -> np.ndarray:
        known = self.scores["model"] + ": " + self.scores["metric"]
        asked = f"{model}: {metric}"
        if not known.eq(asked).any():
            raise SurvivalError(unknown("score", asked, known.unique()))
        return self.scores.loc[known.eq(asked), "value"].to_numpy()

    def _estimate(self, values: np.ndarray) -> tuple[float, float, float]:
        low, high = corrected_interval(values, self.n_train, self.n_test)
        return float(values.mean()), low, high

    @property
    def summary(self) -> pd.DataFrame:
        """``model, metric, mean, low, high``: mean over the splits, corrected 95% interval.

        The interval is that of Nadeau and Bengio (2003) for splits that overlap, cut at 0 and 1.
        """
        pairs = self.scores[["model", "metric"]].drop_duplicates().itertuples(index=False)
        rows = [(m, k, *self._estimate(self._values(m, k))) for m, k in pairs]
        table = pd.DataFrame(rows, columns=["model", "metric", "mean", "low", "high"])
        return table.assign(low=table["low"].clip(0, 1), high=table["high"].clip(0, 1))

    def difference(self, first: str, second: str, metric: str = "uno") -> pd.Series:
        """Return ``mean, low, high`` of first minus second on the same splits, as `summary`."""
        values = self._values(first, metric) - self._values(second, metric)
        return pd.Series(self._estimate(values), index=["mean", "low", "high"])


def evaluate(
    X,
    time,
    event,
    covariates=None,
    splits: Sequence[Split] | None = None,
    *,
    groups=None,
    tau: float | None = None,
    seed: int = 0,
) -> SurvivalResult:
    """Cross-validate Cox models of an embedding, of clinical covariates, and of both together.

    In every split all of this is learnt from ``train`` and ``val`` together: scaling, the leading
    32 principal components of the embedding, the ridge penalty (by cross-validated partial
    likelihood in five folds), the coefficients, the baseline hazard, the censoring distribution and
    the cut between low and high risk. The test patients are only scored.

    Parameters
    ----------
    X : array-like or DataFrame, shape (n, d), or None
        Embedding. None evaluates the covariates alone.
    time, event : array-like, shape (n,)
        Days, above 0; 1 = event seen, 0 = censored.
    covariates : DataFrame or array, shape (n, k), optional
        Clinical covariates, numeric or (in a DataFrame) categorical, as in :func:`~.cox`. Rows that
        lack one are left out of all models, and counted.
    splits : list of Split, optional
        Positions of train, val and test rows. If None, ten patient-grouped splits stratified by
        event.
    groups : array-like, shape (n,), optional
        Patient of each row; if None every row is a patient.
    tau : float, optional
        Concordances and Brier scores look at the first `tau` days. If None: the time that a tenth
        of the patients was followed beyond, or less if a split needs it. Give the same one to
        compare results on different rows.
    seed : int
        Of the splits, if there are none, and of the folds within them.

    Returns
    -------
    SurvivalResult

    Raises
    ------
    SurvivalError
        If an input is not valid, rows differ in length or order, a split overlaps or has a patient
        on two sides, or a part of a split has too few events.
    """
    same_rows(time=time, event=event, X=X, covariates=covariates, groups=groups)
    times, events = outcome(time, event)
    features = _features(X, len(times))
    clinical, missing = _clinical(covariates, len(times))
    if not features.shape[1] and not clinical.shape[1]:
        raise SurvivalError("give an embedding X, covariates, or both")
    patients = _patients(groups, len(times))
    keep = ~np.isnan(clinical).any(axis=1)
    if splits is None:
        splits = _draw_splits(patients, events, seed)
    parts = _parts(splits, keep, times, events, patients)
    tau = _tau(tau, times[keep], [times[train].max() for train, _ in parts])
    horizons, skipped = _horizons(parts, times, events, tau)
    with threadpool_limits(1):  # threads cost more than they gain on matrices this small
        folds = [
            _run(number, part, features, clinical, times, events, patients, tau, horizons, seed)
            for number, part in enumerate(parts)
        ]
    scores, predictions, chosen = (
        pd.concat([fold[i] for fold in folds], ignore_index=True) for i in range(3)
    )
    return SurvivalResult(
        scores=scores,
        predictions=predictions,
        chosen=chosen,
        n=int(keep.sum()),
        events=int(events[keep].sum()),
        missing=missing,
        left_out=int((~keep).sum()),
        tau=tau,
        n_train=float(np.mean([len(train) for train, _ in parts])),
        n_test=float(np.mean([len(test) for _, test in parts])),
        skipped=skipped,
    )


def _run(number, part, features, clinical, times, events, patients, tau, horizons, seed):
    """Fit and score all models on one split; return scores, predictions and penalties."""
    train, test = part
    fold = _Fold(number, times, events, train, test, tau, horizons)
    components = Components(features[train])(features) if features.shape[1] else features
    scores, predictions, chosen = [fold.kaplan_meier()], [], []
    for name, (use_features, use_covariates) in _models(features, clinical).items():
        f = components if use_features else components[:, :0]
        c = clinical if use_covariates else clinical[:, :0]
        model = RidgeCox(
            f[train], c[train], times[train], events[train], patients[train], seed=seed
        )
        risk = model.risk(f[test], c[test])
        scores += fold.scores(name, risk, model)
        predictions.append(fold.predictions(name, risk, model))
        chosen.append({"split": number, "model": name, "penalty": model.penalty})
    return (
        pd.DataFrame(scores),
        pd.concat(predictions),
        pd.DataFrame(chosen).astype({"penalty": float}),
    )


class _Fold:
    """One split: its patients and how models are scored on them."""

    def __init__(self, number, times, events, train, test, tau, horizons):
        self.number, self.test, self.tau, self.horizons = number, test, tau, horizons
        self.train_outcome = (times[train], events[train])
        self.outcome = (times[test], events[test])
        self.grid = np.linspace(tau / 50, tau, 50)

    def _row(self, model: str, metric: str, value: float) -> dict:
        return {"split": self.number, "model": model, "metric": metric, "value": value}

    def scores(self, name: str, risk: np.ndarray, model: RidgeCox) -> list[dict]:
        train = self.train_outcome
        values = {
            "harrell": concordance(*self.outcome, risk, tau=self.tau),
            "uno": concordance(*self.outcome, risk, "uno", self.tau, train=train),
            "brier": integrated_brier(
                *self.outcome, model.baseline.survival(risk, self.grid), self.grid, train=train
            ),
        }
        if self.horizons:
            auc = time_dependent_auc(*self.outcome, risk, self.horizons, train=train)
            values |= {f"auc_{day}": value for day, value in zip(self.horizons, auc, strict=True)}
        return [self._row(name, metric, value) for metric, value in values.items()]

    def kaplan_meier(self) -> dict:
        """Score the survival curve of the training patients as everybody's prediction."""
        grid, at_risk, deaths = counts(*self.train_outcome)
        curve = np.r_[1, np.cumprod(1 - deaths / at_risk)]
        alive = curve[np.searchsorted(grid, self.grid, side="right")]
        value = integrated_brier(*self.outcome, alive, self.grid, train=self.train_outcome)
        return self._row(KAPLAN_MEIER, "brier", value)

    def predictions(self, name: str, risk: np.ndarray, model: RidgeCox) -> pd.DataFrame:
        frame = pd.DataFrame({"split": self.number, "row": self.test, "model": name, "risk": risk})
        frame["high_risk"] = risk > np.median(model.train_risk)
        for day in self.horizons:
            frame[f"survival_{day}"] = model.baseline.survival(risk, np.array([day]))[:, 0]
        return frame


def _features(X, n: int) -> np.ndarray:
    """Return the embedding as finite floats, shape (n, d); (n, 0) for None."""
    if X is None:
        return np.empty((n, 0))
    if np.ndim(X) != 2 or not np.shape(X)[1]:
        raise SurvivalError(f"X must have the shape (patients, features), not {np.shape(X)}")
    frame = X if isinstance(X, pd.DataFrame) else pd.DataFrame(np.asarray(X))
    if len(frame) != n:
        raise SurvivalError(f"X has {len(frame)} rows, time has {n} values")
    text = [c for c in frame if not pd.api.types.is_numeric_dtype(frame[c])]
    if text:
        raise SurvivalError(
            f"column {text[0]!r} of X must hold numbers, not {frame[text[0]].dtype}"
        )
    values = frame.to_numpy(dtype=float, na_value=np.nan)
    bad = ~np.isfinite(values).all(axis=1)
    if bad.any():
        raise SurvivalError(f"X is missing or not finite in row {bad.argmax()} ({bad.sum()} rows)")
    return values


def _clinical(covariates, n: int) -> tuple[np.ndarray, pd.Series]:
    """Return covariates as floats with NaN, shape (n, k), and the missing values of each."""
    if covariates is None:
        return np.empty((n, 0)), pd.Series(dtype=int, name="missing")
    if np.ndim(covariates) != 2:
        raise SurvivalError(
            "covariates must be a DataFrame or an array with one column each, not of the shape "
            f"{np.shape(covariates)}"
        )
    if not isinstance(covariates, pd.DataFrame):
        covariates = pd.DataFrame(np.asarray(covariates)).add_prefix("covariate ")
    if len(covariates) != n:
        raise SurvivalError(f"covariates has {len(covariates)} rows, time has {n} values")
    x, missing, _ = design(covariates, list(covariates.columns))
    return x.to_numpy(), missing


def _patients(groups, n: int) -> np.ndarray:
    if groups is None:
        return np.arange(n)
    names = pd.Series(groups)
    if len(names) != n or names.isna().any():
        raise SurvivalError(f"groups must name the patient of each of the {n} rows")
    return pd.factorize(names)[0]


def _models(features: np.ndarray, clinical: np.ndarray) -> dict[str, tuple[bool, bool]]:
    """Return which models there are, and whether each has features and covariates."""
    models = {}
    if clinical.shape[1]:
        models[CLINICAL] = (False, True)
    if features.shape[1]:
        models[EMBEDDING] = (True, False)
    if len(models) == 2:
        models[BOTH] = (True, True)
    return models


def _draw_splits(patients: np.ndarray, events: np.ndarray, seed: int) -> list[Split]:
    """Return ten patient-grouped splits, stratified by event if somebody was censored."""
    table = pd.DataFrame({"patient_id": patients, "event": events.astype(int)})
    try:
        return grouped_splits(table, seed=seed, stratify=None if events.all() else "event")
    except ValueError as error:
        raise SurvivalError(f"{len(events)} rows cannot be split: {error}") from error


def _parts(splits, keep, times, events, patients) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return positions of training and test rows of every split, checked."""
    parts = []
    for number, split in enumerate(splits):
        try:
            train = np.concatenate([split.train, split.val]).astype(int)
            test = np.asarray(split.test).astype(int)
        except AttributeError:
            raise SurvivalError(
                f"split {number} must have train, val and test; got {type(split).__name__}"
            ) from None
        both = np.concatenate([train, test])
        if len(both) and (both.min() < 0 or both.max() >= len(times)):
            raise SurvivalError(f"split {number} names rows outside 0..{len(times) - 1}")
        if np.intersect1d(patients[train], patients[test]).size:
            raise SurvivalError(f"split {number} has a patient in training and in test")
        train, test = np.sort(train[keep[train]]), np.sort(test[keep[test]])
        for name, rows in (("training", train), ("test", test)):
            if not events[rows].any():
                raise SurvivalError(
                    f"split {number} has no event among its {len(rows)} {name} patients; stratify "
                    "the splits by event or make fewer, larger parts"
                )
        parts.append((train, test))
    if len(parts) < 2:
        raise SurvivalError("an interval over splits needs at least two splits")
    return parts


def _tau(tau, times: np.ndarray, ends: list[float]) -> float:
    """Return the shared limit: given, or the ninth decile of time where all splits reach it."""
    last = min(ends)
    if tau is None:
        return float(min(np.quantile(times, 0.9), 0.99 * last))
    tau = one_day(tau, "tau")
    if tau > last:
        raise SurvivalError(
            f"tau = {tau:g} days lies beyond the training patients of a split, who were followed "
            f"for {last:g} days at most; use a smaller tau"
        )
    return tau


def _horizons(parts, times, events, tau) -> tuple[tuple[int, ...], list[dict]]:
    """Return the horizons that every split has patients for, and why others are left out."""
    kept, skipped = [], []
    for day in HORIZONS:
        reason = f"not before tau = {tau:g} days" if day >= tau else None
        for number, (_, test) in enumerate(parts):
            if not (events[test] & (times[test] <= day)).any():
                reason = reason or f"no event by then in the test part of split {number}"
            if (times[test] <= day).all():
                reason = reason or f"nobody followed beyond in the test part of split {number}"
        if reason:
            skipped.append({"metric": f"auc_{day}", "reason": reason})
        else:
            kept.append(day)
    return tuple(kept), skipped
