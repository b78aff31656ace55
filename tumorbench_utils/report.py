"""What a report says of a model or a cohort: discrimination, survival, repeatability, likeness.

Each function takes embeddings of any models, your own included, and returns a tidy table in which
all of them stand side by side, with intervals, beside what needs no network. ``tumorbench report``
writes them with the methods in words: ``notebooks/reports/report.ipynb``.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from tumorbench_utils import embeddings, endpoints, plots, robustness, similarity, survival
from tumorbench_utils.cohorts import Cohort
from tumorbench_utils.leaderboard import sessions
from tumorbench_utils.models import BENCHMARK, MODELS
from tumorbench_utils.probes import compare
from tumorbench_utils.splits import grouped_splits

#: What a model is compared with, the first that a cohort has.
_RULERS = ("size", "clinical score")

_COLORS = {"baseline": plots.PALETTE[1], "benchmark": plots.PALETTE[0], "own": plots.PALETTE[3]}


def kind_of(model: str) -> str:
    """Return ``"benchmark"``, ``"own"`` or, for a name that is no model, ``"baseline"``."""
    if model in BENCHMARK:
        return "benchmark"
    return "own" if model in MODELS else "baseline"


def weights_of(model: str, edition: str) -> str:
    """Return which weights a model has in an edition, one of ``plots.WEIGHTS``."""
    if edition == "released" and model in BENCHMARK:
        return "released features"
    return embeddings.default_encoder(MODELS[model], edition).weights


def discrimination(
    cohort: Cohort, features: Mapping[str, pd.DataFrame], *, n: int = 1000
) -> pd.DataFrame:
    """Score models and baselines by linear probes on the same test patients.

    Parameters
    ----------
    cohort : Cohort
        One with labels of two classes.
    features : mapping of model to DataFrame, index ``lesion_id``
    n : int
        Resamples of the bootstrap of differences.

    Returns
    -------
    DataFrame, index ``name``
        ``kind`` (baseline, benchmark or own), ``weights``, ``auc`` (mean over ten splits by
        patient), ``low, high`` (95%, corrected for the overlap of the splits), ``brier`` (mean;
        missing for covariates as they stand) and, where the cohort has a size or a clinical score,
        ``reference`` (its name), ``difference`` to it with ``difference_low, difference_high``
        (patients resampled in pairs) and ``p_holm`` (DeLong's test, adjusted). The best first.

    Raises
    ------
    ValueError
        If the cohort has no labels, or too few patients of a class for three sides.
    """
    ep = endpoints.endpoint(cohort, lesions=next(iter(features.values())).index)
    results = ep.baselines()
    for model, X in features.items():
        results[model] = ep.probe(model, X, "linear", weights=weights_of(model, cohort.edition))
    rows = {}
    for name, result in results.items():
        weights = weights_of(name, cohort.edition) if name in features else ""
        ends, brier = np.clip(result.interval(), 0, 1), result.metrics()["brier"].mean()
        rows[name] = [weights, result.mean, *ends, brier]
    table = _table(rows, ["weights", "auc", "low", "high", "brier"])
    if reference := next((name for name in _RULERS if name in results), None):
        compared = compare(results, reference, n=n).filter(regex="^difference|^p_holm")
        table = table.assign(reference=reference).join(compared)
    return table


def time_to_event(cohort: Cohort, features: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """Return Uno's concordance of embeddings, and of clinical covariates where there are any.

    A patient dies once, so each counts once: with the largest lesion, or the first where the
    cohort has no sizes. Covariates that half of the patients lack are left out, rather than the
    patients.

    Parameters
    ----------
    cohort : Cohort
        One with times and events.
    features : mapping of model to DataFrame

    Returns
    -------
    DataFrame, index ``name``
        ``kind``, ``uno`` with ``low, high`` (95%, corrected), ``patients`` and ``events``.

    References
    ----------
    .. [1] Uno H et al. (2011), On the C-statistics for evaluating overall adequacy of risk
       prediction procedures with censored survival data, Statistics in Medicine 30:1105-1117.
    """
    known = survival.clinical_table(cohort)
    table = known.table[known.table.index.isin(next(iter(features.values())).index)]
    by_size = table.sort_values(known.size, ascending=False, kind="stable") if known.size else table
    table = table[table.index.isin(by_size.drop_duplicates("patient_id").index)]
    covariates = [c for c in known.clinical + known.size if table[c].notna().mean() > 0.5]
    table = table.dropna(subset=covariates)
    splits = grouped_splits(table, stratify="event")
    times, clinic = (table["time_days"], table["event"]), table[covariates] if covariates else None
    rows = {}
    for model, X in features.items():
        made = survival.evaluate(X.loc[table.index], *times, clinic, splits)
        scores = made.summary.query("metric == 'uno'").set_index("model")
        for source, name in (("clinical", "clinical"), ("embedding", model)):
            if source in scores.index and name not in rows:
                rows[name] = [*scores.loc[source, ["mean", "low", "high"]], made.n, made.events]
    return _table(rows, ["uno", "low", "high", "patients", "events"])


def repeatability(cohort: Cohort, features: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """Return how well embeddings of patients who were scanned twice repeat themselves.

    Parameters
    ----------
    cohort : Cohort
        With a column ``session``: test or retest.
    features : mapping of model to DataFrame

    Returns
    -------
    DataFrame, index ``name``
        ``kind``; ``reidentified``: how often the second scan lies nearest to the first one of the
        same patient, with ``low, high`` (95%, exact); ``icc``: median over the components; and
        ``collapsed``: whether all patients lie on nearly one point, so that the rest means
        nothing.
    """
    rows = {}
    for model, (first, second) in sessions(cohort, features).items():
        icc = robustness.component_icc(first, second)["value"].median()
        collapsed = bool(robustness.collapse(first)["collapsed"])
        rows[model] = [*robustness.reidentification(first, second), icc, collapsed]
    return _table(rows, ["reidentified", "low", "high", "icc", "collapsed"])


def likeness(features: Mapping[str, pd.DataFrame], model: str, *, n: int = 200) -> pd.DataFrame:
    """Return how alike a model and each of the others see the same lesions.

    Parameters
    ----------
    features : mapping of model to DataFrame
    model : str
        One of them.
    n : int
        Permutations of the null.

    Returns
    -------
    DataFrame, index ``name``
        Of the other models: ``kind``, ``cka`` (debiased linear CKA), ``null_high`` (97.5th
        percentile of the permutation null) and ``p``. The most alike first.
    """
    pairs = similarity.pairwise(features, "linear_cka", n_permutations=n)
    both = pairs[["first", "second"]]
    own = pairs[both.eq(model).any(axis=1)]
    names = both.where(both != model).loc[own.index].bfill(axis=1)["first"]
    rows = dict(zip(names, own[["value", "null_high", "p"]].to_numpy(), strict=True))
    return _table(rows, ["cka", "null_high", "p"])


def _table(rows: dict[str, Sequence], columns: list[str]) -> pd.DataFrame:
    """Return rows by model or baseline with their kind, the best first."""
    table = pd.DataFrame.from_dict(rows, orient="index", columns=columns).rename_axis("name")
    table.insert(0, "kind", table.index.map(kind_of))
    best = next(name for name in columns if name != "weights")
    return table.sort_values(best, ascending=False)


def draw(axes: Axes, table: pd.DataFrame, value: str, *, chance: float | None = None) -> Axes:
    """Draw one of the tables above as a forest: baselines, benchmark and own in three colours.

    Parameters
    ----------
    axes : matplotlib Axes
    table : DataFrame
        With ``kind`` and, where there are intervals, ``low`` and ``high``.
    value : str
        Column that is drawn.
    chance : float, optional
        Position of a dashed line.
    """
    ends = (table.get(name, table[value]) for name in ("low", "high"))
    colors = [_COLORS[kind] for kind in table["kind"]]
    plots.forest(axes, list(table.index), table[value], *ends, reference=chance, colors=colors)
    for kind in table["kind"].drop_duplicates():
        axes.plot([], [], "o-", color=_COLORS[kind], label=kind)
    axes.legend(fontsize=8, loc="lower left", bbox_to_anchor=(0, 1.0), ncols=3)
    axes.tick_params(axis="y", labelsize=8)
    return axes
