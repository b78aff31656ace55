"""DICOM files, and the one CT series in a folder of them."""

import contextlib
import zlib
from pathlib import Path

import numpy as np
import pydicom
import SimpleITK as sitk
from pydicom.uid import DeflatedExplicitVRLittleEndian, UncompressedTransferSyntaxes

from tumorbench_utils.patches.spec import require
from tumorbench_utils.patches.volume import Box, Volume, readable

#: Slice positions may stray this far from an even grid: headers round them to a tenth of a mm.
POSITION_TOLERANCE_MM = 0.08

#: A deflated file may unpack to this many bytes; other files cannot grow.
_MOST_INFLATED = 256 << 20

_RAW = {*UncompressedTransferSyntaxes} - {DeflatedExplicitVRLittleEndian}

#: Air, which replaces padding that would read as something denser than any metal.
_AIR_HU, _DENSEST_HU = -1024, 20_000

_GRID = ("ImageOrientationPatient", "PixelSpacing", "Rows", "Columns")

#: What these fields hold in every slice of a CT; enhanced CT has many frames in a file.
_SLICE = {"NumberOfFrames": 1, "SamplesPerPixel": 1, "BitsAllocated": 16}
_SLICE |= {"PhotometricInterpretation": "MONOCHROME2"}

_TAGS = [
    *_GRID, *_SLICE, "ImagePositionPatient", "SeriesInstanceUID", "Modality", "InstanceNumber",
    "SliceThickness", "BitsStored", "RescaleSlope", "RescaleIntercept", "PixelPaddingValue",
]  # fmt: skip


def read(path: Path, **options) -> pydicom.Dataset | None:
    """Return a DICOM file, with or without its preamble; None if it is none.

    Parameters
    ----------
    path : Path
    **options
        Passed on to ``pydicom.dcmread``.

    Raises
    ------
    PatchError
        If it unpacks to more than memory should hold, or has the suffix of DICOM and is none.
    """
    _check_deflated(path)
    with contextlib.suppress(Exception):  # What is no DICOM makes pydicom raise many kinds.
        data = pydicom.dcmread(path, force=True, **options)
        if "Modality" in data:
            return data
    other = path.suffix.lower() not in (".dcm", ".ima", ".dicom")
    require(other, f"{path}: not a DICOM file, or a damaged one; fetch it again")
    return None


def _check_deflated(path: Path) -> None:
    with open(path, "rb") as file:
        if DeflatedExplicitVRLittleEndian.encode() in file.read(1024):
            meta = pydicom.filereader.read_file_meta_info(path)
            file.seek(144 + int(meta.FileMetaInformationGroupLength))
            size = len(zlib.decompressobj(-15).decompress(file.read(), _MOST_INFLATED))
            require(size < _MOST_INFLATED, f"{path}: unpacks to more than {size} bytes: a bomb")


class DicomVolume(Volume):
    """The slices of one series, sorted along their normal, of which only some are read.

    Parameters
    ----------
    name : str
    affine : ndarray, shape (4, 4)
    slices : list of (Path, pydicom.Dataset)
        File and header, in the order of k.
    """

    def __init__(self, name: str, affine: np.ndarray, slices: list):
        super().__init__(name, affine, (slices[0][1].Columns, slices[0][1].Rows, len(slices)))
        self._slices = slices

    def read(self, boxes: list[Box]) -> list[np.ndarray]:
        """Return the voxels of each box, opening each file that is needed once."""
        results = [np.empty([b - a for a, b in reversed(box)], self.dtype) for box in boxes]
        for k, (file, header) in enumerate(self._slices):
            inside = [n for n, box in enumerate(boxes) if box[2][0] <= k < box[2][1]]
            if inside:
                with readable(file):
                    plane = _plane(file, header)
                self.rows.append(plane[:: max(1, len(plane) // 4)].ravel())
            for n in inside:
                (i0, i1), (j0, j1), (k0, _) = boxes[n]
                results[n][k - k0] = plane[j0:j1, i0:i1]
        return results


def _plane(file: Path, header: pydicom.Dataset) -> np.ndarray:
    """Return the pixels of one slice in HU, shape (j, i)."""
    image = sitk.ReadImage(str(file), imageIO="GDCMImageIO")
    signed = image.GetPixelIDValue() not in (sitk.sitkUInt8, sitk.sitkUInt16, sitk.sitkUInt32)
    require(signed, "the values are not HU: no rescale intercept, nothing below 0; fetch it again")
    plane = sitk.GetArrayFromImage(image)[0].astype(np.float32)
    if "PixelPaddingValue" in header and plane.max() > _DENSEST_HU:
        # Padding of -2000 that is stored unsigned reads as 63536.
        slope, intercept = _rescale(header)
        value = header.PixelPaddingValue
        value = int.from_bytes(value[:2], "little") if isinstance(value, bytes) else int(value)
        padding = (np.rint((plane - intercept) / slope).astype(int) - value) % (1 << 16) == 0
        plane[padding & (plane > _DENSEST_HU)] = _AIR_HU
    return plane


def _rescale(header: pydicom.Dataset) -> tuple[float, float]:
    return float(header.get("RescaleSlope", 1)), float(header.get("RescaleIntercept", 0))


def open_series(folder: Path, wanted: set[str] | None = None) -> DicomVolume:
    """Open the one CT series in a folder.

    Parameters
    ----------
    folder : Path
    wanted : set of str, optional
        Series UIDs of which one is meant; other series in the folder do not count.

    Raises
    ------
    PatchError
        If there is no CT or more than one, or if its slices are not a complete, even stack.
    """
    slices = _slices(folder, wanted)
    first = slices[0][1]
    for field in _GRID:
        values = {tuple(np.round(np.atleast_1d(header[field].value), 4)) for _, header in slices}
        require(len(values) == 1, f"the slices differ in {field}; keep one series, no localisers")
    axes = np.reshape(np.array(first.ImageOrientationPatient, float), (2, 3))
    skew = np.abs(axes @ axes.T - np.eye(2)).max()
    require(skew < 2e-3, "ImageOrientationPatient does not hold two unit vectors at right angles")
    normal = np.cross(*axes)
    positions = np.array([header.ImagePositionPatient for _, header in slices], float)
    order = np.argsort(positions @ normal, kind="stable")
    slices, positions = [slices[n] for n in order], positions[order]
    step = _even_step(positions @ normal, slices)
    shift = positions - positions[0]
    aside = np.abs(shift - np.outer(shift @ normal, normal)).max()
    tilt = f"the slices are shifted sideways by {aside:.1f} mm (gantry tilt); resample them first"
    require(aside <= POSITION_TOLERANCE_MM, tilt)
    down, across = (float(mm) for mm in first.PixelSpacing)
    require(min(down, across) > 0, f"PixelSpacing is {first.PixelSpacing}")
    affine = np.eye(4)
    affine[:3, :3] = np.column_stack([*axes, normal]) @ np.diag([across, down, step])
    affine[:3, 3] = positions[0]
    return DicomVolume(str(folder), affine, slices)


def _slices(folder: Path, wanted: set[str] | None) -> list[tuple[Path, pydicom.Dataset]]:
    """Return the files of the one CT series in a folder with the fields that are needed."""
    series: dict[str, list] = {}
    others = set()
    for path in sorted(folder.iterdir()):
        if not path.is_file() or path.name.startswith(".") or path.name == "DICOMDIR":
            continue
        header = read(path, stop_before_pixels=True, specific_tags=_TAGS)
        if header is not None and header.Modality == "CT":
            series.setdefault(str(header.get("SeriesInstanceUID")), []).append((path, header))
        elif header is not None:
            others.add(str(header.Modality))
    there = ", ".join([*series][:3]) or f"no CT series, {', '.join(sorted(others)) or 'none'}"
    meant = [uid for uid in series if wanted is None or uid in wanted]
    needed = "one CT series" if wanted is None else f"the series {', '.join(sorted(wanted))}"
    require(len(meant) == 1, f"the folder must hold {needed}, but holds {len(meant)} ({there})")
    for path, header in series[meant[0]]:
        with readable(path):
            _check_slice(path, header)
    return series[meant[0]]


def _check_slice(path: Path, header: pydicom.Dataset) -> None:
    """Refuse a slice without a place, whose numbers are no HU, or whose file is cut off."""
    lacks = [f for f in (*_GRID, "ImagePositionPatient") if header.get(f) in (None, "")]
    require(not lacks, f"the header lacks {', '.join(lacks)}: the slice has no place in space")
    for field, usual in _SLICE.items():
        value = header.get(field) or usual
        require(value == usual, f"{field} is {value}, in one slice of a CT {usual}; convert it")
    require(header.get("BitsStored", 16) >= 10, f"{header.BitsStored} of 16 bits are used: no CT")
    slope, intercept = _rescale(header)
    sane = 0.01 <= abs(slope) <= 100 and np.isfinite(intercept)
    require(sane, f"no HU: the rescale slope is {slope:g}, the intercept {intercept:g}")
    # GDCM fills up with zeros what is missing at the end.
    need, have = int(header.Rows) * int(header.Columns) * 2, path.stat().st_size
    whole = header.file_meta.get("TransferSyntaxUID") not in _RAW or have >= need
    require(whole, f"the file is cut off: {have} bytes, its pixels need {need}")


def _even_step(depth: np.ndarray, slices: list) -> float:
    """Return the distance of the slices in mm if they form a complete, even stack."""
    require(len(depth) > 1, "a single slice says nothing about the distance of slices")
    gaps, number = np.diff(depth), np.arange(len(depth))
    line = np.polynomial.Polynomial.fit(number, depth, 1)(number)
    usual = np.median(gaps)
    n = np.abs(gaps - usual).argmax()
    where = f"{gaps[n]:g} mm between {slices[n][0].name} and {slices[n + 1][0].name}"
    where = f"mostly {usual:g} mm, but {where}; a slice is missing, doubled or out of place"
    even = gaps.min() >= 1e-3 and np.abs(depth - line).max() <= POSITION_TOLERANCE_MM
    require(even, f"the slices are unevenly spaced: {where}; fetch it again")
    step = float(depth[-1] - depth[0]) / (len(depth) - 1)
    # An even stack may still lack every second slice. Two signs together show it: the instance
    # numbers jump throughout, and the slices are further apart than they are thick.
    instances = [header.get("InstanceNumber") for _, header in slices]
    thickness = float(slices[0][1].get("SliceThickness") or 0)
    if None not in instances and thickness and step > 1.2 * thickness:
        jump = np.abs(np.diff(np.array(instances, float))).min()
        gap = f"instance numbers {jump:g} apart, {step:g} mm apart, {thickness:g} mm thick"
        require(jump <= 1, f"slices are missing ({gap}); fetch the series again")
    return step
