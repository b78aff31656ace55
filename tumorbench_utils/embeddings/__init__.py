"""Embeddings: computed on one machine or a cluster, kept in a store, or imported as released.

:func:`embed` fills an :class:`EmbeddingStore`; :func:`import_released` reads the authors' feature
files without running anything in them; :func:`load_embeddings` is what chapters call.
"""

# Networks are run here. A user's file that is itself run by `runpy` cannot be the first to do this.
import torch  # noqa: F401

from tumorbench_utils.embeddings.encoders import Encoder, default_encoder
from tumorbench_utils.embeddings.inert import UnsafeFileError
from tumorbench_utils.embeddings.load import (
    default_store,
    edition_with_features,
    load_embeddings,
    released_files,
)
from tumorbench_utils.embeddings.released import import_released
from tumorbench_utils.embeddings.run import Report, embed
from tumorbench_utils.embeddings.store import EmbeddingStore

__all__ = [
    "EmbeddingStore",
    "Encoder",
    "Report",
    "UnsafeFileError",
    "default_encoder",
    "default_store",
    "edition_with_features",
    "embed",
    "import_released",
    "load_embeddings",
    "released_files",
]
