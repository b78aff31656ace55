"""``tumorbench report`` and ``tumorbench check-cohort``: notebooks with parameters, as one file.

The notebooks lie in ``notebooks/reports/``; they run in a temporary folder, and nbconvert makes one
self-contained page of what they show. What comes from a stranger's files goes through the three
functions at the end, which escape it.
"""

import os
import runpy
import sys
import tempfile
import traceback
from base64 import b64encode
from collections.abc import Iterable
from html import escape
from pathlib import Path
from typing import NamedTuple

import matplotlib.pyplot as plt
import pandas as pd
from IPython.display import HTML, display

from tumorbench_book.site import render
from tumorbench_utils import files, settings

_RECORD = "application/vnd.tumorbench+json"
_OURS = '<meta name="generator" content="tumorbench">'

#: What no input should end in: these are shown with their traceback.
_BUGS = {"AssertionError", "AttributeError", "IndexError", "NameError", "TypeError"}


class ReportError(RuntimeError):
    """A notebook of a report could not be run to its end."""


class Made(NamedTuple):
    """A page, and what its notebook left for the caller (:func:`leave`)."""

    html: str
    record: dict


def make(report: str, /, **parameters) -> Made:
    """Run a notebook of ``notebooks/reports/`` and return its page.

    Parameters
    ----------
    report : {"report", "check_cohort"}
    **parameters
        As in its cell tagged ``parameters``. Relative paths start in the working folder.

    Raises
    ------
    ReportError
        If a cell fails: with its message, and its traceback unless it is an error in the input.
    """
    from nbconvert import HTMLExporter
    from nbconvert.filters import strip_ansi
    from papermill import PapermillExecutionError

    from tumorbench_book.runner import run_notebook

    stderr = None if "TUMORBENCH_QUIET" in os.environ else sys.stderr
    source = settings.BOOK_ROOT / "notebooks" / "reports" / f"{report}.ipynb"
    with tempfile.TemporaryDirectory() as folder:
        try:
            options = {"folder": os.getcwd(), **parameters}
            notebook = run_notebook(source, Path(folder, source.name), options, stderr_file=stderr)
        except PapermillExecutionError as error:
            if error.ename in _BUGS:
                raise ReportError(strip_ansi("\n".join(error.traceback))) from None
            raise ReportError(error.evalue.strip("'\"")) from None
    record = {}
    for cell in (cell for cell in notebook.cells if cell.cell_type == "code"):
        cell.outputs = [output for output in cell.outputs if output.output_type != "stream"]
        for output in [output for output in cell.outputs if _RECORD in output.data]:
            record = output.data[_RECORD]
            cell.outputs.remove(output)
    exporter = HTMLExporter(template_name="basic", exclude_input=True, exclude_output_prompt=True)
    body, _ = exporter.from_notebook_node(notebook)
    return Made(render("report.html", title=record["title"], body=body), record)


def target(out: Path, name: str) -> Path:
    """Return where a page goes: `out` if it is an ``.html`` file, else `name` in that folder.

    Raises
    ------
    FileExistsError
        If something lies there that is no page of ours: it is never replaced.
    """
    path = out if out.suffix.lower() in (".html", ".htm") else out / name
    if path.is_dir() or (path.exists() and _OURS.encode() not in path.read_bytes()[:500]):
        raise FileExistsError(f"{path} is there and is no page of tumorbench; give another --out")
    return path


def write(html: str, path: Path) -> Path:
    """Write a page to a :func:`target`, whole or not at all."""
    with files.atomic_path(path) as part:
        part.write_text(html, encoding="utf-8")
    return path


def enter(folder: str, own: Iterable[str] = ()) -> None:
    """Go to the folder where relative paths start, and run the files that bring models.

    Raises
    ------
    FileNotFoundError
        If a file is not there.
    ReportError
        If one fails: with the file and the line.
    """
    os.chdir(folder)
    sys.path[:] = [entry for entry in sys.path if entry]  # no module of that folder is imported
    for file in own:
        if not os.path.isfile(file):
            raise FileNotFoundError(f"{file}: there is no such file")
        try:
            runpy.run_path(file)
        except Exception as error:
            frames = traceback.extract_tb(error.__traceback__)
            # A SyntaxError has no frame in the file, but a line.
            lines = [f.lineno for f in frames if f.filename == file] or [
                getattr(error, "lineno", "?")
            ]
            what = f"{type(error).__name__}: {error}"
            raise ReportError(f"{file}, line {lines[-1]}: {what}") from error


def leave(title: str, **record) -> None:
    """Leave the title of the page and what the caller of :func:`make` gets, as JSON."""
    display({_RECORD: {"title": title, **record}}, raw=True)


def show(lead: str, lines: Iterable[str] = (), kind: str = "", tag: str = "p") -> None:
    """Show a sentence and a list under it, escaped; `kind` is ``good`` or ``bad`` for a box."""
    listed = "".join(f"<li>{escape(str(line))}</li>" for line in lines)
    listed = f"<ul>{listed}</ul>" if listed else ""
    display(HTML(f'<div class="{kind}"><{tag}>{escape(lead)}</{tag}>{listed}</div>'))


def show_table(
    frame: pd.DataFrame,
    caption: str = "",
    *,
    precision: int = 2,
    index: bool = True,
    file: str = "",
) -> None:
    """Show a table, escaped, that scrolls sideways; `file` is the name of a CSV to take along."""
    decimals = f"{{:.{precision}f}}".format
    made = frame.to_html(index=index, na_rep="–", border=0, float_format=decimals)
    made = made.replace(">", f"><caption>{escape(caption)}</caption>", 1) if caption else made
    if file:
        data = b64encode(frame.to_csv(index=index).encode()).decode()
        made += (
            f'<a download="{escape(file)}" href="data:text/csv;base64,{data}">{escape(file)}</a>'
        )
    display(HTML(f'<div class="wide">{made}</div>'))


def show_figure(figure, caption: str, alt: str) -> None:
    """Show a figure with its caption and what it shows in words."""
    display(figure, metadata={"image/png": {"alt": alt}})
    display(HTML(f'<p class="note">{escape(caption)}</p>'))
    plt.close(figure)
