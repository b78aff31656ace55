"""Endpoints on small made-up cohorts: who is in, which label counts, what stands beside a model."""

import os

import numpy as np
import pandas as pd
import pytest
import SimpleITK as sitk

from tumorbench_utils import endpoints, probes, results
from tumorbench_utils.cohorts import Cohort, load_cohort
from tumorbench_utils.cohorts.cards import COHORTS
from tumorbench_utils.probes.compare import design

N = 150


@pytest.fixture(autouse=True)
def _own_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("TUMORBENCH_CACHE", str(tmp_path))


@pytest.fixture
def cohort():
    """A cohort of kidney tumours with tables only: released edition, no images."""
    rng = np.random.default_rng(0)
    truth = rng.normal(size=N)
    label = pd.array((rng.random(N) < 1 / (1 + np.exp(-1.5 * truth))).astype(int), dtype="Int64")
    reference = label.copy()
    label[:10] = pd.NA
    table = pd.DataFrame(
        {
            "lesion_id": [f"k{i}" for i in range(N)],
            "patient_id": [f"p{i // 2}" for i in range(N)],
            "label": label,
            "label_reference": reference,
            "used_in_reference": np.arange(N) < 140,
            "size_mm": np.where(np.arange(N) % 9 == 0, np.nan, 40 - 5 * truth),
            "stage": np.where(rng.random(N) < 0.5, "I", "III"),
            "age": rng.normal(60, 10, N),
        }
    )
    return Cohort(COHORTS["c4kc_kits"], "released", table)


@pytest.fixture
def X(cohort):
    ids = cohort.table["lesion_id"]
    rng = np.random.default_rng(1)
    return pd.DataFrame(rng.normal(size=(N, 6)) + cohort.table[["age"]].to_numpy(), index=ids)


def test_protocols_take_their_lesions_and_labels(cohort):
    careful = endpoints.endpoint(cohort)
    assert list(careful.y.index) == [f"k{i}" for i in range(10, N)]
    for split in careful.splits:
        sides = [set(careful.groups.iloc[part]) for part in split]
        assert not (sides[0] & sides[1] or sides[0] & sides[2] or sides[1] & sides[2])
    published = endpoints.endpoint(cohort, "published")
    assert list(published.y.index) == [f"k{i}" for i in range(140)]
    assert (len(published.splits), published.seed) == (10, 10)
    some = endpoints.endpoint(cohort, lesions=careful.y.index[:60])
    assert len(some.y) == 60


def test_endpoint_refuses(cohort):
    with pytest.raises(ValueError, match="unknown protocol"):
        endpoints.endpoint(cohort, "strict")
    bare = Cohort(cohort.card, "released", cohort.table.assign(label=pd.NA))
    with pytest.raises(ValueError, match="no labels"):
        endpoints.endpoint(bare)


def test_missing_features_are_named(cohort, X):
    with pytest.raises(KeyError, match="k20"):
        endpoints.endpoint(cohort).probe("fmcib", X.drop(index="k20"))


def test_probes_are_those_of_the_package_and_are_kept(cohort, X):
    careful = endpoints.endpoint(cohort, n_repeats=3)
    kept = careful.probe("fmcib", X.iloc[::-1], "linear", weights="released features")
    direct = probes.run_probe(X.loc[careful.y.index], careful.y, careful.splits, "linear")
    assert (kept.scores == direct.scores).all()
    shots = careful.few_shot("fmcib", X, (1, 5))
    assert set(shots) == {1, 5}
    published = endpoints.endpoint(cohort, "published").probe("fmcib", X)
    assert published.n_train == 69  # half of the lesions: validation is not fitted on
    table = results.table(cohort="c4kc_kits", model="fmcib")
    assert set(table["probe"]) == {"linear", "1-shot", "5-shot", "knn"}
    assert set(table["splits"]) == {"grouped", "reference"}


def test_baselines_of_a_table_without_images(cohort):
    found = endpoints.endpoint(cohort, n_repeats=3).baselines()
    assert set(found) == {"size", "clinical score", "size + clinical"}
    assert set(endpoints.endpoint(cohort, n_repeats=3).rulers()) == {"size", "clinical score"}
    # Smaller tumours carry label 1 here, as the card of the cohort says.
    assert found["size"].mean > 0.65
    assert found["size + clinical"].mean > 0.65


def test_phantoms_have_a_ceiling(cohort):
    truth = np.linspace(-3, 3, N)
    table = cohort.table.assign(true_logit=truth, label=(truth > 0).astype(int))
    phantom = Cohort(cohort.card, "released", table)
    best = endpoints.endpoint(phantom, n_repeats=2).baselines()["best known"]
    assert best.mean == 1
    assert best.metrics()["brier"].between(0, 0.1).all()


def test_null_of_either_protocol_is_at_chance_without_a_leak(cohort, X):
    noise = X.sample(frac=1, random_state=0).set_axis(X.index)
    for protocol in ("careful", "published"):
        null = endpoints.endpoint(cohort, protocol).null(noise, n=10)
        assert null.shape == (10,)
        assert null.mean() == pytest.approx(0.5, abs=0.06)


def test_added_value_is_kept_in_its_parts(cohort, X):
    careful = endpoints.endpoint(cohort, n_repeats=3)
    parts = careful.added_value("fmcib", X, ["size_mm"])
    again = careful.added_value("fmcib", X, ["size_mm"])
    assert set(parts) == {"covariates", "embedding", "both"}
    for name, result in parts.items():
        assert (again[name].scores == result.scores).all()
    assert len(results.noted(model="fmcib")) == 3
    direct = probes.added_value(
        X.loc[careful.y.index],
        design(careful.table, ["size_mm"]),
        careful.y,
        careful.splits,
        groups=careful.groups,
    )
    assert (direct["both"].scores == parts["both"].scores).all()


@pytest.mark.parametrize("kind", ["scan.nii.gz", "scan.mhd"])
def test_features_from_images_are_kept_until_an_image_changes(tmp_path, monkeypatch, kind):
    """Of an .mhd only the .raw beside it changes."""
    path = tmp_path / kind

    def write(inside):
        volume = np.full((60, 60, 60), -850, np.int16)
        volume[24:36, 24:36, 24:36] = inside
        sitk.WriteImage(sitk.GetImageFromArray(volume), str(path))

    write(40)
    seed = {"coord_x": 29.5, "coord_y": 29.5, "coord_z": 29.5}
    table = pd.DataFrame({"lesion_id": ["a"], "image_path": [str(path)], **seed})
    cohort = Cohort(COHORTS["luna16"], "phantom", table)
    first = endpoints.handcrafted_features(cohort)
    assert first.loc["a", "p90_hu"] == 40
    with monkeypatch.context() as patch:
        patch.setattr(endpoints.handcrafted, "cohort_features", None)
        assert endpoints.handcrafted_features(cohort).equals(first)
    header = path.stat()
    write(100)
    if kind == "scan.mhd":
        os.utime(path, ns=(header.st_atime_ns, header.st_mtime_ns))
    assert endpoints.handcrafted_features(cohort).loc["a", "p90_hu"] == 100


@pytest.mark.parametrize(
    ("name", "n", "columns"),
    [
        ("luna16", 677, {"size"}),
        ("nsclc_radiogenomics", 143, {"clinical score", "size + clinical"}),
        ("colorectal_liver_metastases", 194, {"size", "clinical score", "size + clinical"}),
    ],
)
def test_released_tables_have_their_baselines(reference, monkeypatch, name, n, columns):
    monkeypatch.setenv("TUMORBENCH_DATA", str(reference))
    published = endpoints.endpoint(load_cohort(name, "released"), "published")
    assert len(published.y) == n
    found = published.baselines()
    assert set(found) == columns
    assert all(result.mean > 0.5 for result in found.values())


def test_a_frozen_probe_is_that_of_its_split(cohort, X):
    ep = endpoints.endpoint(cohort, n_repeats=2)
    split = ep.splits[1]
    probe = ep.frozen(X, 1)
    test = X.loc[ep.y.index].to_numpy()[split.test]
    scored = ep.probe("any", X, "linear").predictions.query("split == 1")["score"]
    np.testing.assert_allclose(probe.predict_proba(test)[:, 1], scored, rtol=1e-6)
