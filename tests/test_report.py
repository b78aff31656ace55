"""The report: what is computed, and what is written."""

import re

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from tumorbench_book.cli import cli
from tumorbench_utils import models, report, settings
from tumorbench_utils.cohorts import Cohort, CohortCard
from tumorbench_utils.report import facts, page


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


def test_time_to_event_has_a_row_per_model_and_one_for_the_clinic():
    cohort = make_cohort(120, followed=True)
    table = report.time_to_event(cohort, {"fmcib": features(cohort)})
    assert set(table.index) == {"fmcib", "clinical"}
    assert (table["patients"] == 120).all() and table["uno"].between(0, 1).all()


# ---------------------------------------------------------------------------------- what is written


@pytest.fixture
def made(monkeypatch):
    cohort = make_cohort()
    found = {"fmcib": features(cohort, 3.0), "merlin": features(cohort, seed=2)}
    monkeypatch.setattr(page, "load_cohort", lambda name, edition: cohort)
    monkeypatch.setattr(page.embeddings, "load_embeddings", lambda cohort, models=None: found)
    return report.of_cohort("made_up", ["fmcib", "merlin"], "released")


def test_the_page_needs_no_other_file_and_tables_lie_beside(made, tmp_path):
    written = made.write(tmp_path / "out")
    text = written.read_text(encoding="utf-8")
    sources = re.findall(r"(?:src|href)=\"([^\"]{0,30})", text)
    assert sources and all(s.startswith(("data:image/png", "#")) for s in sources)
    assert "<script" not in text
    names = {path.name for path in (tmp_path / "out/tables").iterdir()}
    assert names == {"discrimination-made_up.csv", "versions.csv", "items.csv"}
    again = pd.read_csv(tmp_path / "out/tables/discrimination-made_up.csv", index_col="name")
    np.testing.assert_allclose(again["auc"], made.tables["discrimination-made_up"]["auc"])


def test_a_report_replaces_a_report_and_nothing_else(made, tmp_path):
    made.write(tmp_path / "out")
    made.write(tmp_path / "out")
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.tex").write_text("years of work")
    with pytest.raises(FileExistsError, match="name another folder"):
        made.write(tmp_path / "thesis")
    assert (tmp_path / "thesis" / "chapter.tex").read_text() == "years of work"
    with pytest.raises(FileExistsError):
        made.write(tmp_path / "thesis" / "chapter.tex")


def test_answers_are_those_of_the_run(made):
    items = made.items.set_index(["guideline", "item"])["answer"]
    auc = made.tables["discrimination-made_up"].loc["fmcib", "auc"]
    assert f"fmcib {auc:.2f}" in items["CLEAR", "47"]
    assert "fmcib" not in items["CLEAR", "48"] and "size" in items["CLEAR", "48"]
    assert "40 lesions of label 0, 40 of label 1" in items["TRIPOD+AI", "13"]
    assert "none of it is real" in items["TRIPOD+AI", "26"]
    assert "authors" in items["CLEAR", "13"]
    assert ("METRICS", "17") not in items.index


def test_items_are_items_of_their_guideline():
    table = pd.read_csv(settings.BOOK_ROOT / "data" / "reporting_items.csv", dtype=str)
    assert not table.duplicated(["guideline", "item"]).any()
    for guideline, most in (("CLEAR", 58), ("METRICS", 30), ("TRIPOD+AI", 27)):
        numbers = table.loc[table["guideline"] == guideline, "item"].str.extract(r"^(\d+)[a-g]?$")[
            0
        ]
        assert numbers.astype(int).between(1, most).all()
        assert (numbers.astype(int).diff().dropna() >= 0).all()


def test_every_fact_of_an_item_is_known(made):
    table = pd.read_csv(settings.BOOK_ROOT / "data" / "reporting_items.csv", dtype=str)
    cohort = make_cohort()
    tables = {**made.tables, "repeatability-made_up": made.tables["discrimination-made_up"].assign(
        reidentified=0.5
    )}  # fmt: skip
    known = facts.answers(["fmcib"], [cohort], tables)
    assert set(table["fact"]) <= set(known)


def test_what_could_not_be_computed_is_said(monkeypatch):
    cohort = make_cohort()
    cohort.table["label"] = pd.array([1] * len(cohort.table), dtype="Int64")
    monkeypatch.setattr(page, "load_cohort", lambda name, edition: cohort)
    monkeypatch.setattr(
        page.embeddings, "load_embeddings", lambda c, m=None: {"fmcib": features(cohort)}
    )
    found = report.of_cohort("made_up", ["fmcib"], "released")
    assert found.tables == {} and "one class only" in found.notes[0]
    assert "one class only" in found.html()


def test_unknown_names_are_refused():
    with pytest.raises(KeyError, match="did you mean fmcib"):
        report.of_model("fmcb")
    with pytest.raises(KeyError, match="did you mean luna16"):
        report.of_cohort("luna6")
    assert "fmcib" in models.MODELS


def test_an_own_cohort_is_not_called_a_phantom(monkeypatch):
    cohort = make_cohort()
    own = Cohort(cohort.card, "phantom", cohort.table)
    assert "phantom" in facts.origin(own)
    monkeypatch.setattr(facts, "is_own", lambda key: key == "made_up")
    assert facts.origin(own) == "own cohort"
    assert "phantom" not in facts.methods([], [own])[0]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["my_network"], "goes to --own"),
        (["my_network", "--own", "absent.py"], "no such file"),
        (["luna16", "--cohort", "dlcs"], "--model with a cohort"),
        (["fmcib", "--model", "voco"], "--cohort goes with a model"),
        (["absent.yml"], "no such file"),
    ],
)
def test_the_command_says_what_is_wrong(words, said):
    result = CliRunner().invoke(cli, ["report", *words])
    assert result.exit_code != 0 and said in str(result.exception)


def test_the_command_runs_the_file_that_brings_a_model(tmp_path, monkeypatch):
    own = tmp_path / "my_model.py"
    own.write_text(
        "from tumorbench_utils import models\n"
        "models.register(models.from_function('mine', lambda p: [p.mean(), p.std()]))\n"
    )
    made = {}

    def of_model(name, cohorts, edition):
        made.update(name=name, cohorts=cohorts)
        raise ValueError("far enough")

    monkeypatch.setattr(report, "of_model", of_model)
    result = CliRunner().invoke(cli, ["report", "mine", "--own", str(own), "--cohort", "luna16"])
    models.MODELS.pop("mine", None)
    assert "far enough" in str(result.exception)
    assert made == {"name": "mine", "cohorts": ["luna16"]}
