"""Notebooks made from the chapters: one to launch elsewhere, one without solutions.

The chapters in ``notebooks/`` stay the one source. ``make exercises`` calls this file; a build of
the pages writes both kinds beside them.
"""

import copy
import re
import sys
from pathlib import Path

import nbformat

from tumorbench_book.keys import chapters
from tumorbench_book.site import render
from tumorbench_book.site.facts import repository
from tumorbench_utils import files, settings

_BLOCK = r"^```\{%s\}[^\n]*\n.*?^```[ \t]*\n?"
_SOLUTION = re.compile(_BLOCK % "solution-(start|end)", re.M | re.S)
_EXERCISE = re.compile(r"^```\{exercise\}[^\n]*\n(.*?)^```[ \t]*\n?", re.M | re.S)

_TIP = re.compile(
    r"^:::\{(?:admonition\} *)?(\w+)\}?[ \t]*\n((?::[^\n]*\n)*)(.*?)^:::[ \t]*$", re.M | re.S
)
_ROLE = re.compile(r"\{([\w:-]+)\}`([^`]+)`")
_RUN_TIME = re.compile(r"\s*Run\s+time[^.{]*\{run-time\}`measured`\.")
_SOURCES = re.compile(r"^```\{footbibliography\}\n```", re.M)


def plain(text: str) -> str:
    """Return MyST text as Markdown that Jupyter and Colab show: boxes as quotes, roles as words."""

    def quote(match: re.Match) -> str:
        lines = f"**{match[1].capitalize()}.** {match[3]}".strip().split("\n")
        return "\n".join(f"> {line}" for line in lines)

    def word(match: re.Match) -> str:
        kind, content = match.groups()
        if kind.startswith(("cite", "footcite")):
            return f"[{content}]"
        shown = content.partition("<")[0].strip()
        return f"*{shown.rsplit('/', 1)[-1]}*" if kind == "doc" else shown

    text = _RUN_TIME.sub("", text)
    text = _SOURCES.sub("On the page of this chapter.", text)
    return _ROLE.sub(word, _TIP.sub(quote, text))


def setup_cell() -> nbformat.NotebookNode:
    """Return the first cell: it fetches the book where it is not installed, else does nothing."""
    repo = repository()[0]
    source = render("set_up.txt", repository=repo, folder=repo.split("/")[1])
    return nbformat.v4.new_code_cell(source, id="set-up", metadata={"tags": ["hide-input"]})


def for_launch(notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """Return a chapter without outputs, in plain Markdown, whose first cell sets the book up."""
    new = copy.deepcopy(notebook)
    new.metadata.pop("tumorbench", None)
    for cell in new.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
        else:
            cell.source = plain(cell.source)
    new.cells.insert(1, setup_cell())
    return new


def _plain_exercise(match: re.Match) -> str:
    """Write an exercise so that Jupyter shows it as text, not as a block of code."""
    body = re.sub(r"^:\w+:.*\n", "", match.group(1), flags=re.M).strip()
    return f"**Exercise.** {body}\n"


def for_students(notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """Return :func:`for_launch` with an empty cell in place of every solution.

    Raises
    ------
    ValueError
        If a solution starts inside another, or ends without having started.
    """
    new, inside, kept = for_launch(notebook), False, []
    for cell in new.cells:
        if cell.cell_type != "markdown":
            kept += [] if inside else [cell]
            continue
        # What is split at its marks is text, mark, text, mark, text.
        for number, part in enumerate(_SOLUTION.split(cell.source)):
            name = f"{cell.id}-{number}"
            if number % 2:
                if (part == "start") == inside:
                    raise ValueError(f"solutions that do not pair: a second {part!r}")
                inside = part == "start"
                if inside:
                    kept.append(nbformat.v4.new_code_cell("# Your solution", id=name))
            elif not inside and (text := _EXERCISE.sub(_plain_exercise, part).strip()):
                kept.append(nbformat.v4.new_markdown_cell(text, id=name))
    if inside:
        raise ValueError("a solution that does not end")
    new.cells = kept
    return new


def write(folder: Path, kind, root: Path = settings.BOOK_ROOT) -> list[Path]:
    """Write one notebook per chapter below `folder`; `kind` is one of the functions above."""
    written = []
    for name in chapters(root):
        notebook = nbformat.read(root / "notebooks" / f"{name}.ipynb", as_version=4)
        target = folder / f"{name}.ipynb"
        with files.atomic_path(target) as whole:
            nbformat.write(kind(notebook), whole)
        written.append(target)
    return written


if __name__ == "__main__":
    write(Path(sys.argv[1]), for_students)
    print(sys.argv[1])
