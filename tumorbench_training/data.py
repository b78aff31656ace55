"""Phantoms to learn from: small scans around one lesion, none of which belongs to a cohort."""

import multiprocessing
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import SimpleITK as sitk
import torch
from tqdm import tqdm

import tumorbench_phantoms as phantoms
from tumorbench_utils import digests, files, settings
from tumorbench_utils.patches import PatchSpec

#: Side (mm, and voxels) of the cube that is kept of every phantom.
CUBE = 72

#: Spacing (mm along x, y, z) and side of the second cube that is kept of lungs: the input of
#: CT-CLIP covers 90 mm from left to right.
WIDE_SPACING, WIDE = (1.5, 0.75, 0.75), 64

#: Voxel side (mm) of the label maps.
LABEL_MM = 2

#: HU from which a voxel of the drawing without lesion and noise is no longer the class before.
TISSUE_HU = (-400.0, -20.0, 130.0, 280.0)
TISSUES = ("lung or air", "fat", "soft tissue", "bone")

#: Where the stored classes are in :data:`TISSUES`: enhanced tissue is soft tissue.
_MERGED = np.array([0, 1, 2, 2, 3], np.uint8)

#: Phantoms per cohort whose laws are used: in training as many lungs as abdomens.
TRAIN = {
    "luna16": 125,
    "dlcs": 125,
    "nsclc_radiomics": 125,
    "nsclc_radiogenomics": 125,
    "c4kc_kits": 250,
    "colorectal_liver_metastases": 250,
}
HELD_OUT = {name: 120 if count > 125 else 60 for name, count in TRAIN.items()}

#: Seeds of ``phantoms.sample`` from which each part counts upwards. The recipes were settled on
#: others, from 500,000; these were drawn after that, once.
FIRST_SEED = {"train": 0, "held-out": 700_000}

_CHUNK = 25


def seeds(part: str, counts: dict[str, int] | None = None) -> list[tuple[str, int]]:
    """Return (cohort, seed) of every phantom of a part, as ``phantoms.sample`` takes them.

    Parameters
    ----------
    part : {"train", "held-out"}
    counts : dict of str to int, optional
        Phantoms per cohort; if None, those of the shipped encoders.
    """
    counts = counts or {"train": TRAIN, "held-out": HELD_OUT}[part]
    first = FIRST_SEED[part]
    return [(name, first + k) for name, count in counts.items() for k in range(count)]


class Phantoms:
    """The phantoms of one part, read from the cache as they are needed.

    Parameters
    ----------
    folders : list of Path
        As made by :func:`phantoms_of`.

    Attributes
    ----------
    table : DataFrame
        One row per phantom: ``cohort, organ, seed, patient_factor`` and the phenotype of the
        lesion (``diameter_mm, lobulation, ... rim_hu``), with ``attenuation_hu`` the mean HU of
        tissue and ground glass.
    """

    def __init__(self, folders: Sequence[Path]):
        tables = [pd.read_parquet(folder / "table.parquet") for folder in folders]
        self.table = pd.concat(tables, ignore_index=True)
        self._place = [
            (folder, k) for folder, t in zip(folders, tables, strict=True) for k in t.index
        ]
        self._open: dict[Path, np.ndarray] = {}

    def __len__(self) -> int:
        return len(self.table)

    def of_organs(self, organs: Sequence[str]) -> np.ndarray:
        """Return the positions of the phantoms of some organs."""
        return np.flatnonzero(self.table["organ"].isin(organs))

    def array(self, kind: str, index: int) -> np.ndarray:
        """Return one array of one phantom, axes towards the head, the back and the left (SPL).

        Parameters
        ----------
        kind : {"ct", "wide", "tissue", "lesion"}
            int16 HU at 1 mm; the same on the grid of CT-CLIP (lungs only); number of thresholds
            :data:`TISSUE_HU` below the tissue under the lesion, and share of the lesion (0 to
            255), both on :data:`LABEL_MM`.
        index : int
        """
        folder, k = self._place[index]
        path = folder / f"{kind}.npy"
        if path not in self._open:
            self._open[path] = np.load(path, mmap_mode="r")
        return self._open[path][k]

    def patch(self, index: int, spec: PatchSpec, shift=(0, 0, 0), side: int | None = None):
        """Return a patch as a network sees it.

        Parameters
        ----------
        index : int
        spec : PatchSpec
            Orientation, window and range are taken from it; the spacing decides which cube.
        shift : sequence of 3 ints
            Voxels by which the patch is moved off the lesion, along S, P and L.
        side : int, optional
            Voxels a side, if not those of `spec`.

        Returns
        -------
        ndarray of float32, shape (side, side, side)
        """
        kind = "wide" if spec.spacing_mm == WIDE_SPACING else "ct"
        hu = cut(self.array(kind, index), shift, side or spec.size[0])
        low, high = spec.window_hu
        bottom, top = spec.out_range
        scaled = (np.clip(turn(hu, spec.orientation), low, high) - low) / (high - low)
        return (bottom + (top - bottom) * scaled).astype(np.float32)

    def labels(self, kind: str, index: int, spec: PatchSpec, shift=(0, 0, 0), side=None):
        """Return the map of ``"tissue"`` (position in :data:`TISSUES`) or ``"lesion"`` of a patch.

        Parameters as for :meth:`patch`; `shift` and half of `side` are even, or the map would
        lie between its voxels.
        """
        moved = [step // LABEL_MM for step in shift]
        part = cut(self.array(kind, index), moved, (side or spec.size[0]) // LABEL_MM)
        part = _MERGED[part] if kind == "tissue" else part
        return np.ascontiguousarray(turn(part, spec.orientation))

    def batch(self, indices, spec: PatchSpec, shifts=None, side: int | None = None) -> torch.Tensor:
        """Return patches as a tensor (n, 1, side, side, side)."""
        shifts = np.zeros((len(indices), 3), int) if shifts is None else shifts
        pairs = zip(indices, shifts, strict=True)
        return torch.from_numpy(np.stack([self.patch(i, spec, s, side) for i, s in pairs])[:, None])


def cut(cube: np.ndarray, shift: Sequence[int], side: int) -> np.ndarray:
    """Return the cube of `side` voxels in the middle of a larger one, moved by `shift` voxels.

    Raises
    ------
    ValueError
        If it would leave the larger one.
    """
    starts = [(n - side) // 2 + int(step) for n, step in zip(cube.shape, shift, strict=True)]
    if min(starts) < 0 or max(starts) + side > min(cube.shape):
        raise ValueError(f"{side} voxels moved by {tuple(shift)} leave a cube of {cube.shape}")
    return cube[tuple(slice(start, start + side) for start in starts)]


def turn(array: np.ndarray, orientation: str) -> np.ndarray:
    """Return an array whose axes run towards S, P and L with axes as `orientation` says."""
    own = "SPL"
    pairs = {"S": "S", "I": "S", "P": "P", "A": "P", "L": "L", "R": "L"}
    axes = [own.index(pairs[letter]) for letter in orientation]
    flips = [axis for axis, letter in enumerate(orientation) if letter not in own]
    return np.flip(array.transpose(axes), flips)


def phantoms_of(
    part: str, counts: dict[str, int] | None = None, *, workers: int = 1, progress: bool = True
) -> Phantoms:
    """Return the phantoms of a part; what is not in the cache is drawn first.

    Parameters
    ----------
    part, counts
        See :func:`seeds`.
    workers : int
        Processes that draw.
    progress : bool
        Whether to show a bar.
    """
    todo, folders = [], []
    chosen = pd.DataFrame(seeds(part, counts), columns=["cohort", "seed"])
    for name, own in chosen.groupby("cohort", sort=False)["seed"]:
        root = _folder(name)
        for start in range(0, len(own), _CHUNK):
            numbers = own.tolist()[start : start + _CHUNK]
            folders.append(root / f"{numbers[0]:07d}-{len(numbers)}")
            if not folders[-1].exists():
                todo.append((name, numbers, folders[-1]))
    bar = tqdm(
        total=len(todo), desc=f"{part} phantoms", unit="chunk", disable=not (progress and todo)
    )
    with bar:
        if workers == 1 or len(todo) < 2:
            for job in todo:
                _draw_chunk(job)
                bar.update()
        else:
            with multiprocessing.get_context("spawn").Pool(workers) as pool:
                for _ in pool.imap_unordered(_draw_chunk, todo):
                    bar.update()
    return Phantoms(folders)


def _folder(name: str) -> Path:
    """Return where the phantoms after one cohort are kept; it changes with what makes them."""
    laws = phantoms.of_cohort(name)
    digest = digests.of(laws, CUBE, WIDE_SPACING, WIDE, LABEL_MM, TISSUE_HU)
    return settings.cache_dir() / "pretraining" / f"{name}-{digest[:12]}"


def _draw_chunk(job: tuple[str, list[int], Path]) -> None:
    """Draw some phantoms of one cohort into a folder."""
    name, numbers, folder = job

    def write(part: Path) -> None:
        drawn = [draw(name, seed) for seed in numbers]
        part.mkdir()
        for kind in drawn[0][1]:
            np.save(part / f"{kind}.npy", np.stack([arrays[kind] for _, arrays in drawn]))
        pd.DataFrame([row for row, _ in drawn]).to_parquet(part / "table.parquet")

    files.made(folder, write)


def draw(name: str, seed: int) -> tuple[dict, dict[str, np.ndarray]]:
    """Draw one phantom with the first of its lesions in the middle.

    Parameters
    ----------
    name, seed
        As for :func:`tumorbench_phantoms.sample`.

    Returns
    -------
    row : dict
        A row of ``Phantoms.table``.
    arrays : dict of ndarray
        See :meth:`Phantoms.array`.
    """
    planned = phantoms.sample(name, seed)
    lesion = planned.case.lesions[0]
    rng = np.random.default_rng(np.random.SeedSequence((*planned.noise, 1)))
    place = planned.case.anatomy().positions[0] + rng.uniform(-0.5, 0.5, 3)
    case = replace(planned.case, shift_mm=tuple((-place).tolist()))
    lung = case.organ == "lung"
    field = 8 + (WIDE * WIDE_SPACING[0] if lung else CUBE)
    scan = phantoms.scan(case, replace(planned.acquisition, field_mm=field), planned.noise)
    # What lies under the lesion: drawn without it, coarsely and without noise.
    coarse = phantoms.Acquisition(
        spacing_mm=1.6, slice_mm=2, thickness_mm=2, noise_hu=0, field_mm=CUBE + 8
    )
    under = phantoms.scan(case, coarse, lesions=False)
    middle = scan.centroids_lps[0]
    n = CUBE // LABEL_MM
    ct = _resample(scan.image, middle, (1, 1, 1), CUBE)
    share = _resample(sitk.Cast(scan.masks[0], sitk.sitkFloat32), middle, (1, 1, 1), CUBE)
    share = share.reshape(n, LABEL_MM, n, LABEL_MM, n, LABEL_MM).mean((1, 3, 5))
    tissue = _resample(under.image, middle, (LABEL_MM,) * 3, n)
    arrays = {
        "ct": np.rint(ct).astype(np.int16),
        "tissue": np.searchsorted(TISSUE_HU, tissue).astype(np.uint8),
        "lesion": np.rint(255 * share).astype(np.uint8),
    }
    if lung:
        wide = _resample(scan.image, middle, WIDE_SPACING, WIDE)
        arrays["wide"] = np.rint(wide).astype(np.int16)
    row = {"cohort": name, "organ": case.organ, "seed": seed, "patient_factor": case.patient_factor}
    own = {k: v for k, v in vars(lesion).items() if k not in ("entropy", "attenuation_hu")}
    return {**row, **own, "attenuation_hu": lesion.mean_hu}, arrays


def _resample(image: sitk.Image, middle, spacing, side: int) -> np.ndarray:
    """Sample an image (axes along LPS) on a cube around a point; outside it repeats its border."""
    half = (side - 1) / 2 * np.asarray(spacing, float)
    grid = sitk.Image(side, side, side, sitk.sitkFloat32)
    grid.SetSpacing([float(s) for s in spacing])
    grid.SetOrigin((np.asarray(middle) - half).tolist())
    resampler = sitk.ResampleImageFilter()
    resampler.SetReferenceImage(grid)
    resampler.SetOutputPixelType(sitk.sitkFloat32)
    resampler.SetInterpolator(sitk.sitkLinear)
    resampler.UseNearestNeighborExtrapolatorOn()
    return sitk.GetArrayFromImage(resampler.Execute(image))
