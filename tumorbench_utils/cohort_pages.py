"""Until the chapters on trust import it from where it is."""

from tumorbench_utils.pages.cohort import with_images  # noqa: F401
