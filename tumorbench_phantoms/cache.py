"""The phantom cohorts on disk: made once, checked on every visit, made again when in doubt."""

import ast
import errno
import json
import logging
import os
import shutil
from concurrent.futures import ThreadPoolExecutor, as_completed
from functools import cache
from pathlib import Path

import pandas as pd
from filelock import FileLock
from tqdm import tqdm

from tumorbench_phantoms import cohort as cohorts
from tumorbench_phantoms.parameters import fingerprint, of_cohort
from tumorbench_utils import digests, files, settings

_MANIFEST, _STAMPS, _TABLE = "manifest.json", "stamps.json", "table.parquet"
_SOURCES = ("primitives", "anatomy", "abdomen", "lesion", "scanner", "latent", "store", "cohort")
_LOG = logging.getLogger(__name__)


@cache
def _generator() -> str:
    """Return a checksum of the code that makes phantoms, comments and docstrings left out."""
    parts = []
    for module in _SOURCES:
        tree = ast.parse((Path(__file__).parent / f"{module}.py").read_text(encoding="utf-8"))
        for node in ast.walk(tree):
            body = getattr(node, "body", None)
            if isinstance(body, list) and body and isinstance(body[0], ast.Expr):
                if isinstance(body[0].value, ast.Constant):
                    body[0].value.value = ""
        parts.append(ast.unparse(tree))
    return fingerprint({"sources": parts})


def generate(
    name: str,
    folder: str | os.PathLike | None = None,
    *,
    workers: int | None = None,
    progress: bool = True,
) -> pd.DataFrame:
    """Return the table of a phantom cohort; make its scans if they are not there.

    The scans of a cohort are kept with a manifest of their sizes and checksums and a key made from
    the cohort's parameters and the generator's code. They are made again if the key differs, a
    file is missing or its content has changed. Two processes that ask at once make them once.

    Parameters
    ----------
    name : str
        Key of the cohort, for example ``"luna16"``.
    folder : path-like, optional
        Folder of this cohort; ``phantoms/NAME`` in the cache folder by default.
    workers : int, optional
        Threads; one per core by default, at most 8.
    progress : bool
        Whether to show a bar while scans are made.

    Returns
    -------
    DataFrame
        One row per lesion: the columns of the cohort tables (paths absolute, coordinates LPS mm),
        ``mask_path``, ``scanner``, ``patient_factor`` and the truth in columns ``true_...``.

    Raises
    ------
    KeyError
        If there is no such cohort.
    ValueError
        If ``data/phantoms.yml`` holds what the generator does not understand.
    FileExistsError
        If `folder` holds other things than this cohort.
    OSError
        If the folder cannot be written or the disk is full; nothing half-written is left.
    """
    if workers is not None and workers < 1:
        raise ValueError(f"workers is {workers!r}, it must be at least 1")
    parameters = of_cohort(name)
    target = _folder(name, folder)
    key = fingerprint({**parameters, "generator": _generator()})
    table, reason = _load(target, name, key)
    if table is not None:
        return table
    if (
        folder is not None
        and target.is_dir()
        and any(target.iterdir())
        and not _is_ours(target, name)
    ):
        raise FileExistsError(
            f"{target} is not empty and does not hold the phantom cohort {name}; take another"
        )
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(target.parent / f".{target.name}.lock"):
            table, reason = _load(target, name, key)
            if table is None:
                if reason:
                    _LOG.warning("the phantom cohort %s is made again: %s", name, reason)
                _make(name, parameters, target, key, workers, progress)
                table, reason = _load(target, name, key)
    except OSError as error:
        raise _plain(error, name, target) from error
    if table is None:
        raise OSError(
            f"the phantom cohort {name} in {target} is damaged right after it was made: {reason}"
        )
    return table


def verify(name: str, folder: str | os.PathLike | None = None) -> list[str]:
    """Compare every file of a phantom cohort with its checksum.

    Parameters
    ----------
    name : str
        Key of the cohort.
    folder : path-like, optional
        As for :func:`generate`.

    Returns
    -------
    list of str
        Names of the files that are missing or differ; empty if all is well.

    Raises
    ------
    FileNotFoundError
        If the cohort has not been made there.
    """
    of_cohort(name)
    target = _folder(name, folder)
    if not (target / _MANIFEST).is_file():
        raise FileNotFoundError(f"{target} holds no phantom cohort; generate({name!r}) makes it")
    known = json.loads((target / _MANIFEST).read_text(encoding="utf-8"))["files"]
    wrong = []
    for relative, entry in known.items():
        path = files.inside(target, relative)
        if not path.is_file() or digests.of_file(path) != entry["sha256"]:
            wrong.append(relative)
    return wrong


def _folder(name: str, folder: str | os.PathLike | None) -> Path:
    """Return the folder of a cohort."""
    if folder is None:
        return settings.cache_dir() / "phantoms" / name
    return Path(folder).expanduser().resolve()


def _is_ours(target: Path, name: str) -> bool:
    """Tell whether a folder was written for this cohort."""
    try:
        return json.loads((target / _MANIFEST).read_text(encoding="utf-8"))["cohort"] == name
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _load(target: Path, name: str, key: str) -> tuple[pd.DataFrame | None, str]:
    """Return the table if the folder is whole and of this key, else None and the reason."""
    if not target.is_dir():
        return None, ""
    try:
        manifest = json.loads((target / _MANIFEST).read_text(encoding="utf-8"))
        if manifest["cohort"] != name or manifest["key"] != key:
            return None, "it was made with other parameters or by another version"
        known = {str(k): (int(v["bytes"]), str(v["sha256"])) for k, v in manifest["files"].items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None, "its manifest is missing or unreadable"
    try:
        stamps = json.loads((target / _STAMPS).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        stamps = {}
    found = {}
    for relative, (size, digest) in known.items():
        path = target / relative
        try:
            status = path.stat()
        except OSError:
            return None, f"{relative} is missing"
        if status.st_size != size:
            return None, f"{relative} has {status.st_size} bytes instead of {size}"
        # As in git's index: a file is read again only if its time of change is not the known one.
        found[relative] = status.st_mtime_ns
        if stamps.get(relative) != status.st_mtime_ns and digests.of_file(path) != digest:
            return None, f"the content of {relative} has changed"
    if found != stamps:
        _write_stamps(target, found)
    return _absolute(pd.read_parquet(target / _TABLE), target), ""


def _write_stamps(target: Path, stamps: dict) -> None:
    """Note the times of change of checked files; a folder that cannot be written stays as it is."""
    try:
        with files.atomic_path(target / _STAMPS) as part:
            part.write_text(json.dumps(stamps), encoding="utf-8")
    except OSError:
        _LOG.debug("cannot write %s", target / _STAMPS)


def _absolute(table: pd.DataFrame, target: Path) -> pd.DataFrame:
    """Return the table with absolute paths."""
    for column in ("image_path", "mask_path", "dicom_path"):
        if column in table:
            table[column] = [None if pd.isna(v) else str(target / v) for v in table[column]]
    return table


def _make(name: str, parameters: dict, target: Path, key: str, workers, progress) -> None:
    """Make all scans of a cohort in a folder beside `target`, then rename it."""
    items = cohorts.plan(name)
    _check_space(items, target)
    dicom = parameters.get("dicom_scans", 0)
    for left in os.listdir(target.parent):
        # Left by a process that was killed; with the lock held nobody is writing it.
        if left.startswith(".part-") and left.endswith(f"-{target.name}"):
            shutil.rmtree(target.parent / left, ignore_errors=True)
    with files.atomic_path(target) as part:
        part.mkdir()
        pool = ThreadPoolExecutor(max_workers=workers or _cores())
        try:
            jobs = {
                pool.submit(cohorts.make, item, parameters, part, k < dicom): k
                for k, item in enumerate(items)
            }
            done = {}
            for job in tqdm(
                as_completed(jobs), total=len(jobs), desc=name, unit="scan", disable=not progress
            ):
                done[jobs[job]] = job.result()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
        rows = [done[k][0] for k in range(len(items))]
        written = [path for k in range(len(items)) for path in done[k][1]]
        cohorts.tidy(rows, parameters).to_parquet(part / _TABLE, index=False)
        entries = {
            str(path.relative_to(part).as_posix()): {
                "bytes": path.stat().st_size,
                "sha256": digests.of_file(path),
            }
            for path in [*written, part / _TABLE]
        }
        stamps = {k: (part / k).stat().st_mtime_ns for k in entries}
        manifest = {"cohort": name, "key": key, "files": entries}
        (part / _MANIFEST).write_text(json.dumps(manifest, indent=0), encoding="utf-8")
        (part / _STAMPS).write_text(json.dumps(stamps), encoding="utf-8")


def _cores() -> int:
    """Return the number of cores this process may use, at most 8 (0.3 GB of memory for each)."""
    usable = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else range(os.cpu_count())
    return min(len(usable), 8)


def _check_space(items: list, target: Path) -> None:
    """Raise OSError if the disk has less room than the uncompressed scans may need."""
    need = 0
    for item in items:
        a = item.acquisition
        need += 2.2 * (a.field_mm / a.spacing_mm) ** 2 * (a.field_mm / a.slice_mm)
    free = shutil.disk_usage(target.parent).free
    if free < need:
        text = f"needs {need / 1e9:.1f} GB, {free / 1e9:.1f} GB are free"
        raise OSError(errno.ENOSPC, text)


def _plain(error: OSError, name: str, target: Path) -> OSError:
    """Return an error of the same type that says what to do."""
    hint = "set TUMORBENCH_CACHE to a folder that you may write to, with room"
    text = f"cannot make the phantom cohort {name} in {target}: {error.strerror or error}; {hint}"
    return type(error)(text)
