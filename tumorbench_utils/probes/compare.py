"""Comparisons: model against model, embedding against ruler, and everything against chance."""

import numpy as np
import pandas as pd
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from tumorbench_utils import checks, stats
from tumorbench_utils.probes import linear
from tumorbench_utils.probes.ensembles import inner_folds
from tumorbench_utils.probes.inputs import check_splits, probe_input, rows_to_fit
from tumorbench_utils.probes.result import ProbeResult, collect, resampled
from tumorbench_utils.probes.run import fitter
from tumorbench_utils.settings import unknown


def compare(
    results: dict[str, ProbeResult], reference: str, *, n: int = 2000, seed: int = 0
) -> pd.DataFrame:
    """Compare results with one of them, on the same test patients.

    Parameters
    ----------
    results : dict of str to ProbeResult
        All on the same labels and splits, with ``metric="auc"``.
    reference : str
        Key of the result that the others are compared with.
    n, seed : int
        Resamples of the bootstrap.

    Returns
    -------
    DataFrame, index ``name``
        ``auc, low, high``: mean over splits with its 95% bootstrap interval over patients;
        ``difference, difference_low, difference_high``: mean AUC minus that of the reference, with
        a paired bootstrap interval; ``p``: DeLong's test on the predictions averaged over splits,
        with the lesions of one patient as a cluster; ``p_holm``: that adjusted over all
        comparisons; ``p_refit``: corrected resampled t test on the differences per split. What
        compares with the reference is missing for the reference itself.

    Notes
    -----
    The interval and ``p`` ask whether these fitted probes differ on new patients. ``p_refit`` asks
    whether they would differ if they were fitted anew on other patients, too; it is the larger of
    the two as a rule, and the one to quote about models rather than about fits.

    Raises
    ------
    KeyError
        If the reference is not among the results.
    InputError
        If the results were tested on different lesions, or hold another metric.
    """
    if reference not in results:
        raise KeyError(unknown("result", reference, results))
    if {result.metric for result in results.values()} != {"auc"}:
        raise checks.InputError("results are compared by the AUC, and one holds another metric")
    means = resampled(list(results.values()), n, seed)
    base, base_means = results[reference], means[:, list(results).index(reference)]
    pooled, rows = base.pooled(), {}
    for (name, result), drawn in zip(results.items(), means.T, strict=True):
        row = {"auc": result.mean}
        row["low"], row["high"] = stats.percentile_interval(drawn)
        if name != reference:
            row["difference"] = result.mean - base.mean
            ends = stats.percentile_interval(drawn - base_means)
            row["difference_low"], row["difference_high"] = ends
            scores = result.pooled()["score"], pooled["score"]
            row["p"] = stats.delong_test(pooled["y"], *scores, groups=pooled["group"])[2]
            row["p_refit"] = _refit_p(result, base)
        rows[name] = row
    columns = "auc low high difference difference_low difference_high p p_holm p_refit".split()
    table = pd.DataFrame.from_dict(rows, "index").reindex(columns=columns).rename_axis("name")
    if len(table) > 1:
        table["p_holm"] = stats.holm(table["p"].drop(reference))
    return table


def _refit_p(result: ProbeResult, reference: ProbeResult) -> float:
    difference = result.scores - reference.scores
    if len(difference) < 2 or np.ptp(difference) == 0:
        # Differences that never vary: equal scores, or too few splits to say anything.
        return np.nan if len(difference) < 2 or difference.any() else 1.0
    sizes = len(difference), result.n_train, result.n_test
    return float(stats.corrected_p(difference.mean(), difference.std(ddof=1), *sizes, null=0.0))


def design(table: pd.DataFrame, columns: list[str]) -> pd.DataFrame:
    """Return covariates as numbers: what a regression can take.

    Numbers stay, with missing ones set to the median and marked in a column ``NAME_missing``; text
    and categories become one column of 0 and 1 per value, the most frequent left out, with
    ``NAME_missing`` for none. No label is looked at.

    Parameters
    ----------
    table : DataFrame
    columns : list of str

    Returns
    -------
    DataFrame of float64, index of `table`

    Raises
    ------
    InputError
        If a column is absent.
    """
    parts = {}
    for name in checks.columns(table, columns):
        values, missing = table[name], table[name].isna()
        if pd.api.types.is_numeric_dtype(values):
            numbers = values.astype("Float64").astype(float)
            parts[name] = numbers.fillna(numbers.median())
        else:
            text = values.astype(str).mask(missing)
            parts |= {f"{name}={v}": text == v for v in text.value_counts().index[1:]}
        if missing.any():
            parts[f"{name}_missing"] = missing
    return pd.DataFrame(parts, index=table.index).astype(float)


def added_value(X, covariates, y, splits, *, groups=None) -> dict[str, ProbeResult]:
    """Ask whether an embedding adds to covariates: nested logistic models, careful protocol.

    The embedding enters the larger model as one number, the log-odds of its linear probe, which
    for the rows that the model is fitted on comes from folds that had not seen them. (Put side by
    side in one penalised regression, thousands of features would drown a single size.)

    Parameters
    ----------
    X : DataFrame or array, shape (n, d)
        Embedding.
    covariates : DataFrame or array, shape (n, c)
        Numbers, none missing; see :func:`design`.
    y, splits, groups
        As for :func:`run_probe`.

    Returns
    -------
    dict of ProbeResult
        ``"covariates"``, ``"embedding"`` and ``"both"``: logistic regressions (ridge penalty,
        ``C=1``, on standardised numbers) on the covariates, on the log-odds, and on both. Pass it
        to :func:`compare` with ``reference="covariates"``.

    Raises
    ------
    InputError
        As :func:`run_probe`.
    """
    data = probe_input(X, y, splits, groups)
    known = probe_input(covariates, y, data.splits, name="covariates").X.astype(np.float64)
    # The log-odds are the last column of what every model is fitted on.
    columns = {"covariates": np.s_[:, :-1], "embedding": np.s_[:, -1:], "both": np.s_[:, :]}
    outcomes = {name: [] for name in columns}
    for split in data.splits:
        rows = rows_to_fit(split)
        probe = linear.LinearProbe(C=linear.choose_penalty(data.X, data.y, split), scale=True)
        folds = inner_folds(data, rows)
        fitted = data.X[rows], data.y[rows]
        own = cross_val_predict(probe, *fitted, cv=folds, method="decision_function")
        unseen = probe.fit(*fitted).decision_function(data.X[split.test])
        train, test = np.c_[known[rows], own], np.c_[known[split.test], unseen]
        for name, part in columns.items():
            model = make_pipeline(StandardScaler(), LogisticRegression())
            scores = model.fit(train[part], fitted[1]).predict_proba(test[part])[:, 1]
            outcomes[name].append((None, scores))
    return {n: collect(data, o, f"logistic on {n}", "careful") for n, o in outcomes.items()}


def permuted(y: np.ndarray, groups: np.ndarray | None, rng: np.random.Generator) -> np.ndarray:
    """Return labels in random order.

    Parameters
    ----------
    y : ndarray, shape (n,)
    groups : ndarray of int, shape (n,), or None
        With patients, the labels of a patient move together to another with as many lesions. So
        the likeness of labels within a patient outlives the permutation, and what a protocol
        gains from it shows.
    rng : Generator
    """
    if groups is None:
        return rng.permutation(y)
    order = np.argsort(groups, kind="stable")
    sizes = np.bincount(groups)
    starts = np.cumsum(sizes) - sizes
    moved = np.empty_like(y)
    for size in np.unique(sizes[sizes > 0]):
        rows = order[starts[sizes == size][:, None] + np.arange(size)]
        moved[rows] = y[rng.permutation(rows)]
    return moved


def permutation_null(
    X, y, make_splits, probe="knn", *, protocol="careful", groups=None, n=100, seed=0
) -> np.ndarray:
    """Return mean AUCs of a protocol when features tell nothing about labels.

    The whole protocol is run again on permuted labels: splits, choices and fits. A protocol whose
    null does not centre at 0.5 finds something that is not there: if patients are given and stand
    on both sides of its splits, it recognises them.

    Parameters
    ----------
    X, y, probe, protocol, groups
        As for :func:`run_probe`. With `groups`, labels are permuted between patients with equally
        many lesions, else between lesions.
    make_splits : callable (labels) -> list of Split
        Makes the splits for a permutation, for example ``splits.reference_splits``.
    n : int
        Number of permutations.
    seed : int

    Returns
    -------
    ndarray, shape (n,)

    See Also
    --------
    sklearn.model_selection.permutation_test_score : permutes within groups, and keeps the splits.
    """
    data = probe_input(X, y, make_splits(checks.labels(y)), groups)
    fit = fitter(data.X, probe, protocol)
    rng = np.random.default_rng(seed)
    means = np.empty(n)
    for i in range(n):
        labels = permuted(data.y, data.groups, rng)
        made = data._replace(y=labels, splits=check_splits(make_splits(labels), labels))
        outcomes = [fit(labels, split) for split in made.splits]
        means[i] = collect(made, outcomes, probe, protocol).mean
    return means
