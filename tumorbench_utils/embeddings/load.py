"""What chapters call: the embeddings of a cohort in its edition, computed or as released."""

from collections.abc import Iterable
from pathlib import Path

import pandas as pd

from tumorbench_utils import settings
from tumorbench_utils.checks import require
from tumorbench_utils.embeddings.released import import_released
from tumorbench_utils.embeddings.run import embed
from tumorbench_utils.embeddings.store import EmbeddingStore
from tumorbench_utils.models import MODELS, get_model


class FeaturesMissingError(FileNotFoundError):
    """The released features of a cohort have not been imported."""


class Embeddings(dict):
    """Frames of features by model, with the label of the weights they come from.

    Attributes
    ----------
    weights : str
        One of ``plots.WEIGHTS``, for ``plots.stamp`` and ``plots.table``.
    """

    def __init__(self, frames: dict[str, pd.DataFrame], weights: str):
        super().__init__(frames)
        self.weights = weights


def released_files() -> dict[str, dict]:
    """Return by cohort the ``path``, ``size`` and ``sha256`` of the authors' feature file."""
    return settings.book_data("downloads")["features"]["files"]


def default_store(edition: str) -> EmbeddingStore:
    """Return the store of the book for an edition: ``embeddings/EDITION`` in the cache folder."""
    return EmbeddingStore(settings.cache_dir() / "embeddings" / settings.edition(edition))


#: Where models differ in their weights, the label names the least trained.
_CAUTION = ("untrained", "teaching encoder", "released weights", "own weights")


def load_embeddings(cohort, models: Iterable[str] | None = None) -> Embeddings:
    """Return the embeddings of a cohort by several models.

    Phantom and full edition: what is missing is embedded first, into :func:`default_store`.
    Released edition: the features that were imported; what is not there is imported from
    ``TUMORBENCH_DATA/features`` if the released file lies there.

    Parameters
    ----------
    cohort : Cohort
    models : list of str, optional
        Keys; if None, the models of the benchmark.

    Returns
    -------
    Embeddings
        A dict of DataFrames by model: index ``lesion_id`` in the order of ``cohort.table``,
        float32 columns ``f0 .. f{d-1}``. ``.weights`` is the label to print. In the released
        edition, lesions without features (and models that were not released for the cohort) are
        left out.

    Raises
    ------
    FeaturesMissingError
        If released features are needed and not there; the message says how to import them.
    KeyError, TypeError
        If a key is not known, or `models` is no list.
    ValueError
        If a scan could not be embedded.
    """
    what = "models is a list of keys; put the one key into a list"
    require(not isinstance(models, str), what, error=TypeError)
    keys = [get_model(name).key for name in (MODELS if models is None else models)]
    store, order = default_store(cohort.edition), list(cohort.table["lesion_id"])
    if cohort.edition == "released":
        frames = _released(cohort.card.key, store)
        absent = [key for key in keys if key not in frames and models is not None]
        what = f"the released features of {cohort.card.key} hold no {', '.join(absent)}"
        require(not absent, what, error=FeaturesMissingError)
        frames = {key: frames[key] for key in keys if key in frames}
        frames = {k: f.loc[[i for i in order if i in f.index]] for k, f in frames.items()}
        return Embeddings(frames, "released features")
    report = embed(cohort, keys, store, progress=False)
    require(not report.failed, f"{cohort.card.key} could not be embedded whole.\n{report}")
    entries = {key: store.entry(cohort, key) for key in keys}
    labels = {entry.header["meta"]["weights"] for entry in entries.values()}
    frames = {key: entry.frame.loc[order] for key, entry in entries.items()}
    return Embeddings(frames, min(labels, key=_CAUTION.index))


def edition_with_features(edition: str | None, cohorts: Iterable[str]) -> tuple[str, str]:
    """Return the edition in which a chapter on features can run, and a sentence for the reader.

    Parameters
    ----------
    edition : str or None
        The edition asked for.
    cohorts : iterable of str
        Cohorts whose features the chapter needs.

    Returns
    -------
    edition : str
        ``"phantom"`` in place of ``"released"`` where features are not imported.
    note : str
        What was replaced and how to get it; empty if nothing was.
    """
    edition = settings.edition(edition)
    store, absent = default_store(edition), []
    if edition == "released":
        absent = [c for c in cohorts if not _released_file(c) and not _imported(store, c)]
    if not absent:
        return edition, ""
    return "phantom", (
        f"The released features of {', '.join(absent)} are not imported here, so this page shows "
        f"phantoms. To see patients, run `tumorbench import-released {absent[0]}` first."
    )


def import_into(store: EmbeddingStore, cohort: str, path: Path) -> dict[str, pd.DataFrame]:
    """Import a released file, checksum included, into a store; return what was imported."""
    known = released_files()[cohort]
    frames = import_released(path, cohort, sha256=known["sha256"])
    meta = {"weights": "released features", "source": known["path"], "sha256": known["sha256"]}
    for model, frame in frames.items():
        store.write(cohort, model, frame, {**meta, "model": model, "models": sorted(frames)})
    return frames


def _released(cohort: str, store: EmbeddingStore) -> dict[str, pd.DataFrame]:
    """Return the imported features of a cohort by model, importing them where that can be done."""
    if models := _imported(store, cohort):
        return {model: store.read(cohort, model) for model in models}
    if path := _released_file(cohort):
        return import_into(store, cohort, path)
    known = released_files().get(cohort)
    what = f"{known['path']}, {known['size'] / 1e6:.0f} MB" if known else "none was released"
    raise FeaturesMissingError(
        f"the released features of {cohort} ({what}) are not imported; run `tumorbench "
        f"import-released {cohort}`, or put the file into TUMORBENCH_DATA/features"
    )


def _imported(store: EmbeddingStore, cohort: str) -> list[str]:
    """Return the models with imported features; none if an import did not come to its end."""
    held = [e.split("/")[1] for e in store.entries() if e.startswith(f"{cohort}/")]
    whole = held and set(store.meta(cohort, held[0]).get("models", ())) == set(held)
    return held if whole else []


def _released_file(cohort: str) -> Path | None:
    """Return the released file of a cohort in ``TUMORBENCH_DATA/features``, or None."""
    folder, known = settings.data_dir(), released_files().get(cohort)
    path = folder / "features" / Path(known["path"]).name if folder and known else None
    return path if path and path.is_file() else None
