"""Embeddings: computed on one machine or a cluster, kept in a store, or imported as released.

:func:`embed` fills an :class:`EmbeddingStore`; :func:`import_released` reads the authors' feature
files without running anything in them; :func:`load_embeddings` is what chapters call.
"""

from tumorbench_utils.embeddings.catalogue import (
    RELEASED_FILES,
    FeaturesMissingError,
    ReleasedFile,
    default_store,
)
from tumorbench_utils.embeddings.encoders import Encoder, default_encoder
from tumorbench_utils.embeddings.load import Embeddings, edition_with_features, load_embeddings
from tumorbench_utils.embeddings.parquet import StaleError, StoreError
from tumorbench_utils.embeddings.released import UnsafeFileError, import_released
from tumorbench_utils.embeddings.run import Report, embed
from tumorbench_utils.embeddings.shards import Failure
from tumorbench_utils.embeddings.store import EmbeddingStore, Problem

__all__ = [
    "RELEASED_FILES",
    "EmbeddingStore",
    "Embeddings",
    "Encoder",
    "Failure",
    "FeaturesMissingError",
    "Problem",
    "ReleasedFile",
    "Report",
    "StaleError",
    "StoreError",
    "UnsafeFileError",
    "default_encoder",
    "default_store",
    "edition_with_features",
    "embed",
    "import_released",
    "load_embeddings",
]
