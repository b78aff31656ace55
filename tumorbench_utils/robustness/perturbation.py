"""What an embedding does when the seed point is not quite where it should be."""

import numpy as np
import pandas as pd
import torch

from tumorbench_utils.patches import extract_patches
from tumorbench_utils.robustness.agreement import RobustnessError


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
    if not np.isfinite(mm) or mm < 0:
        raise RobustnessError(f"the shift is a length in mm, 0 or more, not {mm!r}")
    if isinstance(n, bool) or not isinstance(n, int | np.integer) or n < 1:
        raise RobustnessError(f"the number of shifts is a whole number above 0, not {n!r}")
    direction = np.random.default_rng(seed).normal(size=(n, 3))
    return mm * direction / np.linalg.norm(direction, axis=1, keepdims=True)


def jitter(
    cohort, model, module: torch.nn.Module, mm: float, n: int = 50, seed: int = 0
) -> pd.DataFrame:
    """Return the embeddings of every lesion for `n` seed points that are `mm` off.

    Each scan is read once for all its lesions and shifts. Trial t of every lesion has its own
    direction.

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
        If `mm` is negative or `n` is not a whole number above 0.
    PatchError
        If a scan cannot be read, or a shifted seed leaves it by more than half a patch.
    """
    table = cohort.table
    offsets = shifts(mm, n * len(table), seed).reshape(n, len(table), 3)
    points = table[["coord_x", "coord_y", "coord_z"]].to_numpy(float) + offsets
    result = np.empty((n, len(table), model.dim), np.float32)
    for image, rows in table.groupby("image_path", sort=False).indices.items():
        seeds = points[:, rows].reshape(-1, 3)
        cut = extract_patches(image, seeds, [model.spec])
        batch = torch.from_numpy(np.stack([patches[0] for patches in cut]))[:, None]
        embedded = model.encode(module, batch).numpy()
        result[:, rows] = embedded.reshape(n, len(rows), model.dim)
    index = pd.MultiIndex.from_product([range(n), table["lesion_id"]], names=["trial", "lesion_id"])
    columns = [f"f{i}" for i in range(model.dim)]
    return pd.DataFrame(result.reshape(-1, model.dim), index=index, columns=columns)
