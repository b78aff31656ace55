"""Phantom scans as files: MetaImage, NIfTI, NRRD and DICOM, byte for byte the same every time."""

import datetime
from pathlib import Path

import numpy as np
import SimpleITK as sitk
from isal import igzip
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

_UID_ROOT = "1.2.826.0.1.3680043.8.498."


def write_image(image: sitk.Image, path: Path, axes: str = "LPS") -> list[Path]:
    """Write an image in the format that the suffix names.

    Parameters
    ----------
    image : SimpleITK.Image
    path : Path
        ``.mhd`` (with a ``.raw`` beside it), ``.nii.gz`` or ``.nrrd`` (gzip).
    axes : str
        Directions in which the stored axes increase, the fastest first: ``"LPS"`` as in DICOM,
        ``"RAS"`` as in many NIfTI files.

    Returns
    -------
    list of Path
        The files that were written.

    Raises
    ------
    OSError
        If the file cannot be written whole.
    """
    image = _oriented(image, axes)
    stem = path.name.split(".")[0]
    if path.suffix == ".mhd":
        _write(image, path)
        return [path, path.with_suffix(".raw")]
    plain = path.with_name(f"{stem}-plain{'.nii' if path.suffix == '.gz' else path.suffix}")
    try:
        _write(image, plain)
        content = plain.read_bytes()
    finally:
        plain.unlink(missing_ok=True)
    if path.suffix == ".nrrd":
        head, _, voxels = content.partition(b"\n\n")
        head = head.replace(b"encoding: raw", b"encoding: gzip")
        content = head + b"\n\n" + igzip.compress(voxels, 1, mtime=0)
    else:
        content = igzip.compress(content, 1, mtime=0)
    path.write_bytes(content)
    return [path]


def _oriented(image: sitk.Image, axes: str) -> sitk.Image:
    """Return an image along LPS with its axes permuted and flipped, as DICOMOrient but faster."""
    array = sitk.GetArrayViewFromImage(image).transpose(2, 1, 0)
    spacing, size = np.array(image.GetSpacing()), np.array(image.GetSize())
    origin, direction = np.array(image.GetOrigin()), np.zeros((3, 3))
    order = [next(i for i, pair in enumerate(("LR", "PA", "SI")) if code in pair) for code in axes]
    for stored, (i, code) in enumerate(zip(order, axes, strict=True)):
        backwards = code not in "LPS"
        direction[i, stored] = -1 if backwards else 1
        if backwards:
            array = np.flip(array, i)
            origin[i] += (size[i] - 1) * spacing[i]
    turned = sitk.GetImageFromArray(np.ascontiguousarray(array.transpose(order).transpose(2, 1, 0)))
    turned.SetSpacing(spacing[order].tolist())
    turned.SetOrigin(origin.tolist())
    turned.SetDirection(direction.ravel().tolist())
    return turned


def _write(image: sitk.Image, path: Path) -> None:
    """Write an uncompressed image and check that it is whole."""
    try:
        sitk.WriteImage(image, str(path), False)
    except RuntimeError as error:
        raise OSError(f"cannot write {path}: {str(error).strip().splitlines()[-1]}") from error
    data = path.with_suffix(".raw") if path.suffix == ".mhd" else path
    if data.stat().st_size < image.GetNumberOfPixels() * image.GetSizeOfPixelComponent():
        raise OSError(f"cannot write {data}: the file is cut off, the disk may be full")


def write_dicom(image: sitk.Image, folder: Path, patient_id: str, manufacturer: str) -> list[Path]:
    """Write an image with axes along LPS as a DICOM series, one file per slice.

    Parameters
    ----------
    image : SimpleITK.Image
        int16 HU; its direction must be the identity.
    folder : Path
        Made if needed.
    patient_id, manufacturer : str

    Returns
    -------
    list of Path
        The files, from feet to head.
    """
    folder.mkdir(parents=True, exist_ok=True)
    array = sitk.GetArrayFromImage(image)
    spacing, origin = image.GetSpacing(), image.GetOrigin()

    def uid(*what: object) -> str:
        return generate_uid(_UID_ROOT, [patient_id, *(str(w) for w in what)])

    written = []
    for k, plane in enumerate(array):
        data = Dataset()
        data.SOPClassUID, data.SOPInstanceUID = CTImageStorage, uid("slice", k)
        data.StudyInstanceUID, data.SeriesInstanceUID = uid("study"), uid("series")
        data.FrameOfReferenceUID = uid("frame")
        data.PatientID = data.PatientName = patient_id
        data.Modality, data.Manufacturer, data.SeriesDescription = "CT", manufacturer, "phantom"
        data.ImageType = ["DERIVED", "PRIMARY", "AXIAL"]
        data.StudyDate = data.SeriesDate = datetime.date(2000, 1, 1).strftime("%Y%m%d")
        data.SeriesNumber, data.InstanceNumber = 1, k + 1
        data.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
        data.ImagePositionPatient = [
            f"{v:.6f}" for v in (origin[0], origin[1], origin[2] + k * spacing[2])
        ]
        data.PixelSpacing = [f"{spacing[1]:.6f}", f"{spacing[0]:.6f}"]
        data.SliceThickness = f"{spacing[2]:.6f}"
        data.SamplesPerPixel, data.PhotometricInterpretation = 1, "MONOCHROME2"
        data.Rows, data.Columns = plane.shape
        data.BitsAllocated, data.BitsStored, data.HighBit, data.PixelRepresentation = 16, 16, 15, 0
        data.RescaleIntercept, data.RescaleSlope, data.RescaleType = -1024, 1, "HU"
        data.PixelData = (plane.astype(np.int32) + 1024).astype("<u2").tobytes()
        data.file_meta = FileMetaDataset()
        data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        path = folder / f"{k + 1:04d}.dcm"
        data.save_as(path, enforce_file_format=True)
        written.append(path)
    return written
