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
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from sklearn.preprocessing import StandardScaler

from tumorbench_utils.probes import knn, linear
from tumorbench_utils.probes.inputs import ProbeInput, check_splits, probe_input
from tumorbench_utils.probes.result import METRICS, ProbeResult
from tumorbench_utils.settings import unknown

PROBES = ("knn", "linear")
PROTOCOLS = ("careful", "published")


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
    ValueError
        For unknown names; for features or labels that are missing, infinite, of another length or
        of other lesions; if a part of a split holds one class; if the published protocol meets
        fewer than 50 training rows, where the reference fails too.
    """
    data = probe_input(X, y, groups)
    return run_checked(data, check_splits(splits, data.y), runner(data, probe, protocol), metric)


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
    column = pd.DataFrame({"score": score}) if isinstance(score, pd.Series) else np.c_[score]
    data = probe_input(column, y, groups)
    splits = check_splits(splits, data.y)

    def as_it_is(data, split):
        return None, data.X[split.test, 0].astype(float)

    return run_checked(data, splits, Runner(name, "unfitted", as_it_is), metric)


class Runner(NamedTuple):
    """A probe under a protocol: what fits it on one split.

    Attributes
    ----------
    probe, protocol : str
        What the result will be called.
    fit : callable (ProbeInput, Split) -> (chosen, scores of the test rows)
    """

    probe: str
    protocol: str
    fit: Callable[[ProbeInput, Any], tuple[Any, np.ndarray]]


def runner(data: ProbeInput, probe: str, protocol: str) -> Runner:
    """Return the runner of a probe by name; that of the published kNN keeps its distances.

    Raises
    ------
    ValueError
        If a name is not known.
    """
    if probe not in PROBES:
        raise ValueError(unknown("probe", probe, PROBES))
    if protocol not in PROTOCOLS:
        raise ValueError(unknown("protocol", protocol, PROTOCOLS))
    if protocol == "published":
        fit = _PublishedKNN(data) if probe == "knn" else _published_linear
    else:
        fit = _careful_knn if probe == "knn" else _careful_linear
    return Runner(probe, protocol, fit)


def rows_to_fit(split, protocol: str) -> np.ndarray:
    """Return the rows that the final fit of a split sees."""
    if protocol == "published":
        return np.asarray(split.train)
    return np.concatenate([split.train, split.val])


def run_checked(data: ProbeInput, splits: list, run: Runner, metric: str) -> ProbeResult:
    """Run a probe on checked input and put the outcomes of all splits into one result.

    Parameters
    ----------
    data : ProbeInput
    splits : list of Split
        From :func:`check_splits`.
    run : Runner
    metric : str
        One of :data:`METRICS`.
    """
    if metric not in METRICS:
        raise ValueError(unknown("metric", metric, METRICS))
    groups = np.arange(len(data.y)) if data.groups is None else data.groups
    fitted = [rows_to_fit(split, run.protocol) for split in splits]
    outcomes = [run.fit(data, split) for split in splits]
    frames = [
        pd.DataFrame(
            {
                "split": number,
                "lesion_id": data.index[split.test],
                "position": np.asarray(split.test),
                "group": groups[split.test],
                "y": data.y[split.test],
                "score": scores,
                "threshold": data.y[rows].mean(),
            }
        )
        for number, (split, rows, (_, scores)) in enumerate(
            zip(splits, fitted, outcomes, strict=True)
        )
    ]
    return ProbeResult(
        scores=np.array([METRICS[metric](frame) for frame in frames]),
        chosen=[chosen for chosen, _ in outcomes],
        predictions=pd.concat(frames, ignore_index=True),
        n_train=round(np.mean([len(rows) for rows in fitted])),
        n_test=round(np.mean([len(split.test) for split in splits])),
        metric=metric,
        probe=run.probe,
        protocol=run.protocol,
    )


class _PublishedKNN:
    """The published kNN; keeps the distances between splits."""

    def __init__(self, data: ProbeInput):
        self.table = knn.CosineTable(data.X)

    def __call__(self, data: ProbeInput, split) -> tuple[int, np.ndarray]:
        if len(split.train) < knn.K_MAX:
            raise ValueError(
                f"the published protocol tries up to {knn.K_MAX} neighbours, but a split has "
                f"{len(split.train)} training rows; use protocol='careful'"
            )
        counts = self.table.counts(split.val, split.train, data.y, knn.K_MAX)
        k = knn.choose_k_as_published(counts, data.y[split.val])
        return k, self.table.counts(split.test, split.train, data.y, knn.K_MAX)[:, k - 1] / k


def _published_linear(data: ProbeInput, split) -> tuple[float, np.ndarray]:
    probe = linear.LinearProbe().fit(data.X[split.train], data.y[split.train])
    return probe.C, probe.predict_proba(data.X[split.test])[:, 1]


def careful_shares(X, y, train, queries, k_max: int) -> np.ndarray:
    """Return the share of label 1 among the k nearest of scaled features, k = 1 to `k_max`.

    Features are scaled by the training rows. `train` and `queries` are rows of `X`.
    """
    scaler = StandardScaler().fit(X[train])
    probe = knn.KNNProbe(1).fit(scaler.transform(X[train]), y[train])
    return probe.predict_proba_all(scaler.transform(X[queries]), k_max)


def choose_neighbours(X, y, split) -> tuple[int, float]:
    """Return the k with the highest validation AUC, the largest of equals, and that AUC."""
    inside = careful_shares(X, y, split.train, split.val, min(knn.K_MAX, len(split.train)))
    area = knn.auc_per_k(inside, y[split.val])
    return int(np.flatnonzero(area >= area.max() - 1e-12)[-1]) + 1, float(area.max())


def _careful_knn(data: ProbeInput, split) -> tuple[int, np.ndarray]:
    k, _ = choose_neighbours(data.X, data.y, split)
    rows = rows_to_fit(split, "careful")
    return k, careful_shares(data.X, data.y, rows, split.test, k)[:, -1]


def choose_penalty(data: ProbeInput, split) -> float:
    """Return the penalty with the smallest validation log loss; the strongest of equals.

    The AUC would do as well for ranking lesions, but it does not see that a strong penalty shrinks
    every probability towards the class share.
    """
    inside = linear.scores_per_penalty(data.X[split.train], data.y[split.train], data.X[split.val])
    wrong_way = np.where(data.y[split.val][:, None] == 1, -inside, inside)
    loss = np.logaddexp(0, wrong_way).mean(axis=0)
    return linear.C_GRID[int(np.argmax(loss <= loss.min() + 1e-12))]


def _careful_linear(data: ProbeInput, split) -> tuple[float, np.ndarray]:
    strength = choose_penalty(data, split)
    rows = rows_to_fit(split, "careful")
    probe = linear.LinearProbe(C=strength, scale=True).fit(data.X[rows], data.y[rows])
    return strength, probe.predict_proba(data.X[split.test])[:, 1]
