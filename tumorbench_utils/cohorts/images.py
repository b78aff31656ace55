"""Images for the full edition: what to get, getting it, and checking that it has arrived.

Five cohorts lie in the NCI Imaging Data Commons, whose index comes with the package
``idc-index-data`` and is read without a network; LUNA16 and DLCS lie on Zenodo. Images go to
``images/NAME`` under ``TUMORBENCH_DATA``; its file ``scans.csv`` says which folder or file holds
which scan.
"""

import csv
import shutil
from collections.abc import Callable
from pathlib import Path

import duckdb
import idc_index_data
import pandas as pd

from tumorbench_utils.cohorts import zenodo
from tumorbench_utils.cohorts.cards import CohortError
from tumorbench_utils.cohorts.fetch import data_folder
from tumorbench_utils.cohorts.masks import referenced_series
from tumorbench_utils.cohorts.registry import card, is_own
from tumorbench_utils.cohorts.released import read_released_table, released_folder
from tumorbench_utils.files import atomic_path

#: The analysis result whose segmentations the published benchmark used, where it is not the
#: collection's own.
_ANALYSIS = {"rider_lung_ct": "rider_lungct_seg"}

PLAN_COLUMNS = (
    "scan_id",
    "role",
    "patient",
    "study",
    "series",
    "candidates",
    "instances",
    "gigabytes",
    "licence",
)


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
    card(name)
    if is_own(name):
        raise CohortError(f"{name} is a cohort of your own; there is no plan for its images")
    if name == "dlcs":
        return _dlcs_files()
    table = _table_if_there(name)
    found = _luna16_series() if name == "luna16" else _paired_series(name)
    if table is not None:
        keys = _index_keys(name, table)
        absent = sorted(set(keys) - set(found["key"]))
        if absent:
            raise CohortError(
                f"{name}: {len(absent)} scans are not in the archive's index: "
                f"{', '.join(absent[:5])}"
            )
        found["scan_id"] = found["key"].map(keys)
        found = found[found["scan_id"].notna()]
        if name in ("c4kc_kits", "colorectal_liver_metastases"):  # their tables name the series
            found = found[(found["role"] == "SEG") | (found["series"] == found["scan_id"])]
            found = found.assign(candidates=1)
    else:
        found["scan_id"] = found["key"]
    found = found.sort_values(["scan_id", "role", "series"], ignore_index=True)
    return found[list(PLAN_COLUMNS)]


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
    grouped = listed.groupby(["role", "pairing", "licence"], as_index=False)
    return grouped.agg(
        series=("series", "nunique"),
        patients=("patient", "nunique"),
        gigabytes=("gigabytes", "sum"),
    )


def _table_if_there(name: str) -> pd.DataFrame | None:
    try:
        return read_released_table(name, released_folder(data_folder(), name))
    except CohortError as error:
        if "get it with" in str(error):
            return None
        raise


def _query(sql: str, **values) -> pd.DataFrame:
    index = str(idc_index_data.IDC_INDEX_PARQUET_FILEPATH)
    with duckdb.connect() as connection:
        return connection.execute(sql, {"index": index, **values}).df()


def _luna16_series() -> pd.DataFrame:
    """Return the CT series of LIDC-IDRI; the series names of LUNA16 are theirs."""
    return _query(
        """
        SELECT SeriesInstanceUID AS key, 'CT' AS role, PatientID AS patient,
               StudyInstanceUID AS study, SeriesInstanceUID AS series, 1 AS candidates,
               instanceCount AS instances, series_size_MB / 1000 AS gigabytes,
               license_short_name AS licence
        FROM read_parquet($index) WHERE collection_id = 'lidc_idri' AND Modality = 'CT'
        """
    )


def _dlcs_files() -> pd.DataFrame:
    """Return the files of DLCS, one per patient; their sizes are known to Zenodo only."""
    known = card("dlcs")
    patients = [f"DLCS_{i:04d}" for i in range(1, known.expected["patients"] + 1)]
    frame = pd.DataFrame({"scan_id": patients, "patient": patients, "study": patients})
    frame = frame.assign(role="CT", candidates=1, instances=1, gigabytes=float("nan"))
    frame["series"] = frame["patient"] + ".nii.gz"
    return frame.assign(licence=known.licence)[list(PLAN_COLUMNS)]


def _paired_series(name: str) -> pd.DataFrame:
    """Return every segmentation of a collection and the CT series of its study."""
    found = _query(
        """
        WITH seg AS (
            SELECT * FROM read_parquet($index)
            WHERE collection_id = $name AND Modality = 'SEG'
              AND coalesce(analysis_result_id, '') = $analysis
        ), ct AS (
            SELECT *, count(*) OVER (PARTITION BY StudyInstanceUID) AS candidates
            FROM read_parquet($index) WHERE collection_id = $name AND Modality = 'CT'
        ), pair AS (
            SELECT seg.SeriesInstanceUID AS seg_series,
                   regexp_extract(seg.SeriesDescription, '(RE)?TEST$') AS session, ct.*
            FROM seg JOIN ct USING (StudyInstanceUID)
        )
        SELECT PatientID AS patient, lower(session) AS session, 'CT' AS role,
               StudyInstanceUID AS study, SeriesInstanceUID AS series, candidates,
               instanceCount AS instances, series_size_MB / 1000 AS gigabytes,
               license_short_name AS licence FROM pair
        UNION ALL
        SELECT PatientID, lower(regexp_extract(SeriesDescription, '(RE)?TEST$')), 'SEG',
               StudyInstanceUID, SeriesInstanceUID, 1, instanceCount, series_size_MB / 1000,
               license_short_name FROM seg
        """,
        name=name,
        analysis=_ANALYSIS.get(name, ""),
    )
    found["key"] = found["patient"]
    if name == "rider_lung_ct":
        found["key"] = found["patient"].str.removeprefix("RIDER-") + "-" + found["session"]
    return found


def _index_keys(name: str, table: pd.DataFrame) -> dict[str, str]:
    """Return scan_id by the name that the index has for it."""
    key = {"luna16": "scan_id", "rider_lung_ct": "lesion_id"}.get(name, "patient_id")
    return dict(zip(table[key], table["scan_id"], strict=True))


def fetch_images(name: str) -> Path:
    """Download the images of a cohort, as far as they are not there, and verify every one.

    Parameters
    ----------
    name : str
        Key of a cohort of the book; its released table must be there.

    Returns
    -------
    Path
        The folder with the images.

    Raises
    ------
    KeyError
        If the name is not known.
    CohortError
        If the table is absent, the disk is too small, there is no network, or images are missing
        or incomplete afterwards: which, and how many.
    """
    card(name)
    data = data_folder()
    table = read_released_table(name, released_folder(data, name))
    root = data / "images" / name
    root.mkdir(parents=True, exist_ok=True)
    if name in zenodo.RECORDS:
        scans = zenodo.fetch_scans(name, table, root)
    else:
        scans = _from_archive(name, root)
    with atomic_path(root / "scans.csv") as part, open(part, "w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["scan_id", "path"])
        writer.writerows(sorted(scans.items()))
    return root


# ---------------------------------------------------------------------------- Imaging Data Commons


def _from_archive(name: str, root: Path) -> dict[str, str]:
    """Download the CT series of a cohort; return the folder of each scan, relative to `root`."""
    wanted = plan(name)
    ct = wanted[wanted["role"] == "CT"]
    unsure = ct[ct["candidates"] > 1]
    if len(unsure):
        masks = wanted[(wanted["role"] == "SEG") & wanted["scan_id"].isin(unsure["scan_id"])]
        download_series(masks, root)
        kept = [_referenced(rows, masks, root) for _, rows in unsure.groupby("scan_id")]
        ct = pd.concat([ct.drop(unsure.index), *kept])
    twice = ct["scan_id"].duplicated()
    if twice.any():
        raise CohortError(f"{name}: several series for the scan {ct['scan_id'][twice].iloc[0]}")
    download_series(ct, root)
    return dict(zip(ct["scan_id"], ct["series"], strict=True))


def _referenced(rows: pd.DataFrame, masks: pd.DataFrame, root: Path) -> pd.DataFrame:
    """Return the one CT series among `rows` that the scan's segmentation refers to."""
    scan = rows["scan_id"].iloc[0]
    named = set()
    for series in masks.loc[masks["scan_id"] == scan, "series"]:
        for file in (root / series).iterdir():
            named |= referenced_series(file)
    kept = rows[rows["series"].isin(named)]
    if len(kept) != 1:
        raise CohortError(
            f"the segmentation of {scan} refers to {len(kept)} of the {len(rows)} CT series of its "
            "study; it cannot be told which is meant"
        )
    return kept


def download_series(wanted: pd.DataFrame, root: Path, get: Callable | None = None) -> None:
    """Download series that are not complete yet and count their files afterwards.

    The client of the archive does not raise when it fails, so its word is not taken.

    Parameters
    ----------
    wanted : DataFrame
        With ``series``, ``instances`` and ``gigabytes``.
    root : Path
        Each series gets a folder of its name in it.
    get : callable, optional
        Called with a list of series and `root`. Default: the client of ``idc-index``.

    Raises
    ------
    CohortError
        If the disk is too small, or series are incomplete afterwards.
    """
    missing = wanted[_incomplete(wanted, root)]
    if missing.empty:
        return
    free = shutil.disk_usage(root).free / 1e9
    if missing["gigabytes"].sum() > free:
        raise CohortError(
            f"{root}: {missing['gigabytes'].sum():.1f} GB are to come, {free:.1f} GB are free"
        )
    (get or _get_from_archive)(missing["series"].tolist(), root)
    failed = missing[_incomplete(missing, root)]
    if len(failed):
        raise CohortError(
            f"{root}: {len(failed)} of {len(wanted)} series are incomplete, for example "
            f"{failed['series'].iloc[0]}: {_files(root / failed['series'].iloc[0])} of "
            f"{failed['instances'].iloc[0]} files. Is there a network? Fetch again: what has "
            "arrived is kept"
        )


def _incomplete(wanted: pd.DataFrame, root: Path) -> list[bool]:
    return [_files(root / row.series) != row.instances for row in wanted.itertuples(index=False)]


def _files(folder: Path) -> int:
    return sum(1 for f in folder.glob("*.dcm") if f.stat().st_size) if folder.is_dir() else 0


def _get_from_archive(series: list[str], root: Path) -> None:
    from idc_index import IDCClient  # slow to import and large in memory: only where needed

    client = IDCClient()
    client.download_from_selection(
        seriesInstanceUID=series,
        downloadDir=str(root),
        dirTemplate="%SeriesInstanceUID",
        use_s5cmd_sync=True,
    )
