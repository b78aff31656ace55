"""Changed scans and controls: what must change does, what must not does not."""

import numpy as np
import pytest
import SimpleITK as sitk

from tumorbench_utils import robustness
from tumorbench_utils.robustness import RobustnessError, images


@pytest.fixture
def scan():
    """Noise with a bright ball, slices of 2 mm along z."""
    rng = np.random.default_rng(0)
    array = rng.normal(-600, 60, (30, 40, 40)).astype(np.int16)
    z, y, x = np.ogrid[:30, :40, :40]
    ball = ((z - 15) * 2) ** 2 + (y - 20) ** 2 + (x - 18) ** 2 < 64
    array[ball] = rng.normal(40, 20, ball.sum())
    image, mask = sitk.GetImageFromArray(array), sitk.GetImageFromArray(ball.astype(np.uint8))
    for one in (image, mask):
        one.SetSpacing((1.0, 1.0, 2.0))
        one.SetOrigin((5.0, -7.0, 30.0))
    return image, mask


def values(image):
    return sitk.GetArrayFromImage(image).astype(float)


def test_without_changes_the_scan_stays_what_it_is(scan):
    image, _ = scan
    same = robustness.perturb(image)
    assert same.GetPixelID() == sitk.sitkInt16
    np.testing.assert_array_equal(values(same), values(image))


def test_calibration_is_a_straight_line(scan):
    image, _ = scan
    changed = robustness.perturb(image, hu_scale=1.1, hu_shift=20)
    np.testing.assert_allclose(values(changed), 1.1 * values(image) + 20, atol=0.51)
    assert values(robustness.perturb(image, hu_shift=-900)).min() == -1024


def test_noise_has_its_standard_deviation_and_its_seed(scan):
    image, _ = scan
    noisy = robustness.perturb(image, noise_hu=30, seed=3)
    assert (values(noisy) - values(image)).std() == pytest.approx(30, rel=0.02)
    np.testing.assert_array_equal(
        values(noisy), values(robustness.perturb(image, noise_hu=30, seed=3))
    )
    assert not np.array_equal(values(noisy), values(robustness.perturb(image, noise_hu=30, seed=4)))


def test_a_kernel_acts_in_the_plane_and_thickness_across():
    array = np.full((21, 21, 21), -1000, np.int16)
    array[10, 10, 10] = 1000
    image = sitk.GetImageFromArray(array)
    soft = values(robustness.perturb(image, kernel_mm=1.5)) + 1000
    assert np.flatnonzero(soft.any(axis=(1, 2))).tolist() == [10]
    assert soft[10, 10, 12] == soft[10, 12, 10] > 0
    thick = values(robustness.perturb(image, thickness_mm=3)) + 1000
    assert thick[:, 10, 10].sum() == pytest.approx(thick.sum())
    # The standard deviation of a Gaussian that is 3 mm wide at half of its maximum.
    profile = thick[:, 10, 10] / thick[:, 10, 10].sum()
    spread = np.sqrt((profile * (np.arange(21) - 10) ** 2).sum())
    assert spread == pytest.approx(3 / 2.3548, rel=0.02)
    # The slices are found by direction, not by the order of the axes.
    turned = sitk.PermuteAxes(image, (2, 0, 1))
    soft = values(sitk.PermuteAxes(robustness.perturb(turned, kernel_mm=1.5), (1, 2, 0))) + 1000
    assert np.flatnonzero(soft.any(axis=(1, 2))).tolist() == [10]


def test_fewer_slices_keep_their_place(scan):
    image, _ = scan
    coarse = robustness.perturb(image, slice_mm=4.0)
    assert coarse.GetSpacing() == (1.0, 1.0, 4.0)
    assert coarse.GetOrigin() == image.GetOrigin()
    np.testing.assert_array_equal(values(coarse), values(image)[::2])


def test_shuffling_keeps_the_histogram_and_the_other_region(scan, monkeypatch):
    image, mask = scan
    lesion = values(mask) > 0
    inner = values(robustness.shuffled(image, mask, "lesion"))
    np.testing.assert_array_equal(inner[~lesion], values(image)[~lesion])
    np.testing.assert_array_equal(np.sort(inner[lesion]), np.sort(values(image)[lesion]))
    assert (inner[lesion] != values(image)[lesion]).mean() > 0.9
    outer = values(robustness.shuffled(image, mask, "background"))
    np.testing.assert_array_equal(outer[lesion], values(image)[lesion])
    np.testing.assert_array_equal(np.sort(outer, axis=None), np.sort(values(image), axis=None))
    monkeypatch.setattr(images, "_MARGIN_MM", 3)
    near = values(robustness.shuffled(image, mask, "background"))
    assert np.array_equal(near[0], values(image)[0])
    assert robustness.shuffled(image, mask, "lesion").GetOrigin() == image.GetOrigin()


def test_files_do_as_well(scan, tmp_path):
    image, mask = scan
    paths = tmp_path / "Überträger.nii.gz", tmp_path / "mask.nrrd"
    for one, path in zip((image, mask), paths, strict=True):
        sitk.WriteImage(one, str(path))
    changed = robustness.shuffled(*paths, "lesion", seed=1)
    np.testing.assert_array_equal(
        values(changed), values(robustness.shuffled(image, mask, "lesion", seed=1))
    )


@pytest.mark.parametrize(
    "options",
    [
        {"kernel_mm": -1},
        {"thickness_mm": np.nan},
        {"noise_hu": -20},
    ],
)
def test_settings_without_a_meaning_are_refused(scan, options):
    with pytest.raises(RobustnessError, match="0 or more"):
        robustness.perturb(scan[0], **options)


def test_masks_that_do_not_fit_are_named(scan):
    image, mask = scan
    with pytest.raises(ValueError, match="did you mean lesion"):
        robustness.shuffled(image, mask, "lesions")
    with pytest.raises(ValueError, match="zero-size"):
        robustness.shuffled(image, mask * 0, "lesion")
    moved = sitk.Image(mask)
    moved.SetOrigin((5.0, -7.0, 32.0))
    for other in (mask[:, :, 1:], moved):
        with pytest.raises(RuntimeError, match=r"physical space|not the same size|size"):
            robustness.shuffled(image, other, "lesion")


def test_a_real_scan_can_be_perturbed(reference):
    path = reference / "ct" / "ct_cropped.nii.gz"
    softer = robustness.perturb(path, kernel_mm=1.0, thickness_mm=5.0)
    before = values(sitk.ReadImage(str(path)))
    after = values(softer)
    assert after.shape == before.shape
    assert np.abs(np.diff(after, axis=0)).mean() < np.abs(np.diff(before, axis=0)).mean()
