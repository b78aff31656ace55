"""Which network with which weights: what :func:`embed` is told and what a worker builds."""

import dataclasses
import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from tumorbench_utils import digests
from tumorbench_utils.embeddings.code import class_source, made_by
from tumorbench_utils.models import MODELS, FoundationModel, get_model, teaching, weights
from tumorbench_utils.models.own import OwnModel


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
    module: torch.nn.Module | None = None

    def __post_init__(self):
        if self.module is None and isinstance(self.model, OwnModel):
            object.__setattr__(self, "module", self.model.module)

    @property
    def weights(self) -> str:
        """The label for figures and tables, one of ``plots.WEIGHTS``."""
        if self.module is not None:
            return "own weights"
        if self.checkpoint is None:
            return "untrained"
        return "teaching encoder" if self.size == "compact" else "released weights"

    def meta(self, grid: str = "exact") -> dict:
        """Return what decides the embeddings, as plain values: the meta of a store entry."""
        facts = {
            "model": self.model.key,
            "patch": dataclasses.asdict(self.model.spec),
            "grid": grid,
            **made_by(type(self.model)),
        }
        if self.module is not None:
            return {**facts, "weights": self.weights, "checkpoint": module_sha256(self.module)}
        checkpoint = "untrained" if self.checkpoint is None else digests.of_file(self.checkpoint)
        return {**facts, "weights": self.weights, "size": self.size, "checkpoint": checkpoint}

    def load(self) -> torch.nn.Module:
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
    if isinstance(model, OwnModel):
        return Encoder(model)
    if edition == "phantom":
        return Encoder(model, "compact", teaching.find(model.key) if teaching.has(model) else None)
    path = weights.find(model.key)
    if path is None:
        raise FileNotFoundError(
            f"the {edition} edition needs the released weights of {model.key} "
            f"({model.card.file!r}): run `tumorbench weights fetch {model.key}`, put the file into "
            "the folder TUMORBENCH_WEIGHTS, or hand over (model, module) pairs"
        )
    return Encoder(model, "full", weights.fetch(model.key))


def as_encoders(models, edition: str) -> list[Encoder]:
    """Return one encoder for each item of a list of models; see :func:`embed` for the items.

    Raises
    ------
    TypeError, ValueError
        If `models` is no list of models, empty, or names one twice.
    KeyError
        If a name is not known.
    """
    if isinstance(models, (str, FoundationModel, Encoder)):
        raise TypeError("models is a list; put the one model into a list")
    encoders = []
    for item in models:
        if isinstance(item, Encoder):
            encoders.append(item)
        elif isinstance(item, tuple):
            if len(item) != 2 or not isinstance(item[1], torch.nn.Module):
                raise TypeError(f"a pair is (model, torch.nn.Module), not {item!r}")
            encoders.append(Encoder(_model(item[0]), module=item[1]))
        else:
            encoders.append(default_encoder(_model(item), edition))
    keys = [encoder.model.key for encoder in encoders]
    if not keys:
        raise ValueError(f"no models given; known are {', '.join(MODELS)}")
    twice = [key for key in keys if keys.count(key) > 1]
    if twice:
        raise ValueError(f"the model {twice[0]!r} is given more than once")
    return encoders


def _model(item) -> FoundationModel:
    if isinstance(item, FoundationModel):
        return item
    if isinstance(item, str):
        return get_model(item)
    raise TypeError(
        f"a model is a name, a FoundationModel or a (model, module) pair, not {type(item).__name__}"
    )


def module_sha256(module: torch.nn.Module) -> str:
    """Return the SHA-256 of a network: its layers as printed, their code, and all its tensors."""
    digest = hashlib.sha256(repr(module).encode())
    kinds = {type(part) for part in module.modules()}
    own = [kind for kind in kinds if kind.__module__.split(".")[0] != "torch"]
    digest.update("\n".join(sorted(map(class_source, own))).encode())
    for name, tensor in sorted(module.state_dict().items()):
        values = tensor.detach().cpu().contiguous()
        digest.update(f"{name} {values.dtype} {tuple(values.shape)}".encode())
        digest.update(values.reshape(-1).view(torch.uint8).numpy() if values.numel() else b"")
    return digest.hexdigest()


def stack(patches: list[np.ndarray]) -> torch.Tensor:
    """Return patches as a tensor (n, 1, d0, d1, d2)."""
    return torch.from_numpy(np.stack(patches)[:, None])
