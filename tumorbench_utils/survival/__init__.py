"""Time-to-event analysis: curves, Cox models, measures of prediction and cross-validation.

Times are days and above 0; events are 1 (seen) or 0 (censored); a higher risk means an earlier
event. Whatever cannot be analysed raises :class:`SurvivalError`, a ``ValueError``. Values that
belong to the same patients are joined by their index where both have one, else by position.

The log-rank test is lifelines' own: ``lifelines.statistics.multivariate_logrank_test``.
"""

from tumorbench_utils.survival.clinical import clinical_table
from tumorbench_utils.survival.cox import CoxResult, cox
from tumorbench_utils.survival.curves import KaplanMeier, draw_curves, kaplan_meier, rmst_difference
from tumorbench_utils.survival.evaluate import SurvivalResult, evaluate
from tumorbench_utils.survival.metrics import (
    bootstrap_concordance,
    censored_label,
    concordance,
    integrated_brier,
    time_dependent_auc,
)
from tumorbench_utils.survival.outcome import SurvivalError

__all__ = [
    "CoxResult", "KaplanMeier", "SurvivalError", "SurvivalResult", "bootstrap_concordance",
    "censored_label", "clinical_table", "concordance", "cox", "draw_curves", "evaluate",
    "integrated_brier", "kaplan_meier", "rmst_difference", "time_dependent_auc",
]  # fmt: skip
