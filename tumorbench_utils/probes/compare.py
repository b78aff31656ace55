"""Comparisons: model against model, embedding against ruler, and everything against chance."""

from collections.abc import Callable

import numpy as np
import pandas as pd
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from tumorbench_utils import stats
from tumorbench_utils.probes import linear
from tumorbench_utils.probes.ensembles import inner_folds
from tumorbench_utils.probes.inputs import ProbeInput, check_splits, feature_array, probe_input
from tumorbench_utils.probes.result import ProbeResult, resampled
from tumorbench_utils.probes.run import Runner, choose_penalty, rows_to_fit, run_checked, runner
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
    ValueError
        If the results were tested on different lesions, or hold another metric.
    """
    if reference not in results:
        raise KeyError(unknown("result", reference, results))
    for name, result in results.items():
        if result.metric != "auc":
            raise ValueError(f"{name} holds {result.metric!r}; comparisons are made by the AUC")
    names = list(results)
    means = resampled(list(results.values()), n, seed)
    place = names.index(reference)
    base = results[reference].pooled()
    rows = []
    for column, (name, result) in enumerate(results.items()):
        low, high = stats.percentile_interval(means[:, column])
        row = {"name": name, "auc": result.mean, "low": low, "high": high}
        if name != reference:
            row["difference"] = result.mean - results[reference].mean
            row["difference_low"], row["difference_high"] = stats.percentile_interval(
                means[:, column] - means[:, place]
            )
            row["p_refit"] = _refit_p(result, results[reference])
            own = result.pooled()
            row["p"] = stats.delong_test(
                base["y"], own["score"], base["score"], groups=base["group"]
            )[2]
        rows.append(row)
    columns = "auc low high difference difference_low difference_high p p_holm p_refit".split()
    table = pd.DataFrame(rows).set_index("name").reindex(columns=columns).astype(float)
    others = table.index != reference
    if others.any():
        table.loc[others, "p_holm"] = stats.holm(table.loc[others, "p"])
    return table


def _refit_p(result: ProbeResult, reference: ProbeResult) -> float:
    difference = result.scores - reference.scores
    sd = difference.std(ddof=1) if len(difference) > 1 else np.nan
    if not sd > 0:
        # Differences that never vary: equal scores, or too few splits to say anything.
        return 1.0 if sd == 0 and not difference.any() else np.nan
    sizes = len(difference), result.n_train, result.n_test
    return float(stats.corrected_p(difference.mean(), sd, *sizes, null=0.0))


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
    ValueError
        If a column is absent or wholly missing.
    """
    parts = {}
    for name in columns:
        if name not in table:
            raise ValueError(f"the table has no column {name!r}; it has {list(table.columns)}")
        values, missing = table[name], table[name].isna()
        if missing.all():
            raise ValueError(f"column {name!r} has no value at all")
        if pd.api.types.is_numeric_dtype(values) or pd.api.types.is_bool_dtype(values):
            numbers = values.astype("Float64").astype(float)
            parts[name] = numbers.fillna(numbers.median())
        else:
            for value in values.astype(str)[~missing].value_counts().index[1:]:
                parts[f"{name}={value}"] = (values.astype(str) == value) & ~missing
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
    ValueError
        As :func:`run_probe`.
    """
    data = probe_input(X, y, groups)
    splits = check_splits(splits, data.y)
    known = feature_array(covariates, y, "covariates").astype(np.float64)
    parts = {"covariates": [], "embedding": [], "both": []}
    for split in splits:
        rows = rows_to_fit(split, "careful")
        own, unseen = _log_odds(data, split, rows)
        for name, scores in parts.items():
            train = {"covariates": known[rows], "embedding": own[:, None]}
            test = {"covariates": known[split.test], "embedding": unseen[:, None]}
            train["both"], test["both"] = np.hstack([*train.values()]), np.hstack([*test.values()])
            scaler = StandardScaler().fit(train[name])
            model = LogisticRegression().fit(scaler.transform(train[name]), data.y[rows])
            scores.append(model.predict_proba(scaler.transform(test[name]))[:, 1])
    results = {}
    for name, scores in parts.items():
        ready = iter(scores)
        run = Runner(f"logistic on {name}", "careful", lambda *_, r=ready: (None, next(r)))
        results[name] = run_checked(data, splits, run, "auc")
    return results


def _log_odds(data: ProbeInput, split, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Log-odds of the linear probe: out of fold for `rows`, and for the test rows."""
    probe = linear.LinearProbe(C=choose_penalty(data, split), scale=True)
    own = np.empty(len(rows))
    for inside, outside in inner_folds(data, rows):
        probe.fit(data.X[rows[inside]], data.y[rows[inside]])
        own[outside] = probe.decision_function(data.X[rows[outside]])
    probe.fit(data.X[rows], data.y[rows])
    return own, probe.decision_function(data.X[split.test])


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
    X,
    y,
    make_splits: Callable,
    probe: str = "knn",
    *,
    protocol: str = "careful",
    groups=None,
    n: int = 100,
    seed: int = 0,
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
    """
    data = probe_input(X, y, groups)
    run = runner(data, probe, protocol)
    rng = np.random.default_rng(seed)
    means = np.empty(n)
    for i in range(n):
        labels = permuted(data.y, data.groups, rng)
        splits = check_splits(make_splits(labels), labels)
        means[i] = run_checked(data._replace(y=labels), splits, run, "auc").mean
    return means
