"""Statistics of a benchmark: areas under ROC curves, their intervals, and comparisons of models.

Scores point towards label 1: a higher score means that label 1 is more likely. Higher values of a
performance are better throughout. Nothing here knows cohorts or models.
"""

from tumorbench_utils.stats.estimate import Estimate
from tumorbench_utils.stats.ranks import FriedmanResult, friedman_nemenyi, holm, resampled_ranks
from tumorbench_utils.stats.repeated import corrected_error, corrected_interval, corrected_p
from tumorbench_utils.stats.roc import auc, bootstrap_auc, delong_test, percentile_interval

__all__ = [
    "Estimate",
    "FriedmanResult",
    "auc",
    "bootstrap_auc",
    "corrected_error",
    "corrected_interval",
    "corrected_p",
    "delong_test",
    "friedman_nemenyi",
    "holm",
    "percentile_interval",
    "resampled_ranks",
]
