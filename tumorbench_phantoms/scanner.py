"""The scanner: from tissue to voxels, through slice thickness, kernel and noise."""

from dataclasses import dataclass, field

import numpy as np
import SimpleITK as sitk
from scipy import fft
from scipy.sparse import csr_array

from tumorbench_phantoms.abdomen import Kidney, Liver
from tumorbench_phantoms.anatomy import Lung
from tumorbench_phantoms.lesion import Lesion, draw
from tumorbench_phantoms.primitives import Grid

#: The anatomies by organ name.
ORGANS = {"lung": Lung, "kidney": Kidney, "liver": Liver}


@dataclass(frozen=True)
class Acquisition:
    """How a scan is made.

    Parameters
    ----------
    scanner : str
        Its name; it has no effect on the image by itself.
    spacing_mm : float
        Side of the pixels in the axial plane.
    slice_mm : float
        Distance of the slices.
    thickness_mm : float
        Slice thickness: full width at half maximum of the slice profile.
    sharpness : float
        The kernel, from 0 (smooth) to 1 (sharp, with edge enhancement).
    noise_hu : float
        Standard deviation of the noise in the final image.
    hu_shift : float
        Error of the calibration, added to every voxel.
    field_mm : float
        Side of the scanned cube.
    """

    scanner: str = "A"
    spacing_mm: float = 0.8
    slice_mm: float = 1.25
    thickness_mm: float = 1.25
    sharpness: float = 0.4
    noise_hu: float = 15.0
    hu_shift: float = 0.0
    field_mm: float = 128.0

    def __post_init__(self):
        for name in ("spacing_mm", "slice_mm", "thickness_mm", "field_mm"):
            if not 0 < getattr(self, name) < np.inf:
                raise ValueError(f"{name} is {getattr(self, name)!r}, it must be above 0 mm")
        if not 0 <= self.sharpness <= 1:
            raise ValueError(f"sharpness is {self.sharpness!r}, it must lie between 0 and 1")
        if not 0 <= self.noise_hu < np.inf:
            raise ValueError(f"noise_hu is {self.noise_hu!r}, it must be 0 HU or more")
        if not np.isfinite(self.hu_shift):
            raise ValueError(f"hu_shift is {self.hu_shift!r}, it must be a number of HU")
        if self.field_mm > 150:
            raise ValueError(f"field_mm is {self.field_mm!r}; phantoms are at most 150 mm wide")


@dataclass(frozen=True)
class Case:
    """What is put under a scanner: an anatomy and its lesions.

    Parameters
    ----------
    organ : {"lung", "kidney", "liver"}
    lesions : tuple of Lesion
        The first is the index lesion.
    patient_factor : float
        Standard normal; it shapes the background and, in some cohorts, the outcome.
    entropy : tuple of int
        Seed of the anatomy and of the lesions' places.
    origin_lps : tuple of float
        Where the table of the scanner puts the middle of the body, LPS mm.
    shift_mm : tuple of float
        How far the patient lies from the middle of the scanned cube (x, y, z).
    breath_hu : float
        Change of the lung's attenuation with the depth of breath.
    """

    organ: str
    lesions: tuple[Lesion, ...]
    patient_factor: float = 0.0
    entropy: tuple[int, ...] = (0,)
    origin_lps: tuple[float, float, float] = (0.0, 0.0, 0.0)
    shift_mm: tuple[float, float, float] = (0.0, 0.0, 0.0)
    breath_hu: float = 0.0

    def __post_init__(self):
        if self.organ not in ORGANS:
            raise ValueError(f"unknown organ {self.organ!r}: known are {', '.join(ORGANS)}")
        if not self.lesions:
            raise ValueError("a case needs at least one lesion; scan(..., lesions=False) hides it")

    def anatomy(self):
        """Return the anatomy with the places of the lesions."""
        rng = np.random.default_rng(np.random.SeedSequence(self.entropy))
        radii = np.array([lesion.diameter_mm / 2 for lesion in self.lesions])
        return ORGANS[self.organ].sample(rng, radii, self.patient_factor)


@dataclass(frozen=True)
class Scan:
    """A finished scan.

    Attributes
    ----------
    image : SimpleITK.Image
        int16 HU, axes along LPS.
    masks : tuple of SimpleITK.Image
        One per lesion, uint8, 1 where the lesion fills at least half a voxel. Spicules are not
        part of the mask. They are there for lesions that were left out of the image, too.
    centroids_lps : ndarray, shape (n, 3)
        Mean position of the voxels of each mask, LPS mm.
    """

    image: sitk.Image
    masks: tuple[sitk.Image, ...]
    centroids_lps: np.ndarray = field(repr=False)


def _axis(side_mm: float, step_mm: float) -> np.ndarray:
    """Return the voxel centres of an axis of about `side_mm`, centred on 0."""
    n = max(round(side_mm / step_mm), 1)
    return (np.arange(n) - (n - 1) / 2) * step_mm


def _slice_profile(slices: np.ndarray, planes: np.ndarray, thickness: float) -> csr_array:
    """Return the weights with which thin planes make up the slices, rows summing to 1."""
    weight = np.exp(-4 * np.log(2) * ((slices[:, None] - planes[None]) / thickness) ** 2)
    nearest = np.abs(slices[:, None] - planes[None]).argmin(axis=1)
    weight[weight < 0.02] = 0
    weight[np.arange(len(slices)), nearest] += 1e-6
    return csr_array((weight / weight.sum(axis=1, keepdims=True)).astype(np.float32))


def _transfer(frequency: np.ndarray, sharpness: float) -> np.ndarray:
    """Return the kernel's modulation transfer at spatial frequencies in 1/mm.

    A Gaussian whose 50% point moves from 0.28/mm (smooth) to 0.62/mm (sharp); sharp kernels also
    lift the middle frequencies (edge enhancement).
    """
    half = 0.28 + 0.34 * sharpness
    lift = 1.6 * max(sharpness - 0.5, 0)
    relative = (frequency / half) ** 2
    return (1 + lift * relative) * np.exp(-np.log(2) * relative * (1 + 0.6 * lift))


def _reconstruct(tissue: np.ndarray, acquisition: Acquisition, rng) -> np.ndarray:
    """Apply the kernel to every slice and add noise with the kernel's spectrum.

    The noise power of filtered back projection is the frequency times the squared transfer: sharp
    kernels give fine grain, smooth ones coarse grain.
    """
    n, rows, columns = tissue.shape
    fy = np.fft.fftfreq(rows, acquisition.spacing_mm)[:, None]
    fx = np.fft.rfftfreq(columns, acquisition.spacing_mm)[None]
    frequency = np.hypot(fy, fx)
    transfer = _transfer(frequency, acquisition.sharpness)
    spectrum = fft.rfft2(tissue)
    spectrum *= transfer.astype(np.float32)
    if acquisition.noise_hu > 0:
        power = np.sqrt(frequency + 0.01) * transfer
        # The first and the last column of a half spectrum stand for themselves, the others for two.
        twice = np.full(fx.shape, 2.0)
        twice[0, 0] = 1
        if columns % 2 == 0:
            twice[0, -1] = 1
        total = np.sqrt((twice * power**2).sum() * 2) / (rows * columns)
        amplitude = (power * np.sqrt(2 / twice) * acquisition.noise_hu / total).astype(np.float32)
        overlap = float(np.clip(acquisition.thickness_mm / acquisition.slice_mm - 1, 0, 1))
        shape = (n + 1, rows, columns // 2 + 1, 2)
        noise = rng.standard_normal(shape, dtype=np.float32).view(np.complex64)[..., 0]
        mixed = noise[1:] if overlap == 0 else noise[1:] + np.float32(overlap) * noise[:-1]
        spectrum += mixed * (amplitude / np.float32(np.hypot(1, overlap)))
    return fft.irfft2(spectrum, s=(rows, columns))


def scan(
    case: Case, acquisition: Acquisition, seed: int | tuple[int, ...] = 0, *, lesions: bool = True
) -> Scan:
    """Scan a case.

    Parameters
    ----------
    case : Case
    acquisition : Acquisition
    seed : int or tuple of int
        Seed of the noise. The anatomy and the lesions are part of the case.
    lesions : bool
        With False the lesions are left out of the image (their masks are made all the same).

    Returns
    -------
    Scan
    """
    anatomy = case.anatomy()
    pixel, step, thickness = acquisition.spacing_mm, acquisition.slice_mm, acquisition.thickness_mm
    side, slices = _axis(acquisition.field_mm, pixel), _axis(acquisition.field_mm, step)
    # Thin planes, at most 2 mm apart, are added up to slices; the first and the last slice need
    # planes outside the field, for a slice thicker than its distance reaches into its neighbours.
    per_slice = int(np.ceil(step / 2))
    outside = int(np.ceil(thickness / step * per_slice))
    n_inside = len(slices) * per_slice
    number = np.arange(-outside, n_inside + outside) - (n_inside - 1) / 2
    planes = number * (step / per_slice)
    # A margin keeps the kernel, which wraps around, away from the borders of the image.
    total = fft.next_fast_len(len(side) + 8, real=True)
    margin = (total - len(side)) // 2
    wide = side[0] + (np.arange(total) - margin) * pixel
    shift = np.asarray(case.shift_mm, float)
    grid = Grid(
        (planes - shift[2]).astype(np.float32),
        (wide - shift[1]).astype(np.float32),
        (wide - shift[0]).astype(np.float32),
        pixel,
    )
    volume = anatomy.render(grid, case.breath_hu)
    profile = _slice_profile(slices, planes, thickness)
    inner = slice(margin, margin + len(side))
    origin = anatomy.centre + np.asarray(case.origin_lps) + [side[0], side[0], slices[0]]
    masks, centroids = [], []
    for lesion, position in zip(case.lesions, anatomy.positions, strict=True):
        box, filled = draw(lesion, position, grid, volume if lesions else None)
        mask, centroid = _mask(box, filled, profile, grid.shape[1:], inner)
        centroids.append(centroid)
        masks.append(_image(mask, acquisition, origin))
    flat = profile @ volume.reshape(len(planes), -1)
    rng = np.random.default_rng(np.random.SeedSequence(seed))
    hu = _reconstruct(flat.reshape(len(slices), total, total), acquisition, rng)[:, inner, inner]
    hu = np.clip(np.rint(hu + np.float32(acquisition.hu_shift)), -1024, 3071).astype(np.int16)
    image = _image(hu, acquisition, origin)
    return Scan(image, tuple(masks), np.array(centroids) * [pixel, pixel, step] + origin)


def _mask(box, filled, profile, shape, inner) -> tuple[np.ndarray, np.ndarray]:
    """Return the voxels that the lesion fills at least by half, and their mean index (x, y, z)."""
    part = profile[:, box[0]] @ filled.reshape(filled.shape[0], -1)
    part = part.reshape(-1, *filled.shape[1:])
    inside = part >= 0.5
    if not inside.any():
        # A lesion thinner than a slice fills no voxel by half: take the fullest.
        inside.flat[int(part.argmax())] = True
    whole = np.zeros((profile.shape[0], *shape), np.uint8)
    whole[:, box[1], box[2]] = inside
    corner = np.array([0, box[1].start - inner.start, box[2].start - inner.start])
    return whole[:, inner, inner], (np.argwhere(inside).mean(axis=0) + corner)[::-1]


def _image(array: np.ndarray, acquisition: Acquisition, origin: np.ndarray) -> sitk.Image:
    """Return an array (z, y, x) as an image with axes along LPS."""
    image = sitk.GetImageFromArray(array)
    a = acquisition
    image.SetSpacing((a.spacing_mm, a.spacing_mm, a.slice_mm))
    image.SetOrigin([float(v) for v in origin])
    return image
