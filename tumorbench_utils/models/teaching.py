"""The weights of the teaching encoders that the book ships: found, checked, loaded."""

import json
from pathlib import Path

import torch
from torch import nn

from tumorbench_utils import digests, settings
from tumorbench_utils.models.checkpoint import CheckpointError, matches

#: The models that have a teaching encoder.
KEYS = (
    "fmcib",
    "ct_fm",
    "ct_clip_vit",
    "pasta",
    "vista3d",
    "voco",
    "suprem",
    "merlin",
    "medimageinsight",
    "models_genesis",
)


def has(model) -> bool:
    """Whether the book ships weights for the compact encoder of a model (not of a subclass)."""
    return model.key in KEYS and type(model).__module__ == f"tumorbench_utils.models.{model.key}"


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
        card = json.loads(path.read_text(encoding="utf-8"))
        return {**card, "sha256": str(card["sha256"])}
    except FileNotFoundError:
        raise CheckpointError(f"{path.name} is not in {path.parent}; {_again(key)}") from None
    except (ValueError, TypeError, KeyError) as error:
        raise CheckpointError(f"{path} is no card ({error}); {_again(key)}") from None


def find(key: str) -> Path:
    """Return the file with the weights of a teaching encoder, after checking its sha256.

    Raises
    ------
    CheckpointError
        If it is missing or not the file that its card describes; the message has the command that
        makes it again.
    """
    expected = read_card(key)["sha256"]
    path = folder() / f"{key}.safetensors"
    if not path.is_file():
        raise CheckpointError(f"{path.name} is not in {path.parent}; {_again(key)}")
    found = digests.of_file(path)
    if found != expected:
        raise CheckpointError(
            f"{path} is not the file that its card describes: its sha256 is {found}, "
            f"{expected} was expected; {_again(key)}"
        )
    return path


def _again(key: str) -> str:
    return (
        f"restore it with `git checkout data/encoders` or train it with `tumorbench encoders {key}`"
    )


def load(module: nn.Module, path: Path, optional: tuple[str, ...] = ()) -> None:
    """Fill a compact encoder with teaching weights, in place; all of them or none.

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

    try:
        stored = load_file(path)
    except SafetensorError as error:
        raise CheckpointError(f"{path} is no safetensors file: {error}") from None
    own = module.state_dict()
    wrong = [n for n in own if n not in stored and not matches(n, optional)]
    wrong += [n for n, t in stored.items() if n not in own or own[n].shape != t.shape]
    if wrong:
        raise CheckpointError(
            f"{path} does not fit the compact encoder, {len(wrong)} tensors differ: "
            f"{', '.join(wrong[:5])}; the architecture has changed since it was trained, so train "
            f"it again with `tumorbench encoders {path.stem}`"
        )
    with torch.no_grad():
        for name, tensor in stored.items():
            own[name].copy_(tensor)


def save(module: nn.Module, path: Path, optional: tuple[str, ...] = ()) -> None:
    """Write the weights of a compact encoder as float16 safetensors.

    Raises
    ------
    ValueError
        If a weight is not finite in float16.
    """
    from safetensors.torch import save_file

    kept = {}
    for name, tensor in module.state_dict().items():
        if not matches(name, optional):
            kept[name] = tensor.detach().cpu().to(torch.float16).contiguous()
            if not torch.isfinite(kept[name]).all():
                raise ValueError(f"{name} holds values that float16 cannot")
    save_file(kept, path)
