"""Statistics of a benchmark: areas under ROC curves, their intervals, and comparisons of models.

Scores point towards label 1: a higher score means that label 1 is more likely. Higher values of a
performance are better throughout. Nothing here knows cohorts or models.
"""

from tumorbench_utils.stats.checks import binary_labels
from tumorbench_utils.stats.estimate import Estimate
from tumorbench_utils.stats.ranks import FriedmanResult, friedman_nemenyi, holm, resampled_ranks
from tumorbench_utils.stats.repeated import (
    corrected_error,
    corrected_interval,
    corrected_p,
    published_interval,
)
from tumorbench_utils.stats.roc import (
    WeightedAUC,
    auc,
    bootstrap_auc,
    delong_test,
    net_benefit,
    percentile_interval,
    resample_counts,
    resampled_split_auc,
)

__all__ = [
    "Estimate",
    "FriedmanResult",
    "WeightedAUC",
    "auc",
    "binary_labels",
    "bootstrap_auc",
    "corrected_error",
    "corrected_interval",
    "corrected_p",
    "delong_test",
    "friedman_nemenyi",
    "holm",
    "net_benefit",
    "percentile_interval",
    "published_interval",
    "resample_counts",
    "resampled_ranks",
    "resampled_split_auc",
]
