"""The runner on a small book of its own: keys, failures, killed kernels, Ctrl-C."""

import json
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import nbformat
import pytest
from typer.testing import CliRunner

from tumorbench_book import build, keys, runner
from tumorbench_book.cli import cli
from tumorbench_utils import digests


def write_notebook(path: Path, *cells: str) -> None:
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(c) for c in cells])
    spec = {"name": "python3", "display_name": "Python 3", "language": "python"}
    notebook.metadata["kernelspec"] = spec
    path.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(notebook, path)


@pytest.fixture
def root(tmp_path, monkeypatch):
    """A book of one chapter, with a package in which ``tool`` is used and ``other`` is not."""
    write_notebook(
        tmp_path / "notebooks/part/one.ipynb", "from tumorbench_utils import tool", "1 + 1"
    )
    package = tmp_path / "tumorbench_utils"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "tool.py").write_text("import tumorbench_utils.deep")
    (package / "deep.py").write_text("x = 1")
    (package / "other.py").write_text("x = 1")
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "table.csv").write_text("a\n1\n")
    (tmp_path / "_toc.yml").write_text(
        "format: jb-book\nroot: index\nparts:\n- caption: Part\n  chapters:\n"
        "  - file: notebooks/part/one\n"
    )
    monkeypatch.setattr(digests, "_root", lambda name: tmp_path / name)
    return tmp_path


def test_chapters_follow_the_table_of_contents(root):
    assert keys.chapters(root) == ["part/one"]


@pytest.mark.parametrize(
    ("path", "text", "changes"),
    [
        ("tumorbench_utils/deep.py", "x = 2", True),
        ("tumorbench_utils/other.py", "x = 2", False),
        ("data/table.csv", "a\n2\n", True),
        ("README.md", "words", False),
    ],
)
def test_key_changes_with_what_the_chapter_reaches_and_nothing_else(root, path, text, changes):
    before = keys.chapter_key("part/one", root)
    (root / path).write_text(text)
    assert (keys.chapter_key("part/one", root) != before) is changes


def test_key_changes_with_cells_edition_and_outside_data(root, monkeypatch, tmp_path_factory):
    seen = {keys.chapter_key("part/one", root)}
    monkeypatch.setenv("TUMORBENCH_EDITION", "released")
    seen.add(keys.chapter_key("part/one", root))
    outside = tmp_path_factory.mktemp("outside")
    monkeypatch.setenv("TUMORBENCH_DATA", str(outside))
    (outside / "released.csv").write_text("1")
    seen.add(keys.chapter_key("part/one", root))
    (outside / "released.csv").write_text("22")
    seen.add(keys.chapter_key("part/one", root))
    write_notebook(root / "notebooks/part/one.ipynb", "2 + 2")
    seen.add(keys.chapter_key("part/one", root))
    assert len(seen) == 5


def test_a_run_chapter_is_not_stale_and_holds_its_record(root):
    write_notebook(root / "notebooks/part/one.ipynb", "print(6 * 7)")
    assert keys.stale(["part/one"], root) == ["part/one"]
    (outcome,) = runner.run(["part/one"], root=root)
    assert outcome.state == "done", outcome.message
    assert keys.stale(["part/one"], root) == []
    executed = json.loads(keys.executed_path("part/one", root).read_text())
    assert "42" in executed["cells"][0]["outputs"][0]["text"][0]
    assert executed["metadata"]["tumorbench"]["edition"] == "phantom"


def test_a_failed_chapter_names_file_cell_and_error_and_keeps_the_last_good_page(root):
    path = root / "notebooks/part/one.ipynb"
    write_notebook(path, "print('good')")
    runner.run(["part/one"], root=root)
    good = keys.executed_path("part/one", root).read_bytes()
    write_notebook(path, "x = 1", "raise ValueError('no lesion here')")
    (outcome,) = runner.run(["part/one"], root=root)
    assert outcome.state == "failed"
    for part in ("notebooks/part/one.ipynb", "cell 1", "raise ValueError", "no lesion here"):
        assert part in outcome.message
    assert keys.executed_path("part/one", root).read_bytes() == good
    assert (root / "_build/failed/part/one.ipynb").exists()
    assert not list((root / "_build").rglob("*.part.ipynb"))


def test_a_killed_kernel_is_a_failure_not_a_finished_page(root):
    write_notebook(
        root / "notebooks/part/one.ipynb", "import os, signal\nos.kill(os.getpid(), signal.SIGKILL)"
    )
    (outcome,) = runner.run(["part/one"], root=root)
    assert outcome.state == "failed"
    assert "Kernel" in outcome.message
    assert not keys.executed_path("part/one", root).exists()


def test_an_unknown_chapter_names_the_known_ones(root):
    with pytest.raises(KeyError, match=r"unknown chapter 'part/two'.*part/one"):
        build.make(["part/two"], root=root)


def test_make_raises_after_a_failure_and_builds_no_pages(root):
    write_notebook(root / "notebooks/part/one.ipynb", "1 / 0")
    with pytest.raises(build.BookError, match="ZeroDivisionError"):
        build.make(["part/one"], root=root)
    assert not (root / "_build/html").exists()


def test_a_chapter_that_runs_a_report_depends_on_its_notebook(root):
    write_notebook(root / "notebooks/part/one.ipynb", "from tumorbench_book.reports import run")
    write_notebook(root / "notebooks/reports/check.ipynb", "from tumorbench_utils import tool")
    seen = {keys.chapter_key("part/one", root)}
    (root / "tumorbench_utils/tool.py").write_text("y = 3")
    seen.add(keys.chapter_key("part/one", root))
    write_notebook(root / "notebooks/reports/check.ipynb", "1")
    seen.add(keys.chapter_key("part/one", root))
    assert len(seen) == 3
    assert keys.chapters(root) == ["part/one"]


def test_the_copy_of_a_failure_goes_when_the_chapter_succeeds(root):
    write_notebook(root / "notebooks/part/one.ipynb", "1 / 0")
    assert runner.execute("part/one", root).state == "failed"
    assert (root / "_build/failed/part/one.ipynb").exists()
    write_notebook(root / "notebooks/part/one.ipynb", "1 / 1")
    assert runner.execute("part/one", root).state == "done"
    assert not (root / "_build/failed/part/one.ipynb").exists()


def test_a_run_of_an_older_chapter_does_not_replace_the_newer_copy(root, monkeypatch):
    write_notebook(root / "notebooks/part/one.ipynb", "'old'")
    run = runner.run_notebook

    def slow(source, target):
        """While the first run is under way, the chapter is changed and run again."""
        made = run(source, target)
        monkeypatch.setattr(runner, "run_notebook", run)
        write_notebook(source, "'new'")
        runner.execute("part/one", root)
        return made

    monkeypatch.setattr(runner, "run_notebook", slow)
    runner.execute("part/one", root)
    assert "'new'" in keys.executed_path("part/one", root).read_text()
    assert keys.stale(["part/one"], root) == []


@pytest.mark.parametrize("module", ["nbformat", "papermill", "tqdm"])
def test_no_code_of_the_working_folder_runs(root, tmp_path_factory, monkeypatch, module):
    folder = tmp_path_factory.mktemp("stranger")
    (folder / f"{module}.py").write_text("open('ran', 'w'); raise SystemExit(7)")
    monkeypatch.chdir(folder)
    write_notebook(root / "notebooks/part/one.ipynb", "1")
    (outcome,) = runner.run(["part/one"], root=root)
    assert outcome.state == "done", outcome.message
    assert not (folder / "ran").exists()


def test_other_parameters_leave_the_executed_copy_and_unknown_ones_are_refused(root):
    path = root / "notebooks/part/one.ipynb"
    write_notebook(path, "cohort_name = 'luna16'", "print(cohort_name)")
    notebook = nbformat.read(path, as_version=4)
    notebook.cells[0].metadata["tags"] = ["parameters"]
    nbformat.write(notebook, path)
    made = build.try_out("part/one", {"cohort_name": "dlcs"}, root)
    assert "dlcs" in nbformat.read(made, as_version=4).cells[-1].outputs[0].text
    assert not keys.executed_path("part/one", root).exists()
    with pytest.raises(KeyError, match="unknown parameter 'cohort': did you mean cohort_name"):
        build.try_out("part/one", {"cohort": "dlcs"}, root)
    words = ["book", "--chapter", "foundations/phantoms", "-p", "cohort_name=dlcs"]
    assert "unknown parameter" in str(CliRunner().invoke(cli, words).exception)


# ------------------------------------------------------------------------------------- the pages


@pytest.fixture
def sphinx(root, monkeypatch):
    """A book whose chapter ran, and a stand-in for Sphinx that takes half a second."""
    write_notebook(root / "notebooks/part/one.ipynb", "1")
    runner.execute("part/one", root)
    calls = []

    class Process:
        returncode = 0

        def __init__(self, *arguments):
            self.out = Path(arguments[arguments.index("--path-output") + 1], "_build", "html")
            calls.append(self.out)

        def communicate(self):
            self.out.mkdir(parents=True)
            time.sleep(0.5)
            (self.out / "index.html").write_text(f"{len(calls)}")
            return "", ""

    monkeypatch.setattr(build, "start", Process)
    return calls


def test_two_builds_at_once_leave_the_pages_and_say_who_waits(root, sphinx, capsys):
    with ThreadPoolExecutor(2) as pool:
        found = list(pool.map(lambda _: build.build_html(root), range(2)))
    assert found[0] == found[1] and found[0].read_text() == "1"
    assert len(sphinx) == 1
    assert f"waiting for process {os.getpid()}" in capsys.readouterr().err


def test_pages_are_built_anew_when_a_source_changes_and_replace_the_old_ones(root, sphinx):
    index = build.build_html(root)
    (index.parent / "gone.html").write_text("of the old pages")
    (root / "index.md").write_text("# New")
    assert build.build_html(root).read_text() == "2"
    assert not (index.parent / "gone.html").exists()
    assert not list((root / "_build").glob("html.*old"))


def test_pages_are_not_built_from_chapters_that_have_changed(root, sphinx):
    index = build.build_html(root)
    write_notebook(root / "notebooks/part/one.ipynb", "2")
    with pytest.raises(build.BookError, match=r"changed while.*part/one"):
        build.build_html(root)
    assert index.read_text() == "1"


# ------------------------------------------------------------------------------------------ ends


@pytest.mark.skipif(os.name == "nt", reason="sends a POSIX signal")
@pytest.mark.parametrize("signal_", ["SIGINT", "SIGTERM", "SIGHUP", "SIGKILL"])
def test_whatever_ends_the_run_ends_its_kernels_and_leaves_nothing_half_written(root, signal_):
    marker = root / "kernel.pid"
    write_notebook(
        root / "notebooks/part/one.ipynb",
        f"import os, time\nopen({str(marker)!r}, 'w').write(str(os.getpid()))\ntime.sleep(120)",
    )
    # A shell that runs the tests in the background has its children ignore the signal.
    code = (
        "import signal, sys, pathlib; from tumorbench_book import runner;"
        "[signal.signal(s, signal.default_int_handler) for s in (signal.SIGINT, signal.SIGTERM)];"
        "runner.run(['part/one'], root=pathlib.Path(sys.argv[1]))"
    )
    process = subprocess.Popen([sys.executable, "-c", code, str(root)], stderr=subprocess.PIPE)
    for _ in range(600):
        if marker.exists() and marker.read_text():
            break
        time.sleep(0.1)
    kernel = int(marker.read_text())
    process.send_signal(getattr(signal, signal_))
    _, err = process.communicate(timeout=60)
    assert process.returncode != 0
    assert (b"KeyboardInterrupt" in err) is (signal_ in ("SIGINT", "SIGTERM"))

    def runs() -> bool:
        try:
            os.kill(kernel, 0)
        except ProcessLookupError:
            return False
        return True

    for _ in range(100):
        left = list((root / "_build").rglob("*.ipynb"))
        if not runs() and not left:
            break
        time.sleep(0.1)
    assert not runs() and not left
