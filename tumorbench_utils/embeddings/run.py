"""Embed a cohort: every scan read once, every result kept at once, nothing done twice."""

import os
import sys
import threading
import time
import warnings
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from tqdm import tqdm

from tumorbench_utils import settings
from tumorbench_utils.embeddings.encoders import Encoder, as_encoders
from tumorbench_utils.embeddings.parquet import columns, key_of
from tumorbench_utils.embeddings.shards import (
    Failure,
    Result,
    Scan,
    cut,
    encode_shard,
    make_shards,
    specs_of,
)
from tumorbench_utils.embeddings.store import EmbeddingStore

#: Patches per forward pass where `embed` is not told; a shard holds at most as many lesions (but
#: a whole scan in any case).
BATCH_SIZE = {"cpu": 8, "cuda": 32}

_NEEDED = ("lesion_id", "scan_id", "image_path", "coord_x", "coord_y", "coord_z")


@dataclass
class Report:
    """What a run did.

    Attributes
    ----------
    done, skipped : list of (model, lesion_id)
        Embedded in this run; found in the store already.
    failed : list of Failure
        They are tried again in the next run.
    repaired : list of str
        Damaged files that were found, and what became of them.
    seconds : float
    """

    done: list[tuple[str, str]] = field(default_factory=list)
    skipped: list[tuple[str, str]] = field(default_factory=list)
    failed: list[Failure] = field(default_factory=list)
    repaired: list[str] = field(default_factory=list)
    seconds: float = 0.0

    def table(self) -> pd.DataFrame:
        """Return the counts per model: columns ``done, skipped, failed``."""
        parts = {n: [row[0] for row in getattr(self, n)] for n in ("done", "skipped", "failed")}
        counts = {name: pd.Series(models).value_counts() for name, models in parts.items()}
        return pd.DataFrame(counts).fillna(0).astype(int).rename_axis("model")

    def __str__(self) -> str:
        rate = len(self.done) / self.seconds if self.seconds else 0.0
        lines = [
            f"{len(self.done)} embeddings made in {self.seconds:.1f} s ({rate:.1f} a second), "
            f"{len(self.skipped)} were there already, {len(self.failed)} failed"
        ]
        reasons = pd.Series([f"{f.scan_id}: {f.reason}" for f in self.failed], dtype=object)
        for reason, count in reasons.value_counts(sort=False).items():
            lines.append(f"  failed ({count} embeddings): {reason}")
        return "\n".join([*lines, *self.repaired])


def embed(
    cohort,
    models,
    store: EmbeddingStore,
    *,
    client=None,
    device: str | None = None,
    batch_size: int | None = None,
    progress: bool = True,
) -> Report:
    """Embed all lesions of a cohort by several models into a store.

    Parameters
    ----------
    cohort : Cohort
        Or any object with ``.card.key``, ``.edition`` and ``.table`` (columns ``lesion_id,
        scan_id, image_path, coord_x, coord_y, coord_z``; LPS mm).
    models : list
        Of names, ``FoundationModel`` objects, :class:`Encoder` recipes or ``(model, module)``
        pairs. A name takes the weights of the edition, see :func:`default_encoder`: compact
        encoders in the phantom edition, full ones with the released files in the others.
    store : EmbeddingStore
        What it holds already is not computed again, unless the weights, the patch, the code, the
        image file or the seed have changed. Results are kept shard by shard: after a crash, call
        again.
    client : dask.distributed.Client, optional
        Shards are sent to its workers, which must be able to read the images. On ``"cuda"`` each
        takes one of the worker's resource ``GPU``. A failing shard is tried three times more.
    device : {"cpu", "cuda", "cuda:1", ...}, optional
        If None, ``"cuda"`` where there is one (with a client: where a worker offers ``GPU``).
    batch_size : int, optional
        Patches per forward pass and lesions per shard (more if one scan holds more); see
        :data:`BATCH_SIZE`.
    progress : bool
        Show a bar with rate and time left.

    Returns
    -------
    Report

    Raises
    ------
    TypeError, ValueError, KeyError
        If an argument is not as described.
    FileNotFoundError, CheckpointError
        If released weights are needed and not there or not right.
    OSError
        If the disk is full. What was embedded before is kept.

    Notes
    -----
    A scan or seed that cannot be used is listed in ``Report.failed``, and the run goes on. A
    second run on the same cohort and store waits for the first and takes over what it made.
    """
    start = time.perf_counter()
    table = _check_table(cohort)
    if not isinstance(store, EmbeddingStore):
        raise TypeError(f"store is an EmbeddingStore, not {type(store).__name__}")
    edition = getattr(cohort, "edition", None) or settings.edition()
    encoders = as_encoders(models, edition)
    device = _device(device, client)
    if batch_size is None:
        batch_size = BATCH_SIZE["cuda" if device.startswith("cuda") else "cpu"]
    if isinstance(batch_size, bool) or not isinstance(batch_size, int) or batch_size < 1:
        raise ValueError(f"batch_size is a positive integer, not {batch_size!r}")
    name = store.path(cohort, "any").parent.name
    metas = {encoder.model.key: encoder.meta() for encoder in encoders}
    dims = {encoder.model.key: encoder.model.dim for encoder in encoders}
    data = fingerprints(table)
    report, order = Report(), list(table["lesion_id"])
    with _RunLock(store, name):
        wanted = {}
        for model, meta in metas.items():
            report.repaired += store.gather(name, model, meta, dims[model], order)
            fresh = _held(store, name, model, key_of(meta, dims[model]), data)
            report.skipped += [(model, lesion) for lesion in table["lesion_id"] if lesion in fresh]
            wanted[model] = set(table["lesion_id"]) - fresh
        for line in report.repaired:
            warnings.warn(line, stacklevel=2)
        shards = make_shards(table, wanted, batch_size)
        run = _run_here if client is None else _run_on
        total = sum(map(len, wanted.values()))
        bar = tqdm(total=total, desc=name, unit="patch", disable=not progress or not total)
        results = run(shards, encoders, device, batch_size, client)
        try:
            with bar:
                for model, lesions, values, failures in results:
                    if lesions:
                        frame = pd.DataFrame(values, index=lesions, columns=columns(dims[model]))
                        store.add_shard(name, model, frame, metas[model], data[lesions])
                        report.done += [(model, lesion) for lesion in lesions]
                    report.failed += failures
                    bar.update(len(lesions) + len(failures))
        finally:
            results.close()
            for model, meta in metas.items():
                store.gather(name, model, meta, dims[model], order)
    report.seconds = time.perf_counter() - start
    return report


def _check_table(cohort) -> pd.DataFrame:
    """Return the columns that a run needs, seeds as float64."""
    table = getattr(cohort, "table", None)
    if not isinstance(table, pd.DataFrame):
        raise TypeError(
            f"embed takes a cohort (cohorts.load_cohort), not {type(cohort).__name__}: it has no "
            "table"
        )
    absent = [c for c in _NEEDED if c not in table]
    if absent:
        raise ValueError(f"the table of the cohort has no column {', '.join(absent)}")
    table = table[list(_NEEDED)].reset_index(drop=True)
    wrong = [i for i in table["lesion_id"] if not isinstance(i, str) or not i]
    if wrong:
        raise ValueError(f"lesion_id holds {wrong[0]!r}; lesions are named by non-empty strings")
    try:
        for name in _NEEDED[3:]:
            table[name] = table[name].astype("float64")
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name} holds something that is no number: {error}") from None
    twice = table["lesion_id"][table["lesion_id"].duplicated()]
    if len(twice):
        raise ValueError(f"the lesion {twice.iloc[0]!r} stands in the table more than once")
    return table


def _device(device: str | None, client) -> str:
    """Return the device after checking that there is one."""
    workers = client.scheduler_info(n_workers=-1)["workers"].values() if client else ()
    offers = any(worker["resources"].get("GPU") for worker in workers)
    if device is None:
        there = offers if client else torch.cuda.is_available()
        return "cuda" if there else "cpu"
    kind = torch.device(device).type
    if kind == "cuda" and client and not offers:
        raise ValueError(
            "no worker offers the resource GPU; start workers with --resources 'GPU=1' or "
            "embed on the CPU"
        )
    if kind == "cuda" and not client and not torch.cuda.is_available():
        raise ValueError("torch finds no CUDA device here; pass device='cpu'")
    return str(device)


class _RunLock:
    """The lock of a run; says so if it has to wait."""

    def __init__(self, store: EmbeddingStore, cohort: str):
        self._lock = store.lock(f"{cohort}.run")
        self._text = f"another run embeds {cohort} into {store.root}; waiting for it to end"

    def __enter__(self):
        timer = threading.Timer(1.0, print, (self._text,), {"file": sys.stderr})
        timer.start()
        try:
            return self._lock.__enter__()
        finally:
            timer.cancel()

    def __exit__(self, *error):
        return self._lock.__exit__(*error)


def fingerprints(table: pd.DataFrame) -> pd.Series:
    """Return by lesion what its embedding depends on: ``"BYTES:TIME|X,Y,Z"``.

    Size and time of change of the image (of a folder: of all its files; ``absent`` if there is
    none) and the seed.
    """
    stamps = {path: _stamp(path) for path in table["image_path"].unique()}
    texts = [
        f"{stamps[row.image_path]}|{row.coord_x!r},{row.coord_y!r},{row.coord_z!r}"
        for row in table[list(_NEEDED)].itertuples()
    ]
    return pd.Series(texts, index=list(table["lesion_id"]), dtype=object)


def _stamp(path) -> str:
    try:
        parts = sorted(Path(path).iterdir()) if os.path.isdir(path) else [Path(path)]
        if parts[0].suffix == ".mhd":  # the header alone; the voxels lie beside it
            parts += [p for p in map(parts[0].with_suffix, (".raw", ".zraw")) if p.exists()]
        stats = [part.stat() for part in parts]
    except (OSError, TypeError, ValueError, IndexError):
        return "absent"
    return f"{sum(s.st_size for s in stats)}:{max(s.st_mtime_ns for s in stats)}"


def _held(store, cohort: str, model: str, key: str, data: pd.Series) -> set[str]:
    """Return the lesions whose stored embedding was made from the input of today."""
    try:
        held = store.entry(cohort, model, key=key).data
    except KeyError:
        return set()
    held = held[held.index.isin(data.index)]
    return {i for i, old in held.items() if _same_input(old, data[i])}


def _same_input(old: str, new: str) -> bool:
    """Whether two fingerprints agree; an image that is gone says nothing against the old one."""
    if new.startswith("absent|"):
        return old.split("|")[-1] == new.split("|")[-1]
    return old == new


# -- here, or on workers -----------------------------------------------------------------------


def _run_here(shards, encoders, device, batch_size, client=None) -> Iterator[Result]:
    """Run shards in this process; the scans of the next one are read while one is encoded."""
    cache: dict[str, torch.nn.Module] = {}

    def modules(encoder: Encoder) -> torch.nn.Module:
        if encoder.model.key not in cache:
            cache[encoder.model.key] = encoder.load().to(device)
        return cache[encoder.model.key]

    specs = specs_of(encoders)
    with ThreadPoolExecutor(2) as pool:
        ahead = deque()
        left = iter(shards)
        try:
            while True:
                while len(ahead) < 2 and (shard := next(left, None)) is not None:
                    ahead.append((shard, [pool.submit(cut, scan, specs) for scan in shard]))
                if not ahead:
                    return
                shard, cuts = ahead.popleft()
                results = [cut.result() for cut in cuts]
                yield from encode_shard(shard, results, encoders, modules, batch_size)
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


_worker_modules: dict[tuple, torch.nn.Module] = {}
_worker_lock = threading.Lock()


def _worker_module(encoder: Encoder, device: str) -> torch.nn.Module:
    """Return a network that this process builds once and then keeps."""
    if encoder.module is not None:
        return encoder.load().to(device)
    key = (encoder.model.key, encoder.size, str(encoder.checkpoint), device)
    with _worker_lock:
        if key not in _worker_modules:
            _worker_modules[key] = encoder.load().to(device)
        return _worker_modules[key]


def _hold(encoders: list[Encoder]) -> list[Encoder]:
    """Keep encoders on a worker; as a task, so that they come back if the worker is killed."""
    return encoders


def _on_worker(shard, encoders, device, batch_size) -> list[Result]:
    specs = specs_of(encoders)
    cuts = [cut(scan, specs) for scan in shard]
    return list(
        encode_shard(shard, cuts, encoders, lambda e: _worker_module(e, device), batch_size)
    )


def _run_on(shards: Iterable, encoders, device, batch_size, client) -> Iterator[Result]:
    """Run shards on the workers of a client, in the order in which they are done."""
    from distributed import KilledWorker, as_completed

    resources = {"GPU": 1} if device.startswith("cuda") else None
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Sending large graph")
        held = client.submit(_hold, encoders, pure=False, retries=3)
    futures = {}
    for shard in shards:
        future = client.submit(
            _on_worker, shard, held, device, batch_size,
            pure=False, retries=3, resources=resources,
        )  # fmt: skip
        futures[future] = shard
    try:
        done = as_completed(list(futures))
        for future in done:
            shard = futures.pop(future)
            error = future.exception()
            if error is None:
                yield from future.result()
            elif isinstance(error, KilledWorker):
                yield from _lost(shard, "the worker died each time with this shard")
            else:
                raise error
            future.release()
    finally:
        client.cancel([held, *futures])


def _lost(shard: list[Scan], reason: str) -> Iterator[Result]:
    for model in shard[0].wanted:
        failures = [
            Failure(model, scan.lesions[n], scan.scan_id[n], reason)
            for scan in shard
            for n in scan.wanted[model]
        ]
        if failures:
            yield model, [], np.empty((0, 0), np.float32), failures
