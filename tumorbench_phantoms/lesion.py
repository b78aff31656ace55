"""The lesion: its outline, what it is made of, and how it is drawn into a background."""

from dataclasses import dataclass

import numpy as np

from tumorbench_phantoms.primitives import Grid, field, tubes

#: Attenuation (HU) of pure ground glass: half air, half tissue.
GROUND_GLASS_HU = -620.0
_NECROSIS_HU = 5.0
_CALCIUM_HU = 650.0
_LIMITS = (
    ("diameter_mm", 1, 120),
    ("lobulation", 0, 1),
    ("spiculation", 0, 1),
    ("attenuation_hu", -1000, 1000),
    ("ground_glass", 0, 1),
    ("texture_hu", 0, 500),
    ("texture_length_mm", 0.5, 30),
    ("necrosis", 0, 1),
    ("calcification", 0, 1),
    ("rim_hu", 0, 500),
)


@dataclass(frozen=True)
class Lesion:
    """The phenotype of one lesion: everything that its image depends on but place and noise.

    Parameters
    ----------
    diameter_mm : float
        Diameter of the ball of the same volume.
    lobulation, spiculation : float
        0 (smooth) to 1: relative depth of the lobes; number and length of the spicules.
    attenuation_hu : float
        Mean HU of the solid tissue.
    ground_glass : float
        Share of the volume, from the outside, that is ground glass: 0 solid, 1 pure ground glass.
    texture_hu, texture_length_mm : float
        Standard deviation and correlation length (1/e) of the texture.
    necrosis : float
        Radius of the necrotic core as a share of the lesion's radius, 0 for none.
    calcification : float
        Size of the calcified foci, 0 for none.
    rim_hu : float
        Enhancement of the outer 3 mm above `attenuation_hu`.
    entropy : int
        Seed of shape and texture.
    """

    diameter_mm: float
    lobulation: float = 0.0
    spiculation: float = 0.0
    attenuation_hu: float = 30.0
    ground_glass: float = 0.0
    texture_hu: float = 0.0
    texture_length_mm: float = 3.0
    necrosis: float = 0.0
    calcification: float = 0.0
    rim_hu: float = 0.0
    entropy: int = 0

    def __post_init__(self):
        for name, low, high in _LIMITS:
            if not low <= getattr(self, name) <= high:
                value = getattr(self, name)
                raise ValueError(f"{name} is {value!r}, it must lie between {low} and {high}")

    @property
    def mean_hu(self) -> float:
        """Mean HU of tissue and ground glass, without core, rim and calcium."""
        return (1 - self.ground_glass) * self.attenuation_hu + self.ground_glass * GROUND_GLASS_HU


def _directions(n: int) -> np.ndarray:
    """Return `n` directions spread evenly over the sphere (Fibonacci lattice), shape (n, 3)."""
    k = np.arange(n) + 0.5
    height, turn = 1 - 2 * k / n, np.pi * (1 + 5**0.5) * k
    flat = np.sqrt(1 - height**2)
    return np.stack([flat * np.cos(turn), flat * np.sin(turn), height], axis=1)


class _Outline:
    """A star-shaped outline: radius as a function of the direction from the centre."""

    def __init__(self, lesion: Lesion, rng: np.random.Generator):
        lobes = rng.normal(size=(12, 3))
        self.lobes = (lobes / np.linalg.norm(lobes, axis=1, keepdims=True)).astype(np.float32)
        self.height = (1.1 * lesion.lobulation * rng.uniform(0.4, 1, 12)).astype(np.float32)
        self.stretch = np.exp(rng.normal(0, 0.09, 3)).astype(np.float32)
        self.radius = 1.0
        volume = (self.relative(_directions(600).astype(np.float32)) ** 3).mean()
        self.radius = 0.5 * lesion.diameter_mm / volume ** (1 / 3)

    def relative(self, unit: np.ndarray) -> np.ndarray:
        """Return the radius in the directions `unit`, shape (n, 3), in units of `radius`."""
        radius = np.empty(len(unit), np.float32)
        # In blocks that stay in the processor's cache.
        for start in range(0, len(unit), 4096):
            block = unit[start : start + 4096]
            bump = (1 + block @ self.lobes.T) * np.float32(0.5)
            for _ in range(3):
                bump *= bump
            squared = ((block / self.stretch) ** 2).sum(1)
            # The centre has no direction; any finite radius leaves it inside.
            stretched = np.float32(1) / np.sqrt(np.maximum(squared, np.float32(1e-6)))
            radius[start : start + 4096] = stretched + bump @ self.height
        return radius

    def reach(self) -> float:
        """Return a radius (mm) that the outline does not exceed."""
        return self.radius * float(self.relative(_directions(600).astype(np.float32)).max() + 0.03)


def _tissue(lesion: Lesion, rng, depth, relative, texture) -> np.ndarray:
    """Return the HU of the lesion's tissue.

    Parameters
    ----------
    depth : ndarray
        Distance (mm) to the outline, positive inside.
    relative : ndarray
        Distance from the centre as a share of the radius in that direction.
    texture : ndarray
        Smooth noise of variance 1.
    """
    hu = np.float32(lesion.attenuation_hu) + np.float32(lesion.texture_hu) * texture
    if lesion.rim_hu > 0:
        hu += np.float32(lesion.rim_hu) * np.exp(-(((depth - 1.5) / 1.6) ** 2))
    if lesion.ground_glass > 0:
        core = (1 - lesion.ground_glass) ** (1 / 3)
        share = np.clip((relative + np.float32(0.06) * texture - core) / 0.12 + 0.5, 0, 1)
        glass = np.float32(GROUND_GLASS_HU - lesion.attenuation_hu)
        hu += (share if lesion.ground_glass < 1 else np.float32(1)) * glass
    if lesion.necrosis > 0:
        inner = np.float32(lesion.necrosis) * (1 + np.float32(0.12) * texture)
        share = np.clip((inner - relative) / 0.10 + 0.5, 0, 1)
        hu += share * (np.float32(_NECROSIS_HU) - hu)
    return hu


def _points_in(rng, n: int, reach: float) -> np.ndarray:
    """Return `n` random points in the ball of radius `reach`, shape (n, 3)."""
    unit = rng.normal(size=(n, 3))
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    return unit * reach * rng.uniform(0, 1, (n, 1)) ** (1 / 3)


def draw(lesion: Lesion, centre: np.ndarray, grid: Grid, volume: np.ndarray | None) -> tuple:
    """Draw a lesion into `volume` and return what it fills.

    Parameters
    ----------
    lesion : Lesion
    centre : ndarray, shape (3,)
        Its centre (x, y, z) in the frame of the phantom.
    grid : Grid
    volume : ndarray, shape `grid.shape`, or None
        Changed in place. With None only the outline is computed.

    Returns
    -------
    box : tuple of slices (z, y, x)
    filled : ndarray of float32
        In that box, how far each voxel is filled by the lesion's body (0 to 1), spicules excluded.
    """
    rng = np.random.default_rng(lesion.entropy)
    outline = _Outline(lesion, rng)
    spicules = _spicules(lesion, outline, rng)
    reach = outline.reach() + 2
    longest = max(reach, float(np.abs(spicules[1]).max(initial=0)) + 2)
    box = grid.box(centre - longest, centre + longest)
    part = grid.sub(box)
    dx, dy, dz = part.offsets(centre)
    distance = np.sqrt(dx * dx + dy * dy + dz * dz) + np.float32(1e-3)
    filled = np.zeros(part.shape, np.float32)
    near = np.nonzero(distance < reach)
    unit = np.stack([dx[0, 0][near[2]], dy[0, :, 0][near[1]], dz[:, 0, 0][near[0]]], axis=1)
    distance = distance[near]
    radius = outline.relative(unit / distance[:, None]) * np.float32(outline.radius)
    depth = radius - distance
    edge = grid.edge_mm + (1.5 * lesion.ground_glass if lesion.diameter_mm > 6 else 0.0)
    filled[near] = np.clip(depth / np.float32(edge) + np.float32(0.5), 0, 1)
    if volume is None or part.z.size == 0:
        return box, filled
    shifted = Grid(part.z - centre[2], part.y - centre[1], part.x - centre[0], grid.edge_mm)
    texture = field(rng, shifted, lesion.texture_length_mm, reach)
    hu = np.full(part.shape, lesion.mean_hu, np.float32)
    hu[near] = _tissue(lesion, rng, depth, distance / radius, texture[near])
    target = volume[box]
    if len(spicules[0]):
        strands = tubes(shifted, *spicules)
        target += strands * (np.float32(min(lesion.attenuation_hu, 20.0)) - target)
    target += filled * (hu - target)
    calcium = _calcium(lesion, rng)
    if len(calcium[0]):
        target += tubes(shifted, *calcium) * filled * (np.float32(_CALCIUM_HU) - target)
    return box, filled


def _spicules(lesion: Lesion, outline: _Outline, rng) -> tuple:
    """Return the strands that leave the surface, as arguments of :func:`tubes`."""
    # About one strand per 16 mm2 of surface at the most; thicker and longer on large lesions.
    dense = 40 + 0.06 * 4 * np.pi * outline.radius**2
    n = min(round(dense * lesion.spiculation), 400)
    unit = rng.normal(size=(400, 3))
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    bend = rng.normal(0, 0.22, (400, 3))
    length = rng.uniform(0.3, 1.1, 400) * (1.5 + 0.3 * outline.radius + 6 * lesion.spiculation)
    unit, bend, length = unit[:n], bend[:n], length[:n, None]
    surface = outline.relative(unit.astype(np.float32))[:, None] * outline.radius
    start = unit * 0.85 * surface
    end = unit * surface + (unit + bend) * length
    return start, end, np.full(n, 0.6 + 0.04 * outline.radius), np.full(n, 0.2)


def _calcium(lesion: Lesion, rng) -> tuple:
    """Return calcified foci, as arguments of :func:`tubes`."""
    foci = _points_in(rng, 5, 0.28 * lesion.diameter_mm)
    foci[0] *= 0.3
    size = 0.5 * lesion.diameter_mm * lesion.calcification * np.array([0.6, 0.35, 0.3, 0.25, 0.25])
    if lesion.calcification == 0:
        foci, size = foci[:0], size[:0]
    return foci, foci + 1e-3, size, size
