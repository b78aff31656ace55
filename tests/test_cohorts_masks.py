import shutil
import warnings

import highdicom as hd
import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from nibabel.nifti1 import Nifti1Header
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.sr.codedict import codes
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, RTStructureSetStorage, generate_uid

from tumorbench_utils.cohorts import CohortError, seeds_from_mask
from tumorbench_utils.cohorts.masks import referenced_series

# A rotation of 90 degrees and one by 20 degrees about z.
STRAIGHT = (1, 0, 0, 0, 1, 0, 0, 0, 1)
C, S = np.cos(0.35), np.sin(0.35)
OBLIQUE = (C, -S, 0, S, C, 0, 0, 0, 1)


def make_mask(labels=(1, 3), direction=STRAIGHT, dtype=np.uint8):
    """A label image with one box per label; and the centre of each box in LPS mm."""
    array = np.zeros((12, 20, 30), dtype=dtype)
    centres = {}
    for i, label in enumerate(labels):
        array[2 + i : 7 + i, 3 : 6 + i, 8 * i + 1 : 8 * i + 7] = label
        centres[label] = (8 * i + 3.5, 3 + (2 + i) / 2, 4.0 + i)
    image = sitk.GetImageFromArray(array)
    image.SetSpacing((0.7, 0.9, 2.5))
    image.SetOrigin((-40.0, 25.5, -300.0))
    image.SetDirection(direction)
    return image, {k: image.TransformContinuousIndexToPhysicalPoint(v) for k, v in centres.items()}


def agree(found, expected, tolerance=1e-3):
    assert list(found) == sorted(expected)
    for label, point in found.items():
        assert isinstance(label, int) and isinstance(point, tuple) and len(point) == 3
        np.testing.assert_allclose(point, expected[label], atol=tolerance)


# ----------------------------------------------------------------------------------- label images


@pytest.mark.parametrize("suffix", [".nrrd", ".nii", ".nii.gz", ".mha", ".mhd"])
@pytest.mark.parametrize("direction", [STRAIGHT, OBLIQUE])
def test_centroids_of_label_images(tmp_path, suffix, direction):
    image, centres = make_mask(direction=direction)
    path = tmp_path / f"Maske größer{suffix}"
    sitk.WriteImage(image, str(path))
    agree(seeds_from_mask(path), centres)
    agree(seeds_from_mask(str(path)), centres)


def test_the_centroid_is_that_of_voxels_not_of_the_box(tmp_path):
    array = np.zeros((3, 9, 9), np.int16)
    array[1, 0, 0:3] = 2  # three voxels here, one at the far end
    array[1, 0, 8] = 2
    sitk.WriteImage(sitk.GetImageFromArray(array), str(tmp_path / "m.nrrd"))
    agree(seeds_from_mask(tmp_path / "m.nrrd"), {2: ((0 + 1 + 2 + 8) / 4, 0, 1)})


def test_whole_numbers_stored_as_floats_are_labels(tmp_path):
    image, centres = make_mask(dtype=np.float32)
    sitk.WriteImage(image, str(tmp_path / "m.nii.gz"))
    agree(seeds_from_mask(tmp_path / "m.nii.gz"), centres)


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("m.nrrd", lambda a: a * 0, "empty"),
        ("m.nrrd", lambda a: a * 0.5, "is no label"),
        ("m.nrrd", lambda a: a - 1.0, "is no label"),
        ("m.nrrd", lambda a: np.where(a > 0, np.nan, 0), "is no label"),
        ("m.nrrd", lambda a: a * 1e300, "is no label"),
        ("m.nrrd", lambda a: np.arange(a.size).reshape(a.shape), "an image, not a mask"),
        ("m.nrrd", lambda a: a[0], "3 numbers|dimensions"),
        ("m.nrrd", lambda a: np.stack([a, a], -1).astype(np.uint8), "dimensions"),
        ("m.nrrd", lambda a: b"no picture", "which side is left"),
        ("m.csv", lambda a: b"a,b\n1,2\n", "neither DICOM nor"),
        ("absent.nrrd", lambda a: None, "no such file"),
        (".", lambda a: None, "or a folder"),
    ],
)
def test_what_is_no_mask_is_refused(tmp_path, name, change, message):
    changed = change(sitk.GetArrayFromImage(make_mask()[0]).astype(np.float64))
    if isinstance(changed, bytes):
        (tmp_path / name).write_bytes(changed)
    elif changed is not None:
        image = sitk.GetImageFromArray(changed, isVector=changed.ndim == 4)
        sitk.WriteImage(image, str(tmp_path / name))
    with pytest.raises(CohortError, match=message):
        seeds_from_mask(tmp_path / name)


@pytest.mark.parametrize("name", ["m.nii", "m.nii.gz", "m.nrrd", "m.mha"])
def test_damaged_masks_are_refused(tmp_path, name):
    """Cut off, or with one byte flipped where a checksum tells."""
    path = tmp_path / name
    sitk.WriteImage(make_mask()[0], str(path), useCompression=True)
    data = path.read_bytes()
    for share in (0.3, 0.5, 0.97):
        path.write_bytes(data[: int(share * len(data))])
        with pytest.raises(CohortError, match=name):
            seeds_from_mask(path)
    for place in (-30, -20, -3) if name != "m.nii" else ():
        broken = bytearray(data)
        broken[place] ^= 0x10
        path.write_bytes(broken)
        with pytest.raises(CohortError, match=name):
            seeds_from_mask(path)


def test_masks_are_read_as_scans_are(tmp_path):
    """No orientation, forms that disagree, a file beside it that some read instead."""
    image, _ = make_mask()
    path = tmp_path / "m.nii"
    for fields, message in [
        ({"qform_code": 0, "sform_code": 0}, "orientation is unknown"),
        ({"srow_x": (0.7, 0, 0, 9), "sform_code": 2}, "contradict each other"),
        ({"vox_offset": 351}, "belong together"),
    ]:
        sitk.WriteImage(image, str(path))
        data = path.read_bytes()
        header = Nifti1Header(data[:348], check=False)
        for field, value in fields.items():
            header[field] = value
        path.write_bytes(header.binaryblock + data[348:])
        with pytest.raises(CohortError, match=message):
            seeds_from_mask(path)


# ------------------------------------------------------------------------------------------ DICOM


@pytest.fixture(scope="module")
def ct_series(tmp_path_factory):
    """A CT series of ten slices on an oblique grid: folder, headers, image of the same grid."""
    folder = tmp_path_factory.mktemp("ct")
    grid = sitk.Image((30, 20, 10), sitk.sitkUInt8)
    grid.SetSpacing((0.8, 0.6, 3.0))
    grid.SetOrigin((-12.0, 30.0, -90.0))
    grid.SetDirection(OBLIQUE)
    series, study, frame = generate_uid(), generate_uid(), generate_uid()
    slices = []
    for k in range(10):
        meta = FileMetaDataset()
        meta.MediaStorageSOPClassUID, meta.TransferSyntaxUID = (
            CTImageStorage,
            ExplicitVRLittleEndian,
        )
        meta.MediaStorageSOPInstanceUID = generate_uid()
        data = FileDataset(None, {}, file_meta=meta, preamble=b"\0" * 128)
        data.SOPClassUID, data.SOPInstanceUID = CTImageStorage, meta.MediaStorageSOPInstanceUID
        data.SeriesInstanceUID, data.StudyInstanceUID = series, study
        data.FrameOfReferenceUID, data.Modality = frame, "CT"
        data.PatientID, data.PatientName, data.PatientSex = "P1", "P^1", "O"
        data.PatientBirthDate = data.StudyDate = data.StudyTime = data.AccessionNumber = ""
        data.StudyID, data.ReferringPhysicianName, data.PositionReferenceIndicator = "1", "", ""
        data.SeriesNumber, data.InstanceNumber = 1, k + 1
        data.Rows, data.Columns, data.SliceThickness = 20, 30, 3.0
        data.SamplesPerPixel, data.PhotometricInterpretation = 1, "MONOCHROME2"
        data.BitsAllocated = data.BitsStored = 16
        data.HighBit, data.PixelRepresentation = 15, 1
        data.PixelSpacing = [0.6, 0.8]
        data.ImageOrientationPatient = [C, S, 0, -S, C, 0]
        data.ImagePositionPatient = list(grid.TransformIndexToPhysicalPoint((0, 0, k)))
        data.PixelData = np.zeros((20, 30), np.int16).tobytes()
        # Names in no order: planes are sorted by position, not by name.
        data.save_as(folder / f"{(k * 7) % 10}.dcm", enforce_file_format=True)
        slices.append(data)
    return folder, slices, grid


def write_seg(ct_series, array, path, **kind):
    _, slices, _ = ct_series
    description = [
        hd.seg.SegmentDescription(
            segment_number=i,
            segment_label=f"label {i}",
            segmented_property_category=codes.SCT.Tissue,
            segmented_property_type=codes.SCT.Neoplasm,
            algorithm_type=hd.seg.SegmentAlgorithmTypeValues.MANUAL,
        )
        for i in range(1, 3)
    ]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        hd.seg.Segmentation(
            source_images=slices,
            pixel_array=array,
            segmentation_type=kind.pop("segmentation_type", "BINARY"),
            segment_descriptions=description,
            series_instance_uid=generate_uid(),
            series_number=2,
            sop_instance_uid=generate_uid(),
            instance_number=1,
            manufacturer="none",
            manufacturer_model_name="none",
            software_versions="0",
            device_serial_number="0",
            **kind,
        ).save_as(path)
    return path


def two_boxes(grid):
    array = np.zeros((10, 20, 30), np.uint8)
    array[1:4, 2:9, 3:10] = 1
    array[6:9, 10:19, 20:25] = 2
    at = grid.TransformContinuousIndexToPhysicalPoint
    return array, {1: at((6.0, 5.0, 2.0)), 2: at((22.0, 14.0, 7.0))}


def test_segments_of_an_oblique_dicom_segmentation(ct_series, tmp_path):
    array, centres = two_boxes(ct_series[2])
    path = write_seg(ct_series, array, tmp_path / "seg.dcm")
    agree(seeds_from_mask(path), centres)
    assert referenced_series(path) == {str(ct_series[1][0].SeriesInstanceUID)}


def test_overlapping_segments_have_their_own_centroids(ct_series, tmp_path):
    array = np.zeros((10, 20, 30, 2), np.uint8)
    array[2:5, 2:9, 3:10, 0] = 1
    array[2:5, 2:9, 3:14, 1] = 1
    found = seeds_from_mask(write_seg(ct_series, array, tmp_path / "seg.dcm"))
    at = ct_series[2].TransformContinuousIndexToPhysicalPoint
    agree(found, {1: at((6.0, 5.0, 3.0)), 2: at((8.0, 5.0, 3.0))})


def test_fractional_segmentations(ct_series, tmp_path):
    array, centres = two_boxes(ct_series[2])
    stacked = np.stack([array == 1, array == 2], axis=-1).astype(np.float32)
    kind = {"segmentation_type": "FRACTIONAL", "fractional_type": "PROBABILITY"}
    agree(seeds_from_mask(write_seg(ct_series, stacked, tmp_path / "whole.dcm", **kind)), centres)
    with pytest.raises(CohortError, match="neither in nor out"):
        seeds_from_mask(write_seg(ct_series, 0.4 * stacked, tmp_path / "half.dcm", **kind))


def test_an_empty_segmentation_is_refused(ct_series, tmp_path):
    path = write_seg(
        ct_series, np.zeros((10, 20, 30), np.uint8), tmp_path / "seg.dcm", omit_empty_frames=False
    )
    with pytest.raises(CohortError, match="empty"):
        seeds_from_mask(path)


def test_a_ct_slice_is_no_mask(ct_series):
    with pytest.raises(CohortError, match="modality CT"):
        seeds_from_mask(ct_series[0] / "0.dcm")
    with pytest.raises(CohortError, match="no image series"):
        referenced_series(ct_series[0] / "0.dcm")


@pytest.mark.parametrize(
    ("field", "value"),
    [("spacing", [0.0, 0.8]), ("orientation", [0] * 6), ("position", [0, 0, float("nan")]), (0, 0)],
)
def test_a_dicom_segmentation_without_a_grid_is_refused(ct_series, tmp_path, field, value):
    path = write_seg(ct_series, two_boxes(ct_series[2])[0], tmp_path / "seg.dcm")
    data = pydicom.dcmread(path)
    shared = data.SharedFunctionalGroupsSequence[0]
    if field == "spacing":
        shared.PixelMeasuresSequence[0].PixelSpacing = value
    elif field == "orientation":
        shared.PlaneOrientationSequence[0].ImageOrientationPatient = value
    elif field == "position":
        for frame in data.PerFrameFunctionalGroupsSequence:
            frame.PlanePositionSequence[0]["ImagePositionPatient"]._value = value
    data.save_as(path)
    if not field:
        path.write_bytes(path.read_bytes()[:-500])
    with pytest.raises(CohortError, match=r"seg\.dcm"):
        seeds_from_mask(path)


def write_rtstruct(ct_series, contours, path, series_uid=None):
    """`contours`: per region of interest a list of (slice, polygon in continuous (x, y) index)."""
    _, slices, grid = ct_series
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = RTStructureSetStorage
    meta.MediaStorageSOPInstanceUID = generate_uid()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data = FileDataset(None, {}, file_meta=meta, preamble=b"\0" * 128)
    data.SOPClassUID, data.SOPInstanceUID = RTStructureSetStorage, meta.MediaStorageSOPInstanceUID
    data.Modality = "RTSTRUCT"
    reference, study, frame = Dataset(), Dataset(), Dataset()
    reference.SeriesInstanceUID = series_uid or slices[0].SeriesInstanceUID
    study.RTReferencedSeriesSequence = [reference]
    frame.RTReferencedStudySequence = [study]
    data.ReferencedFrameOfReferenceSequence = [frame]
    data.ROIContourSequence = []
    for number, drawn in contours.items():
        roi = Dataset()
        roi.ReferencedROINumber, roi.ContourSequence = number, []
        for k, polygon in drawn:
            contour = Dataset()
            contour.ContourGeometricType = "CLOSED_PLANAR"
            contour.NumberOfContourPoints = len(polygon)
            points = [grid.TransformContinuousIndexToPhysicalPoint((*p, float(k))) for p in polygon]
            contour.ContourData = [f"{value:.4f}" for point in points for value in point]
            roi.ContourSequence.append(contour)
        data.ROIContourSequence.append(roi)
    data.save_as(path, enforce_file_format=True)
    return path


def square(x0, y0, x1, y1):
    return [(x0, y0), (x1, y0), (x1, y1), (x0, y1)]


def test_regions_of_a_structure_set(ct_series, tmp_path):
    # Contours run half-way between voxel centres, so the voxels inside are known.
    contours = {
        4: [(k, square(2.5, 1.5, 9.5, 8.5)) for k in (1, 2, 3)],
        7: [(k, square(19.5, 9.5, 24.5, 18.5)) for k in (6, 7, 8)],
        9: [],
    }
    path = write_rtstruct(ct_series, contours, tmp_path / "rt.dcm")
    centres = two_boxes(ct_series[2])[1]
    agree(seeds_from_mask(path, series=ct_series[0]), {4: centres[1], 7: centres[2]})


def test_a_structure_set_equals_the_mask_it_was_drawn_around(ct_series, tmp_path):
    # A triangle, a hole in a square, and two parts of unequal height.
    contours = {
        1: [(3, [(2.2, 1.3), (17.6, 4.1), (6.4, 15.8)])],
        2: [(5, square(1.5, 1.5, 20.5, 15.5)), (5, square(1.5, 1.5, 10.5, 8.5))],
        3: [(k, square(1.5, 1.5, 4.5, 4.5)) for k in range(2)]
        + [(8, square(20.5, 2.5, 26.5, 9.5))],
    }
    path = write_rtstruct(ct_series, contours, tmp_path / "rt.dcm")
    array = np.zeros((3, 10, 20, 30), bool)
    y, x = np.mgrid[:20, :30]

    def left_of(a, b):
        return (b[0] - a[0]) * (y - a[1]) - (b[1] - a[1]) * (x - a[0]) > 0

    corners = contours[1][0][1]
    array[0, 3] = np.logical_and.reduce(
        [left_of(*corners[i : i + 2]) for i in (0, 1)] + [left_of(corners[2], corners[0])]
    )
    array[1, 5, 2:16, 2:21] = True
    array[1, 5, 2:9, 2:11] = False
    array[2, :2, 2:5, 2:5] = True
    array[2, 8, 3:10, 21:27] = True
    at = ct_series[2].TransformContinuousIndexToPhysicalPoint
    expected = {i + 1: at(np.argwhere(m).mean(axis=0)[::-1].tolist()) for i, m in enumerate(array)}
    agree(seeds_from_mask(path, series=ct_series[0]), expected)


def ball(heights, radius=6.0):
    """Contours of a ball around index (14, 10, 4.5), 3 mm slices, at any heights (in slices)."""
    angle = np.linspace(0, 2 * np.pi, 60, endpoint=False)
    found = []
    for k in heights:
        r = np.sqrt(radius**2 - (3 * (k - 4.5)) ** 2)
        x, y = 14 + r * np.cos(angle) / 0.8, 10 + r * np.sin(angle) / 0.6
        found.append((k, list(zip(x.tolist(), y.tolist(), strict=True))))
    return found


def test_contours_count_at_their_own_heights(ct_series, tmp_path):
    """Denser than the slices, shifted against them, or stored twice: the seed stays."""
    dense = ball(np.arange(2.75, 6.5, 0.5))
    half = ball(np.arange(3, 6.5))
    contours = {
        1: dense,
        2: ball(np.arange(3, 7)),
        3: half,
        4: half + half,
        5: half + half[:2],
        6: dense[:4] + half[2:],  # denser in one half
    }
    path = write_rtstruct(ct_series, contours, tmp_path / "rt.dcm")
    at = ct_series[2].TransformContinuousIndexToPhysicalPoint
    centre = at((14.0, 10.0, 4.5))
    expected = dict.fromkeys(contours, centre)
    agree(seeds_from_mask(path, series=ct_series[0]), expected, tolerance=0.2)
    # A cone: its area grows from foot to head, and so the seed moves.
    cone = {1: [(k, square(5, 5, 8 + k, 8 + k)) for k in np.arange(2, 6, 0.25)]}
    path = write_rtstruct(ct_series, cone, tmp_path / "cone.dcm")
    k = np.arange(2, 6, 0.25)
    height = (k * (3 + k) ** 2).sum() / ((3 + k) ** 2).sum()
    (found,) = seeds_from_mask(path, series=ct_series[0]).values()
    assert found[2] == pytest.approx(at((0.0, 0.0, float(height)))[2], abs=0.2)


def test_contours_through_voxel_centres_are_closed_on_all_sides(ct_series, tmp_path):
    contours = {1: [(k, square(3, 2, 9, 8)) for k in (3, 4, 5)]}
    path = write_rtstruct(ct_series, contours, tmp_path / "rt.dcm")
    at = ct_series[2].TransformContinuousIndexToPhysicalPoint
    agree(seeds_from_mask(path, series=ct_series[0]), {1: at((6.0, 5.0, 4.0))})


def test_a_structure_set_needs_its_own_series(ct_series, tmp_path):
    contours = {1: [(1, square(2.5, 1.5, 9.5, 8.5))]}
    path = write_rtstruct(ct_series, contours, tmp_path / "rt.dcm")
    other = write_rtstruct(ct_series, contours, tmp_path / "other.dcm", series_uid=generate_uid())
    nothing = write_rtstruct(ct_series, {1: []}, tmp_path / "nothing.dcm")
    last = write_rtstruct(ct_series, {1: [(9, square(2, 1, 9, 8))]}, tmp_path / "last.dcm")
    tilted = write_rtstruct(ct_series, contours, tmp_path / "tilted.dcm")
    data = pydicom.dcmread(tilted)
    data.ROIContourSequence[0].ContourSequence[0].ContourData[2] -= 2
    data.save_as(tilted)
    (tmp_path / "empty").mkdir()
    shutil.copytree(ct_series[0], tmp_path / "ct")
    for file in (tmp_path / "ct").iterdir():
        if pydicom.dcmread(file).InstanceNumber >= 9:
            file.unlink()
    for mask, series, message in [
        (path, None, "give the folder of its CT series"),
        (path, tmp_path / "absent", "No such file or directory"),
        (path, tmp_path / "empty", "must hold the series .* but holds 0"),
        (other, ct_series[0], "must hold the series"),
        (nothing, ct_series[0], "empty"),
        (last, tmp_path / "ct", "from the nearest slice"),
        (tilted, ct_series[0], "in no plane"),
    ]:
        with pytest.raises(CohortError, match=message):
            seeds_from_mask(mask, series=series)


def test_the_same_mask_in_two_formats_has_one_seed(reference):
    folder = reference / "dicom"
    segmentation = seeds_from_mask(folder / "liver_seg.dcm")
    agree(segmentation, seeds_from_mask(folder / "liver_seg.nrrd"))
    assert referenced_series(folder / "liver_seg.dcm") == {
        str(pydicom.dcmread(folder / "ct" / "01.dcm").SeriesInstanceUID)
    }
