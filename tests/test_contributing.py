"""The steps of CONTRIBUTING.md, followed on a copy of the repository.

Blocks of code are taken from the text itself: ``file=PATH`` writes a file, ``append=PATH`` adds to
one, and bash and python blocks are run. What is missing from the steps is missing here.
"""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import numpy as np
import pytest
import SimpleITK as sitk

ROOT = Path(__file__).resolve().parents[1]
TEXT = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
COPIED = ("tumorbench_utils", "tumorbench_phantoms", "tumorbench_training", "tumorbench_book")
COPIED += (
    "notebooks",
    "data",
    "tests",
    "_static",
    "_toc.yml",
    "_config.yml",
    "CITATION.cff",
    "Makefile",
    "pyproject.toml",
    "constraints.txt",
)

pytestmark = pytest.mark.skipif(
    os.name == "nt" or not (shutil.which("bash") and shutil.which("make")),
    reason="needs bash and make",
)


def section(title):
    """The text below a heading, up to the next of its level."""
    found = re.search(rf"^## {title}\n(.*?)(?=^## |\Z)", TEXT, re.M | re.S)
    assert found, f"no section {title!r}"
    return found.group(1)


def blocks(title):
    """Language, option (``file=...``) and content of every block of code."""
    found = re.findall(r"^```(\w+)(?: (\S+))?\n(.*?)^```", section(title), re.M | re.S)
    assert found
    return found


@pytest.fixture(scope="module")
def copy(tmp_path_factory):
    """A copy of the repository whose environment is the running one, with two small scans."""
    folder = tmp_path_factory.mktemp("contributor") / "book"
    skip = shutil.ignore_patterns("__pycache__", ".ipynb_checkpoints")
    for name in COPIED:
        source, target = ROOT / name, folder / name
        if source.is_dir():
            shutil.copytree(source, target, ignore=skip)
        else:
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, target)
    scripts = folder / ".venv" / "bin"
    scripts.mkdir(parents=True)
    call = "import sys; from tumorbench_book.cli import app; sys.argv[0] = 'tumorbench'; app()"
    for name, command in (
        ("tumorbench", f'"{sys.executable}" -c "{call}"'),
        ("python", f'"{sys.executable}"'),
    ):
        (scripts / name).write_text(f'#!/bin/sh\nexec {command} "$@"\n')
        (scripts / name).chmod(0o755)
    (folder / ".venv" / ".ready").touch()
    (folder / "mine").mkdir()
    rng = np.random.default_rng(0)
    for name in ("a", "b"):
        voxels = rng.normal(-700, 150, (12, 12, 12)).astype(np.int16)
        sitk.WriteImage(sitk.GetImageFromArray(voxels), str(folder / "mine" / f"{name}.nii.gz"))
    return folder


@pytest.fixture
def call(copy, tmp_path):
    """Run a command in the copy; fail with what it said."""
    path = f"{copy / '.venv' / 'bin'}{os.pathsep}{os.environ['PATH']}"
    set_ = {"PATH": path, "PYTHONPATH": str(copy), "TUMORBENCH_CACHE": str(tmp_path / "cache")}
    env = {**os.environ, **set_, "OMP_NUM_THREADS": "1"}
    env.pop("TUMORBENCH_DATA", None)

    def run(*command):
        done = subprocess.run(command, cwd=copy, env=env, capture_output=True, text=True)
        assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    return run


def follow(title, copy, call, before_bash=lambda: None):
    """Do what a section says, block by block; return what the python blocks printed."""
    said = []
    for language, option, content in blocks(title):
        what, _, path = option.partition("=")
        if what == "file":
            (copy / path).write_text(content)
        elif what == "append":
            with open(copy / path, "a") as file:
                file.write(content)
        elif language == "python":
            said.append(call(sys.executable, "-c", content))
        elif language == "bash":
            before_bash()
            call("bash", "-euc", content)
    return said


def test_a_model_is_tried_and_added(copy, call):
    tried, own = follow("Adding a model", copy, call)
    assert tried.split() == ["3"]
    assert re.fullmatch(r"2 torch.Size\(\[3, 8\]\)\s*", own)


def test_a_cohort_is_described_and_read(copy, call):
    (said,) = follow("Adding a cohort", copy, call)
    assert re.search(r"n4\s+b\s+1\s+9", said)
    command = re.search(r"`(tumorbench check-cohort \S+)`", section("Adding a cohort"))[1]
    assert "4 lesions, 2 scans, 2 patients; 0 faults" in call(*command.split())


def test_a_chapter_is_copied_run_and_checked(copy, call):
    """The copied chapter reads the small cohort: the phantoms of the template take minutes."""
    follow("Adding a cohort", copy, call)
    page = copy / "notebooks" / "mine" / "first.ipynb"
    own = (
        "from tumorbench_utils import cohorts\n\n"
        f"cohorts.register(*cohorts.describe({str(copy / 'mine' / 'cohort.yml')!r}))\n"
        'cohort = load_cohort("my_cohort", edition)'
    )

    def use_small_cohort():
        if page.exists():
            notebook = nbformat.read(page, as_version=4)
            for cell in notebook.cells:
                cell.source = cell.source.replace('cohort = load_cohort("luna16", edition)', own)
            nbformat.write(notebook, page)

    follow("Adding a chapter", copy, call, use_small_cohort)
    assert "my_cohort" in page.read_text()
    executed = copy / "_build" / "executed" / "mine" / "first.ipynb"
    cells = nbformat.read(executed, as_version=4).cells
    assert any("The table holds 4 lesions" in str(c.get("outputs")) for c in cells)
    pytest_ = (sys.executable, "-m", "pytest", "-p", "no:cacheprovider")
    said = call(*pytest_, "tests/test_notebooks.py", "-k", "mine/first or unique")
    assert "[100%]" in said


def test_every_path_in_the_text_exists():
    named = re.findall(r"`((?:notebooks|tumorbench_\w+|data|tests|_static)/[\w./]+)`", TEXT)
    assert named
    for path in set(named):
        assert (ROOT / path).exists(), path


def test_make_targets_in_the_text_exist():
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text("utf-8"), re.M))
    assert set(re.findall(r"`make ([a-z]+)", TEXT)) <= targets
