"""The built pages in a browser: no outside request, no console error, no page wider than a phone.

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
