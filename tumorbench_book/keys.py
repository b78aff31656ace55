"""When a chapter must run again: its key, and where its executed copy is kept."""

import ast
import functools
import hashlib
import importlib.metadata
import json
import platform
from collections.abc import Iterable
from pathlib import Path

import nbformat
import yaml

from tumorbench_utils import digests, settings

#: Libraries whose version is part of every key.
COMPUTING = (
    "lifelines",
    "matplotlib",
    "monai",
    "numpy",
    "pandas",
    "scikit-learn",
    "scipy",
    "SimpleITK",
    "torch",
)

_PACKAGE = "tumorbench_utils"


def chapters(root: Path = settings.BOOK_ROOT) -> list[str]:
    """Return the names (``PART/NAME``) of the chapter notebooks in the order of ``_toc.yml``."""
    toc = yaml.safe_load((root / "_toc.yml").read_text(encoding="utf-8"))
    pages = [entry["file"] for part in toc["parts"] for entry in part["chapters"]]
    notebooks = [page for page in pages if (root / f"{page}.ipynb").exists()]
    return [str(Path(page).relative_to("notebooks").as_posix()) for page in notebooks]


@functools.cache
def _imports(source: str) -> frozenset[str]:
    """Return the modules of the package that `source` names in import statements."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found.add(node.module)
            found.update(f"{node.module}.{alias.name}" for alias in node.names)
    return frozenset(name for name in found if name.split(".")[0] == _PACKAGE)


def _module_files(module: str, root: Path) -> list[Path]:
    """Return the files behind a dotted name: the module itself, or all files of a package."""
    base = root.joinpath(*module.split("."))
    if base.is_dir() and module != _PACKAGE:
        return sorted(base.rglob("*.py"))
    return [p for p in (base.with_suffix(".py"), base / "__init__.py") if p.exists()]


def reached(source: str, root: Path = settings.BOOK_ROOT) -> list[Path]:
    """Return every file of the package that `source` reaches through imports, sorted."""
    seen: set[Path] = set()
    todo = sorted(_imports(source))
    while todo:
        for path in _module_files(todo.pop(), root):
            if path not in seen:
                seen.add(path)
                todo.extend(_imports(path.read_text(encoding="utf-8")))
    return sorted(seen)


def _fingerprint(folder: Path | None) -> str:
    """Return a digest of the names, sizes and times of all files below a folder."""
    if folder is None:
        return "none"
    digest = hashlib.sha256()
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        stat = path.stat()
        digest.update(f"{path.relative_to(folder)} {stat.st_size} {stat.st_mtime_ns}\n".encode())
    return digest.hexdigest()


@functools.cache
def _digest(path: Path, size: int, changed_ns: int) -> str:
    """Return the digest of a file; the chapters share most of what they are made of."""
    return digests.of_file(path)


def content(paths: Iterable[Path], root: Path) -> dict[str, str]:
    """Return the digest of each file by its path below `root`."""
    states = [(path, path.stat()) for path in paths]
    return {
        path.relative_to(root).as_posix(): _digest(path, state.st_size, state.st_mtime_ns)
        for path, state in states
    }


@functools.cache
def versions() -> dict[str, str]:
    """Return the versions of Python and of the libraries in :data:`COMPUTING`."""
    found = {name: importlib.metadata.version(name) for name in COMPUTING}
    return {"python": platform.python_version(), **found}


def chapter_key(name: str, root: Path = settings.BOOK_ROOT) -> str:
    """Return the key of a chapter: it changes when anything that the chapter computes from does.

    Parameters
    ----------
    name : str
        ``PART/NAME`` as in :func:`chapters`.
    root : Path
        Top level of the book.
    """
    notebook = nbformat.read(root / "notebooks" / f"{name}.ipynb", as_version=4)
    code = [cell.source for cell in notebook.cells if cell.cell_type == "code"]
    lines = "\n".join(code).split("\n")
    plain = "\n".join(line for line in lines if not line.lstrip().startswith(("%", "!")))
    data = [p for p in (root / "data").rglob("*") if p.is_file()]
    parts = {
        "cells": [[c.cell_type, c.source, c.metadata] for c in notebook.cells],
        "package": content(reached(plain, root), root),
        "data": content(sorted(data), root),
        "external": _fingerprint(settings.data_dir()),
        "edition": settings.edition(),
        "versions": versions(),
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def executed_path(name: str, root: Path = settings.BOOK_ROOT) -> Path:
    """Return where the executed copy of a chapter is kept."""
    return root / "_build" / "executed" / f"{name}.ipynb"


def part_path(name: str, root: Path) -> Path:
    """Return where a chapter is written while it runs."""
    target = executed_path(name, root)
    return target.with_name(f"{target.stem}.part.ipynb")


def _record(path: Path) -> dict:
    """Return what the runner wrote into an executed notebook; empty if there is none."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))["metadata"].get("tumorbench", {})
    except (OSError, ValueError, KeyError):
        return {}


def stale(names: Iterable[str], root: Path = settings.BOOK_ROOT) -> list[str]:
    """Return the chapters whose executed copy is missing or was made under another key."""
    return [n for n in names if _record(executed_path(n, root)).get("key") != chapter_key(n, root)]
