"""Which feature files the authors released, where they lie, and how they get into the store."""

import shutil
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from tumorbench_utils import settings
from tumorbench_utils.embeddings.released import import_released
from tumorbench_utils.embeddings.store import EmbeddingStore


class FeaturesMissingError(FileNotFoundError):
    """The released features of a cohort have not been imported."""


def default_store(edition: str) -> EmbeddingStore:
    """Return the store of the book for an edition: ``embeddings/EDITION`` in the cache folder."""
    return EmbeddingStore(settings.cache_dir() / "embeddings" / settings.edition(edition))


_MAIN = "01e7310d62f7fa7584432981a8e302ef9e973ecf"
_RIDER = "a6d0b24e46b500e29e96423475cde707de972591"


@dataclass(frozen=True)
class ReleasedFile:
    """A released feature file: where it lies and what its contents must be."""

    name: str
    size: int
    sha256: str
    folder: str = "data/features"
    commit: str = _MAIN

    @property
    def url(self) -> str:
        """Address of the contents (not of the Git LFS pointer)."""
        base = "https://media.githubusercontent.com/media/AIM-Harvard/TumorImagingBench"
        return f"{base}/{self.commit}/{self.folder}/{self.name}"


#: The released files by cohort.
RELEASED_FILES = {
    "luna16": ReleasedFile(
        "luna.pkl",
        45157835,
        "8bc87df81f715628cb38f116fe7034f2837d6d4eace004f53b647b63d0d83c60",
    ),
    "dlcs": ReleasedFile(
        "dlcs.pkl",
        116475370,
        "869cdee9a1ce98f6c9844d73ebb71c96b25940ba1da2eeb1fdb7d9e20be84d46",
    ),
    "nsclc_radiomics": ReleasedFile(
        "nsclc_radiomics.pkl",
        28377237,
        "0cbc3539f68cc0ef87f03acfeb7c0673f017e19d7b5251303a34569a5e2a8bc8",
    ),
    "nsclc_radiogenomics": ReleasedFile(
        "nsclc_radiogenomics.pkl",
        10400677,
        "ba12d75fd139b4a32c5f194fb50bc1b931c290fab885d84efbe3bb435bdecf7a",
    ),
    "c4kc_kits": ReleasedFile(
        "c4c_kits.pkl",
        15991453,
        "542d10ccc7b926bac4eb1ad077a2704123be47e6de60f456fdd4699038f4bc13",
    ),
    "colorectal_liver_metastases": ReleasedFile(
        "colorectal_liver_metastases.pkl",
        16363424,
        "a6aea6fd787bdee4c5a6f98e52d3905aa7ff23cbd87efdc8d69470569ab9e212",
    ),
    "rider_lung_ct": ReleasedFile(
        "rider_features.pkl",
        3353109,
        "44a766ef95d48d622b5044b74f41aca5cf8175dc29b683fc87840f91952fd800",
        "src/tumorimagingbench/evaluation/features",
        _RIDER,
    ),
}


def features_file(cohort: str) -> Path | None:
    """Return the released file of a cohort in ``TUMORBENCH_DATA/features``, or None."""
    folder, known = settings.data_dir(), RELEASED_FILES.get(cohort)
    if folder is None or known is None:
        return None
    path = folder / "features" / known.name
    return path if path.is_file() else None


def features_there(cohort: str) -> bool:
    """Whether the released features of a cohort are imported, or can be from the data folder."""
    return features_file(cohort) is not None or bool(_imported(default_store("released"), cohort))


def _imported(store: EmbeddingStore, cohort: str) -> dict[str, pd.DataFrame]:
    """Return the imported features by model; none if an import did not come to its end."""
    entries = [entry.split("/") for entry in store.entries()]
    held = [model for key, model in entries if key == cohort]
    if not held or set(store.meta(cohort, held[0])["models"]) != set(held):
        return {}
    return {model: store.read(cohort, model) for model in held}


def fetch(cohort: str) -> Path:
    """Download the released file of a cohort into the cache folder, or find it there.

    Raises
    ------
    ValueError
        If what came has another checksum; it is not kept.
    OSError
        If the disk has no room for the file and its import, or the download fails.
    """
    import pooch

    known, folder = RELEASED_FILES[cohort], settings.cache_dir() / "released"
    folder.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(folder).free
    if free < 3 * known.size and not (folder / known.name).exists():
        raise OSError(
            f"{known.name} needs {3 * known.size / 1e6:.0f} MB in {folder} for a while; "
            f"{free / 1e6:.0f} MB are free"
        )
    checksum = f"sha256:{known.sha256}"
    return Path(pooch.retrieve(known.url, checksum, known.name, folder, progressbar=True))


def import_into(store: EmbeddingStore, cohort: str, path: Path) -> dict[str, pd.DataFrame]:
    """Import a released file, checksum included, into a store; return what was imported."""
    known = RELEASED_FILES[cohort]
    frames = import_released(path, cohort, sha256=known.sha256)
    for model, frame in frames.items():
        meta = {
            "model": model,
            "weights": "released features",
            "source": f"{known.folder}/{known.name}",
            "commit": known.commit,
            "sha256": known.sha256,
            "models": sorted(frames),
        }
        store.write(cohort, model, frame, meta)
    return frames


def released_frames(cohort, store: EmbeddingStore) -> dict[str, pd.DataFrame]:
    """Return the imported features of a cohort by model, importing them where that can be done.

    Raises
    ------
    FeaturesMissingError
        If there are none.
    """
    key = cohort.card.key
    frames = _imported(store, key)
    if not frames and (path := features_file(key)) is not None:
        frames = import_into(store, key, path)
    if not frames:
        known = RELEASED_FILES.get(key)
        what = f"{known.name}, {known.size / 1e6:.0f} MB" if known else "none was released"
        raise FeaturesMissingError(
            f"the released features of {key} ({what}) are not imported; run `tumorbench "
            f"import-released {key}`, or put the file into TUMORBENCH_DATA/features"
        )
    wanted = list(cohort.table["lesion_id"])
    return {m: f.loc[[i for i in wanted if i in f.index]] for m, f in frames.items()}
