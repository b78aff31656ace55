"""Getting what the authors released: tables, and the images of the full edition.

Images go to ``images/NAME`` under ``TUMORBENCH_DATA``; its file ``scans.csv`` says which folder or
file holds which scan. Everything that arrives is checked.
"""

import csv
import shutil
import zipfile
import zlib
from pathlib import Path

import pandas as pd
import requests

from tumorbench_utils import digests, downloads, settings
from tumorbench_utils.cohorts.cards import CohortError
from tumorbench_utils.cohorts.images import data_folder, plan
from tumorbench_utils.cohorts.masks import referenced_series
from tumorbench_utils.cohorts.registry import card, is_own
from tumorbench_utils.cohorts.released import (
    read_released_table,
    released_files,
    released_folder,
)
from tumorbench_utils.files import atomic_path

#: Records of Zenodo that hold the images, by cohort, and where their lists of files are.
ZENODO = settings.book_data("downloads")["cohorts"]["zenodo"]
API = "https://zenodo.org/api/records"


def fetch_released(name: str) -> Path:
    """Download the released tables of a cohort and read them once.

    Files that are there already are checked and not downloaded again.

    Parameters
    ----------
    name : str
        Key of a cohort of the book.

    Returns
    -------
    Path
        The folder for ``TUMORBENCH_DATA``: the tables lie in its ``cohorts/released``.

    Raises
    ------
    KeyError
        If the name is not known.
    DownloadError
        If there is no network, or a file differs from its checksum.
    CohortError
        If a file that is already there is another one: it is left as it is.
    """
    card(name)
    if is_own(name):
        raise CohortError(f"{name} is a cohort of your own; it has no released tables")
    known = settings.book_data("downloads")["cohorts"]
    folder = data_folder() / "cohorts" / "released"
    for relative in released_files(name):
        path, expected = folder / relative, known["files"][relative]
        if path.is_file() and digests.of_file(path) != expected["sha256"]:
            raise CohortError(f"{path} is not the released file; move it away and fetch again")
        downloads.fetch(f"{known['url']}/{relative}", path, **expected)
    read_released_table(name, folder)
    return data_folder()


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
