"""Trilinear sampling of a box of a scan, with 0 HU outside the scan."""

import numpy as np

from tumorbench_utils.patches.grid import Crop


def box_of(crop: Crop, shape: tuple[int, int, int]) -> tuple[tuple[int, int], ...]:
    """Return the part of the file that a crop reads, as (start, stop) along i, j, k.

    A range is empty (start = stop) where the crop lies beside the volume.
    """
    spans = crop.matrix[:, :3] * (np.array(crop.shape) - 1.0)
    low, high = (
        side(spans, 0).sum(axis=1) + crop.matrix[:, 3] for side in (np.minimum, np.maximum)
    )
    start = np.clip(np.floor(low - 1e-6), 0, shape).astype(int)
    stop = np.clip(np.floor(high + 1e-6) + 2, start, shape).astype(int)
    return tuple(zip(start.tolist(), stop.tolist(), strict=True))


def sample(values: np.ndarray, box: tuple[tuple[int, int], ...], crop: Crop) -> np.ndarray:
    """Sample a crop from the voxels of its box.

    Parameters
    ----------
    values : ndarray, shape (k, j, i)
        The voxels of `box`, slowest file axis first.
    box : three pairs (start, stop)
        Along i, j, k, as from :func:`box_of`.
    crop : Crop

    Returns
    -------
    ndarray of float32, shape `crop.shape`
        HU along x, y, z (RAS).
    """
    if values.size == 0:
        return np.zeros(crop.shape, np.float32)
    axes = crop.separable_axes()
    separable = axes is not None
    return _separable(values, box, crop, axes) if separable else _oblique(values, box, crop)


def _separable(values, box, crop, axes):
    """Interpolate along one axis after the other, the one that shrinks the box most first."""
    lines = []
    for file_axis, world_axis in enumerate(axes):
        (start, stop), u = box[file_axis], crop.coordinates(file_axis, world_axis)
        fraction, index = u - np.floor(u), np.floor(u).astype(int) - start
        n, pairs = stop - start, []
        for i, weight in ((index, 1 - fraction), (index + 1, fraction)):
            inside = (i >= 0) & (i < n)
            pairs.append((np.clip(i, 0, n - 1), np.where(inside, weight, 0.0)))
        lines.append((len(u) / n, 2 - file_axis, pairs))
    for _, axis, ((i0, w0), (i1, w1)) in sorted(lines, key=lambda line: line[0]):
        along = tuple(-1 if a == axis else 1 for a in range(3))
        low = values.take(i0, axis=axis).astype(np.float64, copy=False)
        high = values.take(i1, axis=axis).astype(np.float64, copy=False)
        low *= w0.reshape(along)
        high *= w1.reshape(along)
        values = np.add(low, high, out=low)
    # The array still runs k, j, i; axes[f] is the world axis of file axis f = 2 - array axis.
    return values.astype(np.float32).transpose([2 - axes.index(axis) for axis in range(3)])


def _oblique(values, box, crop):
    """Interpolate at every point on its own: the axes of scan and patch are at an angle."""
    # A shell of zeros, one voxel before and two behind, stands for all that is outside.
    padded = np.zeros([n + 3 for n in values.shape])
    padded[1:-2, 1:-2, 1:-2] = values
    flat, (_, nj, ni) = padded.ravel(), padded.shape
    index, weights = 0, []
    for file_axis, stride in ((2, nj * ni), (1, ni), (0, 1)):
        row, (start, stop) = crop.matrix[file_axis], box[file_axis]
        x, y, z = (row[axis] * np.arange(crop.shape[axis]) for axis in range(3))
        u = x[:, None, None] + y[:, None] + (z + (row[3] - start + 1))
        np.clip(u, 0, stop - start + 1, out=u)
        floor = u.astype(np.intp)
        weights.append(np.subtract(u, floor, out=u))
        index = index + floor * stride
    wk, wj, wi = weights

    def line(offset):
        low, high = flat[offset:].take(index), flat[offset + 1 :].take(index)
        return np.add(low, np.multiply(np.subtract(high, low, out=high), wi, out=high), out=low)

    def plane(offset):
        low, high = line(offset), line(offset + ni)
        return np.add(low, np.multiply(np.subtract(high, low, out=high), wj, out=high), out=low)

    low, high = plane(0), plane(nj * ni)
    return (low + (high - low) * wk).astype(np.float32)
