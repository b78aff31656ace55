"""A shard: some whole scans, their patches, and the embeddings of these by several models.

The cut into shards depends on the table and the batch size only, never on the number of workers or
on what is done already, so that every run forms the same batches and gives the same numbers.
"""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
import pandas as pd

from tumorbench_utils.patches import extract_patches


class Failure(NamedTuple):
    """A lesion that a model could not embed, and why."""

    model: str
    lesion_id: str
    scan_id: str
    reason: str


class Result(NamedTuple):
    """What a model made of a shard: lesions, their embeddings (n, dim), and what failed."""

    model: str
    lesions: list[str]
    values: np.ndarray
    failures: list[Failure]


def make_shards(table: pd.DataFrame, todo: dict[str, set], batch_size: int) -> list[pd.DataFrame]:
    """Cut the table into whole scans, as many to a shard as fill a batch; drop what is done.

    Each model has a column that says which lesions it has to embed.
    """
    scans, paths = pd.factorize(table["image_path"], use_na_sentinel=False)
    number, filled, numbers = 0, 0, []
    for size in np.bincount(scans, minlength=len(paths)):
        if filled and filled + size > batch_size:
            number, filled = number + 1, 0
        filled += size
        numbers.append(number)
    wanted = {model: table["lesion_id"].isin(lesions) for model, lesions in todo.items()}
    rows = table.assign(**wanted).iloc[np.argsort(scans, kind="stable")]
    rows = rows[rows[list(wanted)].any(axis=1)]
    return [shard for _, shard in rows.groupby(np.array(numbers, int)[scans[rows.index]])]


def scans_of(shard: pd.DataFrame) -> list[pd.DataFrame]:
    """Return the rows of each scan of a shard."""
    return [scan for _, scan in shard.groupby("image_path", sort=False, dropna=False)]


def cut(scan: pd.DataFrame, specs: list) -> dict[str, list[np.ndarray] | str]:
    """Return by lesion of a scan the patches, one for each of `specs`, or why there are none."""
    path, lesions = scan["image_path"].iloc[0], list(scan["lesion_id"])
    if not isinstance(path, str | os.PathLike):
        return dict.fromkeys(lesions, "no image is named in the table")
    seeds = scan[["coord_x", "coord_y", "coord_z"]].to_numpy()
    try:
        return dict(zip(lesions, extract_patches(path, seeds, specs), strict=True))
    # Whatever a scan does (a reader's RuntimeError, no memory for it), the others go on.
    except Exception as error:
        if len(lesions) == 1 or not os.path.exists(path):
            return dict.fromkeys(lesions, _reason(error))
    # One bad seed refuses all of them: find it.
    return {k: v for n in range(len(scan)) for k, v in cut(scan.iloc[[n]], specs).items()}


def encode(
    shard: pd.DataFrame, cuts: list[dict], encoders: dict, network: Callable, batch_size: int
) -> Iterator[Result]:
    """Yield the results of a shard model by model.

    Parameters
    ----------
    shard : DataFrame
        See :func:`make_shards`.
    cuts : list of dict
        What :func:`cut` made of each scan.
    encoders : dict of Encoder
    network : callable
        Gives the network of an encoder.
    batch_size : int
    """
    patches = {lesion: found for scan in cuts for lesion, found in scan.items()}
    specs = specs_of(encoders)
    scans = dict(zip(shard["lesion_id"], shard["scan_id"], strict=True))
    for key, encoder in encoders.items():
        model, which = encoder.model, specs.index(encoder.model.spec)
        found = {lesion: patches[lesion] for lesion in shard["lesion_id"][shard[key]]}
        good = [lesion for lesion, cut in found.items() if not isinstance(cut, str)]
        for start in range(0, len(good), batch_size):
            batch = good[start : start + batch_size]
            stack = [found[lesion][which] for lesion in batch]
            found |= dict(zip(batch, _encode(model, network(encoder), stack), strict=True))
        why = {lesion: value for lesion, value in found.items() if isinstance(value, str)}
        lesions = [lesion for lesion in good if lesion not in why]
        failures = [Failure(key, lesion, scans[lesion], why[lesion]) for lesion in why]
        if found:
            values = np.array([found[lesion] for lesion in lesions], np.float32)
            yield Result(key, lesions, values.reshape(-1, model.dim), failures)


def specs_of(encoders: dict) -> list:
    """Return the different patches that some encoders want."""
    return list(dict.fromkeys(encoder.model.spec for encoder in encoders.values()))


def _encode(model, module, patches: list[np.ndarray]) -> list[np.ndarray | str]:
    """Return the embedding of each patch of a batch, or why there is none."""
    import torch

    device = next((p.device for p in module.parameters()), torch.device("cpu"))
    options = {}
    if "batch_size" in inspect.signature(model.encode).parameters:
        options["batch_size"] = len(patches)
    try:
        with torch.inference_mode():
            stack = torch.from_numpy(np.stack(patches)[:, None]).to(device)
            values = model.encode(module, stack, **options).float().cpu().numpy()
        if not np.isfinite(values).all():
            raise ValueError(f"the embedding by {model.key} is not finite")
    except ValueError as error:
        if len(patches) == 1:
            return [_reason(error)]
        # One bad patch refuses the batch: find it.
        return [_encode(model, module, [patch])[0] for patch in patches]
    if values.shape != (len(patches), model.dim):
        raise RuntimeError(
            f"{model.key} gave {values.shape} for {len(patches)} patches; its dim is {model.dim}"
        )
    return list(values)


def _reason(error: Exception) -> str:
    text = " ".join(str(error).split())
    return text if isinstance(error, ValueError) and text else f"{type(error).__name__}: {text}"
