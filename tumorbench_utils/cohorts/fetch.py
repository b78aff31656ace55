"""Getting the released tables: pinned, checked, resumed, and said plainly where it fails."""

import os
from pathlib import Path

import pooch
import requests
from tqdm import tqdm

from tumorbench_utils import digests, settings
from tumorbench_utils.cohorts.cards import CohortError
from tumorbench_utils.cohorts.readers import READERS
from tumorbench_utils.cohorts.registry import card, is_own
from tumorbench_utils.cohorts.released import read_released_table

#: The commit of the published repository whose tables this book reads.
COMMIT = "f73f60676abc95f07c809d7122c661d116b426df"
TABLES_URL = f"https://raw.githubusercontent.com/AIM-Harvard/TumorImagingBench/{COMMIT}/data/eval"

#: SHA-256 of the released tables at that commit.
CHECKSUMS = {
    "luna16/luna16/train.csv": "8c0f6fc47ae0ab6ea03f7424086e1c83925f459f59b32d0be1d0d21700662ba9",
    "luna16/luna16/val.csv": "ae222b0a74c743a583cb8a2b0086a10082b8ee838e48d97df3940450e94d2b4e",
    "luna16/luna16/test.csv": "a9a1fb91f563d626729cfbc8138df2d962331359cf4ea6c355655ea8fc0886a4",
    "dlcs/data.csv": "cee8f64cf5d9f2f61fd4c655ca57ac55031adaff1dc79912107548e6988b23e5",
    "nsclc_radiomics/annotations.csv": (
        "d82bd45a6e2ad82fe96a1516a9fb0f9b23d9fe5c27bcd8ce9c9f5794a46365ad"
    ),
    "nsclc_radiomics/train_annotations.csv": (
        "6354766fe315ebbe16c06ed54ce5a2bb45723ecac20cfbdab56c000c5b2506f9"
    ),
    "nsclc_radiomics/val_annotations.csv": (
        "bb959a3a09a391f7846a2b19d091ba46667dd8c51deb532941006304542162fb"
    ),
    "nsclc_radiomics/test_annotations.csv": (
        "a44b4b3355bbe2f81fc85d69f228e9a13078567fae53ccae3dda961a92865d9c"
    ),
    "nsclc_radiogenomics/annotations.csv": (
        "424c15684fb42db6dc0ce93e8f6534efdb64d1108b7758c3da9ac48d437bd151"
    ),
    "nsclc_radiogenomics/train_annotations.csv": (
        "a191df9b652e951b954fce8dc6aae391ffd75bfd1c52d2abef642f31d3c4b509"
    ),
    "nsclc_radiogenomics/val_annotations.csv": (
        "35ec1cd695096651576a824efb301e57a8e8f9dcb141e77c559cc818ce70a1ad"
    ),
    "nsclc_radiogenomics/test_annotations.csv": (
        "3ca55f47e7515a5061a8efc5baf8273e09a2a56dd26154fb0f7e3ac835fe76b0"
    ),
    "c4c-kits/data.csv": "26f8dc5d012039dc4dd2a427b55e8bb80e259d97fc1ecc53d0749cba010df702",
    "colorectal_liver_metastases/data.csv": (
        "78744afded3540041b4abefb9c482bc5faf51b1767a356a6fda0b0dd7634c343"
    ),
    "rider/annotations.csv": "3baa97283ffddeb931f97c1446af0298ceaf2f26684af9b143d6cadd0e3b5472",
}


def data_folder() -> Path:
    """Return where fetched data goes: ``TUMORBENCH_DATA``, else ``data`` in the cache folder."""
    return settings.data_dir() or settings.cache_dir() / "data"


def fetch_released(name: str) -> Path:
    """Download the released tables of a cohort and read them once.

    Files that are there already are checked and not downloaded again; an interrupted download goes
    on where it stopped.

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
    CohortError
        If there is no network, a file differs from its checksum, or a file that is already there
        is another one.
    """
    card(name)
    if is_own(name):
        raise CohortError(f"{name} is a cohort of your own; it has no released tables")
    data = data_folder()
    folder = data / "cohorts" / "released"
    for relative in READERS[name][1]:
        download(f"{TABLES_URL}/{relative}", folder / relative, f"sha256:{CHECKSUMS[relative]}")
    read_released_table(name, folder)
    return data


def download(url: str, path: Path, known_hash: str) -> Path:
    """Download a file unless it is there; resume, show progress, check.

    Parameters
    ----------
    url : str
    path : Path
        Final name. While the download runs the bytes are in ``path`` + ``.part``.
    known_hash : str
        ``"sha256:..."`` or ``"md5:..."``.

    Raises
    ------
    CohortError
        If there is no network, the server refuses, or the bytes do not have the hash.
    """
    if path.is_file():
        kind, expected = known_hash.split(":")
        found = digests.of_file(path) if kind == "sha256" else pooch.file_hash(str(path), alg=kind)
        if found == expected:
            return path
        raise CohortError(
            f"{path}: is there, but is not the released file ({kind} {found[:12]}..., expected "
            f"{expected[:12]}...); move it away and fetch again"
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    pooch.get_logger().setLevel("WARNING")
    try:
        pooch.retrieve(
            url, known_hash, fname=path.name, path=path.parent, downloader=_ResumingDownloader(path)
        )
    except requests.HTTPError as error:
        raise CohortError(f"{url}: the server answers {error}") from None
    except requests.RequestException as error:
        raise CohortError(
            f"no connection to {url} ({type(error).__name__}). Fetch again with a network; what "
            f"has arrived is kept. Or bring the file from elsewhere and put it at {path}"
        ) from None
    except ValueError as error:
        raise CohortError(f"{url}: arrived damaged, thrown away; fetch again ({error})") from None
    return path


class _ResumingDownloader:
    """A downloader for pooch that goes on with the ``.part`` file of an earlier try."""

    def __init__(self, path: Path):
        self.path = path
        self.part = path.with_name(path.name + ".part")

    def __call__(self, url: str, output_file: str, _pooch, **_) -> None:
        done = self.part.stat().st_size if self.part.exists() else 0
        # Compressed answers have other offsets than the file, so none are asked for.
        headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={done}-"} if done else {})
        with requests.get(url, headers=headers, stream=True, timeout=60) as answer:
            if answer.status_code == requests.codes.requested_range_not_satisfiable:
                answer.close()  # all of it had arrived, or the part is of another file
                os.replace(self.part, output_file)
                return
            answer.raise_for_status()
            if answer.status_code != requests.codes.partial_content:
                done = 0
            total = done + int(answer.headers.get("Content-Length", 0))
            with (
                open(self.part, "ab" if done else "wb") as stream,
                tqdm(
                    total=total, initial=done, unit="B", unit_scale=True, desc=self.path.name
                ) as bar,
            ):
                for block in answer.iter_content(1 << 20):
                    stream.write(block)
                    bar.update(len(block))
        if total > done and self.part.stat().st_size < total:
            raise requests.ConnectionError(f"{self.part.stat().st_size} of {total} bytes arrived")
        os.replace(self.part, output_file)
