"""Backgrounds: the body wall, and the lung in it; kidney and liver are in ``abdomen``.

Each organ is a frozen dataclass with two steps. ``sample`` draws an anatomy and places the lesions
in it; ``render`` draws the tissue (HU) on a grid. Nothing here depends on the acquisition. The
frame of :mod:`~tumorbench_phantoms.primitives` is centred on the scanned cube; `centre` is
where that centre lies in the body (LPS mm, origin in the midline between front and back).

These are geometric sketches, not atlases: they give a network the tissue interfaces, the vessel
cross-sections and the textures of CT, and nothing that a diagnosis could rest on.
"""

from dataclasses import dataclass, replace

import numpy as np

from tumorbench_phantoms.primitives import (
    Grid,
    blend,
    ellipsoid,
    field,
    fill,
    tree,
    tubes,
)

#: Lesion centres keep this distance (mm) from the centre of the cube on every axis.
SPREAD_MM = 30.0


@dataclass(frozen=True)
class Wall:
    """The body wall around an elliptic cavity: muscle with ribs, fat, skin, air."""

    semi: tuple[float, float]
    muscle_mm: float
    fat_mm: float
    rib_phase: float
    rib_step: float
    taper: float

    @classmethod
    def sample(cls, rng: np.random.Generator, lateral: float, depth: float) -> "Wall":
        """Draw a wall around a cavity with about these semi-axes (mm)."""
        scale = rng.normal(1, 0.05)
        return cls(
            (lateral * scale, depth * scale * rng.normal(1, 0.03)),
            rng.uniform(5, 14),
            rng.gamma(3.0, 4.0) + 3,
            rng.uniform(0, 1),
            rng.uniform(24, 30),
            rng.uniform(-0.06, 0.12),
        )

    def distance(self, x, y):
        """Return the distance (mm, positive outside) to the inner surface of the wall."""
        a, b = self.semi
        rho = np.sqrt((x / a) ** 2 + (y / b) ** 2)
        slope = np.sqrt((x / a**2) ** 2 + (y / b**2) ** 2)
        return (rho - 1) * rho / np.maximum(slope, 1e-3)

    def inwards(self, point: np.ndarray, margin: float) -> np.ndarray:
        """Return `point` (x, y, z), moved towards the middle until it is `margin` from the wall."""
        factors = np.linspace(1, 0, 101)[:, None]
        x, y = (factors * point[:2]).T
        near = np.flatnonzero(self.distance(x, y) <= -margin)
        return np.append(factors[near[0]] * point[:2], point[2]) if near.size else point

    def render(self, volume: np.ndarray, grid: Grid, centre: np.ndarray) -> None:
        """Draw the wall over `volume`."""
        x, y = grid.x + centre[0], grid.y[:, None] + centre[1]
        flat = self.distance(x, y).ravel()
        slope = self.taper * grid.z
        columns = np.flatnonzero(flat > -2 - slope.max())
        if columns.size == 0:
            return
        muscle, fat = 11 + self.muscle_mm, 11 + self.muscle_mm + self.fat_mm
        knots = [0, 1.5, 2.5, 10.5, 11.5, muscle, muscle + 1, fat, fat + 0.5, fat + 2, fat + 3]
        tissue = [50, 50, 30, 30, 58, 58, -105, -105, 20, 20, -1000]
        # The distance is counted in steps of 1/8 mm: tables instead of arithmetic on every voxel.
        step = np.add.outer(np.rint(8 * slope).astype(int), np.rint(8 * flat[columns]).astype(int))
        lowest = int(step.min())
        depth = np.arange(lowest, int(step.max()) + 1) / 8
        step -= lowest
        hu = np.interp(depth, knots, tissue).astype(np.float32)[step]
        arc = np.arctan2(y / self.semi[1], np.abs(x) / self.semi[0]).ravel()[columns]
        layer = np.flatnonzero(((depth > 1) & (depth < 11.5))[step])
        row, column = np.divmod(layer, columns.size)
        along = (grid.z + centre[2])[row] - 0.275 * sum(self.semi) * arc[column]
        along = (along / self.rib_step + self.rib_phase) % 1 - 0.5
        across = ((depth - 6) / 4.4)[step.ravel()[layer]]
        bone = np.sqrt(across**2 + (along * self.rib_step / 6.5) ** 2)
        rib = np.interp(bone, [0, 0.6, 0.75, 0.92, 1.1], [140, 220, 720, 620, 30])
        part = hu.reshape(-1)
        outer = np.clip(1.1 - bone, 0, 0.15) / 0.15
        part[layer] += (outer * (rib - part[layer])).astype(np.float32)
        alpha = np.clip(0.5 + depth / grid.edge_mm, 0, 1).astype(np.float32)[step]
        planes = volume.reshape(len(grid.z), -1)
        below = planes[:, columns]
        planes[:, columns] = below + alpha * (hu - below)


def spine(volume: np.ndarray, grid: Grid, centre: np.ndarray, y: float) -> None:
    """Draw a vertebral body with its cortex and canal, the front of the body at about `y`."""
    for middle, semi, hu in (
        ((0, y + 14, 0), (21, 17, 400), 480),
        ((0, y + 14, 0), (19, 15, 400), 190),
        ((0, y + 38, 0), (17, 12, 400), 420),
        ((0, y + 37, 0), (10, 9, 400), 30),
    ):
        box, d = ellipsoid(grid, np.asarray(middle) - [centre[0], centre[1], 0], semi)
        fill(volume, box, d * 1.0, np.float32(hu), grid.edge_mm)


def scatter(rng, radii, allowed, centre, first) -> np.ndarray:
    """Place the lesions of one scan around `centre`: the first is given, the others keep apart.

    `allowed(points, radius)` tells which of the points (n, 3) suit a lesion. The first candidate
    that keeps 6 mm from the lesions placed before is taken, else the one with the widest gap.
    """
    placed = [first]
    for radius in radii[1:]:
        candidates = centre + rng.uniform(-SPREAD_MM, SPREAD_MM, (300, 3))
        fits = allowed(candidates, radius)
        if fits.any():
            candidates = candidates[fits]
        away = np.linalg.norm(candidates[:, None] - np.array(placed), axis=2)
        gaps = (away - radii[: len(placed)] - radius).min(axis=1)
        good = np.flatnonzero(gaps > 6)
        placed.append(candidates[good[0] if good.size else int(np.argmax(gaps))])
    return np.array(placed)


@dataclass(frozen=True)
class Lung:
    """Lung parenchyma with vessels and bronchi, mediastinum, diaphragm and chest wall."""

    wall: Wall
    side: int
    heart: tuple[float, float]
    dome: tuple[float, float, float]
    centre: np.ndarray
    positions: np.ndarray
    parenchyma_hu: float
    emphysema_hu: float
    blood_hu: float
    entropy: int

    @classmethod
    def sample(cls, rng: np.random.Generator, radii: np.ndarray, factor: float) -> "Lung":
        """Draw an anatomy for lesions of these radii (mm) in a patient with this factor."""
        wall = Wall.sample(rng, 138, 98)
        side = int(rng.choice((-1, 1)))
        heart = (rng.uniform(44, 56) + (12 if side > 0 else 0), rng.uniform(58, 74))
        angle = np.deg2rad(rng.uniform(-55, 55))
        depth = radii[0] + rng.gamma(1.6, 9.0)
        radial = np.array([side * np.cos(angle), np.sin(angle)])
        rim = 1 / np.hypot(radial[0] / wall.semi[0], radial[1] / wall.semi[1])
        first = np.append(radial * max(rim - depth, 0.45 * rim), rng.uniform(-70, 80))
        jitter = 10 if len(radii) == 1 else 24
        centre = first + rng.uniform(-jitter, jitter, 3)
        dome_z = first[2] - radii[0] - 6 - rng.gamma(1.5, 45.0)
        dome = (side * rng.uniform(60, 80), rng.uniform(-15, 15), dome_z)
        lung = cls(
            wall, side, heart, dome, centre, np.zeros((1, 3)), 0.0, 0.0, 0.0,
            int(rng.integers(2**62)),
        )  # fmt: skip
        positions = scatter(rng, radii, lung._holds, centre, first)
        draw = rng.normal(size=2)
        return replace(
            lung,
            positions=(positions - centre),
            parenchyma_hu=float(np.clip(-862 + 16 * factor + 12 * draw[0], -915, -800)),
            emphysema_hu=float(35 * np.exp(0.5 * factor + 0.5 * draw[1])),
            blood_hu=float(rng.choice((42.0, 150.0), p=(0.6, 0.4))),
        )

    def _dome_height(self, x, y):
        """Return the height of the diaphragm (mm) above the points (x, y)."""
        flat = ((x - self.dome[0]) / 13) ** 2 + ((y - self.dome[1]) / 12) ** 2
        return self.dome[2] - flat

    def _holds(self, points: np.ndarray, radius: float) -> np.ndarray:
        """Tell which points (n, 3) in the body lie in the lung with `radius` of it around."""
        x, y, z = points.T
        inside = self.wall.distance(x, y) < -(radius + 1)
        inside &= self._dome_height(x, y) + radius + 1 < z
        heart = np.hypot(x / (self.heart[0] + radius + 2), y / (self.heart[1] + radius + 2)) > 1
        return inside & heart & (np.sign(x) == self.side)

    def render(self, grid: Grid, breath_hu: float = 0.0) -> np.ndarray:
        """Draw the tissue; `breath_hu` makes the parenchyma denser (less air) or lighter."""
        rng = np.random.default_rng(self.entropy)
        cx, cy, cz = self.centre
        volume = field(rng, grid, 3.0)
        volume *= np.float32(14)
        # Denser towards the back, where the blood sinks; lighter where emphysema has left holes.
        volume += (np.float32(self.parenchyma_hu + breath_hu) + np.float32(0.16) * grid.y)[:, None]
        holes = field(rng, grid, 11.0)
        holes = np.float32(8) * holes - np.float32(self.emphysema_hu) * np.clip(holes - 0.6, 0, 2)
        volume += holes
        self._vessels(rng, volume, grid)
        box, d = ellipsoid(grid, (8 - cx, -8 - cy, -cz), (*self.heart, 400))
        fat = np.clip(field(rng, grid.sub(box), 14.0) * 3 - 1.2, 0, 1)
        depth = np.clip(-d / 6, 0, 1)
        fill(volume, box, d, np.float32(42) - np.float32(120) * fat * depth, grid.edge_mm)
        aorta = np.array([[24.0, 42.0, 300.0], [24.0, 42.0, -300.0]]) - self.centre
        cava = np.array([[-26.0, -22.0, 300.0], [-24.0, -14.0, -300.0]]) - self.centre
        great = tubes(
            grid, np.array([aorta[0], cava[0]]), np.array([aorta[1], cava[1]]), [13, 10], [12, 10]
        )
        blend(volume, great, self.blood_hu)
        spine(volume, grid, self.centre, 52)
        self._diaphragm(rng, volume, grid)
        self.wall.render(volume, grid, self.centre)
        return volume

    def _vessels(self, rng, volume, grid) -> None:
        """Draw the vessels of the lung and the bronchi beside the larger ones."""
        points = self.centre + rng.uniform(-78, 78, (1100, 3))
        points = points[self._holds(points, 2.0)]
        hilum = np.array([self.side * 40.0, 4.0, 0.6 * self.centre[2]])
        starts, ends, r0, r1 = tree(points, hilum, 0.55, 0.40, 7.0)
        starts, ends = starts - self.centre, ends - self.centre
        blood = tubes(grid, starts, ends, r0, r1)
        blend(volume, blood, self.blood_hu)
        large = np.flatnonzero((r1 > 1.7) & (r1 < 5))[:60]
        if large.size == 0:
            return
        shift = rng.normal(0, 0.3, (1, 3)) + np.array([0.9, 0.5, 0.3])
        shift = shift / np.linalg.norm(shift) * (r0[large] * 1.9 + 0.6)[:, None]
        first, last = starts[large] + shift, ends[large] + shift
        for factor, hu in ((1.15, -150.0), (0.8, -960.0)):
            pipe = tubes(grid, first, last, factor * r0[large], factor * r1[large])
            blend(volume, pipe, hu)

    def _diaphragm(self, rng, volume, grid) -> None:
        """Draw the organ under the diaphragm."""
        x, y = grid.x + self.centre[0], grid.y[:, None] + self.centre[1]
        height = (self._dome_height(x, y) - self.centre[2]).astype(np.float32)
        top = np.searchsorted(grid.z, height.max() + 2)
        if top == 0:
            return
        box = (slice(0, top), slice(None), slice(None))
        d = grid.z[:top, None, None] - height
        hu = np.float32(95 if self.blood_hu > 100 else 58) + 4 * field(rng, grid.sub(box), 6.0)
        fill(volume, box, d * np.float32(0.7), hu, grid.edge_mm)
