"""One recipe for digests: of values, of files, and of the code that a result depends on."""

import ast
import functools
import hashlib
import importlib.util
import os
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
import pandas as pd

#: Packages of the book whose source counts.
PACKAGES = ("tumorbench_utils", "tumorbench_phantoms", "tumorbench_training", "tumorbench_book")


def of(*parts) -> str:
    """Return a SHA-256 of values, in their order, as 64 hexadecimal digits.

    Parameters
    ----------
    *parts : ndarray, DataFrame, Series, Index, mapping, sequence (nested), None, str or number
        A mapping counts by its sorted keys.
    """
    digest = hashlib.sha256()

    def add(part) -> None:
        if isinstance(part, pd.DataFrame):
            one_kind = len(set(part.dtypes)) == 1
            values = [part] if one_kind else [part[c] for c in part.columns]
            add([part.index, list(part.columns), *(v.to_numpy() for v in values)])
        elif isinstance(part, pd.Series):
            add([part.index, part.to_numpy()])
        elif isinstance(part, pd.Index):
            add("\0".join(map(str, part)))
        elif isinstance(part, Mapping):
            add([(str(key), part[key]) for key in sorted(part, key=str)])
        elif isinstance(part, np.ndarray) and part.dtype != object:
            digest.update(f"array {part.dtype.str} {part.shape};".encode())
            digest.update(np.ascontiguousarray(part).tobytes())
        elif isinstance(part, np.ndarray | list | tuple):
            digest.update(f"list {len(part)};".encode())
            for item in part:
                add(item)
        else:
            digest.update(f"{type(part).__name__} {part!r};".encode())

    add(parts)
    return digest.hexdigest()


def of_file(path: str | os.PathLike) -> str:
    """Return the SHA-256 of a file."""
    with open(path, "rb") as stream:
        digest = hashlib.sha256()
        for block in iter(lambda: stream.read(1 << 20), b""):
            digest.update(block)
    return digest.hexdigest()


def of_state(paths: Iterable[Path]) -> str:
    """Return a digest of files that notices changes without reading them whole.

    It takes names, sizes, times of change, and 4 kB from the middle and the end (where compressed
    files have the checksum of their contents).

    Raises
    ------
    OSError
        If one is not there or cannot be read.
    """
    parts = []
    for path in paths:
        state = path.stat()
        with open(path, "rb") as stream:
            for start in (state.st_size // 2, max(0, state.st_size - 4096)):
                stream.seek(start)
                parts.append(stream.read(4096))
        parts += [path.name, state.st_size, state.st_mtime_ns]
    return of(parts)


def of_code(*modules: str) -> str:
    """Return a digest of modules and of all that they import from :data:`PACKAGES`.

    Comments and docstrings do not count.

    Parameters
    ----------
    *modules : str
        Dotted names, for example ``"tumorbench_utils.probes"``; a package counts with all its
        modules.
    """
    paths = reached(modules)
    return of([(path.name, _plain_source(path, path.stat().st_mtime_ns)) for path in paths])


def reached(modules) -> list[Path]:
    """Return the files of modules and of all that they import from :data:`PACKAGES`, sorted."""
    todo, seen = list(modules), set()
    while todo:
        for path in _files(todo.pop()):
            if path not in seen:
                seen.add(path)
                todo.extend(imported(path.read_text(encoding="utf-8")))
    return sorted(seen)


@functools.lru_cache(maxsize=1024)
def imported(source: str) -> frozenset[str]:
    """Return the modules of :data:`PACKAGES` that a source imports, anywhere in it.

    ``from package import module`` counts as the module alone, not as all of its package.
    """
    names = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            parts = [f"{node.module}.{alias.name}" for alias in node.names]
            names.update(part if _files(part) else node.module for part in parts)
    return frozenset(name for name in names if name.split(".")[0] in PACKAGES)


@functools.cache
def _root(package: str) -> Path:
    return Path(importlib.util.find_spec(package).origin).parent


def _files(module: str) -> list[Path]:
    package, *rest = module.split(".")
    if package not in PACKAGES:
        return []
    base = _root(package).joinpath(*rest)
    if base.is_dir() and (rest or package != "tumorbench_utils"):
        return sorted(base.rglob("*.py"))
    return [p for p in (base.with_suffix(".py"), base / "__init__.py") if p.exists()]


@functools.lru_cache(maxsize=1024)
def _plain_source(path: Path, changed_ns: int) -> str:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if isinstance(body, list) and body and isinstance(body[0], ast.Expr):
            if isinstance(body[0].value, ast.Constant):
                body[0].value.value = ""
    return ast.unparse(tree)
