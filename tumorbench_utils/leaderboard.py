"""The leaderboard: everything that was scored, in one tidy table.

Rows come from kept results, from the published figures and from accepted submissions, each with
the edition and the kind of weights that it belongs to. Ranks are given within one setting (probe,
protocol, and whether the book measured it), never across.
"""

from collections.abc import Mapping

import numpy as np
import pandas as pd
import yaml
from scipy import stats as sps

from tumorbench_utils import checks, settings, stats, submissions
from tumorbench_utils.results import published
from tumorbench_utils.splits import reference_splits

_DATA = settings.BOOK_ROOT / "data"
_FACTS = yaml.safe_load((_DATA / "leaderboard.yml").read_text(encoding="utf-8"))

#: Ways of scoring: probe, protocol, and the chapter that explains them.
SETTINGS: dict[str, list[str]] = _FACTS["settings"]

#: The published figures, which hold the released networks on patients.
PRINTED = "nearest neighbours, as printed"

#: The data dictionary: what every column of the leaderboard holds.
COLUMNS: dict[str, str] = _FACTS["columns"]


def _scored(scores, n_train: int, n_test: int) -> dict[str, float]:
    """Return the mean over splits with interval and error, corrected for their overlap."""
    low, high = stats.corrected_interval(scores, n_train, n_test)
    error = stats.corrected_error(np.std(scores, ddof=1), len(scores), n_train, n_test)
    return dict(auc=np.mean(scores), low=low, high=high, error=float(error), n_test=n_test)


def measured(cohort, setting: str, features=None) -> pd.DataFrame:
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
    from tumorbench_utils.endpoints import endpoint  # imports torch, which takes seconds

    probe, protocol, chapter = SETTINGS[checks.one_of(setting, "setting", SETTINGS)]
    lesions = next(iter(features.values())).index if features else None
    ep, rows = endpoint(cohort, protocol, lesions=lesions), []
    for name, result in ep.baselines(probe).items():
        kind = "ceiling" if name == "best known" else "baseline"
        weights = "untrained" if name == "untrained network" else None
        rows.append((name, kind, weights, "endpoints/does_it_beat_a_ruler", result))
    for name, X in (features or {}).items():
        result = ep.probe(name, X, probe, weights=features.weights)
        rows.append((name, "model", features.weights, chapter, result))
    board = pd.DataFrame(rows, columns=["model", "kind", "weights", "chapter", "result"])
    scored = [_scored(r.scores, r.n_train, r.n_test) for r in board.pop("result")]
    facts = {"edition": cohort.edition, "cohort": cohort.card.key, "setting": setting}
    return board.join(pd.DataFrame(scored)).assign(**facts)


def printed() -> pd.DataFrame:
    """Return the published AUCs with intervals corrected for the overlap of the splits.

    The figures are those of March 2025, see ``data/published/README.md``.

    Returns
    -------
    DataFrame
        As :func:`measured`, all cohorts.
    """
    figures, sizes = published("knn_auc"), published("cohort_sizes").set_index("cohort")
    board = figures[figures["release"] == "2025-03"].reset_index(drop=True)
    # Printed was the mean ± 1.96 sd / sqrt(10), as if the ten splits did not overlap.
    board["sd"] = (board["high"] - board["low"]) / 2 * np.sqrt(10) / 1.96
    for name, part in board.groupby("cohort"):
        labels = np.repeat([0, 1], sizes.loc[name, ["label_0", "label_1"]])
        split = reference_splits(labels, n_repeats=1)[0]
        error = stats.corrected_error(part["sd"], 10, len(split.train), len(split.test))
        board.loc[part.index, "error"] = error
        board.loc[part.index, "n_test"] = len(split.test)
    half = sps.t.ppf(0.975, 9) * board["error"]
    board["low"], board["high"] = board["auc"] - half, board["auc"] + half
    facts = {"edition": "published", "setting": PRINTED, "kind": "model", "weights": "published"}
    return board.assign(**facts, chapter="endpoints/reanalysis").filter(COLUMNS)


def submitted(edition: str) -> pd.DataFrame:
    """Return the rows of accepted submissions of an edition; empty if there are none.

    Of two files on the same results the later one, by its date, counts.
    """
    names = {(probe, protocol): name for name, (probe, protocol, _) in SETTINGS.items()}
    rows = {}
    for body in submissions.accepted().values():
        model = body["model"]
        facts = {"edition": edition, "weights": f"{model['weights']} (submitted)"}
        facts |= {"kind": "submission", "model": model["key"], "licence": model["licence"]}
        facts |= {"parameters": model["parameters"] or np.nan, "use": "read first"}
        for row in body["results"] if body["edition"] == edition else []:
            cohort, key = row["cohort"], (row["probe"], row["protocol"])
            if key in names:
                overlap = "seen" if cohort in model["seen"] else "not seen"
                own = {"cohort": cohort, "setting": names[key], "overlap": overlap}
                scored = _scored(row["scores"], row["n_train"], row["n_test"])
                rows[model["key"], cohort, key] = facts | own | scored
    return pd.DataFrame(rows.values()).assign(chapter="synthesis/submissions")


def sessions(cohort, features: Mapping[str, pd.DataFrame]) -> dict[str, list[pd.DataFrame]]:
    """Return the rows of test and of retest, by patient, per set of features."""
    table = cohort.table
    scans = [table[table["session"] == name] for name in ("test", "retest")]
    named = [(scan["lesion_id"], scan["patient_id"]) for scan in scans]
    return {m: [X.loc[ids].set_axis(who) for ids, who in named] for m, X in features.items()}


def repeatability(cohort, features: dict[str, pd.DataFrame]) -> pd.DataFrame:
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
    from tumorbench_utils import robustness

    rows = {}
    for name, (first, second) in sessions(cohort, features).items():
        # One number lies on a line by nature; that is no collapse.
        collapsed = first.shape[1] > 1 and bool(robustness.collapse(first)["collapsed"])
        rows[name] = [*robustness.discriminability(first, second), collapsed]
    columns = ["robustness", "robustness_low", "robustness_high", "collapsed"]
    return pd.DataFrame.from_dict(rows, "index", columns=columns).rename_axis("model")


def _ranked(part: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of one setting with their ranks."""
    fair = part[part["kind"] != "ceiling"].pivot(index="cohort", columns="model")
    full = fair[["auc", "error"]].notna().all().groupby("model").all().loc[lambda row: row].index
    if len(full) < 2 or len(fair) < 2:
        return part
    place = fair["auc"][full].rank(axis=1, ascending=False).mean().rank()
    drawn = stats.resampled_ranks(fair["auc"][full], fair["error"][full])
    columns = {"rank": place, "rank_low": drawn.quantile(0.025), "rank_high": drawn.quantile(0.975)}
    return part.assign(**{name: part["model"].map(ranks) for name, ranks in columns.items()})


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
    from tumorbench_utils.models import MODELS

    board = pd.concat([part for part in parts if len(part)], ignore_index=True)
    board = board.reindex(columns=list(COLUMNS))
    texts = ("weights", "licence", "use", "overlap", "collapsed")
    board = board.astype(dict.fromkeys(texts, object))
    cards = {name: [m.card.licence, m.card.parameters] for name, m in MODELS.items()}
    facts = pd.DataFrame.from_dict(cards, "index", columns=["licence", "parameters"])
    rates = pd.read_csv(_DATA / "embedding_rates.csv", comment="#", index_col="what")
    facts = facts.join(rates.rename(columns={"cpu_seconds": "seconds"})[["seconds", "gflop"]])
    facts["use"] = pd.Series(_FACTS["use"])
    seen = published("pretraining_overlap").set_index(["model", "cohort"])["overlap"]
    own, here = board["kind"] == "model", board["edition"] != "published"
    for rows, values in [(own, facts), (here, steady)]:
        for name in [] if values is None else values:
            board.loc[rows, name] = board.loc[rows, "model"].map(values[name])
    board.loc[own, "use"] = board.loc[own, "use"].fillna("read first")
    pairs = pd.MultiIndex.from_frame(board.loc[own, ["model", "cohort"]])
    board.loc[own, "overlap"] = seen.reindex(pairs).fillna("unknown").to_numpy()
    ranked = [_ranked(part) for _, part in board.groupby("setting", sort=False)]
    return pd.concat(ranked).sort_index()
