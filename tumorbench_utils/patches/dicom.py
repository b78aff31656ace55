"""One CT series in a folder of DICOM files."""

from pathlib import Path

import numpy as np
import pydicom
import SimpleITK as sitk
from pydicom.errors import InvalidDicomError

from tumorbench_utils.patches.spec import PatchError
from tumorbench_utils.patches.volume import Box, Volume, readable

#: Slice positions may stray this far from an even grid: headers round them to a tenth of a mm.
POSITION_TOLERANCE_MM = 0.08

_TAGS = [
    "SeriesInstanceUID", "Modality", "ImageOrientationPatient", "ImagePositionPatient",
    "PixelSpacing", "Rows", "Columns", "NumberOfFrames", "SamplesPerPixel", "InstanceNumber",
    "SliceThickness", "BitsAllocated", "RescaleSlope",
]  # fmt: skip


class DicomVolume(Volume):
    """The slices of one series, sorted along their normal, of which only some are read.

    Parameters
    ----------
    name : str
    header : object with SimpleITK's geometry getters
    files : list of Path
        One per slice, in the order of k.
    """

    def __init__(self, name: str, header, files: list[Path]):
        super().__init__(name, header, np.float32)
        self._files = files

    def read(self, boxes: list[Box]) -> list[np.ndarray]:
        """Return the voxels of each box, opening each file that is needed once."""
        results = [
            np.empty([stop - start for start, stop in reversed(box)], self.dtype) for box in boxes
        ]
        for k, file in enumerate(self._files):
            inside = [n for n, box in enumerate(boxes) if box[2][0] <= k < box[2][1]]
            if not inside:
                continue
            plane = self._plane(file)
            self.rows.append(plane[:: max(1, len(plane) // 4)].ravel())
            for n in inside:
                (i0, i1), (j0, j1), (k0, _) = boxes[n]
                results[n][k - k0] = plane[j0:j1, i0:i1]
        return results

    def _plane(self, file: Path) -> np.ndarray:
        with readable(str(file)):
            image = sitk.ReadImage(str(file), imageIO="GDCMImageIO")
        if image.GetPixelIDValue() in (sitk.sitkUInt8, sitk.sitkUInt16, sitk.sitkUInt32):
            raise PatchError(
                f"{file}: the values are not HU: there is no rescale intercept, and nothing is "
                "below 0; fetch the series again from its archive"
            )
        return sitk.GetArrayFromImage(image)[0].astype(np.float32)


class _Geometry:
    """Size, spacing, origin and direction, with the names that SimpleITK gives them."""

    def __init__(self, size, spacing, origin, direction):
        self.GetSize = lambda: size
        self.GetSpacing = lambda: spacing
        self.GetOrigin = lambda: origin
        self.GetDirection = lambda: direction


def open_series(folder: Path) -> Volume:
    """Open the one CT series in a folder.

    Raises
    ------
    PatchError
        If there is no CT or more than one, or if its slices are not a complete, even stack.
    """
    headers = _headers(folder)
    first = headers[0][1]
    for field in ("ImageOrientationPatient", "PixelSpacing", "Rows", "Columns"):
        values = {tuple(np.round(np.atleast_1d(header[field].value), 4)) for _, header in headers}
        if len(values) > 1:
            raise PatchError(
                f"{folder}: the slices differ in {field}; keep one series, without localisers, "
                "in the folder"
            )
    row, column = np.reshape(np.array(first.ImageOrientationPatient, float), (2, 3))
    normal = np.cross(row, column)
    if abs(np.linalg.norm(normal) - 1) > 1e-3:
        raise PatchError(f"{folder}: ImageOrientationPatient does not hold two unit vectors")
    positions = np.array([header.ImagePositionPatient for _, header in headers], float)
    depth = positions @ normal
    order = np.argsort(depth, kind="stable")
    files = [headers[n][0] for n in order]
    positions, depth = positions[order], depth[order]
    step = _even_step(folder, depth, files)
    _check_numbers(folder, [headers[n][1] for n in order], step)
    shift = positions - positions[0]
    sideways = np.abs(shift - np.outer(shift @ normal, normal)).max()
    if sideways > POSITION_TOLERANCE_MM:
        raise PatchError(
            f"{folder}: the slices are shifted sideways against each other by {sideways:.1f} mm "
            "(gantry tilt); resample the series to an upright grid first"
        )
    down, across = (float(mm) for mm in first.PixelSpacing)
    geometry = _Geometry(
        (int(first.Columns), int(first.Rows), len(files)),
        (across, down, step),
        tuple(positions[0]),
        tuple(np.column_stack([row, column, normal]).ravel()),
    )
    return DicomVolume(str(folder), geometry, files)


def _headers(folder: Path) -> list[tuple[Path, pydicom.Dataset]]:
    """Return the files of the one CT series in a folder with the fields that are needed."""
    series: dict[str, list] = {}
    others = set()
    for path in sorted(folder.iterdir()):
        if not path.is_file() or path.name.startswith(".") or path.name == "DICOMDIR":
            continue
        try:
            header = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=_TAGS)
        except (InvalidDicomError, EOFError, OSError, ValueError) as error:
            if path.suffix.lower() in (".dcm", ".ima", ".dicom"):
                raise PatchError(f"{path}: not a DICOM file ({error}); fetch it again") from error
            continue
        modality = header.get("Modality", "unknown")
        if modality == "CT":
            series.setdefault(str(header.get("SeriesInstanceUID")), []).append((path, header))
        else:
            others.add(modality)
    if not series:
        held = f"; it holds {', '.join(sorted(others))}" if others else ""
        raise PatchError(
            f"{folder}: there is no CT series in this folder{held}; give the folder that holds "
            "the slices themselves"
        )
    if len(series) > 1:
        raise PatchError(
            f"{folder}: the folder holds {len(series)} CT series ({', '.join(sorted(series))}); "
            "keep each in a folder of its own"
        )
    (headers,) = series.values()
    for path, header in headers:
        if int(header.get("NumberOfFrames", 1) or 1) > 1:
            raise PatchError(
                f"{path}: one file holds several slices (enhanced CT); convert it to NIfTI"
            )
        if int(header.get("SamplesPerPixel", 1)) != 1:
            raise PatchError(f"{path}: a colour image, not a CT slice; take it out of the folder")
        for field in ("ImageOrientationPatient", "ImagePositionPatient", "PixelSpacing", "Rows"):
            if header.get(field) in (None, ""):
                raise PatchError(
                    f"{path}: the header lacks {field}, so the slice has no place in space; take "
                    "it out of the folder or fetch the series again"
                )
        _check_whole(path, header)
    return headers


def _check_whole(path: Path, header: pydicom.Dataset) -> None:
    """Refuse a slice whose file cannot hold its pixels (GDCM would fill them up with zeros)."""
    if header.get("RescaleSlope") == 0:
        raise PatchError(f"{path}: the rescale slope is 0, so no value is in HU; fetch it again")
    syntax = header.file_meta.get("TransferSyntaxUID")
    known = syntax is not None and syntax.is_transfer_syntax
    packed = not known or syntax.is_compressed or syntax.is_deflated
    need = int(header.Rows) * int(header.get("Columns", 0)) * int(header.get("BitsAllocated", 0))
    if not packed and path.stat().st_size < need // 8:
        raise PatchError(
            f"{path}: the file is cut off: it holds {path.stat().st_size} bytes, its pixels need "
            f"{need // 8}; fetch the series again"
        )


def _even_step(folder: Path, depth: np.ndarray, files: list[Path]) -> float:
    """Return the distance of the slices in mm if they form a complete, even stack."""
    if len(depth) < 2:
        raise PatchError(
            f"{folder}: a single slice says nothing about the distance of slices; fetch the whole "
            "series"
        )
    gaps = np.diff(depth)
    n = int(gaps.argmin())
    if gaps[n] < 1e-3:
        raise PatchError(
            f"{folder}: {files[n].name} and {files[n + 1].name} lie at the same place; remove the "
            "duplicate"
        )
    number = np.arange(len(depth))
    even = np.polynomial.Polynomial.fit(number, depth, 1)(number)
    if np.abs(depth - even).max() <= POSITION_TOLERANCE_MM:
        return float(depth[-1] - depth[0]) / (len(depth) - 1)
    step = float(np.median(gaps))
    n = int(np.abs(gaps - step).argmax())
    where = f"between {files[n].name} and {files[n + 1].name}"
    missing = np.round(gaps / step) - 1
    if missing.any() and np.abs(gaps - (missing + 1) * step).max() <= 2 * POSITION_TOLERANCE_MM:
        raise PatchError(
            f"{folder}: {missing.sum():.0f} slice(s) of {step:g} mm are missing, the largest gap "
            f"({gaps[n]:g} mm) lies {where}; fetch the series again"
        )
    raise PatchError(
        f"{folder}: the slices are unevenly spaced: mostly {step:g} mm, but {gaps[n]:g} mm "
        f"{where}; a slice is missing or out of place, fetch the series again or resample it"
    )


def _check_numbers(folder: Path, headers: list[pydicom.Dataset], step: float) -> None:
    """Refuse an even stack of which every second slice (or more) is missing.

    The positions cannot show that. Two signs together can: the instance numbers jump throughout,
    and the slices are further apart than they are thick.
    """
    numbers = [header.get("InstanceNumber") for header in headers]
    thickness = headers[0].get("SliceThickness")
    if None in numbers or not thickness:
        return
    jumps = np.abs(np.diff(np.array(numbers, float)))
    if jumps.min() > 1 and step > 1.2 * float(thickness):
        raise PatchError(
            f"{folder}: slices are missing: their instance numbers are {jumps.min():g} apart and "
            f"they lie {step:g} mm apart at {float(thickness):g} mm thickness; fetch the series "
            "again"
        )
