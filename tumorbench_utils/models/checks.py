"""Names, seeds and outputs of models: taken as they should be, or refused in words."""

import numbers
import re

import torch
from torch import Tensor, nn


def check_key(key: str) -> str:
    """Return a name for the registry, which is also one for files, or raise a ValueError."""
    if not isinstance(key, str) or not re.fullmatch(r"[\w-]+", key):
        raise ValueError(f"the key {key!r} is not a plain name (letters, digits, _ and -)")
    return key


def check_seed(seed: int) -> int:
    """Return a seed as a plain integer, or raise a ValueError."""
    whole = isinstance(seed, numbers.Integral) and not isinstance(seed, bool)
    if not whole or not 0 <= seed < 2**63:
        raise ValueError(f"seed is a whole number from 0 to 2**63 - 1, not {seed!r}")
    return int(seed)


def check_output(key: str, output: object, n: int, dim: int | None) -> Tensor:
    """Return what a network made of `n` patches if it is (n, dim), or raise a ValueError.

    Parameters
    ----------
    key : str
        Name of the model, for the message.
    output : object
    n : int
    dim : int or None
        None: any length.
    """
    want = f"({n}, {dim or 'dim'})"
    if not isinstance(output, Tensor):
        raise ValueError(
            f"{key} returned a {type(output).__name__}; one tensor of shape {want} was expected: "
            "wrap the network in a module whose forward returns the embeddings alone"
        )
    if output.is_complex():
        raise ValueError(f"{key} returned complex numbers; take their parts or magnitudes")
    shape = tuple(output.shape)
    if len(shape) == 2 and shape[0] == n and shape[1] and dim in (None, shape[1]):
        return output
    hint = ""
    if len(shape) > 2 and shape[0] == n:
        hint = ": a map of features has to be pooled, for example with .mean(dim=(2, 3, 4))"
    elif len(shape) == 1:
        hint = ": a squeeze drops the axis of the patches when there is one of them"
    raise ValueError(
        f"{key} gave embeddings of shape {shape} for {n} patches; {want} was expected{hint}"
    )


def device_of(module: nn.Module, default: torch.device | str = "cpu") -> torch.device:
    """Return the device of a network's first tensor; `default` where it has none.

    Raises
    ------
    ValueError
        If it was built on the meta device: it has shapes and no values.
    """
    tensors = (tensor for part in (module.parameters(), module.buffers()) for tensor in part)
    device = next((tensor.device for tensor in tensors), torch.device(default))
    if device.type == "meta":
        raise ValueError(
            "the module is on the meta device and has no values; build it outside of "
            "torch.device('meta')"
        )
    return device
