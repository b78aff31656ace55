"""What an embedding does when the seed point is not quite where it should be."""

from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pandas as pd
import torch

from tumorbench_utils.patches import extract_patches

#: Patches per model that wait for one forward pass.
_BATCH = 16

#: Seeds that are cut from a scan at once; ten models need about 1 GB for as many.
_SEEDS = 256


def shifts(mm: float, n: int, seed: int = 0) -> np.ndarray:
    """Return shifts of length `mm` in directions that are uniform on the sphere.

    Parameters
    ----------
    mm : float
        Length in millimetres.
    n : int
    seed : int

    Returns
    -------
    ndarray, shape (n, 3), LPS mm
    """
    direction = np.random.default_rng(seed).normal(size=(n, 3))
    return mm * direction / np.linalg.norm(direction, axis=1, keepdims=True)


def jitter(cohort, model, module, mm: float, n: int = 50, seed: int = 0) -> pd.DataFrame:
    """Return the embeddings of every lesion for `n` seed points that are `mm` off.

    Each scan is read once for all its lesions and shifts. Trial t of every lesion has its own
    direction. For several models see :func:`jitter_all`.

    Parameters
    ----------
    cohort : Cohort
    model : FoundationModel
    module : torch.nn.Module
        As made by ``model.build``.
    mm : float
        Distance of the shifted seed from the seed of the table.
    n : int
        Trials.
    seed : int

    Returns
    -------
    DataFrame
        Index ``(trial, lesion_id)``, columns ``f0 .. f{dim-1}``, float32. Rows of one trial stand
        in the order of the cohort's table.

    Raises
    ------
    PatchError
        If a scan cannot be read, or a shifted seed is not finite or leaves the scan by more than
        half a patch.
    """
    return jitter_all(cohort, [(model, module)], mm, n, seed)[0]


def jitter_all(cohort, encoders: Sequence[tuple], mm, n=50, seed=0) -> list[pd.DataFrame]:
    """Do what :func:`jitter` does for several models, reading each scan once for all of them.

    Parameters
    ----------
    cohort : Cohort
    encoders : sequence of (FoundationModel, torch.nn.Module)
    mm : float or sequence of n floats
        As for :func:`jitter`, or one distance per trial.
    n, seed
        As for :func:`jitter`; the shifts are those of a call for one model.

    Returns
    -------
    list of DataFrame
        In the order of `encoders`.
    """
    table, mm = cohort.table, np.broadcast_to(np.asarray(mm, dtype=float), n)
    offsets = mm[:, None, None] * shifts(1, n * len(table), seed).reshape(n, len(table), 3)
    points = table[["coord_x", "coord_y", "coord_z"]].to_numpy(float) + offsets
    places, scans = [], []
    for image, rows in table.groupby("image_path", sort=False).indices.items():
        for trials in np.array_split(np.arange(n), -(-n * len(rows) // _SEEDS)):
            places.append(np.add.outer(trials * len(table), rows).ravel())
            scans.append((image, points.reshape(-1, 3)[places[-1]]))
    order = np.argsort(np.concatenate(places))
    index = pd.MultiIndex.from_product([range(n), table["lesion_id"]], names=["trial", "lesion_id"])
    found = encode_scans(scans, encoders)
    return [pd.DataFrame(values[order], index).add_prefix("f") for values in found]


def encode_scans(scans: Iterable[tuple], encoders: Sequence[tuple]) -> list[np.ndarray]:
    """Return the embeddings of seeds in scans by several models, each scan read once.

    The next scan is read, or made, while the last one is encoded. Patches that are equal voxel
    by voxel, as those of seeds in one voxel, are encoded once.

    Parameters
    ----------
    scans : iterable of (image, seeds)
        A path or a SimpleITK image, and points of shape (n, 3), LPS mm. A generator is asked for
        the next scan in another thread.
    encoders : sequence of (FoundationModel, torch.nn.Module)

    Returns
    -------
    list of ndarray of float32, shape (number of seeds, dim)
        One per encoder; rows in the order of scans and seeds.

    Raises
    ------
    PatchError
        If a scan cannot be read or a seed does not fit it.
    """
    specs = list(dict.fromkeys(model.spec for model, _ in encoders))
    results = [[np.empty((0, model.dim), np.float32)] for model, _ in encoders]
    for patches in _batches(scans, specs):
        distinct = {}
        for spec, column in zip(specs, zip(*patches, strict=True), strict=True):
            places, _ = pd.factorize(np.array([patch.tobytes() for patch in column], object))
            firsts = np.stack([column[n] for n in np.unique(places, return_index=True)[1]])
            distinct[spec] = torch.from_numpy(firsts[:, None]), places
        for result, (model, module) in zip(results, encoders, strict=True):
            stack, places = distinct[model.spec]
            result.append(model.encode(module, stack).numpy()[places])
    return [np.concatenate(rows) for rows in results]


def _batches(scans: Iterable[tuple], specs: list) -> Iterator[list[list[np.ndarray]]]:
    """Yield the patches of seeds, several scans together, cut one scan ahead."""
    cut, held = (extract_patches(*scan, specs) for scan in scans), []
    with ThreadPoolExecutor(1) as pool:
        ahead = pool.submit(next, cut, None)
        while (patches := ahead.result()) is not None:
            ahead = pool.submit(next, cut, None)
            held += patches
            if len(held) >= _BATCH:
                yield held
                held = []
    if held:
        yield held
