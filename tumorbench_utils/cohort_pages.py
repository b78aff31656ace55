"""What the pages of the cohorts show in common: facts, flow, gallery, leakage and the ruler."""

import textwrap

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from tumorbench_utils import baselines, plots, settings, splits, stats
from tumorbench_utils.cohorts import COHORTS, Cohort, CohortCard, load_cohort
from tumorbench_utils.patches import PatchSpec, extract_patches
from tumorbench_utils.survival import clinical_table, kaplan_meier

#: What a picture shows: 64 mm around the seed; rows run from front to back, columns from the right
#: to the left of the patient, as a radiologist looks at it.
_WINDOWS_HU = {"lung": (-1100, 300), "kidney": (-120, 240), "liver": (-80, 200)}


def facts(card: CohortCard) -> pd.DataFrame:
    """Return the facts of a card, one per row."""
    rows = {
        "organ": card.organ,
        "endpoint": card.endpoint,
        "label": card.label_rule,
        "label 1 means": card.positive or "no label",
        "source": card.source,
        "DOI": card.doi,
        "licence of the images": card.licence,
        "access": card.access,
        "format read by the publication": card.image_format,
    }
    return pd.DataFrame({"": rows})


# ---------------------------------------------------------------------------------------- who is in


def flow(cohort: Cohort) -> pd.DataFrame:
    """Return who is in a cohort, step by step.

    Returns
    -------
    DataFrame
        One row per step at which lesions are left out, and the last: ``step``, ``lesions`` (that
        are there), ``left_out`` (before the next step) and ``reason``.
    """
    card, table = cohort.card, cohort.table
    labelled = table["label"].notna()
    excluded = table.attrs.get("excluded", [])
    steps = []
    if cohort.edition != "phantom":
        if "rated" in card.expected:
            steps.append(("rated by three readers", card.expected["rated"], "mean rating of 3"))
        reasons = "; ".join(f"{row['lesion_id']}: {row['reason']}" for row in excluded)
        steps.append(("rows of the released table", len(table) + len(excluded), reasons))
    unlabelled = "lost to follow-up before two years" if card.has_survival else "no label"
    steps.append(("lesions in this book", len(table), unlabelled))
    if labelled.any():
        steps.append(("lesions with a label", int(labelled.sum()), "not used by the publication"))
        used = labelled & table.get("used_in_reference", True)
        if used.sum() < labelled.sum():
            steps.append(("used by the publication", int(used.sum()), ""))
    frame = pd.DataFrame(steps, columns=["step", "lesions", "reason"])
    frame["left_out"] = frame["lesions"].diff(-1).fillna(0).astype(int)
    frame["reason"] = frame["reason"].where(frame["left_out"] > 0, "")
    kept = (frame["left_out"] > 0) | (frame.index == len(frame) - 1)
    return frame.loc[kept, ["step", "lesions", "left_out", "reason"]].reset_index(drop=True)


def draw_flow(axes: Axes, steps: pd.DataFrame) -> Axes:
    """Draw the steps of :func:`flow` as boxes, from top to bottom, what is left out beside them."""
    box = {"boxstyle": "round,pad=0.5", "facecolor": "white", "edgecolor": plots.PALETTE[0]}
    side = {**box, "edgecolor": "#999999"}
    for row, step in enumerate(steps.itertuples()):
        axes.text(0, -row, f"{step.step}\n{step.lesions:,}", ha="center", va="center", bbox=box)
        if row + 1 < len(steps):
            axes.annotate("", (0, -row - 0.68), (0, -row - 0.3), arrowprops={"arrowstyle": "->"})
        if step.left_out:
            said = textwrap.fill(f"{step.left_out:,} left out: {step.reason}", 34)
            axes.text(1.1, -row - 0.5, said, va="center", fontsize=8, bbox=side)
            axes.plot([0, 1.05], [-row - 0.5] * 2, color="#999999", linewidth=1, zorder=0)
    axes.set(xlim=(-1, 3.2), ylim=(-len(steps) + 0.4, 0.5))
    axes.axis("off")
    return axes


def missing(cohort: Cohort) -> pd.DataFrame:
    """Count missing covariates, and compare the label where they are missing and where not.

    Returns
    -------
    DataFrame
        One row per covariate of the card with a missing value in the table: ``missing``, ``share``
        and the share of label 1 among labelled lesions ``with`` and ``without`` the covariate.
    """
    rows = {}
    for name in cohort.card.covariates:
        gone = cohort.table[name].isna() if name in cohort.table else None
        if gone is None or not gone.any() or name == "duplicate_of":
            continue
        label = cohort.table["label"].astype("Float64")
        rows[name] = {
            "missing": int(gone.sum()),
            "share": gone.mean(),
            "label 1 if there": label[~gone].mean(),
            "label 1 if missing": label[gone].mean(),
        }
    return pd.DataFrame.from_dict(rows, orient="index")


# --------------------------------------------------------------------------------------- what it is


def gallery(cohort: Cohort, n: int = 8) -> pd.DataFrame:
    """Choose lesions across the range of sizes and classes and cut a picture of each.

    Parameters
    ----------
    cohort : Cohort
        Its images are read in the phantom and in the full edition; in the released edition there
        are none, and the lesions are those of the phantom twin.
    n : int
        Number of lesions, half of each class where there are two.

    Returns
    -------
    DataFrame
        One row per lesion: ``title`` and ``picture`` (axial slice through the seed, 64 x 64 mm, 0
        to 1 within a window for the organ). ``attrs["edition"]`` says where the images are from.
    """
    if cohort.edition == "released":
        cohort = load_cohort(cohort.card.key, "phantom")
    table, size = cohort.table, cohort.size_column
    classes = [table[table["label"] == label] for label in (0, 1)]
    groups = [g for g in classes if len(g)] or [table]
    rows = []
    for group in groups:
        ordered = group.sort_values(size) if size else group
        at = np.linspace(0.05, 0.95, n // len(groups)) * (len(ordered) - 1)
        rows.append(ordered.iloc[at.round().astype(int)])
    chosen = pd.concat(rows)
    window = _WINDOWS_HU[cohort.card.organ]
    spec = PatchSpec("SPL", (1, 1, 1), (64, 64, 64), window)
    pictures, titles = [], []
    for row in chosen.to_dict("records"):
        seed = [row["coord_x"], row["coord_y"], row["coord_z"]]
        pictures.append(extract_patches(row["image_path"], [seed], [spec])[0][0][32])
        measured = f"{row[size]:.0f} mm" if size == "size_mm" else ""
        label = "" if pd.isna(row["label"]) else f"label {row['label']}"
        titles.append(", ".join(filter(None, (label, measured))) or row["lesion_id"])
    shown = pd.DataFrame({"title": titles, "picture": pictures})
    shown.attrs["edition"] = cohort.edition
    return shown


def draw_gallery(axes: np.ndarray, shown: pd.DataFrame) -> np.ndarray:
    """Draw the pictures of :func:`gallery`, one per axes."""
    for one, row in zip(axes.flat, shown.itertuples(), strict=True):
        one.imshow(row.picture, vmin=0, vmax=1)
        one.set_title(row.title, fontsize=8)
        one.axis("off")
    return axes


def draw_by_label(axes: Axes, table: pd.DataFrame, column: str) -> Axes:
    """Draw the distribution of a covariate by label, on a logarithmic axis if it is a size.

    Lesions without the covariate or without a label are left out.
    """
    there = table[table[column].notna() & table["label"].notna()]
    values = there[column].astype(float)
    size = column.startswith("size")
    spaced = np.geomspace if size else np.linspace
    bins = spaced(values.min(), values.max(), 19)
    for label in (0, 1):
        axes.hist(values[there["label"] == label], bins=bins, alpha=0.6, label=f"label {label}")
    if size:
        ticks = [t for t in (2, 5, 10, 20, 50, 100, 200) if bins[0] <= t <= bins[-1]]
        axes.set_xscale("log")
        axes.set_xticks(ticks, ticks)
        axes.minorticks_off()
    axes.set(xlabel=column, ylabel="lesions")
    axes.legend()
    return axes


def draw_survival(axes: Axes, cohort: Cohort) -> float:
    """Draw the survival of a cohort with its interval and the two-year mark; return the median.

    Patients without any follow-up are left out.

    Returns
    -------
    float
        Median survival in days; infinite if it is not reached.
    """
    table = clinical_table(cohort).table
    curve = kaplan_meier(table["time_days"], table["event"])
    years = curve.table["time"] / 365.25
    axes.step(years, curve.table["survival"], where="post")
    axes.fill_between(
        years, curve.table["low"], curve.table["high"], step="post", alpha=0.25, linewidth=0
    )
    axes.axvline(2, color="#777777", linestyle="--", linewidth=1)
    axes.set(xlabel="years", ylabel="alive", ylim=(0, 1.02), xlim=(0, None))
    return curve.median


# ------------------------------------------------------------------------ how it may be judged


def leakage(table: pd.DataFrame) -> pd.DataFrame:
    """Compare what the published and the grouped splits share, mean of ten splits each.

    Parameters
    ----------
    table : DataFrame
        Rows without a label are left out, as the protocols do.

    Returns
    -------
    DataFrame
        One row per protocol: ``share`` of test lesions with a train lesion of the same patient,
        and how often (``same_label``) all of these carry the label of the test lesion.
    """
    table = table[table["label"].notna()].reset_index(drop=True)
    made = {
        "lesion by lesion (published)": splits.reference_splits(table["label"]),
        "grouped by patient": splits.grouped_splits(table),
    }
    rows = {}
    for protocol, several in made.items():
        reports = pd.concat([splits.leakage_report(table, split) for split in several])
        to_test = (
            (reports["level"] == "patient_id")
            & (reports["first"] == "train")
            & (reports["second"] == "test")
        )
        rows[protocol] = reports.loc[to_test, ["share", "same_label"]].mean()
    return pd.DataFrame(rows).T


def published_best(name: str) -> pd.Series:
    """Return the best of the ten models on a cohort, as first published.

    Returns
    -------
    Series
        ``model``, ``auc``, ``low``, ``high`` (the published interval, mean of ten overlapping
        splits +- 1.96 standard errors, which is too narrow) and more.

    Raises
    ------
    KeyError
        If the publication has no figure for the cohort.
    """
    figures = pd.read_csv(settings.BOOK_ROOT / "data" / "published" / "knn_auc.csv")
    first = figures["release"] == figures["release"].min()
    there = figures[first & (figures["cohort"] == name)]
    if there.empty:
        raise KeyError(f"no published figures for {name!r}")
    return there.loc[there["auc"].idxmax()]


def comparison(cohort: Cohort) -> pd.DataFrame:
    """Put the ruler and the clinical score beside the best that is known.

    Returns
    -------
    DataFrame
        Rows of :func:`tumorbench_utils.baselines.cohort_baselines`, then, in the phantom edition,
        the best reachable score (the truth that made the labels), else the best published model.
        Columns ``name``, ``auc``, ``low``, ``high``, ``n``, ``interval`` (its method).
    """
    rows = [
        {
            "name": f"{row.baseline}: {'' if row.direction > 0 else 'minus '}{row.column}",
            "auc": row.auc,
            "low": row.low,
            "high": row.high,
            "n": row.n,
            "interval": "patient bootstrap",
        }
        for row in baselines.cohort_baselines(cohort).itertuples()
    ]
    if cohort.edition == "phantom":
        labelled = cohort.table[cohort.table["label"].notna()]
        truth = labelled["true_logit"]
        if cohort.card.has_survival:
            truth = -labelled["true_log_hazard"]
        auc, low, high = stats.bootstrap_auc(
            labelled["label"].astype(int), truth, labelled["patient_id"]
        )
        best = {"name": "best reachable (truth)", "auc": auc, "low": low, "high": high}
        best |= {"n": len(labelled), "interval": "patient bootstrap"}
    else:
        row = published_best(cohort.card.key)
        best = {"name": f"best published: {row['model']}", "interval": "as published"}
        best |= {key: row[key] for key in ("auc", "low", "high")}
        best["n"] = int(cohort.table["used_in_reference"].sum())
    return pd.DataFrame([*rows, best])


def draw_comparison(axes: Axes, rows: pd.DataFrame) -> Axes:
    """Draw :func:`comparison` with chance as a dashed line."""
    colors = [plots.PALETTE[0]] * (len(rows) - 1) + [plots.PALETTE[3]]
    plots.forest(
        axes,
        rows["name"].tolist(),
        rows["auc"],
        rows["low"],
        rows["high"],
        reference=0.5,
        colors=colors,
    )
    axes.set(xlabel="AUC", xlim=(0.3, 1))
    return axes


def overview(edition: str | None = None) -> pd.DataFrame:
    """Return the table over all cohorts.

    Returns
    -------
    DataFrame
        One row per cohort: counts, shares, events, and the AUC of size, of the clinical score and
        of the best published model, each with its interval in square brackets.
    """
    rows = {}
    for name, card in COHORTS.items():
        cohort = load_cohort(name, edition)
        table, made = cohort.table, baselines.cohort_baselines(cohort).set_index("baseline")
        row = {
            "cohort": card.title,
            "lesions": len(table),
            "patients": table["patient_id"].nunique(),
            "label 0": int((table["label"] == 0).sum()),
            "label 1": int((table["label"] == 1).sum()),
            "no label": int(table["label"].isna().sum()),
            "events": str(int(table["event"].sum())) if card.has_survival else "",
        }
        for baseline in ("size", "clinical"):
            there = baseline in made.index
            row[f"{baseline} AUC"] = _interval(made.loc[baseline]) if there else ""
        if row["label 1"]:
            best = published_best(name)
            row["best published"] = f"{best['model']} {_interval(best)}"
        rows[name] = row
    return pd.DataFrame(rows).T.fillna("")


def _interval(row: pd.Series) -> str:
    return f"{row['auc']:.2f} [{row['low']:.2f}, {row['high']:.2f}]"
