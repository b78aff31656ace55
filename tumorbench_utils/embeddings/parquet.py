"""One file of the store: Parquet with what made it and a checksum of all of its own bytes inside.

The checksum fills a slot of fixed width: the file is hashed with zeros in the slot, then the slot
is filled. So there is no second file that could get out of step with this one.
"""

import dataclasses
import functools
import hashlib
import json
import os
import re
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from tumorbench_utils import files

#: Version of the file layout; a file with another one is never read.
FORMAT = 1

_META, _SUM = b"tumorbench.meta", b"tumorbench.sha256"
_MARK, _ZEROS = b"sha256-of-this-file:", b"0" * 64
_SLOT = re.compile(re.escape(_MARK) + rb"([0-9a-f]{64})")


class StoreError(ValueError):
    """A file of the store is damaged or was written by another version."""


class StaleError(StoreError, KeyError):
    """A file of the store was made by other weights, another patch or other code."""

    __str__ = ValueError.__str__


class Entry(NamedTuple):
    """Contents of one file: features, fingerprint of each lesion's input, meta, package version."""

    frame: pd.DataFrame
    data: pd.Series
    meta: dict
    version: str


@functools.cache
def _package_version() -> str:
    return metadata.version("tumorbench-utils")


def key_of(meta: Mapping, dim: int) -> str:
    """Return the key of an entry: 16 hexadecimal digits of the digest of its meta and width."""
    text = json.dumps([FORMAT, dim, meta], sort_keys=True, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def plain(meta: Mapping) -> dict:
    """Return `meta` as JSON reads it back; specs, paths and numpy's numbers are made plain."""
    if not isinstance(meta, Mapping):
        raise TypeError(f"meta is a mapping, not {type(meta).__name__}")
    try:
        text = json.dumps(dict(meta), allow_nan=False, sort_keys=True, default=_plain_value)
    except (TypeError, ValueError) as error:
        raise ValueError(f"meta holds something that JSON cannot: {error}") from None
    return json.loads(text)


def _plain_value(value):
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return dataclasses.asdict(value)
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if isinstance(value, np.generic):
        return value.item()
    raise TypeError(f"a value of type {type(value).__name__}")


def columns(dim: int) -> list[str]:
    """Return the column names ``f0 .. f{dim-1}``."""
    return [f"f{i}" for i in range(dim)]


def check_frame(frame: pd.DataFrame) -> pd.DataFrame:
    """Return a frame of features as float32 with its index named; see `EmbeddingStore.write`."""
    if not isinstance(frame, pd.DataFrame):
        raise TypeError(f"features come as a DataFrame, not {type(frame).__name__}")
    dim = frame.shape[1]
    if not dim or list(frame.columns) != columns(dim):
        raise ValueError(
            f"the columns of a frame of features are f0 .. f{{d-1}}; "
            f"{', '.join(map(str, frame.columns[:4])) or 'none'}, ... came"
        )
    wrong = [i for i in frame.index if not isinstance(i, str) or not i]
    if wrong:
        raise ValueError(f"lesion ids are non-empty strings; {wrong[0]!r} is in the index")
    if not frame.index.is_unique:
        twice = frame.index[frame.index.duplicated()][0]
        raise ValueError(f"the lesion {twice!r} stands in the frame more than once")
    if not all(pd.api.types.is_float_dtype(t) for t in frame.dtypes.unique()):
        raise ValueError(f"features are floating-point numbers, not {frame.dtypes.iloc[0]}")
    with np.errstate(over="ignore"):
        values = np.ascontiguousarray(frame.to_numpy(dtype="float32", na_value=np.nan))
    bad = ~np.isfinite(values).all(axis=1)
    if bad.any():
        raise ValueError(
            f"the features of {frame.index[bad][0]!r} are not finite in float32 "
            f"({int(bad.sum())} lesions in all)"
        )
    index = pd.Index(list(frame.index), name="lesion_id", dtype=object)
    return pd.DataFrame(values, index=index, columns=columns(dim))


def write_file(path: Path, frame: pd.DataFrame, meta: Mapping, data: pd.Series) -> None:
    """Write one Parquet file with its own checksum, in one step."""
    values = np.ascontiguousarray(frame.to_numpy(dtype="float32"))
    dim = values.shape[1]
    table = pa.table(
        {
            "lesion_id": pa.array(list(frame.index), pa.string()),
            "data": pa.array(list(data), pa.string()),
            "embedding": pa.FixedSizeListArray.from_arrays(pa.array(values.reshape(-1)), dim),
        }
    )
    header = {
        "format": FORMAT,
        "package_version": _package_version(),
        "rows": len(frame),
        "dim": dim,
        "meta": meta,
    }
    sink = pa.BufferOutputStream()
    # Noise of float32 does not shrink, and plain values are what reads fastest.
    options = {"compression": "none", "use_dictionary": False, "write_statistics": False}
    with pq.ParquetWriter(sink, table.schema, **options) as writer:
        writer.write_table(table)
        writer.add_key_value_metadata(
            {_META: json.dumps(header, sort_keys=True), _SUM: _MARK + _ZEROS}
        )
    content = bytearray(sink.getvalue())
    slot = content.rindex(_MARK + _ZEROS) + len(_MARK)
    content[slot : slot + 64] = hashlib.sha256(content).hexdigest().encode()
    with files.atomic_path(path) as part:
        part.write_bytes(content)


def read_file(path: Path) -> Entry:
    """Read one Parquet file after checking all of its bytes.

    Raises
    ------
    StoreError
        If the file is cut off, changed, not of a store, or of another version of it.
    """
    content = bytearray(path.read_bytes())
    slots = list(_SLOT.finditer(content, max(0, len(content) - (1 << 20))))
    if not slots:
        raise StoreError(
            f"{path} is no file of an embedding store, or its end is cut off or changed"
        )
    said = bytes(slots[-1][1])
    content[slots[-1].start(1) : slots[-1].end(1)] = _ZEROS
    if hashlib.sha256(content).hexdigest().encode() != said:
        raise StoreError(f"{path} is damaged: its contents do not have the checksum written in it")
    stored = pq.ParquetFile(pa.BufferReader(pa.py_buffer(content)))
    table, header = stored.read(), json.loads(stored.metadata.metadata.get(_META, b"{}"))
    if header.get("format") != FORMAT:
        raise StoreError(
            f"{path} has format {header.get('format')} (package version "
            f"{header.get('package_version')}); this version reads format {FORMAT}. Use another "
            "folder or embed again"
        )
    rows, dim = header["rows"], header["dim"]
    lists = table.column("embedding").combine_chunks()
    if isinstance(lists, pa.ChunkedArray):
        lists = lists.chunk(0) if lists.num_chunks else pa.array([], lists.type)
    values = lists.flatten().to_numpy().reshape(rows, dim)
    index = pd.Index(table.column("lesion_id").to_pylist(), name="lesion_id", dtype=object)
    frame = pd.DataFrame(values.copy(), index=index, columns=columns(dim))
    data = pd.Series(table.column("data").to_pylist(), index=index, dtype=object)
    return Entry(frame, data, header["meta"], header["package_version"])
