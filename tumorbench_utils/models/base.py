"""What every encoder of the benchmark is: a card, an input, an architecture and its checkpoint.

A :class:`FoundationModel` holds facts and no weights. ``build`` makes a ``torch.nn.Module`` whose
forward pass takes patches (n, 1, d0, d1, d2) and returns embeddings (n, dim); ``load_checkpoint``
fills it from the released file; ``encode`` is the forward pass with checked input.
"""

import contextlib
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from tumorbench_utils.models.checkpoint import (
    CheckpointError,
    LoadReport,
    flatten,
    matches,
    read_checkpoint,
    some,
)
from tumorbench_utils.patches import PatchSpec
from tumorbench_utils.settings import unknown

SIZES = ("full", "compact")


@dataclass(frozen=True, kw_only=True)
class ModelCard:
    """Facts about a released model. None means: not known to us.

    Attributes
    ----------
    title : str
        Name as its authors write it.
    paper : str
        Authors, title and venue.
    year : int
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
    access : {"open", "gated"}
        Whether the file can be had without an account.
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
    paper: str
    year: int
    doi: str | None
    citation: str
    strategy: str
    data: str
    licence: str
    allows: str
    access: str
    gate: str = ""
    source: str
    file: str
    repo: str | None = None
    repo_type: str = "model"
    url: str | None = None
    file_bytes: int | None = None
    native_input: str
    native_spec: PatchSpec | None
    parameters: int


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
        each is also tried after ``module.``. No prefix at all is tried last.
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

    def build(self, size: str = "full", seed: int = 0) -> nn.Module:
        """Return an untrained encoder in evaluation mode, on the CPU (or the meta device).

        Parameters
        ----------
        size : {"full", "compact"}
            ``"full"`` is the released architecture, tensor by tensor. ``"compact"`` is the
            teaching encoder: the same family with fewer and narrower layers.
        seed : int
            The weights are a function of `seed`; torch's global random state is not touched.

        Raises
        ------
        ValueError
            If `size` is neither of the two.
        """
        if size not in SIZES:
            raise ValueError(unknown("size", size, SIZES))
        # Inside ``torch.device("meta")`` names and shapes come without memory.
        device = "meta" if torch.get_default_device().type == "meta" else "cpu"
        with torch.random.fork_rng(devices=[]), torch.device(device):
            torch.default_generator.manual_seed(seed)
            return self.network(size).eval()

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
            As made by :meth:`build`. Values are converted to its types and device.
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
            is missing, of another shape or type, or not finite. `module` is then unchanged.
        """
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
        with torch.no_grad():
            for name, released_name in names.items():
                own[name].copy_(released[released_name])
        matched = list(names.values())
        left = [n for n in released if n not in set(matched)]
        ignored = [n for n in left if matches(n, self.unused)]
        return LoadReport(
            matched=matched,
            missing=[n for n in own if n not in names],
            unexpected=[n for n in left if n not in set(ignored)],
            ignored=ignored,
        )

    def _find(self, own: Mapping, released: Mapping) -> tuple[dict[str, str], str]:
        """Return {own name: released name} under the prefix that explains most, and the prefix."""
        prefixes = [outer + p for p in self.prefixes for outer in ("", "module.")] + [""]
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
        missing = [n for n in needed if n not in names]
        if len(missing) == len(needed):
            expected = f"{prefix}{needed[0]}" if needed else "none"
            raise CheckpointError(
                f"{where} is no checkpoint of {self.key}: none of its {len(needed)} tensors is in "
                f"it. Expected names like {expected!r} ({self.card.file}); "
                f"came {some(map(repr, released))}"
            )
        problems = [f"missing: {some(prefix + n for n in missing)}"] if missing else []
        for name, released_name in names.items():
            want, came = own[name], released[released_name]
            if want.shape != came.shape:
                problems.append(
                    f"{released_name}: shape {tuple(want.shape)} expected, {tuple(came.shape)} came"
                )
            elif want.is_floating_point() != came.is_floating_point():
                problems.append(f"{released_name}: type {want.dtype} expected, {came.dtype} came")
            elif came.is_floating_point() and not torch.isfinite(came).all():
                problems.append(f"{released_name}: holds values that are not finite")
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
            Run in mixed precision, for example ``torch.bfloat16``. Off by default, since it
            changes the embeddings (about the third digit).

        Returns
        -------
        Tensor, shape (n, dim)
            float32, on the device of `patches`.

        Raises
        ------
        TypeError
            If `patches` is not a floating-point tensor.
        ValueError
            If shape, channels or range are not those of the specification, if a value is not
            finite, or if `batch_size` is not positive.
        """
        spec = spec or self.spec
        self._check_patches(patches, spec)
        if isinstance(batch_size, bool) or not isinstance(batch_size, int) or batch_size < 1:
            raise ValueError(f"batch_size is a positive integer, not {batch_size!r}")
        device = next((p.device for p in module.parameters()), patches.device)
        result = torch.empty(len(patches), self.dim, device=patches.device)
        mixed = torch.autocast(device.type, autocast, enabled=autocast is not None)
        with _evaluating(module), torch.inference_mode(), mixed:
            for start in range(0, len(patches), batch_size):
                batch = patches[start : start + batch_size].to(device, torch.float32)
                output = module(batch)
                if output.shape != (len(batch), self.dim):
                    raise ValueError(
                        f"{self.key} gave embeddings of shape {tuple(output.shape)} for patches of "
                        f"shape {tuple(batch.shape)}; ({len(batch)}, {self.dim}) was expected"
                    )
                result[start : start + batch_size] = output.to(result)
        if not torch.isfinite(result).all():
            raise ValueError(f"{self.key} gave embeddings that are not finite; check its weights")
        return result

    def _check_patches(self, patches: Tensor, spec: PatchSpec) -> None:
        if not isinstance(patches, Tensor):
            raise TypeError(
                f"patches is a torch.Tensor, not {type(patches).__name__}; "
                "use torch.from_numpy(numpy.stack(...))[:, None]"
            )
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
