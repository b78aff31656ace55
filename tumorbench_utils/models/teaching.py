"""The weights of the teaching encoders that the book ships: found, checked, loaded."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from tumorbench_utils import digests, settings
from tumorbench_utils.models.base import CheckpointError, Published, facts

if TYPE_CHECKING:
    from torch import nn

#: The models that have a teaching encoder.
KEYS = tuple(facts())


def has(model) -> bool:
    """Whether the book ships weights for the compact encoder of a model (not of a subclass)."""
    return Published in type(model).__bases__


def folder() -> Path:
    """Return where weights (``KEY.safetensors``) and cards (``KEY.json``) lie."""
    return settings.BOOK_ROOT / "data" / "encoders"


def read_card(key: str) -> dict:
    """Return the card of a teaching encoder.

    Raises
    ------
    CheckpointError
        If there is none, or it is no card.
    """
    path = folder() / f"{key}.json"
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path} is no card ({error}); {_again(key)}") from None


def find(key: str) -> Path:
    """Return the file with the weights of a teaching encoder, after checking its sha256.

    Raises
    ------
    CheckpointError
        If it is missing or not the file that its card describes; the message has the command that
        makes it again.
    """
    path = folder() / f"{key}.safetensors"
    found = digests.of_file(path) if path.is_file() else "that of no file"
    if found != read_card(key)["sha256"]:
        raise CheckpointError(f"{path}: its sha256 is {found}, its card has another; {_again(key)}")
    return path


def _again(key: str) -> str:
    return (
        f"restore it with `git checkout data/encoders` or train it with `tumorbench encoders {key}`"
    )


def load(module: nn.Module, path: Path, optional: tuple[str, ...] = ()) -> None:
    """Fill a compact encoder with teaching weights, in place.

    Parameters
    ----------
    module : torch.nn.Module
    path : Path
        Float16 weights as :func:`save` writes them; each is converted to the type it has here.
    optional : tuple of str
        Patterns of names that may be missing.

    Raises
    ------
    CheckpointError
        If the file holds other tensors than the encoder.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    from tumorbench_utils.models.checkpoint import matches

    try:
        missing, unexpected = module.load_state_dict(load_file(path), strict=False)
    except (SafetensorError, RuntimeError) as error:
        missing, unexpected = [], [str(error).strip()]
    if wrong := [n for n in missing if not matches(n, optional)] + unexpected:
        what = f"{path} does not fit the compact encoder: {', '.join(wrong)[:500]}"
        raise CheckpointError(f"{what}; if that has changed, {_again(path.stem)}")


def save(module: nn.Module, path: Path, optional: tuple[str, ...] = ()) -> None:
    """Write the weights of a compact encoder as float16 safetensors.

    Raises
    ------
    CheckpointError
        If a weight is not finite in float16.
    """
    from safetensors.torch import save_file

    from tumorbench_utils.models.checkpoint import matches

    state = module.state_dict()
    kept = {n: t.cpu().half().contiguous() for n, t in state.items() if not matches(n, optional)}
    if wrong := [name for name, tensor in kept.items() if not tensor.isfinite().all()]:
        raise CheckpointError(f"float16 cannot hold the values of {', '.join(wrong)}")
    save_file(kept, path)
