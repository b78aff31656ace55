"""What a probe found: one score per split, the predictions behind it, and its intervals."""

import dataclasses
from typing import Any

import numpy as np
import pandas as pd
from sklearn import metrics as skm

from tumorbench_utils import stats
from tumorbench_utils.settings import unknown

#: How an interval may be computed, see :meth:`ProbeResult.interval`.
INTERVALS = ("corrected", "published", "bootstrap")


def _of_probabilities(score):
    """Score the probabilities of one split; NaN where the scores are none."""

    def scored(part: pd.DataFrame) -> float:
        return float(score(part)) if part["score"].between(0, 1).all() else float("nan")

    return scored


#: Scores of one split from its predictions. Higher is better, except for the Brier score.
METRICS = {
    "auc": lambda part: stats.auc(part["y"].to_numpy(), part["score"].to_numpy()),
    "average_precision": lambda part: float(skm.average_precision_score(part["y"], part["score"])),
    "balanced_accuracy": _of_probabilities(
        lambda part: skm.balanced_accuracy_score(part["y"], part["score"] > part["threshold"])
    ),
    "brier": _of_probabilities(lambda part: skm.brier_score_loss(part["y"], part["score"])),
}


@dataclasses.dataclass(frozen=True, eq=False)
class ProbeResult:
    """Scores of one probe over repeated splits.

    Attributes
    ----------
    scores : ndarray, shape (n_splits,)
        Score per split on its test rows.
    chosen : list, length n_splits
        What was chosen inside each split: neighbours, penalty ``C``, or a dict; None if nothing.
    predictions : DataFrame
        One row per split and test lesion: ``split, lesion_id, position`` (in the labels that were
        given), ``group`` (patient number), ``y``, ``score`` (higher means label 1; a probability
        unless the probe is a covariate), ``threshold`` (share of label 1 in the rows it was fitted
        on: balanced accuracy asks whether the score lies above it).
    n_train, n_test : int
        Rows that a split fitted on and tested on, mean over the splits.
    metric, probe, protocol : str
    """

    scores: np.ndarray
    chosen: list[Any]
    predictions: pd.DataFrame
    n_train: int
    n_test: int
    metric: str
    probe: str
    protocol: str

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
            ``corrected``: Student's t with the variance of Nadeau and Bengio (2003), which allows
            for the overlap of the splits; it is about the probe, fitted on any patients.
            ``bootstrap``: percentiles over resampled patients (lesions, if no patients were
            given), only for the AUC; it is about these fits on new patients and leaves out what
            varies with the training rows. ``published``: mean ± 1.96 sd / sqrt(n), as the
            reference printed it; any other level than 0.95 is refused.
        level : float
        n, seed : int
            Resamples of the bootstrap.

        Returns
        -------
        low, high : float
        """
        if method == "corrected":
            return stats.corrected_interval(self.scores, self.n_train, self.n_test, level=level)
        if method == "published":
            if level != 0.95:
                raise ValueError("the published interval is defined for a level of 0.95 only")
            return stats.published_interval(self.scores)
        if method != "bootstrap":
            raise ValueError(unknown("method of interval", method, INTERVALS))
        if self.metric != "auc":
            raise ValueError(f"the bootstrap is there for the AUC, not for {self.metric!r}")
        return stats.percentile_interval(resampled([self], n, seed)[:, 0], level)

    def metrics(self) -> pd.DataFrame:
        """Return every score of :data:`METRICS` per split, with ``split`` as index.

        Balanced accuracy and Brier score are missing where scores are no probabilities.
        """
        parts = self.predictions.groupby("split")
        return pd.DataFrame(
            {name: {split: score(part) for split, part in parts} for name, score in METRICS.items()}
        ).rename_axis("split")

    def pooled(self) -> pd.DataFrame:
        """Return one row per lesion that was ever tested, its score averaged over the splits.

        Columns ``y, score, group``, indexed by ``lesion_id``. Every prediction in it was made
        without the lesion; the average over splits is a little better than a single one.
        """
        by_lesion = self.predictions.groupby("lesion_id", sort=False)
        return by_lesion.agg(y=("y", "first"), score=("score", "mean"), group=("group", "first"))


def resampled(results: list[ProbeResult], n: int, seed: int) -> np.ndarray:
    """Bootstrap the mean AUC of results on the same test rows, paired; shape (n, len(results)).

    Raises
    ------
    ValueError
        If the results were not tested on the same lesions in the same splits.
    """
    first = results[0].predictions
    for other in results[1:]:
        same = ["split", "lesion_id", "y"]
        if not other.predictions[same].equals(first[same]):
            raise ValueError(
                "the results were tested on different lesions; run them on the same labels and "
                "splits to compare them"
            )
    scores = np.column_stack([result.predictions["score"] for result in results])
    codes = np.zeros(first["position"].max() + 1, dtype=np.int64)
    codes[first["position"]] = pd.factorize(first["group"])[0]
    tests = []
    for _, rows in first.reset_index(drop=True).groupby("split").indices.items():
        part = first.iloc[rows]
        tests.append((part["position"].to_numpy(), part["y"].to_numpy(), scores[rows]))
    # Positions that were never tested belong to no patient who is drawn.
    tested = np.zeros(len(codes), dtype=bool)
    tested[first["position"]] = True
    place = np.cumsum(tested) - 1
    tests = [(place[rows], y, values) for rows, y, values in tests]
    return stats.resampled_split_auc(tests, codes[tested], n, seed)
