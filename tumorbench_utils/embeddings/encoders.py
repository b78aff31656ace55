"""Which network with which weights: what :func:`embed` is told and what a worker builds."""

from __future__ import annotations

import dataclasses
import functools
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tumorbench_utils import digests
from tumorbench_utils.checks import require
from tumorbench_utils.embeddings.code import made_by, own_code
from tumorbench_utils.models import MODELS, FoundationModel, get_model, own, teaching, weights

if TYPE_CHECKING:
    from torch.nn import Module


@dataclass(frozen=True)
class Encoder:
    """A model and where its weights come from: a recipe that any process can follow.

    Parameters
    ----------
    model : FoundationModel
        A model of a user (``models.from_module``) brings its network with it.
    size : {"full", "compact"}
    checkpoint : Path, optional
        File to load; untrained if None.
    module : torch.nn.Module, optional
        A network that exists already; then `size` and `checkpoint` do not matter.
    """

    model: FoundationModel
    size: str = "compact"
    checkpoint: Path | None = None
    module: Module | None = None

    def __post_init__(self):
        if self.module is None and isinstance(self.model, own.OwnModel):
            object.__setattr__(self, "module", self.model.module)

    @property
    def weights(self) -> str:
        """The label for figures and tables, one of ``plots.WEIGHTS``."""
        if self.module is not None:
            return "own weights"
        if self.checkpoint is None:
            return "untrained"
        return "teaching encoder" if self.size == "compact" else "released weights"

    def meta(self) -> dict:
        """Return what decides the embeddings, as plain values: the meta of a store entry."""
        facts = {
            "model": self.model.key,
            "patch": dataclasses.asdict(self.model.spec),
            "grid": "exact",
            "weights": self.weights,
            **made_by(type(self.model)),
        }
        if isinstance(self.model, own.OwnModel):
            facts["answers"] = _answers(self.model, self.module)
        if self.module is not None:
            return {**facts, "checkpoint": module_digest(self.module)}
        checkpoint = "untrained" if self.checkpoint is None else digests.of_file(self.checkpoint)
        return {**facts, "size": self.size, "checkpoint": checkpoint}

    def load(self) -> Module:
        """Return the network in evaluation mode on the CPU.

        Raises
        ------
        FileNotFoundError, models.CheckpointError
            If the checkpoint is absent or not that of the model.
        """
        if self.module is not None:
            return self.module.eval()
        # With a seed, for the compact encoders bring their teaching weights otherwise.
        fresh = {"seed": 0} if teaching.has(self.model) else {}
        module = self.model.build(self.size, **fresh)
        if self.checkpoint is not None:
            self.model.load_checkpoint(module, self.checkpoint)
        return module


def default_encoder(model: FoundationModel, edition: str) -> Encoder:
    """Return the encoder that an edition uses.

    Phantom edition: the compact encoder with the teaching weights of the book
    (``data/encoders/KEY.safetensors``); a model that has none is untrained. Other editions: the
    full encoder with the released file, if :func:`tumorbench_utils.models.weights.find` finds it;
    nothing is downloaded.
    A model of a user (``models.from_module``): its network as it is, in every edition.

    Raises
    ------
    FileNotFoundError
        If the released file is needed and not there.
    CheckpointError
        If the teaching weights are missing or altered.
    WeightsError
        If it is not the file that was there before.
    """
    if isinstance(model, own.OwnModel):
        return Encoder(model)
    if edition == "phantom":
        return Encoder(model, "compact", teaching.find(model.key) if teaching.has(model) else None)
    what = (
        f"the released weights of {model.key} ({model.card.file!r}) are needed: `tumorbench "
        f"weights fetch {model.key}`, or put them into the folder TUMORBENCH_WEIGHTS"
    )
    require(weights.find(model.key), what, error=FileNotFoundError)
    return Encoder(model, "full", weights.fetch(model.key))


def as_encoders(models, edition: str) -> dict[str, Encoder]:
    """Return the encoder of each item of a list of models by key; see :func:`embed` for the items.

    Raises
    ------
    TypeError, ValueError
        If `models` is no list of models, empty, or names one twice.
    KeyError
        If a name is not known.
    """
    single = isinstance(models, str | FoundationModel | Encoder)
    require(not single, "models is a list; put the one model into a list", error=TypeError)
    encoders = [_encoder(item, edition) for item in models]
    keys = [encoder.model.key for encoder in encoders]
    require(keys, f"no models given; known are {', '.join(MODELS)}")
    require(len(set(keys)) == len(keys), f"a model is given more than once: {', '.join(keys)}")
    return dict(zip(keys, encoders, strict=True))


def _encoder(item, edition: str) -> Encoder:
    if isinstance(item, Encoder):
        return item
    model, *module = item if isinstance(item, tuple) else (item,)
    model = get_model(model) if isinstance(model, str) else model
    sound = isinstance(model, FoundationModel) and all(hasattr(m, "state_dict") for m in module)
    what = f"a model is a name, a FoundationModel or a (model, module) pair, not {item!r:.80}"
    require(sound, what, error=TypeError)
    return Encoder(model, module=module[0]) if module else default_encoder(model, edition)


@functools.lru_cache(maxsize=8)
def _answers(model: FoundationModel, module: Module) -> str:
    """Return ``own.answers``, asked once: a second run shall not call the network again."""
    return own.answers(model, module)


def module_digest(module: Module) -> str:
    """Return a digest of a network: its layers as printed, a user's code, and all its tensors."""
    import torch

    digest = [repr(module), own_code(*{type(part) for part in module.modules()})]
    for name, tensor in sorted(module.state_dict().items()):
        values = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()
        digest.append((name, str(tensor.dtype), tuple(tensor.shape), values))
    return digests.of(digest)
