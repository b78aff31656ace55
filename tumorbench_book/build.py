"""What ``make book`` calls: data, chapters, pages."""

from pathlib import Path

from tumorbench_book.keys import chapters, executed_path, stale
from tumorbench_book.pages import BookError, build_html
from tumorbench_book.runner import run
from tumorbench_utils import settings


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
