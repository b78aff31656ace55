"""The encoders of the benchmark: what each is, how it is built, loaded and run.

Examples
--------
>>> from tumorbench_utils import models
>>> model = models.get_model("suprem")
>>> module = model.build("compact")
>>> model.dim
512
"""

import re

from tumorbench_utils.models.base import FoundationModel, ModelCard
from tumorbench_utils.models.checkpoint import CheckpointError, LoadReport
from tumorbench_utils.models.ct_clip_vit import CTCLIP
from tumorbench_utils.models.ct_fm import CTFM
from tumorbench_utils.models.fmcib import FMCIB
from tumorbench_utils.models.medimageinsight import MedImageInsight
from tumorbench_utils.models.merlin import Merlin
from tumorbench_utils.models.models_genesis import ModelsGenesis
from tumorbench_utils.models.pasta import PASTA
from tumorbench_utils.models.suprem import SuPreM
from tumorbench_utils.models.vista3d import VISTA3D
from tumorbench_utils.models.voco import VoCo
from tumorbench_utils.settings import unknown

__all__ = [
    "MODELS",
    "CheckpointError",
    "FoundationModel",
    "LoadReport",
    "ModelCard",
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


def register(model: FoundationModel) -> None:
    """Add a model to :data:`MODELS` under its key.

    Parameters
    ----------
    model : FoundationModel
        An instance (not the class) of your own subclass, or anything with the same members.

    Raises
    ------
    TypeError
        If it is a class, or lacks something that every model has.
    ValueError
        If the key is not a plain name, or is taken.
    """
    members = ("key", "card", "spec", "dim", "build", "load_checkpoint", "encode")
    lacking = [name for name in members if not hasattr(model, name)]
    if isinstance(model, type):
        raise TypeError(f"register takes an instance: register({model.__name__}())")
    if lacking:
        raise TypeError(f"{type(model).__name__} lacks {', '.join(lacking)}")
    if not isinstance(model.key, str) or not re.fullmatch(r"[\w-]+", model.key):
        raise ValueError(f"the key {model.key!r} is not a plain name (letters, digits, _ and -)")
    if model.key in MODELS:
        raise ValueError(f"there is a model with the key {model.key!r} already")
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
    register(_model)
