"""Phantom scans: geometry, lesions, noise, kernels, slices."""

from dataclasses import replace

import numpy as np
import pytest
import SimpleITK as sitk
from scipy import ndimage

import tumorbench_phantoms as phantoms
from tumorbench_phantoms import primitives
from tumorbench_phantoms.lesion import GROUND_GLASS_HU

QUIET = phantoms.Acquisition(
    spacing_mm=0.8, slice_mm=1.0, thickness_mm=1.0, sharpness=0.5, noise_hu=0, field_mm=64
)


def case(organ="lung", entropy=1, **phenotype):
    lesion = phantoms.Lesion(**{"diameter_mm": 20, "entropy": 7, **phenotype})
    return phantoms.Case(organ, (lesion,), entropy=(entropy,))


def arrays(scan):
    return sitk.GetArrayFromImage(scan.image).astype(float), [
        sitk.GetArrayFromImage(m).astype(bool) for m in scan.masks
    ]


def inside(scan, margin_mm=2.0):
    """HU of the lesion's voxels at least `margin_mm` from its border."""
    image, (mask,) = arrays(scan)
    spacing = scan.image.GetSpacing()[::-1]
    return image[ndimage.distance_transform_edt(mask, spacing) > margin_mm]


# Primitives


def grid(n=40, step=1.0):
    axis = ((np.arange(n) - (n - 1) / 2) * step).astype(np.float32)
    return primitives.Grid(axis, axis, axis, 1.0)


@pytest.mark.parametrize("length", [2.0, 5.0])
def test_fields_have_unit_variance_and_the_correlation_length(length):
    values = np.stack(
        [primitives.field(np.random.default_rng(k), grid(), length, 22.0) for k in range(60)]
    )
    assert values.mean() == pytest.approx(0, abs=0.05)
    assert values.var() == pytest.approx(1, abs=0.06)
    shift = round(length)
    for axis in (1, 2, 3):
        ahead = np.take(values, range(shift, 40), axis)
        behind = np.take(values, range(40 - shift), axis)
        assert (ahead * behind).mean() == pytest.approx(np.exp(-1), abs=0.05)


def test_a_field_does_not_depend_on_the_grid_it_is_asked_on():
    fine = primitives.field(np.random.default_rng(1), grid(41, 1.0), 6.0)
    coarse = primitives.field(np.random.default_rng(1), grid(21, 2.0), 6.0)
    assert coarse == pytest.approx(fine[::2, ::2, ::2], abs=1e-4)


def test_tubes_fill_the_volume_of_their_shape():
    ends = np.array([[-12.0, 0, 0]]), np.array([[12.0, 0, 0]])
    filled = primitives.tubes(grid(80, 0.5), *ends, np.array([3.0]), np.array([3.0]))
    volume = filled.sum() * 0.5**3
    assert volume == pytest.approx(np.pi * 9 * 24 + 4 / 3 * np.pi * 27, rel=0.02)
    away = primitives.tubes(grid(), ends[0] + 500, ends[1] + 500, np.array([3.0]), np.array([3.0]))
    assert not away.any()


def test_ellipsoids_have_their_volume_however_they_are_turned():
    turned = primitives.rotation(np.random.default_rng(0), 2, 30, 5)
    box, distance = primitives.ellipsoid(grid(60), (2, -3, 1), (14, 8, 10), turned)
    assert (distance < 0).sum() == pytest.approx(4 / 3 * np.pi * 14 * 8 * 10, rel=0.02)
    volume = np.zeros(grid(60).shape, np.float32)
    primitives.fill(volume, box, distance, np.float32(5), 1.0)
    assert volume.max() == 5 and volume.sum() == pytest.approx(5 * (distance < 0).sum(), rel=0.05)


def test_trees_hang_together_and_grow_thinner():
    rng = np.random.default_rng(3)
    starts, ends, r0, r1 = primitives.tree(
        rng.uniform(-50, 50, (150, 3)), np.array([60.0, 0, 0]), 0.5, 0.4, 6
    )
    nodes = {tuple(p) for p in ends} | {(60.0, 0.0, 0.0)}
    assert {tuple(p) for p in starts} <= nodes
    assert (r0 >= r1 - 1e-12).all() and r0.max() <= 6 and r1.min() == 0.5


# Lesions


@pytest.mark.parametrize("organ", ["lung", "kidney", "liver"])
@pytest.mark.parametrize("lobulation", [0.0, 0.6])
def test_masks_have_the_volume_of_the_diameter(organ, lobulation):
    scan = phantoms.scan(case(organ, diameter_mm=24, lobulation=lobulation), QUIET)
    _, (mask,) = arrays(scan)
    volume = mask.sum() * np.prod(scan.image.GetSpacing())
    assert (6 * volume / np.pi) ** (1 / 3) == pytest.approx(24, rel=0.02)


def test_masks_of_small_lesions_in_thick_slices_are_never_empty():
    thick = replace(QUIET, slice_mm=5, thickness_mm=5)
    for entropy in range(6):
        scan = phantoms.scan(case(entropy=entropy, diameter_mm=3.6), thick)
        assert sitk.GetArrayFromImage(scan.masks[0]).sum() >= 1


def test_centroids_are_those_of_the_masks():
    planned = next(p for p in phantoms.plan("luna16") if len(p.case.lesions) > 2)
    scan = phantoms.scan(planned.case, planned.acquisition)
    for mask, centroid in zip(scan.masks, scan.centroids_lps, strict=True):
        shape = sitk.LabelShapeStatisticsImageFilter()
        shape.Execute(mask)
        assert centroid == pytest.approx(shape.GetCentroid(1), abs=1e-3)
    total = sum(m for _, masks in [arrays(scan)] for m in masks)
    assert total.max() == 1
    size = np.array(scan.image.GetSize())
    for mask in scan.masks:
        where = np.argwhere(sitk.GetArrayFromImage(mask))[:, ::-1]
        assert (where > 2).all() and (where < size - 3).all()


def test_attenuation_texture_and_ground_glass_are_as_told():
    plain = inside(phantoms.scan(case(diameter_mm=30, attenuation_hu=45), QUIET), 5)
    assert plain == pytest.approx(45, abs=1)
    rough = [
        inside(
            phantoms.scan(
                case(diameter_mm=40, texture_hu=40, texture_length_mm=5, entropy=k), QUIET
            )
        )
        for k in range(6)
    ]
    assert np.mean([r.var() for r in rough]) ** 0.5 == pytest.approx(40, rel=0.15)
    glass = inside(phantoms.scan(case(diameter_mm=30, ground_glass=1.0), QUIET), 4)
    assert glass == pytest.approx(GROUND_GLASS_HU, abs=1)


def test_longer_texture_is_more_alike_next_door():
    def alike(length):
        image, (mask,) = arrays(
            phantoms.scan(case(diameter_mm=40, texture_hu=40, texture_length_mm=length), QUIET)
        )
        core = ndimage.binary_erosion(mask, iterations=4)
        both = core[:, :, 3:] & core[:, :, :-3]
        return np.corrcoef(image[:, :, 3:][both], image[:, :, :-3][both])[0, 1]

    assert alike(1.5) < 0.3 < 0.6 < alike(6.0)


def test_part_solid_lesions_have_the_mean_that_the_table_tells():
    lesion = phantoms.Lesion(30, ground_glass=0.6, attenuation_hu=30)
    scan = phantoms.scan(phantoms.Case("lung", (lesion,)), QUIET)
    image, (mask,) = arrays(scan)
    assert image[mask].mean() == pytest.approx(lesion.mean_hu, abs=45)


def test_core_rim_and_calcium_lie_where_they_should():
    def profile(**phenotype):
        scan = phantoms.scan(case("liver", diameter_mm=36, attenuation_hu=60, **phenotype), QUIET)
        image, (mask,) = arrays(scan)
        depth = ndimage.distance_transform_edt(mask, scan.image.GetSpacing()[::-1])
        return [image[(depth > a) & (depth <= b)].mean() for a, b in ((1, 3), (6, 9), (13, 99))]

    plain = profile()
    dead, rim, hard = profile(necrosis=0.6), profile(rim_hu=60), profile(calcification=0.5)
    assert plain == pytest.approx([60, 60, 60], abs=3)
    assert dead[2] == pytest.approx(5, abs=3) and dead[0] == pytest.approx(60, abs=3)
    assert rim[0] > 95 and rim[2] == pytest.approx(60, abs=2)
    assert hard[2] > 200 and hard[0] == pytest.approx(60, abs=3)


def test_spicules_leave_the_mask_and_lobes_roughen_it():
    smooth = phantoms.scan(case(), QUIET)
    spiky = phantoms.scan(case(spiculation=0.8), QUIET)
    image, (mask,) = arrays(spiky)
    bare, (same,) = arrays(smooth)
    assert (mask == same).all()
    around = ndimage.binary_dilation(mask, iterations=8) & ~ndimage.binary_dilation(
        mask, iterations=2
    )
    assert (image - bare)[around].mean() > 15

    def surface(scan):
        shape = sitk.LabelShapeStatisticsImageFilter()
        shape.ComputePerimeterOn()
        shape.Execute(scan.masks[0])
        return shape.GetRoundness(1)

    assert surface(phantoms.scan(case(lobulation=0.9), QUIET)) < surface(smooth) - 0.02


def test_a_lesion_can_be_left_out():
    there = phantoms.scan(case(spiculation=0.3), QUIET)
    gone = phantoms.scan(case(spiculation=0.3), QUIET, lesions=False)
    with_, (mask,) = arrays(there)
    without, (same,) = arrays(gone)
    assert (mask == same).all() and there.centroids_lps == pytest.approx(gone.centroids_lps)
    core = ndimage.binary_erosion(mask, iterations=2)
    assert with_[core].mean() > 0 and without[core].mean() < -600
    far = ~ndimage.binary_dilation(mask, iterations=20)
    assert np.abs(with_[far] - without[far]).max() <= 1


# Scanner


def test_noise_has_its_standard_deviation_whatever_the_kernel():
    for sharpness in (0.0, 0.4, 0.9):
        settings = replace(QUIET, sharpness=sharpness)
        quiet, _ = arrays(phantoms.scan(case("liver"), settings))
        loud, _ = arrays(phantoms.scan(case("liver"), replace(settings, noise_hu=25), 3))
        noise = (loud - quiet)[(quiet > -900) & (loud > -1000)]
        assert noise.std() == pytest.approx(25, rel=0.02)
        assert noise.mean() == pytest.approx(0, abs=0.5)


def test_smooth_kernels_give_coarse_noise_and_soft_edges():
    grain, edge = [], []
    for sharpness in (0.1, 0.5, 0.9):
        settings = replace(QUIET, sharpness=sharpness)
        quiet, _ = arrays(phantoms.scan(case("lung", attenuation_hu=30), settings))
        loud, _ = arrays(phantoms.scan(case("lung"), replace(settings, noise_hu=20), 3))
        noise = loud - quiet
        grain.append(np.corrcoef(noise[:, :, 1:].ravel(), noise[:, :, :-1].ravel())[0, 1])
        edge.append(np.abs(np.diff(quiet, axis=2)).max())
    assert grain[0] > grain[1] > grain[2] and edge[0] < edge[1] < edge[2]


def test_slices_of_noise_are_independent_unless_they_overlap():
    def between(thickness):
        a = replace(QUIET, slice_mm=2, thickness_mm=thickness)
        noise = [
            arrays(phantoms.scan(case("liver"), replace(a, noise_hu=n), 1))[0] for n in (0, 20)
        ]
        noise = noise[1] - noise[0]
        return np.corrcoef(noise[1:].ravel(), noise[:-1].ravel())[0, 1]

    assert between(2) == pytest.approx(0, abs=0.01)
    assert between(4) == pytest.approx(0.5, abs=0.02)


def test_thick_slices_dilute_small_lesions():
    peak = []
    for thickness in (1.0, 3.0, 6.0):
        settings = replace(QUIET, slice_mm=1.0, thickness_mm=thickness)
        image, (mask,) = arrays(phantoms.scan(case(diameter_mm=6, attenuation_hu=40), settings))
        peak.append(image[mask].max())
    assert peak[0] > peak[1] + 15 and peak[1] > peak[2] + 50


def test_shift_of_calibration_is_added_everywhere():
    plain, _ = arrays(phantoms.scan(case("kidney"), QUIET))
    shifted, _ = arrays(phantoms.scan(case("kidney"), replace(QUIET, hu_shift=12)))
    free = plain > -1000
    assert (shifted - plain)[free] == pytest.approx(12)


def test_another_spacing_shows_the_same_body():
    item = phantoms.plan("colorectal_liver_metastases")[0]
    settings = replace(item.acquisition, noise_hu=0, slice_mm=1.0, thickness_mm=1.0, field_mm=90)
    fine = phantoms.scan(item.case, replace(settings, spacing_mm=0.7))
    coarse = phantoms.scan(item.case, replace(settings, spacing_mm=1.0))
    again = sitk.Resample(fine.image, coarse.image, sitk.Transform(), sitk.sitkLinear, -1024)
    a, (mask,) = arrays(coarse)
    b = sitk.GetArrayFromImage(again).astype(float)
    core = (slice(8, -8),) * 3
    assert np.corrcoef(a[core].ravel(), b[core].ravel())[0, 1] > 0.98
    other = sitk.GetArrayFromImage(sitk.Resample(fine.masks[0], coarse.image)).astype(bool)
    assert 2 * (mask & other).sum() / (mask.sum() + other.sum()) > 0.9


def test_a_smaller_field_shows_a_part_of_the_same_image():
    item = phantoms.plan("c4kc_kits")[1]
    large = replace(item.acquisition, noise_hu=0, spacing_mm=0.8, slice_mm=2, thickness_mm=2)
    whole, _ = arrays(phantoms.scan(item.case, replace(large, field_mm=128)))
    part, _ = arrays(phantoms.scan(item.case, replace(large, field_mm=64)))
    cut = whole[16:48, 40:120, 40:120]
    assert part.shape == cut.shape
    assert np.abs(part - cut)[:, 6:-6, 6:-6].max() <= 3


def test_scans_are_the_same_every_time_and_noise_follows_its_seed():
    noisy = replace(QUIET, noise_hu=10)
    first, second = (phantoms.scan(case(), noisy, 5) for _ in range(2))
    assert (arrays(first)[0] == arrays(second)[0]).all()
    other = phantoms.scan(case(), noisy, 6)
    assert (arrays(first)[0] != arrays(other)[0]).mean() > 0.8
    assert first.image.GetPixelID() == sitk.sitkInt16 and first.image.GetDepth() == 64


def test_organs_look_like_themselves():
    lung, (mask,) = arrays(phantoms.scan(case("lung", diameter_mm=8), QUIET))
    assert -920 < np.median(lung[~mask]) < -780
    kidney, (mask,) = arrays(phantoms.scan(case("kidney", diameter_mm=20), QUIET))
    fat, cortex = (kidney > -150) & (kidney < -60), (kidney > 140) & (kidney < 260)
    assert fat[~mask].mean() > 0.15 and cortex[~mask].mean() > 0.03
    liver, (mask,) = arrays(phantoms.scan(case("liver", diameter_mm=20), QUIET))
    assert 80 < np.median(liver[~mask]) < 130


def test_retests_move_the_patient_but_keep_the_lesion():
    first, second = phantoms.plan("rider_lung_ct")[:2]
    assert first.patient_id == second.patient_id
    assert first.case.lesions == second.case.lesions
    assert first.case.entropy == second.case.entropy
    assert first.case.shift_mm == (0, 0, 0) != second.case.shift_mm
    settings = replace(first.acquisition, noise_hu=0, field_mm=90)
    one, two = (phantoms.scan(p.case, settings) for p in (first, second))
    (_, (a,)), (_, (b,)) = arrays(one), arrays(two)
    assert a.sum() == pytest.approx(b.sum(), rel=0.01)
    moved = two.centroids_lps - one.centroids_lps - np.array(second.case.origin_lps)
    moved = moved + first.case.origin_lps - second.case.shift_mm
    assert moved == pytest.approx(np.zeros((1, 3)), abs=0.2)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("spacing_mm", 0),
        ("slice_mm", -1),
        ("thickness_mm", float("nan")),
        ("field_mm", 400),
        ("sharpness", 1.2),
        ("noise_hu", -3),
        ("noise_hu", float("inf")),
        ("hu_shift", float("nan")),
    ],
)
def test_impossible_acquisitions_are_refused(field, value):
    with pytest.raises(ValueError, match=field):
        phantoms.Acquisition(**{field: value})


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("diameter_mm", 0),
        ("diameter_mm", float("nan")),
        ("diameter_mm", 130),
        ("lobulation", 1.5),
        ("spiculation", -0.1),
        ("ground_glass", 2),
        ("necrosis", float("nan")),
        ("calcification", -1),
        ("texture_hu", -5),
        ("texture_length_mm", 0),
        ("rim_hu", -3),
        ("attenuation_hu", float("inf")),
    ],
)
def test_impossible_lesions_are_refused(field, value):
    with pytest.raises(ValueError, match=field):
        phantoms.Lesion(**{"diameter_mm": 10, field: value})


def test_impossible_cases_are_refused():
    with pytest.raises(ValueError, match="unknown organ 'spleen'"):
        phantoms.Case("spleen", (phantoms.Lesion(10),))
    with pytest.raises(ValueError, match="at least one lesion"):
        phantoms.Case("lung", ())
