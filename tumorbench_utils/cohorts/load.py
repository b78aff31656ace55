"""Cohorts by name and edition."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from tumorbench_utils import settings
from tumorbench_utils.cohorts.cards import COHORTS, CohortCard, CohortError
from tumorbench_utils.cohorts.tables import check_standard

#: What reads a cohort of a user: a folder (or None) in, a table with the standard columns out.
Reader = Callable[[Path | None], pd.DataFrame]

_OWN_READERS: dict[str, Reader] = {}


@dataclass(frozen=True, eq=False)
class Cohort:
    """A cohort in one edition.

    Parameters
    ----------
    card : CohortCard
    edition : {"phantom", "released", "full"}
    table : DataFrame
        One row per lesion. Always there: ``lesion_id, patient_id, scan_id, image_path, coord_x,
        coord_y, coord_z`` (seed, LPS mm), ``label`` (Int64; 1 is ``card.positive``), ``time_days``
        and ``event`` (1 = dead) where there is follow-up, and ``label_reference``, the published
        label. Covariates by cohort: ``card.covariates``. ``table.attrs["excluded"]`` lists rows
        that were left out and why.
    """

    card: CohortCard
    edition: str
    table: pd.DataFrame

    @property
    def size_column(self) -> str | None:
        """The ruler of this table: ``size_mm``, else the card's own size column, else None."""
        for name in ("size_mm", self.card.size_column):
            if name in self.table and self.table[name].notna().any():
                return name
        return None

    @property
    def clinical_column(self) -> str | None:
        """The clinical score of this table, or None."""
        name = self.card.clinical_column
        return name if name in self.table else None


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
        with the standard columns. Called by :func:`load_cohort` in every edition.

    Raises
    ------
    ValueError
        If the name is that of a cohort of the book.
    TypeError
        If `card` is no card or `reader` cannot be called.
    """
    if not isinstance(card, CohortCard):
        raise TypeError(f"card must be a CohortCard, not {type(card).__name__}")
    if not callable(reader):
        raise TypeError(f"reader must be callable with a folder, not {type(reader).__name__}")
    if card.key in COHORTS and card.key not in _OWN_READERS:
        raise ValueError(f"{card.key!r} is a cohort of the book; choose another key")
    COHORTS[card.key] = card
    _OWN_READERS[card.key] = reader


def load_cohort(name: str, edition: str | None = None) -> Cohort:
    """Load a cohort.

    Parameters
    ----------
    name : str
        Key in :data:`COHORTS`.
    edition : {"phantom", "released", "full"}, optional
        ``phantom``: generated scans with known truth. ``released``: the authors' tables from
        ``TUMORBENCH_DATA``; the images need not be there. ``full``: the same, and every image must
        be there. If None: ``TUMORBENCH_EDITION``, else ``phantom``.

    Returns
    -------
    Cohort

    Raises
    ------
    KeyError
        If the name is not known.
    ValueError
        If the edition is not known.
    CohortError
        If tables or images are not there or not what they should be.
    """
    known, edition = card(name), settings.edition(edition)
    if name in _OWN_READERS:
        table = _OWN_READERS[name](settings.data_dir())
        if not isinstance(table, pd.DataFrame):
            raise CohortError(f"the reader of {name} gave {type(table).__name__}, not a DataFrame")
        return Cohort(known, edition, check_standard(table, f"the table of {name}"))
    if edition == "phantom":
        from tumorbench_utils import phantoms

        return Cohort(known, edition, check_standard(phantoms.generate(name), f"phantoms {name}"))
    from tumorbench_utils.cohorts import released

    return Cohort(known, edition, released.load(name, edition))
