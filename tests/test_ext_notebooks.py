"""Notebooks made from the chapters: without solutions, and with a cell that sets the book up."""

import importlib.util
import re
import sys
from pathlib import Path

import nbformat
import pytest
import yaml
from IPython.core.inputtransformer2 import TransformerManager

from tumorbench_book import keys
from tumorbench_book.site import notebooks

ROOT = Path(__file__).resolve().parents[1]
NAMES = keys.chapters(ROOT)


def chapter(name):
    return nbformat.read(ROOT / "notebooks" / f"{name}.ipynb", as_version=4)


def small(*cells):
    """A notebook of the cells; those that start with ``#`` or a fence are text."""
    made = [
        (nbformat.v4.new_markdown_cell if c.startswith(("#", "`")) else nbformat.v4.new_code_cell)(
            c
        )
        for c in cells
    ]
    return nbformat.v4.new_notebook(cells=made)


START, END = "```{solution-start} ex-a\n:class: dropdown\n```", "```{solution-end}\n```"


@pytest.mark.parametrize("name", NAMES)
def test_students_get_everything_but_the_solutions(name):
    source = chapter(name)
    made = notebooks.for_students(source)
    nbformat.validate(made)
    text = "\n".join(c.source for c in source.cells if c.cell_type == "markdown")
    shown = "\n".join(c.source for c in made.cells)
    exercises = len(re.findall(r"\{exercise\}", text))
    assert exercises
    assert shown.count("# Your solution") == shown.count("**Exercise.**") == exercises
    assert "{solution" not in shown
    # Code in front of the exercises is untouched, and the sections after them are there.
    code = [
        c.source for c in made.cells if c.cell_type == "code" and "Your solution" not in c.source
    ]
    whole = [c.source for c in source.cells if c.cell_type == "code"]
    assert code[1:] == [c for c in whole if c in code]
    assert 1 < len(code) <= len(whole)
    assert re.findall(r"^## .*", shown, re.M) == re.findall(r"^## .*", text, re.M)
    assert all(not c.outputs for c in made.cells if c.cell_type == "code")


def test_the_solution_goes_and_the_next_exercise_stays():
    source = small(
        "# Title", "# one\n\n```{exercise}\n:label: ex-a\nCount.\n```\n\n" + START, "secret = 42",
        END + "\n\n```{exercise}\n:label: ex-b\nCount again.\n```\n\n" + START, "secret = 43",
        END + "\n\n## After", "kept = 1",
    )  # fmt: skip
    made = notebooks.for_students(source)
    assert [c.source for c in made.cells if c.id != "set-up"] == [
        "# Title",
        "# one\n\n**Exercise.** Count.",
        "# Your solution",
        "**Exercise.** Count again.",
        "# Your solution",
        "## After",
        "kept = 1",
    ]
    assert "secret" in source.cells[2].source, "the chapter itself must not change"


@pytest.mark.parametrize("cells", [[START, "x"], [END], [START, "x", START, END]])
def test_solutions_that_do_not_pair_are_refused(cells):
    with pytest.raises(ValueError, match="solution"):
        notebooks.for_students(small("# Title", *cells))


class Shell:
    """Stands in for the kernel: writes down the commands that a cell gives."""

    def __init__(self):
        self.said = []

    def system(self, command):
        self.said.append(command)

    def run_line_magic(self, name, line, *rest):
        self.said.append(f"%{name} {line}")


def run_setup(monkeypatch, installed):
    shell = Shell()
    if not installed:
        monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(sys, "path", list(sys.path))
    code = TransformerManager().transform_cell(notebooks.setup_cell().source)
    exec(code, {"get_ipython": lambda: shell})
    return shell.said


def test_setup_cell_does_nothing_where_the_book_is_installed(monkeypatch):
    assert run_setup(monkeypatch, installed=True) == []


def test_setup_cell_fetches_and_installs_the_book_elsewhere(monkeypatch):
    said = run_setup(monkeypatch, installed=False)
    config = yaml.safe_load((ROOT / "_config.yml").read_text(encoding="utf-8"))
    url = config["repository"]["url"]
    assert said[0].endswith(f"git clone --quiet --depth 1 {url}".removeprefix("git "))
    assert said[1] == f"%pip install --quiet --editable ./{url.rsplit('/', 1)[1]}"


def test_files_are_written_for_every_chapter(tmp_path):
    written = notebooks.write(tmp_path, notebooks.for_launch)
    assert [p.relative_to(tmp_path).with_suffix("").as_posix() for p in written] == NAMES
    first = nbformat.read(written[0], as_version=4)
    assert first.cells[1].id == "set-up"


def test_boxes_and_roles_become_plain_markdown():
    text = (
        "# Title\n\n:::{admonition} Question\n:class: tip\nWhat is it,\nand why?\n:::\n"
        "See {doc}`../cohorts/luna16`, a {term}`seed <seed point>` {footcite:p}`pai2025`.\n"
        "Data: none. Run time of this page when it was built:\n{run-time}`measured`.\n"
    )
    assert notebooks.plain(text) == (
        "# Title\n\n> **Question.** What is it,\n> and why?\n"
        "See *luna16*, a seed [pai2025].\nData: none.\n"
    )


@pytest.mark.parametrize("name", NAMES)
def test_no_box_or_role_is_left_in_notebooks_to_launch(name):
    made = notebooks.for_launch(chapter(name))
    text = "\n".join(c.source for c in made.cells if c.cell_type == "markdown")
    outside = re.sub(r"^(`{3,}|:{3,})\{.*?^\1[ ]*$", "", text, flags=re.M | re.S)
    assert not re.findall(r"\{[a-z:-]+\}`", outside)
    assert "{admonition}" not in text
