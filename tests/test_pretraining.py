"""Tests of the objectives, the training loop and the shipped teaching encoders."""

import dataclasses
import json

import numpy as np
import pandas as pd
import pytest
import SimpleITK as sitk
import torch
from safetensors import safe_open
from torch import nn

import tumorbench_phantoms as phantoms
import tumorbench_training as pretraining
from tumorbench_training import codebook, data, findings, make, objectives, readout, views
from tumorbench_training.recipes import RECIPES
from tumorbench_utils import digests
from tumorbench_utils.embeddings import default_encoder
from tumorbench_utils.models import CheckpointError, get_model, teaching
from tumorbench_utils.patches import PatchSpec, extract_patch

SPEC = PatchSpec("RAS", size=(8, 8, 8))


@pytest.fixture(scope="module")
def shown(tmp_path_factory):
    """Twenty made-up cubes: a ball of another size and density each, in the middle of noise."""
    rng = np.random.default_rng(0)
    folder = tmp_path_factory.mktemp("cubes")
    axis = np.arange(data.CUBE) - (data.CUBE - 1) / 2
    distance = np.sqrt((np.stack(np.meshgrid(axis, axis, axis, indexing="ij")) ** 2).sum(0))
    radius, hu = np.linspace(5, 16, 20), rng.permutation(np.linspace(-300, 300, 20))
    inside = distance[None] < radius[:, None, None, None]
    ct = np.where(inside, hu[:, None, None, None], -800) + rng.normal(0, 20, inside.shape)
    coarse = inside[:, ::2, ::2, ::2]
    np.save(folder / "ct.npy", ct.astype(np.int16))
    np.save(folder / "wide.npy", ct[:, 4:68, 4:68, 4:68].astype(np.int16))
    np.save(folder / "lesion.npy", np.where(coarse, 255, 0).astype(np.uint8))
    np.save(folder / "tissue.npy", np.broadcast_to(2 * (axis[::2] > 0), coarse.shape).astype("u1"))
    columns = dict.fromkeys(("ground_glass", "necrosis", "rim_hu", "patient_factor"), 0.0)
    table = pd.DataFrame({"organ": ["lung"] * 10 + ["kidney"] * 10, **columns}, index=range(20))
    table["diameter_mm"], table["attenuation_hu"] = 2 * radius, hu
    for name in ("lobulation", "spiculation", "calcification", "texture_hu"):
        table[name] = rng.uniform(0, 1, 20)
    table.to_parquet(folder / "table.parquet")
    return data.Phantoms([folder])


def small(key: str, **changes):
    """Return the objective of a model on small patches, the model and its untrained network."""
    objective = dataclasses.replace(RECIPES[key], batch=3, **changes)
    model = get_model(key)
    return objective, model, model.build("compact", seed=0)


def same(first: nn.Module, second: nn.Module) -> bool:
    pairs = zip(first.state_dict().values(), second.state_dict().values(), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


# -- phantoms ----------------------------------------------------------------------------------


def seeds_of(planned) -> set:
    lesions = {("lesion", lesion.entropy) for lesion in planned.case.lesions}
    return {("case", planned.case.entropy), ("noise", planned.noise), *lesions}


def test_no_phantom_belongs_to_a_cohort_or_to_both_parts():
    parts = []
    for part in ("train", "held-out"):
        pairs = pretraining.seeds(part)
        assert len(set(pairs)) == len(pairs) > 300
        parts.append(set().union(*(seeds_of(phantoms.sample(*pair)) for pair in pairs[::5])))
    cohorts = phantoms.load()["cohorts"]
    parts.append(set().union(*(seeds_of(item) for name in cohorts for item in phantoms.plan(name))))
    assert len(set().union(*parts)) == sum(map(len, parts))


def test_a_drawn_phantom_shows_its_lesion_in_the_middle():
    row, arrays = data.draw("c4kc_kits", 3)
    again = data.draw("c4kc_kits", 3)[1]
    assert all(np.array_equal(arrays[kind], again[kind]) for kind in arrays)
    share = arrays["lesion"] / 255.0
    assert row["organ"] == "kidney" and "wide" not in arrays and arrays["tissue"].max() < 5
    diameter = 2 * (share.sum() * data.LABEL_MM**3 * 3 / 4 / np.pi) ** (1 / 3)
    assert diameter == pytest.approx(row["diameter_mm"], rel=0.1)
    middle = np.array([(share * axis).sum() / share.sum() for axis in np.indices(share.shape)])
    assert np.abs(middle - (len(share) - 1) / 2).max() < 0.5


@pytest.mark.parametrize("code", ["SPL", "RAS", "LPS", "SLP", "IAR"])
def test_patches_are_those_of_the_benchmark(code):
    hu = np.random.default_rng(1).integers(-900, 900, (20, 20, 20)).astype(np.int16)
    spec = dataclasses.replace(SPEC, orientation=code)
    # The benchmark cuts from the voxel of the seed in RAS: 9 in x and y is 10 from the other end.
    benchmark = extract_patch(sitk.GetImageFromArray(hu), (9, 9, 10), spec)
    low, high = spec.window_hu
    mine = (data.turn(data.cut(hu, (0, 0, 0), 8), code) - low) / (high - low)
    np.testing.assert_allclose(mine, benchmark, atol=1e-6)


def test_a_cut_stays_in_the_cube(shown):
    assert shown.patch(0, SPEC, (32, -32, 0)).shape == (8, 8, 8)
    with pytest.raises(ValueError, match=r"8 voxels moved by \(33, 0, 0\) leave a cube"):
        shown.patch(0, SPEC, (33, 0, 0))


def test_labels_move_with_the_patch(shown):
    spec = PatchSpec("LPS", size=(40, 40, 40))
    for shift in ((0, 0, 0), (4, -6, 2)):
        bright = shown.patch(11, spec, shift)[::2, ::2, ::2] > 0.15
        marked = shown.labels("lesion", 11, spec, shift) > 0
        assert (bright == marked).mean() > 0.98 and marked.any()


# -- findings ----------------------------------------------------------------------------------


def test_a_finding_says_what_the_phenotype_is():
    row = dict.fromkeys(("lobulation", "spiculation", "ground_glass", "rim_hu"), 0.0)
    row |= {"organ": "liver", "diameter_mm": 26.0, "attenuation_hu": 55.0, "texture_hu": 40.0}
    text = pretraining.finding({**row, "necrosis": 0.5, "calcification": 0.0})
    assert text == (
        "solid lesion of about 25 mm in the liver, round, with smooth margin, low attenuation, "
        "heterogeneous texture, central necrosis"
    )
    other = pretraining.finding({**row, "necrosis": 0.0, "calcification": 0.5, "rim_hu": 30})
    assert other.endswith("heterogeneous texture, calcification, an enhancing rim")


def test_every_word_of_a_finding_is_known():
    rows = [
        {"organ": organ, **dict(zip(phantoms.parameters.PHENOTYPE, values, strict=True))}
        for organ in ("lung", "kidney", "liver")
        for values in np.linspace([3, 0, 0, -700, 0, 0, 1, 0, 0, 0], [99] + [1] * 9, 30)
    ]
    counted = findings.counts([pretraining.finding(row) for row in rows])
    assert counted.sum(1).min() > 12
    with pytest.raises(ValueError, match="'benign' is no word of a finding"):
        findings.counts(["benign nodule"])


# -- objectives --------------------------------------------------------------------------------


def test_overlaps_of_a_crop_with_the_tiles_sum_to_one(shown):
    objective, model, _ = small("voco")
    overlap = objective.draw(model, shown, [0, 1], np.random.default_rng(0))["overlap"]
    assert overlap.shape == (2, objective.crops, 4)
    torch.testing.assert_close(overlap.sum(2), torch.ones(2, objective.crops))


class Pixels(nn.Module):
    """A network that knows its patch: what it gives is a coarse copy."""

    def __init__(self, side: int):
        super().__init__()
        self.pool, self.one = nn.AdaptiveAvgPool3d(side), nn.Parameter(torch.ones(1))

    def forward(self, x):
        return self.one * self.pool(x).flatten(1)


@pytest.mark.parametrize(("key", "options"), [("fmcib", {"reach": 0}), ("ct_fm", {})])
def test_contrast_scores_what_is_found_again(shown, monkeypatch, key, options):
    objective, model, _ = small(key, **options)
    indices, rng = np.arange(12), np.random.default_rng(0)
    for factory in ("lesion_views", "scan_views"):
        monkeypatch.setattr(views, factory, lambda: views.Compose([]))
    found = objective.scores(model, Pixels(6), None, shown, indices, rng)
    blind = objective.scores(model, Pixels(1), None, shown, indices, rng)
    assert ((found >= 0) & (found <= 1)).all() and len(found) == 12
    assert found.mean() > 0.5 > blind.mean()


def test_dice_by_hand():
    true = torch.zeros(3, 1, 2, 2, 2, dtype=torch.bool)
    drawn = true.clone()
    true[0, 0, 0], drawn[0, 0, :, 0] = True, True  # four voxels each, two in common
    drawn[2, 0, 0, 0, 0] = True
    true[1, 0, 0, 0, 0] = True
    dice = objectives._dice(drawn, true)
    assert dice[0] == 0.5 and dice[1] == 0 and torch.isnan(dice[2])


def test_text_scores_count_the_findings_that_are_further(shown):
    objective, model, _ = small("merlin", side=24)

    class Towers(nn.Module):
        image = nn.Identity()

        def text(self, words):
            return self.answer

    towers, indices = Towers(), np.arange(12)
    batch = objective.draw(model, shown, indices, np.random.default_rng(0))
    network = Pixels(6)
    with torch.inference_mode():
        embedded = network(batch["patches"])
    towers.answer = embedded
    rng = np.random.default_rng(0)
    assert objective.scores(model, network, towers, shown, indices, rng).mean() == 1
    towers.answer = -embedded
    rng = np.random.default_rng(0)
    assert objective.scores(model, network, towers, shown, indices, rng).mean() == 0


def test_equal_findings_share_the_target():
    objective = RECIPES["merlin"]
    head = nn.Module()
    head.text = head.image = nn.Identity()
    head.scale, head.codebook = torch.tensor(1.0), None
    words = torch.eye(3)[[0, 0, 1]]
    loss = objective.loss(nn.Identity(), head, {"patches": words, "words": words})
    logits = np.array([[np.e, np.e, 0], [np.e, np.e, 0], [0, 0, np.e]])
    log_p = logits - np.log(np.exp(logits).sum(1, keepdims=True))
    by_hand = -(log_p[0, 0] + log_p[1, 0] + log_p[2, 2]) / 3
    assert loss.item() == pytest.approx(by_hand, rel=1e-5)


def test_the_codebook_follows_its_tokens(shown):
    model = get_model("ct_clip_vit")
    module = model.build("compact", seed=0)
    mover = codebook.CodebookMeans(module)
    patches = shown.batch([0, 1], model.spec)
    with torch.no_grad():
        tokens = nn.functional.normalize(module.tokens(patches), dim=-1).flatten(0, 1)
        first, apart = mover(module, patches)
        rows = nn.functional.normalize(module.vq["_codebook"].embed[0], dim=-1)
        # More rows than tokens: after the first step every token has a row of its own.
        assert (tokens @ rows.T).amax(1).min() > 0.999 and apart < 1e-3
        assert torch.isfinite(first).all() and first.shape == (2, model.dim)


@pytest.mark.parametrize("key", list(RECIPES))
def test_every_objective_can_take_a_step(shown, key):
    objective, model, module = small(key)
    objective = dataclasses.replace(objective, batch=2)
    first = model.build("compact", seed=0)
    head, losses = pretraining.fit(objective, model, module, shown, steps=1)
    assert np.isfinite(losses).all() and not same(module, first)
    indices = shown.of_organs(objective.organs)[:3]
    scores = objective.scores(model, module, head, shown, indices, np.random.default_rng(0))
    assert scores.shape == (3,) and np.isfinite(scores).all()


# -- the loop ----------------------------------------------------------------------------------


def test_training_again_gives_the_same_weights(shown):
    runs = []
    for _ in range(2):
        objective, model, module = small("pasta", side=24)
        _, losses = pretraining.fit(objective, model, module, shown, steps=3)
        runs.append((module, losses))
    assert same(runs[0][0], runs[1][0]) and runs[0][1] == runs[1][1]


def test_an_interrupted_run_goes_on_as_if_it_had_not_been(shown, tmp_path, monkeypatch):
    monkeypatch.setattr(pretraining.train, "SAVE_EVERY", 2)
    objective, model, whole = small("pasta", side=24)
    _, losses = pretraining.fit(objective, model, whole, shown, steps=4)
    objective, model, module = small("pasta", side=24)
    state, draw, seen = tmp_path / "run.pt", type(objective).draw, []

    def failing(self, *args):
        seen.append(1)
        if len(seen) == 4:
            raise KeyboardInterrupt
        return draw(self, *args)

    monkeypatch.setattr(type(objective), "draw", failing)
    with pytest.raises(KeyboardInterrupt):
        pretraining.fit(objective, model, module, shown, steps=4, state=state)
    monkeypatch.setattr(type(objective), "draw", draw)
    _, _, fresh = small("pasta", side=24)
    _, again = pretraining.fit(objective, model, fresh, shown, steps=4, state=state)
    assert len(seen) == 4 and again == losses and same(fresh, whole)


def test_a_frozen_encoder_stays_as_it_is(shown):
    objective, model, module = small("pasta", side=24)
    _, losses = pretraining.fit(objective, model, module, shown, steps=3, frozen=True)
    assert same(module, model.build("compact", seed=0)) and len(losses) == 3
    assert all(p.requires_grad for p in module.parameters())


def test_training_lowers_the_loss(shown):
    objective, model, module = small("merlin", side=24, organs=("lung",))
    objective = dataclasses.replace(objective, batch=6)
    _, losses = pretraining.fit(objective, model, module, shown, steps=20)
    assert np.mean(losses[-5:]) < 0.8 * np.mean(losses[:5])


def test_a_loss_that_is_no_number_stops_the_run(shown):
    objective, model, module = small("pasta", side=24, rate=1e30)
    with pytest.raises(FloatingPointError, match="the loss of pasta is nan at step"):
        pretraining.fit(objective, model, module, shown, steps=5)


# -- reading out -------------------------------------------------------------------------------


def test_a_linear_read_out_finds_what_is_there():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(150, 40))
    Y = np.column_stack([X[:, 0] + 0.3 * rng.normal(size=150), rng.normal(size=150)])
    guess = readout.predicted(X, Y)
    found = readout.compare(Y[:, 0], guess[:, 0], guess[:, 1])
    assert 0.8 < found["trained"][0] < 0.95 and found["trained"][1] < found["trained"][0]
    assert readout.r2(Y[:, 1], guess[:, 1]) < 0.1 and found["difference"][1] > 0.5


def test_scores_are_compared_in_pairs():
    trained, untrained = np.array([1.0, 2, np.nan, 4]), np.array([0.0, 1, 5, 3])
    found = readout.compare_scores(trained, untrained)
    assert found["n"] == 3 and found["difference"] == [1, 1, 1]
    assert found["trained"][0] == pytest.approx(7 / 3, abs=1e-4)


# -- files -------------------------------------------------------------------------------------


@pytest.fixture
def made(shown, tmp_path, monkeypatch):
    """The folder of a teaching encoder that was trained for two steps."""
    monkeypatch.setattr(make, "phantoms_of", lambda *a, **k: shown)
    monkeypatch.setenv("TUMORBENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(teaching, "folder", lambda: tmp_path / "encoders")
    pretraining.make_encoder("suprem", steps=2, progress=False)
    return tmp_path / "encoders"


def test_making_an_encoder_writes_weights_and_card(made):
    card = json.loads((made / "suprem.json").read_text())
    weights = made / "suprem.safetensors"
    assert card["sha256"] == digests.of_file(weights) and card["bytes"] == weights.stat().st_size
    assert card["licence"] == "CC0-1.0" and len(card["losses"]) == card["settings"]["steps"] == 2
    assert set(card["phenotypes"]) == set(readout.SITES) and card["own"]["n"] == 20
    # The made-up lesions have no necrosis: there is nothing to read out.
    assert set(card["phenotypes"]["chest"]) == set(readout.PHENOTYPES) - {"necrosis"}
    first = weights.read_bytes()
    pretraining.make_encoder("suprem", steps=2, progress=False)
    assert weights.read_bytes() == first


def test_altered_or_missing_weights_are_refused_with_the_way_back(made):
    model, weights = get_model("suprem"), made / "suprem.safetensors"
    assert not same(model.build("compact"), model.build("compact", seed=0))
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(CheckpointError, match=r"sha256 is .* train it with `tumorbench encoders s"):
        model.build("compact")
    weights.unlink()
    with pytest.raises(
        CheckpointError, match=r"suprem.safetensors: .*that of no file.*encoders suprem"
    ):
        default_encoder(model, "phantom")
    (made / "suprem.json").write_text("{")
    with pytest.raises(CheckpointError, match="is no card"):
        model.build("compact")
    assert "suprem" in pretraining.missing()
    assert model.build("compact", seed=0) and model.build("full", seed=3)


def test_weights_of_another_architecture_are_refused(made, tmp_path):
    path = made / "suprem.safetensors"
    with pytest.raises(CheckpointError, match="does not fit the compact encoder"):
        teaching.load(get_model("merlin").build("compact", seed=0), path)
    (tmp_path / "text").write_text("weights")
    with pytest.raises(CheckpointError, match="does not fit the compact encoder"):
        teaching.load(get_model("suprem").build("compact", seed=0), tmp_path / "text")


def test_no_encoder_without_a_recipe():
    with pytest.raises(KeyError, match="unknown model 'fmcip': did you mean fmcib"):
        pretraining.make_encoder("fmcip")


# -- what is shipped ---------------------------------------------------------------------------


@pytest.mark.parametrize("key", list(RECIPES))
def test_shipped_encoders_are_whole_and_beat_their_twins(key):
    model, card = get_model(key), teaching.read_card(key)
    path = teaching.find(key)
    with safe_open(path, "pt") as stored:
        assert {stored.get_slice(name).get_dtype() for name in stored.keys()} == {"F16"}
    assert card["licence"] == "CC0-1.0" and card["bytes"] == path.stat().st_size
    assert card["objective"] == RECIPES[key].name and card["seed"] == 0
    assert len(card["losses"]) == card["settings"]["steps"] == RECIPES[key].steps
    low, high = card["own"]["difference"][1:]
    assert low > 0 if card["higher_is_better"] else high < 0
    assert not same(model.build("compact"), model.build("compact", seed=0))
    assert default_encoder(model, "phantom").weights == "teaching encoder"


def test_shipped_encoders_take_little_room():
    files = list(teaching.folder().iterdir())
    names = {f"{key}.{kind}" for key in RECIPES for kind in ("json", "safetensors")}
    assert {file.name for file in files} == names
    assert sum(file.stat().st_size for file in files) <= 25e6


def test_tables_of_the_cards():
    cards = pretraining.read_cards()
    own, phenotypes = pretraining.own_table(cards), pretraining.phenotype_table(cards)
    assert list(own["model"]) == list(RECIPES) == list(teaching.KEYS)
    # Five phenotypes in the chest and four in the abdomen, which CT-CLIP is not shown.
    assert len(phenotypes) == 9 * len(cards) - 4
    assert (phenotypes["trained_low"] <= phenotypes["trained_high"]).all()
