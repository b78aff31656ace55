"""Patches against a slow version, MONAI and the released arrays; geometry and specs."""

import itertools
import json

import numpy as np
import pandas as pd
import pytest
import SimpleITK as sitk
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import map_coordinates
from scipy.spatial.transform import Rotation

from tumorbench_utils.patches import PatchError, PatchSpec, extract_patch, extract_patches

CODES = [
    "".join(letters)
    for axes in itertools.permutations(["RL", "AP", "SI"])
    for letters in itertools.product(*axes)
]
PERMUTATIONS = [np.eye(3)[list(order)] for order in itertools.permutations(range(3))]


def make_image(size, spacing, origin, direction, seed=0, dtype=np.int16):
    """A noisy volume with air, lung, fat and soft tissue; `size` along i, j, k."""
    rng = np.random.default_rng(seed)
    values = rng.choice([-1000, -800, -100, 40, 300], size=tuple(reversed(size)))
    image = sitk.GetImageFromArray((values + rng.normal(0, 20, values.shape)).astype(dtype))
    image.SetSpacing(spacing)
    image.SetOrigin(origin)
    image.SetDirection(np.ravel(direction).tolist())
    return image


def centre_of(image):
    middle = [(n - 1) / 2 for n in image.GetSize()]
    return np.array(image.TransformContinuousIndexToPhysicalPoint(middle))


def slow_patch(image, seed, spec, grid="exact"):
    """Resample the whole scan, cut, turn, scale, fill: the definition, step by step."""
    spacing = np.array(image.GetSpacing())
    affine = np.eye(4)
    affine[:3, :3] = np.reshape(image.GetDirection(), (3, 3)) * spacing
    affine[:3, 3] = image.GetOrigin()
    affine = np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine
    array = sitk.GetArrayFromImage(image).transpose(2, 1, 0).astype(float)
    # 1. Turn the array to run to the left, back and head.
    order = [int(np.abs(affine[axis, :3] / spacing).argmax()) for axis in range(3)]
    array = array.transpose(order)
    affine = affine[:, [*order, 3]]
    for axis, wanted in enumerate((-1, -1, 1)):
        if np.sign(affine[axis, axis]) != wanted:
            array = np.flip(array, axis)
            affine[:3, 3] += affine[:3, axis] * (array.shape[axis] - 1)
            affine[:3, axis] *= -1
    # 2. The target grid along the world axes.
    own = np.linalg.norm(affine[:3, :3], axis=0)
    steps = np.where(np.abs(own - spec.spacing_mm) <= 1e-3, own, spec.spacing_mm)
    target = np.diag([*steps, 1.0])
    corners = np.array(list(itertools.product(*[(0, n - 1) for n in array.shape]))).T
    corners = np.vstack([corners, np.ones(8)])
    on_grid = (np.linalg.solve(target, affine) @ corners)[:3]
    shape = np.round(np.ptp(on_grid, axis=1) + 1).astype(int)
    lowest = [c for c in range(8) if np.all(np.min(on_grid.T - on_grid[:, c], axis=0) > -1e-8)]
    if lowest:
        target[:3, 3] = (affine @ corners)[:3, lowest[0]]
    else:
        half = np.array(array.shape) / 2
        target[:3, 3] = affine[:3, :3] @ half + affine[:3, 3] - steps * (shape / 2)
    # 3. Sample the whole grid, 0 HU outside.
    index = np.stack(np.meshgrid(*[np.arange(n) for n in shape], indexing="ij")).astype(float)
    across = np.linalg.solve(affine, target)
    if grid == "monai14":
        stretch = shape / np.maximum(shape - 1, 1)
        index = index * stretch[:, None, None, None] - 0.5
    source = np.einsum("ab,bxyz->axyz", across[:3, :3], index) + across[:3, 3, None, None, None]
    if grid == "monai14":
        n = np.array(array.shape)
        source = (source + 0.5) * ((n - 1) / n)[:, None, None, None]
    whole = map_coordinates(array, source, order=1, mode="grid-constant", cval=0.0)
    # 4. Cut around the voxel of the seed.
    ras = np.array([-seed[0], -seed[1], seed[2], 1.0])
    middle = np.trunc((np.linalg.inv(target) @ ras)[:3]).astype(int)
    pairs = ["RL", "AP", "SI"]
    axes = [next(a for a in range(3) if letter in pairs[a]) for letter in spec.orientation]
    cut = []
    for axis in range(3):
        half = spec.size[axes.index(axis)] // 2
        cut.append(
            slice(max(middle[axis] - half, 0), max(min(middle[axis] + half, shape[axis]), 0))
        )
    patch = whole[tuple(cut)].astype(np.float32)
    if patch.size == 0:
        return None
    # 5. Turn, scale, clip, fill.
    patch = patch.transpose(axes)
    for axis, letter in enumerate(spec.orientation):
        if letter in "LPI":
            patch = np.flip(patch, axis)
    (low, high), (bottom, top) = spec.window_hu, spec.out_range
    patch = np.clip((patch - low) / (high - low) * (top - bottom) + bottom, bottom, top)
    gaps = [n - have for n, have in zip(spec.size, patch.shape, strict=True)]
    return np.pad(patch, [(gap // 2, gap - gap // 2) for gap in gaps])


@st.composite
def cases(draw):
    """A volume of any geometry, a seed near or outside it, a spec and a grid."""
    size = draw(st.tuples(*[st.integers(1, 26)] * 3).filter(lambda n: n[0] * n[1] * n[2] > 8))
    spacing = draw(st.tuples(*[st.floats(0.4, 3).map(lambda mm: round(mm, 3))] * 3))
    angle = draw(st.sampled_from([0, 0, 1e-9, 1e-6, 1e-3]) | st.floats(0, 40))
    axis = draw(st.tuples(*[st.integers(-5, 5)] * 3).filter(any))
    turn = Rotation.from_rotvec(np.deg2rad(angle) * np.array(axis) / np.linalg.norm(axis))
    signs = draw(st.tuples(*[st.sampled_from([-1.0, 1.0])] * 3))
    direction = turn.as_matrix() @ draw(st.sampled_from(PERMUTATIONS)) @ np.diag(signs)
    image = make_image(size, spacing, draw(st.tuples(*[st.floats(-300, 300)] * 3)), direction)
    sides = draw(st.tuples(*[st.integers(2, 20)] * 3))
    low = draw(st.integers(-1100, 0))
    bottom = draw(st.sampled_from([0.0, -1.0]))
    spec = PatchSpec(
        draw(st.sampled_from(CODES)),
        draw(st.sampled_from([(1, 1, 1), (1.5, 0.75, 0.75), (2.2, 1.1, 0.6)])),
        sides,
        (low, low + draw(st.integers(100, 3000))),
        (bottom, 1.0),
    )
    away = np.array(draw(st.tuples(*[st.floats(-1, 1)] * 3)))
    seed = centre_of(image) + direction @ (away * (np.multiply(size, spacing) / 2 + 4))
    return image, seed, spec, draw(st.sampled_from(["exact", "monai14"]))


@settings(max_examples=250, deadline=None, derandomize=True)
@given(cases())
def test_any_geometry_agrees_with_the_slow_version(case):
    image, seed, spec, grid = case
    expected = slow_patch(image, seed, spec, grid)
    if expected is None:
        with pytest.raises(PatchError, match="further outside"):
            extract_patch(image, seed, spec, grid=grid)
        return
    patch = extract_patch(image, seed, spec, grid=grid)
    assert patch.dtype == np.float32 and patch.shape == spec.size and patch.flags.c_contiguous
    np.testing.assert_allclose(patch, expected, rtol=0, atol=1e-6)


def test_agrees_with_monai():
    """The second library: MONAI resamples the whole volume; only the turning is SimpleITK's."""
    torch = pytest.importorskip("torch")
    from monai.data import MetaTensor
    from monai.transforms import ScaleIntensityRange, Spacing, SpatialCrop, SpatialPad

    rng = np.random.default_rng(3)
    worst = []
    for trial in range(12):
        angle = 0 if trial < 6 else rng.uniform(1, 30)
        turn = Rotation.from_rotvec(np.deg2rad(angle) * np.array([0.6, 0, 0.8])).as_matrix()
        direction = turn @ PERMUTATIONS[trial % 6] @ np.diag(rng.choice([-1, 1], 3))
        size, spacing = rng.integers(20, 40, 3), rng.uniform(0.6, 2.5, 3)
        image = make_image(size.tolist(), spacing, rng.uniform(-200, 200, 3), direction, trial)
        seed = centre_of(image) + rng.uniform(-12, 12, 3)
        spec = PatchSpec("RAS", (1, 1, 1), (24, 24, 24))

        upright = sitk.DICOMOrient(image, "LPS")
        affine = np.eye(4)
        affine[:3, :3] = np.reshape(upright.GetDirection(), (3, 3)) * upright.GetSpacing()
        affine[:3, 3] = upright.GetOrigin()
        affine = np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine
        array = sitk.GetArrayFromImage(upright).transpose(2, 1, 0).astype(np.float32)
        tensor = MetaTensor(torch.from_numpy(array)[None].contiguous(), affine=affine)
        grid = Spacing((1, 1, 1), diagonal=True, mode="bilinear", padding_mode="zeros")(tensor)
        ras = np.array([-seed[0], -seed[1], seed[2], 1])
        middle = np.trunc(np.linalg.inv(grid.affine.numpy()) @ ras)[:3].astype(int)
        start, stop = np.maximum(middle - 12, 0), np.minimum(middle + 12, grid.shape[1:])
        cut = SpatialCrop(roi_start=start.tolist(), roi_end=stop.tolist())(grid)
        cut = SpatialPad(spec.size)(ScaleIntensityRange(-1024, 2048, 0, 1, clip=True)(cut))
        worst.append(np.abs(cut[0].numpy() - extract_patch(image, seed, spec)).max())
    assert max(worst) <= 1e-6


@pytest.mark.parametrize(
    "name",
    [
        "A_SPL_1024_2048_48",
        "A_SPL_1024_2048_48__monai14",
        "B_RAS_1024_2048_48",
        "D_RAS_1024_2048_64",
        "G_SLP_1000_1000_60",
    ],
)
def test_agrees_with_the_released_arrays(reference, name):
    folder = reference / "patches"
    entry = json.loads((folder / "patch_configs.json").read_text())[name.split("__")[0]]["ref"]
    spec = PatchSpec(
        entry["orient"],
        entry["spacing"],
        entry["spatial_size"],
        entry["scale_range"],
        entry["clamp"],
    )
    grid = "monai14" if name.endswith("monai14") else "exact"
    expected = np.load(folder / f"{name}.npz")
    seeds = pd.read_csv(folder / "seeds.csv")
    for path, rows in seeds.groupby("image_path"):
        points = rows[["coordX", "coordY", "coordZ"]].to_numpy()
        got = extract_patches(folder / path, points, [spec], grid=grid)
        for n, (patch,) in zip(rows.index, got, strict=True):
            assert expected["rows"][n] == f"{path}|{rows.tag[n]}"
            np.testing.assert_allclose(patch, expected["patches"][n], rtol=0, atol=1e-5)


def test_axes_run_as_the_letters_say():
    """A hand-made case: one bright voxel 5 mm left, 3 mm back and 9 mm up of the seed."""
    values = np.full((40, 40, 40), -1000, np.int16)
    values[20 + 9, 20 + 3, 20 + 5] = 2000
    image = sitk.GetImageFromArray(values)
    patch = extract_patch(image, (20, 20, 20), PatchSpec("LPS", size=(32, 32, 32)))
    # A patch of 32 holds the seed at index 16 towards R, A, S, so at 15 towards L and P.
    assert np.unravel_index(patch.argmax(), patch.shape) == (15 + 5, 15 + 3, 16 + 9)
    patch = extract_patch(image, (20, 20, 20), PatchSpec("SRA", size=(32, 32, 32)))
    assert np.unravel_index(patch.argmax(), patch.shape) == (16 + 9, 16 - 5, 16 - 3)


def test_border_is_filled_evenly_after_scaling():
    image = sitk.GetImageFromArray(np.full((20, 30, 30), -1000, np.int16))
    spec = PatchSpec("RAS", size=(16, 16, 40), window_hu=(-1000, 1000), out_range=(-1, 1))
    patch = extract_patch(image, (15, 15, 3), spec)
    filled = (patch == 0).all(axis=(0, 1))
    assert filled.tolist() == [True] * 10 + [False] * 20 + [True] * 10
    assert (patch[:, :, 10:30] == -1).all()


def test_many_seeds_and_specs_are_the_single_ones():
    image = make_image((60, 50, 40), (0.8, 0.8, 1.5), (5, -9, 30), np.eye(3))
    seeds = [centre_of(image), centre_of(image) + 15, centre_of(image) - (20, 3, 3)]
    specs = [PatchSpec(), PatchSpec("SPL"), PatchSpec("SLP", (1.5, 0.75, 0.75), (60, 30, 20))]
    together = extract_patches(image, seeds, specs)
    for seed, row in zip(seeds, together, strict=True):
        for spec, patch in zip(specs, row, strict=True):
            np.testing.assert_array_equal(patch, extract_patch(image, seed, spec))
    assert not np.shares_memory(together[0][0], together[0][1])
    assert extract_patches(image, [], specs) == []
    assert extract_patches(image, seeds, []) == [[], [], []]


@pytest.mark.parametrize("turn", [np.eye(3), np.diag([-1.0, 1, -1]), None])
@pytest.mark.parametrize("grid", ["exact", "monai14"])
def test_seeds_around_one_lesion_share_a_box_and_stay_what_they_are(turn, grid):
    if turn is None:  # at an angle: no axis can be sampled on its own
        a = np.deg2rad(11)
        turn = np.array([[np.cos(a), -np.sin(a), 0], [np.sin(a), np.cos(a), 0], [0, 0, 1]])
    image = make_image((60, 50, 40), (0.8, 0.8, 1.5), (5, -9, 30), turn)
    rng = np.random.default_rng(0)
    seeds = centre_of(image) + rng.uniform(-14, 14, (20, 3))
    specs = [PatchSpec(size=(24, 24, 24)), PatchSpec("SPL", size=(32, 32, 32))]
    together = extract_patches(image, seeds, specs, grid=grid)
    alone = [[extract_patch(image, seed, spec, grid=grid) for spec in specs] for seed in seeds]
    for row, expected in zip(together, alone, strict=True):
        for patch, single in zip(row, expected, strict=True):
            np.testing.assert_allclose(patch, single, atol=1e-6)


def test_grids_differ_and_unknown_ones_are_refused():
    image = make_image((60, 50, 40), (0.8, 0.8, 1.5), (5, -9, 30), np.eye(3))
    exact, older = (
        extract_patch(image, centre_of(image), PatchSpec(), grid=grid)
        for grid in ("exact", "monai14")
    )
    assert np.abs(exact - older).max() > 0.01
    with pytest.raises(PatchError, match="did you mean exact"):
        extract_patch(image, centre_of(image), PatchSpec(), grid="exakt")


def test_spec_is_a_key_and_keeps_tuples():
    spec = PatchSpec("SLP", [1.5, 0.75, 0.75], [60, 60, 60], [-1000, 1000], [-1, 1])
    assert spec == PatchSpec("SLP", (1.5, 0.75, 0.75), (60, 60, 60), (-1000, 1000), (-1, 1))
    assert {spec: 1}[spec] == 1 and spec.size == (60, 60, 60)
    assert PatchSpec("SPL", size=(4, 6, 8)).world_size == (8, 6, 4)
    with pytest.raises(AttributeError):
        spec.orientation = "RAS"


@pytest.mark.parametrize(
    "fields",
    [
        *(
            {"orientation": code}
            for code in ["RRS", "RA", "RASS", "ras", "", None, ("R", "A", "S")]
        ),
        *(
            {"spacing_mm": mm}
            for mm in [(1, 1), 1.0, (1, 0, 1), (1, np.nan, 1), (1, "1", 1), "111"]
        ),
        *({"size": n} for n in [48, (48, 48), (48, 48, 1), (48, 48, 47.5), (48, 48, 10**7), None]),
        *({"window_hu": pair} for pair in [(1, 1), (5, -5), (0, np.inf), (0,), "ab", None]),
        {"out_range": (5, -5)},
    ],
)
def test_bad_specs_are_refused_by_field(fields):
    with pytest.raises(PatchError, match=f"PatchSpec: {next(iter(fields))}"):
        PatchSpec(**fields)


@pytest.mark.parametrize(
    ("seed", "message"),
    [
        ((np.nan, 0, 0), "missing or infinite"),
        ((None, 0, 0), "missing or infinite"),
        (("1", "2", "3"), "text"),
        ((1, "2", 3), "text"),
        ((1, 2), "three numbers"),
        (5.0, "dimension"),
        ((1 + 2j, 0, 0), "complex"),
        ((1e30, 0, 0), "further outside"),
        ((0, 0, 500), "further outside"),
    ],
)
def test_bad_seeds_are_refused(seed, message):
    image = make_image((30, 30, 30), (1, 1, 1), (-15, -15, -15), np.eye(3))
    with pytest.raises(PatchError, match=f"the image.*seed.*{message}"):
        extract_patch(image, seed, PatchSpec())
    with pytest.raises(PatchError):
        extract_patches(image, [(0, 0, 0), seed], [PatchSpec()])


def test_message_about_a_far_seed_names_file_and_seed(tmp_path):
    path = tmp_path / "far.nii"
    sitk.WriteImage(make_image((30, 30, 30), (1, 1, 1), (-15, -15, -15), np.eye(3)), str(path))
    with pytest.raises(PatchError, match=r"far\.nii, seed 1 \(100\.0, 0\.0, 0\.0\).*LPS"):
        extract_patches(path, [(0, 0, 0), (100, 0, 0)], [PatchSpec()])


def test_seed_may_lie_outside_by_less_than_half_a_patch():
    image = make_image((30, 30, 30), (1, 1, 1), (0, 0, 0), np.eye(3))
    assert extract_patch(image, (-23, 15, 15), PatchSpec()).max() > 0
    with pytest.raises(PatchError, match="further outside"):
        extract_patch(image, (-25, 15, 15), PatchSpec())
