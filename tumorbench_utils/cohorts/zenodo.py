"""Images of LUNA16 and DLCS from Zenodo: single files, or taken out of zip archives."""

import shutil
import zipfile
from collections.abc import Iterable
from pathlib import Path

import pandas as pd
import requests

from tumorbench_utils.cohorts.cards import CohortError
from tumorbench_utils.cohorts.fetch import download
from tumorbench_utils.files import atomic_path

#: Records that hold the images.
RECORDS = {"luna16": (3723295, 4121926), "dlcs": (13799069,)}
API = "https://zenodo.org/api/records"


def fetch_scans(name: str, table: pd.DataFrame, root: Path) -> dict[str, str]:
    """Download what holds the scans of a table; return the file of each scan.

    Parameters
    ----------
    name : str
        Key in :data:`RECORDS`.
    table : DataFrame
        With ``scan_id`` and ``image_path``, the name of the scan's file.
    root : Path
        Where the scans go.

    Raises
    ------
    CohortError
        If there is no network, a file is damaged, or a scan is in no file of the records.
    """
    needed = dict(zip(table["image_path"], table["scan_id"], strict=True))
    for file in _record_files(RECORDS[name]):
        absent = {path for path in needed if not _complete(root / path)}
        if not absent:
            break
        if file["key"] in absent:
            download(file["links"]["self"], root / file["key"], file["checksum"])
        elif file["key"].endswith(".zip") and _may_hold(root / f"{file['key']}.names", absent):
            archive = root / file["key"]
            download(file["links"]["self"], archive, file["checksum"])
            extract(archive, absent, root)
            archive.unlink()
    absent = sorted(path for path in needed if not _complete(root / path))
    if absent:
        raise CohortError(
            f"{root}: {len(absent)} of {len(needed)} scans are in no file of the Zenodo records "
            f"{', '.join(map(str, RECORDS[name]))}, for example {absent[0]}"
        )
    return {scan: path for path, scan in needed.items()}


def _may_hold(names: Path, absent: set[str]) -> bool:
    """Return whether an archive may hold scans, by the list of names that an earlier try left."""
    return not names.is_file() or bool(absent & set(names.read_text().split("\n")))


def _record_files(records: Iterable[int]) -> list[dict]:
    """Return the files of Zenodo records: name, link and checksum."""
    files = []
    for record in records:
        try:
            answer = requests.get(f"{API}/{record}", timeout=60)
            answer.raise_for_status()
            files += answer.json()["files"]
        except (requests.RequestException, KeyError, ValueError) as error:
            raise CohortError(
                f"no list of the files of Zenodo record {record} ({type(error).__name__}); fetch "
                "again with a network"
            ) from None
    return files


def _complete(path: Path) -> bool:
    """Return whether an image is there, with the file of voxels that a header names."""
    if not path.is_file():
        return False
    return path.suffix != ".mhd" or path.with_suffix(".raw").is_file()


def extract(archive: Path, names: set[str], root: Path) -> None:
    """Take wanted scans out of a zip file, whatever folder they lie in there.

    Parameters
    ----------
    archive : Path
    names : set of str
        File names, written to `root`; a header's file of voxels comes along.
    root : Path
        Only names asked for are written, so nothing in the archive can leave it. What the archive
        holds is listed in its name + ``.names``.

    Raises
    ------
    CohortError
        If the archive is damaged.
    """
    wanted = names | {name[:-4] + ".raw" for name in names if name.endswith(".mhd")}
    try:
        with zipfile.ZipFile(archive) as content:
            members = {member.rsplit("/", 1)[-1]: member for member in content.namelist()}
            # Voxels first: a header without them would look complete.
            for name in sorted(wanted & set(members), key=lambda n: n.endswith(".mhd")):
                with (
                    content.open(members[name]) as source,
                    atomic_path(root / name) as part,
                    open(part, "wb") as target,
                ):
                    shutil.copyfileobj(source, target)
    except (zipfile.BadZipFile, EOFError) as error:
        raise CohortError(
            f"{archive}: a damaged zip file ({error}); remove it, fetch again"
        ) from None
