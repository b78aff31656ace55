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

from __future__ import annotations

import dataclasses
import functools
import inspect
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from tumorbench_utils import digests
from tumorbench_utils.checks import InputError, one_of
from tumorbench_utils.models.base import SIZES, FoundationModel, ModelCard, embeddings_of
from tumorbench_utils.patches import PatchSpec

if TYPE_CHECKING:
    from torch import Tensor, nn

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

    def __init__(self, key: str, module: nn.Module, spec: PatchSpec | None, card: ModelCard | None):
        self.key, self.module, self.spec = key, module.eval(), spec or PatchSpec()
        card = card or ModelCard(title=str(key))
        count = sum(p.numel() for p in module.parameters())
        self.card = dataclasses.replace(card, parameters=card.parameters or count)
        self.dim = None  # any length, until the first patch tells it
        self.dim = _embed(self, module, example_patches(self.spec)[:1]).shape[1]
        check_model(self, module)

    def build(self, size: str = "full", seed: int | None = None) -> nn.Module:
        """Return the network itself, in evaluation mode: there is one size, and no seed in it."""
        one_of(size, "size", SIZES)
        return self.module.eval()


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
    InputError
        If it does not run on such patches, or fails the trial.

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
    from torch import nn

    if not isinstance(module, nn.Module):
        hint = "of a class make an instance, functions go to from_function"
        raise TypeError(f"from_module takes a torch.nn.Module, not {repr(module)[:80]}: {hint}")
    return OwnModel(key, module, spec, card)


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
        list or one-dimensional array of numbers, always as many (of a dictionary:
        ``list(features.values())``).
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
    InputError
        If it fails on a patch, or fails the trial.
    """
    from torch import nn

    from tumorbench_utils.models.networks.function import PatchFunction

    if isinstance(function, type | nn.Module) or not callable(function):
        came = repr(function)[:80]
        raise TypeError(f"function is called with a patch, not {came}; modules go to from_module")
    inner = function
    while isinstance(inner, functools.partial):
        inner = inner.func
    name = getattr(inner, "__qualname__", type(inner).__qualname__)
    try:
        source = inspect.getsource(inner)
    except (OSError, TypeError):  # typed at a prompt, or compiled: the answers have to do
        source = ""
    return OwnModel(key, PatchFunction(function, name, digests.of(source)[:16]), spec, card)


def answers(model: FoundationModel, module: nn.Module) -> str:
    """Return a digest of what a network makes of the made-up patches.

    Stored embeddings carry it, so that they are made anew when anything changes that a network of
    a user does: a helper, a constant or an imported file, which no look at its class would find.
    Eight sums with random signs stand for each embedding, to four digits: rounding in another
    order, as on another number of threads, seldom reaches these.
    """
    embeddings = _embed(model, module, example_patches(model.spec)).cpu().double().numpy()
    signs = np.random.default_rng(0).choice([-1.0, 1.0], (embeddings.shape[1], 8))
    return digests.of([f"{value:.4g}" for value in (embeddings @ signs).ravel()])[:16]


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
    import torch

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
    InputError
        If an embedding is not finite, has another length than ``dim`` or one that changes with
        the number of patches, differs between two runs on the same patches, or depends on the
        other patches in its batch; if the patches are changed in place; or if the network fails.
        The message names the model and what to do.
    """
    import torch

    def refuse(fault: str) -> None:
        raise InputError(f"{model.key} {fault}")

    module = model.build("compact") if module is None else module
    patches = example_patches(model.spec)
    # A patch without contrast tells nothing here: some norms turn its rounding into a signal.
    busy, air = patches[:2], patches[2:]
    together = _embed(model, module, busy)
    limit = TOLERANCE * together.abs().max() + torch.finfo(torch.float32).tiny
    if not torch.equal(busy, example_patches(model.spec)[:2]):
        refuse("changes the patches that it is given; begin with a copy (x -= 1 changes its input)")
    if (_embed(model, module, busy) - together).abs().max() > limit:
        refuse(
            "gives other embeddings when the same patches come again: something in it is random or "
            "remembers (dropout or a random number outside of training)"
        )
    alone = torch.cat([_embed(model, module, one[None]) for one in busy])
    if (alone - together).abs().max() > limit:
        refuse(
            "gives an embedding that depends on the other patches in its batch: use statistics of "
            "the sample or running ones in evaluation mode, not those of the batch"
        )
    _embed(model, module, air)


def _embed(model: FoundationModel, module: nn.Module, patches: Tensor) -> Tensor:
    """Return embeddings; whatever goes wrong is an error that names the model and the input."""
    try:
        result = model.encode(module, patches)
        return embeddings_of(model.key, result, len(patches), model.dim)
    except Exception as error:
        what = "air" if patches.max() == patches.min() else "lesions"
        what = f"made-up patches of shape {tuple(patches.shape)} ({what})"
        raise InputError(f"{model.key} fails on {what}: {type(error).__name__}: {error}") from error
