"""Seeds from masks: NRRD, NIfTI, MetaImage, DICOM segmentation objects and RT structure sets.

The seed of a label is the centroid of its voxels, not that of a surface or of a box. Masks are
opened by the reader of scans, so what is refused there is refused here.
"""

import os
from pathlib import Path

import numpy as np

from tumorbench_utils.cohorts.cards import CohortError
from tumorbench_utils.patches import dicom
from tumorbench_utils.patches.extract import open_volume
from tumorbench_utils.patches.formats import SUFFIXES
from tumorbench_utils.patches.spec import require
from tumorbench_utils.patches.volume import Volume, readable

Seeds = dict[int, tuple[float, float, float]]

_LABEL_MAP = "1.2.840.10008.5.1.4.1.1.66.7"
_SEGMENTATIONS = ("1.2.840.10008.5.1.4.1.1.66.4", _LABEL_MAP)
_STRUCTURE_SET = "1.2.840.10008.5.1.4.1.1.481.3"

#: More labels than this in one file: it is an image, not a mask.
_MOST_LABELS = 4096

#: Heights of contours that differ by less (mm) are one plane; a contour that spans more is tilted.
_SAME_PLANE_MM, _FLAT_MM = 0.02, 0.5

#: A voxel centre this close to a contour (voxels) lies on it, and what lies on it is inside.
_ON_EDGE = 1e-3


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
        that are declared but have no voxel are not in it. The voxels of an RT structure set are
        those of the series' columns and rows, at the heights of its own contours.

    Raises
    ------
    CohortError
        If the file cannot be read or is no mask, has no voxel above 0, holds values that are no
        labels (fractions, negative numbers, too many), is not three-dimensional, or a structure
        set and the series do not fit.

    See Also
    --------
    scipy.ndimage.center_of_mass : The same in voxels.
    highdicom.seg.segread : Reads the segmentation objects.
    """
    path = Path(path)
    with readable(path, CohortError):
        require(path.is_file(), "no such file, or a folder; give the file of the mask")
        seeds = _seeds(path, series)
        require(seeds, "the mask is empty: no voxel is above 0")
    return dict(sorted(seeds.items()))


def _seeds(path: Path, series) -> Seeds:
    if path.name.lower().endswith(SUFFIXES):
        volume = open_volume(path)
        return _centroids(volume.whole(), volume.affine)
    data = dicom.read(path)
    require(data is not None, f"neither DICOM nor one of {', '.join(SUFFIXES)}: not a mask")
    if data.SOPClassUID in _SEGMENTATIONS:
        return _segmentation(path)
    known = data.SOPClassUID == _STRUCTURE_SET
    require(known, f"DICOM of modality {data.Modality}; a mask is a SEG or an RTSTRUCT")
    require(series is not None, "a structure set has no voxels; give the folder of its CT series")
    return _structure_set(data, dicom.open_series(Path(series), referenced_series(path)))


def _centroids(array: np.ndarray, affine: np.ndarray) -> Seeds:
    """Return the mean position of each label of an array (k, j, i)."""
    index = np.nonzero(array)
    values = array[index]
    wrong = values[~((values == np.round(values)) & (values > 0) & (values < 1 << 31))][:1]
    require(not wrong.size, f"{wrong} is no label; labels are finite whole numbers from 0 up")
    labels, which, count = np.unique(values, return_inverse=True, return_counts=True)
    require(len(labels) <= _MOST_LABELS, f"{len(labels)} different values: an image, not a mask")
    centres = np.stack([np.bincount(which, weights=axis) / count for axis in index[::-1]], axis=1)
    points = centres @ affine[:3, :3].T + affine[:3, 3]
    return {int(label): tuple(point) for label, point in zip(labels, points.tolist(), strict=True)}


def _segmentation(path: Path) -> Seeds:
    from highdicom.seg import segread

    mask = segread(path)
    labels = str(mask.SOPClassUID) == _LABEL_MAP
    top = int(mask.get("MaximumFractionalValue", 1))
    seeds: Seeds = {}
    for number in [None] if labels else mask.segment_numbers:
        chosen = {"combine_segments": True} if labels else {"segment_numbers": [number]}
        volume = mask.get_volume(rescale_fractional=False, **chosen)
        array = volume.array if labels else volume.array[..., 0]
        whole = labels or np.isin(array, (0, top)).all()
        require(whole, f"fractions between 0 and {top}: its voxels are neither in nor out")
        Volume(str(path), volume.affine, array.shape)  # refuses a grid that is none
        seeds |= _centroids((array if labels else (array > 0) * number).T, volume.affine)
    return seeds


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
    with readable(path, CohortError):
        data = dicom.read(Path(path), stop_before_pixels=True) or {}
    items = list(data.get("ReferencedSeriesSequence", []))
    for frame in data.get("ReferencedFrameOfReferenceSequence", []):
        for study in frame.get("RTReferencedStudySequence", []):
            items += study.get("RTReferencedSeriesSequence", [])
    named = {str(item.SeriesInstanceUID) for item in items if "SeriesInstanceUID" in item}
    if not named:
        raise CohortError(f"{path}: refers to no image series; it is no SEG or RTSTRUCT, or broken")
    return named


def _structure_set(data, volume: Volume) -> Seeds:
    """Return the centroids of the regions: of voxels in the planes that the contours lie in."""
    to_index = np.linalg.inv(volume.affine)
    step = np.linalg.norm(volume.affine[:3, 2])
    seeds = {}
    for roi in data.get("ROIContourSequence", []):
        contours = []
        for contour in roi.get("ContourSequence", []):
            if "CLOSED" not in str(contour.ContourGeometricType).upper():
                continue
            points = np.array(contour.ContourData, float).reshape(-1, 3)
            points = points @ to_index[:3, :3].T + to_index[:3, 3]
            height = points[:, 2].mean()
            away = max(-height, height - volume.shape[2] + 1) * step
            require(np.ptp(points[:, 2]) * step <= _FLAT_MM, "a contour lies in no plane")
            lost = f"a contour lies {away:.1f} mm from the nearest slice of the series"
            require(away <= step / 2 + 1e-3, f"{lost}; slices are missing, or it is another series")
            contours.append((height, _fill(points[:, :2], volume.shape[:2])))
        planes: list[tuple[float, list[np.ndarray]]] = []
        for height, inside in sorted(contours, key=lambda contour: contour[0]):
            if not planes or (height - planes[-1][0]) * step > _SAME_PLANE_MM:
                planes.append((height, []))
            if not any(np.array_equal(inside, other) for other in planes[-1][1]):
                planes[-1][1].append(inside)  # One that is stored twice is one.
        summed = np.zeros(4)
        weights = _thickness(np.array([height for height, _ in planes]))
        for weight, (height, areas) in zip(weights, planes, strict=True):
            # A contour inside another one cuts a hole, so areas are combined by exclusive or.
            ij = np.argwhere(np.logical_xor.reduce(areas))
            summed += weight * len(ij) * np.array([*ij.mean(axis=0), height, 1]) if len(ij) else 0
        if summed[3]:
            point = volume.affine @ (summed / summed[3])
            seeds[int(roi.ReferencedROINumber)] = tuple(point[:3].tolist())
    return seeds


def _thickness(heights: np.ndarray) -> np.ndarray:
    """Return how much of the height each plane stands for, in slices: half-way to its neighbours.

    Where there is no neighbour within a slice, a plane reaches as far as on its other side, or
    stands for a slice.
    """
    gaps = np.diff(heights, prepend=-np.inf, append=np.inf)
    gaps[gaps > 1 + 1e-3] = np.nan
    below, above = gaps[:-1], gaps[1:]
    both = np.where(np.isnan(below), above, below) + np.where(np.isnan(above), below, above)
    return np.nan_to_num(both / 2, nan=1.0)


def _fill(polygon: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Return which voxel centres (i, j) a closed polygon holds, edge included: even-odd rule."""
    inside = np.zeros(shape, bool)
    ahead = np.roll(polygon, -1, axis=0)
    low, high = polygon[:, 1].min() - _ON_EDGE, polygon[:, 1].max() + _ON_EDGE
    for j in range(max(0, int(np.ceil(low))), min(shape[1] - 1, int(np.floor(high))) + 1):
        # Just above and just below: of an edge that runs along the row, one of the two is inside.
        for level in (j - _ON_EDGE, j + _ON_EDGE):
            crossed = (polygon[:, 1] <= level) != (ahead[:, 1] <= level)
            (i0, j0), (i1, j1) = polygon[crossed].T, ahead[crossed].T
            ends = np.sort(i0 + (level - j0) * (i1 - i0) / (j1 - j0))
            for start, stop in zip(ends[::2] - _ON_EDGE, ends[1::2] + _ON_EDGE, strict=True):
                inside[max(0, int(np.ceil(start))) : max(0, int(np.floor(stop)) + 1), j] = True
    return inside
