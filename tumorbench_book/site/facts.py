"""Facts that several parts of the pages need, each read from its one place."""

import functools

import yaml

from tumorbench_utils import settings


@functools.cache
def _read(file: str) -> dict:
    return yaml.safe_load((settings.BOOK_ROOT / file).read_text(encoding="utf-8"))


def repository() -> tuple[str, str]:
    """Return ``OWNER/NAME`` of the repository and its branch, from ``_config.yml``."""
    found = _read("_config.yml")["repository"]
    return found["url"].removeprefix("https://github.com/"), found["branch"]


def citation() -> dict:
    """Return what ``CITATION.cff`` says, and the ``year``."""
    cff = _read("CITATION.cff")
    return {**cff, "year": str(cff["date-released"])[:4]}


def bibtex() -> str:
    """Return the BibTeX entry of the book."""
    cff = citation()
    fields = {
        "title": f"{{{cff['title']}}}",
        "author": " and ".join(f"{{{author['name']}}}" for author in cff["authors"]),
        "version": cff["version"],
        "year": cff["year"],
        "url": cff["repository-code"],
        "doi": cff.get("doi"),
    }
    lines = ",\n".join(f"  {name:7} = {{{value}}}" for name, value in fields.items() if value)
    return f"@software{{tumorimagingbench_book,\n{lines}\n}}"


def colab(name: str) -> str:
    """Return where a chapter opens in Colab: the copy with the set-up cell, beside the pages."""
    at = "https://colab.research.google.com/github"
    return f"{at}/{repository()[0]}/blob/gh-pages/launch/{name}.ipynb"


def binder(name: str) -> str:
    """Return where a chapter opens on Binder, which builds its environment from ``binder/``."""
    repo, branch = repository()
    return f"https://mybinder.org/v2/gh/{repo}/{branch}?urlpath=lab/tree/notebooks/{name}.ipynb"
