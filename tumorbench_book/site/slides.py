"""Slides cut from the built pages: what a chapter shows is what its slides show.

A slide holds one thing: the question, a paragraph, a figure, a table, a result, an exercise. Code
stays in the chapter; prose beyond the first paragraph of a run becomes speaker notes (key S).
reveal.js comes with the package sphinx-revealjs and is copied beside the pages.
"""

import posixpath
import re
import shutil
from html import escape
from importlib.resources import files
from itertools import accumulate
from pathlib import Path
from string import Template

from bs4 import BeautifulSoup, Tag

#: Sections of the page template that are for reading at the desk.
SKIPPED = {"Prerequisites", "Setup", "References"}
#: Rows of a table that fit a slide.
ROWS = 11
#: Words that stand beside an output.
WORDS = 50

_PAGE = Template(Path(__file__).with_name("deck.html").read_text(encoding="utf-8"))
_INDEX = Template(Path(__file__).with_name("decks.html").read_text(encoding="utf-8"))


def _text(node: Tag) -> str:
    return " ".join(node.get_text(" ").split())


def _is_output(node: Tag) -> bool:
    """Whether a block shows something: a figure, a table, a picture."""
    return bool(node.name in ("figure", "table") or node.find(["figure", "img", "table"]))


def _blocks(section: Tag):
    """Yield ``(kind, block)`` of a section in order: prose, result, output or heading."""
    for child in section.find_all(recursive=False):
        classes = child.get("class", [])
        if child.name == "section":
            yield from _blocks(child)
        elif child.name in ("h2", "h3", "h4"):
            yield "heading", child
        elif "cell" in classes:
            for output in child.select("div.cell_output"):
                for part in output.find_all(recursive=False):
                    if part.find("script") or "plotly" in str(part)[:2000]:
                        continue
                    yield ("output" if _is_output(part) else "result"), part
        elif child.name in ("p", "ul", "ol", "dl", "div", "table", "figure"):
            yield ("output" if _is_output(child) else "prose"), child


def _shorten(block: Tag) -> Tag:
    """Return a copy of a block whose tables and quotations keep what a slide can show."""
    # A wrapper, so that a note can stand beside a table that is the whole block.
    block = BeautifulSoup(f"<div>{block}</div>", "html.parser").div

    def keep(whole: Tag, parts: list[Tag], n: int, kind: str) -> None:
        for part in parts[n:]:
            part.decompose()
        if len(parts) > n:
            note = f"<p>The first {n} of {len(parts)} {kind}.</p>"
            whole.insert_after(BeautifulSoup(note, "html.parser"))

    for table in block.find_all("table"):
        keep(table, table.select("tbody > tr"), ROWS, "rows")
    for quote in block.find_all("blockquote"):
        paragraphs = quote.find_all("p")
        words = accumulate(len(_text(p).split()) for p in paragraphs)
        keep(quote, paragraphs, max(1, sum(n <= 2 * WORDS for n in words)), "paragraphs")
    return block


def _slide(heading: str, content: str, notes: str = "", kind: str = "") -> str:
    aside = f'<aside class="notes">{escape(notes)}</aside>' if notes else ""
    name = f' class="{kind}"' if kind else ""
    return f"<section{name}><h2>{escape(heading)}</h2>{content}{aside}</section>"


def _body(section: Tag) -> list[str]:
    """Return the slides of one section of the body.

    A short text before an output stands above it, a short result after it stands below.
    """
    heading, slides, shown, notes = "", [], [], []
    kind_of, run = "", False  # "shows" once the slide holds an output; run: in a run of prose

    def close() -> None:
        nonlocal kind_of
        if shown:
            slides.append(_slide(heading, "".join(map(str, shown)), "\n".join(notes), kind_of))
        shown.clear()
        notes.clear()
        kind_of = ""

    def fits(*more: Tag) -> bool:
        blocks = [b for b in (*shown, *more) if b in more or not _is_output(b)]
        return sum(len(_text(b).split()) for b in blocks) <= WORDS

    for kind, block in _blocks(section):
        if kind == "heading":
            close()
            heading = _text(block).rstrip("# ")
        elif kind == "output":
            if kind_of or not fits():
                close()
            shown.append(_shorten(block))
            kind_of = "shows"
        elif kind == "result":
            block = _shorten(block)
            if kind_of and not fits(block):
                close()
            shown.append(block)
        else:
            if kind_of:
                close()
            notes.append(_text(block))
            if not run:
                shown.append(block)
        run = kind == "prose"
    close()
    return slides


def _exercises(section: Tag) -> list[str]:
    """Return a slide per question, exercise and solution."""
    slides = []
    for quiz in section.select("div.quiz"):
        slides.append(_slide("Check yourself", str(quiz)))
    for box in section.select("div.exercise, div.solution"):
        solution = "solution" in box["class"]
        inner = box.select("div.cell, section > p") if solution else box.select("section > *")
        inner = [part for part in inner if not part.find_parent("details")]
        slides.append(
            _slide(
                "Solution" if solution else "Exercise",
                "".join(str(_shorten(part)) for part in inner),
                kind="solution" if solution else "",
            )
        )
    return slides


def deck(page: str, name: str) -> str:
    """Return the slides of a built chapter as one HTML page.

    Parameters
    ----------
    page : str
        HTML of the chapter.
    name : str
        ``PART/NAME``. The slides lie at ``slides/PART/NAME.html``, as deep as the chapter at
        ``notebooks/PART/NAME.html``, so that paths of images hold for both.

    Raises
    ------
    ValueError
        If the page has no article.
    """
    soup = BeautifulSoup(page, "html.parser")
    article = soup.select_one("article.bd-article")
    if article is None or article.find("h1") is None:
        raise ValueError(f"{name}: the page holds no article with a title")
    for node in article.select("a.headerlink, button, style, script"):
        node.decompose()
    up = "../" * (name.count("/") + 1)
    chapter = f"{up}notebooks/{name}.html"
    for link in article.select("a[href]"):
        target = link["href"]
        if target.startswith("#"):
            link["href"] = chapter + target
        elif "://" not in target:
            folder = posixpath.dirname(f"notebooks/{name}")
            link["href"] = up + posixpath.normpath(posixpath.join(folder, target))
    title = _text(article.find("h1"))
    top = article.find("section")
    question = top.find("div", class_="admonition", recursive=False)
    columns = [[f"<section><h1>{escape(title)}</h1>{question or ''}</section>"]]
    for section in top.find_all("section", recursive=False):
        heading = _text(section.find("h2"))
        if heading in SKIPPED:
            continue
        columns.append(_exercises(section) if heading == "Exercises" else _body(section))
    slides = "\n".join(
        column[0] if len(column) == 1 else "<section>\n" + "\n".join(column) + "\n</section>"
        for column in columns
        if column
    )
    # Identifiers may appear once: those of the page stay with the page.
    slides = re.sub(r' id="[^"]*"', "", slides)
    banner = soup.select_one(".bd-header-announcement")
    has_maths = "\\(" in slides or "\\[" in slides
    maths = f'<script defer src="{up}_static/tex-svg.js"></script>' if has_maths else ""
    return _PAGE.substitute(
        title=escape(title),
        up=up,
        maths=maths,
        slides=slides,
        chapter=chapter,
        banner=escape(_text(banner)) if banner else "",
    )


def write(html: Path, names: list[str]) -> None:
    """Write the slides of the named chapters, a list of them, and reveal.js below `html`."""
    source = files("sphinx_revealjs") / "_static" / "revealjs"
    target = html / "_static" / "reveal"
    for part in ("dist", "plugin/notes"):
        shutil.copytree(str(source.joinpath(part)), target / part, dirs_exist_ok=True)
    shutil.copy2(str(source / "LICENSE"), target / "LICENSE")
    entries = []
    for name in names:
        page = (html / "notebooks" / f"{name}.html").read_text(encoding="utf-8")
        path = html / "slides" / f"{name}.html"
        path.parent.mkdir(parents=True, exist_ok=True)
        made = deck(page, name)
        path.write_text(made, encoding="utf-8")
        title = re.search(r"<title>(.*) \(slides\)</title>", made).group(1)
        entries.append(f'<li><a href="{name}.html">{title}</a></li>')
    index = _INDEX.substitute(decks="".join(entries))
    (html / "slides" / "index.html").write_text(index, encoding="utf-8")
