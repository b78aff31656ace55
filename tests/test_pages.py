"""The built pages in a browser: no outside request, no console error, no page wider than a phone.

Slides too; and questions, search and colours do what they should.

`make pages` runs this after `make book`; without built pages or Chromium it skips with a reason.
"""

import functools
import http.server
import shutil
import threading
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
HTML = ROOT / "_build" / "html"
CHROMIUM = next((p for p in map(shutil.which, ("chromium", "google-chrome", "chrome")) if p), None)
SKIPPED = {"search.html", "genindex.html"}
PAGES = sorted(
    p.relative_to(HTML).as_posix()
    for p in HTML.rglob("*.html")
    if "_static" not in p.parts and p.name not in SKIPPED
)

pytestmark = [
    pytest.mark.skipif(not PAGES, reason="the pages are not built: make book"),
    pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed"),
]


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *args):
        pass


@pytest.fixture(scope="module")
def base():
    handler = functools.partial(Quiet, directory=str(HTML))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()


@pytest.fixture(scope="module")
def browser():
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    with playwright.sync_playwright() as p:
        browser = p.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.mark.parametrize("width", [1400, 390])
@pytest.mark.parametrize("page", PAGES)
def test_page_is_self_contained_and_fits(browser, base, page, width):
    tab = browser.new_page(viewport={"width": width, "height": 900})
    outside, errors = [], []
    tab.on(
        "request",
        lambda r: None if r.url.startswith((base, "data:", "blob:")) else outside.append(r.url),
    )
    tab.on("console", lambda m: errors.append(m.text) if m.type == "error" else None)
    tab.on("pageerror", lambda e: errors.append(str(e)))
    tab.goto(base + page, wait_until="load")
    tab.wait_for_timeout(200)
    overflow = tab.evaluate("document.documentElement.scrollWidth - window.innerWidth")
    pictures = tab.evaluate(
        "[...document.querySelectorAll('article img')].filter(i => !i.alt || !i.naturalWidth)"
        ".map(i => i.src)"
    )
    tab.close()
    assert not outside
    assert not errors
    assert overflow <= 0
    assert not pictures, "pictures without alt text or that did not load"


DECKS = [page for page in PAGES if page.startswith("slides/") and page != "slides/index.html"]
CHAPTERS = [page.replace("slides/", "notebooks/") for page in DECKS]


@pytest.fixture
def tab(browser):
    tab = browser.new_page(viewport={"width": 1280, "height": 800})
    yield tab
    tab.close()


@pytest.mark.parametrize("page", DECKS)
def test_slides_run_and_fit_their_frame(tab, base, page):
    tab.goto(base + page, wait_until="load")
    tab.wait_for_selector("body[data-fitted]")
    total = tab.evaluate("Reveal.getTotalSlides()")
    assert total >= 5
    tab.keyboard.press("Space")
    assert tab.evaluate("Reveal.getSlidePastCount()") == 1
    cut = tab.evaluate(
        """() => [...document.querySelectorAll('.slides section')].filter(s => {
            if (s.querySelector('section')) return false;
            return s.scrollHeight > Reveal.getConfig().height + 5;
        }).map(s => s.innerText.slice(0, 60))"""
    )
    assert not cut, "slides with more than fits"


@pytest.mark.parametrize("page", CHAPTERS)
def test_chapter_shows_results_and_says_how_to_run_it(tab, base, page):
    tab.goto(base + page, wait_until="load")
    name = page.removeprefix("notebooks/").removesuffix(".html")
    assert tab.locator("div.cell_output").count() > 0
    assert f"make chapter NAME={name}" in tab.locator(".run-this-chapter").inner_text()
    for link in tab.locator(".run-this-chapter a[href^='../']").all():
        assert tab.request.get(base + page.rsplit("/", 1)[0] + "/" + link.get_attribute("href")).ok


def test_a_question_opens_its_feedback_from_the_keyboard(tab, base):
    page = next(iter(CHAPTERS))
    tab.goto(base + page, wait_until="load")
    answer = tab.locator("details.quiz-answer").first
    assert not answer.locator("p").is_visible()
    answer.locator("summary").focus()
    tab.keyboard.press("Enter")
    assert answer.locator("p").is_visible()


def test_search_finds_a_word_without_a_server_of_its_own(tab, base):
    tab.goto(base + "search.html?q=leakage", wait_until="load")
    tab.wait_for_selector("#search-results li a")
    assert tab.locator("#search-results li a").count() > 1


CONTRAST = """() => {
  const parse = c => (c.match(/[\\d.]+/g) || []).map(Number);
  const light = ([r, g, b]) => [r, g, b].map(v => v / 255)
    .map(v => v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  const ground = e => {
    for (; e; e = e.parentElement) {
      const c = parse(getComputedStyle(e).backgroundColor);
      if (c.length === 3 || c[3] > 0.9) return c;
    }
    return [255, 255, 255];
  };
  const faults = [];
  for (const e of document.querySelectorAll(
      'article :is(p, li, td, th, caption, figcaption, summary, h1, h2, h3, a, code)')) {
    if (!e.innerText || !e.checkVisibility()) continue;
    const [a, b] = [light(parse(getComputedStyle(e).color)), light(ground(e))];
    const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    if (ratio < 4.5) faults.push(ratio.toFixed(1) + ' ' + e.tagName + ' ' + e.innerText.slice(0, 40));
  }
  return faults;
}"""


def test_grey_text_on_white_is_noticed(tab, base):
    tab.goto(base + "index.html", wait_until="load")
    tab.evaluate("document.querySelector('article p').style.color = '#999'")
    assert any(" P " in fault for fault in tab.evaluate(CONTRAST))


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("page", ["index.html", *CHAPTERS[:3]])
def test_text_can_be_read_in_light_and_dark(browser, base, page, scheme):
    """Contrast of at least 4.5 to 1, as WCAG asks for text."""
    tab = browser.new_page(color_scheme=scheme)
    tab.goto(base + page, wait_until="load")
    tab.wait_for_timeout(200)
    faults = tab.evaluate(CONTRAST)
    tab.close()
    assert not faults
