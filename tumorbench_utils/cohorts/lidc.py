"""What up to four radiologists said about every nodule of LIDC-IDRI, and what follows for LUNA16.

The tables in ``data/lidc`` are real people's opinions on real patients; they come with the book.
"""

import hashlib
import io
import lzma
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.optimize import linear_sum_assignment

from tumorbench_utils.cohorts.cards import COHORTS, CohortCard, CohortError
from tumorbench_utils.cohorts.tables import STANDARD_COLUMNS
from tumorbench_utils.settings import BOOK_ROOT, book_data, unknown

_FOLDER = BOOK_ROOT / "data" / "lidc"

#: The cohort of all lesions that at least three radiologists outlined.
CARD = CohortCard(
    "lidc",
    title="LIDC-IDRI",
    organ="lung",
    endpoint=COHORTS["luna16"].endpoint,
    label_rule=COHORTS["luna16"].label_rule.replace("is dropped", "is missing"),
    positive="rated malignant",
    source="LIDC-IDRI, annotations of up to four radiologists",
    doi="10.7937/K9/TCIA.2015.LO9QL9SX",
    licence="CC BY 3.0",
    size_column="size_mm",
    citation="armato2011",
)


def _content(name: str) -> bytes:
    """Return the content of a file in ``data/lidc``, refused if it was edited."""
    path = Path(_FOLDER / name)
    try:
        content = path.read_bytes()
    except OSError as error:
        raise CohortError(f"{path} cannot be read: {error.strerror}; run `make lidc`") from None
    if hashlib.sha256(content).hexdigest() != book_data("downloads")["lidc"]["files"][name]:
        raise CohortError(f"{path} was edited or damaged; `make lidc` writes it again")
    return lzma.decompress(content)


def load_readers(name: str = "lidc") -> pd.DataFrame:
    """Return every annotation of every radiologist, in every edition and without a network.

    Readers are anonymous and not the same four on every scan: within a lesion they are
    exchangeable. They saw each other's marks before their final rating [1]_.

    Parameters
    ----------
    name : {"lidc"}

    Returns
    -------
    DataFrame
        One row an annotation, 6,859 in all: ``scan_id`` (series UID), ``patient_id``,
        ``lesion_id`` (missing where a scan cannot be split into lesions), ``reader`` (1 to 4 within
        the lesion), the ratings ``malignancy, subtlety, internal_structure, calcification,
        sphericity, margin, lobulation, spiculation, texture`` as rated, ``diameter_mm``,
        ``volume_mm3`` (inside of the outlines), ``n_slices``, ``centroid_x_px``, ``centroid_y_px``
        (column and row), ``z_mm`` (LPS), ``pixel_spacing_mm``, ``slice_spacing_mm``. Malignancy
        runs from 1 (highly unlikely) to 5 (highly suspicious).

    Raises
    ------
    KeyError
        If there are no readers of that name.
    CohortError
        If the table is missing or was edited.

    References
    ----------
    .. [1] Armato et al. 2011, The Lung Image Database Consortium (LIDC) and Image Database
       Resource Initiative (IDRI), Med Phys 38:915-931, doi 10.1118/1.3528204.
    """
    if name != "lidc":
        raise KeyError(unknown("set of readers", name, ["lidc"]))
    table = pd.read_csv(io.BytesIO(_content("annotations.csv.xz")))
    return table.astype({"reader": "Int64"})


def load_outlines() -> pd.DataFrame:
    """Return the outlines of all annotations.

    Returns
    -------
    DataFrame
        One row an outline: ``annotation`` (row of :func:`load_readers`), ``z_mm``, ``inclusion``
        (False: a hole) and ``points``, an int array (n, 2) of columns and rows. An outline runs on
        the first voxels outside of the nodule; its first point is not repeated at the end.
    """
    arrays = np.load(io.BytesIO(_content("outlines.npz.xz")))
    count, start = arrays["n_points"].astype(int), arrays["start"].astype(int)
    ends = np.cumsum(count)
    walked = np.cumsum(arrays["steps"], axis=0, dtype=int)
    shift = start - walked[ends - count]
    points = np.split(walked + np.repeat(shift, count, axis=0), ends[:-1])
    table = pd.DataFrame({k: arrays[k] for k in ("annotation", "z_mm", "inclusion")})
    return table.assign(inclusion=table["inclusion"] == 1, points=points)


def lesion_table(readers: pd.DataFrame, least: int = 3) -> pd.DataFrame:
    """Return one row a lesion of at least `least` readers.

    Returns
    -------
    DataFrame
        ``lesion_id, patient_id, scan_id, label`` (by LUNA16's rule: the mean rating rounded half to
        even; missing where that is 3), ``size_mm`` (mean of the readers' diameters), ``size_sd_mm``
        (their standard deviation), ``malignancy_mean``, ``n_readers``, and the mean place
        ``centroid_x_px``, ``centroid_y_px``, ``z_mm``, ``pixel_spacing_mm``.
    """
    table = readers.groupby("lesion_id", as_index=False).agg(
        patient_id=("patient_id", "first"),
        scan_id=("scan_id", "first"),
        size_mm=("diameter_mm", "mean"),
        size_sd_mm=("diameter_mm", "std"),
        malignancy_mean=("malignancy", "mean"),
        n_readers=("malignancy", "size"),
        **{c: (c, "mean") for c in ("centroid_x_px", "centroid_y_px", "z_mm", "pixel_spacing_mm")},
    )
    table = table[table["n_readers"] >= least].reset_index(drop=True)
    rounded = np.rint(table["malignancy_mean"])
    label = (rounded > 3).astype("Int64").where(rounded != 3)
    return table.assign(label=label)


def lidc_table() -> pd.DataFrame:
    """Return :func:`lesion_table` with the standard columns of a cohort; there is no image.

    The origin of a scan along x and y is not known: ``coord_x`` and ``coord_y`` are missing.
    """
    table = lesion_table(load_readers()).rename(columns={"z_mm": "coord_z"})
    covariates = ["size_mm", "size_sd_mm", "malignancy_mean", "n_readers"]
    table = table.reindex(columns=[*STANDARD_COLUMNS, *covariates])
    numbers = {"coord_x": float, "coord_y": float, "time_days": "Float64", "event": "Int64"}
    return table.astype({**numbers, "image_path": object})


def with_readers(table: pd.DataFrame) -> pd.DataFrame:
    """Add patients, millimetres and the readers' spread to the released rows of LUNA16.

    Rows are joined by series, z and position. The database of LIDC holds columns and rows, not mm
    along x and y: the origin of a scan is the one that brings most of its rows onto lesions.

    Parameters
    ----------
    table : DataFrame
        With ``scan_id`` (series UID) and ``coord_x, coord_y, coord_z`` (LPS mm).

    Returns
    -------
    DataFrame
        With ``patient_id`` of LIDC, ``size_mm``, ``size_sd_mm``, ``malignancy_mean``,
        ``n_readers``; all but the patient are missing in rows without a match, which
        ``attrs["unmatched"]`` lists.

    Raises
    ------
    CohortError
        If a series is not in LIDC.
    """
    readers = load_readers()
    patients = readers.drop_duplicates("scan_id").set_index("scan_id")["patient_id"]
    strange = table.loc[~table["scan_id"].isin(patients.index), "scan_id"]
    if len(strange):
        raise CohortError(f"the series {strange.iloc[0]} is not one of LIDC-IDRI")
    lesions = lesion_table(readers).dropna(subset=["label"])
    columns = ["size_mm", "size_sd_mm", "malignancy_mean", "n_readers"]
    parts = []
    for scan_id, rows in table.groupby("scan_id"):
        known = lesions[lesions["scan_id"] == scan_id]
        if known.empty:  # a scan that cannot be split: single annotations stand for lesions
            known = readers[readers["scan_id"] == scan_id].assign(n_readers=1)
            known = known.rename(
                columns={"diameter_mm": "size_mm", "malignancy": "malignancy_mean"}
            )
        place = _matched(rows[["coord_x", "coord_y", "coord_z"]].to_numpy(float), known)
        found = known.reindex(columns=columns).set_axis(range(len(known))).reindex(place)
        parts.append(found.set_index(rows.index))
    found = pd.concat(parts).reindex(table.index).astype({"n_readers": "Int64"})
    joined = table.assign(patient_id=table["scan_id"].map(patients), **found)
    joined.attrs["unmatched"] = joined.loc[joined["size_mm"].isna(), "lesion_id"].tolist()
    return joined


def _matched(seeds: np.ndarray, lesions: pd.DataFrame) -> np.ndarray:
    """Return the position of each seed's lesion, -1 if it has none.

    Every pair of a seed and a lesion at about its height proposes an origin; the one under which
    all seeds lie nearest to lesions, in units of half a diameter, is taken.
    """
    step = lesions["pixel_spacing_mm"].to_numpy()[:, None]
    places = np.c_[lesions[["centroid_x_px", "centroid_y_px"]].to_numpy() * step, lesions["z_mm"]]
    reach = np.maximum(5, lesions["size_mm"].to_numpy() / 2) + 2
    best, result = np.inf, np.full(len(seeds), -1)
    for seed, k in ((s, k) for s in seeds for k in range(len(places))):
        if abs(seed[2] - places[k, 2]) > reach[k]:
            continue
        shift = np.append(seed[:2] - places[k, :2], 0)
        apart = np.linalg.norm(seeds[:, None] - places[None] - shift, axis=2) / reach
        rows, columns = linear_sum_assignment(np.minimum(apart, 2))
        distance = apart[rows, columns]
        # Among equals the scan that is centred on the table, as nearly all are.
        off_centre = np.abs(shift[:2] + 256 * step[0]).max() / 1e4
        if np.minimum(distance, 2).sum() + off_centre < best:
            best = np.minimum(distance, 2).sum() + off_centre
            result = np.full(len(seeds), -1)
            result[rows[distance < 1]] = columns[distance < 1]
    return result
