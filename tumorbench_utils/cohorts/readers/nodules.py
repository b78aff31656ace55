"""Readers of LUNA16, DLCS and RIDER: lung nodules without follow-up."""

from pathlib import Path

import numpy as np
import pandas as pd

from tumorbench_utils.cohorts.cards import CohortError
from tumorbench_utils.cohorts.readers.shared import (
    SEED,
    UID,
    assemble,
    image_path,
    note,
)
from tumorbench_utils.cohorts.tables import code, number, read_csv, text


def luna16(folder: Path, files: tuple[str, ...]) -> tuple[pd.DataFrame, list[dict]]:
    """Read the table and list what is odd in it."""
    columns = {
        "Unnamed: 0": number(0, 1185, unique=True),
        "malignancy": code(0, 1),
        **SEED,
        "image_path": text(),
    }
    tables, seen = [], {}
    for relative in files:
        frame, part = read_csv(folder, relative, columns), Path(relative).stem
        where = str(folder / relative)
        for row, source in frame["Unnamed: 0"].items():
            if source in seen or source != int(source):
                said = f"is also in {seen[source]}" if source in seen else "is not a whole number"
                raise CohortError(
                    f"{where}: row {row}, column 'Unnamed: 0': lesion {source:g} {said}"
                )
            seen[source] = relative
        scan = frame["image_path"].str.extract(rf"({UID})\.mhd$", expand=False)
        scan = scan.where(scan.notna(), frame["image_path"])
        tables.append(
            assemble(
                frame,
                lesion_id=frame["Unnamed: 0"].map("LUNA16_{:04.0f}".format),
                patient_id=scan,
                scan_id=scan,
                image_path=image_path(
                    frame["image_path"], rf"(?P<scan>{UID})\.mhd", scan, where, "image_path"
                ),
                label=frame["malignancy"],
                label_reference=frame["malignancy"],
                split=part,
                used=True,
            )
        )
    return pd.concat(tables).sort_values("lesion_id", ignore_index=True), []


def dlcs(folder: Path, files: tuple[str, ...]) -> tuple[pd.DataFrame, list[dict]]:
    """Read the table and list what is odd in it."""
    where = str(folder / files[0])
    frame = read_csv(
        folder,
        files[0],
        {
            "patient-id": text(pattern=r"^DLCS_[0-9]{4}$"),
            "nodule_id": text(unique=True, pattern=r"^DLCS_[0-9]{4}_[0-9]{2}$"),
            "ct_nifti_file": text(),
            **SEED,
            **{side: number(0.1, 400) for side in "whd"},
            "Malignant_lbl": code(0, 1),
            "benchmark_split": text(values=["train", "validation", "test"]),
        },
    )
    patient, lesion = frame["patient-id"], frame["nodule_id"]
    foreign = lesion.str[:9] != patient
    if foreign.any():
        row = foreign.index[foreign][0]
        raise CohortError(
            f"{where}: row {row}, column 'nodule_id': {lesion[row]!r} is no nodule of "
            f"{patient[row]!r}"
        )
    mixed = frame.groupby("patient-id")["Malignant_lbl"].transform("nunique") > 1
    if mixed.any():
        row = mixed.index[mixed][0]
        raise CohortError(
            f"{where}: row {row}, column 'Malignant_lbl': {patient[row]} has both labels, but the "
            "label belongs to the patient"
        )
    same = frame.groupby(["patient-id", *SEED, *"whd"], sort=False)["nodule_id"]
    first = same.transform("first")
    box = frame[list("whd")]
    anomalies = []
    for row in frame.index[first != lesion]:
        anomalies += note([lesion[row]], "duplicate_of", first[row], "exact copy of a row")
    for row in frame.index[box.max(axis=1) > 100]:
        anomalies += note([lesion[row]], "size_mm", box.loc[row].max(), "implausibly long box")
    table = assemble(
        frame,
        lesion_id=lesion,
        patient_id=patient,
        scan_id=patient,
        image_path=image_path(
            frame["ct_nifti_file"],
            r"(?P<scan>DLCS_[0-9]{4})\.nii\.gz",
            patient,
            where,
            "ct_nifti_file",
        ),
        label=frame["Malignant_lbl"],
        label_reference=frame["Malignant_lbl"],
        split=frame["benchmark_split"].replace("validation", "val"),
        used=patient.str[5:].astype(int) <= 1120,
        size_mm=box.max(axis=1),
        size_x_mm=frame["w"],
        size_y_mm=frame["h"],
        size_z_mm=frame["d"],
        duplicate_of=first.where(first != lesion),
    )
    return table, anomalies


def rider_lung_ct(folder: Path, files: tuple[str, ...]) -> tuple[pd.DataFrame, list[dict]]:
    """Read the table and list what is odd in it."""
    where = str(folder / files[0])
    frame = read_csv(
        folder,
        files[0],
        {
            "PatientID": text(unique=True, pattern=r"^[0-9]+-(test|retest)$"),
            **SEED,
            "image_path": text(),
        },
    )
    name = frame["PatientID"]
    patient, session = name.str.split("-").str[0], name.str.split("-").str[1]
    alone = patient.map(patient.value_counts()) != 2
    if alone.any():
        row = alone.index[alone][0]
        raise CohortError(
            f"{where}: row {row}, column 'PatientID': {patient[row]} has no pair of test and retest"
        )
    path = image_path(
        frame["image_path"],
        r"rider_(?P<scan>[0-9]+-(?:test|retest))_[a-z_]+\.nrrd",
        name,
        where,
        "image_path",
    )
    unknown = pd.Series(pd.NA, index=frame.index, dtype="Int64")
    table = assemble(
        frame,
        lesion_id=name,
        patient_id=patient,
        scan_id=path.str.removesuffix(".nrrd"),
        image_path=path,
        label=unknown,
        label_reference=unknown,
        split="none",
        used=True,
        session=session,
    )
    order = ["patient_id", "session"]
    return table.sort_values(order, ascending=[True, False], ignore_index=True), []


def add_reader_boxes(table: pd.DataFrame, path: Path) -> pd.DataFrame:
    """Add the LIDC readers' bounding boxes and ratings to the table of LUNA16.

    The released table has none. An optional file (``cohorts/clean/LUNA16.csv`` under
    ``TUMORBENCH_DATA``) holds them: one row per lesion, with ``lesion_id``, seed and label to check
    that it is the same lesion, the box in voxels, and mean ratings rounded half to even.

    Parameters
    ----------
    table : DataFrame
        As released.
    path : Path

    Returns
    -------
    DataFrame
        With ``size_px`` (larger in-plane side, pixels: the spacing is in neither file, so no size
        in millimetres can be given), ``bbox_rows, bbox_cols, bbox_slices``, ``malignancy_rating``,
        ``spiculation``, ``lobulation``.

    Raises
    ------
    CohortError
        If the file does not hold the same lesions, seeds and labels.
    """
    ratings = ("malignancy_rating", "spiculation", "lobulation")
    boxes = read_csv(
        path.parent,
        path.name,
        {
            "lesion_id": text(unique=True),
            **{f"coord_{axis}": SEED[f"coord{axis.upper()}"] for axis in "xyz"},
            "label": code(0, 1),
            **{f"bbox_{side}": number(1, 1000) for side in ("rows", "cols", "slices")},
            **{name: code(1, 2, 3, 4, 5) for name in ratings},
        },
    )
    boxes = boxes.set_index("lesion_id").reindex(table["lesion_id"]).reset_index(drop=True)
    for name in ("coord_x", "coord_y", "coord_z", "label"):
        differs = ~np.isclose(boxes[name], table[name].astype(float), rtol=0, atol=1e-3)
        if differs.any():
            lesion = table["lesion_id"][differs].iloc[0]
            raise CohortError(
                f"{path}: column {name!r}: lesion {lesion} is absent or is another one than in the "
                "released table"
            )
    table = table.assign(size_px=boxes[["bbox_rows", "bbox_cols"]].max(axis=1))
    for name in ("bbox_rows", "bbox_cols", "bbox_slices", *ratings):
        table[name] = boxes[name].astype("Int64")
    return table
