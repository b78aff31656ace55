"""The report: what is computed, and what is written."""

import json
from html import escape

import numpy as np
import pandas as pd
import pytest
import yaml
from typer.testing import CliRunner

from tumorbench_book import reports
from tumorbench_book.cli import cli
from tumorbench_book.site import render
from tumorbench_utils import cohorts, embeddings, models, report, settings
from tumorbench_utils.cohorts import Cohort, CohortCard


def make_cohort(n=80, session=False, followed=False):
    rng = np.random.default_rng(0)
    table = pd.DataFrame(
        {
            "lesion_id": [f"L{i:03d}" for i in range(n)],
            "patient_id": [f"P{i:03d}" for i in range(n)],
            "scan_id": [f"S{i:03d}" for i in range(n)],
            "label": pd.array(np.arange(n) % 2, dtype="Int64"),
            "size_mm": rng.uniform(5, 30, n) + 4 * (np.arange(n) % 2),
            "time_days": np.nan,
            "event": pd.array([pd.NA] * n, dtype="Int64"),
        }
    )
    if session:
        table["session"] = np.where(np.arange(n) % 2, "retest", "test")
        table["patient_id"] = [f"P{i // 2:03d}" for i in range(n)]
        table["label"] = pd.array([pd.NA] * n, dtype="Int64")
    if followed:
        table["time_days"] = rng.uniform(30, 2000, n)
        table["event"] = pd.array(rng.random(n) < 0.6, dtype="Int64")
    card = CohortCard(key="made_up", title="Made up", known_problems=("none of it is real",))
    return Cohort(card, "released", table)


def features(cohort, signal=0.0, seed=1, d=6):
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(len(cohort.table), d))
    X[:, 0] += signal * cohort.table["label"].fillna(0).to_numpy(float)
    return pd.DataFrame(X, index=pd.Index(cohort.table["lesion_id"], name="lesion_id"))


def test_discrimination_puts_signal_above_noise_and_size_between():
    cohort = make_cohort()
    found = {"fmcib": features(cohort, 6.0), "merlin": features(cohort, 0.0, seed=2)}
    table = report.discrimination(cohort, found, n=50)
    assert table.loc["fmcib", "auc"] > 0.95 > table.loc["size", "auc"]
    assert table.loc["merlin", "auc"] < 0.75
    assert table.loc["size", "kind"] == "baseline" and table.loc["fmcib", "kind"] == "benchmark"
    assert np.isnan(table.loc["size", "difference"]) and table.loc["fmcib", "difference_low"] > 0
    assert (table["low"] >= 0).all() and (table["high"] <= 1).all()
    assert table.loc["fmcib", "weights"] == "released features"
    difference = table.loc["fmcib", "auc"] - table.loc["size", "auc"]
    assert table.loc["fmcib", "difference"] == pytest.approx(difference)


def test_repeatability_of_copies_and_of_noise():
    cohort = make_cohort(40, session=True)
    copies = features(cohort)
    retest = cohort.table["session"].to_numpy() == "retest"
    copies[retest] = copies[~retest].to_numpy()
    table = report.repeatability(cohort, {"fmcib": copies, "merlin": features(cohort, seed=3)})
    assert table.loc["fmcib", "reidentified"] == 1 and table.loc["fmcib", "icc"] == 1
    assert table.loc["merlin", "reidentified"] < 0.5


def test_likeness_finds_the_rotated_copy():
    cohort = make_cohort()
    X = features(cohort)
    turn = np.linalg.qr(np.random.default_rng(5).normal(size=(6, 6)))[0]
    copy = pd.DataFrame(X.to_numpy() @ turn, index=X.index)
    table = report.likeness({"fmcib": X, "merlin": copy, "voco": features(cohort, seed=9)}, "fmcib")
    assert table.index[0] == "merlin" and table.loc["merlin", "cka"] == pytest.approx(1)
    assert table.loc["merlin", "p"] < 0.05 < table.loc["voco", "p"]


def test_a_patient_with_several_lesions_dies_once():
    """Twelve of 60 patients have six lesions: numbers are those of one row a patient."""
    cohort = make_cohort(120, followed=True)
    each = np.repeat(np.arange(60), np.where(np.arange(60) < 12, 6, 1))
    table = cohort.table.iloc[each].reset_index(drop=True)
    table["lesion_id"] = [f"L{i:03d}" for i in range(len(table))]
    table["size_mm"] = 10.0
    many = Cohort(cohort.card, "released", table)
    once = Cohort(cohort.card, "released", table.drop_duplicates("patient_id"))
    found = {"fmcib": features(many)}
    made = report.time_to_event(many, found)
    pd.testing.assert_frame_equal(made, report.time_to_event(once, found))
    assert (made["patients"] == 60).all()
    assert (made["events"] == once.table["event"].sum()).all()


def test_a_covariate_that_most_patients_lack_does_not_cost_the_patients():
    cohort = make_cohort(120, followed=True)
    cohort.table["age"] = [60.0] * 4 + [np.nan] * 116
    assert (report.time_to_event(cohort, {"fmcib": features(cohort)})["patients"] == 120).all()


def test_time_to_event_has_a_row_per_model_and_one_for_the_clinic():
    cohort = make_cohort(120, followed=True)
    table = report.time_to_event(cohort, {"fmcib": features(cohort)})
    assert set(table.index) == {"fmcib", "clinical"}
    assert (table["patients"] == 120).all() and table["uno"].between(0, 1).all()


# ---------------------------------------------------------------------------------- what is written


@pytest.fixture
def made(monkeypatch, run_cells):
    """What the notebook computes on a cohort with features of two models."""
    cohort = make_cohort()
    found = embeddings.load.Embeddings(
        {"fmcib": features(cohort, 3.0), "merlin": features(cohort, seed=2)}, "released features"
    )
    monkeypatch.setitem(cohorts.COHORTS, "made_up", cohort.card)
    monkeypatch.setattr(cohorts, "load_cohort", lambda name, edition: cohort)
    monkeypatch.setattr(embeddings, "load_embeddings", lambda cohort, models=None: found)
    return run_cells("report", name="made_up")


def test_figures_and_tables_need_no_other_file_and_tables_can_be_saved(made):
    assert set(made["tables"]) == {"discrimination-made_up"}
    for file in ("discrimination-made_up.csv", "items.csv", "versions.csv"):
        assert f'<a download="{file}" href="data:text/csv;base64,' in made["shown"]
    assert json.dumps(made["left"])


def test_answers_are_those_of_the_run(made):
    items = made["items"].set_index(["guideline", "item"])["answer"]
    auc = made["tables"]["discrimination-made_up"].loc["fmcib", "auc"]
    assert f"fmcib {auc:.2f}" in items["CLEAR", "47"]
    assert "fmcib" not in items["CLEAR", "48"] and "size" in items["CLEAR", "48"]
    assert "40 lesions of label 0, 40 of label 1" in items["TRIPOD+AI", "13"]
    assert "none of it is real" in items["TRIPOD+AI", "26"]
    assert "authors" in items["CLEAR", "13"]
    assert ("METRICS", "17") not in items.index


def test_items_are_items_of_their_guideline_and_each_has_its_sentence(made):
    data = settings.BOOK_ROOT / "data"
    table = pd.read_csv(data / "reporting_items.csv", dtype=str)
    told = yaml.safe_load((data / "reporting.yml").read_text(encoding="utf-8"))
    assert not table.duplicated(["guideline", "item"]).any()
    assert set(table["guideline"]) == set(told["guidelines"])
    for guideline, group in table.groupby("guideline"):
        numbers = group["item"].str.extract(r"^(\d+)[a-g]?$")[0].astype(int)
        assert numbers.between(1, told["guidelines"][guideline]["items"]).all()
        assert (numbers.diff().dropna() >= 0).all()
    assert set(table["fact"]) - {"robustness"} <= set(made["facts"])
    assert set(told["methods"]) <= set(told["protocol"])
    assert "{" not in "".join(made["left"]["methods"])


def test_what_could_not_be_computed_is_said(monkeypatch, run_cells):
    cohort = make_cohort()
    cohort.table["label"] = pd.array([1] * len(cohort.table), dtype="Int64")
    found = embeddings.load.Embeddings({"fmcib": features(cohort)}, "released features")
    monkeypatch.setitem(cohorts.COHORTS, "made_up", cohort.card)
    monkeypatch.setattr(cohorts, "load_cohort", lambda name, edition: cohort)
    monkeypatch.setattr(embeddings, "load_embeddings", lambda cohort, models=None: found)
    made = run_cells("report", name="made_up")
    assert made["tables"] == {}
    assert (
        "discrimination" in made["left"]["notes"][0]
        and escape(made["left"]["notes"][0]) in made["shown"]
    )


@pytest.mark.parametrize(
    ("parameters", "said"),
    [
        ({"name": "fmcb"}, "did you mean fmcib.*goes to --own"),
        ({"name": "luna6"}, "did you mean luna16"),
        ({"name": "my_network", "own": ["absent.py"]}, "no such file"),
        ({"name": "luna16", "only_cohorts": ["dlcs"]}, "--model with a cohort"),
        ({"name": "fmcib", "only_models": ["voco"]}, "--cohort goes with a model"),
        ({"name": "luna16", "only_models": ["vocco"]}, "did you mean voco"),
        ({"name": "absent.yml"}, "no such file"),
        ({"name": "nodules.csv"}, "needs a description"),
        ({"name": "mine", "own": ["my_model.py"]}, r"my_model\.py, line 5: ValueError: boom"),
    ],
)
def test_what_is_wrong_is_said_before_anything_is_computed(tmp_path, run_cells, parameters, said):
    (tmp_path / "my_model.py").write_text(
        "import numpy as np\n\ndef network(n):\n    if n > 2:\n        raise ValueError('boom')\n\n"
        "network(3)\n"
    )
    with pytest.raises((ValueError, KeyError, OSError, RuntimeError), match=said):
        run_cells("report", **parameters)


def test_an_own_cohort_is_checked_first(monkeypatch, run_cells, tmp_path):
    cohort = make_cohort()
    cohort.table["image_path"] = str(tmp_path / "absent.nii")
    cohort.table[["coord_x", "coord_y", "coord_z"]] = 0.0
    cohorts.register(cohort.card, lambda folder: cohort.table)
    monkeypatch.setattr(cohorts, "load_cohort", lambda name, edition: cohort)
    try:
        with pytest.raises(cohorts.CohortError, match=r"to be mended first:\n.*absent\.nii"):
            run_cells("report", name="made_up")
    finally:
        cohorts.COHORTS.pop("made_up")
        cohorts.registry._OWN.pop("made_up")


def test_a_page_replaces_a_page_of_ours_and_nothing_else(tmp_path):
    page = render("report.html", title="t", body="new")
    tables = tmp_path / "paper" / "tables"
    tables.mkdir(parents=True)
    (tables / "mine.csv").write_text("years of work")
    for _ in range(2):
        reports.write(page, reports.target(tmp_path / "paper", "report.html"))
    assert (tables / "mine.csv").read_text() == "years of work"
    assert (tmp_path / "paper" / "report.html").read_text() == page
    (tmp_path / "lesions.csv").write_text("a table")
    (tmp_path / "other.html").write_text("<html>somebody else's</html>")
    (tmp_path / "dir.html").mkdir()
    for name in ("lesions.csv", "other.html", "dir.html"):
        with pytest.raises(OSError, match=name):
            reports.write(page, reports.target(tmp_path / name, "report.html"))
    assert (tmp_path / "lesions.csv").read_text() == "a table"
    assert "somebody" in (tmp_path / "other.html").read_text()


def test_the_command_refuses_a_foreign_page_before_it_computes(tmp_path, monkeypatch):
    (tmp_path / "report.html").write_text("a thesis")
    monkeypatch.setattr(reports, "make", lambda *a, **k: pytest.fail("computed"))
    words = ["report", "luna16", "--out", str(tmp_path / "report.html")]
    assert isinstance(CliRunner().invoke(cli, words).exception, FileExistsError)
    assert (tmp_path / "report.html").read_text() == "a thesis"


def test_a_file_that_brings_a_model_runs_in_its_folder_but_imports_nothing_from_there(
    tmp_path, monkeypatch
):
    (tmp_path / "here").mkdir()
    monkeypatch.setattr(reports.sys, "path", ["", *reports.sys.path])
    monkeypatch.chdir(tmp_path)
    (tmp_path / "here" / "colorsys.py").write_text("raise SystemExit('ran')")
    (tmp_path / "here" / "mine.py").write_text(
        "import colorsys, os\n"
        "from tumorbench_utils import models\n"
        "assert os.path.exists('mine.py')\n"
        "models.register(models.from_function('mine', lambda p: [p.mean(), p.std()]))\n"
    )
    reports.enter(str(tmp_path / "here"), ["mine.py"])
    assert models.MODELS.pop("mine").dim == 2
