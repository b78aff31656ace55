"""The runner on a small book of its own: keys, failures, killed kernels, Ctrl-C."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import pytest

import tumorbench_book as book


def write_notebook(path: Path, *cells: str) -> None:
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(c) for c in cells])
    notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3"}
    path.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(notebook, path)


@pytest.fixture
def root(tmp_path):
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
    return tmp_path


def test_chapters_follow_the_table_of_contents(root):
    assert book.chapters(root) == ["part/one"]


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
    before = book.chapter_key("part/one", root)
    (root / path).write_text(text)
    assert (book.chapter_key("part/one", root) != before) is changes


def test_key_changes_with_cells_edition_and_outside_data(root, monkeypatch, tmp_path_factory):
    keys = {book.chapter_key("part/one", root)}
    monkeypatch.setenv("TUMORBENCH_EDITION", "released")
    keys.add(book.chapter_key("part/one", root))
    outside = tmp_path_factory.mktemp("outside")
    monkeypatch.setenv("TUMORBENCH_DATA", str(outside))
    (outside / "released.csv").write_text("1")
    keys.add(book.chapter_key("part/one", root))
    (outside / "released.csv").write_text("22")
    keys.add(book.chapter_key("part/one", root))
    write_notebook(root / "notebooks/part/one.ipynb", "2 + 2")
    keys.add(book.chapter_key("part/one", root))
    assert len(keys) == 5


def test_a_run_chapter_is_not_stale_and_holds_its_record(root):
    write_notebook(root / "notebooks/part/one.ipynb", "print(6 * 7)")
    assert book.stale(["part/one"], root) == ["part/one"]
    (outcome,) = book.run(["part/one"], root=root)
    assert outcome.state == "done", outcome.message
    assert book.stale(["part/one"], root) == []
    executed = json.loads(book.executed_path("part/one", root).read_text())
    assert "42" in executed["cells"][0]["outputs"][0]["text"][0]
    assert executed["metadata"]["tumorbench"]["edition"] == "phantom"


def test_a_failed_chapter_names_file_cell_and_error_and_keeps_the_last_good_page(root):
    path = root / "notebooks/part/one.ipynb"
    write_notebook(path, "print('good')")
    book.run(["part/one"], root=root)
    good = book.executed_path("part/one", root).read_bytes()
    write_notebook(path, "x = 1", "raise ValueError('no lesion here')")
    (outcome,) = book.run(["part/one"], root=root)
    assert outcome.state == "failed"
    for part in ("notebooks/part/one.ipynb", "cell 1", "raise ValueError", "no lesion here"):
        assert part in outcome.message
    assert book.executed_path("part/one", root).read_bytes() == good
    assert (root / "_build/failed/part/one.ipynb").exists()
    assert not list((root / "_build").rglob("*.part.ipynb"))


def test_a_killed_kernel_is_a_failure_not_a_finished_page(root):
    write_notebook(
        root / "notebooks/part/one.ipynb", "import os, signal\nos.kill(os.getpid(), signal.SIGKILL)"
    )
    (outcome,) = book.run(["part/one"], root=root)
    assert outcome.state == "failed"
    assert "Kernel" in outcome.message
    assert not book.executed_path("part/one", root).exists()


def test_an_unknown_chapter_names_the_known_ones(root):
    with pytest.raises(KeyError, match=r"unknown chapter 'part/two'.*part/one"):
        book.make(["part/two"], root=root)


def test_make_raises_after_a_failure_and_builds_no_pages(root):
    write_notebook(root / "notebooks/part/one.ipynb", "1 / 0")
    with pytest.raises(book.BookError, match="ZeroDivisionError"):
        book.make(["part/one"], root=root)
    assert not (root / "_build/html").exists()


@pytest.mark.skipif(os.name == "nt", reason="sends a POSIX signal")
def test_ctrl_c_ends_kernels_and_leaves_nothing_half_written(root):
    marker = root / "kernel.pid"
    write_notebook(
        root / "notebooks/part/one.ipynb",
        f"import os, time\nopen({str(marker)!r}, 'w').write(str(os.getpid()))\ntime.sleep(120)",
    )
    # A shell that runs the tests in the background has its children ignore the signal.
    code = (
        "import signal, sys, pathlib; from tumorbench_utils import book;"
        "signal.signal(signal.SIGINT, signal.default_int_handler);"
        "book.run(['part/one'], root=pathlib.Path(sys.argv[1]))"
    )
    process = subprocess.Popen([sys.executable, "-c", code, str(root)], stderr=subprocess.PIPE)
    for _ in range(600):
        if marker.exists() and marker.read_text():
            break
        time.sleep(0.1)
    kernel = int(marker.read_text())
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode != 0
    assert b"KeyboardInterrupt" in err
    for _ in range(100):
        if not Path(f"/proc/{kernel}").exists():
            break
        time.sleep(0.1)
    with pytest.raises(ProcessLookupError):
        os.kill(kernel, 0)
    assert not list((root / "_build").rglob("*.ipynb"))
