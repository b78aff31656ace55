"""Every chapter follows the page template of CONTRIBUTING.md."""

import re
from pathlib import Path

import nbformat
import numpy as np
import pytest

from tumorbench_book import keys
from tumorbench_utils.models import MODELS

ROOT = Path(__file__).resolve().parents[1]
PAGES = ["template", *keys.chapters(ROOT)]
HEADINGS = [
    "What you will learn",
    "Prerequisites",
    "Setup",
    "Exercises",
    "Take-aways",
    "Limits",
    "References",
]


def read(page: str) -> nbformat.NotebookNode:
    return nbformat.read(ROOT / "notebooks" / f"{page}.ipynb", as_version=4)


def code_cells(page: str) -> list:
    return [cell for cell in read(page).cells if cell.cell_type == "code"]


def tags(cell) -> list[str]:
    return cell.metadata.get("tags", [])


def length(cell) -> int:
    return sum(bool(line.strip()) for line in cell.source.split("\n"))


def is_shown(cell) -> bool:
    return not {"hide-input", "remove-input", "hide-cell", "remove-cell"} & set(tags(cell))


def test_every_notebook_is_in_the_table_of_contents():
    found = {
        p.relative_to(ROOT / "notebooks").as_posix() for p in ROOT.glob("notebooks/**/*.ipynb")
    }
    # Those in reports/ are run with parameters by the command line and are no chapters.
    found = {n for n in found if ".ipynb_checkpoints" not in n and not n.startswith("reports/")}
    assert found == {f"{page}.ipynb" for page in PAGES}


@pytest.mark.parametrize("page", PAGES)
def test_one_parameters_cell_that_holds_the_edition(page):
    cells = [cell for cell in code_cells(page) if "parameters" in tags(cell)]
    assert len(cells) == 1
    assert re.search(r"^edition = None\b", cells[0].source, re.M)


@pytest.mark.parametrize("page", PAGES)
def test_parts_of_the_page_stand_in_order(page):
    cells = read(page).cells
    text = "\n".join(c.source for c in cells if c.cell_type == "markdown")
    assert re.match(r"# \S", cells[0].source)
    assert "{admonition} Question" in cells[0].source
    assert "{run-time}" in text
    assert "{footbibliography}" in cells[-1].source
    found = [h for h in re.findall(r"^## (.+?)\s*$", text, re.M) if h in HEADINGS]
    assert found == HEADINGS


@pytest.mark.parametrize("page", PAGES)
def test_every_exercise_has_an_executed_solution(page):
    cells = read(page).cells
    text = "\n".join(c.source for c in cells if c.cell_type == "markdown")
    exercises = re.findall(r"\{exercise\}.*?:label: (\S+)", text, re.S)
    assert exercises
    assert re.findall(r"\{solution-start\} (\S+)", text) == exercises
    assert text.count("{solution-end}") == len(exercises)
    for first, last in zip(
        (i for i, c in enumerate(cells) if "{solution-start}" in c.source),
        (i for i, c in enumerate(cells) if "{solution-end}" in c.source),
        strict=True,
    ):
        assert any(c.cell_type == "code" for c in cells[first:last])


@pytest.mark.parametrize("page", PAGES)
def test_figures_have_names_captions_alt_texts_and_labels(page):
    for cell in code_cells(page):
        if "remove-cell" in tags(cell) or not re.search(r"plt\.(subplots|figure)\(", cell.source):
            continue
        assert "plots.stamp(" in cell.source, f"no edition label:\n{cell.source}"
        shown = cell.metadata.get("mystnb", {})
        assert shown.get("figure", {}).get("name"), f"no figure name:\n{cell.source}"
        assert shown.get("figure", {}).get("caption"), f"no caption:\n{cell.source}"
        assert shown.get("image", {}).get("alt"), f"no alt text:\n{cell.source}"


def test_names_of_figures_and_exercises_are_unique():
    text = "\n".join(c.source for page in PAGES for c in read(page).cells)
    labels = re.findall(r"^:label: (\S+)", text, re.M)
    shown = [c.metadata.get("mystnb", {}) for page in PAGES for c in code_cells(page)]
    labels += [s["figure"]["name"] for s in shown if "figure" in s]
    assert len(labels) == len(set(labels)), sorted({x for x in labels if labels.count(x) > 1})


#: Chapters on a method, and the field's own words that stand in their visible cells.
LIBRARY = {
    "cohorts/leakage": "GroupShuffleSplit train_test_split",
    "embeddings/at_scale": "Client",
    "embeddings/store": "read_parquet",
    "endpoints/does_it_beat_a_ruler": "roc_auc_score",
    "endpoints/ensembles": "KNeighborsClassifier StackingClassifier roc_auc_score",
    "endpoints/knn_probing": "KNeighborsClassifier roc_auc_score",
    "endpoints/linear_and_few_shot": "LogisticRegression make_pipeline cross_validate GroupKFold",
    "endpoints/reanalysis": "friedmanchisquare",
    "foundations/from_scan_to_patch": "SimpleITK ReadImage ResampleImageFilter",
    "foundations/imaging_biomarkers": "roc_auc_score",
    "foundations/phantoms": "KaplanMeierFitter roc_auc_score SimpleITK",
    "similarity/similarity": "pairwise_distances NearestNeighbors",
    "survival/does_an_embedding_add": "CoxPHFitter logrank_test concordance_index",
    "survival/survival_across_cohorts": "KaplanMeierFitter CoxPHFitter concordance_index",
    "survival/survival_basics": "KaplanMeierFitter CoxPHFitter logrank_test concordance_index",
    "synthesis/submissions": "Draft202012Validator",
    "trust/controls": "roc_auc_score",
    "trust/saliency": "captum Occlusion",
    "trust/test_retest": "pairwise_distances",
    "trust/where_was_it_clicked": "roc_auc_score",
    **dict.fromkeys((f"models/{key}" for key in MODELS), "load_file load_state_dict"),
}


@pytest.mark.parametrize("page", LIBRARY)
def test_the_library_stands_in_visible_cells(page):
    shown = "\n".join(cell.source for cell in code_cells(page) if is_shown(cell))
    missing = [name for name in LIBRARY[page].split() if not re.search(rf"\b{name}\b", shown)]
    assert not missing


def test_cells_are_short():
    lengths = {page: [length(c) for c in code_cells(page) if is_shown(c)] for page in PAGES}
    everything = np.concatenate(list(lengths.values()))
    assert np.median(everything) <= 5
    assert np.quantile(everything, 0.9) <= 15
    too_long = {page: max(n) for page, n in lengths.items() if max(n) > 20}
    assert not too_long, f"shown cells of more than 20 lines: {too_long}"
