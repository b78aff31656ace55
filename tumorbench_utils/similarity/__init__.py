"""How alike two models see the same lesions: measures, nulls and intervals.

Three of the four measures have one form. Each model is turned into a lesion x lesion matrix, its
*relation* (who is a neighbour of whom; which pairs are alike; ranks of the distances), and the
measure is an inner product of two relations. Relabelling the lesions permutes rows and columns of
a relation and changes nothing else, so a permutation null for many models at once costs one matrix
product per permutation.

Embeddings are arrays (n lesions, d) or DataFrames indexed by ``lesion_id``; DataFrames are joined
by their index, never by position.
"""

from tumorbench_utils.similarity.inputs import SimilarityError, align
from tumorbench_utils.similarity.measures import (
    MEASURES,
    knn_overlap,
    linear_cka,
    neighbours,
    procrustes,
    regress_out,
    rsa,
)
from tumorbench_utils.similarity.resampling import (
    pairwise,
    permutation_null,
    subsample_interval,
)

__all__ = [
    "MEASURES",
    "SimilarityError",
    "align",
    "knn_overlap",
    "linear_cka",
    "neighbours",
    "pairwise",
    "permutation_null",
    "procrustes",
    "regress_out",
    "rsa",
    "subsample_interval",
]
