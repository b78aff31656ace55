"""Phantom cohorts in the cache: made once, made again when the generator or a file has changed."""

import json
import logging
import shutil
from pathlib import Path

import pandas as pd

import tumorbench_phantoms as phantoms
from tumorbench_utils import digests, files, settings

_MANIFEST, _TABLE = "manifest.json", "table.parquet"
_LOG = logging.getLogger(__name__)


def phantom_table(name: str) -> pd.DataFrame:
    """Return the table of a phantom cohort; make its scans if they are not there.

    They lie in ``phantoms/NAME-KEY`` in the cache folder. The key stands for the parameters of the
    cohort and the code of the generator. A folder in which a file is missing or has changed is made
    again.

    Parameters
    ----------
    name : str
        Key of the cohort, for example ``"luna16"``.

    Returns
    -------
    DataFrame
        As :func:`tumorbench_phantoms.generate` returns it, with absolute paths.

    Raises
    ------
    KeyError
        If there is no such cohort.
    OSError
        If the scans cannot be written; nothing half-written is left.
    """
    key = digests.of(phantoms.of_cohort(name), digests.of_code("tumorbench_phantoms"))[:16]
    folder = settings.cache_dir() / "phantoms" / f"{name}-{key}"
    if folder.exists() and (fault := _fault(folder)):
        if not (folder / _MANIFEST).is_file():
            raise FileExistsError(f"{folder} is not empty and holds no phantom cohort: move it")
        _LOG.warning("the phantom cohort %s is made again: %s", name, fault)
        shutil.rmtree(folder)
    files.made(folder, lambda part: _make(name, part))
    table = pd.read_parquet(folder / _TABLE)
    for column in table.columns.intersection(["image_path", "mask_path", "dicom_path"]):
        table[column] = [None if pd.isna(v) else str(folder / v) for v in table[column]]
    return table


def _make(name: str, folder: Path) -> None:
    phantoms.generate(name, folder).to_parquet(folder / _TABLE, index=False)
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    known = {p.relative_to(folder).as_posix(): [*_stamp(p), digests.of_file(p)] for p in paths}
    (folder / _MANIFEST).write_text(json.dumps(known, indent=0), encoding="utf-8")


def _stamp(path: Path) -> list[int]:
    status = path.stat()
    return [status.st_size, status.st_mtime_ns]


def _fault(folder: Path) -> str | None:
    """Return what is wrong with a folder; a file is read only if its time is not the known one."""
    try:
        known = json.loads((folder / _MANIFEST).read_text(encoding="utf-8"))
        for name, (size, changed_ns, digest) in known.items():
            path = files.inside(folder, name)
            if not path.is_file():
                return f"{name} is missing"
            if _stamp(path) != [size, changed_ns] and digests.of_file(path) != digest:
                return f"the content of {name} has changed"
    except (OSError, ValueError, AttributeError, TypeError):
        return "its manifest is missing or damaged"
    return None
