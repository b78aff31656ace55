"""Sphinx extension of the book: pages without outside requests, and measured run times.

- ``{run-time}`measured` `` prints how long the page ran when it was built.
- ``{finding}`` shows a sentence of another chapter (``findings``).
- ``{execution-status}`` lists every chapter with its run time, edition and versions.
- The banner on every page says which edition was built.
- MathJax and plotly are served from the book itself.
- Beside the pages lie the slides and two kinds of notebooks of every chapter (``slides``,
  ``notebooks``); every chapter carries the boxes of ``boxes``.
"""

import json
import re
import shutil
from importlib.metadata import distribution
from importlib.resources import files
from pathlib import Path

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective, SphinxRole

import tumorbench_book as book
from tumorbench_book.site import notebooks, slides
from tumorbench_book.site.boxes import Boxes, CiteThisBook, QuizAnswers
from tumorbench_book.site.facts import citation, colab
from tumorbench_book.site.findings import Finding
from tumorbench_utils import settings

BANNERS = {
    "phantom": "Phantom edition: all scans are procedural and all networks are small teaching "
    "encoders or untrained. No number here is a result on patients.",
    "released": "Released edition: tables and embeddings released by the authors of the benchmark; "
    "images are phantoms.",
    "full": "Full edition: real scans and released weights.",
}


def record(source: Path) -> dict:
    """Return what the runner wrote into an executed notebook; empty for other pages."""
    if not source.exists():
        return {}
    return json.loads(source.read_text(encoding="utf-8"))["metadata"].get("tumorbench", {})


class RunTime(SphinxRole):
    """How long this page ran when it was built."""

    def run(self):
        """Return the run time of the page as text."""
        source = Path(self.env.srcdir) / f"{self.env.docname}.ipynb"
        seconds = record(source).get("seconds")
        text = "not run" if seconds is None else f"{seconds:.0f} s"
        return [nodes.Text(text)], []


class ExecutionStatus(SphinxDirective):
    """A table of all chapters: run time, edition, Python and torch."""

    def run(self):
        """Return the table of all chapters."""
        lines, total = (
            ["| Chapter | Seconds | Edition | Python | torch |", "|---|---|---|---|---|"],
            0.0,
        )
        for source in sorted(Path(self.env.srcdir, "notebooks").rglob("*.ipynb")):
            found = record(source)
            total += found["seconds"]
            page = source.relative_to(self.env.srcdir).with_suffix("").as_posix()
            link = f"{{doc}}`{page.removeprefix('notebooks/')} </{page}>`"
            cells = [f"{found['seconds']:.1f}", found["edition"]]
            cells += [found["versions"][key] for key in ("python", "torch")]
            lines.append(f"| {link} | {' | '.join(cells)} |")
        lines.append(f"| All chapters, one after another | {total:.1f} | | | |")
        holder = nodes.container()
        self.state.nested_parse(["\n".join(lines)], self.content_offset, holder)
        return holder.children


def copy_scripts(app: Sphinx) -> None:
    """Put MathJax, plotly and DataTables into the book: no page asks another server for them."""
    import itables
    from itables.javascript import generate_init_offline_itables_html

    static = Path(app.srcdir) / "_static"
    static.mkdir(exist_ok=True)
    mathjax = next(
        p for p in distribution("sphinx-mathjax-offline").files if p.name == "tex-svg.js"
    )
    shutil.copy2(mathjax.locate(), static / "tex-svg.js")
    plotly = files("plotly") / "package_data" / "plotly.min.js"
    (static / "plotly.min.js").write_bytes(plotly.read_bytes())
    html = generate_init_offline_itables_html(itables.options.dt_bundle)
    script = re.search(r"<script>(.*?)</script>", html, re.S)[1]
    # A page's tables wait for the event of the script that stands below them.
    ready = f"window._itables_{itables.__version__.replace('.', '_')}"
    ready += ".then(() => dispatchEvent(new Event('itables')));"
    (static / "itables.js").write_text(script + ready, encoding="utf-8")


def set_banner(app: Sphinx, config) -> None:
    """Say on every page which edition was built."""
    options = dict(config.html_theme_options)
    options["announcement"] = BANNERS[settings.edition()]
    cff = citation()
    options["extra_footer"] = (
        f"<p>Cite as: {cff['authors'][0]['name']}, {cff['title']}, version {cff['version']}, "
        f"{str(cff['date-released'])[:4]}, {cff['repository-code']}</p>"
    )
    config.html_theme_options = options
    config.mathjax_path = "tex-svg.js"


def drop_second_thebe(app: Sphinx, page, template, context, doctree) -> None:
    """Keep one copy of each script: the theme adds the one of Thebe twice."""
    seen, kept = set(), []
    for script in context.get("script_files", []):
        # An inline script has no file name; what it says tells it apart.
        name = getattr(script, "filename", script) or script.attributes.get("body")
        if name not in seen:
            kept.append(script)
        seen.add(name)
    context["script_files"] = kept


def send_colab_to_copies(app: Sphinx, page, template, context, doctree) -> None:
    """Let the Colab button open the copy whose first cell installs the book."""
    for group in context.get("header_buttons", []):
        for button in group.get("buttons", []):
            if button.get("text") == "Colab":
                button["url"] = colab(page.removeprefix("notebooks/"))


def write_companions(app: Sphinx, error: Exception | None) -> None:
    """Write slides and notebooks of every chapter beside the finished pages."""
    if error is None and app.builder.name == "html":
        html = Path(app.outdir)
        slides.write(html, book.chapters(Path(app.srcdir)))
        notebooks.write(html / "launch", notebooks.for_launch)
        notebooks.write(html / "exercises", notebooks.for_students)


def setup(app: Sphinx) -> dict:
    """Add roles, directives and hooks to Sphinx."""
    app.add_role("run-time", RunTime())
    app.add_directive("execution-status", ExecutionStatus)
    app.add_directive("finding", Finding)
    app.add_directive("quiz-answers", QuizAnswers)
    app.add_directive("cite-this-book", CiteThisBook)
    app.add_transform(Boxes)
    app.connect("builder-inited", copy_scripts)
    app.connect("config-inited", set_banner)
    app.connect("html-page-context", drop_second_thebe, priority=900)
    app.connect("html-page-context", send_colab_to_copies, priority=900)
    app.connect("build-finished", write_companions)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
