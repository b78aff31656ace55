"""A folder of embeddings: one Parquet file per cohort and model, whole or absent.

Each file holds what made it (the *meta*). The digest of the meta is the *key*: features from other
weights, another patch or other code have another key and are never mixed with these.
"""

import contextlib
import os
import re
import shutil
import time
import uuid
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import filelock
import pandas as pd

from tumorbench_utils import files, settings
from tumorbench_utils.embeddings.code import code_is_current
from tumorbench_utils.embeddings.parquet import (
    Entry,
    StaleError,
    StoreError,
    check_frame,
    key_of,
    plain,
    read_file,
    write_file,
)

_NAME = re.compile(r"[^\W_][\w.\-]{0,119}")


class Problem(NamedTuple):
    """What :meth:`EmbeddingStore.verify` found: a file (relative to the root) and its fault."""

    path: str
    reason: str


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
    Writers lock the entry, so several processes may write at once. Readers need no lock and no
    permission to write: a file is replaced in one step.

    Examples
    --------
    >>> store = EmbeddingStore("features")                       # doctest: +SKIP
    >>> store.write("luna16", "fmcib", frame, {"weights": "untrained"})   # doctest: +SKIP
    >>> store.read("luna16", "fmcib").shape                      # doctest: +SKIP
    (677, 4096)
    """

    def __init__(self, root: str | os.PathLike | None = None):
        self.root = Path(root or settings.cache_dir() / "embeddings").expanduser().resolve()

    def __repr__(self) -> str:
        return f"EmbeddingStore({str(self.root)!r})"

    def path(self, cohort, model) -> Path:
        """Return where the file of a cohort and a model is.

        Raises
        ------
        ValueError
            If a name is not a plain name (letters, digits, ``_ . -``) or leads out of the root.
        """
        return files.inside(self.root, f"{_name(cohort)}/{_name(model)}.parquet")

    def write(self, cohort, model, frame: pd.DataFrame, meta: Mapping, *, data=None) -> None:
        """Add rows to an entry, or replace the rows that have the same lesion.

        Parameters
        ----------
        cohort, model : str
        frame : DataFrame
            Index: unique lesion ids (str). Columns ``f0 .. f{d-1}``, floating point and finite;
            kept as float32.
        meta : mapping
            What made the features, as plain JSON values. Anything that changes the features
            belongs here: its digest, with ``d``, is the key. If the entry has another key, it is
            replaced as a whole and put aside (it comes back when its key is written again).
        data : Series of str, optional
            Fingerprint of the input of each lesion, index as `frame`.

        Raises
        ------
        TypeError, ValueError
            If `frame` or `meta` is not as described.
        StoreError
            If the file that is there is damaged.
        OSError
            If the disk is full or cannot be written; what was there is still there.
        """
        path = self.path(cohort, model)
        frame = check_frame(frame)
        meta = plain(meta)
        if data is None:
            data = pd.Series("", index=frame.index)
        if not isinstance(data, pd.Series) or not data.index.is_unique:
            raise TypeError("data is a Series of str by lesion id, each of them once")
        data = data.reindex(frame.index).fillna("").astype(str)
        with self.lock(f"{_name(cohort)}--{_name(model)}"):
            self._activate(path, key_of(meta, frame.shape[1]))
            if path.exists():
                old = read_file(path)
                frame, data = _merged(old.frame, frame), _merged(old.data, data)
            write_file(path, frame, meta, data)

    def read(self, cohort, model, *, key: str | None = None) -> pd.DataFrame:
        """Return the features of a cohort by a model.

        Parameters
        ----------
        cohort, model : str
        key : str, optional
            If given, the entry must have this key.

        Returns
        -------
        DataFrame
            Index ``lesion_id``, float32 columns ``f0 .. f{d-1}``.

        Raises
        ------
        KeyError
            If there is no entry; the message names those that are there.
        StaleError
            If the entry was made by something else than `key` says, or by code that has changed
            since.
        StoreError
            If the file is damaged or was written by another version of the store.
        """
        return self.entry(cohort, model, key=key).frame

    def meta(self, cohort, model) -> dict:
        """Return what made an entry, with ``package_version``, ``dim`` and ``rows``.

        Raises as :meth:`read`.
        """
        entry = self.entry(cohort, model)
        rows, dim = entry.frame.shape
        return {**entry.meta, "package_version": entry.version, "dim": dim, "rows": rows}

    def missing(self, cohort, model, lesion_ids: Iterable[str], *, key=None) -> list[str]:
        """Return those of `lesion_ids` that an entry does not hold, in their order.

        An absent or stale entry holds none. A damaged one raises :class:`StoreError`.
        """
        if isinstance(lesion_ids, (str, bytes)):
            raise TypeError("lesion_ids is a list of ids, not one string")
        ids = list(dict.fromkeys(lesion_ids))
        try:
            held = set(self.entry(cohort, model, key=key).frame.index)
        except KeyError:
            held = set()
        return [i for i in ids if i not in held]

    def entry(self, cohort, model, *, key: str | None = None) -> Entry:
        """Return everything about an entry; arguments and errors as for :meth:`read`."""
        path = self.path(cohort, model)
        if not path.is_file():
            held = ", ".join(self.entries()) or "nothing"
            raise KeyError(
                f"no embeddings of {_name(cohort)} by {_name(model)} in {self.root} (it holds "
                f"{held}); make them with embeddings.embed or `tumorbench embed`"
            )
        entry = read_file(path)
        where = f"the embeddings of {_name(cohort)} by {_name(model)} in {self.root}"
        if key is not None and key != key_of(entry.meta, entry.frame.shape[1]):
            raise StaleError(
                f"{where} were made by other weights, another patch or other code; embed again"
            )
        if not code_is_current(_name(model), entry.meta):
            raise StaleError(
                f"{where} were made by version {entry.version} of the package with other code "
                "for patches or models than now; embed again"
            )
        return entry

    def entries(self) -> list[str]:
        """Return the entries as ``COHORT/MODEL``, sorted."""
        found = self.root.glob("[!.]*/[!.]*.parquet")
        return sorted(p.relative_to(self.root).with_suffix("").as_posix() for p in found)

    def verify(self) -> list[Problem]:
        """Check every byte of every file, unfinished runs and put-aside entries included.

        Returns
        -------
        list of Problem
            Empty if all is well.
        """
        problems = []
        for path in sorted(self.root.rglob("*.parquet")):
            if path.name.startswith(".part-"):
                continue  # of a writer at work, or of a killed one; nothing reads it
            try:
                read_file(path)
            except (StoreError, OSError) as error:
                problems.append(Problem(path.relative_to(self.root).as_posix(), str(error)))
        return problems

    @contextlib.contextmanager
    def lock(self, name: str) -> Iterator[None]:
        """Hold the lock `name` of this store; waits for whoever holds it. Dies with the process."""
        folder = self.root / ".locks"
        folder.mkdir(parents=True, exist_ok=True)
        with filelock.FileLock(folder / f"{name}.lock"):
            yield

    def _activate(self, path: Path, key: str) -> None:
        """Put an entry of another key aside and bring back the one with `key`. Under the lock."""
        if not path.exists() and not (self.root / ".aside").exists():
            return
        aside = self.root / ".aside" / path.parent.name
        if path.exists():
            entry = read_file(path)
            old = key_of(entry.meta, entry.frame.shape[1])
            if old == key:
                return
            # Copied, not moved: a reader never finds nothing.
            with files.atomic_path(aside / f"{path.stem}-{old}.parquet") as copy:
                shutil.copyfile(path, copy)
        back = aside / f"{path.stem}-{key}.parquet"
        if back.exists():
            read_file(back)
            os.replace(back, path)
        elif path.exists():
            path.unlink()

    # -- unfinished runs ---------------------------------------------------------------------

    def _shards(self, cohort, model, key: str) -> Path:
        self.path(cohort, model)
        return self.root / ".shards" / _name(cohort) / f"{_name(model)}-{key}"

    def add_shard(self, cohort, model, frame, meta: Mapping, data) -> None:
        """Keep a part of a run; :meth:`gather` moves it into the entry."""
        frame, meta = check_frame(frame), plain(meta)
        folder = self._shards(cohort, model, key_of(meta, frame.shape[1]))
        name = f"{time.time_ns():020d}-{uuid.uuid4().hex[:8]}.parquet"
        write_file(folder / name, frame, meta, data)

    def gather(self, cohort, model, meta: Mapping, dim: int, order=()) -> list[str]:
        """Make the entry the one of `meta` and move all shards of such runs into it.

        The lesions of `order` come first, in that order.

        A damaged file is put aside under ``.damaged`` and its lesions count as missing.

        Returns
        -------
        list of str
            One line for every damaged file.
        """
        path, meta = self.path(cohort, model), plain(meta)
        folder = self._shards(cohort, model, key_of(meta, dim))
        damaged, parts, used = [], [], []
        with self.lock(f"{_name(cohort)}--{_name(model)}"):
            _sweep(path.parent, f".part-*-{path.name}")
            _sweep(folder, ".part-*")
            try:
                self._activate(path, key_of(meta, dim))
                current = [read_file(path)] if path.exists() else []
            except StoreError as error:
                damaged.append(self._set_aside(path, error))
                current = []
            for shard in sorted(folder.glob("[!.]*.parquet")):
                try:
                    parts.append(read_file(shard))
                    used.append(shard)
                except StoreError as error:
                    damaged.append(self._set_aside(shard, error))
            if parts:
                frame = pd.concat([e.frame for e in (*current, *parts)])
                data = pd.concat([e.data for e in (*current, *parts)])
                last = ~frame.index.duplicated(keep="last")
                frame, data = frame[last], data[last]
                first = [lesion for lesion in order if lesion in frame.index]
                ids = [*first, *frame.index.difference(first, sort=False)]
                write_file(path, frame.loc[ids], meta, data.loc[ids])
            for shard in used:
                shard.unlink(missing_ok=True)
            with contextlib.suppress(OSError):
                folder.rmdir()
        return damaged

    def _set_aside(self, path: Path, error: Exception) -> str:
        target = self.root / ".damaged" / f"{time.time_ns()}-{path.name}.bad"
        target.parent.mkdir(parents=True, exist_ok=True)
        if path.exists():
            os.replace(path, target)
        return f"{error}; it was moved to {target} and its lesions are embedded again"


def _name(value) -> str:
    """Return the key of a cohort or model after checking that it is a plain file name."""
    name = getattr(getattr(value, "card", None), "key", None) or getattr(value, "key", value)
    if not isinstance(name, str):
        raise TypeError(f"cohorts and models are named by a string, not {value!r}")
    if not _NAME.fullmatch(name):
        raise ValueError(
            f"{name!r} is not a name for the store: letters, digits, '_', '.' and '-' only, and a "
            "letter or digit first"
        )
    return name


def _sweep(folder: Path, pattern: str) -> None:
    """Remove what killed writers have left; only under the lock that keeps living ones away."""
    for part in folder.glob(pattern):
        part.unlink(missing_ok=True)


def _merged(old, new):
    """Return `old` with the rows of `new` put in place or added; `new` if it has them all."""
    if old.index.isin(new.index).all():
        return new
    both = pd.concat([old, new])
    order = old.index.append(new.index[~new.index.isin(old.index)])
    return both[~both.index.duplicated(keep="last")].loc[order]
