"""Embed a cohort: every scan read once, every result kept at once, nothing done twice."""

from __future__ import annotations

import functools
import threading
import time
import warnings
from collections import deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
from tqdm import tqdm

from tumorbench_utils import checks, digests, settings
from tumorbench_utils.checks import require
from tumorbench_utils.embeddings import shards
from tumorbench_utils.embeddings.encoders import Encoder, as_encoders
from tumorbench_utils.embeddings.shards import Failure, Result
from tumorbench_utils.embeddings.store import (
    EmbeddingStore,
    check_ids,
    columns,
    key_of,
    merge,
    write_file,
)
from tumorbench_utils.patches import PatchError, sources

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
    what = f"store is an EmbeddingStore, not {store!r:.80}"
    require(isinstance(store, EmbeddingStore), what, error=TypeError)
    encoders = as_encoders(models, getattr(cohort, "edition", None) or settings.edition())
    device = _device(device, client)
    if batch_size is None:
        batch_size = BATCH_SIZE["cuda" if device.startswith("cuda") else "cpu"]
    whole = type(batch_size) is int and batch_size > 0
    require(whole, f"batch_size is a positive integer, not {batch_size!r}")
    metas = {model: encoder.meta() for model, encoder in encoders.items()}
    keys = {model: key_of(meta, encoders[model].model.dim) for model, meta in metas.items()}
    paths = {model: store.path(cohort, model, key) for model, key in keys.items()}
    data, report, order = fingerprints(table), Report(), list(table["lesion_id"])
    name, todo = next(iter(paths.values())).parts[-3], {}
    with store.lock(name):
        for model, path in paths.items():
            report.repaired += merge(path, metas[model], order=order, repair=True)
            fresh = _fresh(store, name, model, keys[model], data)
            report.skipped += [(model, lesion) for lesion in order if lesion in fresh]
            todo[model] = set(order) - fresh
        for line in report.repaired:
            warnings.warn(line, stacklevel=2)
        work = shards.make_shards(table, todo, batch_size)
        run = _run_here if client is None else _run_on
        results = run(work, encoders, keys, device, batch_size, client)
        total = sum(map(len, todo.values()))
        bar = tqdm(total=total, desc=name, unit="patch", disable=not progress or not total)
        try:
            with bar:
                for number, (model, lesions, values, failures) in enumerate(results):
                    if lesions:
                        frame = pd.DataFrame(values, lesions, columns(values.shape[1]))
                        part = paths[model].with_suffix(f".part-{number:06d}.parquet")
                        write_file(part, frame, data[lesions], metas[model])
                    report.done += [(model, lesion) for lesion in lesions]
                    report.failed += failures
                    bar.update(len(lesions) + len(failures))
        finally:
            results.close()
            for model, path in paths.items():
                merge(path, metas[model], order=order)
    report.seconds = time.perf_counter() - start
    return report


def _check_table(cohort) -> pd.DataFrame:
    """Return the columns that a run needs, seeds as float64."""
    table = getattr(cohort, "table", None)
    what = f"embed takes a cohort (cohorts.load_cohort), not {cohort!r:.80}"
    require(isinstance(table, pd.DataFrame), what, error=TypeError)
    table = table[checks.columns(table, _NEEDED)].reset_index(drop=True)
    check_ids(table["lesion_id"])
    return table.astype(dict.fromkeys(_NEEDED[3:], "float64"))


def _device(device: str | None, client) -> str:
    """Return the device after checking that there is one."""
    import torch

    workers = client.scheduler_info(n_workers=-1)["workers"].values() if client else ()
    offers = any(worker["resources"].get("GPU") for worker in workers)
    there = offers if client else torch.cuda.is_available()
    device = str(device or ("cuda" if there else "cpu"))
    kind = checks.one_of(torch.device(device).type, "device", ("cpu", "cuda", "mps"))
    lacking = "resource GPU of the workers (--resources 'GPU=1')" if client else "CUDA device"
    require(there or kind != "cuda", f"there is no {lacking}; pass device='cpu'")
    return device


def fingerprints(table: pd.DataFrame) -> pd.Series:
    """Return by lesion what its embedding depends on: ``"STATE|X,Y,Z"``.

    The state of all files of the image (``absent`` if there is none, see
    :func:`tumorbench_utils.digests.of_state`) and the seed.
    """
    states = {path: _state(path) for path in table["image_path"].unique()}
    data = {
        row.lesion_id: f"{states.get(row.image_path, 'absent')}|"
        f"{row.coord_x!r},{row.coord_y!r},{row.coord_z!r}"
        for row in table.itertuples()
    }
    return pd.Series(data, dtype=object)


def _state(path) -> str:
    try:
        return digests.of_state(sources(path))[:16]
    except (OSError, TypeError, PatchError):
        return "absent"


def _fresh(store, cohort: str, model: str, key: str, data: pd.Series) -> set[str]:
    """Return the lesions whose stored embedding was made from the input of today."""
    try:
        held = store.entry(cohort, model, key=key).data
    except KeyError:
        return set()
    today = data.reindex(held.index)
    # An image that is gone says nothing against the embedding that was made of it.
    today, held = (s.str.split("|", expand=True).reindex(columns=[0, 1]) for s in (today, held))
    same = (today[1] == held[1]) & ((today[0] == held[0]) | (today[0] == "absent"))
    return set(held.index[same])


# -- here, or on workers -----------------------------------------------------------------------


def _run_here(work, encoders, keys, device, batch_size, client=None) -> Iterator[Result]:
    """Run shards in this process; the scans of the next one are read while one is encoded."""
    network = functools.lru_cache(maxsize=None)(lambda encoder: encoder.load().to(device))
    specs, pool, ahead = shards.specs_of(encoders), ThreadPoolExecutor(2), deque()
    try:
        for shard in [*work, None]:
            if shard is not None:
                scans = shards.scans_of(shard)
                ahead.append((shard, [pool.submit(shards.cut, scan, specs) for scan in scans]))
            if len(ahead) > (shard is not None):
                current, tasks = ahead.popleft()
                cuts = [task.result() for task in tasks]
                yield from shards.encode(current, cuts, encoders, network, batch_size)
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


_lock = threading.Lock()


@functools.lru_cache(maxsize=16)
def _built(encoder: Encoder, key: str, device: str):
    return encoder.load().to(device)


def _on_worker(shard, encoders, keys, device, batch_size) -> list[Result]:
    def network(encoder):
        if encoder.module is not None:
            return encoder.load().to(device)
        with _lock:  # built once and then kept; the key tells checkpoints of one path apart
            return _built(encoder, keys[encoder.model.key], device)

    specs = shards.specs_of(encoders)
    cuts = [shards.cut(scan, specs) for scan in shards.scans_of(shard)]
    return list(shards.encode(shard, cuts, encoders, network, batch_size))


def _run_on(work, encoders, keys, device, batch_size, client) -> Iterator[Result]:
    """Run shards on the workers of a client, in the order in which they are done."""
    from distributed import KilledWorker, as_completed

    options = {"pure": False, "retries": 3}
    if device.startswith("cuda"):
        options["resources"] = {"GPU": 1}
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Sending large graph")
        # As a task, so that they come back if the worker that holds them is killed.
        held = client.submit(dict, encoders, pure=False, retries=3)
    rest = (held, keys, device, batch_size)
    futures = {client.submit(_on_worker, shard, *rest, **options): shard for shard in work}
    try:
        for future in as_completed(list(futures)):
            shard, error = futures.pop(future), future.exception()
            if isinstance(error, KilledWorker):
                why = "the worker died each time with this shard"
                for model in encoders:
                    names = shard.loc[shard[model], ["lesion_id", "scan_id"]].to_numpy()
                    failures = [Failure(model, *pair, why) for pair in names]
                    yield Result(model, [], np.empty((0, 0)), failures)
            else:
                yield from future.result()
            future.release()
    finally:
        client.cancel([held, *futures])
