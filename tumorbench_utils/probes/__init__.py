"""Probes: how well frozen embeddings predict an endpoint.

:func:`run_probe` scores nearest neighbours or logistic regression over repeated splits, under the
published protocol or a careful one; :func:`few_shot` and :func:`ensemble` do so for few lesions
and for several models; :func:`compare`, :func:`added_value` and :func:`permutation_null` set the
results against each other, against a ruler and against chance.
"""

from tumorbench_utils.probes.compare import added_value, compare, permutation_null
from tumorbench_utils.probes.ensembles import ensemble
from tumorbench_utils.probes.knn import KNNProbe
from tumorbench_utils.probes.linear import LinearProbe
from tumorbench_utils.probes.result import ProbeResult
from tumorbench_utils.probes.run import few_shot, run_probe

__all__ = [
    "KNNProbe",
    "LinearProbe",
    "ProbeResult",
    "added_value",
    "compare",
    "ensemble",
    "few_shot",
    "permutation_null",
    "run_probe",
]
