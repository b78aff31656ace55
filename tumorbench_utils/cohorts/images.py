"""Images for the full edition: what to get, getting it, and checking that it has arrived.

Five cohorts lie in the NCI Imaging Data Commons, whose index comes with the package
``idc-index-data`` and is read without a network; LUNA16 and DLCS lie on Zenodo. Images go to
``images/NAME`` under ``TUMORBENCH_DATA``; its file ``scans.csv`` says which folder or file holds
which scan.
"""

import csv
import shutil
import zipfile
import zlib
from pathlib import Path

import idc_index_data
import pandas as pd
import requests

from tumorbench_utils import downloads
from tumorbench_utils.cohorts.cards import CohortError
from tumorbench_utils.cohorts.fetch import data_folder
from tumorbench_utils.cohorts.masks import referenced_series
from tumorbench_utils.cohorts.registry import card, is_own
from tumorbench_utils.cohorts.released import read_released_table, released_folder
from tumorbench_utils.files import atomic_path
from tumorbench_utils.settings import book_data

#: Records of Zenodo that hold the images, by cohort, and where their lists of files are.
ZENODO = book_data("downloads")["cohorts"]["zenodo"]
API = "https://zenodo.org/api/records"

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
    CohortError, DownloadError
        If the table is absent, the disk is too small, there is no network, or images are missing
        or incomplete afterwards: which, and how many.
    """
    card(name)
    folder = released_folder(data_folder(), name)
    if folder is None:
        raise CohortError(f"get the released table first: `tumorbench cohorts fetch {name}`")
    root = data_folder() / "images" / name
    root.mkdir(parents=True, exist_ok=True)
    if name in ZENODO:
        scans = _from_zenodo(name, read_released_table(name, folder), root)
    else:
        scans = _from_archive(name, root)
    with atomic_path(root / "scans.csv") as part, open(part, "w", newline="") as stream:
        csv.writer(stream).writerows([("scan_id", "path"), *sorted(scans.items())])
    return root


# ---------------------------------------------------------------------------- Imaging Data Commons


def _from_archive(name: str, root: Path) -> dict[str, str]:
    """Download the CT series of a cohort; return the folder of each scan, relative to `root`."""
    wanted = plan(name)
    ct = wanted[wanted["role"] == "CT"]
    unsure = ct[ct["candidates"] > 1]
    masks = wanted[(wanted["role"] == "SEG") & wanted["scan_id"].isin(unsure["scan_id"])]
    download_series(masks, root)
    kept = [_referenced(rows, masks, root) for _, rows in unsure.groupby("scan_id")]
    ct = pd.concat([ct.drop(unsure.index), *kept])
    download_series(ct, root)
    return ct.set_index("scan_id", verify_integrity=True)["series"].to_dict()


def _referenced(rows: pd.DataFrame, masks: pd.DataFrame, root: Path) -> pd.DataFrame:
    """Return the one CT series among `rows` that the scan's segmentation refers to."""
    scan = rows["scan_id"].iloc[0]
    segmentations = masks.loc[masks["scan_id"] == scan, "series"]
    files = [file for series in segmentations for file in (root / series).iterdir()]
    kept = rows[rows["series"].isin(set().union(*map(referenced_series, files)))]
    if len(kept) != 1:
        raise CohortError(
            f"the segmentation of {scan} refers to {len(kept)} of the {len(rows)} CT series of its "
            "study; it cannot be told which is meant"
        )
    return kept


def download_series(wanted: pd.DataFrame, root: Path) -> None:
    """Download series that are not complete yet and count their files afterwards.

    The client of the archive does not raise when it fails, so its word is not taken.

    Parameters
    ----------
    wanted : DataFrame
        With ``series``, ``instances`` and ``gigabytes``.
    root : Path
        Each series gets a folder of its name in it.

    Raises
    ------
    CohortError
        If the disk is too small, or series are incomplete afterwards.
    """

    def incomplete(rows: pd.DataFrame) -> pd.DataFrame:
        arrived = [
            sum(file.stat().st_size > 0 for file in (root / series).glob("*.dcm"))
            for series in rows["series"]
        ]
        return rows.assign(arrived=arrived)[arrived != rows["instances"]]

    missing = incomplete(wanted)
    if missing.empty:
        return
    coming, free = missing["gigabytes"].sum(), shutil.disk_usage(root).free / 1e9
    if coming > free:
        raise CohortError(f"{root}: {coming:.1f} GB are to come, {free:.1f} GB are free")
    _get_from_archive(missing["series"].tolist(), root)
    failed = incomplete(missing)
    if len(failed):
        first = failed.iloc[0]
        raise CohortError(
            f"{root}: {len(failed)} of {len(wanted)} series are incomplete, for example "
            f"{first['series']}: {first['arrived']} of {first['instances']} files. Is there a "
            "network? Fetch again: what has arrived is kept"
        )


def _get_from_archive(series: list[str], root: Path) -> None:
    from idc_index import IDCClient  # slow to import and large in memory: only where needed

    IDCClient().download_from_selection(
        seriesInstanceUID=series,
        downloadDir=str(root),
        dirTemplate="%SeriesInstanceUID",
        use_s5cmd_sync=True,
    )


# ------------------------------------------------------------------------------------------- Zenodo


def _from_zenodo(name: str, table: pd.DataFrame, root: Path) -> dict[str, str]:
    """Download what holds the scans of a table; return the file of each scan."""

    def absent() -> set[str]:
        """Return the scans that are not there, or lack the file of voxels beside their header."""
        files = {path: (path, path.replace(".mhd", ".raw")) for path in table["image_path"]}
        return {k for k, needed in files.items() if not all((root / f).is_file() for f in needed)}

    for key, url, md5, size in _zenodo_files(name):
        wanted, path = absent(), root / Path(key).name
        names = path.with_name(f"{path.name}.names")  # what an archive held, from an earlier try
        held = set(names.read_text().split("\n")) if names.is_file() else wanted
        if path.name in wanted or (path.suffix == ".zip" and wanted & held):
            downloads.fetch(url, path, md5=md5, size=size)
            if path.suffix == ".zip":
                names.write_text("\n".join(extract(path, wanted, root)))
                path.unlink()
    if missing := sorted(absent()):
        raise CohortError(
            f"{root}: {len(missing)} of {len(table)} scans are in no file of the Zenodo records "
            f"{', '.join(map(str, ZENODO[name]))}, for example {missing[0]}"
        )
    return dict(zip(table["scan_id"], table["image_path"], strict=True))


def _zenodo_files(name: str) -> list[tuple[str, str, str, int]]:
    """Return the files of a cohort's records: name, address, MD5 and size."""
    try:
        found = []
        for record in ZENODO[name]:
            answer = requests.get(f"{API}/{record}", timeout=60)
            answer.raise_for_status()
            found += [
                (f["key"], f["links"]["self"], f["checksum"].removeprefix("md5:"), f["size"])
                for f in answer.json()["files"]
            ]
    except (requests.RequestException, LookupError, ValueError, TypeError, AttributeError) as error:
        raise CohortError(
            f"no list of the files of Zenodo record {record} ({type(error).__name__}); fetch again "
            "with a network"
        ) from None
    return found


def extract(archive: Path, names: set[str], root: Path) -> list[str]:
    """Take wanted scans out of a zip file, whatever folder they lie in there.

    Parameters
    ----------
    archive : Path
    names : set of str
        File names, written to `root`; a header's file of voxels comes along.
    root : Path
        Only names asked for are written, so nothing in the archive can leave it.

    Returns
    -------
    list of str
        The names of all files in the archive.

    Raises
    ------
    CohortError
        If the archive is damaged.
    """
    wanted = names | {name.replace(".mhd", ".raw") for name in names}
    try:
        with zipfile.ZipFile(archive) as content:
            members = {member.rsplit("/", 1)[-1]: member for member in content.namelist()}
            # Voxels first: a header without them would look complete.
            for name in sorted(wanted & set(members), key=lambda n: n.endswith(".mhd")):
                with content.open(members[name]) as source, atomic_path(root / name) as part:
                    with open(part, "wb") as target:
                        shutil.copyfileobj(source, target)
    except (zipfile.BadZipFile, EOFError, RuntimeError, zlib.error) as error:
        raise CohortError(
            f"{archive}: a damaged zip file ({error}); remove it, fetch again"
        ) from None
    return list(members)
