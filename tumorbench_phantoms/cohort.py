"""Phantom cohorts: which cases they hold, how they are scanned, and what their table says."""

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
from tqdm import tqdm

from tumorbench_phantoms.latent import draw, stream
from tumorbench_phantoms.lesion import Lesion
from tumorbench_phantoms.parameters import PHENOTYPE, check, load, of_cohort
from tumorbench_phantoms.scanner import Acquisition, Case, Scan, scan
from tumorbench_phantoms.store import write_dicom, write_image

#: A cohort is a systematic sample of one in this many patients.
_POOL = 25


@dataclass(frozen=True)
class Planned:
    """One scan of a cohort before it is made.

    Attributes
    ----------
    scan_id, patient_id : str
    case : Case
    acquisition : Acquisition
    noise : tuple of int
        Seed of the noise, for :func:`~tumorbench_phantoms.scan`.
    rows : DataFrame
        One row per lesion of the scan, as in the cohort's table, still without files and seeds.
    """

    scan_id: str
    patient_id: str
    case: Case
    acquisition: Acquisition
    noise: tuple[int, ...]
    rows: pd.DataFrame


def _words(seed: np.random.SeedSequence) -> tuple[int, ...]:
    """Return a seed as four whole numbers."""
    return tuple(int(word) for word in seed.generate_state(4))


def _whole(seed: np.random.SeedSequence) -> int:
    """Return a seed as one whole number."""
    return int.from_bytes(seed.generate_state(4).tobytes(), "little")


def _case(parameters: dict, rows: pd.DataFrame, namespace: str, *path: int) -> Case:
    """Return the case of one patient from the rows of its lesions."""
    lesions = tuple(
        Lesion(
            **{name: float(row[name]) for name in PHENOTYPE},
            entropy=_whole(stream(parameters, namespace, *path, 1, k)),
        )
        for k, (_, row) in enumerate(rows.iterrows())
    )
    rng = np.random.default_rng(stream(parameters, namespace, *path, 2))
    table = parameters["table_lps"]
    origin = tuple(float(v) for v in rng.normal(table["mean"], table["sd"]).round(1))
    factor = float(rows["patient_factor"].iloc[0])
    entropy = _words(stream(parameters, namespace, *path, 3))
    return Case(parameters["organ"], lesions, factor, entropy, origin)


def _acquisition(parameters: dict, scanner: str) -> Acquisition:
    """Return the settings of one scanner in one cohort."""
    own = {k: v for k, v in parameters["acquisition"][scanner].items() if k != "share"}
    common = parameters["scanners"][scanner]
    return Acquisition(scanner=scanner, field_mm=parameters["field_mm"], **common, **own)


def _retest(parameters: dict, case: Case, number: int) -> Case:
    """Return the same patient after leaving the table and coming back."""
    retest = parameters["retest"]
    rng = np.random.default_rng(stream(parameters, "cohort", number, 4))
    return replace(
        case,
        shift_mm=tuple(rng.normal(0, retest["shift_sd_mm"], 3).round(2).tolist()),
        breath_hu=float(rng.normal(0, retest["breath_sd_hu"])),
        origin_lps=tuple(
            (np.array(case.origin_lps) + rng.normal(0, retest["table_sd_mm"], 3)).round(1).tolist()
        ),
    )


def _representative(table: pd.DataFrame, n: int) -> pd.DataFrame:
    """Return the lesions of `n` patients of a larger table: a systematic sample.

    The patients are put in order by number of lesions, label, event and size of the largest lesion,
    and every k-th is taken. All are equally likely to be taken, and the sample repeats the shares
    of the table better than a random one of the same size. Patients keep their random order.
    """
    largest = table.sort_values("diameter_mm", ascending=False, kind="stable")
    patients = largest.drop_duplicates("patient").sort_values("patient")
    lesions = table.groupby("patient").size().to_numpy()
    label, event = (
        patients[c].astype("Float64").fillna(2).to_numpy(float) for c in ("label", "event")
    )
    order = np.lexsort((patients["size_mm"].to_numpy(), event, label, lesions))
    every = len(order) // n
    chosen = np.sort(order[every // 2 :: every][:n])
    rows = table[table["patient"].isin(chosen)].copy()
    rows["patient"] = np.searchsorted(chosen, rows["patient"])
    return rows.reset_index(drop=True)


def plan(name: str) -> list[Planned]:
    """Return the scans of a cohort without making them; this takes a fraction of a second.

    Parameters
    ----------
    name : str
        Key of the cohort.

    Raises
    ------
    KeyError
        If there is no such cohort.
    """
    parameters = of_cohort(name)
    n = parameters["patients"]
    table = _representative(draw(parameters, _POOL * n, stream(parameters, "cohort")), n)
    sessions = ("test", "retest") if "retest" in parameters else ("",)
    planned = []
    for number, rows in table.groupby("patient"):
        patient_id = f"{parameters['prefix']}-P{number + 1:04d}"
        first = _case(parameters, rows, "cohort", number)
        for session, word in enumerate(sessions):
            scan_id = f"{patient_id}-{word}" if word else patient_id
            case = first if session == 0 else _retest(parameters, first, number)
            own = rows.copy()
            if session > 0:
                rng = np.random.default_rng(stream(parameters, "cohort", number, 5))
                error = rng.normal(0, parameters["size_error"], len(own))
                own["size_mm"] = (own["diameter_mm"] * np.exp(error)).round(1)
            several = len(parameters["lesions_per_patient"]) > 1
            own.insert(
                0,
                "lesion_id",
                [f"{scan_id}_{k + 1:02d}" if several else scan_id for k in own["lesion"]],
            )
            own.insert(1, "patient_id", patient_id)
            own.insert(2, "scan_id", scan_id)
            if word:
                own["session"] = word
            noise = _words(stream(parameters, "cohort", number, 6, session))
            acquisition = _acquisition(parameters, rows["scanner"].iloc[0])
            planned.append(Planned(scan_id, patient_id, case, acquisition, noise, own))
    return planned


def sample(name: str, seed: int) -> Planned:
    """Return a case that is like those of a cohort but not one of them.

    For pre-training and for examples. The seeds come from a stream of their own: whatever `seed`
    is, no case of a cohort is met again.

    Parameters
    ----------
    name : str
        Key of the cohort whose laws and scanners are used.
    seed : int
        0 or more.

    Raises
    ------
    KeyError
        If there is no such cohort.
    ValueError
        If the seed is negative.
    """
    if seed < 0:
        raise ValueError(f"seed is {seed!r}, it must be 0 or more")
    parameters = of_cohort(name)
    rows = draw(parameters, 1, stream(parameters, "training", seed, 0)).iloc[:1]
    case = _case(parameters, rows, "training", seed)
    scanner = rows["scanner"].iloc[0]
    noise = _words(stream(parameters, "training", seed, 6))
    scan_id = f"{parameters['prefix']}-T{seed:06d}"
    return Planned(scan_id, scan_id, case, _acquisition(parameters, scanner), noise, rows)


def render(
    name: str, scan_id: str, *, seed: int | None = None, lesions: bool = True, **changes
) -> Scan:
    """Scan a patient of a cohort again, in memory, with other settings or other noise.

    Parameters
    ----------
    name : str
        Key of the cohort.
    scan_id : str
        Which scan, as in the cohort's table.
    seed : int, optional
        Seed of the noise; None repeats the noise of the cohort's own scan.
    lesions : bool
        With False the lesions are left out.
    **changes
        Fields of :class:`~tumorbench_phantoms.Acquisition`, for example
        ``noise_hu=40, thickness_mm=5, slice_mm=5``.

    Returns
    -------
    Scan
        Without changes and seed, voxel for voxel the scan of the cohort.

    Raises
    ------
    KeyError
        If there is no such cohort or scan.
    TypeError
        If a change is not a field of the acquisition.
    """
    planned = {item.scan_id: item for item in plan(name)}
    if scan_id not in planned:
        raise KeyError(f"unknown scan of {name} {scan_id!r}: known are {list(planned)[:5]}, ...")
    item = planned[scan_id]
    noise = item.noise if seed is None else (1, seed)
    return scan(item.case, replace(item.acquisition, **changes), noise, lesions=lesions)


def generate(
    name: str, folder: str | os.PathLike, *, workers: int | None = None, progress: bool = True
) -> pd.DataFrame:
    """Make all scans of a cohort.

    Parameters
    ----------
    name : str
        Key of the cohort, for example ``"luna16"``.
    folder : path-like
        Where the files go; made if needed.
    workers : int, optional
        Threads; one per core by default, at most 8 (0.3 GB of memory for each).
    progress : bool
        Whether to show a bar.

    Returns
    -------
    DataFrame
        One row per lesion: the columns of the cohort tables (paths relative to `folder`,
        coordinates LPS mm), ``mask_path``, ``scanner``, ``patient_factor`` and the truth in columns
        ``true_...``.

    Raises
    ------
    KeyError
        If there is no such cohort.
    ValueError
        If ``data/phantoms.yml`` holds what the generator does not understand.
    OSError
        If a file cannot be written whole.
    """
    parameters, folder = of_cohort(name), Path(folder)
    check(load())
    folder.mkdir(parents=True, exist_ok=True)
    items = plan(name)
    dicom = [k < parameters.get("dicom_scans", 0) for k in range(len(items))]
    usable = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else range(os.cpu_count())
    pool = ThreadPoolExecutor(workers or min(len(usable), 8))
    try:
        jobs = [
            pool.submit(_make, i, parameters, folder, d) for i, d in zip(items, dicom, strict=True)
        ]
        rows = [job.result() for job in tqdm(jobs, desc=name, unit="scan", disable=not progress)]
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
    return _tidy(rows, parameters)


def _make(item: Planned, parameters: dict, folder: Path, as_dicom: bool) -> pd.DataFrame:
    """Scan, write the files, and return the finished rows."""
    done = scan(item.case, item.acquisition, item.noise)
    image = folder / f"{item.scan_id}.{parameters['format']}"
    write_image(done.image, image, parameters["axes"])
    rows = item.rows.copy()
    rows["image_path"] = image.name
    rows["mask_path"] = [f"{lesion_id}_mask.nrrd" for lesion_id in rows["lesion_id"]]
    for mask_path, mask in zip(rows["mask_path"], done.masks, strict=True):
        write_image(mask, folder / mask_path, parameters["axes"])
    rng = np.random.default_rng(np.random.SeedSequence((*item.noise, 7)))
    click = rng.normal(0, parameters["click_sd_mm"], (len(rows), 3))
    rows[["coord_x", "coord_y", "coord_z"]] = done.centroids_lps + click
    if "dicom_scans" in parameters:
        rows["dicom_path"] = f"{item.scan_id}-dicom" if as_dicom else None
    if as_dicom:
        series = folder / f"{item.scan_id}-dicom"
        write_dicom(done.image, series, item.patient_id, item.acquisition.scanner)
    return rows


def _tidy(rows: list[pd.DataFrame], parameters: dict) -> pd.DataFrame:
    """Return the table of a cohort from the rows of its scans, columns in the contract's order."""
    table = pd.concat(rows, ignore_index=True)
    lesion = [Lesion(**{k: row[k] for k in PHENOTYPE}).mean_hu for _, row in table.iterrows()]
    table["true_attenuation_hu"] = lesion
    table = table.rename(
        columns={
            k: f"true_{k.removesuffix('_hu') if k == 'rim_hu' else k}"
            for k in PHENOTYPE
            if k != "attenuation_hu"
        }
    )
    table["manufacturer"] = "Phantom " + table["scanner"]
    first = ["lesion_id", "patient_id", "scan_id", "image_path", "coord_x", "coord_y", "coord_z"]
    first += ["label", "time_days", "event", "size_mm"]
    first += [*parameters.get("covariates", {}), "manufacturer"]
    last = [c for c in ("true_logit", "true_log_hazard", *table) if c not in first]
    drop = {"patient", "lesion", "attenuation_hu"}
    return table[[c for c in dict.fromkeys([*first, *last]) if c not in drop]]
