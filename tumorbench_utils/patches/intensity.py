"""Telling HU from what only looks like it.

A CT in HU has air near -1000, lung and fat between -900 and -50, soft tissue near 40. What is
looked at are rows from all over the scan (as far as it was read) and the voxels under the patch.
A scan is refused only on evidence that no part of a body in HU gives; the rules and how often
they find a changed scan are shown in the book.
"""

from collections.abc import Iterable

import numpy as np

from tumorbench_utils.patches.spec import require

#: HU have this many units of air between vacuum and water; scanners store HU + 1024.
OFFSET = 1024

#: Values of one voxel in a thousand and less are noise, padding or metal.
_FEW = 0.002

#: A peak is this many times denser than what lies on either side of it.
_PEAK = 4.0


def check_intensity(volume, boxes: Iterable[np.ndarray]) -> None:
    """Refuse a scan whose values cannot be HU.

    Parameters
    ----------
    volume : Volume
        After reading: its `rows` hold what was seen of the rest of the scan.
    boxes : iterable of ndarray
        The voxels under the patches.

    Raises
    ------
    PatchError
        If voxels under a patch are not finite; if the pixel type cannot hold negative values; or
        if the values are those of a scan that was rescaled, shifted by 1024, or is no CT.
    """
    finite = all(box.dtype.kind != "f" or np.isfinite(box).all() for box in boxes)
    require(finite, f"{volume.name}: NaN or infinite values under the patch; give them a HU value")
    wide = volume.dtype.kind != "u" and volume.dtype.itemsize > 1
    require(wide, f"{volume.name}: pixels of type {volume.dtype} cannot hold -1000, the HU of air")
    parts = [np.ravel(part) for part in (*volume.rows, *(box[::3, ::3, ::3] for box in boxes))]
    seen = np.concatenate([np.zeros(0), *parts])
    seen = seen[np.isfinite(seen)]
    reason = not_hu(seen) if seen.size else None
    require(reason is None, f"{volume.name}: {reason}")


def not_hu(values: np.ndarray) -> str | None:
    """Say why values from a scan are not HU, or return None if nothing speaks against it.

    Parameters
    ----------
    values : ndarray, shape (n,)
        Finite values from all over a scan.

    Returns
    -------
    str or None
        What is wrong and what to do.
    """
    low, high = values.min(), values.max()
    if max(-low, high) <= 10:
        reason = "not HU but a blank image, a mask, or a scan already rescaled (0..1, z-scores)"
    elif (low, high) == (0, 255):
        reason = "grey levels of a picture, not HU"
    elif low < -(1 << 15) or high >= 1 << 16:
        reason = "beyond what a CT can hold (-32768 to 65535 HU)"
    elif _share(values, -900, -50) < _FEW and _high_up(values):
        reason = f"HU + 1024 (no air, lung or fat below 0): subtract {OFFSET}"
    elif _share(values, -200, 150) < 0.02 and _share(values, -np.inf, -1250) > 0.05:
        reason = f"HU - 1024 (much below -1250, hardly any soft tissue): add {OFFSET}"
    else:
        return None
    remedy = "convert the original images again, with slope and intercept applied once"
    return f"the values seen run from {low:g} to {high:g}: {reason}; {remedy}"


def _share(values: np.ndarray, low: float, high: float) -> float:
    return float(np.mean((values > low) & (values < high)))


def _high_up(values: np.ndarray) -> bool:
    """Say whether there is no air, or fat and soft tissue (-100..150 HU) stand out 1024 above."""
    if _share(values, -np.inf, -50) < _FEW and np.median(values) >= 700:
        return True
    tissue = _share(values, OFFSET - 100, OFFSET + 150)
    lung, bone = (_share(values, OFFSET + a, OFFSET + b) for a, b in ((-524, -174), (226, 576)))
    return tissue >= 0.005 and tissue / 250 >= _PEAK * max(lung, bone) / 350
