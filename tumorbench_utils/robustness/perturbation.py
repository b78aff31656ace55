"""What an embedding does when the seed point is not quite where it should be."""

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pandas as pd
import torch

from tumorbench_utils.patches import extract_patches
from tumorbench_utils.robustness.agreement import RobustnessError

#: Patches per model that wait for one forward pass.
_BATCH = 16

#: Seeds that are cut from a scan at once; ten models need about 1 GB for as many.
_SEEDS = 256


def _length(mm) -> float:
    real = isinstance(mm, int | float | np.number) and not isinstance(mm, bool)
    if not real or not np.isfinite(mm) or mm < 0:
        raise RobustnessError(f"the shift is a length in mm, 0 or more, not {mm!r}")
    return float(mm)


def shifts(mm: float, n: int, seed: int = 0) -> np.ndarray:
    """Return shifts of length `mm` in directions that are uniform on the sphere.

    Parameters
    ----------
    mm : float
        Length in millimetres, not negative.
    n : int
    seed : int

    Returns
    -------
    ndarray, shape (n, 3), LPS mm
    """
    if isinstance(n, bool) or not isinstance(n, int | np.integer) or n < 1:
        raise RobustnessError(f"the number of shifts is a whole number above 0, not {n!r}")
    direction = np.random.default_rng(seed).normal(size=(n, 3))
    return _length(mm) * direction / np.linalg.norm(direction, axis=1, keepdims=True)


def jitter(
    cohort, model, module: torch.nn.Module, mm: float, n: int = 50, seed: int = 0
) -> pd.DataFrame:
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
    RobustnessError
        If `mm` is negative, `n` is not a whole number above 0, or the cohort has no lesions.
    PatchError
        If a scan cannot be read, or a shifted seed leaves it by more than half a patch.
    """
    return jitter_all(cohort, [(model, module)], mm, n, seed)[0]


def jitter_all(
    cohort, encoders: Sequence[tuple], mm, n: int = 50, seed: int = 0
) -> list[pd.DataFrame]:
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
    table = cohort.table
    if len(table) == 0:
        raise RobustnessError("the cohort has no lesions whose seeds could be moved")
    if isinstance(n, bool) or not isinstance(n, int | np.integer) or n < 1:
        raise RobustnessError(f"the number of shifts is a whole number above 0, not {n!r}")
    lengths = [mm] * n if np.ndim(mm) == 0 else list(mm)
    if len(lengths) != n:
        raise RobustnessError(f"mm holds {len(lengths)} distances for {n} trials; give one each")
    lengths = np.array([_length(one) for one in lengths])
    offsets = lengths[:, None, None] * shifts(1, n * len(table), seed).reshape(n, len(table), 3)
    points = table[["coord_x", "coord_y", "coord_z"]].to_numpy(float) + offsets
    jobs = []
    for image, rows in table.groupby("image_path", sort=False).indices.items():
        step = max(1, _SEEDS // len(rows))
        jobs += [(image, rows, range(a, min(a + step, n))) for a in range(0, n, step)]
    scans = ((image, points[np.ix_(trials, rows)].reshape(-1, 3)) for image, rows, trials in jobs)
    found = encode_scans(scans, encoders)
    index = pd.MultiIndex.from_product([range(n), table["lesion_id"]], names=["trial", "lesion_id"])
    places = [np.add.outer(np.array(t) * len(table), rows).ravel() for _, rows, t in jobs]
    order = np.argsort(np.concatenate(places))
    return [
        pd.DataFrame(values[order], index=index, columns=[f"f{i}" for i in range(values.shape[1])])
        for values in found
    ]


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
    results: list[list[np.ndarray]] = [[] for _ in encoders]
    for patches in _batches(scans, specs):
        distinct = [_distinct(column) for column in zip(*patches, strict=True)]
        for result, (model, module) in zip(results, encoders, strict=True):
            which = specs.index(model.spec)
            firsts, places = distinct[which]
            stack = np.stack([patches[n][which] for n in firsts])[:, None]
            values = model.encode(module, torch.from_numpy(stack)).numpy()
            result.append(values[places])
    return [
        np.concatenate(rows) if rows else np.empty((0, model.dim), np.float32)
        for rows, (model, _) in zip(results, encoders, strict=True)
    ]


def _batches(scans: Iterable[tuple], specs: list) -> Iterator[list[list[np.ndarray]]]:
    """Yield the patches of seeds, several scans together, cut one scan ahead."""
    iterator = iter(scans)

    def following() -> list[list[np.ndarray]] | None:
        scan = next(iterator, None)
        return None if scan is None else extract_patches(*scan, specs)

    held: list[list[np.ndarray]] = []
    with ThreadPoolExecutor(1) as pool:
        ahead = pool.submit(following)
        while (patches := ahead.result()) is not None:
            ahead = pool.submit(following)
            held += patches
            if len(held) >= _BATCH:
                yield held
                held = []
    if held:
        yield held


def _distinct(patches: Sequence[np.ndarray]) -> tuple[list[int], list[int]]:
    """Return positions of the first of equal patches, and for each patch its place among them."""
    known: dict[bytes, int] = {}
    firsts, places = [], []
    for n, patch in enumerate(patches):
        digest = hashlib.blake2b(np.ascontiguousarray(patch), digest_size=16).digest()
        if digest not in known:
            known[digest] = len(firsts)
            firsts.append(n)
        places.append(known[digest])
    return firsts, places
