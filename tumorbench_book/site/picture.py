"""The picture of the README: two figures of executed chapters side by side, `make picture`."""

import base64
import io
import sys

import nbformat
import numpy as np
from PIL import Image, ImageOps

from tumorbench_book.keys import executed_path
from tumorbench_utils import files, settings

#: Chapter and name of the figures, from left to right.
FIGURES = {"foundations/phantoms": "fig-phantoms-organs", "endpoints/knn_probing": "fig-knn-forest"}
TARGET = settings.BOOK_ROOT / "_static" / "readme.png"


def figure(chapter: str, name: str, height: int = 560) -> Image.Image:
    """Return a figure of an executed chapter, `height` pixels high, with a white border."""
    path = executed_path(chapter)
    for cell in nbformat.read(path, as_version=4).cells if path.exists() else []:
        if cell.metadata.get("mystnb", {}).get("figure", {}).get("name") == name:
            data = [o.data["image/png"] for o in cell.outputs if "image/png" in o.get("data", {})]
            shown = Image.open(io.BytesIO(base64.b64decode(data[0]))).convert("RGB")
            scaled = shown.resize((round(shown.width * height / shown.height), height))
            return ImageOps.expand(scaled, 15, "white")
    sys.exit(f"make picture: no executed chapter {chapter} with the figure {name}: make book")


if __name__ == "__main__":
    joined = Image.fromarray(np.hstack([np.asarray(figure(*wanted)) for wanted in FIGURES.items()]))
    with files.atomic_path(TARGET) as path:
        whole = ImageOps.expand(joined, 15, "white")
        whole.quantize(96).save(path, format="PNG", optimize=True)
    print(TARGET)
