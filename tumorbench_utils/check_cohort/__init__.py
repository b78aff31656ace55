"""A look at a cohort before anything is computed: what would spoil a result, found and named.

Faults must be mended: with them results are wrong or not to be had. Remarks are things to think
about; only who knows the patients can say whether they matter.
"""

from tumorbench_utils.check_cohort.check import CohortCheck, check, read

__all__ = ["CohortCheck", "check", "read"]
