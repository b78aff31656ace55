"""Cohorts: cards, released tables, phantom twins, images and seeds from masks."""

from tumorbench_utils.cohorts.cards import COHORTS, CohortCard, CohortError
from tumorbench_utils.cohorts.load import Cohort, card, load_cohort, register

__all__ = [
    "COHORTS",
    "Cohort",
    "CohortCard",
    "CohortError",
    "card",
    "load_cohort",
    "register",
]
