"""The registry, the exact tensors of all ten encoders, building, encoding and loading."""

import copy
import gzip
import json
import pickle
import subprocess
import sys
import zipfile

import jsonschema
import numpy as np
import pytest
import safetensors.torch
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from tumorbench_utils import models, settings
from tumorbench_utils.checks import InputError
from tumorbench_utils.models import CheckpointError, base, get_model, weights
from tumorbench_utils.models.networks import unet3d
from tumorbench_utils.patches import PatchSpec

#: Model: file of its facts, and the prefix of its tensors in the released checkpoint.
FACTS = {
    "fmcib": ("FMCIB", ""),
    "ct_fm": ("CT-FM", "encoder."),
    "ct_clip_vit": ("CT-CLIP-ViT", "visual_transformer."),
    "pasta": ("PASTA", "module."),
    "vista3d": ("VISTA3D", "image_encoder.encoder."),
    "voco": ("VoCo", "swinViT."),
    "suprem": ("SuPreM", "module.backbone."),
    "merlin": ("Merlin", "encode_image.i3_resnet."),
    "medimageinsight": ("MedImageInsight", "image_encoder."),
    "models_genesis": ("ModelsGenesis", "module."),
}
TEN = pytest.mark.parametrize("key", FACTS)


@pytest.fixture(scope="module")
def compact():
    """One compact encoder per model, built when first asked for."""
    built = {}
    return lambda key: built.setdefault(key, get_model(key).build("compact", seed=0))


def patches(model, n, seed=0):
    low, high = model.spec.out_range
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(n, 1, *model.spec.size, generator=generator) * (high - low) + low


# The registry


def test_the_ten_are_there_in_order():
    assert list(models.MODELS) == list(FACTS)
    assert all(get_model(key) is model for key, model in models.MODELS.items())
    assert all(key == model.key for key, model in models.MODELS.items())


@pytest.mark.parametrize("look_up", [get_model, lambda name: models.MODELS[name]])
def test_unknown_names_get_the_nearest(look_up):
    with pytest.raises(KeyError, match="did you mean fmcib"):
        look_up("fmcb")
    with pytest.raises(KeyError, match="did you mean models_genesis"):
        look_up("Models_Genesys")
    with pytest.raises(KeyError, match="known are fmcib, ct_fm"):
        look_up(None)


def test_your_own_model_is_registered_built_and_run(monkeypatch):
    class Mean(models.FoundationModel):
        key, dim, card = "mean_hu", 1, get_model("suprem").card
        spec = PatchSpec(size=(4, 4, 4))

        def network(self, size):
            return torch.nn.Sequential(torch.nn.AdaptiveAvgPool3d(1), torch.nn.Flatten())

    with pytest.raises(TypeError, match=r"register\(MyModel\(\)\)"):
        models.register(Mean)
    monkeypatch.setitem(models.MODELS, "mean_hu", None)  # is put back as it was: absent
    del models.MODELS["mean_hu"]
    models.register(Mean())
    model = get_model("mean_hu")
    x = torch.rand(3, 1, 4, 4, 4)
    torch.testing.assert_close(model.encode(model.build(), x), x.mean(dim=(2, 3, 4)))
    with pytest.raises(ValueError, match="already"):
        models.register(Mean())


def test_register_refuses_what_is_no_model():
    with pytest.raises(TypeError, match="lacks key, card"):
        models.register("fmcib")
    odd = copy.copy(get_model("suprem"))
    odd.key = "../etc"
    with pytest.raises(ValueError, match="no plain name"):
        models.register(odd)


def test_the_data_follow_their_schema():
    schema = json.loads((settings.BOOK_ROOT / "data" / "models.schema.json").read_text("utf-8"))
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.validate(base.facts(), schema)
    assert list(base.facts()) == list(models.MODELS) == list(weights.addresses())


@TEN
def test_a_card_says_what_its_data_say(key):
    model, known = get_model(key), base.facts()[key]
    assert {name: getattr(model.card, name) for name in known["card"]} == known["card"]
    assert (model.card.native_spec is None) == ("native_spec" not in known)
    assert isinstance(model.spec, PatchSpec) and model.prefixes == tuple(
        known["release"]["prefixes"]
    )
    address = weights.addresses()[key]
    assert ("repo" in address) != ("url" in address), "one place to fetch from"


def test_cards_are_read_without_torch():
    code = "import sys, tumorbench_utils.models as m; assert 'torch' not in sys.modules; "
    code += "assert m.get_model('suprem').card.title; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


# Exact tensors


@TEN
def test_full_models_have_the_tensors_of_the_release(key, reference):
    name, prefix = FACTS[key]
    facts = json.loads((reference / "models" / "specs" / f"{name}.json").read_text("utf-8"))
    model = get_model(key)
    with torch.device("meta"):
        module = model.build("full")
    assert all(t.is_meta for t in module.state_dict().values())
    own = [
        [prefix + n if n != "image_projection" else n, list(t.shape), str(t.dtype)[6:]]
        for n, t in module.state_dict().items()
    ]
    assert sorted(own) == sorted(facts["state_dict"])
    parameters = sum(p.numel() for p in module.parameters())
    assert parameters == facts["params"]["encoder"] == model.card.parameters
    assert model.dim == facts["output"]["dim"]


@TEN
def test_input_is_that_of_the_benchmark(key, reference):
    facts = json.loads((reference / "models/specs" / f"{FACTS[key][0]}.json").read_text("utf-8"))
    given = facts["input"]
    assert get_model(key).spec == PatchSpec(
        given["orientation"],
        given["spacing_mm_on_world_xyz"],
        given["patch_voxels"],
        given["hu_window"],
        given["output_range"],
    )


class _Allocations(TorchDispatchMode):
    """Sum the bytes of every storage that comes into being; an upper bound on the peak."""

    def __init__(self):
        super().__init__()
        self.storages = {}

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, torch.Tensor):
                storage = tensor.untyped_storage()
                self.storages[storage._cdata] = storage  # kept, so that no address comes twice
        return result


@TEN
def test_building_holds_little_more_than_the_encoder(key):
    with torch.device("meta"), _Allocations() as made:
        module = get_model(key).build("full")
    own = [t.untyped_storage() for t in (*module.parameters(), *module.buffers())]
    size = sum({s._cdata: s.nbytes() for s in own}.values())
    assert size <= sum(s.nbytes() for s in made.storages.values()) <= 1.2 * size


# Building


@TEN
def test_build_is_a_function_of_its_seed(key, compact):
    model = get_model(key)
    torch.manual_seed(5)
    before = torch.get_rng_state()
    again = model.build("compact", seed=0)
    assert torch.equal(torch.get_rng_state(), before)
    first = compact(key).state_dict()
    assert all(torch.equal(first[n], t) for n, t in again.state_dict().items())
    other = model.build("compact", seed=1).state_dict()
    assert any(not torch.equal(first[n], t) for n, t in other.items())
    assert not any(part.training for part in again.modules())


def test_integers_of_numpy_are_taken(compact):
    model, x = get_model("suprem"), patches(get_model("suprem"), 3)
    module = model.build("compact", seed=np.int64(0))
    assert same(module, compact("suprem").state_dict())
    found = model.encode(module, x, batch_size=np.int64(2))
    torch.testing.assert_close(found, model.encode(module, x))


@TEN
def test_compact_encoders_are_small_and_have_the_full_length(key, compact):
    model, module = get_model(key), compact(key)
    assert 3e5 <= sum(p.numel() for p in module.parameters()) <= 2.1e6
    embedding = model.encode(module, patches(model, 1))
    assert embedding.shape == (1, model.dim) and embedding.dtype == torch.float32
    assert len(torch.unique(embedding)) > model.dim / 4


@TEN
def test_compact_encoders_can_be_trained(key, compact):
    model, module = get_model(key), copy.deepcopy(compact(key))
    module(patches(model, 1)).square().mean().backward()
    gradients = [p.grad for p in module.parameters() if p.grad is not None]
    assert gradients and all(torch.isfinite(g).all() for g in gradients)
    assert sum(g.numel() for g in gradients if g.any()) > 1e5


@TEN
def test_encoders_survive_a_trip_to_another_process(key, compact):
    assert type(pickle.loads(pickle.dumps(compact(key)))) is type(compact(key))


@pytest.mark.parametrize("side", [8, 9])
def test_maxima_in_halves_are_those_of_torch(side):
    x = torch.randn(2, 3, side, side + 1, 8)
    assert torch.equal(unet3d.halve(x), torch.nn.functional.max_pool3d(x, 2))


# Encoding


@TEN
def test_embeddings_do_not_depend_on_the_batch(key, compact):
    model, module = get_model(key), compact(key)
    x = patches(model, 3)
    x[1] *= 0.02  # a patch of little contrast beside two busy ones
    together = model.encode(module, x)
    alone = torch.cat([model.encode(module, one[None]) for one in x])
    in_pairs = model.encode(module, x.flip(0), batch_size=2).flip(0)
    scale = together.abs().max().item()
    torch.testing.assert_close(alone, together, rtol=0, atol=1e-5 * scale)
    torch.testing.assert_close(in_pairs, together, rtol=0, atol=1e-5 * scale)


@TEN
def test_a_patch_of_one_value_is_no_matter_of_rounding(key, compact):
    model, module = get_model(key), compact(key)
    low, high = model.spec.out_range
    x = patches(model, 4)
    for patch, value in zip(x[1:], (low, low + 0.3417 * (high - low), high), strict=True):
        patch[:] = value
    together = model.encode(module, x)
    alone = torch.cat([model.encode(module, one[None]) for one in x])
    torch.testing.assert_close(alone, together, rtol=0, atol=1e-5 * together.abs().max().item())


def test_batch_statistics_are_taken_per_sample():
    """Batch normalisation in training mode with one sample is the norm used here."""
    from tumorbench_utils.models.networks.unet3d import SampleNorm3d

    own, torchs = SampleNorm3d(5).eval(), torch.nn.BatchNorm3d(5).train()
    weight, bias = torch.randn(2, 5)
    for norm in (own, torchs):
        norm.load_state_dict({**norm.state_dict(), "weight": weight, "bias": bias})
    x = torch.randn(3, 5, 4, 3, 2)
    expected = torch.cat([torchs(one[None]) for one in x])
    torch.testing.assert_close(own(x), expected)


def test_legacy_merging_joins_the_neighbours_of_the_release():
    from tumorbench_utils.models.networks.swin import _LegacyMerging

    merge = _LegacyMerging(1, torch.nn.LayerNorm, 3)
    merge.norm = merge.reduction = torch.nn.Identity()
    cube = torch.arange(8.0).reshape(1, 2, 2, 2, 1)  # the value is 4 d + 2 h + w
    assert merge(cube).flatten().tolist() == [0, 4, 2, 1, 5, 2, 1, 7]


def test_encode_leaves_the_module_as_it_was(compact):
    model, module = get_model("ct_fm"), copy.deepcopy(compact("ct_fm"))
    expected = model.encode(module, patches(model, 2))
    module.train()
    module.layers[0].eval()
    before = {n: t.clone() for n, t in module.state_dict().items()}
    result = model.encode(module, patches(model, 2))
    assert module.training and not module.layers[0].training
    assert all(torch.equal(before[n], t) for n, t in module.state_dict().items())
    torch.testing.assert_close(result, expected)
    assert not result.requires_grad and not result.is_inference()


def test_encode_takes_other_float_types_and_none_at_all(compact):
    model, module = get_model("suprem"), compact("suprem")
    x = patches(model, 1)
    expected = model.encode(module, x)
    torch.testing.assert_close(model.encode(module, x.double()), expected)
    assert model.encode(module, x[:0]).shape == (0, 512)
    mixed = model.encode(module, x, autocast=torch.bfloat16)
    assert mixed.dtype == torch.float32
    assert 0 < (mixed - expected).abs().max() < 0.1 * expected.abs().max()


def test_encode_takes_the_native_input_when_told_so(compact):
    model, module = get_model("suprem"), compact("suprem")
    native = model.card.native_spec
    x = torch.rand(1, 1, *native.size)
    assert model.encode(module, x, spec=native).shape == (1, 512)
    with pytest.raises(ValueError, match=r"\(1, 1, 96, 96, 96\) came"):
        model.encode(module, x)


def spoilt_weights(module):
    module = copy.deepcopy(module)
    torch.nn.init.constant_(module.head.bias, float("nan"))
    return module


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda m, net, x: m.build("compct"), r"unknown size .*known are full, compact"),
        (lambda m, net, x: m.build(None), "known are full, compact"),
        (lambda m, net, x: m.encode(net, x.numpy()), "takes patches of shape"),
        (lambda m, net, x: m.encode(net, None), "NoneType"),
        (lambda m, net, x: m.encode(net, x > 0.5), r"torch.bool \(2, 1, 48, 48, 48\) came"),
        (lambda m, net, x: m.encode(net, x.to(torch.complex64)), "torch.complex64 "),
        (lambda m, net, x: m.encode(net, x[0]), r"\(n, 1, 48, 48, 48\) \(float, axes RAS"),
        (lambda m, net, x: m.encode(net, x.repeat(1, 3, 1, 1, 1)), r"\(2, 3, 48, 48, 48\) came"),
        (lambda m, net, x: m.encode(net, x[..., :47]), r"\(2, 1, 48, 48, 47\) came"),
        (lambda m, net, x: m.encode(net, x * 3072 - 1024), r"\(-1024.0, 2048.0\) HU scaled to"),
        (lambda m, net, x: m.encode(net, x - 0.1), "the patches run from -0.0"),
        (lambda m, net, x: m.encode(net, x.masked_fill(x > 0.9, float("nan"))), "run from nan"),
        (lambda m, net, x: m.encode(net, x.masked_fill(x > 0.9, float("inf"))), "to inf"),
        (lambda m, net, x: m.encode(torch.nn.Identity(), x), r"not a real tensor \(2, 512\); pool"),
        (
            lambda m, net, x: get_model("merlin").encode(torch.nn.Flatten(), x),
            r"Tensor \(2, 110592",
        ),
        (
            lambda m, net, x: m.encode(spoilt_weights(net), x),
            "not finite for 2 of 2 patches, first 0",
        ),
    ],
)
def test_the_boundary_refuses_silent_wrong_numbers(compact, call, says):
    model = get_model("suprem")
    with pytest.raises(InputError, match=says):
        call(model, compact("suprem"), patches(model, 2))


def test_what_torch_refuses_is_left_to_torch(compact):
    model, x = get_model("suprem"), patches(get_model("suprem"), 2)
    for size in (0, -1, 2.0, "8"):
        with pytest.raises((RuntimeError, TypeError)):
            model.encode(compact("suprem"), x, batch_size=size)
    with pytest.raises(RuntimeError):
        model.encode(copy.deepcopy(compact("suprem")).to("meta"), x)
    with pytest.raises(TypeError):
        model.build("compact", seed=1.5)


# Loading


def released(key, seed=1):
    """A state dict as the release would have it for the compact encoder, and its module."""
    module = get_model(key).build("compact", seed=seed)
    prefix = FACTS[key][1]
    own = module.state_dict()
    return {n if n == "image_projection" else prefix + n: t for n, t in own.items()}, own


def same(module, own):
    return all(torch.equal(own[n], t) for n, t in module.state_dict().items())


@TEN
def test_the_wrapping_of_the_release_is_undone(key):
    content, own = released(key)
    module = get_model(key).build("compact")
    report = get_model(key).load_checkpoint(module, content)
    assert same(module, own)
    assert sorted(report.matched) == sorted(content)
    assert report.missing == report.unexpected == report.ignored == []
    assert f"{len(content)} matched" in str(report)


@pytest.mark.parametrize(
    ("key", "wrap"),
    [
        (
            "fmcib",
            lambda d: {"trunk_state_dict": d, "head_state_dict": {"0.weight": d["bn1.bias"]}},
        ),
        ("fmcib", lambda d: {"state_dict": {f"model.trunk.{n}": t for n, t in d.items()}}),
        ("fmcib", lambda d: {"trunk_state_dict": {f"module.{n}": t for n, t in d.items()}}),
        ("voco", lambda d: {"state_dict": d}),
        ("voco", lambda d: {f"module.{n}": t for n, t in d.items()}),
        ("voco", lambda d: {f"backbone.{n}": t for n, t in d.items()}),
        ("voco", lambda d: {"state_dict": {f"module.backbone.{n}": t for n, t in d.items()}}),
        ("voco", lambda d: {n.replace("swinViT", "swin_vit"): t for n, t in d.items()}),
        ("suprem", lambda d: {"net": d, "epoch": 3, "optimizer": {"state": {}}}),
        ("models_genesis", lambda d: {"epoch": 7, "state_dict": d}),
        ("models_genesis", lambda d: {n.removeprefix("module."): t for n, t in d.items()}),
        ("suprem", lambda d: {"net": {f"_orig_mod.{n}": t for n, t in d.items()}}),
        ("merlin", lambda d: {f"module._orig_mod.{n}": t for n, t in d.items()}),
        ("merlin", lambda d: {"model": {"name": "Merlin"}, **d}),
        ("ct_fm", lambda d: {n: t.numpy() for n, t in d.items()}),
        (
            "ct_fm",
            lambda d: {n: t.numpy().astype(t.numpy().dtype.newbyteorder()) for n, t in d.items()},
        ),
        ("vista3d", lambda d: {n: t.double() for n, t in d.items()}),
    ],
)
def test_other_wrappings_are_undone(key, wrap):
    content, own = released(key)
    module = get_model(key).build("compact")
    report = get_model(key).load_checkpoint(module, wrap(content))
    assert same(module, own) and len(report.matched) == len(own)


def test_the_report_accounts_for_every_tensor():
    content, own = released("models_genesis")
    # Counters and the running statistics that no forward pass reads may be absent.
    unread = [n for n in content if n.endswith(("running_mean", "num_batches_tracked"))]
    for name in unread:
        del content[name]
    content["module.up_tr256.up_conv.weight"] = content["module.out_tr.weight"] = torch.zeros(3)
    content["module.mystery"] = content["loose"] = torch.zeros(3)
    report = get_model("models_genesis").load_checkpoint(
        get_model("models_genesis").build("compact"), {"state_dict": content}
    )
    assert sorted(report.missing) == sorted(n.removeprefix("module.") for n in unread)
    assert sorted(report.ignored) == ["module.out_tr.weight", "module.up_tr256.up_conv.weight"]
    assert sorted(report.unexpected) == ["loose", "module.mystery"]
    assert len(report.matched) == len(own) - len(unread)


def test_what_nobody_reads_may_be_odd():
    content, own = released("suprem")
    unread = [n for n in content if "running" in n]
    content.update({n: torch.full((3,), float("nan")) for n in unread})
    module = get_model("suprem").build("compact")
    report = get_model("suprem").load_checkpoint(module, content)
    assert report.ignored == unread and len(report.missing) == len(unread)
    assert same(module, own)


@TEN
def test_names_and_shapes_can_be_compared_without_memory(key):
    with torch.device("meta"):
        module, other = (get_model(key).build("full") for _ in range(2))
    prefix = FACTS[key][1]
    whole = ("image_projection",)
    content = {n if n in whole else prefix + n: t for n, t in other.state_dict().items()}
    report = get_model(key).load_checkpoint(module, content)
    assert len(report.matched) == len(content) and not report.missing and not report.unexpected
    name = next(n for n, t in content.items() if t.ndim > 1)
    with pytest.raises(CheckpointError, match="expected"):
        get_model(key).load_checkpoint(module, {**content, name: torch.zeros(1)})


def test_a_dictionary_that_holds_itself_ends():
    content = {}
    content["state_dict"] = content
    with pytest.raises(CheckpointError, match="0 tensors came"):
        get_model("suprem").load_checkpoint(get_model("suprem").build("compact"), content)


def test_numbers_of_numpy_beside_the_weights_do_no_harm(tmp_path):
    content, own = released("suprem")
    path = tmp_path / "weights.pt"
    for zipped in (True, False):
        extra = {"best": np.float64(0.5), "epoch": np.int64(3), "done": np.bool_(True)}
        torch.save({"net": content, **extra}, path, _use_new_zipfile_serialization=zipped)
        module = get_model("suprem").build("compact")
        get_model("suprem").load_checkpoint(module, path)
        assert same(module, own)


@pytest.mark.parametrize("key", ["suprem", "fmcib"])
@pytest.mark.parametrize("kind", ["zip", "legacy", "safetensors named .pt"])
def test_files_are_told_by_their_content(tmp_path, key, kind):
    content, own = released(key)
    path = tmp_path / "Gewichte für Tümore.pt"
    if kind.startswith("safetensors"):
        safetensors.torch.save_file({n: t.contiguous() for n, t in content.items()}, path)
    else:
        wrapped = {get_model(key).containers[0]: content}
        torch.save(wrapped, path, _use_new_zipfile_serialization=kind == "zip")
    for source in (path, str(path)):
        module = get_model(key).build("compact")
        get_model(key).load_checkpoint(module, source)
        assert same(module, own)


def spoilt(name, change):
    content, _ = released("suprem")
    name = f"module.backbone.{name}"
    if change is None:
        del content[name]
    else:
        content[name] = change(content[name])
    return {"net": content}


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (lambda: spoilt("down_tr64.ops.0.conv1.bias", None), "missing: .*tr64.ops.0.conv1.bias"),
        (
            lambda: spoilt("head.weight", lambda t: t[:100]),
            r"\(512, 128, 1, 1, 1\) expected, \(100",
        ),
        (lambda: spoilt("head.bias", lambda t: t * float("nan")), "head.bias: .*not finite"),
        (
            lambda: spoilt("head.bias", lambda t: t.int()),
            "torch.float32 expected, torch.int32 came",
        ),
        (lambda: spoilt("head.bias", lambda t: t > 0), "torch.float32 expected, torch.bool came"),
        (lambda: spoilt("head.bias", lambda t: t * 1j), "torch.complex64 came"),
        (lambda: spoilt("head.bias", lambda t: t.double() + 1e300), "not finite as torch.float32"),
        (lambda: spoilt("head.bias", lambda t: t.to("meta")), "no values"),
        (lambda: spoilt("head.bias", lambda t: t.to_sparse()), "a sparse, quantized or nested"),
        (lambda: spoilt("head.bias", lambda t: t.tolist()), "missing: .*head.bias"),
        (lambda: {"state_dict": released("models_genesis")[0]}, "no checkpoint of suprem"),
        (
            lambda: released("fmcib")[0],
            r"names like 'module.backbone.*tensors came, \['conv1.weight'",
        ),
        (lambda: {}, "0 tensors came"),
        (lambda: {"net": {}, "epoch": 3}, r"0 tensors came, \['net', 'epoch'\]"),
        (lambda: {"net": {"weight": [1.0, 2.0]}}, "0 tensors came"),
    ],
)
def test_other_weights_are_refused_and_nothing_is_changed(content, says):
    model = get_model("suprem")
    module = model.build("compact")
    with pytest.raises(CheckpointError, match=says):
        model.load_checkpoint(module, content())
    assert same(module, model.build("compact").state_dict())


def test_every_fault_is_listed():
    content = {"net": {n: t[:1] for n, t in released("suprem")[0].items() if t.ndim}}
    del content["net"]["module.backbone.head.bias"], content["net"]["module.backbone.head.weight"]
    with pytest.raises(
        CheckpointError, match=r"2 of .* missing.*head.weight.*shape \(8,\) exp"
    ) as e:
        get_model("suprem").load_checkpoint(get_model("suprem").build("compact"), content)
    assert len(str(e.value)) < 5000


class _Malice:
    def __reduce__(self):
        return (exec, ("raise SystemExit('code in a checkpoint was run')",))


def web_page(path):
    path.write_text("\n <!DOCTYPE html><html><body>Please sign in</body></html>")


def truncated_zip(path):
    torch.save(released("suprem")[0], path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def truncated_legacy(path):
    torch.save(released("suprem")[0], path, _use_new_zipfile_serialization=False)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def truncated_safetensors(path):
    safetensors.torch.save_file({"a": torch.zeros(1000)}, path)
    path.write_bytes(path.read_bytes()[:500])


def damaged_zip(path):
    """A download in parts that broke: a block of zeros inside of one tensor."""
    torch.save(released("suprem")[0], path)
    whole = bytearray(path.read_bytes())
    whole[len(whole) // 2 : len(whole) // 2 + 4096] = bytes(4096)
    path.write_bytes(whole)


def other_zip(path):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("readme.txt", "weights are elsewhere")


@pytest.mark.parametrize(
    ("write", "says"),
    [
        (web_page, "is a web page, not weights"),
        (lambda path: path.write_bytes(b"\xef\xbb\xbf<html>"), "is a web page, not weights"),
        (lambda path: path.write_text("<html>", encoding="utf-16"), "is a web page, not weights"),
        (lambda path: path.touch(), "is empty"),
        (lambda path: path.write_text("See the readme"), "is a text file.*See the readme"),
        (lambda path: path.write_text("权重" * 400, encoding="utf-8"), "is a text file"),
        (lambda path: path.write_text('[{"a": 1}]'), "is a text file"),
        (lambda path: path.write_bytes(gzip.compress(b"weights")), "holds no plain tensors"),
        (lambda path: path.write_bytes(pickle.dumps(_Malice(), 0)), "asks to run .*exec"),
        (
            lambda path: torch.save({"net": np.array(_Malice())}, path),
            "is refused",
        ),
        (lambda path: path.write_text("version https://git-lfs.github.com/spec/v1"), "Git LFS"),
        (lambda path: path.write_text('{"error": "Access denied"}'), "text file.*Access denied"),
        (truncated_zip, "truncated or damaged"),
        (damaged_zip, "damaged .the checksum of .* is wrong"),
        (truncated_legacy, "truncated or damaged"),
        (truncated_safetensors, "truncated or damaged"),
        (lambda path: path.write_bytes(b"\x00" * 4096), "is empty or begins with zeros"),
        (lambda path: path.write_bytes(pickle.dumps(_Malice())), "is refused"),
        (lambda path: path.write_bytes(pickle.dumps(_Malice(), 2)), "asks to run .*exec"),
        (lambda path: torch.save({"net": _Malice()}, path), "asks to run .*exec"),
        (lambda path: torch.save(torch.nn.Linear(2, 2), path), "asks to run .*Linear"),
        (lambda path: torch.save([torch.zeros(2)], path), "holds a list"),
        (lambda path: path.write_bytes(pickle.dumps({"a": np.zeros(3)})), "is refused"),
        (other_zip, "not a torch or safetensors"),
    ],
)
def test_files_that_are_no_weights_are_refused_by_name(tmp_path, write, says):
    path = tmp_path / "supervised_suprem_unet_2100.pth"
    write(path)
    with pytest.raises(CheckpointError, match=says) as error:
        get_model("suprem").load_checkpoint(get_model("suprem").build("compact"), path)
    assert str(path) in str(error.value)


def test_a_missing_file_and_other_sources(tmp_path):
    model = get_model("suprem")
    module = model.build("compact")
    with pytest.raises(FileNotFoundError, match=r"absent\.pt"):
        model.load_checkpoint(module, tmp_path / "absent.pt")
    with pytest.raises(IsADirectoryError):
        model.load_checkpoint(module, tmp_path)
    for source in (None, 3, [torch.zeros(2)], module):
        with pytest.raises(TypeError):
            model.load_checkpoint(module, source)
