"""Results of others: one JSON file per model, checked against a schema and against the splits.

``data/submission.schema.json`` says what a file holds; accepted files lie in ``data/results``. A
file holds scores per split and no rows of patients. Its digests of the test lesions show whether
the scores come from the splits of the book; nothing can show that they were computed honestly.

Whatever text a file holds is a stranger's: pages show it through ``plots.table`` or
``pages.leaderboard.cell``, which escape it.
"""

import datetime
import functools
import hashlib
import importlib.metadata
import json
import os
from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd

from tumorbench_utils import checks, results, settings
from tumorbench_utils.files import atomic_path

#: What tells the results of one file apart.
KEYS = ("cohort", "probe", "protocol")

#: How the splits of a protocol are called in kept results.
_SPLITS = {"careful": "grouped", "published": "reference"}

#: A submission has a few thousand bytes.
_LARGEST = 1_000_000


class SubmissionError(checks.InputError):
    """A submission with faults; the message lists all of them, one per line."""


@functools.cache
def schema() -> dict:
    """Return the JSON Schema of a submission."""
    path = settings.BOOK_ROOT / "data" / "submission.schema.json"
    return json.loads(path.read_text(encoding="utf-8"))


def _explained(error) -> str:
    """Return one line about one violation of the schema: where, what, what should be there."""
    place = error.json_path[:200].removeprefix("$.").replace("$", "the file")
    words = error.message
    words = words if len(words) < 200 else f"{words[:60]} ... {words[-80:]}"
    hint = error.schema.get("description") if error.path else None
    return f"{place}: {words} ({hint})" if hint else f"{place}: {words}"


def faults(body) -> list[str]:
    """Return what is wrong with the content of a submission, one line per fault; empty if nothing.

    Parameters
    ----------
    body : dict
        As read from JSON.

    See Also
    --------
    jsonschema.Draft202012Validator : Finds what a schema can say.
    """
    from jsonschema import Draft202012Validator  # takes seconds to import

    errors = Draft202012Validator(schema()).iter_errors(body)
    if found := [_explained(error) for error in errors]:
        return found
    try:
        datetime.date.fromisoformat(body["date"])
    except ValueError as error:
        found.append(f"date: {body['date']!r} is no day of the calendar ({error})")
    keys = Counter(tuple(row[name] for name in KEYS) for row in body["results"])
    for key in (key for key, times in keys.items() if times > 1):
        found.append(f"results: {', '.join(key)} stands {keys[key]} times; one row each")
    return found


def _checked(body: dict, what) -> dict:
    if found := faults(body):
        raise SubmissionError("\n  ".join([f"{what} has {len(found)} faults:", *found]))
    return body


def _no_constant(name: str):
    raise ValueError(f"it holds {name}, which is no number in JSON; leave that result out")


def _once(pairs: list) -> dict:
    (name, times), *_ = Counter(name for name, _ in pairs).most_common(1) or [("", 0)]
    if times > 1:
        raise ValueError(f"the field {name[:60]!r} stands {times} times")
    return dict(pairs)


def read(path: str | os.PathLike) -> dict:
    """Read one submission and check it.

    Returns
    -------
    dict
        The content, as the schema describes it.

    Raises
    ------
    SubmissionError
        If it is no JSON text, or has faults, see :func:`faults`.
    OSError
        If it cannot be read.
    """
    data = Path(path).read_bytes()[: _LARGEST + 1]
    if len(data) > _LARGEST:
        raise SubmissionError(f"{path} is larger than a submission can be ({_LARGEST} bytes)")
    try:
        body = json.loads(data.decode(), parse_constant=_no_constant, object_pairs_hook=_once)
    except (ValueError, RecursionError) as error:
        raise SubmissionError(f"{path} cannot be read as JSON: {error}") from None
    return _checked(body, path)


def tested(predictions: pd.DataFrame) -> str:
    """Return the digest of test lesions and labels, 16 hexadecimal digits.

    Parameters
    ----------
    predictions : DataFrame
        Columns ``split`` (from 0), ``lesion_id`` and ``y``; the order of rows does not matter.
    """
    rows = predictions[["split", "lesion_id", "y"]].itertuples(index=False)
    lines = sorted(f"{int(split)}\t{lesion}\t{int(y)}" for split, lesion, y in rows)
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]


def split_faults(body: dict) -> list[str]:
    """Return which results of a submission cannot come from the splits of the book.

    Builds the splits from the cohort tables of the edition. Where the test lesions are the book's,
    every AUC must be a multiple of one over twice the number of its pairs.

    Parameters
    ----------
    body : dict
        From :func:`read`.
    """
    from tumorbench_utils.cohorts import load_cohort
    from tumorbench_utils.endpoints import endpoint  # imports torch, which takes seconds

    found = []
    for n, row in enumerate(body["results"]):
        ep = endpoint(load_cohort(row["cohort"], body["edition"]), row["protocol"])
        sides = [pd.DataFrame({"y": ep.y.iloc[split.test]}) for split in ep.splits]
        rows = pd.concat(dict(enumerate(sides)), names=["split", "lesion_id"])["y"]
        where, size = f"results[{n}] ({row['cohort']}, {row['protocol']})", len(rows) / 10
        if row["tested"] != tested(rows.reset_index()):
            found.append(
                f"{where}: other test lesions or labels than those of the {body['edition']} "
                "edition; make the splits by endpoints.endpoint"
            )
            continue
        if row["n_test"] != round(size):
            found.append(f"{where}: n_test is {row['n_test']}, but splits test {size:g}")
        sums = rows.groupby("split").agg(["sum", "size"])
        pairs = (sums["sum"] * (sums["size"] - sums["sum"])).to_numpy()
        # A tie counts half, so scores come in steps of one over twice the number of pairs.
        steps = 2 * pairs * np.array(row["scores"])
        for k in np.flatnonzero(np.abs(steps - steps.round()) > 1e-3):
            score = f"{where}.scores[{k}]: {row['scores'][k]}"
            found.append(f"{score} is no AUC of {pairs[k]} pairs; give all digits")
    return found


def submission(model: dict, kept: dict[tuple[str, str, str], object], *, by: str, edition: str):
    """Return the content of a submission made of results of probes.

    Parameters
    ----------
    model : dict
        Facts about the model, as in the schema.
    kept : dict of (cohort, probe, protocol) to ProbeResult
    by : str
        Who stands for the numbers.
    edition : str

    Returns
    -------
    dict

    Raises
    ------
    SubmissionError
        If the content has faults.
    """
    packages = ("tumorbench-utils", "scikit-learn")
    rows = [
        {
            **dict(zip(KEYS, key, strict=True)),
            "scores": [float(score) for score in result.scores],
            "n_train": int(result.n_train),
            "n_test": int(result.n_test),
            "tested": tested(result.predictions),
        }
        for key, result in kept.items()
    ]
    body = {
        "format": 1,
        "model": model,
        "submitted_by": by,
        "date": datetime.date.today().isoformat(),
        "edition": edition,
        "software": {name: importlib.metadata.version(name) for name in packages},
        "results": rows,
    }
    return _checked(body, "the submission")


def kept_results(model: str, edition: str) -> dict[tuple[str, str, str], object]:
    """Return the kept results of a model by cohort, probe and protocol, as ProbeResult.

    Raises
    ------
    KeyError
        If there is none.
    """
    found, known = {}, results.noted(edition=edition)
    for meta, result in known:
        own = meta["splits"] == _SPLITS.get(meta["protocol"]) and meta["probe"] in ("knn", "linear")
        if meta["model"] == model and own and result.metric == "auc":
            found[tuple(meta[name] for name in KEYS)] = result
    if not found:
        kind = f"model with results in the {edition} edition"
        raise KeyError(settings.unknown(kind, model, {meta["model"] for meta, _ in known}))
    return found


def write(path: str | os.PathLike, body: dict) -> Path:
    """Write a submission to a new file.

    Raises
    ------
    FileExistsError
        If there is a file; a submission is never overwritten.
    """
    path = Path(path)
    if path.exists():
        raise FileExistsError(f"{path} exists; results are never overwritten, choose another name")
    with atomic_path(path) as part:
        part.write_text(json.dumps(body, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return path


def accepted() -> dict[str, dict]:
    """Return the accepted submissions by file name, checked, the oldest first.

    Raises
    ------
    SubmissionError
        If a file has faults.
    """
    folder = settings.BOOK_ROOT / "data" / "results"
    found = {path.name: read(path) for path in sorted(folder.glob("*.json"))}
    return dict(sorted(found.items(), key=lambda item: item[1]["date"]))
