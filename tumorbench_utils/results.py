"""Results of probes as immutable files: tables and prose are built from them and nothing else.

A file is named after everything that its numbers depend on: the data (a fingerprint of features,
labels, patients and splits), the settings, the code of probes and statistics, and the versions of
the libraries. The same inputs find the same file; other inputs make another one; no file is ever
written again. Its text holds its own checksum, so a damaged file is found when it is read.
"""

import dataclasses
import functools
import hashlib
import importlib.metadata
import json
import os
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import pandas as pd

from tumorbench_utils import settings, stats
from tumorbench_utils.files import atomic_path, inside
from tumorbench_utils.probes import ProbeResult

#: What tells results apart; each is a column of :func:`table`.
KEYS = ("cohort", "model", "probe", "protocol", "splits", "seed", "edition", "weights")

_LIBRARIES = ("numpy", "pandas", "scikit-learn", "scipy", "tumorbench-utils")
_FORMAT = 1


class ResultError(ValueError):
    """A file of results that is damaged or not one."""


def folder() -> Path:
    """Return the folder of the results: ``results`` in the cache."""
    return settings.cache_dir() / "results"


@functools.cache
def versions() -> dict[str, str]:
    """Return the versions that results depend on; ``code`` is a digest of probes and statistics."""
    digest = hashlib.sha256()
    package = Path(__file__).parent
    for name in ("probes", "stats"):
        for path in sorted((package / name).rglob("*.py")):
            digest.update(path.relative_to(package).as_posix().encode())
            digest.update(path.read_bytes())
    found = {name: importlib.metadata.version(name) for name in _LIBRARIES}
    return {**found, "code": digest.hexdigest()[:12]}


def fingerprint(*parts) -> str:
    """Return a digest of arrays, frames, splits and plain values, in their order.

    Parameters
    ----------
    *parts : ndarray, DataFrame, Series, Index, None, str, number, or (nested) sequences of them
    """
    digest = hashlib.sha256()

    def add(part) -> None:
        if isinstance(part, pd.DataFrame | pd.Series):
            add(part.index)
            add(part.to_numpy())
        elif isinstance(part, pd.Index):
            add("\0".join(map(str, part)))
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


def kept(
    compute: Callable[[], ProbeResult],
    *,
    cohort: str,
    model: str,
    probe: str,
    protocol: str,
    splits: str,
    seed: int,
    edition: str,
    inputs: Iterable,
    weights: str | None = None,
) -> ProbeResult:
    """Return a result from its file, or compute it and keep it.

    Parameters
    ----------
    compute : callable () -> ProbeResult
        Called only if there is no file for these inputs.
    cohort, model, probe, protocol : str
        What was scored; they are parts of the path.
    splits : str
        How cases were split, for example ``"grouped"`` or ``"reference"``.
    seed : int
        Of the splits.
    edition : str
    inputs : iterable
        Everything that the numbers depend on, for :func:`fingerprint`: features, labels, splits,
        patients, options.
    weights : str, optional
        One of ``plots.WEIGHTS`` where a network was used.

    Returns
    -------
    ProbeResult

    Raises
    ------
    ResultError
        If the file is there but damaged; it is left as it is, to be looked at or deleted.
    ValueError
        If a name is empty or leads out of the folder of results.
    """
    values = (cohort, model, probe, protocol, splits, seed, edition, weights)
    meta = dict(zip(KEYS, values, strict=True))
    for name in ("cohort", "model", "probe", "protocol", "splits", "edition"):
        if not isinstance(meta[name], str) or not meta[name] or "/" in meta[name]:
            raise ValueError(f"{name} must be a name without slashes, not {meta[name]!r}")
    digest = fingerprint(meta, versions(), list(inputs))[:16]
    name = f"{probe}-{protocol}-{splits}-s{seed}-{edition}-{digest}.json".replace(" ", "_")
    path = inside(folder(), Path(cohort) / model / name)
    if not path.exists():
        _write(path, meta, digest, compute())
    return read(path)[1]


def _write(path: Path, meta: dict, digest: str, result: ProbeResult) -> None:
    columns = [[name, column.tolist()] for name, column in result.predictions.items()]
    fields = {f.name: getattr(result, f.name) for f in dataclasses.fields(result)}
    fields.update(scores=result.scores.tolist(), predictions=columns)
    body = {"format": _FORMAT, **meta, "inputs": digest, "versions": versions(), "result": fields}
    text = _text(body)
    body["sha256"] = hashlib.sha256(text.encode()).hexdigest()
    with atomic_path(path) as part:
        part.write_text(_text(body), encoding="utf-8")
        os.chmod(part, 0o444)


def _text(body: dict) -> str:
    def plain(value):
        if isinstance(value, np.generic):
            return value.item()
        raise TypeError(f"a result cannot hold {type(value).__name__} {value!r}")

    return json.dumps(body, sort_keys=True, indent=1, default=plain)


def read(path: str | os.PathLike) -> tuple[dict, ProbeResult]:
    """Read one file of results.

    Returns
    -------
    meta : dict
        :data:`KEYS`, ``inputs`` (fingerprint) and ``versions``.
    result : ProbeResult

    Raises
    ------
    ResultError
        If the file is damaged, changed, of another format, or no result at all.
    """
    try:
        body = json.loads(Path(path).read_text(encoding="utf-8"))
        checksum = body.pop("sha256")
        whole = checksum == hashlib.sha256(_text(body).encode()).hexdigest()
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        raise ResultError(f"{path} is no file of results: delete it ({error})") from None
    if not whole:
        raise ResultError(f"{path} was changed or damaged after it was written: delete it")
    if body.pop("format") != _FORMAT:
        raise ResultError(f"{path} was written by another version: delete it")
    fields = body.pop("result")
    fields["scores"] = np.array(fields["scores"])
    fields["predictions"] = pd.DataFrame(dict(fields["predictions"]))
    return body, ProbeResult(**fields)


def files(**wanted) -> list[Path]:
    """Return the files of results, the oldest first.

    Parameters
    ----------
    **wanted
        Values of :data:`KEYS` to keep, for example ``cohort="luna16"``; None keeps all.
    """
    for key in wanted:
        if key not in KEYS:
            raise ValueError(settings.unknown("key of a result", key, KEYS))
    root = folder()
    paths = root.glob("*/*/*.json") if root.is_dir() else []
    # Folders are named after cohort and model, so most files need not be opened.
    wanted = {key: value for key, value in wanted.items() if value is not None}
    paths = [
        path
        for path in paths
        if not path.name.startswith(".part-")
        and path.parent.parent.name == wanted.get("cohort", path.parent.parent.name)
        and path.parent.name == wanted.get("model", path.parent.name)
    ]
    paths.sort(key=lambda path: (path.stat().st_mtime_ns, path.name))
    return [
        path for path in paths if all(read(path)[0][key] == value for key, value in wanted.items())
    ]


def table(**wanted) -> pd.DataFrame:
    """Return one row per result.

    Parameters
    ----------
    **wanted
        As for :func:`files`.

    Returns
    -------
    DataFrame
        :data:`KEYS`, ``metric``, ``mean``, ``low`` and ``high`` (corrected interval),
        ``n_splits``, ``n_test``, ``code`` (digest of the code that made it), ``file``. Where
        inputs, code or versions changed there are several rows for one key; the last is the newest.
    """
    rows = []
    for path in files(**wanted):
        meta, result = read(path)
        low, high = np.nan, np.nan
        if len(result.scores) > 1 and np.isfinite(result.scores).all():
            low, high = stats.corrected_interval(result.scores, result.n_train, result.n_test)
        rows.append(
            {
                **{key: meta[key] for key in KEYS},
                "metric": result.metric,
                "mean": result.mean,
                "low": low,
                "high": high,
                "n_splits": len(result.scores),
                "n_test": result.n_test,
                "code": meta["versions"]["code"],
                "file": path.relative_to(folder()).as_posix(),
            }
        )
    columns = [*KEYS, "metric", "mean", "low", "high", "n_splits", "n_test", "code", "file"]
    return pd.DataFrame(rows, columns=columns)


def newest(cohort: str, model: str, **wanted) -> ProbeResult:
    """Return the newest result of a model on a cohort.

    Raises
    ------
    KeyError
        If there is none; the message says which models have results on that cohort.
    """
    found = files(cohort=cohort, model=model, **wanted)
    if not found:
        there = sorted({path.parent.name for path in files(cohort=cohort, **wanted)})
        raise KeyError(settings.unknown(f"model with results on {cohort}", model, there))
    return read(found[-1])[1]


def published(name: str) -> pd.DataFrame:
    """Return a table of published figures from ``data/published``.

    Parameters
    ----------
    name : str
        Name of the file without ``.csv``, for example ``"knn_auc"``; columns and sources are
        listed in the README there.

    Raises
    ------
    KeyError
        If there is no such table.
    """
    root = settings.BOOK_ROOT / "data" / "published"
    known = sorted(path.stem for path in root.glob("*.csv"))
    if name not in known:
        raise KeyError(settings.unknown("published table", name, known))
    return pd.read_csv(root / f"{name}.csv")
