"""What an embedding says about a lesion: linear read-out of the true phenotype."""

import numpy as np
import pandas as pd
import torch
from sklearn.linear_model import RidgeCV
from sklearn.model_selection import KFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from tumorbench_training.data import Phantoms
from tumorbench_utils.models import FoundationModel
from tumorbench_utils.stats import percentile_interval

#: Which organs make up a site, and what is read out of embeddings there: names by column of
#: ``Phantoms.table``. Lesions of the abdomen have no spicules.
SITES = {
    "chest": ("lung",),
    "abdomen": ("kidney", "liver"),
}
PHENOTYPES = {
    "diameter": "diameter_mm",
    "attenuation": "attenuation_hu",
    "texture": "texture_hu",
    "necrosis": "necrosis",
    "spiculation": "spiculation",
}

_RESAMPLES = 2000


def targets(table: pd.DataFrame) -> dict[str, np.ndarray]:
    """Return the phenotypes that differ between lesions, the diameter as its logarithm."""
    values = {name: table[column].to_numpy(float) for name, column in PHENOTYPES.items()}
    values["diameter"] = np.log(values["diameter"])
    return {name: found for name, found in values.items() if np.ptp(found) > 0}


def embeddings(
    model: FoundationModel, module: torch.nn.Module, phantoms: Phantoms, indices
) -> np.ndarray:
    """Return embeddings (n, dim) of patches around the lesions, as the benchmark cuts them."""
    parts = []
    for chunk in np.array_split(indices, max(1, len(indices) // 32)):
        parts.append(model.encode(module, phantoms.batch(chunk, model.spec)))
    return torch.cat(parts).numpy()


def predicted(X: np.ndarray, Y: np.ndarray, seed: int = 0) -> np.ndarray:
    """Return predictions (n, k) of ridge regressions, each made without its own phantom.

    Features are standardised; the penalty is chosen inside each of ten training parts by
    leave-one-out, for each phenotype by itself.
    """
    ridge = RidgeCV(alphas=np.logspace(0, 6, 13), alpha_per_target=True)
    folds = KFold(10, shuffle=True, random_state=seed)
    return cross_val_predict(make_pipeline(StandardScaler(), ridge), X, Y, cv=folds)


def r2(true: np.ndarray, guess: np.ndarray) -> float:
    """Return the share of the variance that is explained: 1 perfect, 0 as good as the mean."""
    return 1 - ((true - guess) ** 2).sum() / ((true - true.mean()) ** 2).sum()


def compare(true: np.ndarray, trained: np.ndarray, untrained: np.ndarray, seed: int = 0) -> dict:
    """Return R2 of two read-outs of one phenotype and their difference, with 95% intervals.

    The intervals are percentiles over resampled phantoms, the same for both read-outs.
    """
    rng = np.random.default_rng(seed)
    draws = rng.integers(len(true), size=(_RESAMPLES, len(true)))
    # A rare phenotype can be missing from a small sample: nothing to explain there.
    draws = draws[np.ptp(true[draws], axis=1) > 0]
    values = np.array([[r2(true[d], guess[d]) for guess in (trained, untrained)] for d in draws])
    return _summary([r2(true, trained), r2(true, untrained)], values)


def compare_scores(trained: np.ndarray, untrained: np.ndarray, seed: int = 0) -> dict:
    """Return the means of two sets of scores of the same phantoms and their difference.

    Phantoms without a score (NaN in either) are left out. Intervals as for :func:`compare`.
    """
    both = np.column_stack([trained, untrained])
    both = both[np.isfinite(both).all(axis=1)]
    rng = np.random.default_rng(seed)
    draws = rng.integers(len(both), size=(_RESAMPLES, len(both)))
    return {"n": len(both), **_summary(both.mean(axis=0), both[draws].mean(axis=1))}


def _summary(point, resampled: np.ndarray) -> dict:
    """Return [estimate, low, high] of the trained, the untrained and their difference."""
    columns = {
        "trained": (point[0], resampled[:, 0]),
        "untrained": (point[1], resampled[:, 1]),
        "difference": (point[0] - point[1], resampled[:, 0] - resampled[:, 1]),
    }
    return {
        name: [round(float(v), 4) for v in (value, *percentile_interval(draws))]
        for name, (value, draws) in columns.items()
    }
