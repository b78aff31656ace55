"""A scan of which only parts are read: in memory, from a file, or unpacked as it streams."""

import contextlib
import io
import os
import struct
from collections.abc import Iterator

import numpy as np
import SimpleITK as sitk
from isal import igzip, isal_zlib

from tumorbench_utils.patches.spec import PatchError

#: Rows that are looked at throughout a scan to tell whether it is in HU.
SAMPLED_ROWS = 64

#: A compressed file is read to its end, and its checksum compared, if no more than this (bytes,
#: unpacked) is left behind the part that is needed; about 0.05 s.
VERIFY_REST = 32 << 20

_CHUNK = 1 << 18

Box = tuple[tuple[int, int], ...]


class Volume:
    """A 3-D scan: where it lies in space and how to read boxes of it.

    Parameters
    ----------
    name : str
        The file or folder, for messages.
    header : object with SimpleITK's ``GetSize``, ``GetSpacing``, ``GetOrigin``, ``GetDirection``
    dtype : numpy dtype
        Of the voxels after rescaling.

    Attributes
    ----------
    affine : ndarray, shape (4, 4)
        File index (i, j, k) to LPS mm.
    shape : tuple of 3 ints
        Voxels along i, j, k.
    rows : list of ndarray
        Rows from all over the part of the scan that was passed in reading.
    """

    def __init__(self, name: str, header, dtype):
        self.name = name
        self.dtype = np.dtype(dtype)
        self.shape = tuple(int(n) for n in header.GetSize())
        spacing, direction = np.array(header.GetSpacing()), np.array(header.GetDirection())
        self.affine = np.eye(4)
        self.affine[:3, :3] = direction.reshape(3, 3) @ np.diag(spacing)
        self.affine[:3, 3] = header.GetOrigin()
        if min(self.shape) < 1:
            raise PatchError(f"{name}: the image holds no voxels (size {self.shape})")
        if not np.isfinite(self.affine).all() or spacing.min() <= 0:
            raise PatchError(
                f"{name}: the header holds no usable geometry (spacing {spacing.tolist()}, origin "
                f"{self.affine[:3, 3].tolist()}); convert the original images again"
            )
        if np.linalg.matrix_rank(direction.reshape(3, 3)) < 3:
            raise PatchError(f"{name}: two axes of the image run in the same direction")
        self.rows: list[np.ndarray] = []

    def read(self, boxes: list[Box]) -> list[np.ndarray]:
        """Return the voxels of each box, slowest file axis first: shape (k, j, i)."""
        raise NotImplementedError

    def sampled_rows(self) -> list[tuple[int, int]]:
        """Return (k, j) of rows spread evenly through the scan."""
        n = np.arange(SAMPLED_ROWS)
        k = ((n + 0.5) / SAMPLED_ROWS * self.shape[2]).astype(int)
        j = ((n * 0.6180339887498949) % 1 * self.shape[1]).astype(int)
        return list(zip(k.tolist(), j.tolist(), strict=True))


class ImageVolume(Volume):
    """A scan in memory: a SimpleITK image."""

    def __init__(self, name: str, image: sitk.Image):
        self._image = image  # Owns the memory that the array looks at.
        self._array = sitk.GetArrayViewFromImage(image)
        super().__init__(name, image, self._array.dtype)

    def read(self, boxes: list[Box]) -> list[np.ndarray]:
        """Copy each box out of the image."""
        self.rows = [_hu(self._array[k, j]) for k, j in self.sampled_rows()]
        return [_hu(self._array[tuple(slice(a, b) for a, b in reversed(box))]) for box in boxes]


class RawVolume(Volume):
    """A scan in an uncompressed file, of which only the rows of a box are read.

    Seeking and reading is faster here than a memory map, whose pages would have to be set up
    anew for every patch, and a file that shrinks meanwhile gives an error, not a crash.

    Parameters
    ----------
    name, header
        As for :class:`Volume`.
    stored : numpy dtype
        Of the voxels in the file.
    path : Path
    start : int
        Byte of the first voxel.
    rescale : tuple of 2 floats, optional
        Slope and intercept.
    """

    def __init__(self, name, header, stored, *, path, start, rescale=None):
        super().__init__(name, header, np.float32 if rescale else stored)
        self._stored = np.dtype(stored)
        self._path, self._start, self._rescale = path, start, rescale

    def read(self, boxes: list[Box]) -> list[np.ndarray]:
        """Read the rows that the boxes touch."""
        ni, nj, _ = self.shape
        results = []
        with readable(self.name), open(self._path, "rb", buffering=0) as file:

            def rows(k, j0, j1):
                part = np.empty((j1 - j0, ni), self._stored)
                file.seek(self._start + (k * nj + j0) * ni * self._stored.itemsize)
                _fill(file, memoryview(part).cast("B"), self.name)
                return part

            self.rows = [_hu(rows(k, j, j + 1), self._rescale) for k, j in self.sampled_rows()]
            for (i0, i1), (j0, j1), (k0, k1) in boxes:
                box = np.empty((k1 - k0, j1 - j0, i1 - i0), self._stored)
                for k in range(k0, k1 if box.size else k0):
                    box[k - k0] = rows(k, j0, j1)[:, i0:i1]
                results.append(_hu(box, self._rescale))
        return results


class StreamVolume(Volume):
    """A scan in a compressed file, unpacked slice by slice up to the last one that is needed.

    Parameters
    ----------
    name, header
        As for :class:`Volume`.
    stored : numpy dtype
        Of the voxels in the file.
    path : Path
    start : int
        Byte of the file at which the compressed stream begins.
    skip : int
        Unpacked bytes before the first voxel.
    wrapper : {"gzip", "zlib"}
        A zlib stream does not note its length, so it is always read to its end.
    rescale : tuple of 2 floats, optional
        Slope and intercept.
    """

    def __init__(self, name, header, stored, *, path, start, skip, wrapper, rescale=None):
        super().__init__(name, header, np.float32 if rescale else stored)
        self._stored = np.dtype(stored)
        self._path, self._start, self._skip = path, start, skip
        self._wrapper, self._rescale = wrapper, rescale

    def read(self, boxes: list[Box]) -> list[np.ndarray]:
        """Unpack the file up to the last slice that a box needs, and copy the boxes out of it.

        Raises
        ------
        PatchError
            If the file is cut off anywhere, or damaged where it was unpacked. A file of which
            less than :data:`VERIFY_REST` is left behind the last box is checked to its end.
        """
        ni, nj, nk = self.shape
        results = [np.empty([b - a for a, b in reversed(box)], self._stored) for box in boxes]
        last = max((box[2][1] for box in boxes), default=0)
        wanted: dict[int, list[int]] = {}
        for k, j in self.sampled_rows():
            wanted.setdefault(k, []).append(j)
        plane = np.empty((nj, ni), self._stored)
        with readable(self.name), open(self._path, "rb") as file:
            file.seek(self._start)
            stream = unpacked(file, self._wrapper)
            _fill(stream, memoryview(bytearray(self._skip)), self.name)
            for k in range(last):
                _fill(stream, memoryview(plane).cast("B"), self.name)
                self.rows += [_hu(plane[j].copy(), self._rescale) for j in wanted.get(k, ())]
                for box, result in zip(boxes, results, strict=True):
                    (i0, i1), (j0, j1), (k0, k1) = box
                    if k0 <= k < k1:
                        result[k - k0] = plane[j0:j1, i0:i1]
            rest = (nk - last) * plane.nbytes
            if rest <= VERIFY_REST or not self._ends_right():
                _drain(stream, rest, self.name)
        return [_hu(result, self._rescale) for result in results]

    def _ends_right(self) -> bool:
        """Say whether the last four bytes of a gzip file give the length that it should have."""
        if self._wrapper != "gzip":
            return False
        with open(self._path, "rb") as file:
            file.seek(-4, os.SEEK_END)
            (length,) = struct.unpack("<I", file.read(4))
        expected = self._skip + int(np.prod(self.shape)) * self._stored.itemsize
        return length == expected % (1 << 32)


def check_header(name: str, header, components: int) -> None:
    """Refuse what is not one 3-D image of single values."""
    if header.GetDimension() != 3:
        raise PatchError(
            f"{name}: the image has {header.GetDimension()} dimensions, a scan has 3; take one "
            "volume out of a series in time, or put the slices of a scan together"
        )
    pixel = header.GetPixelIDValue() if hasattr(header, "GetPixelIDValue") else 0
    if components != 1 or pixel in (sitk.sitkComplexFloat32, sitk.sitkComplexFloat64):
        raise PatchError(
            f"{name}: each voxel holds several values (colour, vectors or complex numbers); a CT "
            "holds one, in HU"
        )


@contextlib.contextmanager
def readable(name: str) -> Iterator[None]:
    """Turn what reading a bad file may raise into a PatchError that names it."""
    try:
        yield
    except PatchError:
        raise
    except (EOFError, isal_zlib.error, igzip.BadGzipFile) as error:
        raise PatchError(
            f"{name}: the compressed data are cut off or damaged ({error}); fetch or convert the "
            "file again"
        ) from error
    except (OSError, ValueError, OverflowError, MemoryError, struct.error) as error:
        raise PatchError(f"{name}: cannot be read ({error}); fetch or convert it again") from error
    except RuntimeError as error:  # SimpleITK and GDCM
        raise PatchError(
            f"{name}: cannot be read: it is damaged or not what its name says; fetch or convert "
            f"it again ({str(error).strip().splitlines()[-1].strip()})"
        ) from error


class _ZlibStream(io.RawIOBase):
    """Unpack a zlib stream into the caller's buffer."""

    def __init__(self, file):
        self._file = file
        self._inflate = isal_zlib.decompressobj()
        self._ready = memoryview(b"")

    def readinto(self, buffer) -> int:
        while not self._ready and not self._inflate.eof:
            packed = self._inflate.unconsumed_tail or self._file.read(_CHUNK)
            if not packed:
                raise EOFError("the stream ends early")
            self._ready = memoryview(self._inflate.decompress(packed, 4 * _CHUNK))
        n = min(len(buffer), len(self._ready))
        buffer[:n] = self._ready[:n]
        self._ready = self._ready[n:]
        return n


def unpacked(file, wrapper: str):
    """Return a stream with ``readinto`` that unpacks `file` from where it stands."""
    return igzip.IGzipFile(fileobj=file, mode="rb") if wrapper == "gzip" else _ZlibStream(file)


def _fill(stream, buffer: memoryview, name: str) -> None:
    done = 0
    while done < len(buffer):
        n = stream.readinto(buffer[done:])
        if not n:
            raise PatchError(
                f"{name}: the file ends before the image does; it is cut off, fetch it again"
            )
        done += n


def _drain(stream, at_least: int, name: str) -> None:
    """Read to the end, so that the checksum is compared and a missing rest is found."""
    buffer, left = memoryview(bytearray(_CHUNK)), at_least
    while n := stream.readinto(buffer):
        left -= n
    if left > 0:
        raise PatchError(
            f"{name}: {left} bytes are missing at the end of the image; the file is cut off, "
            "fetch it again"
        )


def _hu(values: np.ndarray, rescale: tuple[float, float] | None = None) -> np.ndarray:
    """Return the values after rescaling, floating-point ones in float32 (as MONAI loads them)."""
    if rescale is not None:
        return (values.astype(np.float64) * rescale[0] + rescale[1]).astype(np.float32)
    return values.astype(np.float32) if values.dtype.kind == "f" else np.array(values)
