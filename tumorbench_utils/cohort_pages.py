"""What the pages of the cohorts show in common: facts, flow, gallery, leakage and the ruler."""

import textwrap
from dataclasses import replace

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from tumorbench_utils import baselines, plots, results, splits, stats
from tumorbench_utils.cohorts import COHORTS, Cohort, CohortCard, load_cohort
from tumorbench_utils.patches import PatchSpec, extract_patches
from tumorbench_utils.survival import clinical_table, kaplan_meier

#: What is black and what is white in a picture of each organ.
_WINDOWS_HU = {"lung": (-1100, 300), "kidney": (-120, 240), "liver": (-80, 200)}

_BOOTSTRAP = "patient bootstrap"


def window_hu(card: CohortCard) -> tuple[int, int]:
    """Return what is black and what is white in pictures of a cohort; wide if no organ is known."""
    return _WINDOWS_HU.get(card.organ, (-1000, 400))


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


def flow(card: CohortCard) -> pd.DataFrame:
    """Return who is in the released cohort, step by step, from the counts of its card.

    The reader holds every released table to these counts, so they are true of it in every edition.

    Returns
    -------
    DataFrame
        One row per step at which lesions are left out, and the last: ``step``, ``lesions`` (that
        are there), ``left_out`` (before the next step) and ``reason``.
    """
    expected = card.expected
    steps = []
    if "rated" in expected:
        steps.append(("rated by three readers", expected["rated"], "mean rating of 3"))
    reasons = "; ".join(f"{lesion}: {reason}" for lesion, reason in card.exclusions.items())
    steps.append(("rows of the released table", expected["rows"], reasons))
    kept = expected["rows"] - len(card.exclusions)
    labelled = expected["label_0"] + expected["label_1"]
    steps.append(("lesions in this book", kept, "lost to follow-up before two years"))
    if labelled:
        steps.append(("lesions with a label", labelled, "not used by the publication"))
        if expected["used_in_reference"] < labelled:
            steps.append(("used by the publication", expected["used_in_reference"], ""))
    frame = pd.DataFrame(steps, columns=["step", "lesions", "reason"])
    frame["left_out"] = frame["lesions"].diff(-1).fillna(0).astype(int)
    frame["reason"] = frame["reason"].where(frame["left_out"] > 0, "")
    shown = (frame["left_out"] > 0) | (frame.index == len(frame) - 1)
    return frame.loc[shown, ["step", "lesions", "left_out", "reason"]].reset_index(drop=True)


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


def anomalies(cohort: Cohort) -> pd.DataFrame:
    """Count the values that the reader found wrong or odd.

    Returns
    -------
    DataFrame
        Indexed by ``column`` and ``note``: how many (``count``) and an ``example``. Empty for
        phantoms.
    """
    listed = cohort.table.attrs.get("anomalies", [])
    frame = pd.DataFrame(listed, columns=["lesion_id", "column", "value", "note"])
    return frame.groupby(["column", "note"])["lesion_id"].agg(count="count", example="first")


# --------------------------------------------------------------------------------------- what it is


def with_images(cohort: Cohort) -> Cohort:
    """Return a cohort whose images are there: itself, or in the released edition its twin."""
    return load_cohort(cohort.card.key, "phantom") if cohort.edition == "released" else cohort


def across_sizes(cohort: Cohort, n: int = 8) -> pd.DataFrame:
    """Choose `n` rows across the range of sizes, half of each class, label 0 first."""
    table, size = cohort.table, cohort.size_column
    rows = []
    for label in (0, 1):
        group = table[table["label"] == label]
        group = group.sort_values(size) if size else group
        at = np.linspace(0.05, 0.95, n // 2) * (len(group) - 1)
        rows.append(group.iloc[at.round().astype(int)])
    return pd.concat(rows)


def draw_gallery(axes: np.ndarray, cohort: Cohort, rows: pd.DataFrame) -> np.ndarray:
    """Draw the axial slice through the seed of each row, 64 x 64 mm, one per axes.

    Rows of a picture run from the front to the back of the patient, columns from the right to the
    left, as a radiologist looks at it.

    Parameters
    ----------
    axes : ndarray of Axes
        As many as rows.
    cohort : Cohort
        One whose images are there; see :func:`with_images`.
    rows : DataFrame
        Rows of its table.
    """
    spec = PatchSpec("SPL", (1, 1, 1), (64, 64, 64), window_hu(cohort.card))
    for one, row in zip(axes.flat, rows.to_dict("records"), strict=True):
        seed = [row["coord_x"], row["coord_y"], row["coord_z"]]
        one.imshow(extract_patches(row["image_path"], [seed], [spec])[0][0][32], vmin=0, vmax=1)
        label = "" if pd.isna(row["label"]) else f"label {row['label']}, "
        size = f"{row['size_mm']:.0f} mm" if "size_mm" in row else row["lesion_id"]
        one.set_title(f"{label}{size}", fontsize=8)
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
    figures = results.published("knn_auc")
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
        The baselines of :func:`tumorbench_utils.baselines.cohort_baselines`; then, in the phantom
        edition, the best reachable score (the truth that made the labels); else, where the
        publication used other rows or labels than this book, the baselines on those, and its best
        model. Columns ``name``, ``auc``, ``low``, ``high``, ``n`` and ``interval`` (its method).
    """
    rows = _named(baselines.cohort_baselines(cohort))
    table = cohort.table
    if cohort.edition == "phantom":
        labelled = table[table["label"].notna()]
        survival = cohort.card.has_survival
        truth = -labelled["true_log_hazard"] if survival else labelled["true_logit"]
        label, patients = labelled["label"].astype(int), labelled["patient_id"]
        best = dict(
            zip(("auc", "low", "high"), stats.bootstrap_auc(label, truth, patients), strict=True)
        )
        best |= {"name": "best reachable (truth)", "n": len(labelled), "interval": _BOOTSTRAP}
    else:
        used = table[table["used_in_reference"]].assign(label=lambda t: t["label_reference"])
        labelled = table[table["label"].notna()]
        if not used["label"].equals(labelled["label"]):
            as_published = baselines.cohort_baselines(replace(cohort, table=used))
            rows += _named(as_published, ", published rows and label")
        found = published_best(cohort.card.key)
        best = {key: found[key] for key in ("auc", "low", "high")}
        best |= {"name": f"best published: {found['model']}", "n": len(used)}
        best["interval"] = "as published"
    return pd.DataFrame([*rows, best], columns=["name", "auc", "low", "high", "n", "interval"])


def _named(made: pd.DataFrame, suffix: str = "") -> list[dict]:
    """Return baselines as rows of :func:`comparison`."""
    made = made.assign(
        name=[
            f"{row.baseline}: {'' if row.direction > 0 else 'minus '}{row.column}{suffix}"
            for row in made.itertuples()
        ],
        interval=_BOOTSTRAP,
    )
    return made[["name", "auc", "low", "high", "n", "interval"]].to_dict("records")


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
            row[f"{baseline} AUC"] = _estimate(made.loc[baseline]) if there else ""
        if row["label 1"]:
            best = published_best(name)
            row["best published"] = f"{best['model']} {_estimate(best)}"
        rows[name] = row
    frame = pd.DataFrame(rows).T
    return frame.where(frame.notna(), "")


def _estimate(row: pd.Series) -> str:
    return plots.estimate(row["auc"], row["low"], row["high"])
