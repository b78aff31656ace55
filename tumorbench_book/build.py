"""What ``make book`` calls: data, chapters, pages."""

import os
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path

import nbformat
from filelock import FileLock, Timeout

from tumorbench_book.keys import chapters, content, executed_path, stale
from tumorbench_book.runner import explain, run, run_notebook, start
from tumorbench_utils import digests, files, settings

_SOURCES = (
    *("_config.yml", "_toc.yml", "_static", "notebooks", "index.md"),
    *("CITATION.cff", "references.bib"),
)


class BookError(RuntimeError):
    """A chapter failed, or the pages could not be built."""


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
        ``index.html``; None if only some chapters were asked for and others have to run first.

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
    if names is not None and stale(known, root):
        return None
    return build_html(root)


def try_out(name: str, parameters: Mapping, root: Path = settings.BOOK_ROOT) -> Path:
    """Run one chapter with other parameters and return where it lies; the pages stay as they are.

    Parameters
    ----------
    name : str
        ``PART/NAME``.
    parameters : mapping
        In place of values in the cell tagged ``parameters``.
    root : Path
        Top level of the book.

    Raises
    ------
    KeyError
        If the chapter or one of the parameters is not known.
    BookError
        If a cell fails.
    """
    if name not in (known := chapters(root)):
        raise KeyError(settings.unknown("chapter", name, known))
    from papermill import PapermillExecutionError

    target = root / "_build" / "parameters" / f"{name}.ipynb"
    try:
        with files.atomic_path(target) as part:
            source = root / "notebooks" / f"{name}.ipynb"
            nbformat.write(run_notebook(source, part, parameters, progress_bar=True), part)
    except PapermillExecutionError as error:
        raise BookError(f"notebooks/{name}.ipynb{explain(error)}") from None
    return target


def _stage(root: Path, stage: Path) -> None:
    """Lay out the sources of the pages: the book's files with the executed notebooks in place."""
    shutil.rmtree(stage, ignore_errors=True)
    stage.mkdir(parents=True)
    if late := stale(chapters(root), root):
        raise BookError(f"changed while the book was made: {', '.join(late)}; call it again")
    skip = shutil.ignore_patterns("*.ipynb", ".ipynb_checkpoints", "__pycache__")
    for source in (root / name for name in _SOURCES):
        if source.is_dir():
            shutil.copytree(source, stage / source.name, ignore=skip)
        elif source.exists():
            shutil.copy2(source, stage / source.name)
    for name in chapters(root):
        target = stage / "notebooks" / f"{name}.ipynb"
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(executed_path(name, root), target)


def build_html(root: Path = settings.BOOK_ROOT) -> Path:
    """Build the pages from the executed chapters and return the path of ``index.html``.

    The old pages stay until the new ones are whole. Warnings of Sphinx are errors. One process
    builds at a time; a second one says whom it waits for.

    Raises
    ------
    BookError
        If a chapter is not up to date, or if Sphinx found anything wrong; the message holds what
        it said.
    """
    build = root.resolve() / "_build"
    build.mkdir(exist_ok=True)
    lock, holder = FileLock(build / ".pages.lock"), build / ".pages.holder"
    try:
        lock.acquire(timeout=0)
    except Timeout:
        by = holder.read_text() if holder.exists() else "another process"
        print(f"waiting for {by}, which builds these pages", file=sys.stderr, flush=True)
        lock.acquire()
    try:
        holder.write_text(f"process {os.getpid()}")
        return _build(root, build)
    finally:
        holder.unlink(missing_ok=True)
        lock.release()


def _build(root: Path, build: Path) -> Path:
    stage, html, key_file = build / "source", build / "html", build / "html.key"
    _stage(root, stage)
    site = content(Path(__file__).with_name("site"))
    key = digests.of(content(stage), site, settings.edition())
    index = html / "index.html"
    if index.exists() and key_file.exists() and key_file.read_text() == key:
        return index
    output, old = build / "stage", build / "html.old"
    process = start(
        *("-c", "from jupyter_book.cli.main import main; main()", "build", str(stage)),
        *("--path-output", str(output), "--all", "-W", "-n", "--keep-going", "-q"),
    )
    said = "".join(process.communicate()).strip()
    if process.returncode:
        raise BookError(f"the pages were not built; the old ones stay. Sphinx said:\n{said}")
    key_file.unlink(missing_ok=True)
    shutil.rmtree(old, ignore_errors=True)
    if html.exists():
        os.replace(html, old)
    os.replace(output / "_build" / "html", html)
    shutil.rmtree(old, ignore_errors=True)
    key_file.write_text(key)
    return index
