"""What is known about each cohort: source, endpoint, covariates, counts and known problems.

The facts are in ``data/cohorts.yml``.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from tumorbench_utils.checks import InputError
from tumorbench_utils.settings import book_data


class CohortError(InputError):
    """A cohort table, mask or image that is not what it should be: file, row and column named."""


@dataclass(frozen=True)
class CohortCard:
    """The facts about one cohort.

    Parameters
    ----------
    key, title : str
        Name in :data:`COHORTS` and name on the page; the rest may be left empty by a cohort of
        your own.
    organ, endpoint : str
        Body part and what is predicted.
    label_rule : str
        The exact rule of ``label``.
    positive : str
        What label 1 means; empty for a cohort without endpoint.
    source, doi : str
        Where the images come from, and the DOI of the data.
    licence, access : str
        Licence of the images and how to get them.
    image_format : str
        Format of the images that the published benchmark read.
    covariates : mapping of str to str
        Columns of the released table beyond those that every cohort has, and their unit or coding.
    size_column : str or None
        The ruler: column that holds a size. ``size_mm`` is always in millimetres; a size in any
        other unit has another name.
    size_direction : {1, -1}
        1 if a larger size speaks for label 1, -1 if it speaks against it; also where the released
        table has no size but the phantom twin has.
    clinical_column : str or None
        The clinical score: a covariate that a clinician has without an image model.
    clinical_direction : {1, -1}
        As `size_direction`.
    exclusions : mapping of str to str
        Lesions of the released table that are left out, and why.
    expected : mapping of str to int
        Counts of the released table, exclusions not yet made: ``rows``, ``scans``, ``patients``,
        ``label_0``, ``label_1``, ``label_missing``, the same three with ``reference_`` for the
        published label, ``used_in_reference``, for survival cohorts ``events`` and, where rows
        were dropped before the release, ``rated``: how many there were.
    citation : str
        Key in the bibliography.
    known_problems : tuple of str
        What is known to be wrong or weak in the released table.
    """

    key: str
    title: str
    organ: str = ""
    endpoint: str = ""
    label_rule: str = ""
    positive: str = ""
    source: str = ""
    doi: str = ""
    licence: str = ""
    access: str = ""
    image_format: str = ""
    covariates: Mapping[str, str] = field(default_factory=dict)
    size_column: str | None = None
    size_direction: int = 1
    clinical_column: str | None = None
    clinical_direction: int = 1
    exclusions: Mapping[str, str] = field(default_factory=dict)
    expected: Mapping[str, int] = field(default_factory=dict)
    citation: str = ""
    known_problems: tuple[str, ...] = ()

    @property
    def has_survival(self) -> bool:
        """Whether the released table holds times to death."""
        return "events" in self.expected


#: Cards by key, in the order of the book. :func:`tumorbench_utils.cohorts.register` adds to it.
COHORTS: dict[str, CohortCard] = {
    key: CohortCard(
        key,
        known_problems=tuple(facts["known_problems"]),
        **{k: facts[k] for k in facts if k not in ("known_problems", "archive", "table")},
    )
    for key, facts in book_data("cohorts").items()
}
