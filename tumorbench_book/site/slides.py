"""Slides cut from the built pages: what a chapter shows is what its slides show.

A slide holds one thing: the question, a paragraph, a figure, a table, a result, an exercise. Code
stays in the chapter; prose beyond the first paragraph of a run becomes speaker notes (key S).
reveal.js comes with the package sphinx-revealjs and is copied beside the pages.
"""

import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from html import unescape
from importlib.resources import files
from itertools import accumulate
from pathlib import Path
from urllib.parse import urljoin, urlsplit

from bs4 import BeautifulSoup, Tag

from tumorbench_book.site import render

#: Sections of the page template that are for reading at the desk.
SKIPPED = {"Prerequisites", "Setup", "References"}
#: Rows of a table that fit a slide.
ROWS = 11
#: Words that stand beside an output.
WORDS = 50


@dataclass
class Slide:
    """One slide: `words` counts its text beside an output, `kind` is a class of its style."""

    heading: str
    content: str = ""
    notes: str = ""
    kind: str = ""
    words: int = 0


def _text(node: Tag) -> str:
    return " ".join(node.get_text(" ").split())


def _words(node: Tag) -> int:
    return len(_text(node).split())


def _kind(node: Tag, otherwise: str) -> str:
    """Return ``output`` if a block shows something: a figure, a table, a picture."""
    shows = node.name in ("figure", "table") or node.find(["figure", "img", "table"])
    return "output" if shows else otherwise


def _blocks(section: Tag) -> Iterator[tuple[str, Tag]]:
    """Yield ``(kind, block)`` of a section in order: prose, result, output or heading."""
    for child in section.find_all(recursive=False):
        if child.name == "section":
            yield from _blocks(child)
        elif child.name in ("h2", "h3", "h4"):
            yield "heading", child
        elif "cell" in child.get("class", []):
            for part in child.select("div.cell_output > *"):
                if not part.find("script") and "plotly" not in str(part)[:2000]:
                    yield _kind(part, "result"), part
        elif child.name in ("p", "ul", "ol", "dl", "div", "table", "figure"):
            yield _kind(child, "prose"), child


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
        words = accumulate(map(_words, paragraphs))
        keep(quote, paragraphs, max(1, sum(n <= 2 * WORDS for n in words)), "paragraphs")
    return block


def _body(section: Tag) -> list[Slide]:
    """Return the slides of one section of the body.

    A short text before an output stands above it, a short result after it stands below.
    """
    slides, before = [Slide("")], ""
    for kind, block in _blocks(section):
        block = block if kind in ("heading", "prose") else _shorten(block)
        slide, words = slides[-1], _words(block) if kind in ("prose", "result") else 0
        full = slide.words + words * (kind == "result") > WORDS
        starts = {
            "heading": True,
            "output": slide.kind or full,
            "result": slide.kind and full,
            "prose": slide.kind,
        }
        if starts[kind]:
            heading = _text(block).rstrip("# ") if kind == "heading" else slide.heading
            slides.append(slide := Slide(heading))
        if kind == "output":
            slide.kind = "shows"
        if kind == "prose":
            slide.notes += f"{_text(block)}\n"
        if kind != "heading" and not kind == before == "prose":
            slide.content += str(block)
            slide.words += words
        before = kind
    return [slide for slide in slides if slide.content]


def _exercises(section: Tag) -> list[Slide]:
    """Return a slide per question, exercise and solution."""
    slides = [Slide("Check yourself", str(quiz)) for quiz in section.select("div.quiz")]
    for box in section.select("div.exercise, div.solution"):
        solution = "solution" in box["class"]
        inner = box.select("div.cell, section > p" if solution else "section > *")
        content = "".join(str(_shorten(p)) for p in inner if not p.find_parent("details"))
        heading, kind = ("Solution", "solution") if solution else ("Exercise", "")
        slides.append(Slide(heading, content, kind=kind))
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
    # Identifiers may appear once: those of the page stay with the page.
    for node in article.find_all(id=True):
        del node["id"]
    up, chapter = "../" * (name.count("/") + 1), f"notebooks/{name}.html"
    for link in article.select("a[href]"):
        if not urlsplit(link["href"]).scheme:
            link["href"] = up + urljoin(chapter, link["href"])
    top, columns = article.find("section"), []
    for section in top.find_all("section", recursive=False):
        heading = _text(section.find("h2"))
        if heading not in SKIPPED:
            columns.append(_exercises(section) if heading == "Exercises" else _body(section))
    banner = soup.select_one(".bd-header-announcement")
    return render(
        "deck.html",
        title=_text(article.find("h1")),
        question=top.find("div", class_="admonition", recursive=False) or "",
        columns=columns,
        maths=re.search(r"\\[(\[]", article.get_text()),
        banner=_text(banner) if banner else "",
        chapter=up + chapter,
        up=up,
    )


def write(html: Path, names: list[str]) -> None:
    """Write the slides of the named chapters, a list of them, and reveal.js below `html`."""
    source = files("sphinx_revealjs") / "_static" / "revealjs"
    target = html / "_static" / "reveal"
    for part in ("dist", "plugin/notes"):
        shutil.copytree(str(source.joinpath(part)), target / part, dirs_exist_ok=True)
    shutil.copy2(str(source / "LICENSE"), target / "LICENSE")
    decks = {}
    for name in names:
        page = (html / "notebooks" / f"{name}.html").read_text(encoding="utf-8")
        path = html / "slides" / f"{name}.html"
        path.parent.mkdir(parents=True, exist_ok=True)
        made = deck(page, name)
        path.write_text(made, encoding="utf-8")
        decks[name] = unescape(re.search(r"<title>(.*) \(slides\)</title>", made)[1])
    index = render("decks.html", decks=decks.items())
    (html / "slides" / "index.html").write_text(index, encoding="utf-8")
