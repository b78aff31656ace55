"""Models of a user: from a module, from a function, and the trial before they are registered."""

import functools
import pickle
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import SimpleITK as sitk
import torch
from torch import nn

from tumorbench_utils import models
from tumorbench_utils.embeddings import EmbeddingStore, embed
from tumorbench_utils.embeddings.encoders import Encoder, default_encoder
from tumorbench_utils.models.own import answers, check_model, example_patches
from tumorbench_utils.patches import PatchSpec
from tumorbench_utils.plots import WEIGHTS

SPEC = PatchSpec("LPS", (1, 1, 1), (12, 10, 8), (-1000, 1000), (-1, 1))


class Lambda(nn.Module):
    """A network whose forward pass is a function."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


def some(x):
    return x.flatten(1)[:, :5].clone()


def network(*more):
    torch.manual_seed(0)
    pooled = [nn.Conv3d(1, 6, 3), nn.ReLU(), nn.AdaptiveAvgPool3d(1), nn.Flatten()]
    return nn.Sequential(*pooled, *more)


def moments(patch):
    return [patch.mean(), patch.std(), float(patch.max())]


def middle(patch, factor=1.0):
    return factor * patch[:, 5, 4]


@pytest.fixture
def registry(monkeypatch):
    """The registry; what a test adds is taken out again."""
    before = dict(models.MODELS)
    yield models.MODELS
    models.MODELS.clear()
    models.MODELS.update(before)


# Modules and functions that are taken


def test_a_module_becomes_a_model(registry):
    module = network().train()
    model = models.from_module("mine", module, SPEC)
    models.register(model)
    assert models.get_model("mine") is model and list(models.MODELS)[-1] == "mine"
    assert (model.dim, model.spec, model.card.title) == (6, SPEC, "mine")
    assert model.card.parameters == sum(p.numel() for p in module.parameters())
    assert model.build() is model.build("compact", seed=3) is module and not module.training
    x = example_patches(SPEC)
    torch.testing.assert_close(model.encode(model.build(), x), module(x))


def test_a_batch_norm_with_running_statistics_is_no_fault():
    assert models.from_module("mine", network(nn.BatchNorm1d(6)).train(), SPEC).dim == 6


def test_weights_can_be_loaded_into_it():
    other = network(nn.Linear(6, 2)).state_dict()
    model = models.from_module("mine", network(nn.Linear(6, 2)), SPEC)
    report = model.load_checkpoint(model.build(), {"state_dict": other})
    assert sorted(report.matched) == sorted(other)
    with pytest.raises(models.CheckpointError, match="no checkpoint of mine"):
        model.load_checkpoint(model.build(), {"other.weight": torch.zeros(2)})
    with pytest.raises(models.CheckpointError, match="no checkpoint of simple: it has no weights"):
        simple = models.from_function("simple", moments)
        simple.load_checkpoint(simple.build(), {"a": torch.zeros(2)})


def test_a_function_becomes_a_model(registry):
    model = models.from_function("simple", moments, SPEC)
    models.register(model)
    x = example_patches(SPEC)
    expected = np.array([moments(patch) for patch in x[:, 0].numpy()], dtype=np.float32)
    np.testing.assert_array_equal(model.encode(model.build(), x).numpy(), expected)
    assert model.dim == 3 and model.card.parameters == 0


def test_a_function_may_scribble_on_its_patch():
    def scribble(patch):
        patch += 1
        return [patch.mean()]

    model = models.from_function("simple", scribble, SPEC)
    x = example_patches(SPEC)
    before = x.clone()
    torch.testing.assert_close(model.encode(model.build(), x)[:, 0], x.mean((1, 2, 3, 4)) + 1)
    assert torch.equal(x, before)


def test_models_travel_to_other_processes():
    for model in (
        models.from_module("mine", network(), SPEC),
        models.from_function("simple", functools.partial(middle, factor=2), SPEC),
    ):
        back = pickle.loads(pickle.dumps(model))
        x = example_patches(SPEC)
        assert torch.equal(back.encode(back.build(), x), model.encode(model.module, x))


def test_a_card_can_be_given_and_is_completed():
    card = models.ModelCard(title="Our network", licence="MIT")
    model = models.from_module("mine", network(), SPEC, card=card)
    assert (model.card.title, model.card.licence, model.card.access) == (
        "Our network",
        "MIT",
        "own",
    )
    assert model.card.parameters > 0


# What the trial finds

FAULTS = {
    "nan": (lambda x: some(x) / 0 * 0, "nan gave embeddings that are not finite"),
    "infinite": (lambda x: some(x) / 0, "not finite"),
    "nan for air": (
        lambda x: (some(x) - 0.5) * 0 / x.std((1, 2, 3, 4))[:, None],
        r"\(air\).*not finite",
    ),
    "longer": (lambda x: x.flatten(1)[:, : 4 + len(x)], r"\(2, 6\) for 2 patches.*\(2, 5\)"),
    "squeeze": (lambda x: some(x).squeeze(0), r"Tensor \(5,\) for 1 patches.*\(1, "),
    "flat": (lambda x: some(x).flatten(), r"\(5,\) for 1 patches|\(10,\) for 2 patches"),
    "map": (lambda x: x[..., :2, :2, :2], "pool maps"),
    "nothing": (lambda x: some(x)[:, :0], r"\([12], 0\)"),
    "half of them": (lambda x: some(x)[:1], r"\(1, 5\) for 2 patches"),
    "tuple": (lambda x: (some(x), x), "gave a?.?tuple"),
    "none": (lambda x: None, "gave a?.?NoneType"),
    "complex": (lambda x: torch.fft.fft(some(x)), "not a real tensor"),
    "batch mean": (lambda x: some(x) - some(x).mean(0), "depends on the other patches"),
    "batch norm": (
        lambda x: (
            nn.functional.instance_norm(some(x)[None].transpose(1, 2))[0].T.exp()
            if len(x) > 1
            else some(x)
        ),
        "depends on the other patches",
    ),
    "order": (lambda x: some(x) + torch.arange(len(x))[:, None], "depends on the other patches"),
    "dropout": (lambda x: nn.functional.dropout(some(x)), "same patches come again"),
    "in place": (lambda x: some(x.sub_(0.1)), "changes the patches"),
    "three channels": (nn.Conv3d(3, 4, 3), r"fails on .*\(1, 1, 12, 10, 8\).*3 channels"),
    "error": (lambda x: 1 / 0, "ZeroDivisionError"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_faults_of_modules_are_named(fault):
    function, says = FAULTS[fault]
    module = function if isinstance(function, nn.Module) else Lambda(function)
    with pytest.raises(ValueError, match=says) as error:
        models.from_module(fault.replace(" ", "_"), module, SPEC)
    assert fault.replace(" ", "_") in str(error.value)


def test_batch_statistics_in_evaluation_are_found():
    norm = nn.BatchNorm3d(6, track_running_stats=False)
    module = nn.Sequential(nn.Conv3d(1, 6, 3), norm, nn.ReLU(), *network()[2:])
    with pytest.raises(ValueError, match="depends on the other patches in its batch"):
        models.from_module("mine", module, SPEC)


def test_a_module_without_values_is_refused():
    with pytest.raises(ValueError, match="mine fails on made-up patches"):
        models.from_module("mine", network().to("meta"), SPEC)


_CALLS = iter(range(10**6))


@pytest.mark.parametrize(
    ("function", "says"),
    [
        (lambda patch: {"mean": 1.0}, "Cannot cast"),
        (lambda patch: patch.mean(), r"\(1,\) for 1 patches"),
        (lambda patch: patch[0], r"\(1, 10, 8\)"),
        (lambda patch: [], r"\(1, 0\)"),
        (lambda patch: None, "Cannot cast"),
        (lambda patch: "12", "Cannot cast"),
        (lambda patch: np.array([1, None]), "Cannot cast"),
        (lambda patch: [1j], "Cannot cast"),
        (lambda patch: [0, np.nan], "not finite"),
        (lambda patch: [1e300], "not finite"),
        (lambda patch: range(int(20 * patch.mean() + 50)), r"for 1 patches|same shape"),
        (lambda patch: [next(_CALLS)], "same patches come again"),
        (lambda patch: [((patch - patch.mean()) ** 3).mean() / np.ptp(patch)], r"\(air\)"),
        (lambda patch: patch["a"], "IndexError"),
    ],
)
@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning", "ignore:overflow:RuntimeWarning")
def test_faults_of_functions_are_named(function, says):
    with pytest.raises(ValueError, match=says):
        models.from_function("simple", function, SPEC)


@pytest.mark.parametrize(
    ("call", "says"),
    [
        *(
            (lambda w=w: models.from_module("mine", w, SPEC), "takes a torch.nn.Module")
            for w in (3, moments, nn.Linear)
        ),
        *(
            (lambda w=w: models.from_function("mine", w, SPEC), "modules go to from_module")
            for w in (3, nn.Linear, nn.Identity())
        ),
        (lambda: models.register(network()), "from_module"),
        (lambda: models.register("fmcib"), "lacks key, card"),
    ],
)
def test_what_is_no_model_is_refused(call, says):
    with pytest.raises(TypeError, match=says):
        call()


@pytest.mark.parametrize("key", ["", "a/b", "..", "mi ne", "mine\n"])
def test_keys_are_names_of_files(registry, key):
    with pytest.raises(ValueError, match="no plain name"):
        models.register(models.from_function(key, moments, SPEC))


# The registry


def test_a_key_is_given_once_unless_it_is_replaced(registry):
    first, second = (models.from_function("simple", f, SPEC) for f in (moments, middle))
    models.register(first)
    with pytest.raises(ValueError, match="already; choose another, or replace"):
        models.register(second)
    models.register(second, replace=True)
    assert models.get_model("simple") is second
    taken = models.from_function("fmcib", moments, SPEC)
    for replace in (False, True):
        with pytest.raises(ValueError, match="already; choose another"):
            models.register(taken, replace=replace)


class Subclass(models.FoundationModel):
    """A model of its own class, with a network that is told what to do wrong."""

    key, dim, spec, card = "sub", 5, SPEC, models.ModelCard(title="Sub")

    def __init__(self, forward):
        self.forward = forward

    def network(self, size):
        return Lambda(self.forward)


@pytest.mark.parametrize("fault", [f for f in FAULTS if f not in ("three channels", "error")])
def test_register_tries_a_subclass(registry, fault):
    with pytest.raises(ValueError, match="sub"):
        models.register(Subclass(FAULTS[fault][0]))
    assert "sub" not in models.MODELS


def test_register_takes_a_sound_subclass_and_checks_its_length(registry):
    models.register(Subclass(some))
    assert models.get_model("sub").dim == 5
    wrong = Subclass(some)
    wrong.key, wrong.dim = "odd", 4
    with pytest.raises(ValueError, match=r"\(2, 5\) for 2 patches, not a real tensor \(2, 4\)"):
        models.register(wrong)


@pytest.mark.parametrize("key", ["suprem", "pasta", "merlin", "ct_clip_vit"])
def test_published_models_pass_the_trial(key):
    check_model(models.get_model(key))


# In a store


@pytest.fixture
def cohort(tmp_path):
    """Two lesions in a scan of noise between -1000 and 500 HU."""
    values = np.random.default_rng(0).integers(-1000, 500, (60, 60, 60)).astype(np.int16)
    path = str(tmp_path / "scan.nii")
    sitk.WriteImage(sitk.GetImageFromArray(values), path)
    table = pd.DataFrame({"lesion_id": ["a", "b"], "scan_id": "scan", "image_path": path})
    table = table.assign(coord_x=[25.0, 35.0], coord_y=30.0, coord_z=30.0)
    return SimpleNamespace(card=SimpleNamespace(key="noise"), edition="phantom", table=table)


def test_stored_features_follow_the_function(registry, tmp_path, cohort):
    store = EmbeddingStore(tmp_path / "store")

    def run(function):
        models.register(models.from_function("simple", function), replace=True)
        report = embed(cohort, ["simple"], store, progress=False)
        return len(report.done), store.read(cohort, "simple")

    done, first = run(functools.partial(np.quantile, q=[0.2, 0.8]))
    assert done == 2
    assert run(functools.partial(np.quantile, q=[0.2, 0.8]))[0] == 0
    done, second = run(functools.partial(np.quantile, q=[0.3, 0.8]))
    assert done == 2 and (second["f0"] > first["f0"]).all()


def test_stored_embeddings_follow_weights_and_layers(registry):
    metas = []
    for activation in (nn.ReLU(), nn.Tanh()):
        module = network(activation)
        model = models.from_module("mine", module)
        metas.append(Encoder(model).meta())
        with torch.no_grad():
            module[0].bias += 1
        metas.append(Encoder(model).meta())
    assert len({meta["checkpoint"] for meta in metas}) == 4


def test_answers_follow_what_a_look_at_the_class_does_not_find(registry):
    """A helper of the network changes: its class, its source and its tensors stay."""
    factor = {"value": 1.0}
    metas = []
    for factor["value"] in (1.0, 1.0, 1.01):
        module = Lambda(lambda x: factor["value"] * some(x).clamp(max=0.5))
        metas.append(Encoder(models.from_module("mine", module, SPEC)).meta()["answers"])
    assert metas[0] == metas[1] != metas[2]
    assert metas[2] == answers(models.from_module("mine", module, SPEC), module)


@pytest.mark.parametrize("edition", ["phantom", "released", "full"])
def test_the_network_of_a_user_is_used_in_every_edition(edition):
    model = models.from_module("mine", network())
    encoder = default_encoder(model, edition)
    assert encoder.load() is model.module
    assert encoder.weights == "own weights" and encoder.weights in WEIGHTS
