"""What the pages of the models show in common."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch

from tumorbench_utils.models import MODELS, get_model
from tumorbench_utils.pages import model as page


@pytest.fixture(autouse=True)
def closed():
    """Close the figures of a test."""
    yield
    plt.close("all")


@pytest.mark.parametrize("part", ["forward", "encode", "cost", "weights"])
def test_shared_texts_name_the_model(part, tmp_path, monkeypatch):
    monkeypatch.setenv("TUMORBENCH_CACHE", str(tmp_path))
    monkeypatch.delenv("TUMORBENCH_WEIGHTS", raising=False)
    text = page.shared(part, get_model("voco")).data
    assert text.strip() and not {"{", "}"} & set(text)
    if part == "weights":
        assert "tumorbench weights fetch voco" in text and "VoCo_H_SSL_head.pt` is not here" in text


@pytest.mark.parametrize("key", MODELS)
def test_facts_of_a_card(key):
    card = get_model(key).card
    facts = page.facts(card)[""]
    assert facts["paper"] == card.paper and facts["year"] == str(card.year)
    assert facts["DOI"] == (card.doi or "not known to us")
    assert facts["parameters of the encoder"].replace(",", "") == str(card.parameters)
    assert facts["access"] == ("open" if not card.gate else f"gated {card.gate}")


def test_stages_have_the_shapes_of_the_release():
    names = {"down_tr64": "one", "down_tr128": "two", "down_tr512": "four", "pool": "embedding"}
    found = page.stages(get_model("models_genesis"), names)
    assert list(found["stage"]) == ["one", "two", "four", "embedding"]
    assert list(found["shape"]) == [(64, 48, 48, 48), (128, 24, 24, 24), (512, 6, 6, 6), (4096,)]
    # 27 * 1 * 32 + 27 * 32 * 64 weights, two biases and two pairs of scale and shift.
    assert found["parameters"][0] == 27 * 32 + 27 * 32 * 64 + 3 * (32 + 64)
    page.draw_stages(found, "phantom")
    heights = [patch.get_height() for patch in plt.gca().patches]
    np.testing.assert_allclose(heights, np.sqrt([48, 24, 6, 1]))


def test_a_stage_that_runs_for_every_slice_is_listed_once():
    names = {f"convs.{i}.proj": str(i) for i in range(4)}
    found = page.stages(get_model("medimageinsight"), names)
    assert list(found["shape"]) == [(256, 120, 120), (512, 60, 60), (1024, 30, 30), (2048, 15, 15)]


def test_views_and_letters():
    spec = get_model("ct_clip_vit").spec
    page.draw_patch(np.zeros(spec.size), spec)
    axial = plt.gcf().axes[0]
    # Across axis 0 of SLP: rows run to the left, columns to the back.
    letters = {text.get_position(): text.get_text() for text in axial.texts}
    assert letters[0.5, 0.93] == "R" and letters[0.5, 0.03] == "L"
    assert letters[0.02, 0.48] == "A" and letters[0.93, 0.48] == "P"
    assert axial.get_title() == "axis 0: axial" and axial.images[0].get_clim() == (-1, 1)
    first, second = page.draw_views({"a": np.eye(3), "b": np.ones((2, 2))}, vmax=2)
    assert (first.get_title(), second.get_title()) == ("a", "b")
    assert first.images[0].get_clim() == (0, 2)


def test_embeddings_are_drawn_without_their_mean():
    x = torch.rand(4, 120, generator=torch.Generator().manual_seed(0)) + 5
    page.draw_embeddings(x, pd.Series([6, 9, 12, 20]), "untrained")
    left, right = plt.gcf().axes
    shown = left.images[0].get_array()
    assert shown.shape == (4, 100)
    np.testing.assert_allclose(shown.sum(axis=0), 0, atol=1e-4)
    np.testing.assert_allclose(np.abs(shown).max(axis=0), 1, atol=1e-6)
    centred = (x - x.mean(dim=0)).double()
    unit = centred / centred.norm(dim=1, keepdim=True)
    np.testing.assert_allclose(right.images[0].get_array(), unit @ unit.T, atol=1e-6)
    assert left.get_yticklabels()[0].get_text() == "6 mm"


def test_cost_counts_what_there_is():
    found = page.cost(get_model("suprem"), ("compact",))
    module = get_model("suprem").build("compact", seed=0)
    count = sum(p.numel() for p in module.parameters())
    assert found.loc["compact", "parameters"] == count
    assert found.loc["compact", "weights MB"] == pytest.approx(4e-6 * count)
    assert (found.iloc[0] > 0).all()
