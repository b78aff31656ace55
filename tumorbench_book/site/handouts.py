"""A PDF of every built chapter, printed by Chromium: `make handouts`.

The style sheet leaves out navigation, the box with commands and the solutions.
"""

import shutil
import sys
from pathlib import Path

from tqdm.auto import tqdm

from tumorbench_book.keys import chapters
from tumorbench_book.site import render
from tumorbench_utils import settings

_NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome", "msedge")


def write(folder: Path, names: list[str], html: Path) -> None:
    """Print the named chapters below `html` into `folder`."""
    from playwright.sync_api import sync_playwright

    if not (installed := [path for path in map(shutil.which, _NAMES) if path]):
        sys.exit(f"make handouts: no browser to print with: install one of {', '.join(_NAMES)}")
    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=installed[0], args=["--no-sandbox"])
        tab = browser.new_page()
        for name in tqdm(names, desc="handouts", unit="chapter"):
            tab.goto((html / "notebooks" / f"{name}.html").as_uri())
            tab.wait_for_timeout(300)
            target = folder / f"{name}.pdf"
            target.parent.mkdir(parents=True, exist_ok=True)
            edition = tab.inner_text(".bd-header-announcement")
            tab.pdf(
                path=target,
                format="A4",
                margin=dict.fromkeys(("top", "bottom", "left", "right"), "15mm"),
                display_header_footer=True,
                header_template="<span></span>",
                footer_template=render("footer.html", edition=edition),
            )
        browser.close()


if __name__ == "__main__":
    write(Path(sys.argv[1]), chapters(), settings.BOOK_ROOT / "_build" / "html")
    print(sys.argv[1])
