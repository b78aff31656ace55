"""One reader per layout of the released tables.

A reader gets the folder of the released tables and the names of its files. It returns the table of
all rows, nothing left out, and the list of values that are known to be wrong or odd.
"""

from tumorbench_utils.cohorts.readers.abdomen import c4kc_kits, colorectal_liver_metastases
from tumorbench_utils.cohorts.readers.lung_cancer import nsclc_radiogenomics, nsclc_radiomics
from tumorbench_utils.cohorts.readers.nodules import dlcs, luna16, rider_lung_ct

#: By cohort: the reader and its files, in the folder of the released tables.
READERS = {
    "luna16": (luna16, tuple(f"luna16/luna16/{part}.csv" for part in ("train", "val", "test"))),
    "dlcs": (dlcs, ("dlcs/data.csv",)),
    "nsclc_radiomics": (
        nsclc_radiomics,
        (
            "nsclc_radiomics/annotations.csv",
            *(f"nsclc_radiomics/{part}_annotations.csv" for part in ("train", "val", "test")),
        ),
    ),
    "nsclc_radiogenomics": (
        nsclc_radiogenomics,
        (
            "nsclc_radiogenomics/annotations.csv",
            *(f"nsclc_radiogenomics/{part}_annotations.csv" for part in ("train", "val", "test")),
        ),
    ),
    "c4kc_kits": (c4kc_kits, ("c4c-kits/data.csv",)),
    "colorectal_liver_metastases": (
        colorectal_liver_metastases,
        ("colorectal_liver_metastases/data.csv",),
    ),
    "rider_lung_ct": (rider_lung_ct, ("rider/annotations.csv",)),
}

__all__ = ["READERS"]
