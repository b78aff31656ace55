"""The report of a check as one page."""

from dataclasses import replace
from typing import TYPE_CHECKING

import matplotlib.pyplot as plt
import pandas as pd

from tumorbench_utils import cohort_pages, plots, webpage
from tumorbench_utils.check_cohort.scans import across
from tumorbench_utils.cohorts import Cohort

if TYPE_CHECKING:
    from tumorbench_utils.check_cohort.check import CohortCheck

_STANDARD = (
    *("lesion_id", "patient_id", "scan_id", "image_path", "mask_path", "mask_label"),
    *("coord_x", "coord_y", "coord_z", "label", "label_reference", "time_days", "event"),
)

_SHOWN = 30


def counts(cohort: Cohort) -> pd.DataFrame:
    """Return how many lesions, scans, patients, labels and events there are."""
    table = cohort.table
    rows = {
        "lesions": len(table),
        "scans": table["scan_id"].nunique(),
        "patients": table["patient_id"].nunique(),
        "patients with several lesions": int((table["patient_id"].value_counts() > 1).sum()),
        "label 0": int((table["label"] == 0).sum()),
        "label 1": int((table["label"] == 1).sum()),
        "no label": int(table["label"].isna().sum()),
    }
    if table["event"].notna().any():
        rows["with follow-up"] = int(table["event"].notna().sum())
        rows["events"] = int(table["event"].sum())
    return pd.DataFrame({"": rows})


def shortcuts(check: "CohortCheck") -> pd.DataFrame:
    """Return the share of label 1 by file format and by what may name the scanner."""
    table = check.cohort.table.merge(
        check.scans[["format"]], left_on="scan_id", right_index=True, how="left"
    )
    parts = []
    for name in ("format", "manufacturer"):
        if name in table:
            groups = table.dropna(subset=[name]).groupby(name)["label"]
            part = pd.DataFrame({"lesions": groups.size(), "share of label 1": groups.mean()})
            part.index = [f"{name} {value}" for value in part.index]
            parts.append(part)
    return pd.concat(parts) if parts else pd.DataFrame()


def draw_ten(check: "CohortCheck") -> plt.Figure:
    """Draw up to ten lesions, 64 x 64 mm, across the sizes; the seed is in the middle."""
    figure, grid = plt.subplots(2, 5, figsize=(9, 4.2))
    low, high = cohort_pages.window_hu(check.cohort.card)
    rows = [row for row in across(check.cohort).to_dict("records")]
    for axes, row in zip(grid.flat, rows + [None] * (10 - len(rows)), strict=True):
        axes.axis("off")
        if row is None or row["lesion_id"] not in check.pictures:
            continue
        axes.imshow(check.pictures[row["lesion_id"]], vmin=low, vmax=high, cmap="gray")
        if check.lesions.loc[row["lesion_id"], "margin_mm"] > 32:  # else beside the middle
            axes.plot(31.5, 31.5, "+", color=plots.PALETTE[1], markersize=8)
        label = "" if pd.isna(row["label"]) else f"label {row['label']}"
        axes.set_title(f"{row['lesion_id']}\n{label}", fontsize=7)
    return figure


def _leakage(table: pd.DataFrame) -> str:
    """Return what lesion-wise splits would share, or why there are none."""
    try:
        shared = cohort_pages.leakage(table)
    except ValueError as error:
        return webpage.text(f"No splits can be made: {error}.")
    shared.columns = ["test lesions with a train lesion of their patient", "of these, same label"]
    return webpage.table(shared, "Mean over ten splits, as shares.")


def html(check: "CohortCheck") -> str:
    """Return the page."""
    cohort, n = check.cohort, len(check.faults)
    lead = [webpage.text(f"{cohort.card.title}: what a look at the table and at every scan found.")]
    if n:
        more = [f"and {n - _SHOWN} more"] if n > _SHOWN else []
        lead.append(
            webpage.box(f"{n} to be mended first", [*check.faults[:_SHOWN], *more], good=False)
        )
    else:
        lead.append(webpage.box("Nothing has to be mended.", good=True))
    if check.remarks:
        lead += [webpage.text("To think about:"), webpage.bullets(check.remarks)]
    others = {name: "" for name in cohort.table if name not in _STANDARD and "true_" not in name}
    gaps = cohort_pages.missing(replace(cohort, card=replace(cohort.card, covariates=others)))
    geometry = check.scans.drop(columns=["voxels", "axes"], errors="ignore")
    sections = {
        "Counts": [webpage.table(counts(cohort))],
        "Leakage": [
            webpage.text(
                "Lesions of one patient resemble each other. Splits that deal out lesions one by "
                "one put them on both sides; splits by patient do not."
            ),
            _leakage(cohort.table),
        ],
        "Missing data": [
            webpage.table(gaps, "Covariates with gaps, and the share of label 1.")
            if len(gaps)
            else webpage.text("No covariate has gaps.")
        ],
        "Lesions": [
            webpage.picture(
                draw_ten(check),
                "Up to ten lesions across the sizes, axial, 64 x 64 mm; the cross is the seed "
                "(not drawn near the border of a scan).",
                "Small pictures of lesions, each with a cross in its middle.",
            )
        ],
        "Intensities": [
            webpage.text(
                "HU within 3 mm of the seeds (centre_hu), and the 1st and 99th percentile of the "
                "64 mm around them. Air is near -1000, fat near -100, soft tissue near 40."
            ),
            webpage.table(
                check.lesions.astype(float)
                .describe()
                .drop(index=["count", "std"], errors="ignore"),
                precision=0,
            ),
        ],
        "Geometry": [
            webpage.table(geometry.select_dtypes("number").describe().drop(index=["count", "std"]))
            if len(geometry)
            else webpage.text("No scan could be opened."),
            webpage.table(
                check.scans.groupby(["format", "axes"]).size().rename("scans").reset_index(),
                "Formats, and the directions in which the axes of the files run.",
                index=False,
            )
            if len(geometry)
            else "",
        ],
    }
    short = shortcuts(check) if len(check.scans) and cohort.table["label"].notna().any() else []
    if len(short):
        sections["Shortcuts"] = [
            webpage.text(
                "If the label can be told from the format or the scanner, a network can learn that "
                "instead of the disease."
            ),
            webpage.table(short),
        ]
    return webpage.page(f"Check of {cohort.card.title}", sections, lead)
