"""Opening NIfTI, MetaImage and NRRD files without reading them whole.

A header comes from strangers, and ITK believes it: a long line or a wrong number of dimensions ends
the process, a decimal comma becomes a zero, a path may lead anywhere. So it is read and held
against bounds here first. ITK then says where the scan lies in space; it never reads the voxels.
"""

import re
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from tumorbench_utils.patches.spec import require
from tumorbench_utils.patches.volume import FileVolume, Layout, affine_of, unpacked

#: Longest field of a text header, and most lines: longer ones overrun a buffer in ITK.
_LONGEST_FIELD, _MOST_LINES = 1000, 10_000

#: The ways in which a header places an image agree to this at the corners. Quaternions in single
#: precision turn a large scan by up to half a millimetre.
_AGREE_MM = 0.5

#: Names of pixel types in MetaImage (without MET_) and NRRD.
_TYPES = {
    "i1": "char, signed char, int8, int8_t", "u1": "uchar, unsigned char, uint8, uint8_t",
    "i2": "short, short int, signed short, signed short int, int16, int16_t",
    "u2": "ushort, unsigned short, unsigned short int, uint16, uint16_t", "f4": "float",
    "i4": "int, signed int, int32, int32_t, long", "u4": "uint, unsigned int, uint32, uint32_t",
    "i8": "long long, long long int, signed long long, longlong, int64, int64_t, long_long",
    "u8": "unsigned long long, unsigned long long int, ulonglong, uint64, uint64_t, ulong_long",
    "f8": "double",
}  # fmt: skip
_KINDS = {name: code for code, names in _TYPES.items() for name in names.split(", ")}

_NRRD_SPACES = ("left-posterior-superior", "right-anterior-superior", "left-anterior-superior")
_NRRD_SPACES += ("lps", "ras", "las")

#: How many numbers the fields of MetaImage and NRRD hold; those of the first line lie above 0.
_SIZES = {"dimsize": 3, "sizes": 3, "elementspacing": 3, "elementsize": 3}
_PLACES = {"offset": 3, "position": 3, "origin": 3, "transformmatrix": 9, "rotation": 9}
_PLACES |= {"orientation": 9, "spaceorigin": 3, "spacedirections": 9}


def open_file(path: Path) -> FileVolume:
    """Open one image file by its suffix, one of :data:`SUFFIXES`."""
    suffix = next((s for s in SUFFIXES if path.name.lower().endswith(s)), None)
    known = f"{', '.join(SUFFIXES)} and a folder with one DICOM series (not one of its files)"
    require(suffix, f"not a known image format; known are {known}")
    layout_of, reader_name = _READERS[suffix]
    layout = layout_of(path)
    reader = sitk.ImageFileReader()
    reader.SetImageIO(reader_name)
    reader.SetFileName(str(path))
    try:
        reader.ReadImageInformation()
    except RuntimeError as error:
        straight = "orthonormal" not in str(error)
        require(straight, "the axes of the image are not at right angles; resample it first")
        raise
    affine = affine_of(reader, reader.GetNumberOfComponents())
    require(layout.shape == reader.GetSize(), "its header gives two sizes")
    corners = np.array([*np.ndindex(2, 2, 2)]) * (np.array(layout.shape) - 1.0)
    for other in layout.affines:
        apart = np.abs((affine - other) @ np.column_stack([corners, np.ones(8)]).T).max()
        contradiction = f"qform, sform and spacing contradict each other by {apart:.3g} mm"
        require(apart <= _AGREE_MM, f"{contradiction}; find out which is right, remove the other")
    if not layout.packed:
        have = layout.path.stat().st_size - layout.start
        need = f"{layout.bytes} bytes are described, {have} there"
        require(have >= layout.bytes, f"{layout.path.name} is cut off: {need}; fetch it again")
        require(have == layout.bytes, f"it and {layout.path.name} do not belong together: {need}")
    return FileVolume(str(path), affine, layout)


def _nifti(path: Path) -> Layout:
    from nibabel.nifti1 import Nifti1Header

    packed = "gzip" if path.name.lower().endswith(".gz") else ""
    twin = path.with_name(path.name[:-3])
    clash = (
        f"{twin.name} lies beside it, and ITK takes the voxels from there; remove one of the two"
    )
    require(not (packed and twin.exists()), clash)
    with open(path, "rb") as file:
        hint = "not gzip: check what it is" if packed else "gzip: rename it to .nii.gz"
        require((file.read(2) == b"\x1f\x8b") == bool(packed), f"against its name, it is {hint}")
        file.seek(0)
        block = (unpacked(file, packed) if packed else file).read(348)
    orders = {int.from_bytes(block[:4], "little"): "<", int.from_bytes(block[:4], "big"): ">"}
    require(540 not in orders, "a NIfTI-2 file, which ITK does not read; convert it to NIfTI-1")
    require(len(block) == 348 and 348 in orders, "not a NIfTI file; check it, fetch it again")
    header = Nifti1Header(block, endianness=orders[348], check=False)
    require(header["magic"] == b"n+1", "an Analyze file: nothing says which side is left")
    header["pixdim"][0] = -1 if header["pixdim"][0] < 0 else 1
    forms = header.get_qform(coded=True)[0], header.get_sform(coded=True)[0]
    affines = [np.diag([-1.0, -1, 1, 1]) @ form for form in forms if form is not None]
    require(affines, "qform and sform are not set, so the orientation is unknown; convert it again")
    start, dtype = float(header["vox_offset"]), header.get_data_dtype()
    require(start >= 352 and start % 1 == 0, f"voxels cannot begin at byte {start:g}")
    require(dtype.kind in "iuf" and dtype.itemsize <= 8, "each voxel holds several values")
    rescale = float(header["scl_slope"]), float(header["scl_inter"])
    if rescale[0] == 0 or not np.isfinite(rescale).all() or rescale == (1, 0):
        rescale = None
    shape, begin = tuple(header["dim"][1:4].tolist()), [int(start), 0]
    return Layout(path, shape, dtype, *(begin[::-1] if packed else begin), packed, rescale, affines)


def _meta(path: Path) -> Layout:
    fields, end = _text_fields(path, "=")
    known = {"ndims", "dimsize", "elementdatafile"} <= set(fields)
    require(known, "not a MetaImage header; check what it is and fetch it again")
    require(fields["ndims"] == "3", f"it has {fields['ndims']} dimensions, a scan has 3")
    require(set(_PLACES) & set(fields), "nothing says where it lies; convert the originals again")
    yes = {name for name, value in fields.items() if value.lower() in ("true", "t", "1")}
    require("binarydata" in {*yes, *({"binarydata"} - set(fields))}, "text is not read; convert it")
    packed = "zlib" if "compresseddata" in yes else ""
    big = yes & {"binarydatabyteordermsb", "elementbyteordermsb"}
    kind = fields.get("elementtype", "").lower().removeprefix("met_")
    skip = int(fields.get("headersize", 0))
    layout = _text_layout(
        path, end, fields["elementdatafile"], "dimsize", fields, kind, big, packed
    )
    have = layout.path.stat().st_size
    layout.start = have - layout.bytes if skip == -1 and not packed else layout.start + max(skip, 0)
    have -= layout.start
    whole = not packed or int(fields.get("compresseddatasize", have)) == have
    require(whole, f"{layout.path.name} is cut off or no part of this header; fetch it again")
    return layout


def _nrrd(path: Path) -> Layout:
    fields, end = _text_fields(path, ":")
    require(next(iter(fields), "")[:4] == "nrrd", "not a NRRD file; check it and fetch it again")
    names = ("dimension", "space", "encoding", "type", "endian")
    dimension, space, encoding, kind, endian = (fields.get(name, "").lower() for name in names)
    require(dimension == "3", f"it has {dimension} dimensions, a scan has 3")
    placed = space in _NRRD_SPACES and {"spacedirections", "spaceorigin"} <= set(fields)
    require(placed, f"nothing says which side is left, or where it lies (space: {space or 'none'})")
    plain = encoding in ("raw", "gzip", "gz") and fields.get("lineskip", "0") == "0"
    require(plain, f"voxels as {encoding!r} are not read; write them as raw or gzip")
    require(endian or _KINDS.get(kind, "1")[1] == "1", "the byte order of the voxels is missing")
    packed, skip = "gzip" if encoding[0] == "g" else "", int(fields.get("byteskip", 0))
    data = fields.get("datafile", "LOCAL")
    layout = _text_layout(path, end, data, "sizes", fields, kind, endian == "big", packed)
    if packed:
        layout.skip = skip
    else:  # -1: the voxels are what stands at the end
        layout.start = (
            layout.path.stat().st_size - layout.bytes if skip < 0 else layout.start + skip
        )
    return layout


def _text_layout(path, end, data, sizes, fields, kind, big, packed) -> Layout:
    """Return where the voxels lie: after the header, or in a file beside or below it."""
    local = data.lower() == "local"
    voxels = path if local else path.parent / data
    spread = data.lower().startswith("list") or "%" in data
    require(not spread, "its voxels are spread over several files; convert the scan to .nii.gz")
    inside = not Path(data).is_absolute() and ".." not in Path(data).parts
    require(inside, f"its voxels lie in {data!r}, outside its own folder; keep the files together")
    require(voxels.is_file(), f"the file with its voxels, {data!r}, is missing beside it")
    require(kind in _KINDS, f"voxels of type {kind!r} are not read; convert the scan")
    shape = tuple(map(int, fields.get(sizes, "").split()))
    require(len(shape) == 3, f"the header lacks {sizes}")
    dtype = np.dtype((">" if big else "<") + _KINDS[kind])
    return Layout(voxels, shape, dtype, end if local else 0, 0, packed)


_META, _NRRD = (_meta, "MetaImageIO"), (_nrrd, "NrrdImageIO")
_READERS = {".mhd": _META, ".mha": _META, ".nrrd": _NRRD, ".nhdr": _NRRD}
_READERS |= dict.fromkeys((".nii", ".nii.gz"), (_nifti, "NiftiImageIO"))

SUFFIXES = tuple(_READERS)


def voxel_file(path: Path) -> Path:
    """Return the file that holds the voxels of a scan: itself, or the one its header names."""
    layout_of, _ = _READERS.get(path.suffix.lower(), (None, ""))
    return layout_of(path).path if layout_of in (_meta, _nrrd) else path


def _text_fields(path: Path, separator: str) -> tuple[dict[str, str], int]:
    """Return the fields of a text header by name, without blanks, and the byte after it."""
    fields = {}
    with open(path, "rb") as file:
        for _ in range(_MOST_LINES):
            line = file.readline(1 << 16)
            key, _, value = line.decode("utf-8", "replace").strip().partition(separator)
            key, value = key.lower().replace(" ", ""), value.strip()
            # Comments and free text of NRRD (key:=value) may be long: DICOM fields are kept there.
            free = key.startswith("#") or (separator == ":" and value.startswith("="))
            require(free or len(line) <= _LONGEST_FIELD, f"a line has {len(line)} bytes: no header")
            if n := {**_SIZES, **_PLACES}.get(key):
                words = re.findall(r"[^\s(),]+", value)  # a decimal comma makes them too many
                plain = [re.fullmatch(r"[-+]?[\d.]+([eE][-+]?\d+)?", word) for word in words]
                right = len(words) == n and all(plain)
                require(right, f"{key} must hold {n} finite numbers (3 dimensions): {value!r:.60}")
                positive = key not in _SIZES or min(map(float, words)) > 0
                require(positive, f"{key} must lie above 0, not {value!r:.80}")
            if key and not free:
                fields[key] = value
            if not line.strip() or key == "elementdatafile":
                return fields, file.tell()
    require(False, f"its header has more than {_MOST_LINES} lines")
