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

#: Bytes of the integers of MetaImage and NRRD, and numpy's codes of the others.
_INTEGERS = {"char": 1, "int8": 1, "short": 2, "int16": 2, "int": 4, "int32": 4, "long": 4}
_INTEGERS |= {"longlong": 8, "int64": 8}
_FLOATS = {"float": "f4", "double": "f8"}

_NRRD_SPACES = ("left-posterior-superior", "right-anterior-superior", "left-anterior-superior")
_NRRD_SPACES += ("lps", "ras", "las")

#: How many numbers the fields of MetaImage and NRRD hold; sizes and spacings lie above 0.
_SIZES = ("dimsize", "sizes", "elementspacing", "elementsize")
_PLACES = ("offset", "position", "origin", "spaceorigin")
_TURNS = ("transformmatrix", "rotation", "orientation", "spacedirections")
_HOLDS = dict.fromkeys((*_SIZES, *_PLACES), 3) | dict.fromkeys(_TURNS, 9)
_NUMBER = re.compile(r"[-+]?[\d.]+([eE][-+]?\d+)?")


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
    reader.ReadImageInformation()  # refuses axes that are not at right angles
    affine = affine_of(reader, reader.GetNumberOfComponents())
    require(layout.shape == reader.GetSize(), "its header gives two sizes")
    corners = np.array([*np.ndindex(2, 2, 2)]) * (np.array(layout.shape) - 1.0)
    for other in layout.affines:
        apart = np.abs((affine - other) @ np.column_stack([corners, np.ones(8)]).T).max()
        forms = f"qform, sform and spacing contradict each other by {apart:.3g} mm"
        require(apart <= _AGREE_MM, f"{forms}; find out which is right, remove the other")
    have = layout.path.stat().st_size - layout.start - layout.skip
    need = f"{layout.bytes} bytes are described, {have} there; fetch it again"
    whole = layout.packed or have == layout.bytes
    require(whole, f"{layout.path.name} is cut off, or they do not belong together: {need}")
    return FileVolume(str(path), affine, layout)


def _nifti(path: Path) -> Layout:
    from nibabel.nifti1 import Nifti1Header

    packed = "gzip" if path.name.lower().endswith(".gz") else ""
    with open(path, "rb") as file:
        block = (unpacked(file, packed) if packed else file).read(348)
    orders = {int.from_bytes(block[:4], "little"): "<", int.from_bytes(block[:4], "big"): ">"}
    hint = "convert NIfTI-2, which ITK does not read; if it is gzip, rename it to .nii.gz"
    require(len(block) == 348 and 348 in orders, f"not a NIfTI-1 file; {hint}")
    header = Nifti1Header(block, endianness=orders[348], check=False)
    require(header["magic"] == b"n+1", "an Analyze file: nothing says which side is left")
    header["pixdim"][0] = -1 if header["pixdim"][0] < 0 else 1
    forms = header.get_qform(coded=True)[0], header.get_sform(coded=True)[0]
    affines = [np.diag([-1.0, -1, 1, 1]) @ form for form in forms if form is not None]
    require(affines, "qform and sform are not set, so the orientation is unknown; convert it again")
    rescale = header.get_slope_inter()  # (None, None) where they are not set
    rescale = None if rescale in ((None, None), (1, 0)) else rescale
    shape, dtype = tuple(header["dim"][1:4].tolist()), header.get_data_dtype()
    return Layout(path, shape, dtype, 0, int(header["vox_offset"]), packed, rescale, affines)


def _meta(path: Path) -> Layout:
    fields, end = _text_fields(path, "=")
    placed = {*_PLACES, *_TURNS} & set(fields)
    require(placed, "nothing says where it lies; convert the originals again")
    yes = {name for name, value in fields.items() if value.lower() in ("true", "t", "1")}
    require("binarydata" in yes or "binarydata" not in fields, "text is not read; convert it")
    big = bool(yes & {"binarydatabyteordermsb", "elementbyteordermsb"})
    packed = "zlib" if "compresseddata" in yes else ""
    names = ("ndims", "dimsize", "elementtype", "elementdatafile")
    skip = int(fields.get("headersize", 0))
    return _text_layout(path, end, [fields.get(name, "") for name in names], big, packed, skip)


def _nrrd(path: Path) -> Layout:
    fields, end = _text_fields(path, ":")
    space, encoding, endian = (fields.get(s, "").lower() for s in ("space", "encoding", "endian"))
    placed = space in _NRRD_SPACES and {"spacedirections", "spaceorigin"} <= set(fields)
    require(placed, f"nothing says which side is left, or where it lies (space: {space or 'none'})")
    plain = encoding in ("raw", "gzip", "gz") and fields.get("lineskip", "0") == "0"
    require(plain, f"voxels as {encoding!r} are not read; write them as raw or gzip")
    big = {"big": True, "little": False}.get(endian)
    packed, skip = "" if encoding == "raw" else "gzip", int(fields.get("byteskip", 0))
    values = [fields.get(name, "") for name in ("dimension", "sizes", "type")]
    return _text_layout(path, end, [*values, fields.get("datafile", "LOCAL")], big, packed, skip)


def _code(kind: str) -> str:
    """Return numpy's code of an integer type such as "unsigned short int", "uint16_t", "ushort"."""
    base = re.sub(r"^(unsigned |signed |u)|( int|_t)$|[ _]", "", kind)
    n, sign = _INTEGERS.get(base), "u" if kind.startswith("u") else "i"
    return f"{sign}{n}" if n else _FLOATS.get(kind, "")


def _text_layout(path: Path, end: int, values: list[str], big, packed: str, skip: int) -> Layout:
    """Return where the voxels lie: after the header, or in a file beside or below it."""
    dimension, sizes, kind, data = values
    require(dimension == "3", f"its header declares {dimension or 'no'} dimensions, a scan has 3")
    inside = not Path(data).is_absolute() and ".." not in Path(data).parts
    require(inside, f"its voxels lie in {data!r}, outside its own folder; keep the files together")
    voxels, start = (path, end) if data.lower() == "local" else (path.parent / data, 0)
    require(
        voxels.is_file(),
        f"the file with its voxels, {data!r}, is missing beside it, or spread over several",
    )
    code = _code(kind.lower().removeprefix("met_"))
    require(code, f"voxels of type {kind!r} are not read; convert the scan")
    require(big is not None or code[1] == "1", "the byte order of the voxels is missing")
    dtype, shape = np.dtype((">" if big else "<") + code), tuple(map(int, sizes.split()))
    layout = Layout(voxels, shape, dtype, start, max(skip, 0), packed)
    if packed == "zlib":  # MetaImage counts packed bytes, NRRD unpacked ones
        layout.start, layout.skip = start + layout.skip, 0
    elif skip == -1 and not packed:  # the voxels are what stands at the end
        layout.start = voxels.stat().st_size - layout.bytes
    return layout


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
            if n := _HOLDS.get(key):
                words = re.findall(r"[^\s(),]+", value)  # a decimal comma makes them too many
                right = len(words) == n and all(map(_NUMBER.fullmatch, words))
                require(right, f"{key} must hold {n} finite numbers (3 dimensions): {value!r:.60}")
                positive = key not in _SIZES or min(map(float, words)) > 0
                require(positive, f"{key} must lie above 0, not {value!r:.80}")
            if key and not free:
                fields[key] = value
            if not line.strip() or key == "elementdatafile":
                return fields, file.tell()
    require(False, f"its header has more than {_MOST_LINES} lines")
