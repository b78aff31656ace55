"""From a scan and a point in it to the cube of numbers that a network sees.

:class:`PatchSpec` says what a network wants, :func:`extract_patch` and :func:`extract_patches`
cut it out. Only the part of the scan under the patch is read and resampled; the result is that
of the published benchmark, which resamples the whole scan first.
"""

from tumorbench_utils.patches.extract import extract_patch, extract_patches, sources
from tumorbench_utils.patches.spec import PatchError, PatchSpec

__all__ = ["PatchError", "PatchSpec", "extract_patch", "extract_patches", "sources"]
