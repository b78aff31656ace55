"""The pages, built from the executed chapters."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

from tumorbench_book.keys import chapters, content, executed_path
from tumorbench_utils import settings

_CODE = (
    "_config.yml",
    "_toc.yml",
    "CITATION.cff",
    "references.bib",
    "_static",
    "notebooks",
    "index.md",
)


class BookError(RuntimeError):
    """A chapter failed, or the pages could not be built."""


def _stage(root: Path) -> Path:
    """Lay out the sources of the pages: the book's files with the executed notebooks in place."""
    stage = root / "_build" / "source"
    shutil.rmtree(stage, ignore_errors=True)
    stage.mkdir(parents=True)
    for name in _CODE:
        source = root / name
        if source.is_dir():
            skip = shutil.ignore_patterns("*.ipynb", ".ipynb_checkpoints", "__pycache__")
            shutil.copytree(source, stage / name, ignore=skip)
        elif source.exists():
            shutil.copy2(source, stage / name)
    for name in chapters(root):
        target = stage / "notebooks" / f"{name}.ipynb"
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(executed_path(name, root), target)
    return stage


def build_html(root: Path = settings.BOOK_ROOT) -> Path:
    """Build the pages from the executed chapters and return the path of ``index.html``.

    The old pages stay until the new ones are whole. Warnings of Sphinx are errors.

    Raises
    ------
    BookError
        If Sphinx found anything wrong; the message holds what it said.
    """
    stage = _stage(root)
    html, key_file = root / "_build" / "html", root / "_build" / "html.key"
    sources = sorted(p for p in stage.rglob("*") if p.is_file())
    key = json.dumps([content(sources, stage), settings.edition()], sort_keys=True)
    key = hashlib.sha256(key.encode()).hexdigest()
    index = html / "index.html"
    if index.exists() and key_file.exists() and key_file.read_text() == key:
        return index
    output = root / "_build" / "stage"
    start = "from jupyter_book.cli.main import main; main()"
    command = [sys.executable, "-c", start, "build", str(stage), "--path-output", str(output)]
    command += ["--all", "-W", "-n", "--keep-going", "-q"]
    result = subprocess.run(command, capture_output=True, text=True)
    if result.returncode:
        said = (result.stdout + result.stderr).strip()
        raise BookError(f"the pages were not built; the old ones stay. Sphinx said:\n{said}")
    key_file.unlink(missing_ok=True)
    shutil.rmtree(html, ignore_errors=True)
    os.replace(output / "_build" / "html", html)
    key_file.write_text(key)
    return index
