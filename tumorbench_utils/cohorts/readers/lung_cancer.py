"""Readers of NSCLC-Radiomics and NSCLC-Radiogenomics: lung cancer with follow-up."""

from pathlib import Path

import numpy as np
import pandas as pd

from tumorbench_utils.cohorts.readers.shared import (
    SEED,
    assemble,
    blank,
    image_path,
    note,
    two_years,
    with_parts,
)
from tumorbench_utils.cohorts.tables import code, number, text


def nsclc_radiomics(folder: Path, files: tuple[str, ...]) -> tuple[pd.DataFrame, list[dict]]:
    """Read the table and list what is odd in it."""
    main, *parts = files
    frame, split = with_parts(
        folder,
        main,
        dict(zip(("train", "val", "test"), parts, strict=True)),
        "PatientID",
        {
            "PatientID": text(unique=True, pattern=r"^LUNG1-[0-9]{3}$"),
            "age": number(0, 120, missing=True),
            "clinical.T.Stage": code(1, 2, 3, 4, 5, missing=True),
            "Clinical.N.Stage": code(0, 1, 2, 3, 4),
            "Clinical.M.Stage": code(0, 1, 2, 3),
            "Overall.Stage": text(missing=True, values=["I", "II", "IIIa", "IIIb"]),
            "Histology": text(missing=True),
            "gender": text(values=["male", "female"]),
            "Survival.time": number(0, 40000),
            "deadstatus.event": code(0, 1),
            **SEED,
            "image_path": text(),
            "survival": code(0, 1),
        },
    )
    where, patient, days = str(folder / main), frame["PatientID"], frame["Survival.time"]
    stages, anomalies = {}, []
    for name, column, top in (
        ("t_stage", "clinical.T.Stage", 4),
        ("n_stage", "Clinical.N.Stage", 3),
        ("m_stage", "Clinical.M.Stage", 1),
    ):
        raw = frame[column].rename(name)
        stages[name], listed = blank(raw, raw > top, patient, "code outside its scale: missing")
        stages[name] = stages[name].astype("Int64")
        anomalies += listed
    metastatic = patient[stages["m_stage"] == 1]
    anomalies += note(metastatic, "m_stage", 1.0, "M1 beside an overall stage of at most IIIb")
    label = two_years(frame["deadstatus.event"], days > 730)
    anomalies += note(
        patient[label.isna()], "label", 0.0, "lost to follow-up, labelled dead: missing"
    )
    table = assemble(
        frame,
        lesion_id=patient,
        patient_id=patient,
        scan_id=patient,
        image_path=image_path(
            frame["image_path"], r"(?P<scan>LUNG1-[0-9]{3})/CT\.nrrd", patient, where, "image_path"
        ),
        label=label,
        label_reference=frame["survival"],
        time_days=days,
        event=frame["deadstatus.event"],
        split=split,
        used=True,
        age=frame["age"],
        sex=frame["gender"],
        stage=frame["Overall.Stage"],
        **stages,
        histology=frame["Histology"],
    )
    return table, anomalies


def nsclc_radiogenomics(folder: Path, files: tuple[str, ...]) -> tuple[pd.DataFrame, list[dict]]:
    """Read the table and list what is odd in it."""
    main, *parts = files
    stage = {
        "Pathological T stage": ("Tis", "T1a", "T1b", "T2a", "T2b", "T3", "T4"),
        "Pathological N stage": ("N0", "N1", "N2", "N3"),
        "Pathological M stage": ("M0", "M1a", "M1b"),
    }
    frame, split = with_parts(
        folder,
        main,
        dict(zip(("train", "val", "test"), parts, strict=True)),
        "Case ID",
        {
            "Case ID": text(unique=True, pattern=r"^[A-Z0-9]+-[0-9]{3}$"),
            "Age at Histological Diagnosis": number(0, 120),
            "Gender": text(values=["Male", "Female"]),
            "Smoking status": text(),
            "Histology ": text(),
            **{column: text(values=codes) for column, codes in stage.items()},
            "Histopathological Grade": text(),
            "EGFR mutation status": text(values=["Mutant", "Wildtype", "Unknown"]),
            "KRAS mutation status": text(values=["Mutant", "Wildtype", "Unknown"]),
            "Days between CT and surgery": number(-5000, 5000),
            "CT Date": text(),
            "Date of Death": text(missing=True),
            "image_path": text(),
            **SEED,
            "survival": text(values=["True", "False"]),
            "deadstatus.event": code(0, 1),
            "Survival.time": number(0, 40000),
        },
    )
    where, patient, days = str(folder / main), frame["Case ID"], frame["Survival.time"]
    died = pd.to_datetime(frame["Date of Death"], format="%m/%d/%Y", errors="coerce")
    scanned = pd.to_datetime(frame["CT Date"], format="%m/%d/%Y", errors="coerce")
    off = (died - scanned).dt.days.sub(days).where(died.notna(), 0).ne(0)
    anomalies = []
    for row in patient.index[off]:
        anomalies += note(
            [patient[row]], "time_days", days[row], "differs from the dates of CT and death"
        )
    short = patient[(days < 30) & (frame["deadstatus.event"] == 1)]
    for row, case in short.items():
        anomalies += note([case], "time_days", days[row], "death soon after CT: CT after surgery?")
    reference = (frame["survival"] == "True").astype(int)
    t, n, m = (frame[column] for column in stage)
    table = assemble(
        frame,
        lesion_id=patient,
        patient_id=patient,
        scan_id=patient,
        image_path=image_path(
            frame["image_path"],
            r"(?P<scan>[A-Z0-9]+-[0-9]{3})/CT/(?P=scan)\.nrrd",
            patient,
            where,
            "image_path",
        ),
        label=two_years(frame["deadstatus.event"], days >= 730),
        label_reference=reference,
        time_days=days,
        event=frame["deadstatus.event"],
        split=split,
        used=True,
        age=frame["Age at Histological Diagnosis"],
        sex=frame["Gender"].str.lower(),
        stage=pd.Series([stage_group(*tnm) for tnm in zip(t, n, m, strict=True)], frame.index),
        t_stage=t,
        n_stage=n,
        m_stage=m,
        histology=frame["Histology "],
        grade=frame["Histopathological Grade"],
        smoking=frame["Smoking status"],
        egfr=frame["EGFR mutation status"].replace("Unknown", np.nan),
        kras=frame["KRAS mutation status"].replace("Unknown", np.nan),
        days_ct_to_surgery=frame["Days between CT and surgery"],
    )
    return table, anomalies


def stage_group(t: str, n: str, m: str) -> str:
    """Return the stage group of the seventh TNM edition for lung cancer.

    Parameters
    ----------
    t : {"Tis", "T1a", "T1b", "T2a", "T2b", "T3", "T4"}
    n : {"N0", "N1", "N2", "N3"}
    m : {"M0", "M1a", "M1b"}

    Returns
    -------
    str
        ``"0"``, ``"IA"``, ``"IB"``, ``"IIA"``, ``"IIB"``, ``"IIIA"``, ``"IIIB"`` or ``"IV"``
        [1]_.

    References
    ----------
    .. [1] Goldstraw P et al. (2007). The IASLC Lung Cancer Staging Project: proposals for the
       revision of the TNM stage groupings. J Thorac Oncol 2, 706-714.
    """
    if m != "M0":
        return "IV"
    if n == "N3" or (t == "T4" and n == "N2"):
        return "IIIB"
    if n == "N2" or t == "T4" or (t == "T3" and n == "N1"):
        return "IIIA"
    if n == "N1":
        return "IIB" if t == "T2b" else "IIA"
    return {"Tis": "0", "T1a": "IA", "T1b": "IA", "T2a": "IB", "T2b": "IIA", "T3": "IIB"}[t]
