"""Slides are cut from the built pages."""

import re
from pathlib import Path

import pytest
from bs4 import BeautifulSoup

from tumorbench_book import keys
from tumorbench_book.site import slides as decks

ROOT = Path(__file__).resolve().parents[1]
HTML = ROOT / "_build" / "html"
NAMES = keys.chapters(ROOT)

ROWS = "".join(f"<tr><td>{i}</td></tr>" for i in range(30))
PAGE = f"""
<div class="bd-header-announcement">Phantom edition</div>
<article class="bd-article"><section id="title"><h1>A title<a class="headerlink" href="#x">#</a></h1>
<div class="admonition tip"><p class="admonition-title">Question</p><p>Why?</p></div>
<section id="setup"><h2>Setup</h2><p>Imports stay on the page.</p></section>
<section id="body"><h2>The body</h2>
<p>First paragraph, see <a href="other.html#there">other</a> and <a href="#fig">below</a>
or <a href="data:text/csv;base64,YQ==">save</a>.</p>
<p>Second paragraph for the notes.</p>
<div class="cell"><div class="cell_input"><pre>code = 1</pre></div><div class="cell_output">
<figure id="fig"><img src="../../_images/one.png" alt="One"><figcaption>Caption</figcaption></figure>
</div></div>
<div class="cell"><div class="cell_output"><p>The result.</p></div></div>
<div class="cell"><div class="cell_output"><table><tbody>{ROWS}</tbody></table></div></div>
</section>
<section id="exercises"><h2>Exercises</h2>
<div class="quiz"><p>Is it so?</p></div>
<div class="exercise admonition"><p class="admonition-title">Exercise 1</p>
<section><p>Count the lesions.</p></section></div>
<div class="solution dropdown admonition"><p class="admonition-title">Solution</p>
<section><p>There are few.</p></section></div>
</section>
<section id="take-aways"><h2>Take-aways</h2><ul><li>Remember \\(x\\).</li></ul></section>
<section id="references"><h2>References</h2><p>A paper.</p></section>
</section></article>"""


@pytest.fixture(scope="module")
def slides():
    """The slides of the small page, outermost first, without those that hold others."""
    soup = BeautifulSoup(decks.deck(PAGE, "part/one"), "html.parser")
    return [s for s in soup.select(".slides section") if not s.find("section")]


def test_slides_follow_the_page_and_leave_out_what_is_for_the_desk(slides):
    heads = [s.find(["h1", "h2"]).get_text() for s in slides]
    assert heads == [
        *("A title", "The body", "The body", "Check yourself", "Exercise", "Solution"),
        "Take-aways",
    ]


def test_a_short_text_stands_above_its_figure_and_the_result_below(slides):
    order = [slides[1].find(string=re.compile(t)) for t in ("First", "Caption", "The result")]
    assert all(order)
    positions = [slides[1].decode().index(str(t).strip()) for t in order]
    assert positions == sorted(positions)
    assert "code = 1" not in slides[1].get_text()


def test_further_prose_becomes_notes(slides):
    notes = slides[1].select_one("aside.notes")
    assert "Second paragraph" in notes.get_text()
    notes.extract()
    assert "Second paragraph" not in slides[1].get_text()


def test_long_tables_are_cut_and_say_so(slides):
    assert len(slides[2].select("tbody tr")) == decks.ROWS
    assert f"The first {decks.ROWS} of 30 rows." in slides[2].get_text()


def test_links_lead_back_to_the_pages_and_pictures_keep_their_path(slides):
    links = [a["href"] for a in slides[1].select("a")]
    there, fig, saved = links
    assert there == "../../notebooks/part/other.html#there"
    assert fig == "../../notebooks/part/one.html#fig" and saved == "data:text/csv;base64,YQ=="
    assert slides[1].find("img")["src"] == "../../_images/one.png"


def test_the_deck_names_edition_and_loads_maths_only_when_needed():
    deck = decks.deck(PAGE, "part/one")
    assert "Phantom edition" in deck
    assert "tex-svg.js" in deck
    assert "tex-svg.js" not in decks.deck(PAGE.replace("\\(x\\)", "x"), "part/one")


def test_a_page_without_article_is_refused():
    with pytest.raises(ValueError, match="part/one"):
        decks.deck("<html></html>", "part/one")


@pytest.mark.skipif(not (HTML / "slides").exists(), reason="the pages are not built: make book")
def test_built_slides_show_every_figure_and_need_nothing_from_elsewhere():
    decks = sorted((HTML / "slides").rglob("*/*.html"))
    assert decks
    for path in decks:
        deck = BeautifulSoup(path.read_text(encoding="utf-8"), "html.parser")
        page = HTML / "notebooks" / path.relative_to(HTML / "slides")
        chapter = BeautifulSoup(page.read_text(encoding="utf-8"), "html.parser")
        body = chapter.select("article figure img")
        body = [i["src"] for i in body if not i.find_parent(class_="solution")]
        assert set(body) <= {i["src"] for i in deck.select("img")}, path
        needed = deck.select("script[src], img[src], link[href]")
        for name in (tag.get("src") or tag.get("href") for tag in needed):
            if not name.startswith("data:"):
                assert (path.parent / name).exists(), f"{path}: {name}"


def test_long_quotations_are_cut_and_say_so():
    paragraphs = "".join(f"<p>{number} {'word ' * 40}</p>" for number in range(9))
    page = PAGE.replace("<p>The result.</p>", f"<blockquote>{paragraphs}</blockquote>")
    text = BeautifulSoup(decks.deck(page, "part/one"), "html.parser").get_text()
    assert "The first 2 of 9 paragraphs." in text
    assert "8 word" not in text
