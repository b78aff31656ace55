"""The encoders of the benchmark: what each is, how it is built, loaded and run.

Examples
--------
>>> from tumorbench_utils import models
>>> model = models.get_model("suprem")
>>> module = model.build("compact")
>>> model.dim
512
"""

import torch

from tumorbench_utils.models.base import FoundationModel, ModelCard
from tumorbench_utils.models.checkpoint import CheckpointError, LoadReport
from tumorbench_utils.models.checks import check_key
from tumorbench_utils.models.ct_clip_vit import CTCLIP
from tumorbench_utils.models.ct_fm import CTFM
from tumorbench_utils.models.fmcib import FMCIB
from tumorbench_utils.models.medimageinsight import MedImageInsight
from tumorbench_utils.models.merlin import Merlin
from tumorbench_utils.models.models_genesis import ModelsGenesis
from tumorbench_utils.models.own import OwnModel, check_model, from_function, from_module
from tumorbench_utils.models.pasta import PASTA
from tumorbench_utils.models.suprem import SuPreM
from tumorbench_utils.models.vista3d import VISTA3D
from tumorbench_utils.models.voco import VoCo
from tumorbench_utils.settings import unknown

__all__ = [
    "BENCHMARK",
    "MODELS",
    "CheckpointError",
    "FoundationModel",
    "LoadReport",
    "ModelCard",
    "check_model",
    "from_function",
    "from_module",
    "get_model",
    "register",
]


class _Registry(dict):
    """A dictionary that helps with names it does not know."""

    def __missing__(self, name):
        raise KeyError(unknown("model", name, self))


#: All models by key, in the order of the benchmark; your own come last.
MODELS: dict[str, FoundationModel] = _Registry()


def get_model(name: str) -> FoundationModel:
    """Return a model by its key.

    Raises
    ------
    KeyError
        If there is none; the message names the nearest ones.
    """
    return MODELS[name]


def register(model: FoundationModel, *, replace: bool = False) -> None:
    """Add a model to :data:`MODELS` under its key, after a trial on a few made-up patches.

    Parameters
    ----------
    model : FoundationModel
        From :func:`from_module` or :func:`from_function`, an instance (not the class) of your own
        subclass, or anything with the same members.
    replace : bool
        Put it in the place of a model of yours with the same key, as when a cell is run again.

    Raises
    ------
    TypeError
        If it is a class, or lacks something that every model has.
    ValueError
        If the key is not a plain name, or is taken, or if the model fails :func:`check_model`.
    """
    members = ("key", "card", "spec", "dim", "build", "load_checkpoint", "encode")
    if isinstance(model, type):
        raise TypeError(f"register takes an instance: register({model.__name__}())")
    if isinstance(model, torch.nn.Module):
        raise TypeError("register takes a model: register(from_module('a_name', module))")
    lacking = [name for name in members if not hasattr(model, name)]
    if lacking:
        raise TypeError(f"{type(model).__name__} lacks {', '.join(lacking)}")
    check_key(model.key)
    if model.key in BENCHMARK:
        raise ValueError(
            f"there is a model with the key {model.key!r} already, one of the benchmark; choose "
            "another"
        )
    if model.key in MODELS and not replace:
        raise ValueError(
            f"there is a model with the key {model.key!r} already; replace=True puts this one in "
            "its place"
        )
    if not isinstance(model, OwnModel):  # these were tried when they were made
        check_model(model)
    MODELS[model.key] = model


for _model in (
    FMCIB(),
    CTFM(),
    CTCLIP(),
    PASTA(),
    VISTA3D(),
    VoCo(),
    SuPreM(),
    Merlin(),
    MedImageInsight(),
    ModelsGenesis(),
):
    MODELS[_model.key] = _model

#: Keys of the ten; whatever else is registered is somebody's own.
BENCHMARK = tuple(MODELS)
