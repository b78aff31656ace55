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

from collections.abc import Callable

import numpy as np
import pandas as pd

from tumorbench_utils import checks
from tumorbench_utils.probes import knn, linear
from tumorbench_utils.probes.inputs import PROTOCOLS, probe_input
from tumorbench_utils.probes.result import ProbeResult, collect
from tumorbench_utils.splits import Split


def run_probe(X, y, splits, probe="knn", *, protocol="careful", groups=None) -> ProbeResult:
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
    data, fit = probe_input(X, y, splits, groups), fitter(probe, protocol)
    return collect(data, (fit(data, split, protocol) for split in data.splits), protocol)


def fitter(probe: str, protocol: str) -> Callable:
    """Return the function (data, split, protocol) -> (chosen, scores of the test rows)."""
    probes = {"knn": knn.fit_knn, "linear": linear.fit_linear}
    checks.one_of(protocol, "protocol", PROTOCOLS)
    return probes[checks.one_of(probe, "probe", probes)]


def run_score(score, y, splits, *, groups=None) -> ProbeResult:
    """Score a ready number per lesion, such as its size, on the test rows of the same splits.

    Nothing is fitted. Lesions without the number are refused; see
    ``baselines.covariate_score`` for its direction.

    Parameters
    ----------
    score : Series or array, shape (n,)
        Higher means label 1.
    y, splits, groups
        As for :func:`run_probe`.
    """
    X = score.to_frame() if isinstance(score, pd.Series) else np.asarray(score)[:, None]
    data = probe_input(X, y, splits, groups, "score")
    values = data.X[:, 0].astype(float)
    return collect(data, ((None, values[split.test]) for split in data.splits), "careful")


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
    results = {}
    for count in shots:
        outcomes = []
        for number, split in enumerate(data.splits):
            rng = np.random.default_rng([seed, count, number])
            pools = [split.train[data.y[split.train] == label] for label in (0, 1)]
            drawn = np.concatenate([rng.choice(pool, count, replace=False) for pool in pools])
            few = Split(drawn, split.val, split.test)
            outcomes.append(knn.fit_knn(data, few, "published", min(knn.K_MAX, len(drawn))))
        results[count] = collect(data, outcomes, "published")
    return results
