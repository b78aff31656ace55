"""Phantom patients as a stranger would send them: own column names, four image formats.

Tables from elsewhere call things by other names, write words for codes, and hold scans in whatever
format the scanner, the archive or a colleague left them. This writes such a table.
"""

import shutil
import warnings
from pathlib import Path

import contourpy
import numpy as np
import pandas as pd
import pydicom
import SimpleITK as sitk
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, RTStructureSetStorage, generate_uid

from tumorbench_phantoms.store import _UID_ROOT, write_dicom, write_image

#: How the n-th scan is stored; most are NIfTI, MetaImage and NRRD in turn.
_FORMATS = ("nii.gz", "mhd", "nrrd")

_PLACE = ("File", "Contour", "Contour no.", "X", "Y", "Z")


def write_strange(table: pd.DataFrame, folder: Path) -> Path:
    """Write phantom patients as a stranger's cohort.

    The first scan is a DICOM series with a segmentation object, the second one with an RT
    structure set, the others NIfTI, MetaImage and NRRD in turn. NIfTI scans have a mask file, the
    other two coordinates.

    Parameters
    ----------
    table : DataFrame
        Rows of a phantom cohort whose scans are ``.mhd`` files, with absolute paths.
    folder : Path
        Made if needed.

    Returns
    -------
    Path
        ``nodules.csv`` in the folder, with the columns ``Nodule, Case, File, Contour, Contour no.,
        X, Y, Z, Diagnosis`` (benign or malignant), ``Diameter [mm]`` and ``Scanner``. Files are
        relative to the folder ``scans`` beside it.
    """
    scans = Path(folder) / "scans"
    scans.mkdir(parents=True)
    rows = []
    for number, (_, lesions) in enumerate(table.groupby("scan_id", sort=False)):
        case = f"case {number + 1:03d}"
        if number < 2:
            stored = _as_dicom(lesions, scans / case, case, rtstruct=number == 1)
        else:
            stored = _as_files(lesions, scans, case, _FORMATS[number % 3])
        for k, (lesion, own) in enumerate(zip(lesions.to_dict("records"), stored, strict=True)):
            row = {"Nodule": f"{case} / {k + 1}", "Case": case, **dict.fromkeys(_PLACE, ""), **own}
            row["Diagnosis"] = "malignant" if lesion["label"] == 1 else "benign"
            row["Diameter [mm]"], row["Scanner"] = lesion["size_mm"], lesion["manufacturer"]
            rows.append(row)
    pd.DataFrame(rows).to_csv(Path(folder) / "nodules.csv", index=False)
    return Path(folder) / "nodules.csv"


def _as_files(lesions: pd.DataFrame, scans: Path, case: str, suffix: str) -> list[dict]:
    """Write one scan as a file; NIfTI with a label map, the others with coordinates."""
    source = Path(lesions["image_path"].iloc[0])
    target = scans / f"{case}.{suffix}"
    if suffix == "mhd":
        text = source.read_text()
        target.write_text(text.replace(source.with_suffix(".raw").name, f"{case}.raw"))
        shutil.copyfile(source.with_suffix(".raw"), scans / f"{case}.raw")
    else:
        write_image(sitk.ReadImage(str(source)), target, "RAS" if suffix == "nii.gz" else "LPS")
    if suffix != "nii.gz":
        seeds = lesions[["coord_x", "coord_y", "coord_z"]].round(2).to_numpy()
        return [{"File": target.name, **dict(zip("XYZ", s, strict=True))} for s in seeds]
    mask = scans / f"{case} contours.nii.gz"
    write_image(_label_map(lesions), mask, "RAS")
    return _with_mask(target.name, mask.name, len(lesions))


def _with_mask(scan: str, mask: str, n: int) -> list[dict]:
    return [{"File": scan, "Contour": mask, "Contour no.": k + 1} for k in range(n)]


def _label_map(lesions: pd.DataFrame) -> sitk.Image:
    """Return the masks of the lesions of one scan as one image of labels 1, 2, ..."""
    masks = [sitk.ReadImage(path) for path in lesions["mask_path"]]
    labels = np.zeros(sitk.GetArrayViewFromImage(masks[0]).shape, np.uint8)
    for k, mask in enumerate(masks):
        labels[sitk.GetArrayViewFromImage(mask) > 0] = k + 1
    image = sitk.GetImageFromArray(labels)
    image.CopyInformation(masks[0])
    return image


def _as_dicom(lesions: pd.DataFrame, folder: Path, case: str, *, rtstruct: bool) -> list[dict]:
    """Write one scan as a DICOM series with a SEG or an RTSTRUCT beside it."""
    image = sitk.ReadImage(lesions["image_path"].iloc[0])
    files = write_dicom(image, folder, case, "Phantom")
    labels = _label_map(lesions)
    mask = folder.parent / f"{case} {'RTSTRUCT' if rtstruct else 'SEG'}.dcm"
    slices = [pydicom.dcmread(file) for file in files]
    (_write_structures if rtstruct else _write_segments)(labels, slices, mask)
    return _with_mask(folder.name, mask.name, len(lesions))


def _write_segments(labels: sitk.Image, slices: list[Dataset], path: Path) -> None:
    """Write labels as a DICOM segmentation object."""
    # Imported here: it takes seconds, and only this function needs it.
    import highdicom as hd
    from pydicom.sr.codedict import codes

    array = sitk.GetArrayFromImage(labels)
    for one in slices:  # fields that a segmentation takes over from its source
        for name in ("PatientBirthDate", "PatientSex", "StudyTime", "AccessionNumber", "StudyID"):
            setattr(one, name, "")
        one.ReferringPhysicianName = one.PositionReferenceIndicator = ""
    described = [
        hd.seg.SegmentDescription(
            segment_number=int(k),
            segment_label=f"nodule {k}",
            segmented_property_category=codes.SCT.MorphologicallyAbnormalStructure,
            segmented_property_type=codes.SCT.Nodule,
            algorithm_type=hd.seg.SegmentAlgorithmTypeValues.MANUAL,
        )
        for k in np.unique(array[array > 0])
    ]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        hd.seg.Segmentation(
            source_images=slices,
            pixel_array=array,
            segmentation_type="BINARY",
            segment_descriptions=described,
            series_instance_uid=_uid(path, "series"),
            series_number=2,
            sop_instance_uid=_uid(path, "object"),
            instance_number=1,
            manufacturer="Phantom",
            manufacturer_model_name="none",
            software_versions="0",
            device_serial_number="0",
        ).save_as(path)


def _write_structures(labels: sitk.Image, slices: list[Dataset], path: Path) -> None:
    """Write the outlines of labels as an RT structure set."""
    array = sitk.GetArrayFromImage(labels)
    data, reference, study, frame = Dataset(), Dataset(), Dataset(), Dataset()
    data.SOPClassUID, data.SOPInstanceUID = RTStructureSetStorage, _uid(path, "object")
    data.Modality, data.PatientID = "RTSTRUCT", slices[0].PatientID
    reference.SeriesInstanceUID = slices[0].SeriesInstanceUID
    study.RTReferencedSeriesSequence = [reference]
    frame.RTReferencedStudySequence = [study]
    data.ReferencedFrameOfReferenceSequence = [frame]
    data.ROIContourSequence = []
    for k in np.unique(array[array > 0]):
        region = Dataset()
        region.ReferencedROINumber, region.ContourSequence = int(k), []
        for z in np.flatnonzero((array == k).any(axis=(1, 2))):
            outlines = contourpy.contour_generator(z=(array[z] == k).astype(float)).lines(0.5)
            for outline in outlines:
                points = [
                    labels.TransformContinuousIndexToPhysicalPoint((*xy, float(z)))
                    for xy in outline[:-1].tolist()
                ]
                contour = Dataset()
                contour.ContourGeometricType = "CLOSED_PLANAR"
                contour.NumberOfContourPoints = len(points)
                contour.ContourData = [f"{value:.4f}" for point in points for value in point]
                region.ContourSequence.append(contour)
        data.ROIContourSequence.append(region)
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data.save_as(path, enforce_file_format=True)


def _uid(path: Path, what: str) -> str:
    return generate_uid(_UID_ROOT, [path.name, what])
