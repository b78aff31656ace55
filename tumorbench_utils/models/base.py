"""What every encoder of the benchmark is: a card, an input, an architecture and its checkpoint.

A :class:`FoundationModel` holds facts and no weights. ``build`` makes a ``torch.nn.Module`` whose
forward pass takes patches (n, 1, d0, d1, d2) and returns embeddings (n, dim); ``load_checkpoint``
fills it from the released file; ``encode`` is the forward pass with checked input.
"""

import contextlib
import numbers
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from tumorbench_utils.models import teaching
from tumorbench_utils.models.checkpoint import (
    WRAPPERS,
    CheckpointError,
    LoadReport,
    flatten,
    matches,
    read_checkpoint,
    some,
    unusable,
)
from tumorbench_utils.models.checks import check_output, check_seed, device_of
from tumorbench_utils.patches import PatchSpec
from tumorbench_utils.settings import unknown

SIZES = ("full", "compact")


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
    repo : str or None
        Hugging Face repository, if it lies there.
    repo_type : {"model", "dataset"}
    url : str or None
        Direct address of the file, if it lies elsewhere and the address is known.
    file_bytes : int or None
        Size of the file.
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
    repo: str | None = None
    repo_type: str = "model"
    url: str | None = None
    file_bytes: int | None = None
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
        raise NotImplementedError(f"{type(self).__name__} does not say how its network is built")

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
            `seed` (not negative). Without one, ``"full"`` takes 0, and so does ``"compact"`` of a
            model for which the book ships no weights. torch's global random state is not touched.

        Raises
        ------
        ValueError
            If `size` is neither of the two, or `seed` is not such a number.
        CheckpointError
            If the weights of the teaching encoder are missing or altered; the message has the
            command that makes them again.
        """
        if not isinstance(size, str) or size not in SIZES:
            raise ValueError(unknown("size", size, SIZES))
        trained = size == "compact" and seed is None and teaching.has(self)
        seed = check_seed(0 if seed is None else seed)
        # Inside ``torch.device("meta")`` names and shapes come without memory.
        device = "meta" if torch.get_default_device().type == "meta" else "cpu"
        with torch.random.fork_rng(devices=[]), torch.device(device):
            torch.default_generator.manual_seed(seed)
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
            If the file is not one that can be read safely, or if a tensor that the encoder needs
            is missing, of another shape or type, without values, or not finite in the type of the
            encoder. `module` is then unchanged.
        TypeError
            If `module` is no module, or `source` neither path nor mapping.
        """
        if not isinstance(module, nn.Module):
            raise TypeError(
                f"module is a torch.nn.Module as made by build(), not {type(module).__name__}"
            )
        if isinstance(source, Mapping):
            where, content = "the state dict", source
        elif isinstance(source, (str, os.PathLike)):
            where, content = os.fspath(source), read_checkpoint(source)
        else:
            raise TypeError(f"source is a path or a mapping, not {type(source).__name__}")
        try:
            released = flatten(content, self.containers)
        except CheckpointError as error:
            raise CheckpointError(f"{where} is no checkpoint of {self.key}: {error}") from None
        own = module.state_dict()
        names, prefix = self._find(own, released)
        needed = [n for n in own if not matches(n, self.optional)]
        self._check(where, own, needed, released, names, prefix)
        # What nobody reads does no harm in any shape, and no good either.
        useless = {r for n, r in names.items() if unusable(own[n], released[r])}
        names = {n: r for n, r in names.items() if r not in useless}
        with torch.no_grad():
            for name, released_name in names.items():
                own[name].copy_(released[released_name])
        matched = list(names.values())
        left = [n for n in released if n not in set(matched)]
        ignored = [n for n in left if n in useless or matches(n, self.unused)]
        return LoadReport(
            matched=matched,
            missing=[n for n in own if n not in names],
            unexpected=[n for n in left if n not in set(ignored)],
            ignored=ignored,
        )

    def _find(self, own: Mapping, released: Mapping) -> tuple[dict[str, str], str]:
        """Return {own name: released name} under the prefix that explains most, and the prefix."""
        prefixes = [outer + p for p in self.prefixes for outer in WRAPPERS]
        # Not "module." alone: what a model keeps under another prefix is another's under this one.
        prefixes += ["_orig_mod.", ""]
        best: dict[str, str] = {}
        chosen = prefixes[0]
        for prefix in dict.fromkeys(prefixes):
            found = {}
            for name in released:
                mine = self.own_name(name, prefix)
                if mine in own:
                    found.setdefault(mine, name)
            if len(found) > len(best):
                best, chosen = found, prefix
        return best, chosen

    def _check(self, where, own, needed, released, names, prefix) -> None:
        """Raise if a checkpoint does not hold what the encoder needs."""
        if not needed:
            raise CheckpointError(f"{self.key} has no weights to load")
        missing = [n for n in needed if n not in names]
        if len(missing) == len(needed):
            file = f" ({self.card.file})" if self.card.file else ""
            raise CheckpointError(
                f"{where} is no checkpoint of {self.key}: none of its {len(needed)} tensors is in "
                f"it. Expected names like {prefix + needed[0]!r}{file}; "
                f"came {some(map(repr, released))}"
            )
        problems = [f"missing: {some(prefix + n for n in missing)}"] if missing else []
        for name in needed:
            if name in names and (why := unusable(own[name], released[names[name]])):
                problems.append(f"{names[name]}: {why}")
        if problems:
            raise CheckpointError(
                f"{where} does not fit this {self.key} encoder ({len(names)} of {len(own)} tensors "
                f"found, {len(missing)} missing). {'; '.join(problems[:20])}"
                + (f"; and {len(problems) - 20} more" if len(problems) > 20 else "")
            )

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
        TypeError
            If `patches` is not a dense floating-point tensor, `module` no module, or `spec` no
            PatchSpec.
        ValueError
            If shape, channels or range are not those of the specification, if a value is not
            finite, if `batch_size` is not positive or `autocast` no 16-bit type, if `module` has
            no values (meta device), or if it gives anything but finite embeddings (n, dim).
        """
        spec = self.spec if spec is None else spec
        self._check_patches(patches, spec)
        batch_size = self._check_run(module, batch_size, autocast)
        device = device_of(module, patches.device)
        result = torch.empty(len(patches), self.dim, device=patches.device)
        mixed = torch.autocast(device.type, autocast, enabled=autocast is not None)
        with _evaluating(module), torch.inference_mode(), mixed:
            for start in range(0, len(patches), batch_size):
                batch = patches[start : start + batch_size].to(device, torch.float32)
                output = check_output(self.key, module(batch), len(batch), self.dim)
                result[start : start + batch_size] = output.to(result)
        wrong = (~torch.isfinite(result).all(dim=1)).nonzero().flatten().tolist()
        if wrong:
            raise ValueError(
                f"{self.key} gave embeddings that are not finite for {len(wrong)} of "
                f"{len(result)} patches ({some(map(str, wrong))}); check its weights"
            )
        return result

    def _check_run(self, module, batch_size, autocast) -> int:
        """Return the batch size after a look at what `encode` is told beside the patches."""
        if not isinstance(module, nn.Module):
            raise TypeError(
                f"module is a torch.nn.Module as made by build(), not {type(module).__name__}"
            )
        whole = isinstance(batch_size, numbers.Integral) and not isinstance(batch_size, bool)
        if not whole or batch_size < 1:
            raise ValueError(f"batch_size is a positive integer, not {batch_size!r}")
        half = (torch.float16, torch.bfloat16)
        if autocast is not None and autocast not in half:
            raise ValueError(f"autocast is torch.float16 or torch.bfloat16, not {autocast!r}")
        return int(batch_size)

    def _check_patches(self, patches: Tensor, spec: PatchSpec) -> None:
        if not isinstance(spec, PatchSpec):
            raise TypeError(f"spec is a PatchSpec, not {type(spec).__name__}")
        if not isinstance(patches, Tensor):
            raise TypeError(
                f"patches is a torch.Tensor, not {type(patches).__name__}; "
                "use torch.from_numpy(numpy.stack(...))[:, None]"
            )
        if patches.layout != torch.strided or patches.is_meta:
            raise TypeError("patches is a dense tensor with values, not a sparse or meta one")
        if not patches.is_floating_point():
            raise TypeError(f"patches are floating-point numbers, not {patches.dtype}")
        want = (1, *spec.size)
        if patches.ndim != 5 or tuple(patches.shape[1:]) != want:
            raise ValueError(
                f"{self.key} takes patches of shape (n, {', '.join(map(str, want))}): one channel, "
                f"axes {spec.orientation}; {tuple(patches.shape)} came"
            )
        if not len(patches):
            return
        low, high = (float(v) for v in torch.aminmax(patches.detach()))
        if not (low > -float("inf") and high < float("inf")):
            raise ValueError(f"patches for {self.key} hold values that are not finite")
        slack = 1e-4 * (spec.out_range[1] - spec.out_range[0])
        if low < spec.out_range[0] - slack or high > spec.out_range[1] + slack:
            raise ValueError(
                f"{self.key} takes {spec.window_hu} HU scaled to {spec.out_range}; the patches run "
                f"from {low:g} to {high:g}. Extract them with the spec of the model"
            )


@contextlib.contextmanager
def _evaluating(module: nn.Module) -> Iterator[None]:
    """Switch a module to evaluation mode and back, part by part."""
    training = [part for part in module.modules() if part.training]
    module.eval()
    try:
        yield
    finally:
        for part in training:
            part.training = True
