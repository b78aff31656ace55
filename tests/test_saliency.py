"""Occlusion maps against MONAI and by hand; scores of maps against a known lesion."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from monai.visualize import OcclusionSensitivity

from tumorbench_utils import saliency


class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.conv = torch.nn.Conv3d(1, 4, 3, stride=2)
            self.head = torch.nn.LazyLinear(7)
            self.head(torch.zeros(1, 4 * 7**3))

    def forward(self, x):
        return self.head(torch.tanh(self.conv(x)).flatten(1))


def encode(module, patches, *, batch_size=8):
    with torch.inference_mode():
        return module(patches)


MODEL = SimpleNamespace(encode=encode)


@pytest.fixture
def patch():
    return np.random.default_rng(0).random((16, 16, 16), dtype=np.float32)


@pytest.mark.filterwarnings("ignore:Using a non-tuple sequence:UserWarning")
@pytest.mark.parametrize(("mask", "overlap"), [(8, 0.25), (6, 0.5), (5, 0.0), (16, 0.25)])
def test_map_equals_monai_with_an_embedding_per_voxel(patch, mask, overlap):
    net = Net().eval()
    image = torch.from_numpy(patch)[None, None]
    monai = OcclusionSensitivity(
        net, mask_size=mask, overlap=overlap, activate=False, verbose=False, n_batch=4
    )
    with torch.inference_mode():
        per_voxel = torch.as_tensor(monai(image)[0])[0]
        expected = 1 - torch.cosine_similarity(per_voxel, net(image)[0][:, None, None, None], dim=0)
    found = saliency.occlusion_map(MODEL, net, patch, mask=mask, overlap=overlap)
    assert found.shape == patch.shape and found.dtype == np.float32
    np.testing.assert_allclose(found, expected.numpy(), atol=5e-6)


def test_a_network_that_reads_one_corner_is_found_out(patch):
    def corner(module, patches, *, batch_size=8):
        return torch.stack(
            [patches[:, 0, :4, :4, :4].mean(dim=(1, 2, 3)), torch.ones(len(patches))], 1
        )

    found = saliency.occlusion_map(SimpleNamespace(encode=corner), None, patch, mask=4, overlap=0)
    assert np.unravel_index(found.argmax(), found.shape) < (4, 4, 4)
    assert found[:4, :4, :4].min() > 100 * abs(found[4:, 4:, 4:]).max()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"mask": 17}, "larger than the patch"),
        ({"mask": 0}, "whole number"),
        ({"mask": 4.5}, "whole number"),
        ({"overlap": 1.0}, "overlap"),
        ({"patch": np.full((16, 16, 16), 0.3)}, "nothing to occlude"),
        ({"patch": np.full((16, 16, 16), np.nan)}, "not finite"),
        ({"patch": np.zeros((1, 16, 16, 16))}, "three axes"),
    ],
)
def test_bad_input_is_named(patch, change, message):
    arguments = {"patch": patch, "mask": 8, "overlap": 0.25} | change
    with pytest.raises(saliency.SaliencyError, match=message):
        saliency.occlusion_map(MODEL, Net(), arguments.pop("patch"), **arguments)


def test_scores_by_hand():
    lesion = np.zeros((5, 5, 5), bool)
    lesion[1:4, 1:4, 1:4] = True
    flat = np.ones((5, 5, 5))
    result = saliency.score(flat, lesion)
    assert result["energy"] == pytest.approx(27 / 125)
    assert result["volume_share"] == pytest.approx(27 / 125)
    assert result["auc"] == pytest.approx(0.5)
    assert result["pointing"] == 0
    assert result["distance_mm"] == pytest.approx(np.sqrt(3))
    inside = np.where(lesion, 2.0, 0.0)
    inside[2, 2, 2] = 3
    result = saliency.score(inside, lesion, spacing_mm=(2, 2, 2))
    assert result["energy"] == result["auc"] == result["pointing"] == 1
    assert result["distance_mm"] == pytest.approx(-4)


@pytest.mark.parametrize(
    ("values", "lesion", "message"),
    [
        (np.ones((3, 3, 3)), np.zeros((3, 3, 3)), "empty"),
        (np.ones((3, 3, 3)), np.ones((3, 3, 3)), "fills"),
        (np.ones((3, 3, 3)), np.ones((4, 3, 3)), "no common grid"),
        (np.zeros((3, 3, 3)), np.eye(3)[None] * np.ones((3, 1, 1)), "not zero everywhere"),
    ],
)
def test_what_cannot_be_scored_is_named(values, lesion, message):
    with pytest.raises(saliency.SaliencyError, match=message):
        saliency.score(values, lesion)


def test_centre_map_is_highest_in_the_middle_and_zero_in_the_corners():
    found = saliency.centre_map((5, 5, 5))
    assert found.argmax() == 62
    assert found[0, 0, 0] == 0
    np.testing.assert_array_equal(found, found[::-1, ::-1, ::-1])


def test_randomise_changes_the_last_layers_first_and_not_the_original():
    net = Net()
    before = {k: v.clone() for k, v in net.state_dict().items()}
    half = saliency.randomise(net, 0.5)
    assert torch.equal(half.conv.weight, net.conv.weight)
    assert not torch.equal(half.head.weight, net.head.weight)
    np.testing.assert_allclose(*(np.sort(n.head.weight.detach().ravel()) for n in (half, net)))
    for key, value in net.state_dict().items():
        assert torch.equal(value, before[key])
    assert torch.equal(saliency.randomise(net, 0).head.weight, net.head.weight)
