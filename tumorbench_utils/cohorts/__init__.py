"""Cohorts: cards, released tables, phantom twins, images and seeds from masks."""

from tumorbench_utils.cohorts.cards import COHORTS, CohortCard, CohortError
from tumorbench_utils.cohorts.load import Cohort, load_cohort
from tumorbench_utils.cohorts.masks import seeds_from_mask
from tumorbench_utils.cohorts.own import describe, read_own_table
from tumorbench_utils.cohorts.registry import card, register
from tumorbench_utils.cohorts.released import read_released_table

__all__ = [
    "COHORTS",
    "Cohort",
    "CohortCard",
    "CohortError",
    "card",
    "describe",
    "load_cohort",
    "read_own_table",
    "read_released_table",
    "register",
    "seeds_from_mask",
]
