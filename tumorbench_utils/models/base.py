"""What every encoder is: a card, an input, an architecture and the names of its checkpoint.

A :class:`FoundationModel` holds facts and no weights. ``build`` makes a ``torch.nn.Module`` whose
forward pass takes patches (n, 1, d0, d1, d2) and returns embeddings (n, dim); ``load_checkpoint``
fills it from the released file; ``encode`` is the forward pass with checked input. Cards are read
without torch, which is loaded where a network is built or run.
"""

from __future__ import annotations

import functools
import itertools
import operator
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import yaml

from tumorbench_utils import settings
from tumorbench_utils.checks import InputError, one_of
from tumorbench_utils.patches import PatchSpec

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

SIZES = ("full", "compact")


class CheckpointError(InputError):
    """A checkpoint that cannot be read, or that does not hold the weights of the encoder."""


@dataclass(frozen=True)
class LoadReport:
    """What became of every tensor of a checkpoint.

    Attributes
    ----------
    matched : list of str
        Tensors that were loaded, by their names in the checkpoint.
    missing : list of str
        Tensors of the encoder that the checkpoint does not have, or not usably, and that no
        forward pass reads (counters and unused running statistics), by their names in the encoder.
        A tensor that is read and missing is an error.
    unexpected : list of str
        Tensors of the checkpoint that nobody knows.
    ignored : list of str
        Tensors of the checkpoint that belong to parts the encoder does not have (decoders, heads,
        text towers) or that the encoder computes itself.
    """

    matched: list[str]
    missing: list[str]
    unexpected: list[str]
    ignored: list[str]

    def __str__(self) -> str:
        counts = ", ".join(f"{len(names)} {field}" for field, names in vars(self).items())
        return f"LoadReport({counts})"


@dataclass(frozen=True, kw_only=True)
class ModelCard:
    """Facts about a model; only the title is needed. None or empty means: not known to us.

    Attributes
    ----------
    title : str
        Name as its authors write it.
    paper : str
        Authors, title and venue.
    year : int or None
    doi : str or None
    citation : str
        BibTeX key.
    strategy : str
        How it was pre-trained.
    data : str
        What it was pre-trained on.
    licence : str
        Licence of the weights, or of the code where nothing else is stated (which is said).
    allows : str
        What that means for a reader of the book.
    access : {"open", "gated", "own"}
        Whether the file can be had without an account; ``"own"`` for a model of the reader's.
    gate : str
        What to do to get a gated file; empty for open ones.
    source : str
        Page to visit.
    file : str
        Name of the file at the source, with its folder there.
    native_input : str
        What the model saw in training.
    native_spec : PatchSpec or None
        The same as a specification that can be extracted; None where one cannot say it.
    parameters : int
        Parameters of the encoder.
    """

    title: str
    paper: str = ""
    year: int | None = None
    doi: str | None = None
    citation: str = ""
    strategy: str = ""
    data: str = ""
    licence: str = ""
    allows: str = ""
    access: str = "own"
    gate: str = ""
    source: str = ""
    file: str = ""
    native_input: str = ""
    native_spec: PatchSpec | None = None
    parameters: int = 0


class FoundationModel:
    """Base class of the encoders; subclass it to add your own.

    A subclass sets the first four attributes below and writes :meth:`network`; the others say how
    the names of a released checkpoint become the encoder's own.

    Attributes
    ----------
    key : str
        Name in the registry.
    card : ModelCard
    spec : PatchSpec
        Input of the benchmark: what ``encode`` takes.
    dim : int
        Length of an embedding.
    containers : tuple of str
        Top-level keys of the released file that hold the state dict (common ones are known).
    prefixes : tuple of str
        Prefixes that the encoder's tensors may carry in the released file, the usual one first;
        each is also tried after the names of common wrappers (``module.``, ``_orig_mod.``). No
        prefix at all is tried last.
    unused : tuple of str
        Patterns of released names (with prefix) of parts that the encoder does not have.
    optional : tuple of str
        Patterns of the encoder's own names that no forward pass in evaluation mode reads.
    """

    key: str
    card: ModelCard
    spec: PatchSpec
    dim: int
    containers: tuple[str, ...] = ()
    prefixes: tuple[str, ...] = ()
    unused: tuple[str, ...] = ()
    optional: tuple[str, ...] = ("*num_batches_tracked",)

    def network(self, size: str) -> nn.Module:
        """Return the architecture, ``"full"`` or ``"compact"``, with any weights.

        The forward pass of the module takes float32 patches (n, 1, d0, d1, d2) in
        ``spec.out_range`` and returns embeddings (n, dim), each a function of its own patch only
        in evaluation mode. Must also run inside ``torch.device("meta")``.
        """
        raise NotImplementedError

    def build(self, size: str = "full", seed: int | None = None) -> nn.Module:
        """Return an encoder in evaluation mode, on the CPU (or the meta device).

        Parameters
        ----------
        size : {"full", "compact"}
            ``"full"`` is the released architecture, tensor by tensor, untrained. ``"compact"`` is
            the teaching encoder: the same family with fewer and narrower layers, trained on
            phantoms (:mod:`tumorbench_utils.models.teaching`).
        seed : int, optional
            With a seed the encoder is untrained in either size: its weights are a function of
            `seed`. Without one, ``"full"`` takes 0, and so does ``"compact"`` of a model for which
            the book ships no weights. torch's global random state is not touched.

        Raises
        ------
        InputError
            If `size` is neither of the two.
        CheckpointError
            If the weights of the teaching encoder are missing or altered; the message has the
            command that makes them again.
        """
        import torch

        from tumorbench_utils.models import teaching

        trained = one_of(size, "size", SIZES) == "compact" and seed is None and teaching.has(self)
        # Inside ``torch.device("meta")`` names and shapes come without memory.
        device = "meta" if torch.get_default_device().type == "meta" else "cpu"
        with torch.random.fork_rng(devices=[]), torch.device(device):
            torch.default_generator.manual_seed(operator.index(seed or 0))
            module = self.network(size).eval()
        if trained and device == "cpu":
            teaching.load(module, teaching.find(self.key), self.optional)
        return module

    def own_name(self, released: str, prefix: str) -> str | None:
        """Return the encoder's name of a released tensor, or None if it is none of its own."""
        return released[len(prefix) :] if released.startswith(prefix) else None

    def load_checkpoint(
        self, module: nn.Module, source: str | os.PathLike | Mapping[str, Tensor]
    ) -> LoadReport:
        """Fill an encoder with released weights; all of them or none.

        Parameters
        ----------
        module : torch.nn.Module
            As made by :meth:`build`. Values are converted to its types and device. One on the
            meta device is only compared with the checkpoint, by names and shapes.
        source : path-like or mapping of str to Tensor
            The released file, or its contents, with the names and wrapping of the release.

        Returns
        -------
        LoadReport

        Raises
        ------
        FileNotFoundError
            If there is no such file.
        CheckpointError
            If the file is damaged or cannot be read safely, or if a tensor that the encoder needs
            is missing, of another shape or type, without values, or not finite in the type of the
            encoder. `module` is then unchanged.

        See Also
        --------
        torch.nn.Module.load_state_dict : ``strict=False`` passes over what it does not find.
        """
        from tumorbench_utils.models import checkpoint

        return checkpoint.load(self, module, source)

    def encode(
        self,
        module: nn.Module,
        patches: Tensor,
        *,
        spec: PatchSpec | None = None,
        batch_size: int = 8,
        autocast: torch.dtype | None = None,
    ) -> Tensor:
        """Return the embeddings of patches; each depends on its own patch only.

        Parameters
        ----------
        module : torch.nn.Module
            As made by :meth:`build`; may be on any device. It runs in evaluation mode.
        patches : Tensor, shape (n, 1, d0, d1, d2)
            Intensities in ``spec.out_range``, axes as in ``spec.orientation``, as
            ``patches.extract_patch`` gives them. May be on another device than `module`.
        spec : PatchSpec, optional
            What the patches were extracted with, if not with the benchmark's ``self.spec``.
        batch_size : int
            Patches per forward pass; changes memory and speed, not the result.
        autocast : torch.dtype, optional
            Run in mixed precision: ``torch.bfloat16`` or ``torch.float16``. Off by default, since
            it changes the embeddings: about the third digit, but for CT-CLIP, whose tokens can
            then fall to other rows of its codebook, a good part of the embedding.

        Returns
        -------
        Tensor, shape (n, dim)
            float32, on the device of `patches`.

        Raises
        ------
        InputError
            If the type, shape or range of `patches` are not those of the specification, if a value
            is not finite, or if `module` gives anything but finite embeddings (n, dim).
        """
        import torch

        self._check_patches(patches, spec or self.spec)
        if not len(patches):
            return torch.empty(0, self.dim, device=patches.device)
        tensors = itertools.chain(module.parameters(), module.buffers())
        device = next((tensor.device for tensor in tensors), patches.device)
        training = [part for part in module.modules() if part.training]
        module.eval()
        results = []
        try:
            mixed = torch.autocast(device.type, autocast, autocast is not None)
            with torch.inference_mode(), mixed:
                for batch in patches.split(operator.index(batch_size)):
                    output = module(batch.to(device, torch.float32))
                    results.append(embeddings_of(self.key, output, len(batch), self.dim))
        finally:
            for part in training:  # not module.train(): some parts may have been in evaluation
                part.training = True
        result = torch.cat(results).to(patches.device, torch.float32)
        wrong = (~torch.isfinite(result).all(dim=1)).nonzero().flatten().tolist()
        if wrong:
            of = f"{len(wrong)} of {len(result)} patches, first {wrong[0]}"
            raise InputError(f"{self.key} gave embeddings that are not finite for {of}")
        return result

    def _check_patches(self, patches: Tensor, spec: PatchSpec) -> None:
        shape, kind = tuple(getattr(patches, "shape", ())), getattr(patches, "dtype", type(patches))
        if shape[1:] != (1, *spec.size) or not getattr(kind, "is_floating_point", False):
            want = f"patches of shape (n, 1, {str(spec.size)[1:]} (float, axes {spec.orientation})"
            raise InputError(f"{self.key} takes {want}; {kind} {shape} came")
        if len(patches):
            ends, (low, high) = spec.out_range, (float(v) for v in patches.detach().aminmax())
            slack = 1e-4 * (ends[1] - ends[0])
            # Also refuses what is not finite: a comparison with NaN is never true.
            if not (low >= ends[0] - slack and high <= ends[1] + slack):
                came = f"the patches run from {low:g} to {high:g}"
                raise InputError(f"{self.key} takes {spec.window_hu} HU scaled to {ends}; {came}")


def embeddings_of(key: str, output: Tensor, n: int, dim: int | None = None) -> Tensor:
    """Return what a network made of `n` patches if it is real and (n, dim), else raise."""
    shape = tuple(getattr(output, "shape", ()))
    fits = len(shape) == 2 and shape[0] == n and shape[1] and dim in (None, shape[1])
    if not fits or output.is_complex():
        want = f"a real tensor ({n}, {dim or 'dim'}); pool maps, as with .mean(dim=(2, 3, 4))"
        came = f"{type(output).__name__} {shape}"
        raise InputError(f"{key} gave {came} for {n} patches, not {want}")
    return output


@functools.cache
def facts() -> dict[str, dict]:
    """Return what ``data/models.yml`` says of the ten, by key, in the order of the benchmark."""
    return yaml.safe_load((settings.BOOK_ROOT / "data" / "models.yml").read_text("utf-8"))


class Published(FoundationModel):
    """One of the ten: card, input and released names stand in ``data/models.yml`` by its key."""

    def __init_subclass__(cls):
        known = facts()[cls.key]
        native = known.get("native_spec")
        cls.card = ModelCard(**known["card"], native_spec=PatchSpec(**native) if native else None)
        cls.spec, cls.dim = PatchSpec(**known["spec"]), known["dim"]
        for name, values in known["release"].items():
            setattr(cls, name, tuple(values))
