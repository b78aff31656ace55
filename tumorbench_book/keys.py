"""When a chapter must run again: its key, and where its executed copy is kept."""

import functools
import importlib.metadata
import json
import os
import platform
from collections.abc import Iterable
from pathlib import Path

import nbformat
import yaml

from tumorbench_utils import digests, settings

#: Libraries whose version is part of every key.
COMPUTING = (
    *("lifelines", "matplotlib", "monai", "numpy", "pandas"),
    *("scikit-learn", "scipy", "SimpleITK", "torch"),
)

#: A chapter that imports this runs the notebooks of ``notebooks/reports/``.
_REPORTS = "tumorbench_book.reports"


def chapters(root: Path = settings.BOOK_ROOT) -> list[str]:
    """Return the names (``PART/NAME``) of the chapter notebooks in the order of ``_toc.yml``."""
    toc = yaml.safe_load((root / "_toc.yml").read_text(encoding="utf-8"))
    pages = [entry["file"] for part in toc["parts"] for entry in part["chapters"]]
    return [p.removeprefix("notebooks/") for p in pages if (root / f"{p}.ipynb").exists()]


@functools.cache
def versions() -> dict[str, str]:
    """Return the versions of Python and of the libraries in :data:`COMPUTING`."""
    found = {name: importlib.metadata.version(name) for name in COMPUTING}
    return {"python": platform.python_version(), **found}


@functools.lru_cache(maxsize=1024)
def _digest(path: Path, size: int, changed_ns: int) -> str:
    return digests.of_file(path)


def content(folder: Path) -> dict[str, str]:
    """Return the digest of each file below a folder by its path there."""
    states = {path: path.stat() for path in sorted(folder.rglob("*")) if path.is_file()}
    return {
        path.relative_to(folder).as_posix(): _digest(path, state.st_size, state.st_mtime_ns)
        for path, state in states.items()
    }


def _external() -> list:
    """Return names, sizes and times of all files in ``TUMORBENCH_DATA``, which may be large."""
    folder = settings.data_dir()
    paths = sorted(p for p in folder.rglob("*") if p.is_file()) if folder else []
    return [(str(p.relative_to(folder)), p.stat().st_size, p.stat().st_mtime_ns) for p in paths]


def _cells(path: Path) -> tuple[list, frozenset[str]]:
    """Return the cells of a notebook and the modules of the book that they import."""
    cells = nbformat.read(path, as_version=4).cells
    lines = "\n".join(c.source for c in cells if c.cell_type == "code").split("\n")
    plain = [line for line in lines if not line.lstrip().startswith(("%", "!"))]
    return [[c.cell_type, c.source, c.metadata] for c in cells], digests.imported("\n".join(plain))


def chapter_key(name: str, root: Path = settings.BOOK_ROOT) -> str:
    """Return the key of a chapter: it changes when anything that the chapter computes from does.

    Parameters
    ----------
    name : str
        ``PART/NAME`` as in :func:`chapters`.
    root : Path
        Top level of the book.
    """
    cells, modules = _cells(root / "notebooks" / f"{name}.ipynb")
    if _REPORTS in modules:
        for path in sorted((root / "notebooks" / "reports").glob("*.ipynb")):
            more, imported = _cells(path)
            cells, modules = cells + more, modules | imported
    code, data = digests.of_code(*sorted(modules)), content(root / "data")
    return digests.of(cells, code, data, _external(), settings.edition(), versions())


def executed_path(name: str, root: Path = settings.BOOK_ROOT) -> Path:
    """Return where the executed copy of a chapter is kept."""
    return root / "_build" / "executed" / f"{name}.ipynb"


def part_path(name: str, root: Path, process: int) -> Path:
    """Return where a process writes a chapter while it runs: no other one writes there."""
    target = executed_path(name, root)
    return target.with_name(f"{target.stem}.{process}.part.ipynb")


def failed_path(name: str, root: Path) -> Path:
    """Return where the copy of a chapter that failed is kept until it succeeds."""
    return root / "_build" / "failed" / f"{name}.ipynb"


def recorded(path: str | os.PathLike) -> dict:
    """Return what the runner wrote into an executed notebook; empty for other files."""
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))["metadata"]["tumorbench"]
    except (OSError, ValueError, KeyError):
        return {}


def stale(names: Iterable[str], root: Path = settings.BOOK_ROOT) -> list[str]:
    """Return the chapters whose executed copy is missing or was made under another key."""
    return [n for n in names if recorded(executed_path(n, root)).get("key") != chapter_key(n, root)]
