"""A scan of which only parts are read: in memory, from a file, or unpacked as it streams."""

import contextlib
import io
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import SimpleITK as sitk
from isal import igzip, isal_zlib

from tumorbench_utils.checks import InputError
from tumorbench_utils.patches.spec import PatchError, require

#: Rows that are looked at throughout a scan to tell whether it is in HU.
SAMPLED_ROWS = 64

#: A compressed file is read to its end, and its checksum compared, if no more than this (bytes,
#: unpacked) is left behind the part that is needed; about 0.05 s.
VERIFY_REST = 32 << 20

#: More bytes of voxels than this are never held at once: a small file can declare terabytes.
MOST_BYTES = 4 << 30

_CHUNK = 1 << 18

Box = tuple[tuple[int, int], ...]


class Volume:
    """A 3-D scan or mask: where it lies in space.

    Its kinds differ in ``read(boxes)``, which returns the voxels of each box, slowest file axis
    first: shape (k, j, i).

    Parameters
    ----------
    name : str
        The file or folder, for messages.
    affine : ndarray, shape (4, 4)
        File index (i, j, k) to LPS mm.
    shape : sequence of 3 ints
        Voxels along i, j, k.
    dtype : numpy dtype
        Of the voxels after rescaling.

    Attributes
    ----------
    rows : list of ndarray
        Rows from all over the part of the scan that was passed in reading.
    """

    def __init__(self, name: str, affine: np.ndarray, shape, dtype=np.float32):
        self.name, self.affine, self.dtype = name, affine, np.dtype(dtype)
        self.shape = tuple(int(n) for n in shape)
        self.rows: list[np.ndarray] = []
        lengths = np.linalg.norm(affine[:3, :3], axis=0)
        require(min(self.shape) > 0, f"{name}: the image holds no voxels (size {self.shape})")
        usable = np.isfinite(affine).all() and lengths.min() > 0
        usable = usable and abs(np.linalg.det(affine[:3, :3] / lengths)) > 1e-6
        require(usable, f"{name}: no usable geometry, {affine.tolist()}; convert it again")

    def whole(self) -> np.ndarray:
        """Return all voxels, shape (k, j, i)."""
        size = int(np.prod(self.shape)) * self.dtype.itemsize
        require(size <= MOST_BYTES, f"{self.name}: {size} bytes of voxels; no mask is that large")
        return self.read([tuple((0, n) for n in self.shape)])[0]

    def sampled_rows(self) -> tuple[np.ndarray, np.ndarray]:
        """Return k and j of rows spread evenly through the scan."""
        n = np.arange(SAMPLED_ROWS)
        k = ((n + 0.5) / SAMPLED_ROWS * self.shape[2]).astype(int)
        # Steps of the golden ratio never fall into the rhythm of anything in the body.
        j = ((n * 0.6180339887498949) % 1 * self.shape[1]).astype(int)
        return k, j


class ImageVolume(Volume):
    """A scan in memory: a SimpleITK image."""

    def __init__(self, name: str, image: sitk.Image):
        affine = affine_of(image, image.GetNumberOfComponentsPerPixel())
        self._image = image  # Owns the memory that the array looks at.
        self._array = sitk.GetArrayViewFromImage(image)
        super().__init__(name, affine, image.GetSize(), self._array.dtype)

    def read(self, boxes: list[Box]) -> list[np.ndarray]:
        """Copy each box out of the image."""
        self.rows = [_hu(self._array[self.sampled_rows()])]
        return [_hu(self._array[tuple(slice(a, b) for a, b in reversed(box))]) for box in boxes]


@dataclass
class Layout:
    """Where the voxels of a file lie.

    Attributes
    ----------
    path : Path
        The file that holds them.
    shape : tuple of 3 ints
        Voxels along i, j, k.
    dtype : numpy dtype
        As they are stored.
    start : int
        Byte at which they, or the compressed stream, begin.
    skip : int
        Unpacked bytes before the first voxel.
    packed : {"", "gzip", "zlib"}
        A zlib stream does not note its length, so it is always read to its end.
    rescale : tuple of 2 floats, optional
        Slope and intercept.
    affines : list of ndarray, shape (4, 4)
        Where the header says, in every way it does, that the image lies: index to LPS mm.
    """

    path: Path
    shape: tuple[int, ...]
    dtype: np.dtype
    start: int = 0
    skip: int = 0
    packed: str = ""
    rescale: tuple[float, float] | None = None
    affines: Sequence[np.ndarray] = ()

    @property
    def bytes(self) -> int:
        """Bytes of the voxels, unpacked."""
        return int(np.prod(self.shape)) * self.dtype.itemsize


class FileVolume(Volume):
    """A scan in a file: its rows are read by position, or unpacked slice by slice.

    Seeking and reading is faster here than a memory map, whose pages would have to be set up
    anew for every patch, and a file that shrinks meanwhile gives an error, not a crash.
    """

    def __init__(self, name: str, affine: np.ndarray, layout: Layout):
        dtype = np.float32 if layout.rescale else layout.dtype
        super().__init__(name, affine, layout.shape, dtype)
        self._layout = layout

    def read(self, boxes: list[Box]) -> list[np.ndarray]:
        """Read the rows that the boxes touch, or unpack the file up to the last of them.

        Raises
        ------
        PatchError
            If the file is cut off anywhere, or damaged where it was unpacked. A packed file of
            which less than :data:`VERIFY_REST` is left behind the last box is checked to its end.
        """
        layout = self._layout
        results = [np.empty([b - a for a, b in reversed(box)], layout.dtype) for box in boxes]
        read = self._unpack if layout.packed else self._seek
        with readable(self.name), open(layout.path, "rb", buffering=0) as file:
            read(file, boxes, results)
        return [_hu(result, layout.rescale) for result in results]

    def _seek(self, file, boxes, results) -> None:
        layout, (ni, nj, _) = self._layout, self.shape
        begin = layout.start + layout.skip

        def rows(k, j0, j1):
            lines = np.empty((j1 - j0, ni), layout.dtype)
            file.seek(begin + (k * nj + j0) * ni * layout.dtype.itemsize)
            _fill(file, memoryview(lines).cast("B"))
            return lines

        places = np.transpose(self.sampled_rows()).tolist()
        self.rows = [_hu(rows(k, j, j + 1), layout.rescale) for k, j in places]
        for ((i0, i1), (j0, j1), (k0, k1)), result in zip(boxes, results, strict=True):
            for k in range(k0, k1 if result.size else k0):
                result[k - k0] = rows(k, j0, j1)[:, i0:i1]

    def _unpack(self, file, boxes, results) -> None:
        layout, (ni, nj, nk) = self._layout, self.shape
        last = max((box[2][1] for box in boxes), default=0)
        sampled_k, sampled_j = self.sampled_rows()
        plane = np.empty((nj, ni), layout.dtype)
        file.seek(-4, os.SEEK_END)  # where gzip says how long the file should be
        length = int.from_bytes(file.read(4), "little")
        file.seek(layout.start)
        stream = unpacked(file, layout.packed)
        _drain(stream, layout.skip)
        for k in range(last):
            _fill(stream, memoryview(plane).cast("B"))
            self.rows.append(_hu(plane[sampled_j[sampled_k == k]], layout.rescale))
            for ((i0, i1), (j0, j1), (k0, k1)), result in zip(boxes, results, strict=True):
                if k0 <= k < k1:
                    result[k - k0] = plane[j0:j1, i0:i1]
        rest = (nk - last) * plane.nbytes
        right = layout.packed == "gzip" and length == (layout.skip + layout.bytes) % (1 << 32)
        if rest <= VERIFY_REST or not right:
            _drain(stream, rest)
            require(not stream.read(1), "the file holds more than its header describes")


def affine_of(header, values: int) -> np.ndarray:
    """Return the map from index to LPS mm of a SimpleITK image, or of a reader of one."""
    dims = header.GetDimension()
    kind = f"{dims} dimensions and {values} values a voxel, not 3 and 1"
    require((dims, values) == (3, 1), f"the image has {kind}: a series in time, or in colour?")
    spacing, affine = np.array(header.GetSpacing()), np.eye(4)
    require(spacing.min() > 0, f"the spacing {spacing.tolist()} is not above 0")
    affine[:3, :3] = np.reshape(header.GetDirection(), (3, 3)) @ np.diag(spacing)
    affine[:3, 3] = header.GetOrigin()
    return affine


@contextlib.contextmanager
def readable(path, kind: type[InputError] = PatchError) -> Iterator[None]:
    """Turn what reading a bad file may raise into an error of one kind that names it."""
    name = str(path).encode("utf-8", "backslashreplace").decode()
    try:
        # SimpleITK ends the process on such a name.
        require(name == str(path), "the name is no valid UTF-8; rename the file")
        yield
    except Exception as error:  # Bad bytes make SimpleITK, GDCM and pydicom raise many kinds.
        reason = (str(error).strip() or type(error).__name__).splitlines()[-1].strip()[:300]
        if not isinstance(error, InputError):
            reason = f"cannot be read, it is damaged or not what its name says ({reason}); fetch it"
        elif name in str(error):
            raise kind(str(error)) from error
        raise kind(f"{name}: {reason}") from error


class _ZlibStream(io.RawIOBase):
    """Unpack a zlib stream into the caller's buffer."""

    def __init__(self, file):
        self._file, self._inflate, self._ready = file, isal_zlib.decompressobj(), memoryview(b"")

    def readinto(self, buffer) -> int:
        while not self._ready and not self._inflate.eof:
            packed = self._inflate.unconsumed_tail or self._file.read(_CHUNK)
            if not packed:
                raise EOFError("the stream ends early")
            self._ready = memoryview(self._inflate.decompress(packed, 4 * _CHUNK))
        n = min(len(buffer), len(self._ready))
        buffer[:n], self._ready = self._ready[:n], self._ready[n:]
        return n


def unpacked(file, packed: str):
    """Return a stream with ``readinto`` that unpacks `file` from where it stands."""
    return igzip.IGzipFile(fileobj=file, mode="rb") if packed == "gzip" else _ZlibStream(file)


def _fill(stream, buffer: memoryview) -> None:
    while len(buffer):
        n = stream.readinto(buffer)
        require(n, "the file ends before the image does; it is cut off, fetch it again")
        buffer = buffer[n:]


def _drain(stream, n: int) -> None:
    """Read `n` bytes and forget them; at the end of a stream its checksum is compared."""
    buffer = memoryview(bytearray(min(n, _CHUNK)))
    for start in range(0, n, _CHUNK):
        _fill(stream, buffer[: n - start])


def _hu(values: np.ndarray, rescale: tuple[float, float] | None = None) -> np.ndarray:
    """Return the values after rescaling, floating-point ones in float32 (as MONAI loads them)."""
    if rescale is not None:
        return (values.astype(np.float64) * rescale[0] + rescale[1]).astype(np.float32)
    return values.astype(np.float32) if values.dtype.kind == "f" else np.array(values)
