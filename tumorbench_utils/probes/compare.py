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


def compare(
    results: dict[str, ProbeResult], reference: str, *, n: int = 2000, seed: int = 0
) -> pd.DataFrame:
    """Compare results with one of them, on the same test patients.

    Parameters
    ----------
    results : dict of str to ProbeResult
        All on the same labels and splits.
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
        If the results were tested on different lesions.
    """
    base, rows = results[reference], []
    means = dict(zip(results, resampled(list(results.values()), n, seed).T, strict=True))
    pooled = base.pooled()
    for name, result in results.items():
        row = [result.mean, *stats.percentile_interval(means[name])]
        if name != reference:
            ends = stats.percentile_interval(means[name] - means[reference])
            scores = result.pooled()["score"], pooled["score"]
            p = stats.delong_test(pooled["y"], *scores, groups=pooled["group"])[2]
            row += [result.mean - base.mean, *ends, p, np.nan, _refit_p(result, base)]
        rows.append(row)
    columns = "auc low high difference difference_low difference_high p p_holm p_refit".split()
    index = pd.Index(results, name="name")
    table = pd.DataFrame(rows, index).reindex(columns=range(9)).set_axis(columns, axis=1)
    if len(table) > 1:
        table["p_holm"] = stats.holm(table["p"].drop(reference))
    return table


def _refit_p(result: ProbeResult, reference: ProbeResult) -> float:
    difference, sizes = result.scores - reference.scores, (result.n_train, result.n_test)
    if len(difference) < 2 or np.ptp(difference) == 0:
        # Differences that never vary: equal scores, or too few splits to say anything.
        return np.nan if len(difference) < 2 or difference.any() else 1.0
    moments = difference.mean(), difference.std(ddof=1)
    return float(stats.corrected_p(*moments, len(difference), *sizes, null=0.0))


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
        fitted, folds = (data.X[rows], data.y[rows]), inner_folds(data, rows)
        probe = linear.LinearProbe(C=linear.choose_penalty(data, split), scale=True)
        own = cross_val_predict(probe, *fitted, cv=folds, method="decision_function")
        unseen = probe.fit(*fitted).decision_function(data.X[split.test])
        train, test = np.c_[known[rows], own], np.c_[known[split.test], unseen]
        for name, part in columns.items():
            model = make_pipeline(StandardScaler(), LogisticRegression())
            scores = model.fit(train[part], fitted[1]).predict_proba(test[part])[:, 1]
            outcomes[name].append((None, scores))
    return {name: collect(data, found, "careful") for name, found in outcomes.items()}


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
    order, sizes = np.argsort(groups, kind="stable"), np.bincount(groups)
    starts, moved = np.cumsum(sizes) - sizes, np.empty_like(y)
    for size in np.unique(sizes):
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
    fit, rng, means = fitter(probe, protocol), np.random.default_rng(seed), []
    for _ in range(n):
        labels = permuted(data.y, data.groups, rng)
        made = data._replace(y=labels, splits=check_splits(make_splits(labels), labels))
        outcomes = [fit(made, split, protocol) for split in made.splits]
        means.append(collect(made, outcomes, protocol).mean)
    return np.array(means)
