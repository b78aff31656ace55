"""Seeds from masks: NRRD, NIfTI, MetaImage, DICOM segmentation objects and RT structure sets.

The seed of a label is the centroid of its voxels, not that of a surface or of a box.
"""

import os
import warnings
from pathlib import Path

import numpy as np
import pydicom
import SimpleITK as sitk
from pydicom.errors import InvalidDicomError
from pydicom.misc import is_dicom

from tumorbench_utils.cohorts.cards import CohortError

Seeds = dict[int, tuple[float, float, float]]

_IMAGE_SUFFIXES = (".nrrd", ".nhdr", ".nii", ".nii.gz", ".mha", ".mhd")
_SEGMENTATION = "1.2.840.10008.5.1.4.1.1.66.4"
_LABEL_MAP = "1.2.840.10008.5.1.4.1.1.66.7"
_STRUCTURE_SET = "1.2.840.10008.5.1.4.1.1.481.3"

#: More labels than this in one file: it is an image, not a mask.
_MOST_LABELS = 4096

#: What pydicom raises on broken files and codings it cannot decode.
_BROKEN = (
    AttributeError,
    EOFError,
    IndexError,
    InvalidDicomError,
    KeyError,
    OSError,
    RuntimeError,
    TypeError,
    ValueError,
)


def seeds_from_mask(path: str | os.PathLike, *, series: str | os.PathLike | None = None) -> Seeds:
    """Return the centroid of every label of a mask.

    Parameters
    ----------
    path : path-like
        A label image (NRRD, NIfTI, MetaImage), a DICOM segmentation object or an RT structure set.
    series : path-like, optional
        Folder with the CT series of an RT structure set, whose voxel grid it is drawn on. Not
        needed by other masks, which have their own grid.

    Returns
    -------
    dict of int to (x, y, z)
        By label (segment number, ROI number): mean position of its voxel centres, LPS mm. Labels
        that are declared but have no voxel are not in it.

    Raises
    ------
    CohortError
        If the file cannot be read or is no mask, has no voxel above 0, holds values that are no
        labels (fractions, negative numbers, too many), is not three-dimensional, or a structure
        set and the series do not fit.
    """
    path = Path(path)
    if path.is_dir():
        raise CohortError(f"{path}: a folder; give the file of the mask")
    if not path.is_file():
        raise CohortError(f"{path}: no such file")
    if path.name.lower().endswith(_IMAGE_SUFFIXES):
        seeds = _from_image(path)
    elif is_dicom(path):
        seeds = _from_dicom(path, series)
    else:
        raise CohortError(
            f"{path}: neither DICOM nor one of {', '.join(_IMAGE_SUFFIXES)}: not a mask"
        )
    if not seeds:
        raise CohortError(f"{path}: the mask is empty: no voxel is above 0")
    return dict(sorted(seeds.items()))


# -------------------------------------------------------------------------------------- label image


def _from_image(path: Path) -> Seeds:
    twin = path.with_suffix("")
    if path.name.lower().endswith(".nii.gz") and twin.exists():
        raise CohortError(
            f"{path}: {twin.name} lies beside it, and ITK would read the voxels of that file; move "
            "one of them away"
        )
    try:
        image = sitk.ReadImage(str(path))
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[-1]
        raise CohortError(f"{path}: cannot be read ({reason})") from None
    if image.GetDimension() != 3 or image.GetNumberOfComponentsPerPixel() != 1:
        raise CohortError(
            f"{path}: a mask has three axes and one value per voxel; this has "
            f"{image.GetDimension()} and {image.GetNumberOfComponentsPerPixel()}"
        )
    array = sitk.GetArrayFromImage(image)
    found = np.nonzero(array)
    values = array[found]
    if values.size and not np.isfinite(values).all():
        raise CohortError(f"{path}: holds values that are not finite: not a mask")
    if (values != np.round(values)).any() or (values < 0).any():
        wrong = values[(values != np.round(values)) | (values < 0)][0]
        raise CohortError(f"{path}: {wrong} is no label; labels are whole numbers from 0 up")
    labels, which = np.unique(values, return_inverse=True)
    if len(labels) > _MOST_LABELS:
        raise CohortError(f"{path}: {len(labels)} different values: an image, not a mask")
    count = np.bincount(which)
    centre = [np.bincount(which, weights=axis) / count for axis in found[::-1]]
    return {
        int(label): tuple(image.TransformContinuousIndexToPhysicalPoint(index))
        for label, index in zip(labels, np.transpose(centre).tolist(), strict=True)
    }


# ------------------------------------------------------------------------------------------- DICOM


def _from_dicom(path: Path, series: str | os.PathLike | None) -> Seeds:
    try:
        data = pydicom.dcmread(path)
        kind = str(data.get("SOPClassUID", ""))
        if kind in (_SEGMENTATION, _LABEL_MAP):
            return _from_segmentation(path, data)
        if kind == _STRUCTURE_SET:
            return _from_structure_set(path, data, series)
    except CohortError:
        raise
    except _BROKEN as error:
        raise CohortError(f"{path}: a DICOM file that cannot be read ({error})") from None
    raise CohortError(
        f"{path}: DICOM of modality {data.get('Modality', '?')}; a mask is a SEG or an RTSTRUCT"
    )


def _group(data, frame, name: str):
    """Return the first item of a functional group of a frame, else of the shared ones."""
    for holder in (frame, data.SharedFunctionalGroupsSequence[0]):
        if name in holder:
            return getattr(holder, name)[0]
    raise CohortError(f"a frame has no {name}")


def _from_segmentation(path: Path, data) -> Seeds:
    """Return centroids of a SEG: every frame has its own place, so no grid is put together."""
    top = int(data.get("MaximumFractionalValue", 1))
    fractional = str(data.get("SegmentationType", "BINARY")).upper() == "FRACTIONAL"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pydicom warns of padding after the last frame
        frames = data.pixel_array
    frames = frames.reshape(-1, data.Rows, data.Columns)
    total: dict[int, np.ndarray] = {}
    for pixels, frame in zip(frames, data.PerFrameFunctionalGroupsSequence, strict=True):
        rows, columns = np.nonzero(pixels)
        values = pixels[rows, columns]
        if fractional:
            if not np.isin(values, (0, top)).all():
                raise CohortError(
                    f"{path}: a fractional segmentation with values between 0 and {top}; its "
                    "voxels are neither in nor out"
                )
            values = np.ones_like(values)
        if str(data.SOPClassUID) == _SEGMENTATION:
            values = values * int(
                _group(data, frame, "SegmentIdentificationSequence").ReferencedSegmentNumber
            )
        corner = np.array(_group(data, frame, "PlanePositionSequence").ImagePositionPatient, float)
        axes = np.array(
            _group(data, frame, "PlaneOrientationSequence").ImageOrientationPatient, float
        ).reshape(2, 3)
        spacing = np.array(_group(data, frame, "PixelMeasuresSequence").PixelSpacing, float)
        for label in np.unique(values):
            here = values == label
            steps = columns[here].sum() * spacing[1], rows[here].sum() * spacing[0]
            summed = here.sum() * corner + steps[0] * axes[0] + steps[1] * axes[1]
            total[int(label)] = total.get(int(label), 0) + np.append(summed, here.sum())
    return {label: tuple((summed[:3] / summed[3]).tolist()) for label, summed in total.items()}


def referenced_series(path: str | os.PathLike) -> set[str]:
    """Return the UIDs of the image series that a SEG or an RT structure set was drawn on.

    Where a study holds several CT series, this tells which one a segmentation belongs to.

    Parameters
    ----------
    path : path-like
        A DICOM segmentation object or RT structure set.

    Raises
    ------
    CohortError
        If it is neither, or refers to no series.
    """
    try:
        data = pydicom.dcmread(path, stop_before_pixels=True)
    except _BROKEN as error:
        raise CohortError(f"{path}: a DICOM file that cannot be read ({error})") from None
    items = list(data.get("ReferencedSeriesSequence", []))
    for frame in data.get("ReferencedFrameOfReferenceSequence", []):
        for study in frame.get("RTReferencedStudySequence", []):
            items += study.get("RTReferencedSeriesSequence", [])
    found = {str(item.SeriesInstanceUID) for item in items if "SeriesInstanceUID" in item}
    if not found:
        raise CohortError(f"{path}: refers to no image series; it is no SEG or RTSTRUCT, or broken")
    return found


def _from_structure_set(path: Path, data, series: str | os.PathLike | None) -> Seeds:
    if series is None:
        raise CohortError(
            f"{path}: an RT structure set has no voxels of its own; give the folder of its CT "
            "series as `series`"
        )
    grid = _SeriesGrid(Path(series), referenced_series(path))
    seeds = {}
    for roi in data.get("ROIContourSequence", []):
        planes: dict[int, np.ndarray] = {}
        for contour in roi.get("ContourSequence", []):
            if "CLOSED" not in str(contour.ContourGeometricType).upper():
                continue
            points = np.array(contour.ContourData, dtype=float).reshape(-1, 3)
            place, polygon = grid.place(points, path)
            inside = _fill(polygon, grid.shape)
            # A contour inside another one cuts a hole, so areas are combined by exclusive or.
            planes[place] = planes[place] ^ inside if place in planes else inside
        summed, count = np.zeros(3), 0
        for place, inside in planes.items():
            rows, columns = np.nonzero(inside)
            summed += grid.points(place, rows, columns).sum(axis=0)
            count += len(rows)
        if count:
            seeds[int(roi.ReferencedROINumber)] = tuple((summed / count).tolist())
    return seeds


class _SeriesGrid:
    """The voxel grid of a CT series: planes along their normal."""

    def __init__(self, folder: Path, wanted: set[str]):
        if not folder.is_dir():
            raise CohortError(f"{folder}: no such folder with a CT series")
        headers = [
            pydicom.dcmread(file, stop_before_pixels=True)
            for file in sorted(folder.iterdir())
            if file.is_file() and is_dicom(file)
        ]
        there = {str(header.get("SeriesInstanceUID", "")) for header in headers}
        headers = [header for header in headers if str(header.SeriesInstanceUID) in wanted]
        if not headers:
            raise CohortError(
                f"{folder}: the structure set was drawn on series {', '.join(sorted(wanted))}, "
                f"but the folder holds {', '.join(sorted(there)) or 'no DICOM files'}"
            )
        first = headers[0]
        self.axes = np.array(first.ImageOrientationPatient, dtype=float).reshape(2, 3)
        self.normal = np.cross(*self.axes)
        self.spacing = np.array(first.PixelSpacing, dtype=float)  # between rows, between columns
        self.shape = (int(first.Rows), int(first.Columns))
        corners = np.array([header.ImagePositionPatient for header in headers], dtype=float)
        order = np.argsort(corners @ self.normal)
        self.corners = corners[order]
        self.heights = self.corners @ self.normal
        steps = np.diff(self.heights)
        thickness = float(first.get("SliceThickness", 0) or 1.0)
        self.step = float(np.median(steps)) if len(steps) else thickness

    def place(self, points: np.ndarray, path: Path) -> tuple[int, np.ndarray]:
        """Return the plane of a contour and its points as (row, column)."""
        height = float((points @ self.normal).mean())
        place = int(np.abs(self.heights - height).argmin())
        if abs(self.heights[place] - height) > 0.5 * self.step + 1e-3:
            raise CohortError(
                f"{path}: a contour lies {abs(self.heights[place] - height):.1f} mm from the "
                "nearest slice of the series; slices are missing or it is another series"
            )
        offset = points - self.corners[place]
        columns = offset @ self.axes[0] / self.spacing[1]
        rows = offset @ self.axes[1] / self.spacing[0]
        return place, np.stack([rows, columns], axis=1)

    def points(self, place: int, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
        """Return voxel centres, shape (n, 3), LPS mm."""
        return (
            self.corners[place]
            + columns[:, None] * self.spacing[1] * self.axes[0]
            + rows[:, None] * self.spacing[0] * self.axes[1]
        )


def _fill(polygon: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Return which voxel centres lie inside a closed polygon of (row, column), even-odd rule."""
    inside = np.zeros(shape, dtype=bool)
    ahead = np.roll(polygon, -1, axis=0)
    low = max(0, int(np.ceil(polygon[:, 0].min())))
    high = min(shape[0] - 1, int(np.floor(polygon[:, 0].max())))
    for row in range(low, high + 1):
        crossed = (polygon[:, 0] <= row) != (ahead[:, 0] <= row)
        (r0, c0), (r1, c1) = polygon[crossed].T, ahead[crossed].T
        crossings = np.sort(c0 + (row - r0) * (c1 - c0) / (r1 - r0))
        for start, stop in zip(crossings[::2], crossings[1::2], strict=True):
            first, last = max(0, int(np.ceil(start))), min(shape[1] - 1, int(np.floor(stop)))
            inside[row, first : last + 1] = True
    return inside
