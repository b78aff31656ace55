"""Files that are whole or absent: atomic writes, checksums and paths that stay in their folder."""

import contextlib
import hashlib
import os
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def atomic_path(path: str | os.PathLike) -> Iterator[Path]:
    """Give a temporary name beside `path`; rename it to `path` if the block ends well.

    The temporary name keeps the suffix, so that writers that choose a format by suffix work. A
    block that raises leaves nothing behind. Works for files and for folders.

    Parameters
    ----------
    path : path-like
        The final name; its folder is made if needed. An existing file is replaced.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.parent / f".part-{uuid.uuid4().hex[:12]}-{path.name}"
    try:
        yield part
        if path.is_dir():
            shutil.rmtree(path)
        os.replace(part, path)
    finally:
        if part.is_dir():
            shutil.rmtree(part, ignore_errors=True)
        else:
            part.unlink(missing_ok=True)


def sha256_file(path: str | os.PathLike) -> str:
    """Return the SHA-256 of a file as 64 hexadecimal digits."""
    digest = hashlib.sha256()
    with open(path, "rb") as stream:
        for block in iter(lambda: stream.read(1 << 20), b""):
            digest.update(block)
    return digest.hexdigest()


def inside(folder: str | os.PathLike, relative: str | os.PathLike) -> Path:
    """Return ``folder / relative`` if it lies in `folder`.

    Raises
    ------
    ValueError
        If `relative` is absolute or leads out of `folder` (through ``..`` or a link).
    """
    root = Path(folder).resolve()
    target = (root / relative).resolve()
    if Path(relative).is_absolute() or not target.is_relative_to(root):
        raise ValueError(f"the path {str(relative)!r} leaves its folder {root}")
    return target
