"""Results are written once, found again by their inputs, and refused when damaged."""

import json
import os

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from tumorbench_book.cli import results as command
from tumorbench_utils import probes, results, splits

KEY = {
    "cohort": "luna16",
    "probe": "knn",
    "protocol": "careful",
    "splits": "grouped",
    "seed": 0,
    "edition": "phantom",
}


@pytest.fixture(autouse=True)
def _own_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("TUMORBENCH_CACHE", str(tmp_path / "größe"))
    monkeypatch.setenv("COLUMNS", "200")


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(0)
    ids = [f"l{i}" for i in range(80)]
    y = pd.Series(np.arange(80) % 2, ids)
    X = pd.DataFrame(rng.normal(size=(80, 5)) + y.to_numpy()[:, None], ids)
    patients = pd.Series(np.arange(80) // 2, ids).where(y >= 0)
    return X, y, patients


def keep(data, model="fmcib", shift=0.0, runs=None, **options):
    X, y, patients = data
    X = X.copy()
    X.iloc[:, 0] += shift * y
    parts = splits.reference_splits(y, n_repeats=3)

    def compute():
        if runs is not None:
            runs.append(model)
        return probes.run_probe(X, y, parts, groups=patients)

    inputs = [X, y, patients, parts]
    return results.kept(compute, model=model, inputs=inputs, **{**KEY, **options})


def test_a_result_is_computed_once(data):
    runs = []
    first = keep(data, runs=runs)
    second = keep(data, runs=runs)
    assert runs == ["fmcib"]
    assert (first.scores == second.scores).all()
    assert first.predictions.equals(second.predictions)
    assert first.chosen == second.chosen
    assert second.interval("bootstrap") == first.interval("bootstrap")
    X, y, patients = data
    direct = probes.run_probe(X, y, splits.reference_splits(y, n_repeats=3), groups=patients)
    assert (direct.scores == second.scores).all()
    pd.testing.assert_frame_equal(direct.predictions, second.predictions)


def test_other_inputs_make_another_file(data):
    runs = []
    keep(data, runs=runs)
    keep(data, shift=1e-12, runs=runs)
    keep(data, seed=1, runs=runs)
    assert len(runs) == len(results.files()) == 3
    assert len(results.table(seed=0)) == 2


def test_files_say_where_they_come_from(data):
    keep(data, weights="teaching encoder")
    (path,) = results.files()
    meta, _ = results.read(path)
    assert {key: meta[key] for key in KEY} == KEY
    assert meta["weights"] == "teaching encoder"
    assert set(meta["versions"]) >= {"numpy", "scikit-learn", "tumorbench-utils", "code"}
    assert not os.stat(path).st_mode & 0o222
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("damage", ["cut", "number", "text", "format", "list"])
def test_damage_is_found(data, damage):
    keep(data)
    (path,) = results.files()
    os.chmod(path, 0o644)
    body = json.loads(path.read_text())
    if damage == "number":
        body["result"]["scores"][0] += 0.1
    if damage == "format":
        body["format"] = 99
    text = {"cut": path.read_text()[:500], "text": "hello", "list": "[1, 2]"}
    path.write_text(text.get(damage) or json.dumps(body))
    with pytest.raises(results.ResultError, match="delete it"):
        keep(data)


def test_a_failed_computation_leaves_nothing(data):
    def fail():
        raise RuntimeError("no")

    with pytest.raises(RuntimeError):
        results.kept(fail, model="m", inputs=[], **KEY)
    assert results.files() == []


@pytest.mark.parametrize(
    "wrong", [{"cohort": ""}, {"model": "../x"}, {"probe": None}, {"cohort": ".."}]
)
def test_names_stay_in_the_folder(data, wrong):
    with pytest.raises(ValueError, match=r"name|leaves"):
        keep(data, **wrong)


def test_fingerprints_tell_inputs_apart():
    array = np.arange(6.0)
    parts = [
        (array,),
        (array.astype(np.float32),),
        (array.reshape(2, 3),),
        (array, None),
        ([array[:3], array[3:]],),
        (pd.Series(array),),
        (pd.Series(array, index=list("abcdef")),),
        ("1",),
        (1,),
        (),
    ]
    assert len({results.fingerprint(*part) for part in parts}) == len(parts)
    assert results.fingerprint(array) == results.fingerprint(array.copy())


def test_table_and_newest(data):
    assert results.table().empty
    a, b = keep(data), keep(data, model="ct_fm", shift=1.0)
    table = results.table(cohort="luna16").set_index("model")
    assert table.loc["fmcib", "mean"] == pytest.approx(a.mean)
    assert (table.loc["ct_fm", "low"], table.loc["ct_fm", "high"]) == pytest.approx(b.interval())
    assert results.newest("luna16", "ct_fm").mean == b.mean
    with pytest.raises(KeyError, match="did you mean ct_fm"):
        results.newest("luna16", "ct-fm")
    with pytest.raises(ValueError, match="did you mean cohort"):
        results.table(cohor="luna16")


def test_command_lists_and_compares(data):
    run = CliRunner().invoke
    empty = run(command.results, [])
    assert empty.exit_code == 0
    assert "no results" in empty.output
    keep(data)
    keep(data, model="ct_fm", shift=2.0)
    keep(data, model="ct_fm", cohort="dlcs")
    listed = run(command.results, ["--cohort", "luna16"]).output
    assert "fmcib" in listed
    assert "dlcs" not in listed
    compared = run(command.results, ["compare", "luna16", "fmcib", "ct_fm"])
    assert compared.exit_code == 0, compared.output
    assert "p_holm" in compared.output
    same = run(command.results, ["compare", "luna16", "fmcib", "fmcib"])
    assert same.exit_code == 2
    missing = run(command.results, ["compare", "luna16", "fmcib", "merlin"])
    assert isinstance(missing.exception, KeyError)
