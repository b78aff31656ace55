"""Readers of C4KC-KiTS and Colorectal-Liver-Metastases: abdominal tumours with follow-up."""

from pathlib import Path

import numpy as np
import pandas as pd

from tumorbench_utils.cohorts.cards import CohortError
from tumorbench_utils.cohorts.readers.shared import (
    SEED,
    UID,
    assemble,
    blank,
    image_path,
    note,
    two_years,
)
from tumorbench_utils.cohorts.tables import code, number, read_csv, text

#: Mean length of a month.
DAYS_PER_MONTH = 30.4375


def c4kc_kits(folder: Path, files: tuple[str, ...]) -> tuple[pd.DataFrame, list[dict]]:
    """Read the table and list what is odd in it."""
    where = str(folder / files[0])
    frame = read_csv(
        folder,
        files[0],
        {
            "patient_id": text(unique=True, pattern=r"^KiTS-[0-9]{5}$"),
            "age_at_nephrectomy": number(0, 120),
            "gender": text(values=["male", "female"]),
            "body_mass_index": number(5, 120, missing=True),
            "smoking_history": text(),
            "radiographic_size": number(0.1, 40),
            "pathologic_size": number(0.1, 40),
            "malignant": text(values=["True", "False"]),
            "pathology_t_stage": text(values=["0", "1a", "1b", "2a", "2b", "3", "4"]),
            "tumor_histologic_subtype": text(),
            "tumor_isup_grade": code(1, 2, 3, 4, missing=True),
            "vital_status": text(values=["censored", "dead"]),
            "vital_days_after_surgery": number(0, 40000),
            "Series UID": text(unique=True, pattern=rf"^{UID}$"),
            "Manufacturer": text(),
            "image_path": text(),
            **SEED,
        },
    )
    patient, days = frame["patient_id"], frame["vital_days_after_surgery"]
    dead = (frame["vital_status"] == "dead").astype(int)
    label = two_years(dead, days >= 730)
    anomalies = note(patient[days == 0], "time_days", 0.0, "no follow-up")
    for row in frame.index[frame["age_at_nephrectomy"] < 18]:
        age = frame.loc[row, "age_at_nephrectomy"]
        anomalies += note([patient[row]], "age", age, "a child among adults")
    anomalies += note(patient[frame["malignant"] == "False"], "malignant", False, "benign tumour")
    table = assemble(
        frame,
        lesion_id=patient,
        patient_id=patient,
        scan_id=frame["Series UID"],
        image_path=image_path(
            frame["image_path"],
            rf"(?P<scan>{UID})/ct\.nii\.gz",
            frame["Series UID"],
            where,
            "image_path",
        ),
        label=label,
        label_reference=label,
        time_days=days,
        event=dead,
        split="none",
        used=label.notna(),
        size_mm=10 * frame["radiographic_size"],
        pathologic_size_mm=10 * frame["pathologic_size"],
        age=frame["age_at_nephrectomy"],
        sex=frame["gender"],
        stage=frame["pathology_t_stage"],
        histology=frame["tumor_histologic_subtype"],
        malignant=frame["malignant"] == "True",
        isup_grade=frame["tumor_isup_grade"].astype("Int64"),
        bmi=frame["body_mass_index"],
        smoking=frame["smoking_history"],
        manufacturer=frame["Manufacturer"],
    )
    return table, anomalies


def colorectal_liver_metastases(
    folder: Path, files: tuple[str, ...]
) -> tuple[pd.DataFrame, list[dict]]:
    """Read the table and list what is odd in it."""
    yes_no = (
        "node_positive_primary",
        "synchronous_crlm",
        "multiple_metastases",
        "bilobar_disease",
        "extrahep_disease",
        "chemo_before_liver_resection",
    )
    where = str(folder / files[0])
    frame = read_csv(
        folder,
        files[0],
        {
            "Patient-ID": text(unique=True, pattern=r"^CRLM-CT-[0-9]{4}$"),
            "Subject ID": text(unique=True),
            "Series UID": text(unique=True, pattern=rf"^{UID}$"),
            "Manufacturer": text(),
            "age": number(0, 120),
            "sex": code(1, 2),
            "body_mass_index": number(5, 120, missing=True),
            "clinrisk_score": code(-999, 0, 1, 2, 3, 4, 5),
            "carcinoembryonic_antigen": number(-999, 1e5),
            "max_tumor_size": number(0, 40),
            **{column: code(0, 1) for column in yes_no},
            "months_to_DFS_progression": number(0, 1200),
            "vital_status_DFS": code(0, 1),
            "overall_survival_months": number(0, 1200),
            "vital_status": code(0, 1),
            "relevant_notes": text(missing=True),
            "image_path": text(),
            "mask_path": text(),
            **SEED,
        },
    )
    patient, months = frame["Patient-ID"], frame["overall_survival_months"]
    differ = patient != frame["Subject ID"]
    if differ.any():
        row = differ.index[differ][0]
        raise CohortError(
            f"{where}: row {row}, column 'Subject ID': {frame.loc[row, 'Subject ID']!r} is not "
            f"{patient[row]!r}"
        )
    marker = frame["carcinoembryonic_antigen"]
    negative = (marker < 0) & (marker != -999)
    if negative.any():
        row = negative.index[negative][0]
        raise CohortError(
            f"{where}: row {row}, column 'carcinoembryonic_antigen': {marker[row]} is negative"
        )
    size, anomalies = blank(
        (10 * frame["max_tumor_size"]).rename("size_mm"),
        frame["max_tumor_size"] == 0,
        patient,
        "a size of 0 beside a mask: missing",
    )
    n_masks = frame["mask_path"].str.count("PosixPath")
    for row in frame.index[frame["relevant_notes"].notna()]:
        anomalies += note([patient[row]], "coord_y", frame.loc[row, "coordY"], "scanned prone")
    for row in frame.index[n_masks > 20]:
        anomalies += note([patient[row]], "n_masks", int(n_masks[row]), "one seed, many masks")
    label = two_years(frame["vital_status"], months >= 24)
    table = assemble(
        frame,
        lesion_id=patient,
        patient_id=patient,
        scan_id=frame["Series UID"],
        image_path=image_path(
            frame["image_path"],
            rf"(?P<scan>{UID})/nifti/dicom\.nii\.gz",
            frame["Series UID"],
            where,
            "image_path",
        ),
        label=label,
        label_reference=label,
        time_days=months * DAYS_PER_MONTH,
        event=frame["vital_status"],
        split="none",
        used=label.notna(),
        size_mm=size,
        age=frame["age"],
        sex=frame["sex"].map({1.0: "male", 2.0: "female"}),
        bmi=frame["body_mass_index"],
        clinrisk_score=frame["clinrisk_score"].replace(-999, np.nan).astype("Int64"),
        carcinoembryonic_antigen=marker.replace(-999, np.nan),
        **{column: frame[column].astype("Int64") for column in yes_no},
        dfs_days=frame["months_to_DFS_progression"] * DAYS_PER_MONTH,
        dfs_event=frame["vital_status_DFS"].astype("Int64"),
        n_masks=n_masks.astype("Int64"),
        manufacturer=frame["Manufacturer"],
    )
    return table, anomalies
