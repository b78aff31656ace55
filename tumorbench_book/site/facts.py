"""Facts that several parts of the pages need, each read from its one place."""

import functools

import yaml

from tumorbench_utils import settings


@functools.cache
def repository() -> tuple[str, str]:
    """Return ``OWNER/NAME`` of the repository and its branch, from ``_config.yml``."""
    config = yaml.safe_load((settings.BOOK_ROOT / "_config.yml").read_text(encoding="utf-8"))
    found = config["repository"]
    return found["url"].removeprefix("https://github.com/"), found["branch"]


@functools.cache
def citation() -> dict:
    """Return what ``CITATION.cff`` says."""
    return yaml.safe_load((settings.BOOK_ROOT / "CITATION.cff").read_text(encoding="utf-8"))


def bibtex() -> str:
    """Return the BibTeX entry of the book."""
    cff = citation()
    fields = {
        "title": f"{{{cff['title']}}}",
        "author": " and ".join(f"{{{author['name']}}}" for author in cff["authors"]),
        "version": cff["version"],
        "year": str(cff["date-released"])[:4],
        "url": cff["repository-code"],
    }
    if "doi" in cff:
        fields["doi"] = cff["doi"]
    lines = ",\n".join(f"  {name:7} = {{{value}}}" for name, value in fields.items())
    return f"@software{{tumorimagingbench_book,\n{lines}\n}}"


def colab(name: str) -> str:
    """Return where a chapter opens in Colab: the copy with the set-up cell, beside the pages."""
    return (
        f"https://colab.research.google.com/github/{repository()[0]}/blob/gh-pages/"
        f"launch/{name}.ipynb"
    )


def binder(name: str) -> str:
    """Return where a chapter opens on Binder, which builds its environment from ``binder/``."""
    repo, branch = repository()
    return f"https://mybinder.org/v2/gh/{repo}/{branch}?urlpath=lab/tree/notebooks/{name}.ipynb"
