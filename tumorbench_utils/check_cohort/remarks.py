"""What a table and its scans should make a reader think, in words."""

import numpy as np
import pandas as pd

#: Half a patch of the benchmark; nearer to the border a patch holds what is not in the scan.
_HALF_PATCH_MM = 24

#: Slices further apart than this hide small lesions.
_THICK_MM = 5.0

#: A centre below this is air, not tissue.
_AIR_HU = -900

#: Fewer patients than this in the smaller class cannot tell models apart.
_FEW = 20


def where(table: pd.DataFrame, row: int, column: str) -> str:
    """Return how a cell is called: by file, row and column, as far as the table knows them."""
    called = table.attrs.get("called", {}).get(column, column)
    rows = table.attrs.get("rows", range(len(table)))
    file = f"{table.attrs['file']}: " if "file" in table.attrs else ""
    return f"{file}row {rows[row]}, column {called!r} ({table.loc[row, 'lesion_id']})"


def same_picture(table: pd.DataFrame, lesions: pd.DataFrame) -> list[str]:
    """Return faults: lesions of two patients that show the same scan to the last HU."""
    faults = []
    patients = table.set_index("lesion_id")["patient_id"]
    for _, part in lesions.dropna(subset=["digest"]).groupby("digest", sort=False):
        first, *others = part.index
        for lesion in others:
            if patients[lesion] != patients[first]:
                faults.append(
                    f"{where(table, int(part.loc[lesion, 'row']), 'patient_id')}: shows the same "
                    f"scan at the same place as {first} of {patients[first]}: one patient under "
                    "two names?"
                )
    return faults


def on_table(table: pd.DataFrame) -> list[str]:
    """Return remarks on names, labels, sizes, times and seeds."""
    remarks = []
    patients = table["patient_id"].drop_duplicates()
    plain = patients.str.lower().str.replace(r"[\W_]+|(?<!\d)0+(?=\d)", "", regex=True)
    for _, alike in patients.groupby(plain.to_numpy()):
        if len(alike) > 1:
            remarks.append(f"patients with nearly the same name: {', '.join(map(repr, alike[:4]))}")
    labelled = table[table["label"].notna()]
    classes = labelled.groupby("label")["patient_id"].nunique()
    if labelled.empty and table["event"].isna().all():
        remarks.append("there are neither labels nor times: only robustness and similarity remain")
    elif len(labelled) and len(classes) < 2:
        remarks.append(f"all labels are {classes.index[0]}: there is nothing to tell apart")
    elif len(labelled) and classes.min() < _FEW:
        remarks.append(
            f"label {classes.idxmin()} has {classes.min()} patients: intervals will be wide, and "
            "hardly any difference between models can be shown"
        )
    if "size_mm" in table and table["size_mm"].notna().any():
        middle = table["size_mm"].median()
        if middle < 1.5 or middle > 150:
            remarks.append(f"half of the sizes lie below {middle:g}: are they in mm?")
    events = table["event"].sum()
    if table["event"].notna().any() and events < _FEW:
        remarks.append(f"{events} events: too few for a survival model of more than one number")
    seeds = table.groupby("scan_id")[["coord_x", "coord_y", "coord_z"]]
    for scan, points in seeds:
        away = np.linalg.norm(points.to_numpy()[:, None] - points.to_numpy()[None], axis=2)
        pairs = np.argwhere(np.triu(away < 1, 1))
        if len(pairs):
            names = table.loc[points.index[pairs[0]], "lesion_id"].tolist()
            remarks.append(f"{scan}: {' and '.join(names)} lie less than 1 mm apart")
    return remarks


def on_scans(table: pd.DataFrame, scans: pd.DataFrame, lesions: pd.DataFrame) -> list[str]:
    """Return remarks on slices, borders, air, and what gives the label away."""
    remarks = []
    if scans.empty:
        return remarks
    thick = scans[scans["slice_mm"] > _THICK_MM]
    if len(thick):
        remarks.append(
            f"slices of {len(thick)} scans are more than {_THICK_MM:g} mm apart, for example "
            f"{thick['scan_id'].iloc[0]} ({thick['slice_mm'].iloc[0]:.1f} mm)"
        )
    near = lesions[lesions["margin_mm"] < _HALF_PATCH_MM]
    if len(near):
        remarks.append(
            f"{len(near)} of {len(table)} lesions lie less than {_HALF_PATCH_MM} mm from the "
            f"border of their scan, for example {near.index[0]}: their patches are filled up, "
            "which a network sees"
        )
    air = lesions[lesions["centre_hu"] < _AIR_HU]
    if len(air):
        remarks.append(
            f"{len(air)} seeds lie in air, for example {air.index[0]} "
            f"({air['centre_hu'].iloc[0]:.0f} HU): look at the pictures; are coordinates LPS mm?"
        )
    by_scan = table.drop_duplicates("scan_id").set_index("scan_id")["label"].dropna()
    spacing = scans.set_index("scan_id")["slice_mm"].reindex(by_scan.index)
    means = spacing.groupby(by_scan).mean()
    if len(means) == 2 and abs(means.iloc[1] / means.iloc[0] - 1) > 0.2:
        remarks.append(
            f"slices are {means.iloc[0]:.1f} mm apart where the label is 0 and {means.iloc[1]:.1f} "
            "mm where it is 1: a network can tell the label from the scanner"
        )
    return remarks
