"""Backgrounds of the abdomen: a kidney in fat, a liver with its vessels."""

from dataclasses import dataclass

import numpy as np

from tumorbench_phantoms.anatomy import Wall, scatter, spine
from tumorbench_phantoms.primitives import (
    Grid,
    blend,
    ellipsoid,
    field,
    fill,
    rotation,
    tree,
    tubes,
)


@dataclass(frozen=True)
class Kidney:
    """A kidney with cortex, medulla and sinus in fat, muscles, spine and the organ in front."""

    wall: Wall
    side: int
    middle: np.ndarray
    semi: np.ndarray
    tilt: np.ndarray
    centre: np.ndarray
    positions: np.ndarray
    cortex_hu: float
    medulla_hu: float
    stranding_hu: float
    entropy: int

    @classmethod
    def sample(cls, rng: np.random.Generator, radii: np.ndarray, factor: float) -> "Kidney":
        """Draw an anatomy for lesions of these radii (mm) in a patient with this factor."""
        wall = Wall.sample(rng, 142, 104)
        side = int(rng.choice((-1, 1)))
        semi = np.array([30, 25, 55]) * rng.normal(1, 0.07, 3)
        tilt = rotation(rng, 2, 35 * side, 12) @ rotation(rng, 1, 12 * side, 8)
        middle = np.array([side * rng.uniform(62, 76), rng.uniform(28, 42), 0.0])
        # Towards the side and the back, away from the hilum: tumours grow out of the cortex there.
        direction = np.array([side * abs(rng.normal(0.7, 0.5)), rng.normal(0, 0.6), rng.normal()])
        direction = tilt @ direction
        direction /= np.linalg.norm(direction)
        surface = (tilt.T * semi) @ direction
        outward = rng.uniform(-0.45, 0.45) * radii[0]
        first = middle + surface * max(1 + outward / np.linalg.norm(surface), 0.35)
        first = wall.inwards(first, 0.95 * radii[0])
        centre = first + rng.uniform(-10, 10, 3)
        draw = rng.normal(size=3)
        return cls(
            wall,
            side,
            middle,
            semi,
            tilt,
            centre,
            scatter(rng, radii, lambda p, r: np.ones(len(p), bool), centre, first) - centre,
            float(185 + 22 * draw[0] - 8 * factor),
            float(95 + 12 * draw[1]),
            float(6 * np.exp(0.45 * factor + 0.3 * draw[2])),
            int(rng.integers(2**62)),
        )

    def render(self, grid: Grid, breath_hu: float = 0.0) -> np.ndarray:
        """Draw the tissue; `breath_hu` is for lungs and has no effect here."""
        rng = np.random.default_rng(self.entropy)
        fine, coarse = field(rng, grid, 5.0), field(rng, grid, 16.0)
        volume = np.float32(-108) + np.float32(self.stranding_hu) * fine
        self._neighbours(rng, volume, grid, coarse)
        self._vessels(rng, volume, grid)
        middle = self.middle - self.centre
        box, d = ellipsoid(grid, middle, self.semi, self.tilt)
        lumps, fine, part = coarse[box], fine[box], grid.sub(box)
        d = d + np.float32(0.9) * lumps
        wave = field(rng, part, 11.0)
        # The border of cortex and medulla folds inwards between the pyramids.
        border = np.clip((-d - 6 - 2.2 * wave) / 1.2 + 0.5, 0, 1)
        pyramid = border * np.clip((wave + 0.75) * 2.5, 0, 1)
        hu = np.float32(self.cortex_hu) + (
            np.float32(self.medulla_hu - self.cortex_hu) * pyramid + np.float32(5) * fine
        )
        fill(volume, box, d, hu, grid.edge_mm)
        inner = middle - np.array([self.side * 13.0, -3.0, 0.0])
        box, d = ellipsoid(grid, inner, self.semi * [0.55, 0.42, 0.58], self.tilt)
        d = d + np.float32(2.0) * coarse[box]
        fill(volume, box, d, np.float32(-85), grid.edge_mm)
        box, d = ellipsoid(grid, inner - [self.side * 3.0, 0, 0], (8, 6, 16), self.tilt)
        fill(volume, box, d + coarse[box], np.float32(12), grid.edge_mm)
        self.wall.render(volume, grid, self.centre)
        return volume

    def _neighbours(self, rng, volume, grid, coarse) -> None:
        """Draw muscles, spine, and the liver (right) or spleen and bowel (left) in front."""
        side = self.side
        for middle, semi, hu in (
            ((side * 38, 46, 0), (17, 21, 400), 62),
            ((side * 66, 84, 0), (30, 13, 400), 60),
        ):
            box, d = ellipsoid(grid, np.asarray(middle) - [*self.centre[:2], 0], semi)
            fill(volume, box, d + np.float32(0.8) * coarse[box], np.float32(hu), grid.edge_mm)
        if side < 0:
            organs = [((-88, -52, 35), (62, 52, 95), 88)]
        else:
            organs = [((104, -6, 75), (36, 42, 52), 118), ((52, -52, 10), (38, 24, 60), 62)]
        for middle, semi, hu in organs:
            box, d = ellipsoid(grid, np.asarray(middle) - self.centre, semi)
            texture = np.float32(hu) + np.float32(4) * field(rng, grid.sub(box), 5.0)
            fill(volume, box, d + np.float32(1.5) * coarse[box], texture, grid.edge_mm)
        if side > 0:
            box, d = ellipsoid(grid, np.array([52, -62, 10]) - self.centre, (26, 12, 48))
            fill(volume, box, d + 2 * coarse[box], np.float32(-700), grid.edge_mm)
        spine(volume, grid, self.centre, 34)

    def _vessels(self, rng, volume, grid) -> None:
        """Draw aorta, vena cava and the renal vessels."""
        hilum = self.middle - [self.side * 20.0, -2.0, 0.0]
        root = np.array([self.side * 4.0, 18.0, hilum[2] + 12])
        starts = np.array([[14.0, 18, 300], [-20.0, 12, 300], root, root + np.array([0, -10, -8])])
        ends = np.array([[14.0, 18, -300], [-20.0, 12, -300], hilum, hilum + np.array([0, -4, -8])])
        blood = tubes(
            grid, starts - self.centre, ends - self.centre, [10, 11, 3, 5], [10, 11, 2.5, 4]
        )
        blend(volume, blood, 215)


@dataclass(frozen=True)
class Liver:
    """Liver parenchyma with portal and hepatic veins, lung base, abdominal wall and fat."""

    wall: Wall
    dome: tuple[float, float, float]
    below: float
    centre: np.ndarray
    positions: np.ndarray
    liver_hu: float
    vessel_hu: float
    entropy: int

    @classmethod
    def sample(cls, rng: np.random.Generator, radii: np.ndarray, factor: float) -> "Liver":
        """Draw an anatomy for lesions of these radii (mm) in a patient with this factor."""
        wall = Wall.sample(rng, 140, 100)
        angle = np.deg2rad(rng.uniform(-50, 50))
        radial = np.array([-np.cos(angle), np.sin(angle)])
        rim = 1 / np.hypot(radial[0] / wall.semi[0], radial[1] / wall.semi[1])
        depth = radii[0] + 3 + rng.gamma(2.0, 12.0)
        first = np.append(radial * max(rim - depth, 0.4 * rim), rng.uniform(-30, 30))
        centre = first + rng.uniform(-10, 10, 3)
        dome_z = first[2] + radii[0] + 4 + rng.gamma(1.5, 30.0)
        below = first[2] - radii[0] - 4 - rng.gamma(1.5, 40.0)
        draw = rng.normal(size=2)
        liver_hu = float(np.clip(104 - 11 * factor + 8 * draw[0], 50, 135))
        return cls(
            wall,
            (-70.0, rng.uniform(-10, 10), dome_z),
            below,
            centre,
            scatter(rng, radii, lambda p, r: np.ones(len(p), bool), centre, first) - centre,
            liver_hu,
            liver_hu + float(np.clip(48 + 9 * draw[1], 25, 75)),
            int(rng.integers(2**62)),
        )

    def render(self, grid: Grid, breath_hu: float = 0.0) -> np.ndarray:
        """Draw the tissue; `breath_hu` is for lungs and has no effect here."""
        rng = np.random.default_rng(self.entropy)
        fine, coarse = field(rng, grid, 4.0), field(rng, grid, 22.0)
        volume = np.float32(self.liver_hu) + np.float32(3) * fine + np.float32(3) * coarse
        self._vessels(rng, volume, grid)
        # Visceral surface: fat, stomach and the upper kidney lie below and medially.
        x, y, z = grid.offsets(-self.centre)
        floor = np.float32(self.below) - z + np.float32(0.45) * np.maximum(x + 60, 0)
        d = np.maximum(floor, x + np.float32(28) - np.float32(0.15) * y)
        d += np.float32(4) * coarse
        whole = (slice(None),) * 3
        other = np.float32(-100) + np.float32(8) * fine
        other += np.float32(150) * np.clip(6 * coarse - np.float32(3), 0, 1)
        fill(volume, whole, -d, other, grid.edge_mm)
        great = np.array([[16.0, 30.0, 300.0], [-22.0, 14.0, 300.0]]) - self.centre
        blood = tubes(grid, great, great - [0, 0, 600], [11, 12], [11, 12])
        blend(volume, blood, self.vessel_hu + 5)
        spine(volume, grid, self.centre, 44)
        self._lung_base(rng, volume, grid)
        self.wall.render(volume, grid, self.centre)
        return volume

    def _vessels(self, rng, volume, grid) -> None:
        """Draw the portal vein and the hepatic veins."""
        for root, n, leaf, largest, shift in (
            ((-18.0, 8.0, self.below + 30), 170, 1.0, 6.5, 0.0),
            ((-22.0, 14.0, self.dome[2] - 12), 110, 1.1, 5.0, 6.0),
        ):
            points = self.centre + rng.uniform(-78, 78, (n, 3))
            starts, ends, r0, r1 = tree(points, np.asarray(root), leaf, 0.40, largest)
            blood = tubes(grid, starts - self.centre, ends - self.centre, r0, r1)
            blend(volume, blood, self.vessel_hu - shift)

    def _lung_base(self, rng, volume, grid) -> None:
        """Draw the lung above the dome of the liver."""
        x, y = grid.x + self.centre[0], grid.y[:, None] + self.centre[1]
        flat = ((x - self.dome[0]) / 13) ** 2 + ((y - self.dome[1]) / 12) ** 2
        height = (self.dome[2] - flat - self.centre[2]).astype(np.float32)
        first = np.searchsorted(grid.z, height.min() - 2)
        if first == len(grid.z):
            return
        box = (slice(int(first), None), slice(None), slice(None))
        d = height - grid.z[box[0], None, None]
        hu = np.float32(-850) + np.float32(18) * field(rng, grid.sub(box), 3.0)
        fill(volume, box, d * np.float32(0.7), hu, grid.edge_mm)
