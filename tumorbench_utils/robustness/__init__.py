"""The metrology of imaging biomarkers, for single measurements and for embeddings.

Two measurements per subject, ``first`` and ``second``, each with its interval: repeatability,
agreement, re-identification; what happens to an embedding when the seed point moves, the protocol
changes, or the lesion loses its structure.
"""

from tumorbench_utils.robustness.agreement import (
    RobustnessError,
    bland_altman,
    ccc,
    icc,
    repeatability_coefficient,
    within_cv,
)
from tumorbench_utils.robustness.embeddings import (
    collapse,
    component_icc,
    discriminability,
    profile,
    reidentification,
)
from tumorbench_utils.robustness.harmonisation import ComBat
from tumorbench_utils.robustness.images import perturb, shuffled
from tumorbench_utils.robustness.perturbation import encode_scans, jitter, jitter_all

__all__ = [
    "ComBat",
    "RobustnessError",
    "bland_altman",
    "ccc",
    "collapse",
    "component_icc",
    "discriminability",
    "encode_scans",
    "icc",
    "jitter",
    "jitter_all",
    "perturb",
    "profile",
    "reidentification",
    "repeatability_coefficient",
    "shuffled",
    "within_cv",
]
