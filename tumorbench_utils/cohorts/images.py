"""Images for the full edition: which there are, and how large.

Five cohorts lie in the NCI Imaging Data Commons, whose index comes with the package
``idc-index-data`` and is read without a network; LUNA16 and DLCS lie on Zenodo. ``tumorbench
cohorts fetch NAME --images`` gets them.
"""

from pathlib import Path

import idc_index_data
import pandas as pd

from tumorbench_utils import settings
from tumorbench_utils.cohorts.cards import CohortError
from tumorbench_utils.cohorts.registry import card, is_own
from tumorbench_utils.cohorts.released import read_released_table, released_folder
from tumorbench_utils.settings import book_data

#: Columns of a plan, by their names in the archive's index.
_INDEX = {
    "Modality": "role",
    "PatientID": "patient",
    "StudyInstanceUID": "study",
    "SeriesInstanceUID": "series",
    "instanceCount": "instances",
    "series_size_MB": "gigabytes",
    "license_short_name": "licence",
}
PLAN_COLUMNS = ["scan_id", "role", "patient", "study", "series", "candidates"]
PLAN_COLUMNS += ["instances", "gigabytes", "licence"]


def data_folder() -> Path:
    """Return where fetched data goes: ``TUMORBENCH_DATA``, else ``data`` in the cache folder."""
    return settings.data_dir() or settings.cache_dir() / "data"


def plan(name: str) -> pd.DataFrame:
    """List the series that the full edition of a cohort needs, without a network.

    Parameters
    ----------
    name : str
        Key of a cohort of the book. If its released table is there, only its scans are listed;
        else every patient of the collection that has a segmentation.

    Returns
    -------
    DataFrame
        One row per series, with ``scan_id`` (of the released table), ``role`` (CT or SEG),
        ``patient``, ``study``, ``series`` (DICOM names), ``candidates`` (CT series in the study
        among which the reference inside the SEG decides; 1: certain), ``instances`` (files),
        ``gigabytes`` (uncompressed) and ``licence``. For LUNA16 the series are those of LIDC-IDRI,
        of which the Zenodo files are conversions. DLCS is not in the index: its files have the
        size that Zenodo says, here missing.

    Raises
    ------
    KeyError
        If the name is not known.
    CohortError
        If the cohort is one of your own, or a scan of the table is not in the index.
    """
    known = card(name)
    if is_own(name):
        raise CohortError(f"{name} is a cohort of your own; there is no plan for its images")
    facts = book_data("cohorts")[name].get("archive")
    if facts is None:  # DLCS: one file a patient; their sizes are known to Zenodo only
        patients = [f"DLCS_{i:04d}" for i in range(1, known.expected["patients"] + 1)]
        found = pd.DataFrame({"scan_id": patients, "patient": patients, "study": patients})
        found = found.assign(role="CT", candidates=1, instances=1, gigabytes=float("nan"))
        return found.assign(series=found["patient"] + ".nii.gz", licence=known.licence)[
            PLAN_COLUMNS
        ]
    found = _archived(**facts)
    folder = released_folder(data_folder(), name)
    if folder is not None:
        table = read_released_table(name, folder)
        scans = dict(zip(table[facts["key"]], table["scan_id"], strict=True))
        absent = sorted(set(scans) - set(found["scan_id"]))
        if absent:
            raise CohortError(
                f"{name}: {len(absent)} scans are not in the archive's index: "
                f"{', '.join(absent[:5])}"
            )
        found["scan_id"] = found["scan_id"].map(scans)
        found = found[found["scan_id"].notna()]
        if facts.get("named"):
            found = found[(found["role"] == "SEG") | (found["series"] == found["scan_id"])]
            found = found.assign(candidates=1)
    found = found.sort_values(["scan_id", "role", "series"], ignore_index=True)
    return found[PLAN_COLUMNS]


def _archived(
    collection: str, key: str, segmentation: str | None = None, named: bool = False
) -> pd.DataFrame:
    """Return the segmentations of a collection and the CT series of their studies.

    Parameters
    ----------
    collection : str
    key : {"scan_id", "patient_id", "lesion_id"}
        The column of the released table that names the scan as the archive does.
    segmentation : str, optional
        The analysis result that the published benchmark used, "" for the collection's own; None if
        the series are known without one.
    named : bool
        Whether the released table names the CT series itself.
    """
    wanted = [("collection_id", "==", collection), ("Modality", "in", ["CT", "SEG"])]
    index = pd.read_parquet(
        idc_index_data.IDC_INDEX_PARQUET_FILEPATH,
        columns=[*_INDEX, "SeriesDescription", "analysis_result_id"],
        filters=wanted,
    ).rename(columns=_INDEX)
    index = index.assign(gigabytes=index["gigabytes"] / 1000, candidates=1)
    ct = index[index["role"] == "CT"].copy()
    if segmentation is None:
        return ct.assign(scan_id=ct["series"])
    ct["candidates"] = ct.groupby("study")["series"].transform("size")
    seg = index[index["analysis_result_id"].fillna("") == segmentation]
    seg = seg[seg["role"] == "SEG"].copy()
    seg["scan_id"] = seg["patient"]
    if key == "lesion_id":  # RIDER: two scans a patient, told apart by the SEG's description
        session = seg["SeriesDescription"].str.extract("((?:RE)?TEST)$", expand=False).str.lower()
        seg["scan_id"] = seg["patient"].str.removeprefix("RIDER-") + "-" + session
    return pd.concat([seg[["study", "scan_id"]].merge(ct, on="study"), seg])


def summary(name: str) -> pd.DataFrame:
    """Return the plan of a cohort in a few rows.

    Returns
    -------
    DataFrame
        One row per role and ``pairing`` (``certain``, or ``by the reference in the SEG`` where one
        of several CT series will be taken) with counts of ``series`` and ``patients``,
        ``gigabytes`` (of all candidates) and ``licence``.

    Raises
    ------
    KeyError, CohortError
        As :func:`plan`.
    """
    listed = plan(name).drop_duplicates("series")
    certain = listed["candidates"] == 1
    listed["pairing"] = certain.map({True: "certain", False: "by the reference in the SEG"})
    return listed.groupby(["role", "pairing", "licence"], as_index=False).agg(
        series=("series", "nunique"),
        patients=("patient", "nunique"),
        gigabytes=("gigabytes", "sum"),
    )
