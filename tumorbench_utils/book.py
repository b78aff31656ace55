"""Run the chapters with papermill, as few as needed, and build the pages from what they returned.

A chapter is run again when its key changes. The key covers its cells, the package modules that it
reaches through imports, the files under ``data/``, the fingerprint of ``TUMORBENCH_DATA``, the
edition and the versions of the libraries that compute. It is kept in the executed notebook, so
there is no second place that can get out of step.
"""

import ast
import functools
import hashlib
import importlib.metadata
import json
import os
import platform
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path

import nbformat
import yaml
from tqdm import tqdm

from tumorbench_utils import files, settings

#: Libraries whose version is part of every key.
COMPUTING = (
    "lifelines",
    "matplotlib",
    "monai",
    "numpy",
    "pandas",
    "scikit-learn",
    "scipy",
    "SimpleITK",
    "torch",
)

_PACKAGE = "tumorbench_utils"
_CODE = (
    "_config.yml",
    "_toc.yml",
    "CITATION.cff",
    "references.bib",
    "_ext",
    "_static",
    "notebooks",
    "index.md",
)


class BookError(RuntimeError):
    """A chapter failed, or the pages could not be built."""


@dataclass(frozen=True)
class Outcome:
    """What became of one chapter: its name, its state and how long it ran (seconds)."""

    name: str
    state: str
    seconds: float = 0.0
    message: str = ""


def chapters(root: Path = settings.BOOK_ROOT) -> list[str]:
    """Return the names (``PART/NAME``) of the chapter notebooks in the order of ``_toc.yml``."""
    toc = yaml.safe_load((root / "_toc.yml").read_text(encoding="utf-8"))
    pages = [entry["file"] for part in toc["parts"] for entry in part["chapters"]]
    notebooks = [page for page in pages if (root / f"{page}.ipynb").exists()]
    return [str(Path(page).relative_to("notebooks").as_posix()) for page in notebooks]


def _imports(source: str) -> set[str]:
    """Return the modules of the package that `source` names in import statements."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found.add(node.module)
            found.update(f"{node.module}.{alias.name}" for alias in node.names)
    return {name for name in found if name.split(".")[0] == _PACKAGE}


def _module_files(module: str, root: Path) -> list[Path]:
    """Return the files behind a dotted name: the module itself, or all files of a package."""
    base = root.joinpath(*module.split("."))
    if base.is_dir() and module != _PACKAGE:
        return sorted(base.rglob("*.py"))
    return [p for p in (base.with_suffix(".py"), base / "__init__.py") if p.exists()]


def reached(source: str, root: Path = settings.BOOK_ROOT) -> list[Path]:
    """Return every file of the package that `source` reaches through imports, sorted."""
    seen: set[Path] = set()
    todo = sorted(_imports(source))
    while todo:
        for path in _module_files(todo.pop(), root):
            if path not in seen:
                seen.add(path)
                todo.extend(_imports(path.read_text(encoding="utf-8")))
    return sorted(seen)


def _fingerprint(folder: Path | None) -> str:
    """Return a digest of the names, sizes and times of all files below a folder."""
    if folder is None:
        return "none"
    digest = hashlib.sha256()
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        stat = path.stat()
        digest.update(f"{path.relative_to(folder)} {stat.st_size} {stat.st_mtime_ns}\n".encode())
    return digest.hexdigest()


def _content(paths: Iterable[Path], root: Path) -> dict[str, str]:
    return {p.relative_to(root).as_posix(): files.sha256_file(p) for p in paths}


@functools.cache
def versions() -> dict[str, str]:
    """Return the versions of Python and of the libraries in :data:`COMPUTING`."""
    found = {name: importlib.metadata.version(name) for name in COMPUTING}
    return {"python": platform.python_version(), **found}


def chapter_key(name: str, root: Path = settings.BOOK_ROOT) -> str:
    """Return the key of a chapter: it changes when anything that the chapter computes from does.

    Parameters
    ----------
    name : str
        ``PART/NAME`` as in :func:`chapters`.
    root : Path
        Top level of the book.
    """
    notebook = nbformat.read(root / "notebooks" / f"{name}.ipynb", as_version=4)
    code = [cell.source for cell in notebook.cells if cell.cell_type == "code"]
    lines = "\n".join(code).split("\n")
    plain = "\n".join(line for line in lines if not line.lstrip().startswith(("%", "!")))
    data = [p for p in (root / "data").rglob("*") if p.is_file()]
    parts = {
        "cells": [[c.cell_type, c.source, c.metadata] for c in notebook.cells],
        "package": _content(reached(plain, root), root),
        "data": _content(sorted(data), root),
        "external": _fingerprint(settings.data_dir()),
        "edition": settings.edition(),
        "versions": versions(),
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def executed_path(name: str, root: Path = settings.BOOK_ROOT) -> Path:
    """Return where the executed copy of a chapter is kept."""
    return root / "_build" / "executed" / f"{name}.ipynb"


def _part_path(name: str, root: Path) -> Path:
    target = executed_path(name, root)
    return target.with_name(f"{target.stem}.part.ipynb")


def _record(path: Path) -> dict:
    """Return what the runner wrote into an executed notebook; empty if there is none."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))["metadata"].get("tumorbench", {})
    except (OSError, ValueError, KeyError):
        return {}


def stale(names: Iterable[str], root: Path = settings.BOOK_ROOT) -> list[str]:
    """Return the chapters whose executed copy is missing or was made under another key."""
    return [n for n in names if _record(executed_path(n, root)).get("key") != chapter_key(n, root)]


def _execute(name: str, root: Path) -> Outcome:
    """Run one chapter in this process; the executed copy appears only if all of it ran."""
    import papermill

    target, part = executed_path(name, root), _part_path(name, root)
    part.parent.mkdir(parents=True, exist_ok=True)
    key, start = chapter_key(name, root), time.perf_counter()
    try:
        papermill.execute_notebook(
            root / "notebooks" / f"{name}.ipynb",
            part,
            kernel_name="python3",
            cwd=part.parent,
            progress_bar=False,
            # ipykernel warns about unencrypted loopback sockets once per kernel otherwise.
            extra_arguments=["--log-level=ERROR"],
        )
        seconds = time.perf_counter() - start
        notebook = nbformat.read(part, as_version=4)
        notebook.metadata.pop("papermill", None)
        for cell in notebook.cells:
            cell.metadata.pop("papermill", None)
        notebook.metadata["tumorbench"] = {
            "key": key,
            "seconds": round(seconds, 1),
            "edition": settings.edition(),
            "versions": versions(),
        }
        with files.atomic_path(target) as whole:
            nbformat.write(notebook, whole)
        return Outcome(name, "done", seconds)
    # Whatever goes wrong (an error in a cell, a killed kernel, no disk space) must not leave a
    # file that looks finished, and papermill's own file does look finished after a killed kernel.
    except Exception as error:
        return Outcome(
            name, "failed", time.perf_counter() - start, _explain(name, part, error, root)
        )
    finally:
        part.unlink(missing_ok=True)


def _explain(name: str, part: Path, error: Exception, root: Path) -> str:
    """Keep the failed copy and say which file and cell failed, with what, and where the copy is."""
    where, what = "", f"{type(error).__name__}: {error}"
    if hasattr(error, "cell_index"):
        what = f"{error.ename}: {error.evalue}"
        first = error.source.strip().split("\n")[0]
        where = f", cell {error.cell_index} (`{first}`)"
    message = f"notebooks/{name}.ipynb{where}: {what.strip()}"
    if part.exists():
        kept = root / "_build" / "failed" / f"{name}.ipynb"
        kept.parent.mkdir(parents=True, exist_ok=True)
        os.replace(part, kept)
        message += f"\n    failed copy: {kept.relative_to(root).as_posix()}"
    return message


class _Workers:
    """Chapters in processes of their own, so that a crash or Ctrl-C takes nothing else along."""

    def __init__(self, root: Path):
        self.root = root
        self.running: dict[str, subprocess.Popen] = {}
        self.stopped = threading.Event()

    def run(self, name: str) -> Outcome:
        if self.stopped.is_set():
            return Outcome(name, "stopped")
        command = [sys.executable, "-m", "tumorbench_utils.book", name, str(self.root)]
        threads = str(max(1, (os.cpu_count() or 1) // 2))
        process = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
            env={"OMP_NUM_THREADS": threads, "TUMORBENCH_QUIET": "1", **os.environ},
        )
        self.running[name] = process
        out, err = process.communicate()
        self.running.pop(name)
        # A worker that was killed had no time to remove its part.
        _part_path(name, self.root).unlink(missing_ok=True)
        try:
            return Outcome(**json.loads(out.strip().split("\n")[-1]))
        except ValueError:
            last = (err.strip().split("\n") or [""])[-1]
            text = (
                f"notebooks/{name}.ipynb: the process that ran it ended with {process.returncode}"
            )
            return Outcome(name, "failed", message=f"{text} {last}".strip())

    def stop(self) -> None:
        self.stopped.set()
        for process in list(self.running.values()):
            process.terminate()


def run(names: list[str], *, workers: int = 2, root: Path = settings.BOOK_ROOT) -> list[Outcome]:
    """Run chapters side by side and return what became of each.

    Parameters
    ----------
    names : list of str
        Chapters to run.
    workers : int
        How many run at once.
    root : Path
        Top level of the book.

    Raises
    ------
    KeyboardInterrupt
        After Ctrl-C, once all running chapters were ended and their parts removed.
    """
    pool, outcomes = _Workers(root), []
    bar = tqdm(total=len(names), desc="chapters", unit="chapter", disable=not names)
    with bar, ThreadPoolExecutor(workers) as threads:
        futures = [threads.submit(pool.run, name) for name in names]
        ticking = threading.Event()

        def tick() -> None:
            while not ticking.wait(0.5):
                bar.set_postfix_str(", ".join(sorted(pool.running)))

        ticker = threading.Thread(target=tick, daemon=True)
        # In a log file every update would be a line of its own.
        if not sys.stderr.isatty():
            ticking.set()
        ticker.start()
        try:
            for future in as_completed(futures):
                outcomes.append(future.result())
                bar.update()
                if outcomes[-1].state == "failed":
                    bar.write(f"FAILED {outcomes[-1].message}", file=sys.stderr)
        except KeyboardInterrupt:
            pool.stop()
            raise
        finally:
            ticking.set()
            ticker.join()
    return outcomes


def prepare() -> None:
    """Make the phantom scans and the embeddings of all chapters, each with its progress bar."""
    from tumorbench_utils import cohorts, embeddings, models

    if settings.edition() != "phantom":
        return
    store = embeddings.default_store("phantom")
    for name in cohorts.COHORTS:
        report = embeddings.embed(cohorts.load_cohort(name), list(models.MODELS), store)
        if report.failed:
            raise BookError(f"{name} could not be embedded whole.\n{report}")


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
    key = json.dumps([_content(sources, stage), settings.edition()], sort_keys=True)
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


def make(
    names: list[str] | None = None,
    *,
    workers: int = 2,
    force: bool = False,
    root: Path = settings.BOOK_ROOT,
) -> Path | None:
    """Run what has changed and build the pages.

    Parameters
    ----------
    names : list of str, optional
        Chapters to look at; all if None.
    workers : int
        How many chapters run at once.
    force : bool
        Run the chapters even if nothing changed.
    root : Path
        Top level of the book.

    Returns
    -------
    Path or None
        ``index.html``; None if only some chapters were asked for and others never ran.

    Raises
    ------
    KeyError
        If a chapter is not in ``_toc.yml``.
    BookError
        If a chapter failed; the pages stay as they were.
    """
    known = chapters(root)
    for name in names or []:
        if name not in known:
            raise KeyError(settings.unknown("chapter", name, known))
    todo = list(names or known) if force else stale(names or known, root)
    if todo and names is None:
        prepare()
    failed = [o for o in run(todo, workers=workers, root=root) if o.state != "done"]
    if failed:
        text = "\n".join(f"  {o.message or o.name}" for o in failed)
        raise BookError(f"{len(failed)} of {len(todo)} chapters failed; pages unchanged:\n{text}")
    if not all(executed_path(name, root).exists() for name in known):
        return None
    return build_html(root)


if __name__ == "__main__":
    print(json.dumps(_execute(sys.argv[1], Path(sys.argv[2])).__dict__))
