"""Submissions: a good file is read, every kind of fault is named, the splits are compared."""

import copy
import json

import jsonschema
import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from tumorbench_book.cli import results as command
from tumorbench_utils import cohorts, endpoints, probes, results, submissions
from tumorbench_utils.cohorts import COHORTS, Cohort
from tumorbench_utils.models import MODELS

MODEL = {
    "key": "mine",
    "title": "Größen-Netz <b>",
    "licence": "MIT",
    "source": "https://example.org",
    "parameters": 7,
    "weights": "untrained",
    "pretraining": "",
    "seen": [],
}
ROW = {
    "cohort": "luna16",
    "probe": "knn",
    "protocol": "careful",
    "scores": [0.5] * 10,
    "n_train": 70,
    "n_test": 30,
    "tested": "0" * 16,
}
BODY = {
    "format": 1,
    "model": MODEL,
    "submitted_by": "A. Person",
    "date": "2026-02-28",
    "edition": "phantom",
    "software": {"numpy": "2.4"},
    "results": [ROW],
}


@pytest.fixture(scope="module")
def cohort():
    rng = np.random.default_rng(0)
    table = pd.DataFrame({"lesion_id": [f"l{i}" for i in range(120)]})
    table["patient_id"] = [f"p{i // 2}" for i in range(120)]
    table["label"] = pd.array(rng.integers(0, 2, 120), dtype="Int64")
    table["label_reference"] = table["label"]
    return Cohort(COHORTS["luna16"], "phantom", table)


@pytest.fixture
def body(cohort, monkeypatch):
    monkeypatch.setattr(cohorts, "load_cohort", lambda name, edition: cohort)
    kept = {}
    for protocol in ("careful", "published"):
        ep = endpoints.endpoint(cohort, protocol)
        X = pd.DataFrame(np.random.default_rng(1).normal(size=(120, 3)), index=ep.y.index)
        result = probes.run_probe(X, ep.y, ep.splits, protocol=protocol, groups=ep.groups)
        kept["luna16", "knn", protocol] = result
    return submissions.submission(MODEL, kept, by="A. Person", edition="phantom")


def test_the_schema_is_a_schema_and_knows_cohorts_and_models():
    schema = submissions.schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    model = schema["properties"]["model"]["properties"]
    row = schema["properties"]["results"]["items"]["properties"]
    assert model["seen"]["items"]["enum"] == list(COHORTS)
    assert row["cohort"]["enum"] == [key for key, card in COHORTS.items() if card.positive]
    assert set(model["key"]["not"]["enum"]) == {*MODELS, "size", "handcrafted"}


def test_what_is_written_can_be_read_and_has_no_faults(body, tmp_path):
    path = tmp_path / "größe.json"
    path.write_text(json.dumps(body, ensure_ascii=False), encoding="utf-8")
    assert submissions.read(path) == body
    assert submissions.split_faults(body) == []
    assert "l0" not in path.read_text(encoding="utf-8")


def change(path, value):
    body = copy.deepcopy(BODY)
    at = body
    for part in path[:-1]:
        at = at[part]
    if value is None:
        del at[path[-1]]
    else:
        at[path[-1]] = value
    return body


@pytest.mark.parametrize(
    ("path", "value", "says"),
    [
        (["model"], None, "'model' is a required"),
        (["model", "licence"], None, "model: 'licence' is a required"),
        (["model", "key"], "a b/..", "letters and digits"),
        (["model", "key"], "mine\n", "letters and digits"),
        (["model", "key"], "__b__", "letters and digits"),
        (["model", "key"], "voco", "no name of a model or baseline"),
        (["model", "key"], "size", "no name of a model or baseline"),
        (["model", "title"], "one\ntwo", r"model\.title"),
        (["model", "source"], "x" * 501, r"model\.source.*long"),
        (["submitted_by"], "A\n", "submitted_by"),
        (["model", "parameters"], 0.5, r"model\.parameters.*integer"),
        (["model", "parameters"], True, r"model\.parameters.*integer"),
        (["model", "seen"], ["luna"], r"seen\[0\]: 'luna' is not one of .*luna16"),
        (["format"], 2, "format: 1 was expected"),
        (["extra"], 1, "'extra' was unexpected"),
        (["edition"], "phantoms", "edition: 'phantoms' is not one of .*phantom"),
        (["date"], "2026-02-30", "'2026-02-30' is not a 'date'"),
        (["date"], "yesterday", "YYYY-MM-DD"),
        (["date"], "2026-02-28\n", "YYYY-MM-DD"),
        (["software"], {}, "software"),
        (["results"], [], "results"),
        (["results"], [ROW, ROW], "luna16, knn, careful stands 2 times"),
        (["results", 0, "cohort"], "luna", "not one of .*luna16"),
        (["results", 0, "cohort"], "rider_lung_ct", "cohort of the book with an endpoint"),
        (["results", 0, "probe"], "linaer", "not one of .*linear"),
        (["results", 0, "scores"], [0.5] * 9, r"results\[0\]\.scores.*too short"),
        (["results", 0, "scores", 3], 1.2, r"results\[0\]\.scores\[3\].*maximum of 1"),
        (["results", 0, "scores", 3], "0.5", r"scores\[3\].*number"),
        (["results", 0, "n_test"], -1, r"n_test"),
        (["results", 0, "tested"], "xyz", "16 hexadecimal digits"),
        (["results", 0, "tested"], "0" * 16 + "\n", "16 hexadecimal digits"),
    ],
)
def test_every_fault_is_named(path, value, says, tmp_path):
    file = tmp_path / "s.json"
    file.write_text(json.dumps(change(path, value)))
    with pytest.raises(submissions.SubmissionError, match=says):
        submissions.read(file)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "cannot be read as JSON"),
        ("[1", "cannot be read as JSON"),
        ("[]", "is not of type 'object'"),
        (json.dumps(BODY).replace("0.5", "NaN", 1), "NaN"),
        (json.dumps(BODY).replace("0.5", "1e999", 1), "maximum"),
        ("[" * 100_000, "cannot be read as JSON"),
        ("[" * 900 + "]" * 900, "is not of type 'object'"),
        (json.dumps({str(n): 1 for n in range(50_000)}), "unexpected|required"),
    ],
)
def test_text_that_is_no_submission(text, says, tmp_path):
    file = tmp_path / "s.json"
    file.write_text(text)
    with pytest.raises(submissions.SubmissionError, match=says):
        submissions.read(file)


def test_all_faults_are_listed_at_once():
    body = change(["results", 0, "probe"], "svm")
    body["edition"], body["results"][0]["n_test"] = "x", 0
    assert len(submissions.faults(body)) == 3


def test_other_splits_and_impossible_scores_are_found(body):
    other = copy.deepcopy(body)
    other["results"][0]["tested"] = "0" * 16
    (fault,) = submissions.split_faults(other)
    assert "other test lesions" in fault
    rounded = copy.deepcopy(body)
    rounded["results"][1]["scores"][4] = 0.123
    rounded["results"][1]["n_test"] += 5
    first, second = submissions.split_faults(rounded)
    assert "n_test" in first
    assert "scores[4]" in second


def test_the_digest_sees_lesions_splits_and_labels_but_not_the_order():
    rows = pd.DataFrame({"split": [0, 0, 1], "lesion_id": ["a", "b", "a"], "y": [0, 1, 0]})
    digest = submissions.tested(rows)
    assert submissions.tested(rows[::-1]) == digest
    for column, value in (("split", 1), ("lesion_id", "c"), ("y", 1)):
        changed = rows.copy()
        changed.loc[0, column] = value
        assert submissions.tested(changed) != digest


def test_accepted_submissions_are_without_faults():
    assert all(submissions.faults(body) == [] for body in submissions.accepted().values())


def test_commands_export_and_check(cohort, tmp_path, monkeypatch):
    monkeypatch.setenv("TUMORBENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(cohorts, "load_cohort", lambda name, edition: cohort)
    ep = endpoints.endpoint(cohort)
    X = pd.DataFrame(np.random.default_rng(1).normal(size=(120, 3)), index=ep.y.index)
    result = ep.probe("mine", X, "linear")
    facts, file = tmp_path / "facts.json", tmp_path / "mine.json"
    facts.write_text(json.dumps(MODEL))
    run = CliRunner().invoke
    options = ["--facts", str(facts), "--by", "A. Person"]
    made = run(command.results, ["export", "mine", str(file), *options])
    assert made.exit_code == 0, made.output
    (row,) = submissions.read(file)["results"]
    assert row["scores"] == list(result.scores)
    assert run(command.results, ["check", "--splits", str(file)]).exit_code == 0
    again = run(command.results, ["export", "mine", str(file), *options])
    assert isinstance(again.exception, FileExistsError)
    absent = run(command.results, ["export", "yours", str(tmp_path / "x.json"), *options])
    assert "results: [] should be non-empty" in str(absent.exception)
    bad = tmp_path / "bad.json"
    bad.write_text("{}")
    checked = run(command.results, ["check", str(file), str(bad)])
    assert checked.exit_code == 1
    assert "mine.json: ok" in checked.output
    assert "'results' is a required" in checked.output
    assert results.noted(model="mine")
