"""Handcrafted features of bodies whose numbers are known."""

import itertools

import numpy as np
import pandas as pd
import pytest
import SimpleITK as sitk

from tumorbench_utils import handcrafted
from tumorbench_utils.cohorts import COHORTS, Cohort


def radius(scale=(1, 1, 1)):
    axes = np.ogrid[:48, :48, :48]
    return np.sqrt(sum(((a - 23.5) / s) ** 2 for a, s in zip(axes, scale, strict=True)))


def ball(diameter, inside=40.0, outside=-850.0, scale=(1, 1, 1)):
    return np.where(radius(scale) <= diameter / 2, inside, outside)


@pytest.mark.parametrize("diameter", [8, 14, 24])
@pytest.mark.parametrize(("inside", "outside"), [(40, -850), (60, 110), (-500, -850)])
def test_a_ball_is_measured(diameter, inside, outside):
    """Bright in lung, dark in liver, ground glass: diameter, shape and contrast are right."""
    found = handcrafted.features(ball(diameter, inside, outside))
    assert found["diameter_mm"] == pytest.approx(diameter, rel=0.06)
    assert found["contrast_hu"] == inside - outside
    assert found["mean_hu"] == pytest.approx(inside, abs=0.05 * abs(inside - outside))
    assert found["elongation"] == pytest.approx(1, abs=0.03)
    assert found["flatness"] == pytest.approx(1, abs=0.03)
    assert found["roughness"] == pytest.approx(1, abs=0.08)


def test_noise_does_not_move_a_ball():
    noise = np.random.default_rng(0).normal(scale=40, size=(48, 48, 48))
    found = handcrafted.features(ball(14) + noise)
    assert found["diameter_mm"] == pytest.approx(14, rel=0.06)
    assert found["sd_hu"] == pytest.approx(40, rel=0.5)


def test_an_ellipsoid_has_its_axes():
    found = handcrafted.features(ball(12, scale=(2, 1.5, 1)))
    assert found["elongation"] == pytest.approx(0.75, abs=0.03)
    assert found["flatness"] == pytest.approx(0.5, abs=0.03)


def test_spikes_make_it_rough():
    patch = ball(14)
    for axis in range(3):
        spike = [slice(22, 25)] * 3
        spike[axis] = slice(8, 40)
        patch[tuple(spike)] = 40
    assert handcrafted.features(patch)["roughness"] > 1.15


def test_texture_by_hand():
    """Two grey levels in a row of four: steps 0, 1, 0 make contrast 1/3, homogeneity 5/6."""
    levels = np.array([0, 0, 1, 1]).reshape(4, 1, 1)
    found = handcrafted._texture(levels, np.ones_like(levels, dtype=bool))
    assert found["texture_contrast"] == pytest.approx(1 / 3)
    assert found["texture_homogeneity"] == pytest.approx(5 / 6)
    assert found["texture_correlation"] == pytest.approx(1 / 3)


def test_texture_tells_fine_from_coarse():
    rng = np.random.default_rng(1)
    fine = ball(24) + np.where(radius() < 12, rng.normal(scale=80, size=(48,) * 3), 0)
    coarse = rng.normal(scale=80, size=(6,) * 3).repeat(8, 0).repeat(8, 1).repeat(8, 2)
    coarse = ball(24) + np.where(radius() < 12, coarse, 0)
    assert (
        handcrafted.features(fine)["texture_correlation"]
        < handcrafted.features(coarse)["texture_correlation"] - 0.3
    )


def test_a_uniform_patch_has_finite_features():
    found = handcrafted.features(np.full((48, 48, 48), 30.0))
    assert np.isfinite(list(found.values())).all()
    assert found["contrast_hu"] == found["sd_hu"] == found["edge_hu_per_mm"] == 0


def test_orientation_does_not_matter():
    rng = np.random.default_rng(2)
    patch = ball(14, scale=(1.5, 1, 1)) + rng.normal(scale=30, size=(48,) * 3)
    expected = handcrafted.features(patch)
    for order, flip in itertools.product([(1, 2, 0), (2, 1, 0)], [(0,), (0, 1, 2)]):
        turned = np.flip(patch.transpose(order), flip)
        assert handcrafted.features(turned) == pytest.approx(expected, rel=0.02, abs=0.02)


@pytest.mark.parametrize(
    "patch",
    [np.zeros((48, 48)), np.zeros((48, 48, 47)), np.zeros((32,) * 3), np.full((48,) * 3, np.nan)],
)
def test_other_patches_are_refused(patch):
    with pytest.raises(ValueError, match="patch"):
        handcrafted.features(patch)


def test_features_of_a_cohort_follow_its_table(tmp_path):
    """Two lesions in one scan, one in another; rows come back under their ids."""
    rows = []
    for scan, diameters in (("s1", (10, 18)), ("s2", (14,))):
        volume = np.full((60, 60, 60 * len(diameters)), -850, np.int16)
        for place, diameter in enumerate(diameters):
            volume[6:54, 6:54, 60 * place + 6 : 60 * place + 54] = ball(diameter)
            seed = (60 * place + 29.5, 29.5, 29.5)
            rows.append(
                {
                    "lesion_id": f"{scan}-{place}",
                    "scan_id": scan,
                    "true": diameter,
                    "image_path": str(tmp_path / f"{scan}.nii.gz"),
                    "coord_x": seed[0],
                    "coord_y": seed[1],
                    "coord_z": seed[2],
                }
            )
        sitk.WriteImage(sitk.GetImageFromArray(volume), str(tmp_path / f"{scan}.nii.gz"))
    table = pd.DataFrame(rows).iloc[[2, 1, 0]]
    found = handcrafted.cohort_features(Cohort(COHORTS["luna16"], "phantom", table))
    assert list(found.index) == list(table["lesion_id"])
    assert found["diameter_mm"].to_numpy() == pytest.approx(table["true"].to_numpy(), rel=0.08)


def test_the_encoder_gives_the_features_in_their_order():
    torch = pytest.importorskip("torch")
    patches = [ball(10), ball(16)]
    encoder = handcrafted.Handcrafted()
    found = encoder.encode(None, torch.tensor(np.stack(patches)[:, None]))
    assert found.shape == (2, encoder.dim)
    for row, patch in zip(found.numpy(), patches, strict=True):
        np.testing.assert_allclose(row, list(handcrafted.features(patch).values()), rtol=1e-5)
    assert encoder.encode(None, torch.zeros(0, 1, 48, 48, 48)).shape == (0, encoder.dim)
