"""The leaderboard: everything that was scored, in one tidy table.

Rows come from kept results, from the published figures and from accepted submissions, each with
the edition and the kind of weights that it belongs to. Ranks are given within one setting (probe,
protocol, and whether the book measured it), never across.
"""

import numpy as np
import pandas as pd
from scipy import stats as sps

from tumorbench_utils import endpoints, robustness, settings, stats, submissions
from tumorbench_utils.cohorts import Cohort
from tumorbench_utils.models import MODELS
from tumorbench_utils.probes import ProbeResult
from tumorbench_utils.results import published
from tumorbench_utils.splits import reference_splits

#: Ways of scoring: probe, protocol, and the chapter that explains them.
SETTINGS = {
    "linear probe, careful": ("linear", "careful", "endpoints/linear_and_few_shot"),
    "nearest neighbours, careful": ("knn", "careful", "endpoints/knn_probing"),
    "nearest neighbours, published protocol": ("knn", "published", "endpoints/knn_probing"),
}

#: The published figures, which hold the released networks on patients.
PRINTED = "nearest neighbours, as printed"

#: The data dictionary: what every column of the leaderboard holds.
COLUMNS = {
    "edition": "data behind the row: phantom, released, full, or published (printed figures)",
    "weights": "what the network had learned; empty for what is no network",
    "kind": "model, submission, baseline, or ceiling (phantoms: the true probabilities)",
    "model": "key of the model, or name of the baseline",
    "cohort": "key of the cohort",
    "setting": "probe and protocol; what fits nothing is the same under each probe",
    "auc": "mean area under the ROC curve on the test lesions of ten splits",
    "low": "lower end of the 95% interval of auc, corrected for the overlap of the splits",
    "high": "upper end of that interval",
    "error": "standard error of auc, corrected likewise (Nadeau and Bengio)",
    "n_test": "lesions that a split tests on, mean over the splits",
    "rank": "rank of the mean rank over the cohorts, within a setting; 1 is best; empty "
    "for rows that lack a cohort and for the ceiling",
    "rank_low": "2.5% quantile of that rank when cohorts are drawn anew and noise is added",
    "rank_high": "97.5% quantile of that rank",
    "overlap": "whether the images of the cohort were in the pre-training data of the released "
    "network: seen, possible, unknown, not seen",
    "licence": "licence of the released weights",
    "use": "what the licence allows: any, research, or read first (not stated, or not certain)",
    "parameters": "parameters of the released encoder",
    "seconds": "core seconds per patch of the released encoder on a CPU, one thread, float32",
    "gflop": "arithmetic per patch of the released encoder, GFLOP",
    "robustness": "discriminability on test and retest: how often two scans of one subject are "
    "nearer than scans of two; 0.5 is chance",
    "robustness_low": "lower end of its 95% bootstrap interval",
    "robustness_high": "upper end of that interval",
    "collapsed": "whether all subjects lie nearly on one point, so that robustness says little",
    "chapter": "page of the book that explains the number",
}

#: What the licences of the ten allow, as far as their cards know.
_USE = {
    "fmcib": "read first",
    "ct_fm": "read first",
    "ct_clip_vit": "research",
    "pasta": "read first",
    "vista3d": "read first",
    "voco": "any",
    "suprem": "research",
    "merlin": "any",
    "medimageinsight": "read first",
    "models_genesis": "research",
}

_TABLES = {"size": "endpoints/does_it_beat_a_ruler", "printed": "endpoints/reanalysis"}


def _row(model: str, kind: str, result: ProbeResult, weights: str | None) -> dict:
    low, high = result.interval()
    spread = result.scores.std(ddof=1)
    error = stats.corrected_error(spread, len(result.scores), result.n_train, result.n_test)
    return {
        "model": model,
        "kind": kind,
        "weights": weights,
        "auc": result.mean,
        "low": low,
        "high": high,
        "error": float(error),
        "n_test": result.n_test,
    }


def measured(cohort: Cohort, setting: str, features=None) -> pd.DataFrame:
    """Score baselines and, where there are features, models on one cohort.

    Parameters
    ----------
    cohort : Cohort
        One with an endpoint.
    setting : str
        One of :data:`SETTINGS`.
    features : Embeddings, optional
        From ``embeddings.load_embeddings``; without them there are baselines only.

    Returns
    -------
    DataFrame
        Some of :data:`COLUMNS`, one row per model or baseline.
    """
    if setting not in SETTINGS:
        raise ValueError(settings.unknown("setting", setting, SETTINGS))
    probe, protocol, chapter = SETTINGS[setting]
    lesions = next(iter(features.values())).index if features else None
    ep = endpoints.endpoint(cohort, protocol, lesions=lesions)
    rows = []
    for name, result in ep.baselines(probe).items():
        kind = "ceiling" if name == "best known" else "baseline"
        weights = "untrained" if name == "untrained network" else None
        rows.append({**_row(name, kind, result, weights), "chapter": _TABLES["size"]})
    for name, X in (features or {}).items():
        result = ep.probe(name, X, probe, weights=features.weights)
        rows.append({**_row(name, "model", result, features.weights), "chapter": chapter})
    facts = {"edition": cohort.edition, "cohort": cohort.card.key, "setting": setting}
    return pd.DataFrame(rows).assign(**facts)


def printed(release: str = "2025-03") -> pd.DataFrame:
    """Return the published AUCs with intervals corrected for the overlap of the splits.

    Parameters
    ----------
    release : str
        Release of the figures, see ``data/published/README.md``.

    Returns
    -------
    DataFrame
        As :func:`measured`, all cohorts.
    """
    found = published("knn_auc").query("release == @release").reset_index(drop=True)
    if found.empty:
        known = published("knn_auc")["release"].unique()
        raise ValueError(settings.unknown("release", release, known))
    sizes = published("cohort_sizes").set_index("cohort")
    found["sd"] = (found["high"] - found["low"]) / 2 * np.sqrt(10) / 1.96
    for name, part in found.groupby("cohort"):
        labels = np.repeat([0, 1], sizes.loc[name, ["label_0", "label_1"]])
        split = reference_splits(labels, n_repeats=1)[0]
        error = stats.corrected_error(part["sd"], 10, len(split.train), len(split.test))
        found.loc[part.index, "error"] = error
        found.loc[part.index, "n_test"] = len(split.test)
    half = sps.t.ppf(0.975, 9) * found["error"]
    found["low"], found["high"] = found["auc"] - half, found["auc"] + half
    facts = {"edition": "published", "setting": PRINTED, "kind": "model", "weights": "published"}
    found = found.assign(**facts, chapter=_TABLES["printed"])
    return found[[name for name in COLUMNS if name in found]]


def submitted(edition: str) -> pd.DataFrame:
    """Return the rows of accepted submissions of an edition; empty if there are none."""
    by_protocol = {value[:2]: (name, value[2]) for name, value in SETTINGS.items()}
    rows = []
    for body in submissions.accepted().values():
        facts = body["model"]
        for row in body["results"] if body["edition"] == edition else []:
            setting, _ = by_protocol.get((row["probe"], row["protocol"]), (None, None))
            if setting is None:
                continue
            sizes = row["n_train"], row["n_test"]
            low, high = stats.corrected_interval(row["scores"], *sizes)
            spread = np.std(row["scores"], ddof=1)
            own = {"licence": facts["licence"], "parameters": facts["parameters"] or np.nan}
            rows.append(
                {
                    **own,
                    "edition": edition,
                    "weights": f"{facts['weights']} (submitted)",
                    "kind": "submission",
                    "model": facts["key"],
                    "cohort": row["cohort"],
                    "setting": setting,
                    "auc": float(np.mean(row["scores"])),
                    "low": low,
                    "high": high,
                    "error": float(stats.corrected_error(spread, 10, *sizes)),
                    "n_test": row["n_test"],
                    "overlap": "seen" if row["cohort"] in facts["seen"] else "not seen",
                    "use": "read first",
                    "chapter": "synthesis/submissions",
                }
            )
    return pd.DataFrame(rows, columns=[name for name in COLUMNS if rows and name in rows[0]])


def repeatability(cohort: Cohort, features: dict[str, pd.DataFrame]) -> pd.DataFrame:
    """Return how well test and retest are told apart from other subjects, per set of features.

    Parameters
    ----------
    cohort : Cohort
        One with a column ``session`` of ``test`` and ``retest``, one lesion per scan.
    features : dict of str to DataFrame, index ``lesion_id``
        Numbers without a common unit should be scaled before.

    Returns
    -------
    DataFrame, index ``model``
        ``robustness``, ``robustness_low``, ``robustness_high``, ``collapsed``.
    """
    table = cohort.table.set_index("lesion_id")
    rows = {}
    for name, X in features.items():
        halves = []
        for session in ("test", "retest"):
            part = table[table["session"] == session]
            halves.append(X.loc[part.index].set_axis(part["patient_id"]))
        found = robustness.discriminability(*halves)
        wide = halves[0].shape[1] > 1
        collapsed = bool(robustness.collapse(halves[0])["collapsed"]) if wide else False
        rows[name] = (*found, collapsed)
    columns = ["robustness", "robustness_low", "robustness_high", "collapsed"]
    kinds = {**dict.fromkeys(columns[:3], float), "collapsed": bool}
    return pd.DataFrame(rows, index=columns).T.rename_axis("model").astype(kinds)


def _ranked(part: pd.DataFrame) -> pd.DataFrame:
    """Add ranks to the rows of one setting."""
    fair = part[part["kind"] != "ceiling"]
    values = fair.pivot(index="cohort", columns="model", values="auc")
    errors = fair.pivot(index="cohort", columns="model", values="error")
    full = values.columns[values.notna().all() & errors.notna().all()]
    if len(full) < 2 or len(values) < 2:
        return part
    place = values[full].rank(axis=1, ascending=False).mean().rank()
    drawn = stats.resampled_ranks(values[full], errors[full])
    part["rank"] = part["model"].map(place)
    part["rank_low"] = part["model"].map(drawn.quantile(0.025))
    part["rank_high"] = part["model"].map(drawn.quantile(0.975))
    return part


def assemble(parts: list[pd.DataFrame], steady: pd.DataFrame | None = None) -> pd.DataFrame:
    """Return the whole leaderboard: rows of all parts with facts and ranks.

    Parameters
    ----------
    parts : list of DataFrame
        From :func:`measured`, :func:`printed`, :func:`submitted`; all of one edition but for the
        printed figures.
    steady : DataFrame, optional
        From :func:`repeatability`; joined to the rows of measured models and baselines.

    Returns
    -------
    DataFrame
        All of :data:`COLUMNS`, in that order.
    """
    board = pd.concat([part for part in parts if len(part)], ignore_index=True)
    board = board.reindex(columns=list(COLUMNS))
    texts = ("weights", "licence", "use", "overlap", "collapsed")
    board = board.astype(dict.fromkeys(texts, object))
    rates = pd.read_csv(settings.BOOK_ROOT / "data" / "embedding_rates.csv", comment="#")
    rates = rates.set_index("what")
    seen = published("pretraining_overlap").set_index(["model", "cohort"])["overlap"]
    own = board["kind"] == "model"
    for name in board.loc[own, "model"].unique():
        rows = own & (board["model"] == name)
        board.loc[rows, "use"] = _USE.get(name, "read first")
        if name in MODELS:
            board.loc[rows, "licence"] = MODELS[name].card.licence
            board.loc[rows, "parameters"] = MODELS[name].card.parameters
        if name in rates.index:
            board.loc[rows, ["seconds", "gflop"]] = rates.loc[name, ["cpu_seconds", "gflop"]].values
    pairs = list(zip(board["model"], board["cohort"], strict=True))
    known = pd.Series([seen.get(pair) for pair in pairs], board.index, dtype=object)
    board["overlap"] = board["overlap"].where(~own, known.fillna("unknown"))
    if steady is not None:
        here = board["edition"] != "published"
        for name in steady:
            board.loc[here, name] = board.loc[here, "model"].map(steady[name])
    ranked = [_ranked(part.copy()) for _, part in board.groupby("setting", sort=False)]
    return pd.concat(ranked).sort_index()
