"""Opening NIfTI, MetaImage and NRRD files without reading them whole.

ITK reads the headers, so that where a scan lies in space is what ITK says. Only the plain
layouts are read by offset here; everything else these formats allow is read whole by ITK.
"""

import struct
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from tumorbench_utils.patches.spec import PatchError
from tumorbench_utils.patches.volume import (
    ImageVolume,
    RawVolume,
    StreamVolume,
    Volume,
    check_header,
    unpacked,
)

#: A longer line is no part of a text header.
_LONGEST_LINE = 1 << 16

SUFFIXES = (".nii", ".nii.gz", ".mhd", ".mha", ".nrrd")

_NIFTI_TYPES = {
    2: "u1", 4: "i2", 8: "i4", 16: "f4", 64: "f8", 256: "i1", 512: "u2", 768: "u4", 1024: "i8",
    1280: "u8",
}  # fmt: skip
_META_TYPES = {
    "MET_CHAR": "i1", "MET_UCHAR": "u1", "MET_SHORT": "i2", "MET_USHORT": "u2", "MET_INT": "i4",
    "MET_UINT": "u4", "MET_FLOAT": "f4", "MET_DOUBLE": "f8",
}  # fmt: skip
_NRRD_TYPES = {
    "signed char": "i1", "int8": "i1", "int8_t": "i1", "uchar": "u1", "unsigned char": "u1",
    "uint8": "u1", "uint8_t": "u1", "short": "i2", "short int": "i2", "signed short": "i2",
    "int16": "i2", "int16_t": "i2", "ushort": "u2", "unsigned short": "u2", "uint16": "u2",
    "uint16_t": "u2", "int": "i4", "signed int": "i4", "int32": "i4", "int32_t": "i4",
    "uint": "u4", "unsigned int": "u4", "uint32": "u4", "uint32_t": "u4", "float": "f4",
    "double": "f8",
}  # fmt: skip


def open_file(path: Path) -> Volume:
    """Open one image file by its suffix.

    Raises
    ------
    PatchError
        If the suffix is not one of :data:`SUFFIXES` or the file is not what it says.
    """
    name = path.name.lower()
    if name.endswith((".nii", ".nii.gz")):
        return _open_nifti(path)
    if name.endswith((".mhd", ".mha")):
        return _open_meta(path)
    if name.endswith(".nrrd"):
        return _open_nrrd(path)
    raise PatchError(
        f"{path}: not a known image format; known are {', '.join(SUFFIXES)} and a folder with one "
        "DICOM series (give the folder, not one of its files)"
    )


def _header(path: Path, reader_name: str):
    reader = sitk.ImageFileReader()
    reader.SetImageIO(reader_name)
    reader.SetFileName(str(path))
    try:
        reader.ReadImageInformation()
    except RuntimeError as error:
        if "orthonormal" not in str(error):
            raise
        raise PatchError(
            f"{path}: the axes of the image are not at right angles (a sheared affine); resample "
            "it to a straight grid first"
        ) from error
    check_header(str(path), reader, reader.GetNumberOfComponents())
    return reader


def _read_whole(path: Path, reader_name: str) -> ImageVolume:
    return ImageVolume(str(path), sitk.ReadImage(str(path), imageIO=reader_name))


def _raw(path: Path, voxels: Path, header, stored: np.dtype, start: int, rescale=None):
    """Return an uncompressed volume whose file is long enough."""
    need = start + int(np.prod(header.GetSize())) * stored.itemsize
    have = voxels.stat().st_size
    if have < need:
        raise PatchError(
            f"{path}: the file is cut off: it holds {have} bytes, the image needs {need}; fetch "
            "or copy it again"
        )
    return RawVolume(str(path), header, stored, path=voxels, start=start, rescale=rescale)


def _open_nifti(path: Path) -> Volume:
    packed = path.name.lower().endswith(".gz")
    with open(path, "rb") as file:
        is_gzip = file.read(2) == b"\x1f\x8b"
        if packed != is_gzip:
            raise PatchError(
                f"{path}: the file is {'not ' if packed else ''}gzip-compressed, against its "
                f"name; {'check what it is' if packed else 'rename it to .nii.gz'}"
            )
        file.seek(0)
        start = (unpacked(file, "gzip") if packed else file).read(352)
    twin = path.with_name(path.name[:-3])
    if packed and twin.exists():
        raise PatchError(
            f"{path}: {twin.name} lies beside it, and some readers take the voxels from there; "
            "remove or move one of the two"
        )
    if len(start) < 352:
        raise PatchError(f"{path}: too short for a NIfTI file; fetch or convert it again")
    sizes = {order: struct.unpack(order + "i", start[:4])[0] for order in "<>"}
    if 540 in sizes.values():
        raise PatchError(f"{path}: a NIfTI-2 file, which ITK does not read; convert it to NIfTI-1")
    order = next((order for order, size in sizes.items() if size == 348), None)
    if order is None:
        raise PatchError(f"{path}: not a NIfTI file; check what it is and fetch it again")
    if start[344:348] not in (b"n+1\0", b"ni1\0"):
        raise PatchError(
            f"{path}: an Analyze file, not NIfTI: its header does not say which side is left; "
            "convert it again from the original images"
        )
    header = _header(path, "NiftiImageIO")
    if start[344:348] != b"n+1\0":
        return _read_whole(path, "NiftiImageIO")
    dims = struct.unpack(order + "8h", start[40:56])
    code, _ = struct.unpack(order + "2h", start[70:74])
    offset, slope, intercept = struct.unpack(order + "3f", start[108:120])
    qform, sform = struct.unpack(order + "2h", start[252:256])
    if qform == 0 and sform == 0:
        raise PatchError(
            f"{path}: the header says nothing about orientation (qform and sform codes are 0); "
            "convert it again from the original images"
        )
    if code not in _NIFTI_TYPES or dims[1:4] != header.GetSize() or offset < 348:
        return _read_whole(path, "NiftiImageIO")
    stored = np.dtype(order + _NIFTI_TYPES[code])
    rescale = None
    if slope != 0 and np.isfinite([slope, intercept]).all() and (slope, intercept) != (1, 0):
        rescale = (slope, intercept)
    if packed:
        return StreamVolume(
            str(path), header, stored, path=path, start=0, skip=int(offset), wrapper="gzip",
            rescale=rescale,
        )  # fmt: skip
    return _raw(path, path, header, stored, int(offset), rescale)


def _open_meta(path: Path) -> Volume:
    fields, end = _meta_fields(path)
    if not {"ndims", "dimsize", "elementdatafile"} <= set(fields):
        raise PatchError(f"{path}: not a MetaImage header; check what it is and fetch it again")
    header = _header(path, "MetaImageIO")
    data = fields.get("elementdatafile", "")
    big = "true" in (fields.get("binarydatabyteordermsb"), fields.get("elementbyteordermsb"))
    kind = _META_TYPES.get(fields.get("elementtype", "").upper())
    plain = fields.get("binarydata", "true") == "true" and fields.get("headersize", "0") == "0"
    if data.lower().startswith("list") or "%" in data:
        # ITK leaves memory as it was where one of the files is missing.
        raise PatchError(
            f"{path}: its voxels are spread over several files; put them into one, for example by "
            "converting the scan to .nii.gz"
        )
    if kind is None or not plain:
        return _read_whole(path, "MetaImageIO")
    voxels, start = (path, end) if data.lower() == "local" else (_beside(path, data), 0)
    stored = np.dtype((">" if big else "<") + kind)
    have = voxels.stat().st_size - start
    packed = fields.get("compresseddata", "false") == "true"
    need = int(np.prod(header.GetSize())) * stored.itemsize
    if packed:
        need = int(fields.get("compresseddatasize", have))
    if have > need:
        raise PatchError(
            f"{path}: the header describes {need} bytes of voxels, {voxels.name} holds {have}; the "
            "two do not belong together"
        )
    if have < need:
        raise PatchError(
            f"{path}: {voxels.name} is cut off: it holds {have} bytes of voxels, the header "
            f"describes {need}; fetch or copy it again"
        )
    if packed:
        return StreamVolume(
            str(path), header, stored, path=voxels, start=start, skip=0, wrapper="zlib"
        )
    return _raw(path, voxels, header, stored, start)


def _beside(path: Path, data: str) -> Path:
    """Return the file with the voxels, which must lie beside the header or below it."""
    name = Path(data)
    if name.is_absolute() or ".." in name.parts:
        raise PatchError(
            f"{path}: its voxels are said to lie in {data!r}, outside its own folder; keep the two "
            "files together"
        )
    if not (path.parent / name).is_file():
        raise PatchError(
            f"{path}: the file with its voxels, {data!r}, is missing; put it beside the header"
        )
    return path.parent / name


def _meta_fields(path: Path) -> tuple[dict[str, str], int]:
    """Return the header of a MetaImage, in lower case but for file names, and where it ends."""
    fields = {}
    with open(path, "rb") as file:
        while line := file.readline(_LONGEST_LINE):
            key, _, value = line.decode("utf-8", "replace").partition("=")
            key, value = key.strip().lower(), value.strip()
            fields[key] = value if key == "elementdatafile" else value.lower()
            if key == "elementdatafile":
                break
        return fields, file.tell()


def _open_nrrd(path: Path) -> Volume:
    fields, start = _nrrd_fields(path)
    header = _header(path, "NrrdImageIO")
    kind = _NRRD_TYPES.get(fields.get("type", ""))
    encoding = fields.get("encoding", "")
    plain = not {"data file", "datafile", "line skip", "lineskip", "byte skip", "byteskip"} & set(
        fields
    )
    size = tuple(int(n) for n in fields.get("sizes", "").split() if n.isdigit())
    known = encoding in ("raw", "gzip", "gz") and "endian" in fields
    if kind is None or not plain or not known or size != header.GetSize():
        return _read_whole(path, "NrrdImageIO")
    stored = np.dtype((">" if fields["endian"] == "big" else "<") + kind)
    if encoding == "raw":
        return _raw(path, path, header, stored, start)
    return StreamVolume(str(path), header, stored, path=path, start=start, skip=0, wrapper="gzip")


def _nrrd_fields(path: Path) -> tuple[dict[str, str], int]:
    """Return the header of a NRRD file and the byte after it."""
    fields = {}
    with open(path, "rb") as file:
        if file.read(4) != b"NRRD":
            raise PatchError(f"{path}: not a NRRD file; check what it is and fetch it again")
        while line := file.readline(_LONGEST_LINE):
            text = line.decode("utf-8", "replace").strip()
            if not text:
                return fields, file.tell()
            key, colon, value = text.partition(":")
            if colon and not text.startswith("#") and not value.startswith("="):
                fields[key.strip().lower()] = value.strip().lower()
    raise PatchError(f"{path}: the header has no end; the file is cut off, fetch it again")
