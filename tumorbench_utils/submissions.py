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

from tumorbench_utils import checks, settings

#: What tells the results of one file apart.
KEYS = ("cohort", "probe", "protocol")


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
    from jsonschema import Draft202012Validator as Validator  # takes seconds to import

    errors = Validator(schema(), format_checker=Validator.FORMAT_CHECKER).iter_errors(body)
    if found := [_explained(error) for error in errors]:
        return found
    keys = Counter(", ".join(row[name] for name in KEYS) for row in body["results"])
    return [f"results: {key} stands {n} times; one row each" for key, n in keys.items() if n > 1]


def _checked(body: dict, what) -> dict:
    if found := faults(body):
        raise SubmissionError("\n  ".join([f"{what} has {len(found)} faults:", *found]))
    return body


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
    try:  # NaN is no number of JSON: the schema refuses the word
        body = json.loads(Path(path).read_bytes().decode(), parse_constant=str)
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
    rows = predictions[["split", "lesion_id", "y"]].to_numpy()
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
        sides = [ep.y.iloc[split.test] for split in ep.splits]
        rows = pd.concat(dict(enumerate(sides)), names=["split", "lesion_id"]).rename("y")
        where, size = f"results[{n}] ({row['cohort']}, {row['protocol']})", len(rows) / 10
        if row["tested"] != tested(rows.reset_index()):
            own = f"{body['edition']} edition; make the splits by endpoints.endpoint"
            found.append(f"{where}: other test lesions or labels than those of the {own}")
            continue
        if row["n_test"] != round(size):
            found.append(f"{where}: n_test is {row['n_test']}, but splits test {size:g}")
        pairs = np.array([side.sum() * (side == 0).sum() for side in sides])
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
    rows = []
    for key, result in kept.items():
        counts = {"n_train": int(result.n_train), "n_test": int(result.n_test)}
        made = {"scores": list(map(float, result.scores)), **counts}
        made["tested"] = tested(result.predictions)
        rows.append(dict(zip(KEYS, key, strict=True)) | made)
    packages = ("tumorbench-utils", "scikit-learn")
    body = {"format": 1, "model": model, "submitted_by": by}
    body |= {"date": datetime.date.today().isoformat(), "edition": edition}
    body["software"] = {name: importlib.metadata.version(name) for name in packages}
    return _checked(body | {"results": rows}, "the submission")


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
