"""The metrology of imaging biomarkers, for single measurements and for embeddings.

Two measurements per subject, ``first`` and ``second``, each with its interval: repeatability,
agreement, re-identification, and what happens to an embedding when the seed point moves.
"""

from tumorbench_utils.robustness.agreement import (
    RobustnessError,
    bland_altman,
    ccc,
    icc,
    repeatability_coefficient,
    variance_components,
    within_cv,
    within_sd,
)
from tumorbench_utils.robustness.embeddings import (
    collapse,
    component_icc,
    discriminability,
    effective_rank,
    reidentification,
    whitened_cosine,
)
from tumorbench_utils.robustness.perturbation import jitter, shifts

__all__ = [
    "RobustnessError",
    "bland_altman",
    "ccc",
    "collapse",
    "component_icc",
    "discriminability",
    "effective_rank",
    "icc",
    "jitter",
    "reidentification",
    "repeatability_coefficient",
    "shifts",
    "variance_components",
    "whitened_cosine",
    "within_cv",
    "within_sd",
]
