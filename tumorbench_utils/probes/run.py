"""Probes over repeated splits, under the published protocol and under a careful one.

================  =====================================  ====================================
                  ``published``                          ``careful``
================  =====================================  ====================================
features          raw                                    scaled by the rows that are fitted on
nearest           k = 1..50 by validation AUC, ties in   k = 1..50 (at most the rows there
neighbours        the order of the published search      are) by validation AUC, ties to the
                                                         largest k
linear            ``C=2``, nothing chosen                ``C`` by validation log loss, so that
                                                         probabilities stay calibrated
final fit         training rows                          training and validation rows
class imbalance   ignored                                not reweighted, so that probabilities
                                                         stay calibrated; accuracy is balanced
                                                         and its threshold is the class share
================  =====================================  ====================================

Which splits are used is the caller's choice: ``splits.reference_splits`` for the published
protocol, ``splits.grouped_splits`` for the careful one.
"""

import functools
from collections.abc import Callable

import numpy as np
import pandas as pd

from tumorbench_utils import checks
from tumorbench_utils.probes import knn, linear
from tumorbench_utils.probes.inputs import PROTOCOLS, ProbeInput, check_splits, probe_input
from tumorbench_utils.probes.result import ProbeResult, collect
from tumorbench_utils.splits import Split


def run_probe(
    X, y, splits, probe="knn", *, protocol="careful", groups=None, metric="auc"
) -> ProbeResult:
    """Fit and score a probe on every split.

    Parameters
    ----------
    X : DataFrame or array, shape (n, d)
        Embeddings. A DataFrame indexed by ``lesion_id`` is joined to `y` by it.
    y : Series or array, shape (n,)
        Labels 0 and 1, none missing.
    splits : iterable of Split
        Each with positions in `y`: ``.train``, ``.val``, ``.test``.
    probe : {"knn", "linear"}
    protocol : {"careful", "published"}
        See the table at the top of the module.
    groups : Series or array, shape (n,), optional
        Patient of each lesion, for the bootstrap. Without them lesions count as independent.
    metric : {"auc", "average_precision", "balanced_accuracy", "brier"}
        What ``.scores`` holds. Nothing that is chosen inside a split depends on it.

    Returns
    -------
    ProbeResult

    Raises
    ------
    InputError
        For unknown names; for features or labels that are missing, infinite, of another length or
        of other lesions; if a part of a split holds one class; if the published protocol meets
        fewer than 50 training rows, where the reference fails too.

    See Also
    --------
    sklearn.model_selection.cross_validate : one part to fit and one to test, nothing to choose on.

    References
    ----------
    .. [1] Pai S, et al. Foundation model embeddings for quantitative tumor imaging biomarkers.
       2025.
    """
    data = probe_input(X, y, splits, groups)
    fit = fitter(data.X, probe, protocol)
    outcomes = [fit(data.y, split) for split in data.splits]
    return collect(data, outcomes, probe, protocol, metric)


def fitter(X: np.ndarray, probe: str, protocol: str) -> Callable:
    """Return the function (labels, split) -> (chosen, scores of the test rows) of a probe."""
    checks.one_of(probe, "probe", ("knn", "linear"))
    checks.one_of(protocol, "protocol", PROTOCOLS)
    if probe == "knn":
        return knn.Neighbours(X, protocol).fit
    return functools.partial(linear.fit_linear, X, protocol)


def run_score(score, y, splits, *, groups=None, metric="auc", name="score") -> ProbeResult:
    """Score a ready number per lesion, such as its size, on the test rows of the same splits.

    Nothing is fitted. Lesions without the number are refused; see
    ``baselines.covariate_score`` for its direction.

    Parameters
    ----------
    score : Series or array, shape (n,)
        Higher means label 1.
    y, splits, groups, metric
        As for :func:`run_probe`.
    name : str
        Goes into ``ProbeResult.probe``.
    """
    labels = checks.labels(y)
    values = checks.numbers(checks.aligned(y, score, name, strict=True), name)
    index = y.index if isinstance(y, pd.Series) else pd.RangeIndex(len(labels))
    codes = checks.groups(groups, y, strict=True)
    data = ProbeInput(values[:, None], labels, codes, index, check_splits(splits, labels))
    outcomes = [(None, values[split.test]) for split in data.splits]
    return collect(data, outcomes, name, "unfitted", metric)


def few_shot(X, y, splits, shots=(1, 5, 10), seed=0, *, groups=None) -> dict[int, ProbeResult]:
    """Score nearest neighbours fitted on a few lesions per class.

    As published, except for the seed (the reference drew without one): `shots` lesions of either
    class are drawn from the training rows, k = 1 to 2 x `shots` (50 at most) is chosen by the AUC
    on all validation rows with the published order of ties, cosine distance, raw features.

    Parameters
    ----------
    X, y, splits, groups
        As for :func:`run_probe`.
    shots : sequence of int
        Lesions per class.
    seed : int
        A draw depends on the seed, the number of shots and the number of the split only.

    Returns
    -------
    dict of ProbeResult
        One per number of shots. For the corrected interval ``n_train`` is the size of the pool
        that the few were drawn from: it is the pools of two splits that overlap.

    Raises
    ------
    ValueError
        As :func:`run_probe`; also if a class has fewer training rows than `shots`.
    """
    data = probe_input(X, y, splits, groups)
    neighbours = knn.Neighbours(data.X, "published")
    results = {}
    for count in shots:
        outcomes = []
        for number, split in enumerate(data.splits):
            rng = np.random.default_rng([seed, count, number])
            pools = [split.train[data.y[split.train] == label] for label in (0, 1)]
            drawn = np.concatenate([rng.choice(pool, count, replace=False) for pool in pools])
            few = Split(drawn, split.val, split.test)
            outcomes.append(neighbours.fit(data.y, few, min(knn.K_MAX, len(drawn))))
        results[count] = collect(data, outcomes, f"{count}-shot knn", "published")
    return results
