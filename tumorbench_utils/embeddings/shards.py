"""A shard: some whole scans, their patches, and the embeddings of these by several models.

The cut into shards depends on the table and the batch size only, never on the number of workers or
on what is done already, so that every run forms the same batches and gives the same numbers.
"""

import inspect
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch

from tumorbench_utils.embeddings.encoders import Encoder, stack
from tumorbench_utils.patches import extract_patches


class Failure(NamedTuple):
    """A lesion that a model could not embed, and why."""

    model: str
    lesion_id: str
    scan_id: str
    reason: str


@dataclass
class Scan:
    """The lesions of one scan, and by model the positions of those that it has to embed."""

    path: object
    scan_id: list[str]
    lesions: list[str]
    seeds: np.ndarray
    wanted: dict[str, list[int]]


#: Model, lesions, their embeddings (n, dim), and what failed.
Result = tuple[str, list[str], np.ndarray, list[Failure]]


def make_shards(table: pd.DataFrame, wanted: dict[str, set], batch_size: int) -> list[list[Scan]]:
    """Cut the table into shards of whole scans, one batch each if that goes; drop what is done."""
    lesions, scans = table["lesion_id"].to_list(), table["scan_id"].to_list()
    seeds = table[["coord_x", "coord_y", "coord_z"]].to_numpy(dtype=float)
    codes, paths = pd.factorize(table["image_path"], use_na_sentinel=False)
    rows_of: list[list[int]] = [[] for _ in paths]
    for row, code in enumerate(codes):
        rows_of[code].append(row)
    shards, shard, count = [], [], 0
    for path, rows in zip(paths, rows_of, strict=True):
        positions = {
            model: [n for n, row in enumerate(rows) if lesions[row] in ids]
            for model, ids in wanted.items()
        }
        if shard and count + len(rows) > batch_size:
            shards.append(shard)
            shard, count = [], 0
        names = [scans[row] for row in rows], [lesions[row] for row in rows]
        shard.append(Scan(path, *names, seeds[rows], positions))
        count += len(rows)
    shards.append(shard)
    kept = ([s for s in shard if any(s.wanted.values())] for shard in shards)
    return [shard for shard in kept if shard]


def cut(scan: Scan, specs: list) -> tuple[dict[int, list[np.ndarray]], dict[int, str]]:
    """Return the patches of a scan and the reasons of failure, both by position."""
    todo = sorted({n for positions in scan.wanted.values() for n in positions})
    if not isinstance(scan.path, (str, os.PathLike)):
        return {}, dict.fromkeys(todo, "no image is named in the table")
    try:
        return dict(zip(todo, extract_patches(scan.path, scan.seeds[todo], specs), strict=True)), {}
    # Whatever a scan does (a reader's RuntimeError, no memory for it), the others go on.
    except Exception as error:
        if len(todo) == 1 or not os.path.exists(scan.path):
            return {}, dict.fromkeys(todo, _reason(error))
    patches, reasons = {}, {}
    for n in todo:  # one bad seed refuses all of them: find it
        try:
            patches[n] = extract_patches(scan.path, scan.seeds[[n]], specs)[0]
        except Exception as error:
            reasons[n] = _reason(error)
    return patches, reasons


def _reason(error: Exception) -> str:
    text = " ".join(str(error).split())
    return text if isinstance(error, ValueError) and text else f"{type(error).__name__}: {text}"


def _encode(model, module, patches: list[np.ndarray]) -> np.ndarray:
    """Return the embeddings (n, dim) of one batch as float32."""
    device = next((p.device for p in module.parameters()), torch.device("cpu"))
    options = {}
    if "batch_size" in inspect.signature(model.encode).parameters:
        options["batch_size"] = len(patches)
    with torch.inference_mode():
        output = model.encode(module, stack(patches).to(device), **options)
    values = output.float().cpu().numpy()
    if values.shape != (len(patches), model.dim):
        raise RuntimeError(
            f"{model.key} gave {values.shape} for {len(patches)} patches; its dim is {model.dim}"
        )
    if not np.isfinite(values).all():
        raise ValueError(f"the embedding by {model.key} is not finite")
    return values


def _encode_batch(model, module, names, patches) -> tuple[list, list, dict]:
    """Return the positions in a batch that went well, their values, and the others' reasons."""
    try:
        return list(range(len(names))), list(_encode(model, module, patches)), {}
    except ValueError as error:
        if len(names) == 1:
            return [], [], {0: _reason(error)}
    good, values, reasons = [], [], {}
    for n, patch in enumerate(patches):  # one bad patch refuses the batch: find it
        try:
            values.append(_encode(model, module, [patch])[0])
            good.append(n)
        except ValueError as error:
            reasons[n] = _reason(error)
    return good, values, reasons


def specs_of(encoders: list[Encoder]) -> list:
    """Return the different patches that some encoders want."""
    return list(dict.fromkeys(encoder.model.spec for encoder in encoders))


def encode_shard(scans, cuts, encoders, modules, batch_size) -> Iterator[Result]:
    """Yield the results of a shard model by model."""
    specs = specs_of(encoders)
    for encoder in encoders:
        model = encoder.model
        which, failures, items = specs.index(model.spec), [], []
        for scan, (patches, reasons) in zip(scans, cuts, strict=True):
            for n in scan.wanted[model.key]:
                where = (scan.lesions[n], scan.scan_id[n])
                if n in reasons:
                    failures.append(Failure(model.key, *where, reasons[n]))
                else:
                    items.append((where, patches[n][which]))
        lesions, values = [], []
        for start in range(0, len(items), batch_size):
            names, batch = zip(*items[start : start + batch_size], strict=True)
            good, rows, reasons = _encode_batch(model, modules(encoder), names, batch)
            lesions += [names[n][0] for n in good]
            values += rows
            failures += [Failure(model.key, *names[n], why) for n, why in reasons.items()]
        if lesions or failures:
            yield model.key, lesions, np.array(values, np.float32), failures
