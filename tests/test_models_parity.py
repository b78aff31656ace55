"""Embeddings of the six encoders built on MONAI or on the shared U-Net, against the reference."""

import importlib.util
import json

import numpy as np
import pytest
import torch

from tumorbench_utils.models import get_model

#: Model: file of facts, file of embeddings, wrapping of the released checkpoint.
SIX = {
    "fmcib": ("FMCIB", "FMCIB", lambda d: {"trunk_state_dict": d}),
    "ct_fm": ("CT-FM", "CT-FM", lambda d: d | {"up_layers.0.blocks.0.conv1.weight": unused()}),
    "vista3d": ("VISTA3D", "VISTA3D", lambda d: d | {"class_head.mlp.0.weight": unused()}),
    "voco": ("VoCo", "VoCo__monai14", lambda d: {"state_dict": d}),
    "suprem": ("SuPreM", "SuPreM", lambda d: {"net": d, "epoch": 1}),
    "models_genesis": ("ModelsGenesis", "ModelsGenesis", lambda d: {"state_dict": d}),
}
#: A patch takes this one seconds.
SEEDS = {"voco": 1}


def unused():
    return np.zeros((2, 2), dtype=np.float32)


@pytest.fixture(scope="module")
def fill(reference):
    """The module that makes the weights and the inputs."""
    spec = importlib.util.spec_from_file_location("fill", reference / "models" / "fill.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("key", SIX)
def test_embeddings_are_those_of_the_reference(key, reference, fill):
    facts_file, fixture, wrap = SIX[key]
    folder = reference / "models"
    facts = json.loads((folder / "specs" / f"{facts_file}.json").read_text("utf-8"))
    model = get_model(key)
    module = model.build("full")
    weights = fill.fill_state_dict(facts["state_dict"])
    report = model.load_checkpoint(module, wrap(weights))
    assert len(report.matched) == facts["n_state_dict"] and not report.missing
    assert not report.unexpected
    del weights

    with np.load(folder / "parity" / f"{fixture}.npz") as known:
        seeds, expected = known["seeds"].tolist(), known["embeddings"]
    seeds = seeds[: SEEDS.get(key)]
    inputs = [fill.make_input(seed, model.spec.size, *model.spec.out_range) for seed in seeds]
    embeddings = model.encode(module, torch.from_numpy(np.stack(inputs))[:, None]).numpy()
    expected = expected[: len(seeds)]
    np.testing.assert_allclose(embeddings, expected, rtol=0, atol=1e-4 * np.abs(expected).max())
