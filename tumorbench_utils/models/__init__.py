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

from tumorbench_utils.checks import InputError
from tumorbench_utils.models.base import CheckpointError, FoundationModel, LoadReport
from tumorbench_utils.models.base import ModelCard as ModelCard
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
    "MODELS",
    "CheckpointError",
    "FoundationModel",
    "LoadReport",
    "from_function",
    "from_module",
    "get_model",
    "register",
]


class _Registry(dict):
    """A dictionary that helps with names it does not know."""

    def __missing__(self, name):
        raise KeyError(unknown("model", name, self))


_TEN = (FMCIB, CTFM, CTCLIP, PASTA, VISTA3D, VoCo, SuPreM, Merlin, MedImageInsight, ModelsGenesis)

#: All models by key, in the order of the benchmark; your own come last.
MODELS: dict[str, FoundationModel] = _Registry((kind.key, kind()) for kind in _TEN)

#: Keys of the ten; whatever else is registered is somebody's own.
BENCHMARK = tuple(MODELS)


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
    InputError
        If the key is not a plain name, or is taken, or if the model fails the trial.
    """
    members = ("key", "card", "spec", "dim", "build", "load_checkpoint", "encode")
    lacking = [name for name in members if not hasattr(model, name)]
    if lacking or isinstance(model, type):
        want = "register takes an instance: register(MyModel()), register(from_module(key, module))"
        raise TypeError(f"{want}; {repr(model)[:80]} lacks {', '.join(lacking) or 'its arguments'}")
    if not re.fullmatch(r"[\w-]+", str(model.key)):  # it becomes the name of files
        raise InputError(f"the key {model.key!r} is no plain name (letters, digits, _ and -)")
    if model.key in BENCHMARK or (model.key in MODELS and not replace):
        hint = "choose another, or replace one of your own with replace=True"
        raise InputError(f"there is a model with the key {model.key!r} already; {hint}")
    if not isinstance(model, OwnModel):  # these were tried when they were made
        check_model(model)
    MODELS[model.key] = model
