"""Reading only the region under a patch, in every format, and refusing every bad file."""

import gzip
import struct
import tracemalloc

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

from tumorbench_utils.patches import PatchError, PatchSpec, extract_patch, extract_patches, volume
from tumorbench_utils.patches.intensity import not_hu

SPEC = PatchSpec("SPL", size=(24, 24, 24))
SPACING, ORIGIN = (0.75, 0.75, 1.5), (-20.0, 11.0, -300.0)  # Exact in float32.
SEED = (-2.0, 26.0, -275.0)


def body(shape=(40, 44, 48), seed=0):
    """A chest in a nutshell, HU: air outside, soft tissue, two lungs; shape along k, j, i."""
    _, y, x = np.meshgrid(*[np.linspace(-1, 1, n) for n in shape], indexing="ij")
    values = np.where((x / 0.9) ** 2 + (y / 0.8) ** 2 < 1, 40.0, -1000.0)
    for side in (-0.45, 0.45):
        values[((x - side) / 0.3) ** 2 + (y / 0.5) ** 2 < 1] = -850
    return np.clip(values + np.random.default_rng(seed).normal(0, 15, shape), -1024, None)


def scan(values=None, dtype=np.int16):
    image = sitk.GetImageFromArray((body() if values is None else values).astype(dtype))
    image.SetSpacing(SPACING)
    image.SetOrigin(ORIGIN)
    return image


def write_raw_nrrd(path, image, encoding="raw", endian="little", **fields):
    """Write NRRD by hand: SimpleITK always writes little endian."""
    array = sitk.GetArrayFromImage(image)
    data = array.astype(array.dtype.newbyteorder(">" if endian == "big" else "<")).tobytes()
    header = {
        "type": "short",
        "dimension": 3,
        "space": "left-posterior-superior",
        "sizes": " ".join(map(str, image.GetSize())),
        "space directions": "(0.75,0,0) (0,0.75,0) (0,0,1.5)",
        "space origin": "(-20,11,-300)",
        "endian": endian,
        "encoding": encoding,
        **fields,
    }
    text = "NRRD0004\n# made by hand\n" + "".join(f"{k}: {v}\n" for k, v in header.items())
    data = gzip.compress(data, 1) if encoding == "gzip" else data
    path.write_bytes(text.encode() + b"\n" + data)


def write_dicom(folder, values, *, step=1.5, start=-300.0, intercept=-1024, **changed):
    """Write a CT series, one file per slice; `changed` overrides fields of every slice."""
    folder.mkdir(parents=True, exist_ok=True)
    series = generate_uid()
    for k, plane in enumerate(values):
        data = pydicom.Dataset()
        data.file_meta = pydicom.dataset.FileMetaDataset()
        data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        data.file_meta.MediaStorageSOPClassUID = data.SOPClassUID = CTImageStorage
        data.file_meta.MediaStorageSOPInstanceUID = data.SOPInstanceUID = generate_uid()
        data.SeriesInstanceUID, data.StudyInstanceUID = series, "1.2.3"
        data.Modality, data.InstanceNumber = "CT", k + 1
        data.Rows, data.Columns = plane.shape
        data.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
        data.ImagePositionPatient = [-20, 11, round(start + k * step, 6)]
        data.PixelSpacing, data.SliceThickness = [0.75, 0.75], step
        data.SamplesPerPixel, data.PhotometricInterpretation = 1, "MONOCHROME2"
        data.BitsAllocated = data.BitsStored = 16
        data.HighBit, data.PixelRepresentation = 15, 0
        data.RescaleIntercept, data.RescaleSlope = intercept, 1
        data.PixelData = (plane - intercept).astype(np.uint16).tobytes()
        for field, value in changed.items():
            setattr(data, field, value)
        # File names run against the slices: their order must come from the headers.
        data.save_as(folder / f"{900 - k}.dcm", enforce_file_format=True)
    return folder


def edit_dicom(path, **fields):
    data = pydicom.dcmread(path)
    for field, value in fields.items():
        setattr(data, field, value)
    data.save_as(path)


@pytest.fixture(scope="module")
def expected():
    return extract_patch(scan(), SEED, SPEC)


@pytest.mark.parametrize(
    ("name", "packed"),
    [
        ("a.nii", False),
        ("a.nii.gz", True),
        ("a.mhd", False),
        ("a.mhd", True),
        ("a.mha", False),
        ("a.mha", True),
        ("a.nrrd", False),
        ("a.nrrd", True),
        ("A.NRRD", True),
        ("Größe ü 肺.nii.gz", True),
        ("Größe ü 肺.mhd", False),
    ],
)
@pytest.mark.parametrize("dtype", [np.int16, np.int32, np.float32, np.float64])
def test_every_format_gives_the_patch_of_the_image(tmp_path, name, packed, dtype):
    sitk.WriteImage(scan(dtype=dtype), str(tmp_path / name), useCompression=packed)
    patch = extract_patch(tmp_path / name, SEED, SPEC)
    np.testing.assert_array_equal(patch, extract_patch(scan(dtype=dtype), SEED, SPEC))
    np.testing.assert_array_equal(patch, extract_patch(str(tmp_path / name), SEED, SPEC))


@pytest.mark.parametrize("endian", ["little", "big"])
@pytest.mark.parametrize("encoding", ["raw", "gzip"])
def test_nrrd_byte_orders(tmp_path, expected, endian, encoding):
    write_raw_nrrd(tmp_path / "a.nrrd", scan(), encoding, endian)
    np.testing.assert_array_equal(extract_patch(tmp_path / "a.nrrd", SEED, SPEC), expected)


def test_layouts_that_itk_must_read_whole(tmp_path, expected):
    """A NRRD header with its voxels elsewhere, and bytes to skip."""
    write_raw_nrrd(tmp_path / "skip.nrrd", scan(), "raw", **{"byte skip": -1})
    np.testing.assert_array_equal(extract_patch(tmp_path / "skip.nrrd", SEED, SPEC), expected)


def test_big_endian_nifti_and_metaimage(tmp_path, expected):
    sitk.WriteImage(scan(), str(tmp_path / "a.nii"))
    data = (tmp_path / "a.nii").read_bytes()
    layout = "i10s18sihcB8h3f4h8f3fhcB4f2i80s24s2h6f4f4f4f16s4s"
    fields = struct.unpack("<" + layout, data[:348])
    voxels = np.frombuffer(data[352:], "<i2").astype(">i2").tobytes()
    swapped = struct.pack(">" + layout, *fields) + data[348:352] + voxels
    (tmp_path / "b.nii").write_bytes(swapped)
    (tmp_path / "c.nii.gz").write_bytes(gzip.compress(swapped))
    for name in ("b.nii", "c.nii.gz"):
        np.testing.assert_array_equal(extract_patch(tmp_path / name, SEED, SPEC), expected)
    sitk.WriteImage(scan(), str(tmp_path / "a.mhd"))
    header = (tmp_path / "a.mhd").read_text()
    (tmp_path / "a.mhd").write_text(header.replace("ByteOrderMSB = False", "ByteOrderMSB = True"))
    voxels = np.frombuffer((tmp_path / "a.raw").read_bytes(), "<i2").astype(">i2")
    (tmp_path / "a.raw").write_bytes(voxels.tobytes())
    np.testing.assert_array_equal(extract_patch(tmp_path / "a.mhd", SEED, SPEC), expected)


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz"])
@pytest.mark.parametrize(("slope", "intercept"), [(0.5, -1024.0), (1.0, -1024.0), (2.0, 0.0)])
def test_nifti_rescale_is_applied_as_itk_does(tmp_path, name, slope, intercept):
    stored = scan((body() - intercept) / slope, np.int16)
    sitk.WriteImage(stored, str(tmp_path / "plain.nii"))
    data = bytearray((tmp_path / "plain.nii").read_bytes())
    data[112:120] = struct.pack("<2f", slope, intercept)
    (tmp_path / name).write_bytes(gzip.compress(data) if name.endswith("gz") else data)
    whole = sitk.ReadImage(str(tmp_path / name))
    patch = extract_patch(tmp_path / name, SEED, SPEC)
    np.testing.assert_array_equal(patch, extract_patch(whole, SEED, SPEC))


def test_gzip_of_several_members(tmp_path, expected):
    sitk.WriteImage(scan(), str(tmp_path / "a.nii"))
    data = (tmp_path / "a.nii").read_bytes()
    half = len(data) // 2
    (tmp_path / "b.nii.gz").write_bytes(gzip.compress(data[:half]) + gzip.compress(data[half:]))
    np.testing.assert_array_equal(extract_patch(tmp_path / "b.nii.gz", SEED, SPEC), expected)


def test_dicom_series_in_any_file_order(tmp_path, expected):
    folder = write_dicom(tmp_path / "ct", np.round(sitk.GetArrayFromImage(scan())))
    (folder / "notes.txt").write_text("not an image")
    np.testing.assert_array_equal(extract_patch(folder, SEED, SPEC), expected)


def test_released_dicom_series_is_what_gdcm_reads(reference):
    folder = reference / "dicom" / "ct"
    names = sitk.ImageSeriesReader.GetGDCMSeriesFileNames(str(folder))
    seed = (-30.0, -20.0, -127.5)
    whole = extract_patch(sitk.ReadImage(names), seed, PatchSpec())
    np.testing.assert_array_equal(extract_patch(folder, seed, PatchSpec()), whole)


def test_uncompressed_files_are_not_read_whole(tmp_path):
    """A file of 8 GB (sparse): only the box under the patch may be touched."""
    shape = (1000, 2000, 2000)
    path = tmp_path / "huge.mhd"
    sitk.WriteImage(scan(), str(path))
    text = path.read_text().replace("DimSize = 48 44 40", "DimSize = 2000 2000 1000")
    assert "2000" in text
    path.write_text(text.replace("Offset = -20 11 -300", "Offset = 0 0 0"))
    array = np.memmap(tmp_path / "huge.raw", "<i2", "w+", shape=shape)
    array[500:540, 1000:1044, 1000:1048] = body()
    array.flush()
    seed = (1024 * 0.75, 1022 * 0.75, 520 * 1.5)
    extract_patch(scan(), SEED, SPEC)  # Imports and caches are not what is measured.
    tracemalloc.start()
    patch = extract_patch(path, seed, SPEC)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert 0 < patch.mean() < 1
    assert peak < 20e6


def test_compressed_files_are_unpacked_only_as_far_as_needed(tmp_path, monkeypatch, expected):
    path = tmp_path / "a.nrrd"
    write_raw_nrrd(path, scan(), "gzip")
    data = bytearray(path.read_bytes())
    data[-8] ^= 0xFF  # The checksum, at the very end.
    path.write_bytes(data)
    with pytest.raises(PatchError, match=r"a\.nrrd.*damaged"):
        extract_patch(path, SEED, SPEC)
    monkeypatch.setattr(volume, "VERIFY_REST", 0)
    np.testing.assert_array_equal(extract_patch(path, SEED, SPEC), expected)


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz", "a.mhd", "a.mha", "a.nrrd", "zipped.mhd"])
@pytest.mark.parametrize("keep", [0.97, 0.5, 0.1, 100])
@pytest.mark.parametrize("verify", [volume.VERIFY_REST, 0])
def test_cut_off_files_are_refused_wherever_the_seed_is(tmp_path, monkeypatch, name, keep, verify):
    monkeypatch.setattr(volume, "VERIFY_REST", verify)
    path = tmp_path / name
    sitk.WriteImage(scan(), str(path), useCompression=name in ("a.nii.gz", "a.nrrd", "zipped.mhd"))
    victim = {"a.mhd": "a.raw", "zipped.mhd": "zipped.zraw"}.get(name, name)
    data = (tmp_path / victim).read_bytes()
    (tmp_path / victim).write_bytes(data[: int(keep * len(data)) if keep < 1 else keep])
    with pytest.raises(PatchError, match=name.replace(".", r"\.")):
        extract_patch(path, (SEED[0], SEED[1], -299.0), SPEC)


@pytest.mark.parametrize("name", ["a.nii.gz", "a.nrrd", "a.mhd"])
def test_damaged_compressed_files_are_refused(tmp_path, name):
    path = tmp_path / name
    sitk.WriteImage(scan(), str(path), useCompression=True)
    victim = tmp_path / "a.zraw" if name == "a.mhd" else path
    data = victim.read_bytes()
    rng = np.random.default_rng(0)
    for place in rng.integers(len(data) // 10, len(data) - 1, 12):
        broken = bytearray(data)
        broken[place] ^= 1 << rng.integers(8)
        victim.write_bytes(broken)
        with pytest.raises(PatchError, match=name.replace(".", r"\.")):
            extract_patch(path, SEED, SPEC)


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz", "a.mhd", "a.mha", "a.nrrd"])
@pytest.mark.parametrize("content", [b"", b"<html>404</html>", b"\x00" * 5000, b"\x1f\x8b\x08"])
def test_files_that_are_something_else_are_refused(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(PatchError, match=name.replace(".", r"\.")):
        extract_patch(tmp_path / name, SEED, SPEC)


def test_compression_must_match_the_name(tmp_path):
    sitk.WriteImage(scan(), str(tmp_path / "a.nii"))
    (tmp_path / "b.nii.gz").write_bytes((tmp_path / "a.nii").read_bytes())
    (tmp_path / "c.nii").write_bytes(gzip.compress((tmp_path / "a.nii").read_bytes()))
    with pytest.raises(PatchError, match=r"b\.nii\.gz.*not gzip"):
        extract_patch(tmp_path / "b.nii.gz", SEED, SPEC)
    with pytest.raises(PatchError, match=r"c\.nii.*rename it to \.nii\.gz"):
        extract_patch(tmp_path / "c.nii", SEED, SPEC)


def test_a_twin_beside_a_compressed_file_is_refused(tmp_path):
    sitk.WriteImage(scan(), str(tmp_path / "a.nii.gz"))
    sitk.WriteImage(scan(body(seed=1)), str(tmp_path / "a.nii"))
    with pytest.raises(PatchError, match=r"a\.nii\.gz: a\.nii lies beside it.*remove"):
        extract_patch(tmp_path / "a.nii.gz", SEED, SPEC)


def test_missing_files_and_unknown_formats(tmp_path):
    with pytest.raises(PatchError, match=r"gone\.nii: there is no such file"):
        extract_patch(tmp_path / "gone.nii", SEED, SPEC)
    (tmp_path / "a.dcm").write_bytes(b"x")
    with pytest.raises(PatchError, match=r"a\.dcm: not a known image format.*folder"):
        extract_patch(tmp_path / "a.dcm", SEED, SPEC)
    for other in (None, 3, b"a.nii", body()):
        with pytest.raises(PatchError, match="a path or a SimpleITK image"):
            extract_patch(other, SEED, SPEC)


def test_metaimage_whose_voxels_are_missing_or_elsewhere(tmp_path):
    sitk.WriteImage(scan(), str(tmp_path / "a.mhd"))
    text = (tmp_path / "a.mhd").read_text()
    for data, message in [("b.raw", "missing"), ("../a.raw", "outside"), ("/a.raw", "outside")]:
        (tmp_path / "a.mhd").write_text(text.replace("= a.raw", f"= {data}"))
        with pytest.raises(PatchError, match=rf"a\.mhd.*{data}.*{message}|a\.mhd.*{message}"):
            extract_patch(tmp_path / "a.mhd", SEED, SPEC)
    for data in ("LIST", "a%03d.raw 1 40 1"):
        (tmp_path / "a.mhd").write_text(text.replace("= a.raw", f"= {data}"))
        with pytest.raises(PatchError, match=r"a\.mhd.*spread over several files"):
            extract_patch(tmp_path / "a.mhd", SEED, SPEC)
    (tmp_path / "a.mhd").write_text(text.replace("DimSize = 48 44 40", "DimSize = 48 44 30"))
    with pytest.raises(PatchError, match="do not belong together"):
        extract_patch(tmp_path / "a.mhd", SEED, SPEC)


def test_nifti_without_orientation_is_refused(tmp_path):
    sitk.WriteImage(scan(), str(tmp_path / "a.nii"))
    data = bytearray((tmp_path / "a.nii").read_bytes())
    data[252:256] = b"\0" * 4
    (tmp_path / "a.nii").write_bytes(data)
    with pytest.raises(PatchError, match=r"a\.nii.*orientation"):
        extract_patch(tmp_path / "a.nii", SEED, SPEC)
    data[:4] = struct.pack("<i", 540)
    (tmp_path / "a.nii").write_bytes(data)
    with pytest.raises(PatchError, match=r"a\.nii.*NIfTI-2"):
        extract_patch(tmp_path / "a.nii", SEED, SPEC)


def test_analyze_files_are_refused(tmp_path):
    sitk.WriteImage(scan(), str(tmp_path / "a.nii"))
    data = bytearray((tmp_path / "a.nii").read_bytes())
    data[344:348] = b"\0" * 4
    (tmp_path / "a.nii").write_bytes(data)
    with pytest.raises(PatchError, match=r"a\.nii: an Analyze file.*which side is left"):
        extract_patch(tmp_path / "a.nii", SEED, SPEC)


def test_maps_of_labels_are_refused():
    labels = sitk.LabelImageToLabelMap(scan() > 0)
    with pytest.raises(PatchError, match="map of labels"):
        extract_patch(labels, SEED, SPEC)


def test_sheared_nifti_is_refused(tmp_path):
    sitk.WriteImage(scan(), str(tmp_path / "a.nii"))
    data = bytearray((tmp_path / "a.nii").read_bytes())
    data[252:256] = struct.pack("<2h", 0, 1)  # The sform alone: its first row gets a second entry.
    data[284:288] = struct.pack("<f", 0.3)
    (tmp_path / "a.nii").write_bytes(data)
    with pytest.raises(PatchError, match=r"a\.nii.*right angles"):
        extract_patch(tmp_path / "a.nii", SEED, SPEC)


@pytest.mark.parametrize("suffix", ["nii", "nii.gz", "mhd", "nrrd", None])
def test_four_dimensions_and_colour_are_refused(tmp_path, suffix):
    series = sitk.JoinSeries([scan(), scan()])
    colour = sitk.GetImageFromArray(np.zeros((30, 30, 30, 3), np.uint8), isVector=True)
    for image, message in [(series, "4 dimensions"), (colour, "several values")]:
        if suffix:
            path = tmp_path / f"a.{suffix}"
            sitk.WriteImage(image, str(path))
            image = path
        with pytest.raises(PatchError, match=message):
            extract_patch(image, SEED, SPEC)
    with pytest.raises(PatchError, match="2 dimensions"):
        extract_patch(scan()[:, :, 3], SEED, SPEC)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda hu: (hu + 1024) / 3072, "already rescaled"),
        (lambda hu: hu / 1000, "already rescaled"),
        (lambda hu: (hu - hu.mean()) / hu.std(), "z-scores"),
        (lambda hu: (hu > 0) * 1.0, "mask"),
        (lambda hu: hu * 0, "blank"),
        (lambda hu: hu + 1024, r"HU \+ 1024.*subtract 1024"),
        (lambda hu: hu - 1024, "HU - 1024.*add 1024"),
        (lambda hu: np.interp(hu, [-1000, 60], [0, 255]).round(), "grey levels"),
        (lambda hu: hu * 1000, "beyond what a CT can hold"),
    ],
)
@pytest.mark.parametrize("name", [None, "a.nii", "a.nii.gz", "a.nrrd"])
def test_values_that_are_not_hu_are_refused(tmp_path, name, change, message):
    image = scan(change(body()), np.float32)
    if name:
        sitk.WriteImage(image, str(tmp_path / name), useCompression=True)
        message = rf"{name}.*{message}"
    with pytest.raises(PatchError, match=message):
        extract_patch(tmp_path / name if name else image, SEED, SPEC)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int8])
def test_types_that_cannot_hold_air_are_refused(dtype):
    with pytest.raises(PatchError, match="cannot hold -1000"):
        extract_patch(scan(np.clip(body(), 0, 120), dtype), SEED, SPEC)


def test_nan_under_the_patch_is_refused_and_elsewhere_ignored():
    values = body()
    values[0, 0, 0] = np.nan
    assert np.isfinite(extract_patch(scan(values, np.float32), SEED, SPEC)).all()
    values[17, 20, 22] = np.inf
    with pytest.raises(PatchError, match="NaN or infinite"):
        extract_patch(scan(values, np.float32), SEED, SPEC)


def test_real_scans_pass_and_shifted_ones_do_not(reference):
    for path in sorted((reference / "ct").glob("*.nii.gz")):
        values = sitk.GetArrayFromImage(sitk.ReadImage(str(path)))[::5, ::5].ravel().astype(float)
        assert not_hu(values) is None
        assert "HU + 1024" in not_hu(values + 1024)
        assert "HU - 1024" in not_hu(values - 1024)
        assert "rescaled" in not_hu((values + 1024) / 3072)


def test_tissue_without_air_passes():
    """A box inside an organ: no lung, no fat, perhaps bone or contrast medium."""
    rng = np.random.default_rng(0)
    for mean, sd in [(40, 15), (120, 20), (200, 25), (400, 200)]:
        assert not_hu(rng.normal(mean, sd, 20000)) is None
    skull = np.concatenate([rng.normal(30, 8, 20000), rng.normal(1000, 350, 5000)])
    assert not_hu(skull) is None


def test_dicom_folders_that_are_no_complete_even_stack(tmp_path):
    values = np.round(body((16, 44, 48)))
    seed = (SEED[0], SEED[1], -290.0)

    def refused(name, message):
        with pytest.raises(PatchError, match=rf"{name}.*{message}"):
            extract_patch(tmp_path / name, seed, SPEC)

    write_dicom(tmp_path / "gap", values)
    (tmp_path / "gap" / "893.dcm").unlink()
    refused("gap", r"1 slice\(s\) of 1.5 mm are missing.*between 894.dcm and 892.dcm")
    write_dicom(tmp_path / "sparse", values)
    for number in range(885, 900, 2):
        (tmp_path / "sparse" / f"{number}.dcm").unlink()
    refused("sparse", "slices are missing")
    folder = write_dicom(tmp_path / "twice", values)
    (folder / "copy.dcm").write_bytes((folder / "890.dcm").read_bytes())
    refused("twice", "same place.*remove")
    folder = write_dicom(tmp_path / "uneven", values)
    edit_dicom(folder / "895.dcm", ImagePositionPatient=[-20, 11, -292.0])
    refused("uneven", "unevenly spaced")
    folder = write_dicom(tmp_path / "tilted", values)
    for k in range(16):
        place = [-20, 11 + 0.3 * k, -300 + 1.5 * k]
        edit_dicom(folder / f"{900 - k}.dcm", ImagePositionPatient=place)
    refused("tilted", "gantry tilt")
    folder = write_dicom(tmp_path / "mixed", values)
    edit_dicom(folder / "895.dcm", PixelSpacing=[0.7, 0.7])
    refused("mixed", "differ in PixelSpacing")
    folder = write_dicom(tmp_path / "two", values)
    edit_dicom(folder / "895.dcm", SeriesInstanceUID="1.2.3")
    refused("two", "2 CT series")
    write_dicom(tmp_path / "one", values[:1])
    refused("one", "single slice")
    write_dicom(tmp_path / "mr", values, Modality="MR")
    refused("mr", "no CT series.*MR")
    (tmp_path / "empty").mkdir()
    refused("empty", "no CT series")
    write_dicom(tmp_path / "raw", np.clip(values, 0, None), intercept=0)
    refused("raw", "not HU")
    folder = write_dicom(tmp_path / "short", values)
    data = (folder / "893.dcm").read_bytes()
    (folder / "893.dcm").write_bytes(data[:-500])
    refused("short", "893.dcm|cannot be read")
    (folder / "893.dcm").write_bytes(b"<html>")
    refused("short", "893.dcm: not a DICOM file")
    folder = write_dicom(tmp_path / "hollow", values)
    edit_dicom(folder / "893.dcm", PixelData=b"\0" * 200)
    refused("hollow", "893.dcm.*cut off.*pixels need")
    write_dicom(tmp_path / "flat", values, RescaleSlope=0)
    refused("flat", "rescale slope is 0")
    folder = write_dicom(tmp_path / "placeless", values)
    edit_dicom(folder / "893.dcm", ImagePositionPatient=None)
    refused("placeless", "893.dcm.*lacks ImagePositionPatient")


def test_positions_rounded_to_a_tenth_are_even(tmp_path):
    folder = write_dicom(tmp_path / "ct", np.round(body((20, 44, 48))), step=0.625, start=-290)
    for path in folder.iterdir():
        place = pydicom.dcmread(path).ImagePositionPatient
        edit_dicom(path, ImagePositionPatient=[place[0], place[1], round(float(place[2]), 1)])
    assert extract_patch(folder, (SEED[0], SEED[1], -285.0), SPEC).max() > 0


def test_one_bad_seed_or_file_leaves_no_partial_result(tmp_path):
    sitk.WriteImage(scan(), str(tmp_path / "a.nii"))
    with pytest.raises(PatchError, match="seed 1"):
        extract_patches(tmp_path / "a.nii", [SEED, (0, np.nan, 0)], [SPEC])
