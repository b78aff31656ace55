"""Results of probes: computed once, noted by what they are of; and the published figures.

:func:`computed` is ``joblib.Memory`` with a key of our own: what goes into a function, the code of
probes and statistics, and the versions of the libraries. :func:`note` writes a result under its
cohort, model and probe, where :func:`table` finds the one that was used last. Results of other
code lie in another folder and are never read.
"""

import functools
import importlib.metadata
import re
from collections.abc import Callable
from pathlib import Path

import joblib
import numpy as np
import pandas as pd

from tumorbench_utils import digests, settings
from tumorbench_utils.files import atomic_path, inside
from tumorbench_utils.probes import ProbeResult

#: What a result is of. The first five name its file; each is a column of :func:`table`.
KEYS = ("cohort", "model", "probe", "protocol", "edition", "splits", "seed", "weights")

_LIBRARIES = ("numpy", "pandas", "scikit-learn", "scipy", "tumorbench-utils")


class ResultError(ValueError):
    """A file of results that is damaged or not one."""


@functools.cache
def versions() -> dict[str, str]:
    """Return the versions that results depend on; ``code`` is a digest of probes and statistics."""
    found = {name: importlib.metadata.version(name) for name in _LIBRARIES}
    code = digests.of_code("tumorbench_utils.probes", "tumorbench_utils.stats")
    return {**found, "code": code[:12]}


def folder() -> Path:
    """Return the folder of the results of today's code, in the cache."""
    return settings.cache_dir() / "results" / versions()["code"]


def computed(function: Callable, *args, **options):
    """Return ``function(*args, **options)``, from the cache if it was computed before.

    Parameters
    ----------
    function : callable
        One of ``probes``: the digest of its code is part of the key.
    *args, **options
        Arrays, frames, splits and plain values; what they hold is part of the key.

    Notes
    -----
    A file of the cache that cannot be read is computed again, with a warning.

    See Also
    --------
    joblib.Memory : does the work; its own key would not notice changed code or libraries.
    """
    # Compressed files carry a checksum, so that a damaged one is no wrong number.
    memory = joblib.Memory(settings.cache_dir() / "memory", verbose=0, compress=True)
    key = digests.of(function.__module__, function.__qualname__, versions(), args, options)
    return memory.cache(_call, ignore=["function", "args", "options"])(key, function, args, options)


def _call(key: str, function: Callable, args: tuple, options: dict):
    return function(*args, **options)


def note(result: ProbeResult, **facts) -> ProbeResult:
    """Write a result under its names, in place of the one that was used before; return it.

    Parameters
    ----------
    result : ProbeResult
    **facts
        A value for each of :data:`KEYS`.
    """
    parts = [re.sub(r"[^\w.+-]", "_", str(facts[key])) for key in KEYS[:5]]
    file = Path(*parts[:2], "-".join(parts[2:]) + ".joblib")
    path, digest = inside(folder(), file), digests.of(result.scores, result.predictions)[:16]
    facts = {**facts, "digest": digest, "file": file.as_posix()}
    if not path.exists() or _read(path)[0] != facts:
        with atomic_path(path) as part:
            joblib.dump((facts, result), part, compress=True)
    return result


def _read(path: Path) -> tuple[dict, ProbeResult]:
    try:
        return joblib.load(path)
    except Exception as error:  # a damaged file can fail in any way
        raise ResultError(f"{path} is damaged or no file of results: delete it ({error})") from None


def noted(**wanted) -> list[tuple[dict, ProbeResult]]:
    """Return facts and result of all that was noted, sorted by name.

    Parameters
    ----------
    **wanted
        Values of :data:`KEYS` to keep, for example ``cohort="luna16"``; None keeps all.

    Raises
    ------
    KeyError
        If a key is not known.
    ResultError
        If a file is damaged; it is left as it is, to be looked at or deleted.
    """
    for key in set(wanted) - set(KEYS):
        raise KeyError(settings.unknown("key of a result", key, KEYS))
    wanted = {key: value for key, value in wanted.items() if value is not None}
    found = [_read(path) for path in sorted(folder().glob("*/*/[!.]*.joblib"))]
    return [f for f in found if all(f[0][key] == value for key, value in wanted.items())]


def table(**wanted) -> pd.DataFrame:
    """Return one row per result; arguments and errors as for :func:`noted`.

    Returns
    -------
    DataFrame
        :data:`KEYS`, ``mean``, ``low`` and ``high`` (95%, corrected for overlap),
        ``n_splits``, ``n_test``, ``file``.
    """
    rows = []
    for facts, result in noted(**wanted):
        ends = result.interval() if len(result.scores) > 1 else (np.nan, np.nan)
        found = [result.mean, *ends, len(result.scores), result.n_test, facts["file"]]
        rows.append([*map(facts.get, KEYS), *found])
    columns = [*KEYS, "mean", "low", "high", "n_splits", "n_test", "file"]
    return pd.DataFrame(rows, columns=columns)


def newest(cohort: str, model: str, **wanted) -> ProbeResult:
    """Return the result of a model on a cohort that was used last.

    Raises
    ------
    KeyError
        If there is none; the message says which models have results on that cohort.
    """
    found = {facts["model"]: result for facts, result in noted(cohort=cohort, **wanted)}
    if model not in found:
        raise KeyError(settings.unknown(f"model with results on {cohort}", model, found))
    return found[model]


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
        If there is no such table; the message names the nearest.
    """
    tables = {p.stem: p for p in sorted((settings.BOOK_ROOT / "data" / "published").glob("*.csv"))}
    if name not in tables:
        raise KeyError(settings.unknown("published table", name, tables))
    return pd.read_csv(tables[name])
