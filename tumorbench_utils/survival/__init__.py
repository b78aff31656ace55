"""Time-to-event analysis: curves, Cox models, measures of prediction and cross-validation.

Times are days and above 0; events are 1 (seen) or 0 (censored); a higher risk means an earlier
event. Whatever cannot be analysed raises :class:`SurvivalError`, a ``ValueError``.
"""

from tumorbench_utils.survival.checks import SurvivalError
from tumorbench_utils.survival.clinical import ClinicalTable, clinical_table
from tumorbench_utils.survival.cox import CoxResult, cox, likelihood_ratio_test
from tumorbench_utils.survival.curves import (
    KaplanMeier,
    TestResult,
    draw_curves,
    kaplan_meier,
    logrank,
    number_at_risk,
    rmst_difference,
)
from tumorbench_utils.survival.evaluate import SurvivalResult, evaluate
from tumorbench_utils.survival.metrics import (
    bootstrap_concordance,
    brier_score,
    calibration,
    censored_label,
    concordance,
    integrated_brier,
    time_dependent_auc,
)

__all__ = [
    "ClinicalTable",
    "CoxResult",
    "KaplanMeier",
    "SurvivalError",
    "SurvivalResult",
    "TestResult",
    "bootstrap_concordance",
    "brier_score",
    "calibration",
    "censored_label",
    "clinical_table",
    "concordance",
    "cox",
    "draw_curves",
    "evaluate",
    "integrated_brier",
    "kaplan_meier",
    "likelihood_ratio_test",
    "logrank",
    "number_at_risk",
    "rmst_difference",
    "time_dependent_auc",
]
