"""The one downloader: bounded, checked, whole or absent."""

import os
from pathlib import Path

import pooch

from tumorbench_utils import digests, files


class DownloadError(OSError):
    """A file that could not be fetched, or is not the one that was asked for."""


def fetch(
    url: str,
    path: str | os.PathLike,
    *,
    sha256: str | None = None,
    md5: str | None = None,
    size: int | None = None,
    progress: bool = True,
) -> Path:
    """Fetch a file over HTTP(S) and return its path; nothing is done if it is there and right.

    Parameters
    ----------
    url : str
    path : path-like
        Where the file shall be; it appears only when it is whole.
    sha256, md5 : str, optional
        Checksum that it must have.
    size : int, optional
        Bytes that it must have; the download ends as soon as there are more.
    progress : bool
        Whether to show a bar.

    Raises
    ------
    DownloadError
        If the server fails, or what it sent is not what was asked for; nothing is left.
    """
    path = Path(path)
    if path.is_file() and _fault(path, sha256, md5, size) is None:
        return path
    with files.atomic_path(path) as part:
        try:
            with open(part, "wb") as stream:
                pooch.HTTPDownloader(progressbar=progress)(url, _Bounded(stream, size), None)
        except Exception as error:  # proxies, servers and networks fail in many ways
            raise DownloadError(f"{url} could not be fetched: {_first_line(error)}") from error
        if fault := _fault(part, sha256, md5, size):
            raise DownloadError(f"{url} sent another file: {fault}")
    return path


class _Bounded:
    """A stream that takes no more bytes than were announced."""

    def __init__(self, stream, size: int | None):
        self.stream, self.left = stream, size

    def write(self, block: bytes) -> int:
        if self.left is not None:
            self.left -= len(block)
            if self.left < 0:
                raise OSError("it is longer than announced")
        return self.stream.write(block)

    def __getattr__(self, name):
        return getattr(self.stream, name)


def _fault(path: Path, sha256: str | None, md5: str | None, size: int | None) -> str | None:
    if size is not None and path.stat().st_size != size:
        return f"{path.stat().st_size} bytes instead of {size}"
    if sha256 is not None and digests.of_file(path) != sha256:
        return "its SHA-256 is another one"
    if md5 is not None and pooch.file_hash(str(path), alg="md5") != md5:
        return "its MD5 is another one"
    return None


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:200]
