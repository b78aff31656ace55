"""What the phantom scans are drawn with: grids, smooth random fields, tubes, ellipsoids, trees.

All lengths are millimetres in the frame of one phantom: the origin is the centre of the scanned
cube, +x points to the patient's left, +y to the back, +z to the head (LPS). Points are (x, y, z),
arrays are (z, y, x) and float32.
"""

from dataclasses import dataclass

import numpy as np
from scipy.sparse import csr_array

#: Half the side of the cube in which random fields are defined, whatever part of it is scanned.
EXTENT_MM = 80.0


@dataclass(frozen=True)
class Grid:
    """Voxel centres along the three axes.

    Parameters
    ----------
    z, y, x : ndarray of float32, one-dimensional, increasing
        Positions of the voxel centres in mm.
    edge_mm : float
        Width of the soft edge that stands for a voxel that is partly filled.
    """

    z: np.ndarray
    y: np.ndarray
    x: np.ndarray
    edge_mm: float

    @property
    def shape(self) -> tuple[int, int, int]:
        """Number of voxels along (z, y, x)."""
        return len(self.z), len(self.y), len(self.x)

    def box(self, low: np.ndarray, high: np.ndarray) -> tuple[slice, slice, slice]:
        """Return the slices (z, y, x) of the voxels between two corners (x, y, z)."""
        axes = ((self.z, 2), (self.y, 1), (self.x, 0))
        return tuple(slice(*np.searchsorted(axis, (low[i], high[i]))) for axis, i in axes)

    def sub(self, box: tuple[slice, slice, slice]) -> "Grid":
        """Return the part of the grid that `box` cuts out."""
        return Grid(self.z[box[0]], self.y[box[1]], self.x[box[2]], self.edge_mm)

    def offsets(self, centre: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return x, y and z relative to `centre`, shaped to broadcast to (z, y, x)."""
        cx, cy, cz = (np.float32(c) for c in centre)
        return (
            (self.x - cx)[None, None, :],
            (self.y - cy)[None, :, None],
            (self.z - cz)[:, None, None],
        )


def _smoother(positions: np.ndarray, nodes: np.ndarray, sd: float) -> csr_array:
    """Return the matrix that turns white noise at `nodes` into unit-variance smooth noise."""
    first = np.searchsorted(nodes, positions - 2.4 * sd)
    count = int(np.ceil(4.8 * sd / (nodes[1] - nodes[0]))) + 1
    columns = np.clip(first[:, None] + np.arange(count), 0, len(nodes) - 1)
    weights = np.exp(-0.5 * ((positions[:, None] - nodes[columns]) / sd) ** 2)
    weights /= np.sqrt((weights**2).sum(axis=1, keepdims=True))
    starts = np.arange(len(positions) + 1) * count
    shape = (len(positions), len(nodes))
    return csr_array((weights.astype(np.float32).ravel(), columns.ravel(), starts), shape=shape)


def field(
    rng: np.random.Generator, grid: Grid, length_mm: float, extent_mm: float = EXTENT_MM
) -> np.ndarray:
    """Return a smooth Gaussian random field with mean 0 and variance 1.

    White noise on a lattice that covers the cube of half side `extent_mm` is smoothed along one
    axis after the other. The lattice does not depend on `grid`: the same generator state gives the
    same field at every spacing.

    Parameters
    ----------
    rng : numpy Generator
    grid : Grid
        Where the field is evaluated.
    length_mm : float
        Distance at which the correlation has fallen to 1/e.
    extent_mm : float
        Half the side of the cube that the lattice covers; beyond it the field is not defined.

    Returns
    -------
    ndarray of float32, shape `grid.shape`
    """
    sd = length_mm / 2
    half = int(np.ceil((extent_mm + 3 * sd) / (1.1 * sd)))
    nodes = np.arange(-half, half + 1) * (1.1 * sd)
    n = len(nodes)
    noise = rng.standard_normal((n, n * n), dtype=np.float32)
    nz, ny, nx = grid.shape
    along_x = (_smoother(grid.x, nodes, sd) @ noise).reshape(nx, n, n)
    along_y = _smoother(grid.y, nodes, sd) @ along_x.transpose(1, 2, 0).reshape(n, n * nx)
    along_y = along_y.reshape(ny, n, nx).transpose(1, 0, 2).reshape(n, ny * nx)
    return (_smoother(grid.z, nodes, sd) @ along_y).reshape(nz, ny, nx)


def tubes(
    grid: Grid,
    starts: np.ndarray,
    ends: np.ndarray,
    radius_start: np.ndarray,
    radius_end: np.ndarray,
) -> np.ndarray:
    """Return how far each voxel is filled (0 to 1) by tapering tubes with round ends.

    Parameters
    ----------
    grid : Grid
    starts, ends : ndarray, shape (n, 3)
        Ends of the axes of the tubes.
    radius_start, radius_end : ndarray, shape (n,)

    Returns
    -------
    ndarray of float32, shape `grid.shape`
    """
    filled = np.zeros(grid.shape, np.float32)
    edge = np.float32(grid.edge_mm)
    for start, end, r0, r1 in zip(starts, ends, radius_start, radius_end, strict=True):
        reach = max(r0, r1) + grid.edge_mm
        box = grid.box(np.minimum(start, end) - reach, np.maximum(start, end) + reach)
        part = filled[box]
        if part.size == 0:
            continue
        length = np.float32(max(np.linalg.norm(end - start), 1e-6))
        ux, uy, uz = ((end - start) / length).astype(np.float32)
        dx, dy, dz = grid.sub(box).offsets(start)
        along = dx * ux + dy * uy + dz * uz
        nearest = np.clip(along, 0, length)
        distance2 = (dx * dx + dy * dy + dz * dz) - nearest * (2 * along - nearest)
        radius = np.float32(r0) + nearest * np.float32((r1 - r0) / length)
        depth = (radius - np.sqrt(np.maximum(distance2, 0))) / edge + np.float32(0.5)
        np.maximum(part, np.clip(depth, 0, 1), out=part)
    return filled


def ellipsoid(
    grid: Grid, centre: np.ndarray, semi: np.ndarray, rotation: np.ndarray | None = None
) -> tuple[tuple[slice, slice, slice], np.ndarray]:
    """Return a box of the grid and the signed distance to an ellipsoid in it.

    Parameters
    ----------
    grid : Grid
    centre, semi : array-like, shape (3,)
        Centre and semi-axes.
    rotation : ndarray, shape (3, 3), optional
        Its rows are the directions of the semi-axes.

    Returns
    -------
    box : tuple of slices (z, y, x)
        Holds the ellipsoid and 4 mm around it.
    distance : ndarray of float32
        To first order the distance to the surface in mm, negative inside.
    """
    semi = np.asarray(semi, float)
    rotation = np.eye(3) if rotation is None else rotation
    reach = np.sqrt(((rotation * semi[:, None]) ** 2).sum(axis=0)) + 4
    box = grid.box(np.asarray(centre) - reach, np.asarray(centre) + reach)
    dx, dy, dz = grid.sub(box).offsets(centre)
    square = np.float32(0)
    for (mx, my, mz), length in zip(
        rotation.astype(np.float32), semi.astype(np.float32), strict=True
    ):
        part = (dx * (mx / length) + dy * (my / length)) + dz * (mz / length)
        square = square + part * part
    return box, (np.sqrt(square) - np.float32(1)) * np.float32(semi.min())


def blend(volume: np.ndarray, filled: np.ndarray, hu: float) -> None:
    """Put `hu` into `volume` where `filled` (0 to 1, mostly 0) says how far."""
    at = np.flatnonzero(filled > 0)
    flat, share = volume.reshape(-1), filled.reshape(-1)[at]
    flat[at] += share * (np.float32(hu) - flat[at])


def fill(volume: np.ndarray, box: tuple, distance: np.ndarray, hu, edge_mm: float) -> None:
    """Fill the part of `volume` where `distance` is negative with `hu`, with a soft edge."""
    part = volume[box]
    alpha = np.clip(np.float32(0.5) - distance / np.float32(edge_mm), 0, 1)
    part += alpha * (hu - part)


def rotation(rng: np.random.Generator, axis: int, degrees: float, spread: float) -> np.ndarray:
    """Return a rotation about x, y or z (axis 0, 1, 2) by about `degrees`."""
    angle = np.deg2rad(degrees + spread * rng.uniform(-1, 1))
    i, j = [k for k in range(3) if k != axis]
    matrix = np.eye(3)
    matrix[i, i] = matrix[j, j] = np.cos(angle)
    matrix[i, j], matrix[j, i] = -np.sin(angle), np.sin(angle)
    return matrix


def tree(
    points: np.ndarray, root: np.ndarray, leaf_mm: float, exponent: float, largest_mm: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Connect points to a branching vessel that leaves `root`.

    Points are taken in the order of their distance from the root; each hangs on the node that is
    near and lies in its way. The radius grows with the number of leaves that are fed.

    Parameters
    ----------
    points : ndarray, shape (n, 3)
    root : ndarray, shape (3,)
    leaf_mm, largest_mm : float
        Radius of the last branches, and the largest radius.
    exponent : float
        Radius = `leaf_mm` times (number of leaves) to this power; Murray's law says 1/3.

    Returns
    -------
    starts, ends : ndarray, shape (n, 3)
    radius_start, radius_end : ndarray, shape (n,)
    """
    order = np.argsort(((points - root) ** 2).sum(axis=1), kind="stable")
    nodes = np.vstack([root, points[order]])
    outward = nodes - root
    outward /= np.maximum(np.linalg.norm(outward, axis=1, keepdims=True), 1e-6)
    parent = np.zeros(len(nodes), int)
    for i in range(1, len(nodes)):
        step = nodes[i] - nodes[:i]
        length = np.sqrt((step**2).sum(axis=1))
        straight = (step * outward[:i]).sum(axis=1) / np.maximum(length, 1e-6)
        parent[i] = np.argmin(length * (1.7 - straight))
    leaves = np.zeros(len(nodes))
    for i in range(len(nodes) - 1, 0, -1):
        leaves[i] = max(leaves[i], 1)
        leaves[parent[i]] += leaves[i]
    radius = np.minimum(leaf_mm * np.maximum(leaves, 1) ** exponent, largest_mm)
    radius[parent[1:]] = np.maximum(radius[parent[1:]], radius[1:])
    start = np.minimum(radius[parent[1:]], 1.35 * radius[1:])
    return nodes[parent[1:]], nodes[1:], start, radius[1:]
