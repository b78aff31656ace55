"""Cohorts: cards, released tables, phantom twins, images and seeds from masks."""

from tumorbench_utils.cohorts.cards import COHORTS, CohortCard, CohortError
from tumorbench_utils.cohorts.load import Cohort, load_cohort
from tumorbench_utils.cohorts.registry import card, register
from tumorbench_utils.cohorts.released import read_released_table
