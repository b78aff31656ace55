"""What the pages of the cohorts show in common: facts, flow, gallery, leakage and the ruler."""

import textwrap
from dataclasses import replace

import numpy as np
import pandas as pd
from IPython.display import Markdown
from lifelines import KaplanMeierFitter
from matplotlib.axes import Axes

from tumorbench_utils import baselines, plots, results, splits, stats
from tumorbench_utils.cohorts import Cohort, CohortCard, load_cohort
from tumorbench_utils.patches import PatchSpec, extract_patch
from tumorbench_utils.survival import clinical_table

#: What is black and what is white in a picture of each organ; wide if it is not known.
_WINDOWS_HU = {"lung": (-1100, 300), "kidney": (-120, 240), "liver": (-80, 200)}

_BOOTSTRAP = "patient bootstrap"


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


def problems(card: CohortCard) -> Markdown:
    """Return what is known to be wrong or weak in the released table, as a list."""
    lines = "\n".join(f"- {problem}" for problem in card.known_problems)
    return Markdown(f"Known to be wrong or weak in the released table:\n\n{lines}")


def table_or(sentence: str, frame: pd.DataFrame, edition: str, **options):
    """Return a table as :func:`plots.table` does, or a sentence if it has no rows."""
    return plots.table(frame, edition, **options) if len(frame) else Markdown(sentence)


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
    expected, out = card.expected, card.exclusions
    rows, labelled = expected["rows"], expected["label_0"] + expected["label_1"]
    exclusions = "; ".join(f"{lesion}: {reason}" for lesion, reason in out.items())
    steps = [
        ("rated by three readers", expected.get("rated", rows), "mean rating of 3"),
        ("rows of the released table", rows, exclusions),
        ("lesions in this book", rows - len(out), "lost to follow-up before two years"),
    ]
    if labelled:
        used = min(labelled, expected["used_in_reference"])
        steps.append(("lesions with a label", labelled, "not used by the publication"))
        steps += [("used by the publication", used, "")] * (used < labelled)
    frame = pd.DataFrame(steps, columns=["step", "lesions", "reason"])
    frame.insert(2, "left_out", frame["lesions"].diff(-1).fillna(0).astype(int))
    frame["reason"] = frame["reason"].where(frame["left_out"] > 0, "")
    return frame[(frame["left_out"] > 0) | (frame.index == len(frame) - 1)].reset_index(drop=True)


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
    names = [name for name in cohort.card.covariates if name != "duplicate_of"]
    gone = cohort.table.filter(names).isna()
    gone, label = gone.loc[:, gone.any()], cohort.table["label"].astype("Float64")
    rows = [[m.sum(), m.mean(), label[~m].mean(), label[m].mean()] for _, m in gone.items()]
    columns = ["missing", "share", "label 1 if there", "label 1 if missing"]
    return pd.DataFrame(rows, gone.columns, columns if rows else [])


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
    for _, group in table.groupby("label"):
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
    window = _WINDOWS_HU.get(cohort.card.organ, (-1000, 400))
    spec = PatchSpec("SPL", (1, 1, 1), (64, 64, 64), window)
    for one, row in zip(axes.flat, rows.to_dict("records"), strict=True):
        seed = [row["coord_x"], row["coord_y"], row["coord_z"]]
        patch = extract_patch(row["image_path"], seed, spec)
        label = "" if pd.isna(row["label"]) else f"label {row['label']}, "
        size = f"{row['size_mm']:.0f} mm" if "size_mm" in row else row["lesion_id"]
        plots.picture(one, patch[32], label + size, vmin=0, vmax=1)
    return axes


def draw_by_label(axes: Axes, table: pd.DataFrame, column: str) -> Axes:
    """Draw the distribution of a covariate by label, on a logarithmic axis if it is a size.

    Lesions without the covariate or without a label are left out.
    """
    there = table.dropna(subset=[column, "label"])
    values = there[column].astype(float)
    size = column.startswith("size")
    bins = (np.geomspace if size else np.linspace)(values.min(), values.max(), 19)
    for label, group in values.groupby(there["label"]):
        axes.hist(group, bins=bins, alpha=0.6, label=f"label {label}")
    if size:
        ticks = [t for t in (2, 5, 10, 20, 50, 100, 200) if bins[0] <= t <= bins[-1]]
        axes.set_xscale("log")
        axes.set_xticks(ticks, ticks)
        axes.minorticks_off()
    axes.set(xlabel=column, ylabel="lesions")
    axes.legend()
    return axes


def draw_survival(axes: Axes, cohort: Cohort) -> Markdown:
    """Draw the survival of a cohort with its interval and the two-year mark.

    Patients without any follow-up are left out.

    Returns
    -------
    Markdown
        How many died, and the median survival.
    """
    table = clinical_table(cohort).table
    curve = KaplanMeierFitter().fit(table["time_days"] / 365.25, table["event"])
    curve.plot_survival_function(ax=axes, legend=False)
    axes.axvline(2, color="#777777", linestyle="--", linewidth=1)
    axes.set(xlabel="years", ylabel="alive", ylim=(0, 1.02), xlim=(0, None))
    median = curve.median_survival_time_
    known = f"is {median:.1f} years" if np.isfinite(median) else "is not reached"
    events, n = int(cohort.table["event"].sum()), len(cohort.table)
    died = f"{events} of {n} patients died while they were followed"
    return Markdown(f"{died}; the median survival {known}.")


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
    rows, patients = {}, "level == 'patient_id' and first == 'train' and second == 'test'"
    for protocol, several in {
        "lesion by lesion (published)": splits.reference_splits(table["label"]),
        "grouped by patient": splits.grouped_splits(table),
    }.items():
        reports = pd.concat([splits.leakage_report(table, split) for split in several])
        rows[protocol] = reports.query(patients)[["share", "same_label"]].mean()
    return pd.DataFrame(rows).T


def published_best(name: str) -> pd.Series:
    """Return the best of the ten models on a cohort, as first published.

    Returns
    -------
    Series
        ``model``, ``auc``, ``low``, ``high`` (the published interval, mean of ten overlapping
        splits +- 1.96 standard errors, which is too narrow) and more.
    """
    figures = results.published("knn_auc")
    figures = figures[figures["release"] == figures["release"].min()]
    figures = figures[figures["cohort"] == name]
    return figures.loc[figures["auc"].idxmax()]


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

    def unfitted(cohort: Cohort, suffix: str = "") -> pd.DataFrame:
        made = baselines.cohort_baselines(cohort)
        minus = made["direction"].map({1: ": ", -1: ": minus "})
        names = made["baseline"] + minus + made["column"] + suffix
        return made.assign(name=names, interval=_BOOTSTRAP)

    table, rows = cohort.table, [unfitted(cohort)]
    labelled = table[table["label"].notna()]
    if cohort.edition == "phantom":
        survival = cohort.card.has_survival
        truth = -labelled["true_log_hazard"] if survival else labelled["true_logit"]
        auc = stats.bootstrap_auc(labelled["label"].astype(int), truth, labelled["patient_id"])
        best = ["best reachable (truth)", *auc, len(labelled), _BOOTSTRAP]
    else:
        used = table[table["used_in_reference"]].assign(label=lambda t: t["label_reference"])
        if not used["label"].equals(labelled["label"]):
            rows.append(unfitted(replace(cohort, table=used), ", published rows and label"))
        found = published_best(cohort.card.key)
        auc = found[["auc", "low", "high"]]
        best = [f"best published: {found['model']}", *auc, len(used), "as published"]
    columns = ["name", "auc", "low", "high", "n", "interval"]
    rows.append(pd.DataFrame([best], columns=columns))
    return pd.concat([frame[columns] for frame in rows if len(frame)], ignore_index=True)


def draw_comparison(axes: Axes, rows: pd.DataFrame) -> Axes:
    """Draw :func:`comparison` with chance as a dashed line."""
    colors = [plots.PALETTE[0]] * (len(rows) - 1) + [plots.PALETTE[3]]
    estimates = (rows[name] for name in ("auc", "low", "high"))
    plots.forest(axes, rows["name"].tolist(), *estimates, reference=0.5, colors=colors)
    axes.set(xlabel="AUC", xlim=(0.3, 1))
    return axes
