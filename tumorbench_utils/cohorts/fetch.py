"""Getting the released tables: pinned, checked, and said plainly where it fails."""

from pathlib import Path

from tumorbench_utils import digests, downloads, settings
from tumorbench_utils.cohorts.cards import CohortError
from tumorbench_utils.cohorts.registry import card, is_own
from tumorbench_utils.cohorts.released import read_released_table, released_files


def data_folder() -> Path:
    """Return where fetched data goes: ``TUMORBENCH_DATA``, else ``data`` in the cache folder."""
    return settings.data_dir() or settings.cache_dir() / "data"


def fetch_released(name: str) -> Path:
    """Download the released tables of a cohort and read them once.

    Files that are there already are checked and not downloaded again.

    Parameters
    ----------
    name : str
        Key of a cohort of the book.

    Returns
    -------
    Path
        The folder for ``TUMORBENCH_DATA``: the tables lie in its ``cohorts/released``.

    Raises
    ------
    KeyError
        If the name is not known.
    DownloadError
        If there is no network, or a file differs from its checksum.
    CohortError
        If a file that is already there is another one: it is left as it is.
    """
    card(name)
    if is_own(name):
        raise CohortError(f"{name} is a cohort of your own; it has no released tables")
    known = settings.book_data("downloads")["cohorts"]
    folder = data_folder() / "cohorts" / "released"
    for relative in released_files(name):
        path, expected = folder / relative, known["files"][relative]
        if path.is_file() and digests.of_file(path) != expected["sha256"]:
            raise CohortError(f"{path} is not the released file; move it away and fetch again")
        downloads.fetch(f"{known['url']}/{relative}", path, **expected)
    read_released_table(name, folder)
    return data_folder()
