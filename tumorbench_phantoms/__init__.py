"""Procedural CT cohorts whose truth is known.

A *case* is an anatomy with lesions of a known phenotype; a *scan* is what a scanner with given
settings makes of it. A *cohort* is a loop over cases with an outcome drawn from the phenotype, so
that the best reachable AUC and concordance are known. All parameters are in ``data/phantoms.yml``.

>>> import tumorbench_phantoms as phantoms
>>> table = phantoms.generate("luna16", "a folder")              # doctest: +SKIP
>>> again = phantoms.render("luna16", table.scan_id[0], noise_hu=60, seed=1)  # doctest: +SKIP
>>> other = phantoms.sample("luna16", 7)                         # doctest: +SKIP
>>> scan = phantoms.scan(other.case, other.acquisition, other.noise)  # doctest: +SKIP
"""

from tumorbench_phantoms.cohort import Planned, generate, plan, render, sample
from tumorbench_phantoms.facts import FACTS, facts
from tumorbench_phantoms.latent import draw, stream
from tumorbench_phantoms.lesion import Lesion
from tumorbench_phantoms.parameters import check, load, of_cohort
from tumorbench_phantoms.scanner import Acquisition, Case, Scan, scan
from tumorbench_phantoms.stranger import write_strange

__all__ = [
    "FACTS",
    "Acquisition",
    "Case",
    "Lesion",
    "Planned",
    "Scan",
    "check",
    "draw",
    "facts",
    "generate",
    "load",
    "of_cohort",
    "plan",
    "render",
    "sample",
    "scan",
    "stream",
    "write_strange",
]
