"""Telling HU from what only looks like it."""

from collections.abc import Iterable

import numpy as np

from tumorbench_utils.patches.spec import PatchError


def check_intensity(volume, boxes: Iterable[np.ndarray]) -> None:
    """Refuse a scan whose values cannot be HU."""
    for box in boxes:
        if box.dtype.kind == "f" and not np.isfinite(box).all():
            raise PatchError(f"{volume.name}: the image holds NaN or infinite values")
