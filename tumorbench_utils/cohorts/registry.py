"""The cohorts by name, those of the user included."""

from collections.abc import Callable
from pathlib import Path

import pandas as pd

from tumorbench_utils import settings
from tumorbench_utils.cohorts.cards import COHORTS, CohortCard, CohortError
from tumorbench_utils.cohorts.tables import check_standard

#: What reads a cohort of a user: a folder (or None) in, a table with the standard columns out.
Reader = Callable[[Path | None], pd.DataFrame]

_OWN: dict[str, Reader] = {}


def card(name: str) -> CohortCard:
    """Return a card by name.

    Raises
    ------
    KeyError
        If the name is not known; the nearest known ones are named.
    """
    if name not in COHORTS:
        raise KeyError(settings.unknown("cohort", name, COHORTS))
    return COHORTS[name]


def register(card: CohortCard, reader: Reader) -> None:
    """Add a cohort of your own, so that every function takes its name.

    Parameters
    ----------
    card : CohortCard
        ``card.key`` is the name.
    reader : callable
        Gets a folder (``TUMORBENCH_DATA``, or None if that is not set) and returns a DataFrame
        with the standard columns; ``image_path`` is the full path of the scan. It is called by
        :func:`load_cohort` in every edition.

    Raises
    ------
    TypeError
        If `card` is no card or `reader` cannot be called.
    ValueError
        If the name is no plain name, or that of a cohort of the book.
    """
    if not isinstance(card, CohortCard) or not callable(reader):
        raise TypeError(
            "register takes a CohortCard and a reader that is callable with a folder, not "
            f"{type(card).__name__} and {type(reader).__name__}"
        )
    if not card.key.isidentifier() or (card.key in COHORTS and card.key not in _OWN):
        raise ValueError(
            f"the key {card.key!r} is taken by a cohort of the book, or no plain name such as "
            "my_cohort; choose another one"
        )
    COHORTS[card.key], _OWN[card.key] = card, reader


def is_own(name: str) -> bool:
    """Return whether a cohort was registered by the user."""
    return name in _OWN


def read_own(name: str, folder: Path | None) -> pd.DataFrame:
    """Read and check a registered cohort."""
    table = _OWN[name](folder)
    if not isinstance(table, pd.DataFrame):
        raise CohortError(f"the reader of {name} gave {type(table).__name__}, not a DataFrame")
    return check_standard(table, f"the table of {name}")
