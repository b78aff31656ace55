"""One DICOM series in a folder."""

from pathlib import Path

from tumorbench_utils.patches.spec import PatchError
from tumorbench_utils.patches.volume import Volume


def open_series(folder: Path) -> Volume:
    """Open the one CT series in a folder."""
    raise PatchError(f"{folder}: is a folder")
