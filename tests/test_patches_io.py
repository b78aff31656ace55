"""Reading only the region under a patch, in every format, and refusing every bad file."""

import gzip
import os
import shutil
import struct
import tracemalloc

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from nibabel.nifti1 import Nifti1Header
from pydicom.uid import (
    CTImageStorage,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    generate_uid,
)

from tumorbench_utils.patches import (
    PatchError,
    PatchSpec,
    extract_patch,
    sources,
    volume,
)
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


def test_voxels_apart_from_their_header(tmp_path, expected):
    """In a file of their own, and as what stands at the end of one."""
    write_raw_nrrd(tmp_path / "skip.nrrd", scan(), **{"byte skip": -1})
    data = (tmp_path / "skip.nrrd").read_bytes()
    voxels = sitk.GetArrayFromImage(scan()).tobytes()
    (tmp_path / "a b.raw").write_bytes(voxels)
    header = data[: -len(voxels) - 1].decode().replace("byte skip: -1\n", "data file: a b.raw\n")
    (tmp_path / "apart.nhdr").write_text(header)
    sitk.WriteImage(scan(), str(tmp_path / "a.mhd"))
    text = (tmp_path / "a.mhd").read_text()
    (tmp_path / "a.mhd").write_text(text.replace("ElementType", "HeaderSize = -1\nElementType"))
    (tmp_path / "a.raw").write_bytes(b"any length of bytes" + (tmp_path / "a.raw").read_bytes())
    for name in ("skip.nrrd", "apart.nhdr", "a.mhd"):
        np.testing.assert_array_equal(extract_patch(tmp_path / name, SEED, SPEC), expected)
    found = {name: [file.name for file in sources(tmp_path / name)] for name in FILES}
    assert found == FILES
    folder = write_dicom(tmp_path / "ct", np.round(sitk.GetArrayFromImage(scan()))[:3])
    assert [file.name for file in sources(folder)] == ["898.dcm", "899.dcm", "900.dcm"]
    with pytest.raises(PatchError, match="no such file"):
        sources(tmp_path / "gone.nii.gz")


FILES = {
    "skip.nrrd": ["skip.nrrd"],
    "apart.nhdr": ["a b.raw", "apart.nhdr"],
    "a.mhd": ["a.mhd", "a.raw"],
}


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


def text(old, new, at="a.mhd"):
    """A change of a header of text."""

    def change(folder):
        data = (folder / at).read_bytes()
        assert old.encode() in data
        (folder / at).write_bytes(data.replace(old.encode(), new.encode()))

    return change


def nifti(**fields):
    """A change of fields of a NIfTI header."""

    def change(folder):
        data = (folder / "a.nii").read_bytes()
        header = Nifti1Header(data[:348], endianness="<", check=False)
        for name, value in fields.items():
            header[name] = value
        (folder / "a.nii").write_bytes(header.binaryblock + data[348:])

    return change


MIRRORED = {"srow_x": (0.75, 0, 0, -15.25), "sform_code": 2}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (text("Size = 48 44 40", "Size = 48 44 30"), "do not belong together"),
        (text("Size = 48 44 40", "Size = 48 44"), "dimsize must hold 3"),
        (text("Size = 48 44 40", "Size = 48 44 -40"), "dimsize must lie above 0"),
        (text("Offset = -20 11 -300", "Offset = -20,5 11,5 -300,5"), "offset must hold 3"),
        (text("Offset = -20 11 -300", "Offset = -20 inf -300"), "offset must hold 3 finite"),
        (text("Offset = -20 11 -300", "Offset = -20"), "offset must hold 3"),
        (text("Spacing = 0.75", "Spacing = -0.75"), "elementspacing must lie above 0"),
        (text("NDims = 3", "NDims = 20"), "20 dimensions"),
        (text("NDims = 3", "NDims = -1"), "-1 dimensions"),
        (text("NDims = 3", "NDims = 3\nComment = " + 1200 * "x"), "line has 1211 bytes"),
        (text("NDims = 3\n", "NDims = 3\n" + 10_000 * "A = 1\n"), "more than 10000 lines"),
        (text("TransformMatrix", "A", "lost.mhd"), "where it lies"),
        (text("MET_SHORT", "MET_OTHER"), "type 'MET_OTHER'"),
        (text("BinaryData = True", "BinaryData = False"), "text is not read"),
        (text("= a.raw", "= b.raw"), "'b.raw', is missing"),
        (text("= a.raw", "= ../a.raw"), "outside its own folder"),
        (text("= a.raw", "= /dev/stdin"), "outside its own folder"),
        (text("= a.raw", "= LIST"), "is missing beside it, or spread"),
        (text("= a.raw", "= a%03d.raw 1 40 1"), "is missing beside it, or spread"),
        (text("space: left-posterior-superior", "x:=y", "a.nrrd"), "which side is left"),
        (text("space: left-posterior-superior", "space dimension: 3", "a.nrrd"), "which side is"),
        (text("left-posterior-superior", "scanner-xyz", "a.nrrd"), "which side is left"),
        (text("space origin:", "x:=", "a.nrrd"), "where it lies"),
        (text("(-20,11,-300)", "(-20,11,nan)", "a.nrrd"), "spaceorigin must hold 3 finite"),
        (text("type: short", "type: short" + 1000 * " ", "a.nrrd"), "a line has"),
        (text("space origin", "y" * 1100 + "\nspace origin", "a.nrrd"), "a line has 1101 bytes"),
        (text("endian: little", "data file: -", "a.nrrd"), "byte order|missing"),
        (text("endian: little", "endian: little\ndata file: -", "a.nrrd"), "'-', is missing"),
        (text("endian: little", "endian: little\ndata file: ../a.raw", "a.nrrd"), "outside"),
        (text("encoding: raw", "encoding: hex", "a.nrrd"), "'hex' are not read"),
        (nifti(qform_code=0, sform_code=0), "orientation is unknown"),
        (nifti(magic=b""), "Analyze.*which side is left"),
        (nifti(sizeof_hdr=540), "NIfTI-2"),
        (nifti(qform_code=0, sform_code=1, srow_x=(-0.75, 0.3, 0, 20)), "orthonormal"),
        (nifti(**MIRRORED), "contradict each other by 35.2 mm"),
        (nifti(srow_y=(0, -0.75, 0, 9), sform_code=4), "contradict each other by 20 mm"),
        (nifti(qoffset_x=np.inf), "contradict each other by nan"),
        (nifti(qform_code=0, sform_code=1, pixdim=(1, 1, 1, 1, 0, 0, 0, 0)), "contradict"),
        *((nifti(vox_offset=n), "belong together|NaN") for n in (0, 351, np.nan)),
        (nifti(vox_offset=1e10), "is cut off"),
        (nifti(vox_offset=368), "is cut off"),
        (nifti(dim=(4, 48, 44, 20, 2, 1, 1, 1)), "4 dimensions"),
        (nifti(datatype=128, bitpix=24), "3 values a voxel"),
    ],
)
def test_headers_that_lie_are_refused(tmp_path, change, message):
    """Before ITK sees them: some of these end its process, others it takes without a word."""
    for name in ("a.mhd", "a.nii"):
        sitk.WriteImage(scan(), str(tmp_path / name))
    write_raw_nrrd(tmp_path / "a.nrrd", scan())
    lines = (tmp_path / "a.mhd").read_text().splitlines(keepends=True)
    kept = [line for line in lines if "Offset" not in line and "Orientation" not in line]
    (tmp_path / "lost.mhd").write_text("".join(kept))
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    change(tmp_path)
    (path,) = (path for path, data in before.items() if path.read_bytes() != data)
    with pytest.raises(PatchError, match=rf"{path.name}.*{message}"):
        extract_patch(path, SEED, SPEC)


def test_of_two_forms_that_agree_either_is_taken(tmp_path, expected):
    sitk.WriteImage(scan(), str(tmp_path / "a.nii"))
    for codes in ({"qform_code": 0}, {"sform_code": 0}, {}):
        nifti(qform_code=1, sform_code=1)(tmp_path)
        nifti(**codes)(tmp_path)
        np.testing.assert_array_equal(extract_patch(tmp_path / "a.nii", SEED, SPEC), expected)


def test_files_that_are_not_what_their_name_says(tmp_path):
    sitk.WriteImage(scan(), str(tmp_path / "c.nii"))
    packed = gzip.compress((tmp_path / "c.nii").read_bytes())
    (tmp_path / "b.nii.gz").write_bytes((tmp_path / "c.nii").read_bytes())
    (tmp_path / "c.nii").write_bytes(packed)
    (tmp_path / "a.dcm").write_bytes(b"x")
    os.mkfifo(tmp_path / "pipe.nii")
    latin = os.fsdecode(os.fsencode(str(tmp_path)) + b"/Gr\xf6\xdfe.nii")
    (tmp_path / "c.nii").rename(latin)
    (tmp_path / "c.nii").write_bytes(packed)
    for name, message in [
        ("b.nii.gz", "Not a gzipped file"),
        ("c.nii", r"rename it to \.nii\.gz"),
        ("gone.nii", "there is no such file"),
        ("a.dcm", "not a known image format.*folder"),
        ("pipe.nii", "no such file"),
        ("x" * 5000, "cannot be read"),
        (latin, r"Gr\\udcf6.*no valid UTF-8"),
    ]:
        with pytest.raises(PatchError, match=message):
            extract_patch(tmp_path / name, SEED, SPEC)
    labels = sitk.LabelImageToLabelMap(scan() > 0)
    for other, message in [(3, "PathLike"), (b"a.nii", "PathLike"), (labels, "map of labels")]:
        with pytest.raises(PatchError, match=message):
            extract_patch(other, SEED, SPEC)


@pytest.mark.parametrize("suffix", ["nii", "nii.gz", "mhd", "nrrd", None])
def test_four_dimensions_and_colour_are_refused(tmp_path, suffix):
    series = sitk.JoinSeries([scan(), scan()])
    colour = sitk.GetImageFromArray(np.zeros((30, 30, 30, 3), np.uint8), isVector=True)
    for image in (series, colour, scan()[:, :, 3]):
        if suffix:
            path = tmp_path / f"a.{suffix}"
            sitk.WriteImage(image, str(path))
            image = path
        with pytest.raises(PatchError, match=r"dimensions|values a voxel|several values|3 numbers"):
            extract_patch(image, SEED, SPEC)


def test_a_bomb_takes_no_memory(tmp_path):
    """Small files that declare, or unpack to, far more than they should."""
    sitk.WriteImage(scan(), str(tmp_path / "a.nii"))
    nifti(vox_offset=float(1 << 30))(tmp_path)
    header = (tmp_path / "a.nii").read_bytes()[:352]
    (tmp_path / "b.nii.gz").write_bytes(gzip.compress(header + bytes(100 << 20), 1))
    extract_patch(scan(), SEED, SPEC)  # Imports and caches are not what is measured.
    tracemalloc.start()
    with pytest.raises(PatchError, match="cut off"):
        extract_patch(tmp_path / "b.nii.gz", SEED, SPEC)
    assert tracemalloc.get_traced_memory()[1] < 20e6
    tracemalloc.stop()


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


def each(**fields):
    """A change of every slice."""
    return lambda folder: [edit_dicom(path, **fields) for path in folder.iterdir()]


def one(**fields):
    """A change of one slice."""
    return lambda folder: edit_dicom(folder / "893.dcm", **fields)


def tilt(folder):
    for k in range(16):
        place = [-20, 11 + 0.3 * k, -300 + 1.5 * k]
        edit_dicom(folder / f"{900 - k}.dcm", ImagePositionPatient=place)


def deflate(folder, extra=0):
    """Turn one slice into a deflated file, with bytes of padding."""
    data = pydicom.dcmread(folder / "893.dcm")
    data.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    if extra:
        data.add_new(0xFFFCFFFC, "OB", bytes(extra))
    data.save_as(folder / "893.dcm", enforce_file_format=True)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda f: (f / "893.dcm").unlink(), "mostly 1.5 mm, but 3 mm between 894.dcm and 892.dcm"),
        (lambda f: [(f / f"{n}.dcm").unlink() for n in range(885, 900, 2)], "slices are missing"),
        (lambda f: shutil.copy(f / "890.dcm", f / "copy.dcm"), "890.dcm.*copy.dcm.*doubled"),
        (one(ImagePositionPatient=[-20, 11, -290.0]), "unevenly spaced"),
        (tilt, "gantry tilt"),
        (one(PixelSpacing=[0.7, 0.7]), "differ in PixelSpacing"),
        (one(SeriesInstanceUID="1.2.3"), "holds 2"),
        (lambda f: [(f / f"{n}.dcm").unlink() for n in range(885, 900)], "single slice"),
        (each(Modality="MR"), "no CT series, MR"),
        (lambda f: shutil.rmtree(f) or f.mkdir(), "no CT series"),
        (each(RescaleIntercept=0), "893.dcm|not HU|no rescale"),
        (lambda f: os.truncate(f / "893.dcm", 3000), "893.dcm"),
        (lambda f: (f / "893.dcm").write_bytes(b"<html>"), "893.dcm: not a DICOM file"),
        (one(PixelData=b"\0" * 200), "893.dcm.*cut off.*pixels need"),
        (one(RescaleSlope=0), "893.dcm.*slope is 0"),
        (one(RescaleSlope="1e-7"), "893.dcm.*slope is 1e-07"),
        (one(ImagePositionPatient=None), "893.dcm.*lacks ImagePositionPatient"),
        (one(Columns=None), "893.dcm.*lacks Columns"),
        (one(BitsStored=8), "893.dcm.*8 of 16 bits"),
        (one(BitsAllocated=8), "893.dcm.*BitsAllocated is 8"),
        (one(PhotometricInterpretation="MONOCHROME1"), "893.dcm.*MONOCHROME1"),
        (one(NumberOfFrames=2), "893.dcm.*NumberOfFrames is 2"),
        (one(SamplesPerPixel=3), "893.dcm.*SamplesPerPixel is 3"),
        (each(ImageOrientationPatient=[1, 0, 0, 0, 1.1, 0]), "two unit vectors"),
        (each(PixelSpacing=[0, 0.75]), "PixelSpacing"),
        (one(Modality=["CT", "CT"]), "unevenly spaced"),
        (lambda f: deflate(f, 300 << 20), "893.dcm.*bomb"),
    ],
)
def test_dicom_folders_that_are_no_complete_even_stack(tmp_path, change, message):
    folder = write_dicom(tmp_path / "ct", np.round(body((16, 44, 48))))
    change(folder)
    with pytest.raises(PatchError, match=message):
        extract_patch(folder, (SEED[0], SEED[1], -290.0), SPEC)


def test_dicom_without_preamble_deflated_and_with_padding(tmp_path, expected):
    values = np.round(sitk.GetArrayFromImage(scan()))
    folder = write_dicom(tmp_path / "ct", values)
    deflate(folder)
    for number in (894, 895):  # No preamble, no suffix: all that is left is the data set.
        path = folder / f"{number}.dcm"
        path.with_suffix("").write_bytes(path.read_bytes()[132:])
        path.unlink()
    np.testing.assert_array_equal(extract_patch(folder, SEED, SPEC), expected)
    padded = values.astype(int)
    padded[:, :, :24] = 62512  # what -2000 reads as if it is stored unsigned, 1024 taken off
    for n, (kind, value) in enumerate([("US", 63536), ("SS", -2000), ("OW", b"\x30\xf8")]):
        folder = write_dicom(tmp_path / f"{n}", padded)
        for path in folder.iterdir():
            data = pydicom.dcmread(path)
            data.add_new(0x00280120, kind, value)
            data.save_as(path)
        patch = extract_patch(folder, SEED, PatchSpec("RAS", size=(24, 24, 24)))
        assert (patch[-5:] == 0).all() and patch.max() < 0.5


def test_positions_rounded_to_a_tenth_are_even(tmp_path):
    folder = write_dicom(tmp_path / "ct", np.round(body((20, 44, 48))), step=0.625, start=-290)
    for path in folder.iterdir():
        place = pydicom.dcmread(path).ImagePositionPatient
        edit_dicom(path, ImagePositionPatient=[place[0], place[1], round(float(place[2]), 1)])
    assert extract_patch(folder, (SEED[0], SEED[1], -285.0), SPEC).max() > 0
