"""A report of a model or a cohort: analyses, methods, versions and items of reporting guidelines.

>>> from tumorbench_utils import report
>>> report.of_model("my_model", ["luna16", "rider_lung_ct"]).write("my_report")  # doctest: +SKIP
"""

from tumorbench_utils.report.analyses import (
    discrimination,
    draw,
    likeness,
    repeatability,
    time_to_event,
)
from tumorbench_utils.report.page import Report, of_cohort, of_model

__all__ = [
    "Report",
    "discrimination",
    "draw",
    "likeness",
    "of_cohort",
    "of_model",
    "repeatability",
    "time_to_event",
]
