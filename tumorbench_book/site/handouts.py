"""A PDF of every built chapter, printed by Chromium: `make handouts`.

The style sheet leaves out navigation, the box with commands and the solutions.
"""

import shutil
import sys
from html import escape
from pathlib import Path

from tqdm.auto import tqdm

import tumorbench_book as book
from tumorbench_utils import settings

_NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome", "msedge")


def chromium() -> str:
    """Return the path of the browser.

    Raises
    ------
    FileNotFoundError
        If none is installed.
    """
    for name in _NAMES:
        if path := shutil.which(name):
            return path
    raise FileNotFoundError(f"no browser to print with: install one of {', '.join(_NAMES)}")


def write(folder: Path, names: list[str], html: Path) -> None:
    """Print the named chapters below `html` into `folder`."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=chromium(), args=["--no-sandbox"])
        tab = browser.new_page()
        for name in tqdm(names, desc="handouts", unit="chapter"):
            target = folder / f"{name}.pdf"
            target.parent.mkdir(parents=True, exist_ok=True)
            tab.goto((html / "notebooks" / f"{name}.html").as_uri())
            tab.wait_for_timeout(300)
            edition = tab.inner_text(".bd-header-announcement")
            tab.pdf(
                path=target,
                format="A4",
                margin={"top": "15mm", "bottom": "15mm", "left": "15mm", "right": "15mm"},
                display_header_footer=True,
                header_template="<span></span>",
                footer_template='<div style="font-size:7px;width:100%;text-align:center">'
                f'{escape(edition)} <span class="pageNumber"></span> / '
                '<span class="totalPages"></span></div>',
            )
        browser.close()


if __name__ == "__main__":
    try:
        write(Path(sys.argv[1]), book.chapters(), settings.BOOK_ROOT / "_build" / "html")
    except FileNotFoundError as error:
        sys.exit(f"make handouts: {error}")
    print(sys.argv[1])
