"""Cohorts: cards, released tables, phantom twins, images and seeds from masks."""

import importlib

from tumorbench_utils.cohorts.cards import COHORTS, CohortCard, CohortError
from tumorbench_utils.cohorts.load import Cohort, load_cohort
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
    "load_readers",
    "read_released_table",
    "register",
    "seeds_from_mask",
]

#: Imported when they are asked for: what reads images is slow to import.
_LATER = {"describe": "own", "load_readers": "lidc", "seeds_from_mask": "masks"}


def __getattr__(name):
    if name in _LATER:
        return getattr(importlib.import_module(f"{__name__}.{_LATER[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
