"""The leaderboard: right rows, ranks within settings, links that lead somewhere, whole downloads."""

import base64
import json
import re
import subprocess
import sys
from io import StringIO
from pathlib import Path

import jsonschema
import numpy as np
import pandas as pd
import pytest
import yaml

from tumorbench_utils import leaderboard, stats, submissions
from tumorbench_utils.cohorts import COHORTS, Cohort
from tumorbench_utils.models import MODELS
from tumorbench_utils.pages import leaderboard as pages
from tumorbench_utils.results import published

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def printed():
    return leaderboard.printed()


@pytest.fixture(scope="module")
def board(printed):
    rows = {"edition": "phantom", "weights": "untrained", "kind": "model", "n_test": 30}
    rows |= {"setting": "linear probe, careful", "low": 0.4, "high": 0.9, "error": 0.01}
    made = [
        {**rows, "model": model, "cohort": cohort, "auc": auc, "chapter": "endpoints/knn_probing"}
        for cohort, shift in (("luna16", 0.0), ("dlcs", 0.05))
        for model, auc in (("fmcib", 0.8), ("voco", 0.6), ("<own>", 0.7))
    ]
    made.append({**made[0], "model": "best known", "kind": "ceiling", "auc": 0.99})
    made.append({**made[0], "model": "size", "kind": "baseline", "weights": None, "auc": 0.9})
    columns = ["robustness", "robustness_low", "robustness_high", "collapsed"]
    steady = pd.DataFrame({"fmcib": (0.9, 0.8, 1.0, True), "size": (0.7, 0.6, 0.8, False)}).T
    steady = steady.set_axis(columns, axis=1).astype(dict.fromkeys(columns[:3], float))
    return leaderboard.assemble([pd.DataFrame(made), printed], steady)


def test_printed_figures_keep_their_means_and_get_wider_intervals(printed):
    own = published("knn_auc").query("release == '2025-03'").set_index(["cohort", "model"])
    both = printed.set_index(["cohort", "model"]).join(own, rsuffix="_own")
    assert len(both) == 60
    assert both["auc"].equals(both["auc_own"])
    # By hand for FMCIB on LUNA16: sd from the printed half width, 337 train and 204 test lesions.
    row = both.loc[("luna16", "fmcib")]
    sd = (0.9004417149798005 - 0.8715736770355913) / 2 * np.sqrt(10) / 1.96
    assert row["n_test"] == 204
    assert row["error"] == pytest.approx(sd * np.sqrt(0.1 + 204 / 337), rel=1e-9)
    assert row["high"] - row["auc"] == pytest.approx(2.262157 * row["error"], rel=1e-6)


def test_all_columns_are_in_the_dictionary_and_in_order(board):
    assert list(board) == list(leaderboard.COLUMNS)


def test_ranks_stay_within_a_setting_and_leave_out_ceiling_and_partial_rows(board):
    here = board[board["edition"] == "phantom"]
    ranks = here.drop_duplicates("model").set_index("model")["rank"]
    assert ranks[["fmcib", "<own>", "voco"]].tolist() == [1, 2, 3]
    assert ranks[["best known", "size"]].isna().all()
    there = board[board["edition"] == "published"]
    wide = there.pivot(index="cohort", columns="model", values="auc")
    order = stats.friedman_nemenyi(wide).mean_ranks
    found = there.drop_duplicates("model").set_index("model")["rank"]
    assert found[order.index].is_monotonic_increasing
    assert found.idxmin() == order.index[0]
    inside = (there["rank_low"] <= there["rank"]) & (there["rank"] <= there["rank_high"])
    assert inside.all()


def test_facts_stand_beside_the_models_and_not_beside_the_baselines(board):
    row = board[(board["model"] == "models_genesis") & (board["cohort"] == "luna16")].iloc[0]
    assert row["overlap"] == "seen"
    assert row["use"] == "research"
    assert row["parameters"] == MODELS["models_genesis"].card.parameters
    assert row["seconds"] > 0
    assert pd.isna(row["robustness"])  # the published network was not scanned twice here
    size = board[board["model"] == "size"].iloc[0]
    assert size[["licence", "use", "parameters", "overlap"]].isna().all()
    assert size["robustness"] == 0.7
    assert not size["collapsed"]


def test_the_facts_of_the_leaderboard_follow_their_schema_and_the_cards():
    facts = yaml.safe_load((ROOT / "data" / "leaderboard.yml").read_text())
    jsonschema.validate(facts, json.loads((ROOT / "data" / "leaderboard.schema.json").read_text()))
    assert set(facts["use"]) == set(MODELS)
    for name, use in facts["use"].items():
        allows = MODELS[name].card.allows
        assert (use == "research") == allows.startswith("research"), name
        assert use != "any" or allows.startswith(("any use", "free use")), name


def test_the_import_is_light():
    code = "import sys, tumorbench_utils.leaderboard; print({'torch', 'jsonschema'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout == "set()\n", done.stderr


def test_measured_scores_models_and_baselines_on_the_same_lesions(tmp_path, monkeypatch):
    monkeypatch.setenv("TUMORBENCH_CACHE", str(tmp_path))
    rng = np.random.default_rng(0)
    table = pd.DataFrame({"lesion_id": [f"l{i}" for i in range(160)]})
    table["patient_id"] = table["lesion_id"].str.replace("l", "p")
    table["label"] = table["label_reference"] = pd.array(np.arange(160) % 2, dtype="Int64")
    table["size_mm"] = 10 + 3 * table["label"].astype(int) + rng.normal(size=160)
    table["size_px"] = table["size_mm"]
    cohort = Cohort(COHORTS["luna16"], "released", table)
    index = pd.Index(table["lesion_id"], name="lesion_id")
    X = pd.DataFrame(rng.normal(size=(160, 4)).astype("float32"), index=index)

    class Features(dict):
        weights = "released features"

    for setting in leaderboard.SETTINGS:
        found = leaderboard.measured(cohort, setting, Features(fmcib=X)).set_index("model")
        assert list(found.index) == ["size", "fmcib"]
        assert found.loc["size", "auc"] > 0.9 > found.loc["fmcib", "auc"]
        assert (found["low"] < found["auc"]).all() & (found["auc"] < found["high"]).all()
    assert list(leaderboard.measured(cohort, setting)["model"]) == ["size"]
    with pytest.raises(ValueError, match="did you mean linear probe, careful"):
        leaderboard.measured(cohort, "linear probe careful")


def test_repeatability_pairs_subjects_by_patient():
    table = pd.DataFrame({"lesion_id": list("abcdefgh"), "patient_id": list("wxyzzyxw")})
    table["session"] = ["test"] * 4 + ["retest"] * 4
    values = {"w": 0.0, "x": 1.0, "y": 3.0, "z": 9.0}
    one = pd.DataFrame({"f": table["patient_id"].map(values).to_numpy()}, table["lesion_id"])
    found = leaderboard.repeatability(
        Cohort(COHORTS["rider_lung_ct"], "phantom", table), {"m": one}
    )
    assert found.loc["m", "robustness"] == 1
    assert not found.loc["m", "collapsed"]


def test_submissions_become_rows(monkeypatch):
    row = {"cohort": "luna16", "probe": "knn", "protocol": "careful", "tested": "0" * 16}
    row |= {"scores": [0.5, 0.6] * 5, "n_train": 70, "n_test": 30}
    odd = {**row, "probe": "linear", "protocol": "published"}
    model = {"key": "mine", "licence": "MIT", "parameters": 5, "weights": "trained", "seen": []}
    body = {"edition": "phantom", "model": model, "results": [row, odd]}
    monkeypatch.setattr(submissions, "accepted", lambda: {"mine.json": body})
    (found,) = leaderboard.submitted("phantom").to_dict("records")
    assert found["auc"] == pytest.approx(0.55)
    assert found["setting"] == "nearest neighbours, careful"
    assert (found["low"], found["high"]) == stats.corrected_interval(row["scores"], 70, 30)
    assert leaderboard.submitted("released").empty
    assert len(leaderboard.assemble([leaderboard.printed(), leaderboard.submitted("full")])) == 60


FILTERS = ["results", "kind", "licence allows"]


def test_every_link_leads_to_a_page(board):
    page = pages.widget(pages.summary(board), FILTERS, "Leaderboard").data
    links = set(re.findall(r'href=\\?"\.\./([^"\\]+)\.html', page))
    links |= set(board["chapter"].dropna()) | {c for *_, c in leaderboard.SETTINGS.values()}
    assert {"models/fmcib", "endpoints/knn_probing", "trust/test_retest"} <= links
    for link in links:
        assert (ROOT / "notebooks" / f"{link}.ipynb").exists(), link
    assert "http" not in page


def test_names_are_escaped_on_the_page(board):
    page = pages.widget(pages.summary(board), FILTERS, "a <b> & c").data
    assert "<own>" not in page
    assert "&lt;own&gt;" in page
    assert "a &lt;b&gt; &amp; c" in page
    assert pages.cell("<i>", page='x" onclick="y', small="<u>") == (
        '<a href="../x&quot; onclick=&quot;y.html">&lt;i&gt;</a><small>&lt;u&gt;</small>'
    )


def test_the_table_is_filtered_by_tags_and_begins_with_the_first_setting(board):
    cells = pages.summary(board)
    assert list(cells)[-3:] == FILTERS
    assert set(cells["kind"]) == {"model", "ceiling", "baseline"}
    page = pages.widget(cells, FILTERS, "").data
    places = list(range(cells.shape[1] - 3, cells.shape[1]))
    assert f'"columns": {places}' in page
    assert f'[{{"column": {places[0]}, "rows": ["linear probe, careful"]}}]' in page


def test_cells_show_numbers_with_their_intervals(board):
    cells = pages.summary(board).set_index(["model", "results"])
    own = cells.loc[[m for m in cells.index if "fmcib" in m[0] and "linear" in m[1]]].iloc[0]
    assert own["LUNA16"] == (
        '<a href="../endpoints/knn_probing.html">0.80</a><small>0.40–0.90</small>'
    )
    assert own["robustness"].endswith("<small>0.80–1.00 collapsed</small>")
    assert ">184.5</a>" in own["M parameters"]
    assert own["C4KC-KiTS"] == own["mean"] == "–"


def test_downloads_hold_the_whole_board(board):
    links = pages.downloads(board, "about this").data
    files = dict(re.findall(r'download="([^"]+)" href="data:[^,]*,([^"]+)"', links))
    texts = {name: base64.b64decode(data).decode() for name, data in files.items()}
    csv = pd.read_csv(StringIO(texts["leaderboard.csv"]), float_precision="round_trip")
    assert csv["auc"].tolist() == board["auc"].tolist()
    whole = json.loads(texts["leaderboard.json"])
    assert len(whole["rows"]) == len(board)
    assert set(whole["rows"][0]) == set(whole["dictionary"]) == set(leaderboard.COLUMNS)
    assert whole["about"] == "about this"
    dictionary = pd.read_csv(StringIO(texts["dictionary.csv"]))
    assert list(dictionary["column"]) == list(csv.columns)


def test_a_submission_without_a_network_has_a_row_on_the_page():
    board = leaderboard.assemble([leaderboard.printed(), leaderboard.submitted("phantom")])
    own = board[board["kind"] == "submission"]
    assert own["parameters"].isna().all()
    cells = pages.summary(board)
    assert set(cells.loc[cells["kind"] == "submission", "M parameters"]) == {"–"}


def test_a_corrected_submission_takes_the_place_of_the_old_one(monkeypatch):
    (name, body), *_ = submissions.accepted().items()
    other = json.loads(json.dumps(body))
    other["results"][0]["scores"] = [0.5] * 10
    monkeypatch.setattr(submissions, "accepted", lambda: {name: body, "b.json": other})
    found = leaderboard.submitted("phantom")
    assert len(found) == len(body["results"])
    assert found["auc"].eq(0.5).sum() == 1
