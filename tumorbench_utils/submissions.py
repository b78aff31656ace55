"""Results of others: one JSON file per model, checked against a schema and against the splits.

``data/submission.schema.json`` says what a file holds; accepted files lie in ``data/results``. A
file holds scores per split and no rows of patients. Its digests of the test lesions show whether
the scores come from the splits of the book; nothing can show that they were computed honestly.
"""

import datetime
import functools
import hashlib
import importlib.metadata
import json
import os
from pathlib import Path

import jsonschema
import numpy as np
import pandas as pd

from tumorbench_utils import results, settings
from tumorbench_utils.cohorts import COHORTS, load_cohort
from tumorbench_utils.endpoints import Endpoint, endpoint
from tumorbench_utils.files import atomic_path
from tumorbench_utils.probes import ProbeResult

#: What tells the results of one file apart.
KEYS = ("cohort", "probe", "protocol")

#: How the splits of a protocol are called in kept results.
_SPLITS = {"careful": "grouped", "published": "reference"}


class SubmissionError(ValueError):
    """A submission with faults; the message lists all of them, one per line."""


def folder() -> Path:
    """Return the folder of accepted submissions."""
    return settings.BOOK_ROOT / "data" / "results"


@functools.cache
def schema() -> dict:
    """Return the JSON Schema of a submission."""
    path = settings.BOOK_ROOT / "data" / "submission.schema.json"
    return json.loads(path.read_text(encoding="utf-8"))


def _place(path) -> str:
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path)
    return text.lstrip(".") or "the file"


def _explained(error: jsonschema.ValidationError) -> str:
    """Return one line about one violation of the schema."""
    message = error.message
    if error.validator == "additionalProperties":
        known = error.schema.get("properties", {})
        extra = [name for name in error.instance if name not in known]
        message = "; ".join(settings.unknown("field", name, known) for name in extra)
    elif error.validator == "enum" and isinstance(error.instance, str):
        message = settings.unknown("value", error.instance, error.validator_value)
    elif error.validator == "required":
        message = error.message.replace("is a required property", "is missing")
    elif len(message) > 160:
        message = f"{message[:60]} ... {message[-80:]}"
    hint = error.schema.get("description") if error.path else None
    return f"{_place(error.absolute_path)}: {message}" + (f" ({hint})" if hint else "")


def faults(body) -> list[str]:
    """Return what is wrong with the content of a submission, one line per fault; empty if nothing.

    Parameters
    ----------
    body : dict
        As read from JSON.
    """
    validator = jsonschema.Draft202012Validator(schema())
    errors = sorted(validator.iter_errors(body), key=lambda e: [str(p) for p in e.absolute_path])
    if errors:
        return [_explained(error) for error in errors]
    found = []
    try:
        datetime.date.fromisoformat(body["date"])
    except ValueError as error:
        found.append(f"date: {body['date']!r} is no day of the calendar ({error})")
    known = [key for key, card in COHORTS.items() if card.positive]
    for place, name in enumerate(body["model"]["seen"]):
        if name not in COHORTS:
            found.append(f"model.seen[{place}]: {settings.unknown('cohort', name, COHORTS)}")
    rows: dict[tuple, int] = {}
    for place, row in enumerate(body["results"]):
        where = f"results[{place}]"
        if row["cohort"] not in known:
            message = settings.unknown("cohort with an endpoint", row["cohort"], known)
            found.append(f"{where}.cohort: {message}")
        key = tuple(row[name] for name in KEYS)
        if key in rows:
            found.append(
                f"{where}: {', '.join(key)} stands in results[{rows[key]}] already; one row each"
            )
        rows.setdefault(key, place)
    return found


def _no_constant(name: str):
    raise ValueError(f"it holds {name}, which is no number in JSON; leave that result out")


def _once(pairs: list) -> dict:
    names = [name for name, _ in pairs]
    twice = [name for name in names if names.count(name) > 1]
    if twice:
        raise ValueError(f"the field {twice[0]!r} stands twice")
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
    try:
        text = Path(path).read_text(encoding="utf-8")
        body = json.loads(text, parse_constant=_no_constant, object_pairs_hook=_once)
    except (ValueError, RecursionError) as error:
        raise SubmissionError(f"{path} cannot be read as JSON: {error}") from None
    found = faults(body)
    if found:
        raise SubmissionError("\n  ".join([f"{path} has {len(found)} faults:", *found]))
    return body


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


def _test_rows(ep: Endpoint) -> pd.DataFrame:
    parts = [
        pd.DataFrame({"split": number, "y": ep.y.iloc[split.test]})
        for number, split in enumerate(ep.splits)
    ]
    return pd.concat(parts).rename_axis("lesion_id").reset_index()


def split_faults(body: dict) -> list[str]:
    """Return which results of a submission cannot come from the splits of the book.

    Builds the splits from the cohort tables of the edition. Where the test lesions are the book's,
    every AUC must be a multiple of one over twice the number of its pairs.

    Parameters
    ----------
    body : dict
        From :func:`read`.
    """
    found = []
    for place, row in enumerate(body["results"]):
        rows = _test_rows(endpoint(load_cohort(row["cohort"], body["edition"]), row["protocol"]))
        where = f"results[{place}] ({row['cohort']}, {row['protocol']})"
        if row["tested"] != tested(rows):
            found.append(
                f"{where}: other test lesions or labels than those of the {body['edition']} "
                "edition; make the splits by endpoints.endpoint"
            )
            continue
        if row["n_test"] != round(len(rows) / 10):
            found.append(f"{where}: n_test is {row['n_test']}, but splits test {len(rows) / 10:g}")
        positives = rows.groupby("split")["y"].sum().to_numpy()
        pairs = positives * (rows.groupby("split").size().to_numpy() - positives)
        steps = 2 * pairs * np.array(row["scores"])
        for number in np.flatnonzero(np.abs(steps - steps.round()) > 1e-3):
            found.append(
                f"{where}.scores[{number}]: {row['scores'][number]} is no AUC of {pairs[number]} "
                "pairs; give all digits"
            )
    return found


def submission(
    model: dict, kept: dict[tuple[str, str, str], ProbeResult], *, by: str, edition: str
) -> dict:
    """Return the content of a submission made of results of probes.

    Parameters
    ----------
    model : dict
        Facts about the model, as in the schema.
    kept : dict of (cohort, probe, protocol) to ProbeResult
    by : str
        Who stands for the numbers.
    edition : str

    Raises
    ------
    SubmissionError
        If the content has faults.
    """
    body = {
        "format": 1,
        "model": model,
        "submitted_by": by,
        "date": datetime.date.today().isoformat(),
        "edition": edition,
        "software": {
            name: importlib.metadata.version(name) for name in ("tumorbench-utils", "scikit-learn")
        },
        "results": [
            {
                **dict(zip(KEYS, key, strict=True)),
                "scores": [float(score) for score in result.scores],
                "n_train": int(result.n_train),
                "n_test": int(result.n_test),
                "tested": tested(result.predictions),
            }
            for key, result in kept.items()
        ],
    }
    found = faults(body)
    if found:
        raise SubmissionError("\n  ".join([f"the submission has {len(found)} faults:", *found]))
    return body


def kept_results(model: str, edition: str) -> dict[tuple[str, str, str], ProbeResult]:
    """Return the kept results of a model by cohort, probe and protocol.

    Raises
    ------
    KeyError
        If there is none.
    """
    found = {}
    for meta, result in results.noted(model=model, edition=edition):
        own = meta["splits"] == _SPLITS.get(meta["protocol"]) and meta["probe"] in ("knn", "linear")
        if own and result.metric == "auc":
            found[tuple(meta[name] for name in KEYS)] = result
    if not found:
        there = sorted({meta["model"] for meta, _ in results.noted(edition=edition)})
        kind = f"model with results in the {edition} edition"
        raise KeyError(settings.unknown(kind, model, there))
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
    """Return the accepted submissions by file name, checked.

    Raises
    ------
    SubmissionError
        If a file has faults.
    """
    return {path.name: read(path) for path in sorted(folder().glob("*.json"))}
