"""Your own model: a torch module or a function becomes an encoder of the benchmark in one line.

>>> import numpy
>>> from tumorbench_utils import models
>>> def features(patch):
...     return [patch.mean(), patch.std(), *numpy.quantile(patch, [0.1, 0.5, 0.9])]
>>> model = models.from_function("simple", features)
>>> model.dim
5

Whatever is brought is tried on a few made-up patches first (:func:`check_model`): what would spoil
a benchmark after hours is named within seconds.
"""

import dataclasses
import functools
import hashlib
import inspect
import numbers
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn

from tumorbench_utils.models.base import SIZES, FoundationModel, ModelCard
from tumorbench_utils.models.checks import check_key, check_output, check_seed, device_of
from tumorbench_utils.patches import PatchSpec
from tumorbench_utils.settings import unknown

#: Difference between embeddings, as a share of the largest value, that rounding can explain.
TOLERANCE = 1e-3


class OwnModel(FoundationModel):
    """A network or function of a user, with the weights it has.

    Made by :func:`from_module` and :func:`from_function`.

    Attributes
    ----------
    module : torch.nn.Module
        The network; a function is wrapped into one.
    """

    def __init__(self, key: str, module: nn.Module, spec: PatchSpec, card: ModelCard | None):
        if not isinstance(spec, PatchSpec):
            raise TypeError(f"spec is a PatchSpec, not {type(spec).__name__}")
        if card is not None and not isinstance(card, ModelCard):
            raise TypeError(f"card is a ModelCard, not {type(card).__name__}")
        card = card or ModelCard(title=str(key))
        if not card.parameters:
            count = sum(p.numel() for p in module.parameters())
            card = dataclasses.replace(card, parameters=count)
        self.key, self.module, self.spec, self.card = check_key(key), module.eval(), spec, card
        self.dim = self._length()
        check_model(self)

    def build(self, size: str = "full", seed: int = 0) -> nn.Module:
        """Return the network itself, in evaluation mode: there is one size, and no seed in it."""
        if not isinstance(size, str) or size not in SIZES:
            raise ValueError(unknown("size", size, SIZES))
        check_seed(seed)
        return self.module.eval()

    def _length(self) -> int:
        """Return the length of an embedding, from runs on two patches and on one."""
        device = device_of(self.module)
        patches, lengths = example_patches(self.spec)[:2].to(device), []
        for n in (2, 1):
            with torch.inference_mode():
                try:
                    output = self.module(patches[:n].clone())
                except Exception as error:
                    shape = ", ".join(map(str, (n, 1, *self.spec.size)))
                    raise ValueError(
                        f"{self.key} does not run on patches of shape ({shape}): "
                        f"{_first_line(error)}"
                    ) from error
            lengths.append(check_output(self.key, output, n, None).shape[1])
        if lengths[0] != lengths[1]:
            raise ValueError(
                f"the length of an embedding of {self.key} depends on the number of patches: "
                f"{lengths[0]} where two come together, {lengths[1]} for one alone"
            )
        return lengths[0]


class _Function(nn.Module):
    """A function of one patch as a network of no weights."""

    def __init__(self, function: Callable, name: str, digest: str = ""):
        super().__init__()
        self.function, self.name, self.digest = function, name, digest

    def extra_repr(self) -> str:
        """Return what tells this function from another: the key of stored embeddings has it."""
        return f"{self.name}, {self.digest}"

    def forward(self, x: Tensor) -> Tensor:
        """Map patches (n, 1, d0, d1, d2) to features (n, dim)."""
        rows = [self._features(patch.copy()) for patch in x[:, 0].cpu().numpy()]
        lengths = sorted({len(row) for row in rows})
        if len(lengths) > 1:
            raise ValueError(
                f"{self.name} returned vectors of different lengths: "
                f"{' and '.join(map(str, lengths))} features"
            )
        return torch.from_numpy(np.stack(rows)).to(x.device)

    def _features(self, patch: np.ndarray) -> np.ndarray:
        returned = self.function(patch)
        values = None if isinstance(returned, (dict, str, set)) else np.asarray(returned)
        if values is None or values.ndim != 1 or not values.size or values.dtype.kind not in "fiu":
            came = type(returned).__name__
            if values is not None and values.dtype != object:
                came += f" of shape {values.shape} and type {values.dtype}"
            raise ValueError(
                f"{self.name} takes one patch and returns a vector of numbers (a list or a "
                f"one-dimensional array); {came} came"
                + (": return list(features.values())" if isinstance(returned, dict) else "")
            )
        with np.errstate(over="ignore"):
            values = values.astype(np.float32)
        wrong = np.flatnonzero(~np.isfinite(values))
        if wrong.size:
            raise ValueError(
                f"{self.name} returned a value that is not finite (position {wrong[0]} of "
                f"{len(values)}); return a number that says so, for example 0"
            )
        return values


def from_module(
    key: str,
    module: nn.Module,
    spec: PatchSpec | None = None,
    *,
    card: ModelCard | None = None,
) -> OwnModel:
    """Return a model for :func:`register` from a torch module with its weights.

    Parameters
    ----------
    key : str
        Name in the registry: letters, digits, ``_`` and ``-``.
    module : torch.nn.Module
        Takes float32 patches (n, 1, d0, d1, d2) and returns embeddings (n, dim), each a function
        of its own patch. It is put into evaluation mode; it is not copied.
    spec : PatchSpec, optional
        What the network wants to see: orientation, voxels, HU window and range. If None, the
        benchmark's most common one: RAS, 48 mm, -1024..2048 HU scaled to 0..1.
    card : ModelCard, optional
        Facts for tables: title, licence, data, and so on.

    Raises
    ------
    TypeError
        If `module` is no module (a plain function goes to :func:`from_function`).
    ValueError
        If it does not run on such patches, or fails :func:`check_model`.

    Examples
    --------
    >>> import torch
    >>> from tumorbench_utils import models
    >>> network = torch.nn.Sequential(
    ...     torch.nn.Conv3d(1, 8, 3), torch.nn.ReLU(), torch.nn.AdaptiveAvgPool3d(1),
    ...     torch.nn.Flatten(),
    ... )
    >>> models.from_module("mine", network).dim
    8
    """
    if isinstance(module, type):
        raise TypeError(f"from_module takes a module, not its class: {module.__name__}(...)")
    if not isinstance(module, nn.Module):
        hint = "; from_function takes functions" if callable(module) else ""
        raise TypeError(f"module is a torch.nn.Module, not {type(module).__name__}{hint}")
    return OwnModel(key, module, PatchSpec() if spec is None else spec, card)


def from_function(
    key: str,
    function: Callable[[np.ndarray], object],
    spec: PatchSpec | None = None,
    *,
    card: ModelCard | None = None,
) -> OwnModel:
    """Return a model for :func:`register` from a function of one patch, for example radiomics.

    Parameters
    ----------
    key : str
        Name in the registry: letters, digits, ``_`` and ``-``.
    function : callable
        Takes a float32 array (d0, d1, d2) in ``spec.out_range`` and returns the features as a
        list or one-dimensional array of numbers, always as many.
    spec : PatchSpec, optional
        What the function wants to see, as for :func:`from_module`. With ``window_hu`` equal to
        ``out_range`` it sees HU.
    card : ModelCard, optional
        Facts for tables: title, licence, and so on.

    Raises
    ------
    TypeError
        If `function` cannot be called, or is a module or a class (these go to
        :func:`from_module`).
    ValueError
        If it fails on a patch, or fails :func:`check_model`.

    Notes
    -----
    To tell whether stored features are still those of the function, its source and what it makes
    of three made-up patches are kept with them.
    """
    if isinstance(function, nn.Module):
        raise TypeError("function is a torch module; from_module takes modules")
    if isinstance(function, type) or not callable(function):
        raise TypeError(f"function is something to call with a patch, not {function!r}")
    inner = function
    while isinstance(inner, functools.partial):
        inner = inner.func
    name = getattr(inner, "__qualname__", type(inner).__qualname__)
    module = _Function(function, name)
    model = OwnModel(key, module, PatchSpec() if spec is None else spec, card)
    module.digest = _digest(model, inner)
    return model


def _digest(model: OwnModel, function: Callable) -> str:
    """Return a digest of a function's source and of its answers to the made-up patches."""
    try:
        source = inspect.getsource(function)
    except (OSError, TypeError):  # typed at a prompt, or compiled: the answers have to do
        source = ""
    answers = model.encode(model.module, example_patches(model.spec)).numpy()
    text = "\n".join([source, *(f"{value:.4g}" for value in answers.ravel())])
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def example_patches(spec: PatchSpec) -> Tensor:
    """Return three made-up patches: a ball in noise, a smooth ramp with noise, and air.

    Parameters
    ----------
    spec : PatchSpec

    Returns
    -------
    Tensor, shape (3, 1, d0, d1, d2)
        float32 in ``spec.out_range``; always the same for the same specification. The last patch
        has the smallest value everywhere, as outside the body.
    """
    rng = np.random.default_rng(0)
    axes = np.meshgrid(*(np.linspace(-1, 1, side) for side in spec.size), indexing="ij")
    ball = 0.2 + 0.2 * (sum(axis**2 for axis in axes) < 0.2)
    ramp = 0.4 + 0.1 * axes[0] - 0.15 * axes[2]
    noise = rng.normal(0, 0.04, (2, *spec.size))
    share = np.stack([ball + noise[0], ramp + noise[1], np.zeros(spec.size)]).clip(0, 1)
    low, high = spec.out_range
    values = (low + share * (high - low)).astype(np.float32).clip(low, high)
    return torch.from_numpy(values)[:, None]


def check_model(model: FoundationModel, module: nn.Module | None = None) -> None:
    """Try a model on a few made-up patches and refuse it if no benchmark could trust it.

    Parameters
    ----------
    model : FoundationModel
        Or anything with the same members.
    module : torch.nn.Module, optional
        The network to try; if None, ``model.build("compact")``.

    Raises
    ------
    TypeError
        If ``dim`` is no positive integer or ``spec`` no PatchSpec.
    ValueError
        If an embedding is not finite, has another length than ``dim`` or one that changes with
        the number of patches, differs between two runs on the same patches, or depends on the
        other patches in its batch; if the patches are changed in place; or if the network fails.
        The message names the model and what to do.
    """
    if isinstance(model.dim, bool) or not isinstance(model.dim, numbers.Integral) or model.dim < 1:
        raise TypeError(f"the dim of {model.key} is a positive integer, not {model.dim!r}")
    if not isinstance(model.spec, PatchSpec):
        raise TypeError(f"the spec of {model.key} is a PatchSpec, not {model.spec!r}")
    module = model.build("compact") if module is None else module
    patches = example_patches(model.spec)
    # A patch without contrast tells nothing here: some norms turn its rounding into a signal.
    busy, air = patches[:2], patches[2:]
    together = _embed(model, module, busy, "two patches")
    if not torch.equal(busy, example_patches(model.spec)[:2]):
        raise ValueError(
            f"{model.key} changes the patches that it is given; begin with a copy (an operation "
            "on the input is in place)"
        )
    if _differ(_embed(model, module, busy, "two patches"), together):
        raise ValueError(
            f"{model.key} gives other embeddings when the same patches come again: something in "
            "it is random or remembers (dropout or a random number outside of training)"
        )
    alone = torch.cat([_embed(model, module, one[None], "one patch alone") for one in busy])
    if _differ(alone, together):
        raise ValueError(
            f"the embedding that {model.key} gives to a patch depends on the other patches in its "
            "batch: use statistics of the sample or running ones in evaluation mode, not those of "
            "the batch"
        )
    _embed(model, module, air, "a patch of one value (air)")


def _embed(model: FoundationModel, module: nn.Module, patches: Tensor, what: str) -> Tensor:
    """Return embeddings; whatever goes wrong is an error that names the model and the input."""
    try:
        result = model.encode(module, patches)
    except Exception as error:
        raise ValueError(f"{model.key} fails on {what}: {_first_line(error)}") from error
    check_output(model.key, result, len(patches), model.dim)
    if not torch.isfinite(result).all():
        raise ValueError(f"{model.key} gives {what} an embedding that is not finite")
    return result


def _differ(first: Tensor, second: Tensor) -> bool:
    scale = second.abs().max().clamp(min=torch.finfo(torch.float32).tiny)
    return bool((first - second).abs().max() > TOLERANCE * scale)


def _first_line(error: Exception) -> str:
    kind, text = type(error).__name__, str(error).strip().splitlines()
    if not text:
        return kind
    return text[0] if isinstance(error, ValueError) else f"{kind}: {text[0]}"
