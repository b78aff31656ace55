"""Files that are whole or absent: atomic writes, things made once, paths that stay inside."""

import contextlib
import os
import shutil
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

from filelock import FileLock


@contextlib.contextmanager
def atomic_path(path: str | os.PathLike) -> Iterator[Path]:
    """Give a temporary name beside `path`; rename it to `path` if the block ends well.

    The temporary name keeps the suffix, so that writers that choose a format by suffix work. A
    block that raises leaves nothing behind. The block may also make a folder of that name.

    Parameters
    ----------
    path : path-like
        The final name; its folder is made if needed. An existing file is replaced.

    Raises
    ------
    FileExistsError
        If `path` is a folder: a folder is never replaced.
    """
    path = Path(path)
    if path.is_dir():
        raise FileExistsError(f"{path} is a folder and is left as it is; give another name")
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.parent / f".part-{uuid.uuid4().hex[:12]}-{path.name}"
    try:
        yield part
        os.replace(part, path)
    finally:
        _remove(part)


def made(path: str | os.PathLike, make: Callable[[Path], object]) -> Path:
    """Return `path`; call ``make(part)`` first if it is not there yet, and rename what it made.

    For everything that can be computed again: put what it depends on into its name
    (:func:`tumorbench_utils.digests.of`). Two processes that ask at once make it once.

    Parameters
    ----------
    path : path-like
        A file or a folder.
    make : callable
        Writes the file or makes the folder at the temporary path that it is given.

    Raises
    ------
    OSError
        If it cannot be written; nothing half-written is left.
    """
    path = Path(path)
    if path.exists():
        return path
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(path.parent / f".{path.name}.lock"):
            for left in path.parent.glob(f".part-????????????-{path.name}"):
                _remove(left)  # of a process that was killed: with the lock held nobody writes it
            if not path.exists():
                with atomic_path(path) as part:
                    make(part)
    except OSError as error:
        raise type(error)(
            error.errno,
            f"cannot write {path}: {error.strerror or error}; TUMORBENCH_CACHE names the folder",
        ) from error
    return path


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


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
