"""Cohorts by name and edition."""

from dataclasses import dataclass

import pandas as pd

from tumorbench_utils import settings
from tumorbench_utils.cohorts.cards import CohortCard
from tumorbench_utils.cohorts.registry import card, is_own, read_own
from tumorbench_utils.cohorts.released import load_released
from tumorbench_utils.cohorts.tables import check_standard


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


def load_cohort(name: str, edition: str | None = None) -> Cohort:
    """Load a cohort.

    Parameters
    ----------
    name : str
        Key in :data:`COHORTS`, or ``"lidc"``: all lesions that at least three radiologists of
        LIDC-IDRI outlined, the same in every edition and without images.
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
    edition = settings.edition(edition)
    if name == "lidc":  # people's readings of patients, in every edition
        from tumorbench_utils.cohorts import lidc

        return Cohort(lidc.CARD, edition, lidc.lidc_table())
    known = card(name)
    if is_own(name):
        return Cohort(known, edition, read_own(name, settings.data_dir()))
    if edition == "phantom":
        from tumorbench_utils.cohorts.phantom import (
            phantom_table,  # the generator is slow to import
        )

        return Cohort(known, edition, check_standard(phantom_table(name), f"phantoms {name}"))
    images = edition == "full"
    return Cohort(known, edition, load_released(name, settings.data_dir(), images=images))
