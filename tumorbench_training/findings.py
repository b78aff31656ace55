"""Findings in words, written from the phenotype of a phantom: what the text encoders read."""

import re
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor, nn

#: Diameters (mm) that a report names; the nearest is taken.
SIZES = (4, 5, 6, 8, 10, 12, 15, 20, 25, 30, 40, 50, 60, 80)

_NOUN = {"lung": "nodule", "kidney": "mass", "liver": "lesion"}
_MARGIN = ((0.0, "smooth"), (0.3, "slightly spiculated"), (1.0, "spiculated"))
_SHAPE = ((0.2, "round"), (0.45, "slightly lobulated"), (1.0, "lobulated"))
_GLASS = ((0.2, "solid"), (0.65, "part-solid"), (1.0, "ground-glass"))
_DENSITY = ((20, "very low"), (60, "low"), (110, "intermediate"), (np.inf, "high"))
_TEXTURE = ((18, "homogeneous"), (34, "slightly heterogeneous"), (np.inf, "heterogeneous"))
_LEVELS = (_MARGIN, _SHAPE, _GLASS, _DENSITY, _TEXTURE)
_ALWAYS = "of about mm in the with margin attenuation texture central necrosis calcification an "
_ALWAYS += "enhancing rim no"

#: Every word that a report can hold.
WORDS = sorted(
    {*_ALWAYS.split(), *_NOUN, *_NOUN.values(), *map(str, SIZES)}
    | {word for levels in _LEVELS for _, words in levels for word in words.split()}
)


def _level(levels, value: float) -> str:
    """Return the words of the first level whose upper end is not below a value."""
    return next(words for upper, words in levels if value <= upper)


def finding(row: Mapping) -> str:
    """Return the finding of one lesion as a radiologist's template would have it.

    Parameters
    ----------
    row : mapping
        With ``organ`` and the phenotype, as a row of ``Phantoms.table``.

    Examples
    --------
    >>> finding(dict(organ="lung", diameter_mm=11.2, spiculation=0.4, lobulation=0.1,
    ...              ground_glass=0.0, attenuation_hu=20, texture_hu=30, necrosis=0.0,
    ...              calcification=0.0, rim_hu=0.0))
    'solid nodule of about 12 mm in the lung, round, with spiculated margin, very low attenuation, slightly heterogeneous texture'
    """  # noqa: E501
    size = min(SIZES, key=lambda mm: abs(np.log(mm / row["diameter_mm"])))
    organ = row["organ"]
    parts = [
        f"{_level(_GLASS, row['ground_glass'])} {_NOUN[organ]} of about {size} mm in the {organ}",
        _level(_SHAPE, row["lobulation"]),
        f"with {_level(_MARGIN, row['spiculation'])} margin",
        f"{_level(_DENSITY, row['attenuation_hu'])} attenuation",
        f"{_level(_TEXTURE, row['texture_hu'])} texture",
    ]
    parts += ["central necrosis"] if row["necrosis"] > 0.2 else []
    parts += ["calcification"] if row["calcification"] > 0.15 else []
    parts += ["an enhancing rim"] if row["rim_hu"] > 15 else []
    return ", ".join(parts)


def counts(texts: list[str]) -> Tensor:
    """Return how often each word of :data:`WORDS` is in each text, shape (n, words).

    Raises
    ------
    ValueError
        If a text holds a word that no finding holds.
    """
    table = torch.zeros(len(texts), len(WORDS))
    place = {word: k for k, word in enumerate(WORDS)}
    for row, text in zip(table, texts, strict=True):
        for word in re.findall(r"[\w-]+", text):
            if word not in place:
                raise ValueError(f"{word!r} is no word of a finding; known are {', '.join(WORDS)}")
            row[place[word]] += 1
    return table


class TextTower(nn.Module):
    """A bag of words through two layers: as much language as templates need.

    Parameters
    ----------
    dim : int
        Length of the embedding, that of the images.
    """

    def __init__(self, dim: int):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(len(WORDS), 128), nn.ReLU(), nn.Linear(128, dim))

    def forward(self, words: Tensor) -> Tensor:
        """Map word counts (n, words) to embeddings (n, dim)."""
        return self.layers(words)
