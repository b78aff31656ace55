"""The one place that decides the edition and where data, caches and results are.

Three environment variables set everything:

``TUMORBENCH_EDITION``
    ``phantom`` (default), ``released`` or ``full``.
``TUMORBENCH_DATA``
    Folder with the released tables, features and images. Not needed by the phantom edition.
``TUMORBENCH_CACHE``
    Folder for what the book computes itself: phantom scans, embeddings, results.
"""

import difflib
import functools
import os
from collections.abc import Iterable
from pathlib import Path

import yaml

EDITIONS = ("phantom", "released", "full")

#: Top level of the checkout: it holds ``_toc.yml``, ``notebooks`` and ``data``.
BOOK_ROOT = Path(__file__).resolve().parents[1]


@functools.cache
def book_data(name: str):
    """Return what ``data/NAME.yml`` of the book holds; it is read once and must not be changed."""
    text = (BOOK_ROOT / "data" / f"{name}.yml").read_text(encoding="utf-8")
    return yaml.load(text, getattr(yaml, "CSafeLoader", yaml.SafeLoader))


def unknown(kind: str, name: object, known: Iterable[str]) -> str:
    """Return one line that names the known values nearest to an unknown one.

    Parameters
    ----------
    kind : str
        What `name` was meant to be, for example ``"cohort"``.
    name : object
        The value that is not known.
    known : iterable of str
        The values that are.
    """
    known = list(known)
    near = difflib.get_close_matches(str(name).lower(), known, n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(near)}? " if near else ""
    return f"unknown {kind} {name!r}: {hint}known are {', '.join(known)}"


def edition(value: str | None = None) -> str:
    """Return the edition in force.

    Parameters
    ----------
    value : str, optional
        ``"phantom"``, ``"released"`` or ``"full"``. If None, ``TUMORBENCH_EDITION`` is taken,
        else ``"phantom"``.

    Raises
    ------
    ValueError
        If the name is not one of the three.
    """
    name = value or os.environ.get("TUMORBENCH_EDITION") or "phantom"
    if name not in EDITIONS:
        raise ValueError(unknown("edition", name, EDITIONS))
    return name


def data_dir() -> Path | None:
    """Return the folder named by ``TUMORBENCH_DATA``, or None if it is not set.

    Raises
    ------
    FileNotFoundError
        If the variable is set but names no folder.
    """
    return named_folder("TUMORBENCH_DATA", "the released tables")


def named_folder(variable: str, content: str) -> Path | None:
    """Return the folder that an environment variable names, or None if it is not set.

    Raises
    ------
    FileNotFoundError
        If it names no folder; the message says what (`content`) should lie in it.
    """
    value = os.environ.get(variable)
    if not value:
        return None
    folder = Path(value).expanduser().resolve()
    if not folder.is_dir():
        raise FileNotFoundError(
            f"{variable} names {value!r}, which is not a folder; set it to the folder with "
            f"{content} or unset it"
        )
    return folder


def cache_dir() -> Path:
    """Return the folder for everything that the book computes and may compute again.

    ``TUMORBENCH_CACHE`` if set; ``_cache`` in the checkout if there is one; else
    ``.cache/tumorbench`` in the home folder.
    """
    value = os.environ.get("TUMORBENCH_CACHE")
    if value:
        return Path(value).expanduser().resolve()
    if (BOOK_ROOT / "_toc.yml").exists():
        return BOOK_ROOT / "_cache"
    return Path.home() / ".cache" / "tumorbench"
