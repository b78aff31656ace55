"""Occlusion maps against MONAI and by hand; scores of maps against a known lesion."""

from types import SimpleNamespace

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from monai.visualize import OcclusionSensitivity

from tumorbench_utils import saliency
from tumorbench_utils.models import get_model
from tumorbench_utils.patches import PatchSpec, extract_patch


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


def encode(module, patches):
    return module(patches)


MODEL = SimpleNamespace(encode=encode, key="net", dim=7)


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
    def corner(module, patches):
        return torch.stack(
            [patches[:, 0, :4, :4, :4].mean(dim=(1, 2, 3)), torch.ones(len(patches))], 1
        )

    found = saliency.occlusion_map(SimpleNamespace(encode=corner), None, patch, mask=4, overlap=0)
    assert np.unravel_index(found.argmax(), found.shape) < (4, 4, 4)
    assert found[:4, :4, :4].min() > 100 * abs(found[4:, 4:, 4:]).max()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"mask": 17}, "must fit into"),
        ({"mask": 0}, "must fit into"),
        ({"overlap": 1.0}, "overlap"),
        ({"overlap": np.nan}, "overlap"),
        ({"patch": np.full((16, 16, 16), "0.3")}, "text"),
        ({"patch": [[[0.0], [1.0, 2.0]]]}, "rows of one length"),
        ({"patch": np.zeros((0, 16, 16))}, "are equal"),
        ({"patch": np.full((16, 16, 16), 0.3)}, "are equal"),
        ({"patch": np.full((16, 16, 16), np.nan)}, "missing or infinite"),
        ({"patch": np.zeros((1, 16, 16, 16))}, "3 dimension"),
    ],
)
def test_bad_input_is_named(patch, change, message):
    arguments = {"patch": patch, "mask": 8, "overlap": 0.25} | change
    with pytest.raises(saliency.SaliencyError, match=message):
        saliency.occlusion_map(MODEL, Net(), arguments.pop("patch"), **arguments)


def test_a_mask_is_a_whole_number(patch):
    with pytest.raises(TypeError):
        saliency.occlusion_map(MODEL, Net(), patch, mask=4.5)


def test_type_and_container_of_a_patch_change_nothing(patch):
    net = Net()
    expected = saliency.occlusion_map(MODEL, net, patch, mask=8)
    for other in (patch.astype(np.float64), patch.tolist(), torch.from_numpy(patch), patch[::1, :]):
        found = saliency.occlusion_map(
            MODEL, net, other, mask=np.int64(8), overlap=np.float32(0.25)
        )
        np.testing.assert_array_equal(found, expected)


def test_a_patch_that_does_not_fit_the_model_is_named(patch):
    model = get_model("models_genesis")
    with pytest.raises(
        ValueError, match=r"models_genesis takes patches of shape \(n, 1, 48, 48, 48\)"
    ):
        saliency.occlusion_map(model, model.build("compact"), patch)


def test_a_zero_embedding_has_no_direction(patch):
    model = SimpleNamespace(encode=lambda module, x: torch.zeros(len(x), 7), key="zero", dim=7)
    for method in (saliency.occlusion_map, saliency.gradient_map):
        with pytest.raises(saliency.SaliencyError, match="zero"):
            method(model, torch.nn.Identity().eval(), patch)


def test_gradient_map_is_the_norm_of_the_jacobian(patch):
    net = Net().eval()
    image = torch.from_numpy(patch)[None, None]

    def unit(x):
        return torch.nn.functional.normalize(net(x), dim=1)[0]

    jacobian = torch.autograd.functional.jacobian(unit, image)[:, 0, 0]
    expected = jacobian.square().sum(dim=0).sqrt().numpy()
    found = saliency.gradient_map(MODEL, net, patch, projections=600)
    # A mean of n squares has a relative error of sqrt(2 / n) at most.
    np.testing.assert_allclose(found, expected, rtol=5 * np.sqrt(2 / 600) / 2, atol=1e-9)
    assert all(p.grad is None for p in net.parameters())


def test_gradient_map_agrees_with_small_changes_of_a_real_encoder():
    model = get_model("pasta")
    module = model.build("compact")
    patch = np.random.default_rng(0).random(model.spec.size, dtype=np.float32)
    found = saliency.gradient_map(model, module, patch, projections=8)
    # Ten voxels of the highest and ten of the lowest values: the first move the embedding more.
    order = found.ravel().argsort()
    whole = torch.nn.functional.normalize(model.encode(module, torch.from_numpy(patch)[None, None]))
    moves = []
    for voxels in (order[:10], order[-10:]):
        other = patch.copy()
        other.ravel()[voxels] = 1 - other.ravel()[voxels]
        moved = model.encode(module, torch.from_numpy(other)[None, None])
        moves.append((torch.nn.functional.normalize(moved) - whole).norm().item())
    assert moves[1] > 3 * moves[0]


def test_a_network_that_rounds_its_input_has_no_gradient_map():
    model = get_model("medimageinsight")
    patch = np.random.default_rng(0).random(model.spec.size, dtype=np.float32)
    with pytest.raises(saliency.SaliencyError, match=r"medimageinsight.*rounds its input"):
        saliency.gradient_map(model, model.build("compact"), patch)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"projections": 0}, "no projections"),
        ({"patch": np.full((16, 16, 16), 0.3)}, "are equal"),
        ({"module": Net().train()}, "training mode"),
    ],
)
def test_gradient_map_refuses_bad_input(patch, change, message):
    arguments = {"module": Net().eval(), "patch": patch} | change
    with pytest.raises(saliency.SaliencyError, match=message):
        saliency.gradient_map(MODEL, **arguments)


@pytest.mark.parametrize("orientation", ["RAS", "SPL", "LPS", "SLP"])
def test_lesion_and_patch_share_a_grid(orientation):
    # A bright box in air, off centre; its mask must lie on the bright voxels of the patch.
    hu = np.full((60, 70, 80), -1000, np.int16)
    hu[30:38, 20:32, 45:50] = 600
    image = sitk.GetImageFromArray(hu)
    image.SetSpacing((0.9, 1.1, 1.3))
    image.SetOrigin((-20.0, 31.0, 5.0))
    mask = sitk.Cast(image > 0, sitk.sitkUInt8)
    seed = image.TransformIndexToPhysicalPoint((44, 30, 30))
    spec = PatchSpec(orientation, (1.0, 1.0, 1.5), (40, 44, 36), (-1000, 600), (-1, 1))
    lesion = saliency.lesion_on_patch(mask, seed, spec)
    np.testing.assert_array_equal(lesion, extract_patch(image, seed, spec) >= 0)
    assert lesion.shape == spec.size and lesion.dtype == bool
    volume = lesion.sum() * np.prod(spec.spacing_mm)
    assert volume == pytest.approx(8 * 12 * 5 * 0.9 * 1.1 * 1.3, rel=0.25)
    reference = PatchSpec("RAS", (1.0, 1.0, 1.5), (40, 44, 36), (-1000, 600), (-1, 1))
    side = 34  # voxels that both cubes hold, around the common middle
    a, b = (
        saliency.to_ras(saliency.lesion_on_patch(mask, seed, s), s.orientation)
        for s in (spec, reference)
    )
    inner = [tuple(slice(n // 2 - side // 2, n // 2 + side // 2) for n in x.shape) for x in (a, b)]
    np.testing.assert_array_equal(a[inner[0]], b[inner[1]])


def test_a_lesion_far_from_the_patch_is_named():
    mask = sitk.Image(80, 80, 80, sitk.sitkUInt8)
    mask[5, 5, 5] = 1
    with pytest.raises(saliency.SaliencyError, match="no voxel of the lesion"):
        saliency.lesion_on_patch(mask, (60.0, 60.0, 60.0), PatchSpec(size=(20, 20, 20)))


def test_to_ras_undoes_the_orientation():
    array = np.arange(24).reshape(2, 3, 4)  # axes R, A, S
    np.testing.assert_array_equal(saliency.to_ras(array, "RAS"), array)
    spl = array.transpose(2, 1, 0)[:, ::-1, ::-1]
    np.testing.assert_array_equal(saliency.to_ras(spl, "SPL"), array)
    slp = array.transpose(2, 0, 1)[:, ::-1, ::-1]
    np.testing.assert_array_equal(saliency.to_ras(slp, "SLP"), array)


def middle_map(shape):
    """A map that knows nothing but that lesions stand in the middle of patches."""
    away = np.linalg.norm(np.indices(shape).T - (np.array(shape) - 1) / 2, axis=-1).T
    return 1 - away / away.max()


def test_a_map_of_the_middle_is_worth_nothing_against_the_mirror():
    rng = np.random.default_rng(0)
    lesion = np.zeros((20, 20, 20), bool)
    lesion[11:17, 9:13, 12:18] = True  # reaches over the middle along the second axis
    found = saliency.score(middle_map(lesion.shape), lesion)
    assert found["auc"] > 0.6
    assert found["mirror_auc"] == pytest.approx(0.5)
    assert saliency.score(lesion + rng.random(lesion.shape), lesion)["mirror_auc"] == 1
    symmetric = lesion | np.flip(lesion)
    assert np.isnan(saliency.score(middle_map(lesion.shape), symmetric)["mirror_auc"])


def test_ties_of_the_maximum_share_the_hit():
    lesion = np.zeros((4, 4, 4), bool)
    lesion[0] = True
    plateau = np.zeros((4, 4, 4))
    plateau[:2, 0, 0] = 5, 5 * (1 - 1e-6)
    found = saliency.score(plateau, lesion)
    assert found["pointing"] == 0.5
    assert found["distance_mm"] == pytest.approx(0)  # one voxel inside, one outside


def test_scores_by_hand():
    lesion = np.zeros((5, 5, 5), bool)
    lesion[1:4, 1:4, 1:4] = True
    flat = np.ones((5, 5, 5))
    result = saliency.score(flat, lesion)
    assert result["energy"] == pytest.approx(27 / 125)
    assert result["volume_share"] == pytest.approx(27 / 125)
    assert result["auc"] == pytest.approx(0.5)
    assert result["pointing"] == pytest.approx(27 / 125)
    assert result["distance_mm"] > 0
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
        (np.zeros((3, 3, 3)), np.eye(3)[None] * np.ones((3, 1, 1)), "not all zero"),
    ],
)
def test_what_cannot_be_scored_is_named(values, lesion, message):
    with pytest.raises(saliency.SaliencyError, match=message):
        saliency.score(values, lesion)
