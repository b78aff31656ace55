"""What chapters call: the embeddings of a cohort in its edition, ready to use."""

from collections.abc import Iterable

import pandas as pd

from tumorbench_utils import settings
from tumorbench_utils.embeddings.catalogue import (
    FeaturesMissingError,
    default_store,
    features_there,
    released_frames,
)
from tumorbench_utils.embeddings.encoders import as_encoders
from tumorbench_utils.embeddings.run import embed
from tumorbench_utils.models import MODELS, get_model


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
    if isinstance(models, str):
        raise TypeError("models is a list of keys; put the one key into a list")
    keys = [get_model(name).key for name in (MODELS if models is None else models)]
    store = default_store(cohort.edition)
    if cohort.edition == "released":
        frames = released_frames(cohort, store)
        absent = [key for key in keys if key not in frames]
        if absent and models is not None:
            raise FeaturesMissingError(
                f"the released features of {cohort.card.key} hold no {', '.join(absent)}"
            )
        return Embeddings({k: frames[k] for k in keys if k in frames}, "released features")
    report = embed(cohort, keys, store, progress=False)
    if report.failed:
        raise ValueError(f"{cohort.card.key} could not be embedded whole.\n{report}")
    order = list(cohort.table["lesion_id"])
    frames = {key: store.read(cohort, key).loc[order] for key in keys}
    labels = {encoder.weights for encoder in as_encoders(keys, cohort.edition)}
    return Embeddings(frames, min(labels, key=_CAUTION.index))


#: Where models differ in their weights, the label names the least trained.
_CAUTION = ("untrained", "teaching encoder", "released weights", "own weights")


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
    absent = [c for c in cohorts if edition == "released" and not features_there(c)]
    if not absent:
        return edition, ""
    return "phantom", (
        f"The released features of {', '.join(absent)} are not imported here, so this page shows "
        f"phantoms. To see patients, run `tumorbench import-released {absent[0]}` first."
    )
