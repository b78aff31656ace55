"""The picture of the README: two figures of executed chapters side by side, `make picture`."""

import base64
import io
import sys

import nbformat
from PIL import Image

from tumorbench_book import executed_path
from tumorbench_utils import files, settings

#: Chapter and name of the figures, from left to right.
FIGURES = (
    ("foundations/phantoms", "fig-phantoms-organs"),
    ("endpoints/knn_probing", "fig-knn-forest"),
)
TARGET = settings.BOOK_ROOT / "_static" / "readme.png"


def figure(chapter: str, name: str) -> Image.Image:
    """Return a figure of an executed chapter.

    Raises
    ------
    LookupError
        If the chapter was not run or has no such figure.
    """
    path = executed_path(chapter)
    for cell in nbformat.read(path, as_version=4).cells if path.exists() else []:
        if cell.metadata.get("mystnb", {}).get("figure", {}).get("name") == name:
            data = next(
                o.data["image/png"] for o in cell.outputs if "image/png" in o.get("data", {})
            )
            return Image.open(io.BytesIO(base64.b64decode(data))).convert("RGB")
    raise LookupError(f"no executed chapter {chapter} with the figure {name}: make book")


def join(pictures: list[Image.Image], height: int = 560, gap: int = 30) -> Image.Image:
    """Return the pictures side by side, equally high, on white."""
    scaled = [p.resize((round(p.width * height / p.height), height)) for p in pictures]
    width = sum(p.width for p in scaled) + gap * (len(scaled) + 1)
    whole, left = Image.new("RGB", (width, height + 2 * gap), "white"), gap
    for picture in scaled:
        whole.paste(picture, (left, gap))
        left += picture.width + gap
    return whole


if __name__ == "__main__":
    try:
        whole = join([figure(*wanted) for wanted in FIGURES])
    except LookupError as error:
        sys.exit(f"make picture: {error}")
    with files.atomic_path(TARGET) as path:
        whole.quantize(96).save(path, format="PNG", optimize=True)
    print(TARGET)
