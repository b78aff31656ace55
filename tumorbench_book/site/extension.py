"""Sphinx extension of the book: pages without outside requests, and what ``boxes`` adds to them.

- The banner on every page says which edition was built.
- MathJax, plotly and DataTables are served from the book itself.
- Beside the pages lie the slides and two kinds of notebooks of every chapter (``slides``,
  ``notebooks``).
"""

import re
import shutil
from importlib.metadata import distribution
from importlib.resources import files
from pathlib import Path

from sphinx.application import Sphinx

from tumorbench_book.keys import chapters
from tumorbench_book.site import boxes, notebooks, render, slides
from tumorbench_book.site.facts import citation, colab
from tumorbench_utils import settings


def copy_scripts(app: Sphinx) -> None:
    """Put MathJax, plotly and DataTables into the book: no page asks another server for them."""
    import itables
    from itables.javascript import generate_init_offline_itables_html

    static = Path(app.srcdir) / "_static"
    static.mkdir(exist_ok=True)
    packed = distribution("sphinx-mathjax-offline").files
    mathjax = next(path for path in packed if path.name == "tex-svg.js")
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
    """Say on every page which edition was built, and how to cite."""
    config.html_theme_options = {
        **config.html_theme_options,
        "announcement": render("banner.html", edition=settings.edition()),
        "extra_footer": render("cite.html", cff=citation()),
    }
    config.mathjax_path = "tex-svg.js"


def drop_second_thebe(app: Sphinx, page, template, context, doctree) -> None:
    """Keep one copy of each script: the theme adds the one of Thebe twice."""
    kept = {}
    for script in context.get("script_files", []):
        # An inline script has no file name; what it says tells it apart.
        name = getattr(script, "filename", script) or script.attributes.get("body")
        kept.setdefault(name, script)
    context["script_files"] = list(kept.values())


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
        slides.write(html, chapters(Path(app.srcdir)))
        notebooks.write(html / "launch", notebooks.for_launch)
        notebooks.write(html / "exercises", notebooks.for_students)


def setup(app: Sphinx) -> dict:
    """Add roles, directives and hooks to Sphinx."""
    app.add_role("run-time", boxes.RunTime())
    app.add_directive("execution-status", boxes.ExecutionStatus)
    app.add_directive("finding", boxes.Finding)
    app.add_directive("quiz-answers", boxes.QuizAnswers)
    app.add_directive("cite-this-book", boxes.CiteThisBook)
    app.add_transform(boxes.Boxes)
    app.connect("builder-inited", copy_scripts)
    app.connect("config-inited", set_banner)
    app.connect("html-page-context", drop_second_thebe, priority=900)
    app.connect("html-page-context", send_colab_to_copies, priority=900)
    app.connect("build-finished", write_companions)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
