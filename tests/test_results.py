"""Results are computed once, noted under their names, and refused when damaged."""

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from tumorbench_book.cli import results as command
from tumorbench_utils import probes, results, splits

NAMES = {
    "cohort": "luna16",
    "probe": "knn",
    "protocol": "careful",
    "splits": "grouped",
    "seed": 0,
    "edition": "phantom",
    "weights": None,
}


@pytest.fixture(autouse=True)
def _own_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("TUMORBENCH_CACHE", str(tmp_path / "größe"))
    monkeypatch.setenv("COLUMNS", "200")


@pytest.fixture
def data():
    rng = np.random.default_rng(0)
    ids = [f"l{i}" for i in range(80)]
    y = pd.Series(np.arange(80) % 2, ids)
    X = pd.DataFrame(rng.normal(size=(80, 5)) + y.to_numpy()[:, None], ids)
    patients = pd.Series(np.arange(80) // 2, ids).where(y >= 0)
    return X, y, splits.reference_splits(y, n_repeats=3), patients


def run(data, shift=0.0):
    X, y, parts, patients = data
    X = X.copy()
    X.iloc[:, 0] += shift * y
    return results.computed(probes.run_probe, X, y, parts, groups=patients)


def keep(data, model="fmcib", shift=0.0, **names):
    return results.note(run(data, shift), model=model, **{**NAMES, **names})


def cached() -> list:
    return sorted(results.settings.cache_dir().glob("memory/**/output.pkl"))


def test_a_result_is_computed_once(data):
    first = run(data)
    (path,) = cached()
    before = path.stat()
    second = run(data)
    assert cached() == [path] and path.stat().st_mtime_ns == before.st_mtime_ns
    X, y, parts, patients = data
    direct = probes.run_probe(X, y, parts, groups=patients)
    for result in (first, second):
        assert (direct.scores == result.scores).all() and direct.chosen == result.chosen
        pd.testing.assert_frame_equal(direct.predictions, result.predictions)
    assert second.interval("bootstrap") == first.interval("bootstrap")


def test_other_inputs_libraries_or_code_are_computed_anew(data, monkeypatch):
    run(data)
    run(data, shift=1e-12)
    assert len(cached()) == 2
    X, y, parts, patients = data
    results.computed(probes.run_probe, X, y, parts, "linear", groups=patients)
    assert len(cached()) == 3
    keep(data)
    now = results.versions()
    monkeypatch.setattr(results, "versions", lambda: {**now, "code": "0123456789ab"})
    run(data)
    assert len(cached()) == 4 and results.table().empty  # results of other code are not shown


def test_a_damaged_cache_is_computed_again(data):
    want = run(data)
    (path,) = cached()
    whole = path.read_bytes()
    for at in np.random.default_rng(0).integers(0, len(whole), 8):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 4]) + whole[at + 1 :])
        assert (run(data).scores == want.scores).all()
    assert path.read_bytes() == whole


def test_a_failed_computation_leaves_nothing():
    with pytest.raises(ZeroDivisionError):
        results.computed(divmod, 1, 0)
    assert cached() == []


def test_what_is_noted_last_counts_whatever_the_clock_says(data):
    keep(data, seed=0)
    last = keep(data, shift=1.0, seed=1)
    ((facts, result),) = results.noted()
    assert facts["seed"] == 1 and (result.scores == last.scores).all()
    path = results.folder() / facts["file"]
    stamp = path.stat().st_mtime_ns
    keep(data, shift=1.0, seed=1)
    assert path.stat().st_mtime_ns == stamp  # nothing is written for a result that is there
    keep(data, seed=0)
    assert results.noted()[0][0]["seed"] == 0


def test_names_with_slashes_stay_in_the_folder(data):
    keep(data, probe="nested HU/10 both")
    ((facts, _),) = results.noted(probe="nested HU/10 both")
    assert facts["file"].count("/") == 2
    with pytest.raises(ValueError, match="leaves its folder"):
        keep(data, cohort="..", model="..")
    with pytest.raises(KeyError):
        results.note(run(data), cohort="luna16")


def test_a_damaged_note_is_refused(data):
    keep(data)
    (path,) = results.folder().rglob("*.joblib")
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(results.ResultError, match="delete it"):
        results.table()


def test_table_and_newest(data):
    assert results.table().empty
    a, b = keep(data), keep(data, model="ct_fm", shift=1.0)
    table = results.table(cohort="luna16").set_index("model")
    assert table.loc["fmcib", "mean"] == pytest.approx(a.mean)
    assert (table.loc["ct_fm", "low"], table.loc["ct_fm", "high"]) == pytest.approx(b.interval())
    assert results.newest("luna16", "ct_fm").mean == b.mean
    with pytest.raises(KeyError, match="did you mean ct_fm"):
        results.newest("luna16", "ct-fm")
    with pytest.raises(KeyError, match="did you mean cohort"):
        results.table(cohor="luna16")


def test_command_lists_and_compares(data):
    invoke = CliRunner().invoke
    empty = invoke(command.results, [])
    assert empty.exit_code == 0
    assert "no results" in empty.output
    keep(data)
    keep(data, model="ct_fm", shift=2.0)
    keep(data, model="ct_fm", cohort="dlcs")
    listed = invoke(command.results, ["--cohort", "luna16"]).output
    assert "fmcib" in listed
    assert "dlcs" not in listed
    compared = invoke(command.results, ["compare", "luna16", "fmcib", "ct_fm"])
    assert compared.exit_code == 0, compared.output
    assert "p_holm" in compared.output
    same = invoke(command.results, ["compare", "luna16", "fmcib", "fmcib"])
    assert same.exit_code == 2
    missing = invoke(command.results, ["compare", "luna16", "fmcib", "merlin"])
    assert isinstance(missing.exception, KeyError)
