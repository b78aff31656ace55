"""Where the voxels of a patch lie in the file: the arithmetic of the published benchmark.

The benchmark turns a scan to run L, P, S, resamples all of it onto a grid along the RAS world
axes, and cuts a cube around the seed. Here the same coordinates are worked out for the cube alone.
"""

from dataclasses import dataclass

import numpy as np

from tumorbench_utils.patches.spec import PatchError

#: Sign that turns LPS world coordinates into RAS and back.
LPS_TO_RAS = np.array([-1.0, -1.0, 1.0])

#: A file whose spacing is this close to the wanted one (mm) keeps its own.
SPACING_TOLERANCE = 1e-3

#: Coordinates that stray less than this from a separable grid count as separable (voxels).
_SEPARABLE = 1e-9


@dataclass(frozen=True, eq=False)
class Crop:
    """The part of a patch that lies on the benchmark's grid, and where it reads the file.

    Attributes
    ----------
    shape : tuple of 3 ints
        Voxels along the world axes x, y, z.
    matrix : ndarray, shape (3, 4)
        From the crop's index (x, y, z, 1), RAS, to file index (i, j, k).
    low : tuple of 3 ints
        Index of its first voxel on the grid.
    """

    shape: tuple[int, int, int]
    matrix: np.ndarray
    low: tuple[int, int, int] = (0, 0, 0)

    def separable_axes(self) -> list[int] | None:
        """Return the world axis of each file axis if every file axis follows only one."""
        linear = np.abs(self.matrix[:, :3])
        axes = [int(axis) for axis in linear.argmax(axis=1)]
        reach = linear * (np.array(self.shape) - 1)
        reach[range(3), axes] = 0
        return axes if len(set(axes)) == 3 and reach.sum(axis=1).max() < _SEPARABLE else None

    def coordinates(self, file_axis: int, world_axis: int) -> np.ndarray:
        """Return the file coordinates along one axis of a separable crop, shape (n,)."""
        middle = (np.array(self.shape) - 1) / 2
        row, rest = self.matrix[file_axis], [axis for axis in range(3) if axis != world_axis]
        start = row[3] + row[rest] @ middle[rest]
        return row[world_axis] * np.arange(self.shape[world_axis]) + start


class BenchmarkGrid:
    """The grid onto which the benchmark would resample a scan.

    Parameters
    ----------
    affine_lps : ndarray, shape (4, 4)
        File index (i, j, k) to LPS mm.
    shape : tuple of 3 ints
        Voxels of the file along i, j, k.
    spacing_mm : tuple of 3 floats
        Wanted spacing along x, y, z.
    """

    def __init__(self, affine_lps: np.ndarray, shape, spacing_mm):
        from nibabel.orientations import axcodes2ornt, inv_ornt_aff, io_orientation, ornt_transform

        affine = np.diag([*LPS_TO_RAS, 1.0]) @ affine_lps
        # Turn the array to run L, P, S: `turn` takes an index of the turned array to the file's.
        turn_to = ornt_transform(io_orientation(affine), axcodes2ornt("LPS"))
        turn = inv_ornt_aff(turn_to, shape)
        turned_shape = np.zeros(3)
        turned_shape[turn_to[:, 0].astype(int)] = shape
        source = affine @ turn
        wanted = np.array(spacing_mm)
        own = np.sqrt((source[:3, :3] ** 2).sum(axis=0))
        near = np.abs(own - wanted) <= SPACING_TOLERANCE
        target = np.diag([*np.where(near, own, wanted), 1.0])

        corners = np.array([*np.ndindex(2, 2, 2)]).T * (turned_shape[:, None] - 1)
        corners = np.concatenate([corners, np.ones((1, 8))])
        on_target = (np.linalg.solve(target, source) @ corners)[:3]
        self.size = np.round(np.ptp(on_target, axis=1) + 1)
        lowest = on_target.min(axis=1, keepdims=True)
        first = np.flatnonzero(np.abs(on_target - lowest).max(axis=0) <= 1e-8)
        if first.size:
            target[:3, 3] = (source @ corners)[:3, first[0]]
        else:  # at an angle, no corner comes first in all axes: middle on middle
            half = source[:3, :3] @ (turned_shape / 2) + source[:3, 3]
            target[:3, 3] = half - target[:3, :3] @ (self.size / 2)
        self.target, self._turn, self._turned_shape = target, turn, turned_shape
        self._to_source = np.linalg.solve(source, target)

    def crop(self, seed_lps_mm: np.ndarray, size, grid: str, what: str) -> Crop:
        """Return the part of the cube around a seed that lies on the grid.

        Parameters
        ----------
        seed_lps_mm : ndarray, shape (3,)
        size : tuple of 3 ints
            Voxels along x, y, z.
        grid : {"exact", "monai14"}
            See :func:`tumorbench_utils.patches.extract_patch`.
        what : str
            Names the file and the seed in messages.

        Raises
        ------
        PatchError
            If no voxel of the cube lies on the grid.
        """
        seed = np.append(LPS_TO_RAS * seed_lps_mm, 1.0)
        centre = np.trunc((np.linalg.inv(self.target) @ seed)[:3])
        half = np.array(size) // 2
        low, high = np.maximum(centre - half, 0), np.minimum(centre + half, self.size)
        if not (high > low).all():
            far = np.maximum(np.maximum(-centre, centre - self.size + 1), 0)
            far = (far * np.diag(self.target)[:3]).round().tolist()
            hint = f"{far} mm along x, y, z; is it in LPS (x and y change sign in RAS)?"
            raise PatchError(f"{what}: the seed lies further outside than half a patch, {hint}")
        matrix = self._to_source[:3].copy()
        if grid == "monai14":
            stretch = self.size / np.maximum(self.size - 1, 1)
            shrink = (self._turned_shape - 1) / self._turned_shape
            matrix[:, 3] += -0.5 * matrix[:, :3].sum(axis=1) + 0.5
            matrix[:, :3] *= stretch
            matrix *= shrink[:, None]
        matrix[:, 3] += matrix[:, :3] @ low
        matrix = self._turn[:3, :3] @ matrix
        matrix[:, 3] += self._turn[:3, 3]
        return Crop(tuple(int(n) for n in high - low), matrix, tuple(int(n) for n in low))


def joined(crops: list[Crop]) -> list[tuple[Crop, tuple[slice, ...]]]:
    """Return for each crop of one grid the box to sample and its own part of that box.

    Crops that hang together are sampled as one box if that is no more work than each on its own:
    many seeds around one lesion, or a small patch inside a large one.

    Parameters
    ----------
    crops : list of Crop
        Of one :class:`BenchmarkGrid`, with one `grid` option.

    Returns
    -------
    list of (Crop, tuple of 3 slices)
        Crops that share a box hold the same object.
    """
    low = np.array([crop.low for crop in crops])
    high = low + [crop.shape for crop in crops]
    touch = (low[:, None] < high[None]).all(axis=2)
    reach = touch & touch.T
    for _ in range(len(crops).bit_length()):  # neighbours, neighbours of neighbours, and so on
        reach = reach.astype(np.float32) @ reach > 0
    result: list = [(crop, tuple(slice(0, n) for n in crop.shape)) for crop in crops]
    for members in map(np.flatnonzero, np.unique(reach, axis=0)):
        start, stop = low[members].min(axis=0), high[members].max(axis=0)
        alone = (high[members] - low[members]).prod(axis=1).sum()
        if len(members) == 1 or (stop - start).prod() > alone:
            continue
        first = crops[members[0]]
        matrix = first.matrix.copy()
        matrix[:, 3] += matrix[:, :3] @ (start - first.low)
        box = Crop(tuple((stop - start).tolist()), matrix, tuple(start.tolist()))
        for n in members:
            begin, end = low[n] - start, high[n] - start
            result[n] = (box, tuple(slice(int(a), int(b)) for a, b in zip(begin, end, strict=True)))
    return result
