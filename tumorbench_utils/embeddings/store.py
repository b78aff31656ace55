"""A folder of embeddings: one Parquet file for each cohort, model and key, whole or absent.

::

    COHORT/MODEL/KEY.parquet              an entry
    COHORT/MODEL/KEY.part-000007.parquet  what a run that was cut off has made, to be gathered
    COHORT/MODEL/current                  the key that was written last

The *key* is a digest of what made the features (the *meta*), so features from other weights,
another patch or other code lie in another file and are never mixed with these. Damage is found by
the checksums that Parquet keeps of each page, and by the key, which must be that of the meta.
"""

import contextlib
import dataclasses
import json
import os
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from importlib import metadata
from pathlib import Path
from typing import NamedTuple

import filelock
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from tumorbench_utils import digests, files, settings
from tumorbench_utils.checks import InputError, require
from tumorbench_utils.embeddings.code import code_is_current

#: Version of the file layout; it is part of the key, so a file with another one is never read.
FORMAT = 2

_HEADER = b"tumorbench"
_NAME = re.compile(r"[^\W_][\w.\-]{0,119}")


class StoreError(InputError):
    """A file of the store is damaged or was written by another version."""


class StaleError(StoreError, KeyError):
    """What the store holds was made by other weights, another patch or other code."""

    __str__ = ValueError.__str__


class Problem(NamedTuple):
    """What :meth:`EmbeddingStore.verify` found: a file (relative to the root) and its fault."""

    path: str
    reason: str


class Entry(NamedTuple):
    """Contents of one file: features, fingerprint of each lesion's input, and the header."""

    frame: pd.DataFrame
    data: pd.Series
    header: dict


class EmbeddingStore:
    """Embeddings on disk by cohort and model.

    Parameters
    ----------
    root : path-like, optional
        The folder; made at the first write. If None, ``embeddings`` in
        :func:`tumorbench_utils.settings.cache_dir`.

    Notes
    -----
    A cohort or model is named by its key; a ``Cohort`` or ``FoundationModel`` stands for its own.
    Writers hold the lock of the cohort, so several processes may write at once. Readers need no
    lock and no permission to write: a file is replaced in one step.

    See Also
    --------
    pyarrow.parquet.write_table, pyarrow.parquet.read_table : with ``write_page_checksum`` and
        ``page_checksum_verification`` they read and write these files.

    Examples
    --------
    >>> store = EmbeddingStore("features")                       # doctest: +SKIP
    >>> store.write("luna16", "fmcib", frame, {"weights": "untrained"})   # doctest: +SKIP
    >>> store.read("luna16", "fmcib").shape                      # doctest: +SKIP
    (677, 4096)
    """

    def __init__(self, root: str | os.PathLike | None = None):
        self.root = Path(root or settings.cache_dir() / "embeddings").expanduser().resolve()

    def path(self, cohort, model, key: str | None = None) -> Path:
        """Return the file of an entry: that of `key`, or the one that was written last.

        Raises
        ------
        ValueError
            If a name is not a plain name (letters, digits, ``_ . -``) or leads out of the root.
        KeyError
            If there is no entry; the message names those that are there.
        """
        folder = files.inside(self.root, f"{_name(cohort)}/{_name(model)}")
        if key is not None:
            return folder / f"{key}.parquet"
        if (path := _current(folder)) is None:
            held = ", ".join(self.entries()) or "nothing"
            raise KeyError(
                f"no embeddings of {_name(cohort)} by {_name(model)} in {self.root} (it holds "
                f"{held}); make them with embeddings.embed or `tumorbench embed`"
            )
        return path

    def write(self, cohort, model, frame: pd.DataFrame, meta: Mapping) -> None:
        """Add rows to an entry, or replace the rows that have the same lesion.

        Parameters
        ----------
        cohort, model : str
        frame : DataFrame
            Index: unique lesion ids (str). Columns ``f0 .. f{d-1}``, floating point and finite;
            kept as float32.
        meta : mapping
            What made the features, as plain JSON values. Anything that changes the features
            belongs here: its digest, with ``d``, is the key. What has another key stays where it
            is, but is no longer what :meth:`read` returns.

        Raises
        ------
        TypeError, ValueError
            If `frame` or `meta` is not as described.
        StoreError
            If the file that is there is damaged.
        OSError
            If the disk is full or cannot be written; what was there is still there.
        """
        frame, meta = _checked(frame), plain(meta)
        path = self.path(cohort, model, key_of(meta, frame.shape[1]))
        with self.lock(cohort):
            merge(path, meta, Entry(frame, pd.Series("", frame.index), {}))

    def read(self, cohort, model, *, key: str | None = None) -> pd.DataFrame:
        """Return the features of a cohort by a model.

        Parameters
        ----------
        cohort, model : str
        key : str, optional
            Those with this key; if None, those that were written last.

        Returns
        -------
        DataFrame
            Index ``lesion_id``, float32 columns ``f0 .. f{d-1}``.

        Raises
        ------
        KeyError
            If there is no entry; the message names those that are there.
        StaleError
            If there is none with this key, or if it was made by code that has changed since.
        StoreError
            If the file is damaged or was written by another version of the store.
        """
        return self.entry(cohort, model, key=key).frame

    def meta(self, cohort, model) -> dict:
        """Return what made an entry, with ``package_version``, ``dim`` and ``rows``.

        Raises as :meth:`read`.
        """
        frame, _, header = self.entry(cohort, model)
        return {**header.pop("meta"), **header, "rows": len(frame)}

    def missing(self, cohort, model, lesion_ids: Iterable[str], *, key=None) -> list[str]:
        """Return those of `lesion_ids` that an entry does not hold, in their order.

        An absent or stale entry holds none. A damaged one raises :class:`StoreError`.
        """
        single = isinstance(lesion_ids, str | bytes)
        require(not single, "lesion_ids is a list of ids, not one string", error=TypeError)
        try:
            held = set(self.entry(cohort, model, key=key).frame.index)
        except KeyError:
            held = set()
        return [i for i in dict.fromkeys(lesion_ids) if i not in held]

    def entry(self, cohort, model, *, key: str | None = None) -> Entry:
        """Return everything about an entry; arguments and errors as for :meth:`read`."""
        path = self.path(cohort, model, key)
        if path.is_file():
            entry = _read(path)
            if key or code_is_current(_name(model), entry.header["meta"]):
                return entry
        raise StaleError(
            f"the embeddings of {_name(cohort)} by {_name(model)} in {self.root} were made by "
            "other weights, another patch or other code than now; embed again"
        )

    def entries(self) -> list[str]:
        """Return the entries as ``COHORT/MODEL``, sorted."""
        folders = (path.parent for path in self.root.glob("[!.]*/[!.]*/current"))
        found = [folder for folder in folders if _current(folder) is not None]
        return sorted(folder.relative_to(self.root).as_posix() for folder in found)

    def verify(self) -> list[Problem]:
        """Check every byte of every file, unfinished runs and entries of other keys included.

        Returns
        -------
        list of Problem
            Empty if all is well.
        """
        problems = []
        # Those named .part-... are of a writer at work, or of a killed one; nothing reads them.
        for path in sorted(self.root.rglob("[!.]*.parquet")):
            try:
                _read(path, every_byte=True)
            except (StoreError, OSError) as error:
                problems.append(Problem(path.relative_to(self.root).as_posix(), str(error)))
        return problems

    @contextlib.contextmanager
    def lock(self, cohort) -> Iterator[None]:
        """Keep other writers of a cohort away; says so if it has to wait for one of them."""
        folder = files.inside(self.root, _name(cohort))
        lock = filelock.FileLock(folder / ".lock")
        try:
            folder.mkdir(parents=True, exist_ok=True)
            lock.acquire(timeout=1)
        except filelock.Timeout:
            what = f"another run embeds {_name(cohort)} into {self.root}"
            print(f"{what}; waiting for it to end", file=sys.stderr)
            lock.acquire()
        except OSError:
            if os.access(folder, os.W_OK):
                raise  # else nobody writes there, and there is nobody to keep away
        try:
            yield
        finally:
            lock.release()


def merge(path: Path, meta: Mapping, *new: Entry, order=(), repair: bool = False) -> list[str]:
    """Move new rows and all parts of runs into an entry, and make it the current one.

    To be called under the lock.

    Parameters
    ----------
    path : Path
        Of the entry.
    meta : mapping
        What made it.
    *new : Entry
        They win over the parts, later parts over earlier ones, and these over the entry.
    order : sequence of str
        The lesions that come first, in that order.
    repair : bool
        Put damaged files aside, so that their lesions count as missing.

    Returns
    -------
    list of str
        One line for every file that was put aside.
    """
    for left in path.parent.glob(".part-*"):
        left.unlink()  # of a killed writer: with the lock held nobody writes it
    held, damaged = {}, []
    # KEY.parquet sorts before KEY.part-000000.parquet, and parts in the order they were made.
    for file in sorted(path.parent.glob(f"{path.stem}.*parquet")):
        try:
            held[file] = _read(file)
        except StoreError as error:
            if not repair:
                raise
            os.replace(file, aside := file.with_suffix(".damaged"))
            damaged.append(f"{error}; it lies in {aside} and its lesions are embedded again")
    parts = held.keys() - {path}
    if parts or new:
        frame, data = (pd.concat([e[n] for e in (*held.values(), *new)]) for n in (0, 1))
        last = ~frame.index.duplicated(keep="last")
        frame, data = frame[last], data[last]
        first = [lesion for lesion in order if lesion in frame.index]
        ids = [*first, *frame.index.difference(first, sort=False)]
        write_file(path, frame.loc[ids], data.loc[ids], meta)
    for part in parts:
        part.unlink()
    if path.exists() and _current(path.parent) != path:
        with files.atomic_path(path.parent / "current") as part:
            part.write_text(path.stem)
    return damaged


def key_of(meta: Mapping, dim: int) -> str:
    """Return the key of an entry: 16 hexadecimal digits of the digest of its meta and width."""
    return digests.of(FORMAT, dim, meta)[:16]


def plain(meta: Mapping) -> dict:
    """Return `meta` as JSON reads it back; specs, paths and numpy's numbers are made plain."""

    def simple(value):
        if dataclasses.is_dataclass(value):
            return dataclasses.asdict(value)
        return os.fspath(value) if isinstance(value, os.PathLike) else np.generic.item(value)

    try:
        return json.loads(json.dumps(dict(**meta), allow_nan=False, default=simple))
    except (TypeError, ValueError) as error:
        raise InputError(f"meta is a mapping of what JSON can hold: {error}") from None


def columns(dim: int) -> list[str]:
    """Return the column names ``f0 .. f{dim-1}``."""
    return [f"f{i}" for i in range(dim)]


def check_ids(ids: Iterable) -> None:
    """Raise if a lesion is not named by a non-empty string, or is named twice."""
    ids = pd.Series(list(ids), dtype=object)
    wrong = ids[[not isinstance(i, str) or not i for i in ids]]
    require(wrong.empty, f"lesions are named by non-empty strings, not {[*wrong][:1]}")
    twice = ids[ids.duplicated()]
    require(twice.empty, f"the lesion {[*twice][:1]} comes more than once")


def _name(value) -> str:
    """Return the key of a cohort or model after checking that it is a plain file name."""
    name = getattr(getattr(value, "card", None), "key", None) or getattr(value, "key", value)
    plain_name = isinstance(name, str) and _NAME.fullmatch(name)
    what = "is not a name for the store: letters, digits, '_.-' only, a letter or digit first"
    require(plain_name, f"{name!r:.200} {what}")
    return name


def _checked(frame: pd.DataFrame) -> pd.DataFrame:
    """Return a frame of features as float32 with its index named; see `EmbeddingStore.write`."""
    sound = isinstance(frame, pd.DataFrame) and {dtype.kind for dtype in frame.dtypes} == {"f"}
    sound = sound and list(frame.columns) == columns(frame.shape[1])
    came = list(getattr(frame, "columns", []))[:4] or type(frame)
    require(sound, f"features are a DataFrame with columns f0 .. f{{d-1}} of floats, not {came}")
    check_ids(frame.index)
    with np.errstate(over="ignore"):
        values = frame.to_numpy("float32", na_value=np.nan)
    bad = frame.index[~np.isfinite(values).all(axis=1)]
    require(bad.empty, f"{len(bad)} lesions have features that are not finite: {[*bad[:1]]}")
    index = pd.Index(list(frame.index), name="lesion_id", dtype=object)
    return pd.DataFrame(values, index=index, columns=columns(values.shape[1]))


# -- files -------------------------------------------------------------------------------------


def write_file(path: Path, frame: pd.DataFrame, data: pd.Series, meta: Mapping) -> None:
    """Write an entry or a part of it, in one step."""
    version = metadata.version("tumorbench-utils")
    header = {"meta": meta, "package_version": version, "dim": frame.shape[1]}
    with files.atomic_path(path) as part:
        part.write_bytes(_content(Entry(frame, data, header)))


def _schema(dim: int) -> pa.Schema:
    kinds = {
        "lesion_id": pa.string(),
        "data": pa.string(),
        "embedding": pa.list_(pa.float32(), dim),
    }
    return pa.schema(kinds)


def _content(entry: Entry) -> bytes:
    """Return the bytes of a file; the same for the same entry."""
    dim = entry.frame.shape[1]
    values = pa.array(np.ascontiguousarray(entry.frame.to_numpy("float32")).reshape(-1))
    features = pa.FixedSizeListArray.from_arrays(values, dim)
    table = pa.table([list(entry.frame.index), list(entry.data), features], _schema(dim))
    table = table.replace_schema_metadata({_HEADER: json.dumps(entry.header, sort_keys=True)})
    sink = pa.BufferOutputStream()
    # Noise of float32 does not shrink, and plain values are what reads fastest.
    options = {"compression": "none", "use_dictionary": False, "write_statistics": False}
    pq.write_table(table, sink, write_page_checksum=True, **options)
    return sink.getvalue().to_pybytes()


def _read(path: Path, every_byte: bool = False) -> Entry:
    """Read one file.

    Parameters
    ----------
    path : Path
    every_byte : bool
        Also find damage that changes nothing that is read, in the layout of the file.

    Raises
    ------
    StoreError
        If the file is cut off, changed, not of a store, or of another version of it.
    """
    content = path.read_bytes()
    try:
        file = pq.ParquetFile(pa.BufferReader(content), page_checksum_verification=True)
        table = file.read()
        header = json.loads(table.schema.metadata[_HEADER])
        dim = header["dim"]
        index = pd.Index(table["lesion_id"].to_pylist(), name="lesion_id", dtype=object)
        parts = [chunk.flatten().to_numpy() for chunk in table["embedding"].chunks]
        values = np.concatenate([np.empty(0, np.float32), *parts]).reshape(-1, dim)
        data = pd.Series(table["data"].to_pylist(), index=index, dtype=object)
        entry = Entry(pd.DataFrame(values, index=index, columns=columns(dim)), data, header)
        named = path.name.split(".")[0] == key_of(header["meta"], dim)
        sound = named and table.schema.equals(_schema(dim)) and index.is_unique
        require(sound, "its contents are not what its name says")
        other = not every_byte or not file.metadata.created_by.endswith(pa.cpp_version)
        require(other or _content(entry) == content, "its bytes are not those that were written")
    except Exception as error:  # a damaged file can fail in any way
        what = " ".join(str(error).split())[:200]
        raise StoreError(f"{path} is damaged, or no file of this version: {what}") from None
    return entry


def _current(folder: Path) -> Path | None:
    """Return the file that was written last in the folder of a model, or None."""
    current = folder / "current"
    key = current.read_bytes() if current.is_file() else b""
    path = folder / f"{key.decode()}.parquet" if re.fullmatch(b"[0-9a-f]{16}", key) else None
    return path if path and path.is_file() else None
