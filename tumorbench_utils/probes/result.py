"""What a probe found: one score per split, the predictions behind it, and its intervals."""

import dataclasses
from collections.abc import Iterable
from typing import Any

import numpy as np
import pandas as pd
from sklearn import metrics as skm

from tumorbench_utils import checks, stats
from tumorbench_utils.probes.inputs import ProbeInput, rows_to_fit
from tumorbench_utils.stats import repeated, roc


@dataclasses.dataclass(frozen=True, eq=False)
class ProbeResult:
    """Scores of one probe over repeated splits.

    Attributes
    ----------
    scores : ndarray, shape (n_splits,)
        AUC per split on its test rows.
    chosen : list, length n_splits
        What was chosen inside each split: neighbours, penalty ``C``, or a dict; None if nothing.
    predictions : DataFrame
        One row per split and test lesion: ``split, lesion_id, position`` (in the labels that were
        given), ``group`` (patient number), ``y``, ``score`` (higher means label 1; a probability
        unless the probe is a covariate), ``threshold`` (share of label 1 in the rows it was fitted
        on: balanced accuracy asks whether the score lies above it).
    n_train, n_test : int
        Rows that a split fitted on and tested on, mean over the splits.
    """

    scores: np.ndarray
    chosen: list[Any]
    predictions: pd.DataFrame
    n_train: int
    n_test: int

    @property
    def mean(self) -> float:
        """Mean of the scores over the splits."""
        return float(np.mean(self.scores))

    def interval(
        self, method: str = "corrected", level: float = 0.95, *, n: int = 2000, seed: int = 0
    ) -> tuple[float, float]:
        """Return the interval of the mean.

        Parameters
        ----------
        method : {"corrected", "published", "bootstrap"}
            ``corrected``: Student's t with the variance of Nadeau and Bengio, which allows for the
            overlap of the splits; it is about the probe, fitted on any patients. ``bootstrap``:
            percentiles over resampled patients (lesions, if no patients were given); it is about
            these fits on new patients and leaves out what varies with the training rows.
            ``published``: mean ± 1.96 sd / sqrt(n), as the reference printed it; any other
            level than 0.95 is refused.
        level : float
        n, seed : int
            Resamples of the bootstrap.

        Returns
        -------
        low, high : float
        """
        checks.one_of(method, "method of interval", ("corrected", "published", "bootstrap"))
        if method == "published" and level != 0.95:
            raise checks.InputError("the published interval is defined for a level of 0.95 only")
        if method == "corrected":
            return stats.corrected_interval(self.scores, self.n_train, self.n_test, level=level)
        if method == "published":
            return repeated.published_interval(self.scores)
        return stats.percentile_interval(resampled([self], n, seed)[:, 0], level)

    def estimate(self, method: str = "corrected") -> stats.Estimate:
        """Return the mean with its 95% interval, see :meth:`interval`."""
        return stats.Estimate(self.mean, *self.interval(method), method)

    def metrics(self) -> pd.DataFrame:
        """Return AUC, average precision, balanced accuracy and Brier score, indexed by ``split``.

        Balanced accuracy and Brier score are missing where scores are no probabilities.
        """
        rows = {}
        for number, part in self.predictions.groupby("split"):
            y, score = part["y"], part["score"]
            row = rows[number] = [stats.auc(y, score), skm.average_precision_score(y, score)]
            if score.between(0, 1).all():
                row.append(skm.balanced_accuracy_score(y, score > part["threshold"]))
                row.append(skm.brier_score_loss(y, score))
        columns = ["auc", "average_precision", "balanced_accuracy", "brier"]
        found = pd.DataFrame.from_dict(rows, "index").reindex(columns=range(4))
        return found.set_axis(columns, axis=1).rename_axis("split").astype(float)

    def pooled(self) -> pd.DataFrame:
        """Return one row per lesion that was ever tested, its score averaged over the splits.

        Columns ``y, score, group``, indexed by ``lesion_id``. Every prediction in it was made
        without the lesion; the average over splits is a little better than a single one.
        """
        by_lesion = self.predictions.groupby("lesion_id", sort=False)
        return by_lesion.agg(y=("y", "first"), score=("score", "mean"), group=("group", "first"))


def collect(data: ProbeInput, outcomes: Iterable, protocol: str) -> ProbeResult:
    """Put what was chosen and predicted in every split into one result.

    Parameters
    ----------
    data : ProbeInput
    outcomes : iterable of (chosen, ndarray)
        Per split; the array scores its test rows.
    protocol : str
        Under ``"published"`` the rows that were fitted on are those of training, otherwise those
        of training and validation.
    """
    groups = np.arange(len(data.y)) if data.groups is None else data.groups
    chosen, scored = zip(*outcomes, strict=True)
    fitted, frames = [rows_to_fit(split, protocol) for split in data.splits], []
    for number, (rows, scores) in enumerate(zip(fitted, scored, strict=True)):
        test = data.splits[number].test
        facts = {"split": number, "lesion_id": data.index[test], "position": test}
        facts |= {"group": groups[test], "y": data.y[test], "score": scores}
        frames.append(pd.DataFrame({**facts, "threshold": data.y[rows].mean()}))
    scores = np.array([stats.auc(frame["y"], frame["score"]) for frame in frames])
    n_train, n_test = (round(np.mean([len(r) for r in part])) for part in (fitted, frames))
    predictions = pd.concat(frames, ignore_index=True)
    return ProbeResult(scores, list(chosen), predictions, n_train, n_test)


def resampled(results: list[ProbeResult], n: int, seed: int) -> np.ndarray:
    """Bootstrap the mean AUC of results on the same test rows, paired; shape (n, len(results)).

    Raises
    ------
    InputError
        If the results were not tested on the same lesions in the same splits.
    """
    first, same = results[0].predictions, ["split", "lesion_id", "y"]
    if not all(other.predictions[same].equals(first[same]) for other in results[1:]):
        raise checks.InputError("the results are of different lesions or splits: run them alike")
    scores = np.column_stack([result.predictions["score"] for result in results])
    place = pd.factorize(first["position"], sort=True)[0]
    codes = np.empty(place.max() + 1, dtype=np.int64)
    codes[place] = pd.factorize(first["group"])[0]
    y = first["y"].to_numpy()
    rows_of = first.reset_index(drop=True).groupby("split").indices.values()
    return roc.resampled_split_auc([(place[r], y[r], scores[r]) for r in rows_of], codes, n, seed)
