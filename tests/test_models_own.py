"""The encoders written here: CT-CLIP, PASTA, Merlin and MedImageInsight."""

import importlib.util
import json

import einops
import numpy as np
import pytest
import torch

from tumorbench_utils.models import CheckpointError, get_model
from tumorbench_utils.models.networks.davit import resize

FILES = {
    "ct_clip_vit": "CT-CLIP-ViT",
    "pasta": "PASTA",
    "merlin": "Merlin",
    "medimageinsight": "MedImageInsight",
}
PREFIX = {
    "ct_clip_vit": "visual_transformer.",
    "pasta": "module.",
    "merlin": "encode_image.i3_resnet.",
    "medimageinsight": "image_encoder.",
}
KEYS = pytest.mark.parametrize("key", FILES)


@pytest.fixture(scope="module")
def fill(reference):
    """The module that makes weights and inputs of the parity fixtures."""
    path = reference / "models" / "fill.py"
    if not path.exists():
        pytest.skip(f"needs the parity fixtures: there is no {path}")
    spec = importlib.util.spec_from_file_location("parity_fill", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def facts(reference):
    """Read the facts about a model."""

    def read(key):
        path = reference / "models" / "specs" / f"{FILES[key]}.json"
        if not path.exists():
            pytest.skip(f"needs the parity fixtures: there is no {path}")
        return json.loads(path.read_text(encoding="utf-8"))

    return read


@pytest.fixture(scope="module")
def compact():
    """Compact encoders by key, each built once."""
    return {key: get_model(key).build("compact") for key in FILES}


def released_names(key, module):
    """Return the state dict of a module under the names of the release."""
    state = {k: v.clone() for k, v in module.state_dict().items()}
    whole = ("image_projection",)
    return {k if k in whole else PREFIX[key] + k: v for k, v in state.items()}


def random_patches(model, n, seed=0):
    rng = np.random.default_rng(seed)
    low, high = model.spec.out_range
    x = rng.random((n, 1, *model.spec.size), dtype=np.float32)
    return torch.from_numpy(low + (high - low) * x)


@KEYS
def test_parity_with_the_release(key, facts, fill, reference):
    model = get_model(key)
    with torch.device("meta"):
        module = model.network("full")
    module = module.to_empty(device="cpu").eval()
    weights = fill.fill_state_dict(facts(key)["state_dict"])
    report = model.load_checkpoint(module, weights)
    assert len(report.matched) == len(weights) and not report.missing and not report.unexpected
    del weights
    known = np.load(reference / "models" / "parity" / f"{FILES[key]}.npz")
    inputs = [
        fill.make_input(int(s), model.spec.size, *model.spec.out_range) for s in known["seeds"]
    ]
    patches = torch.from_numpy(np.stack(inputs))[:, None]
    expected = known["embeddings"]
    if key == "medimageinsight":
        # Slice 16 of the first patch and slice 32 of the second: a slice takes seconds.
        pick = [0, 1]
        expected = expected[pick, pick]
        with torch.inference_mode():
            pictures = module.pictures(patches)[pick, known["slices"]]
            found = module.embed_pictures(pictures).numpy()
    else:
        found = model.encode(module, patches).numpy()
    tolerance = 1e-3 if key == "medimageinsight" else 1e-4
    np.testing.assert_allclose(found, expected, rtol=0, atol=tolerance * np.abs(expected).max())
    if key == "ct_clip_vit":
        with torch.inference_mode():
            codes = module.vq["_codebook"].nearest(module.tokens(patches))
        np.testing.assert_array_equal(codes.numpy(), known["codes"])


@KEYS
def test_wrapping_and_prefixes_of_the_release(key, compact):
    model = get_model(key)
    released = released_names(key, compact[key])
    extra = {
        "ct_clip_vit": [
            "temperature",
            "to_visual_latent.weight",
            "text_transformer.embeddings.word_embeddings.weight",
            "visual_transformer.to_pixels.0.weight",
            "visual_transformer.enc_spatial_transformer.layers.0.1.context_norm.gamma",
            "visual_transformer.enc_temporal_transformer.layers.1.1.null_kv",
            "visual_transformer.vq._codebook.initted",
        ],
        "pasta": ["module.tu.0.weight", "module.seg_outputs.4.weight"],
        "merlin": [
            "logit_scale",
            "encode_text.text_encoder.embeddings.position_ids",
            "encode_image.i3_resnet.classifier.weight",
        ],
        "medimageinsight": ["logit_scale", "lang_projection", "lang_encoder.token_embed.weight"],
    }[key]
    fresh = model.build("compact", seed=1)
    report = model.load_checkpoint(fresh, released | {name: torch.zeros(1) for name in extra})
    assert sorted(report.matched) == sorted(released)
    assert sorted(report.ignored) == sorted(extra)
    assert not report.missing and not report.unexpected
    own = compact[key].state_dict()
    assert all(torch.equal(own[k], v) for k, v in fresh.state_dict().items())
    wrapped = {"module." + k.removeprefix("module."): v for k, v in released.items()}
    for variant in (dict(own), wrapped, {"state_dict": wrapped, "epoch": 3}):
        report = model.load_checkpoint(model.build("compact", seed=1), variant)
        assert len(report.matched) == len(released) and not report.unexpected


@KEYS
def test_a_missing_tensor_is_named_and_nothing_is_loaded(key, compact):
    model = get_model(key)
    released = released_names(key, compact[key])
    gone = list(released)[3]
    released.pop(gone)
    fresh = model.build("compact", seed=1)
    before = {k: v.clone() for k, v in fresh.state_dict().items()}
    with pytest.raises(CheckpointError, match=gone.removeprefix(PREFIX[key])):
        model.load_checkpoint(fresh, released)
    assert all(torch.equal(before[k], v) for k, v in fresh.state_dict().items())


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("visual.conv_embeds.0.proj.weight", "convs.0.proj.weight"),
        ("visual.main_blocks.2.8.0.cpe.0.proj.bias", "blocks.2.8.spatial_block.conv1.fn.dw.bias"),
        ("visual.main_blocks.0.0.1.cpe.1.proj.bias", "blocks.0.0.channel_block.conv2.fn.dw.bias"),
        (
            "visual.main_blocks.3.0.0.attn.qkv.weight",
            "blocks.3.0.spatial_block.window_attn.fn.qkv.weight",
        ),
        (
            "visual.main_blocks.1.0.1.norm1.weight",
            "blocks.1.0.channel_block.channel_attn.norm.weight",
        ),
        ("visual.main_blocks.2.10.0.norm2.bias", "blocks.2.10.spatial_block.ffn.norm.bias"),
        ("visual.main_blocks.2.1.1.mlp.fc2.bias", "blocks.2.1.channel_block.ffn.fn.net.fc2.bias"),
        ("visual.norms.weight", "norms.weight"),
        ("vision_projection", "image_projection"),
        ("lang_projection", None),
    ],
)
def test_older_names_of_medimageinsight(old, new):
    assert get_model("medimageinsight").own_name(old, "visual.") == new


def test_slices_are_resized_one_by_one_and_traced_without_values():
    images = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (3, 48, 48), np.uint8))
    found = resize(images, 64)
    assert found.shape == (3, 64, 64) and found.dtype == torch.uint8
    # Bicubic with a = -0.5; in the middle of a smooth ramp it is linear interpolation.
    ramp = (4 * torch.arange(48)).to(torch.uint8).expand(1, 48, 48)
    positions = (np.arange(96) + 0.5) / 2 - 0.5
    middle = slice(8, -8)
    line = resize(ramp, 96)[0, 48].numpy()[middle].astype(float)
    np.testing.assert_allclose(line, 4 * positions[middle], atol=0.51)
    assert resize(images.to("meta"), 64).shape == found.shape


def test_medimageinsight_sees_coronal_slices_cut_to_eight_bits(compact):
    module = compact["medimageinsight"]
    patch = torch.zeros(1, 1, 48, 48, 48)
    patch[0, 0, 5, 12, 7] = 0.999  # 254.7: cut off, not rounded
    pictures = module.pictures(patch)
    assert pictures.shape == (1, 9, 48, 48) and pictures.dtype == torch.uint8
    assert pictures[0, 0, 5, 7] == 254 and pictures.count_nonzero() == 1


def test_medimageinsight_averages_unit_vectors_of_all_slices(compact):
    model, module = get_model("medimageinsight"), compact["medimageinsight"]
    patch = random_patches(model, 1)
    patch[:, :, :, 24:] = 0  # slices that are alike
    with torch.inference_mode():
        each = torch.cat([module.embed_pictures(p[None]) for p in module.pictures(patch)[0]])
    torch.testing.assert_close(each.norm(dim=1), torch.ones(9))
    torch.testing.assert_close(model.encode(module, patch)[0], each.mean(dim=0))


def test_ct_clip_embedding_is_a_mean_of_codebook_rows():
    model = get_model("ct_clip_vit")
    module = model.build("compact")
    module.head = torch.nn.Identity()
    patch = random_patches(model, 1)
    codebook = module.vq["_codebook"]
    rows = codebook.embed[0]
    tokens = module.tokens(patch)
    assert tokens.shape == (1, 54, rows.shape[1])
    cosine = torch.nn.functional.cosine_similarity(tokens[0, :, None], rows[None], dim=-1)
    torch.testing.assert_close(module(patch)[0], rows[cosine.argmax(dim=1)].mean(dim=0))
    module(patch).sum().backward()
    assert module.to_patch_emb[2].weight.grad.abs().sum() > 0


def test_ct_clip_refuses_sides_that_are_no_multiple_of_its_cuboids(compact):
    with pytest.raises(einops.EinopsError, match="can't divide axis of length 50"):
        compact["ct_clip_vit"](torch.zeros(1, 1, 60, 60, 50))


def test_merlin_embeddings_have_length_one(compact):
    model = get_model("merlin")
    embeddings = model.encode(compact["merlin"], random_patches(model, 2))
    torch.testing.assert_close(embeddings.norm(dim=1), torch.ones(2))


def test_merlin_shows_the_patch_to_three_equal_channels(compact):
    convolution = compact["merlin"].conv1
    x = torch.rand(1, 1, 6, 8, 8)
    plain = torch.nn.Conv3d.forward(convolution, x.expand(-1, 3, -1, -1, -1))
    torch.testing.assert_close(convolution(x), plain)
