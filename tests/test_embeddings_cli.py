"""The commands ``tumorbench embed`` and ``tumorbench import-released``."""

import hashlib
import pickle
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import SimpleITK as sitk
from typer.testing import CliRunner

from tumorbench_book.cli import cli
from tumorbench_utils import downloads, embeddings, models


@pytest.fixture
def cohort(tmp_path, monkeypatch):
    """A cohort of one small scan that stands for luna16."""
    path = tmp_path / "scan.mha"
    image = sitk.GetImageFromArray(np.full((60, 60, 60), -700, np.int16))
    sitk.WriteImage(image, str(path))
    table = pd.DataFrame(
        {
            "lesion_id": ["one", "two"],
            "patient_id": ["p", "p"],
            "scan_id": ["s", "s"],
            "image_path": [str(path)] * 2,
            "coord_x": [30.0, 31.0],
            "coord_y": [30.0, 31.0],
            "coord_z": [30.0, 31.0],
        }
    )
    made = SimpleNamespace(card=SimpleNamespace(key="luna16"), edition="phantom", table=table)
    monkeypatch.setattr("tumorbench_utils.cohorts.load_cohort", lambda *given: made)
    monkeypatch.setenv("TUMORBENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("TUMORBENCH_DATA", str(tmp_path))
    return made


@pytest.fixture
def released(cohort, tmp_path, monkeypatch):
    """A released file for that cohort, and its entry in the catalogue."""
    rows = [
        pd.Series({"coordX": x, "coordY": x, "coordZ": x, "image_path": "s.mhd"}, dtype=object)
        for x in (30.0, 31.0, 99.0)
    ]
    items = [{"feature": np.full((1, 512), 2, np.float32), "row": row} for row in rows]
    path = tmp_path / "luna.pkl"
    path.write_bytes(pickle.dumps({"CTFMExtractor": {"train": items}}, 4))
    data = path.read_bytes()
    known = {"path": "x/luna.pkl", "size": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    monkeypatch.setitem(embeddings.released_files(), "luna16", known)
    cohort.edition = "released"
    return path


def run(*arguments, **options):
    return CliRunner().invoke(cli, arguments, **options)


def test_embed_and_embed_again(cohort):
    done = run("embed", "luna16", "--model", "ct_clip_vit", "--device", "cpu")
    assert done.exit_code == 0, done.output
    assert "luna16: 2 embeddings made" in done.output
    folder = done.output.strip().splitlines()[-1]
    store = embeddings.EmbeddingStore(folder)
    assert store.root == embeddings.default_store("phantom").root
    assert store.read("luna16", "ct_clip_vit").shape == (2, models.MODELS["ct_clip_vit"].dim)
    assert "2 were there already" in run("embed", "luna16", "--model", "ct_clip_vit").output
    got = embeddings.load_embeddings(cohort, ["ct_clip_vit"])
    assert got.weights in ("untrained", "teaching encoder")
    pd.testing.assert_frame_equal(got["ct_clip_vit"], store.read("luna16", "ct_clip_vit"))
    with pytest.raises(TypeError, match="list"):
        embeddings.load_embeddings(cohort, "ct_clip_vit")


def test_embed_fails_with_the_reason(cohort):
    cohort.table.loc[1, "coord_x"] = 900.0
    done = run("embed", "luna16", "--model", "ct_clip_vit")
    assert done.exit_code == 1 and "failed (1 embeddings): s:" in done.output
    with pytest.raises(ValueError, match="could not be embedded whole"):
        embeddings.load_embeddings(cohort, ["ct_clip_vit"])


def test_unknown_names(cohort):
    for arguments in (["embed", "luna16", "--model", "ct_klip"], ["import-released", "luna17"]):
        done = run(*arguments)
        assert isinstance(done.exception, KeyError) and "did you mean" in str(done.exception)


def test_sizes_are_shown_before(released, monkeypatch):
    listed = run("import-released").output
    assert "116.5 MB  dlcs.pkl  (dlcs)" in listed and len(listed.splitlines()) == 7
    monkeypatch.setattr(downloads, "fetch", lambda *given, **more: pytest.fail("not asked for"))
    done = run("import-released", "luna16", input="n\n")
    assert done.exit_code == 1 and done.output.index("MB  luna.pkl") < done.output.index("Download")
    assert not embeddings.default_store("released").entries()


@pytest.mark.filterwarnings("ignore:1 rows")
def test_import(released, cohort, monkeypatch):
    asked = []
    monkeypatch.setattr(
        downloads, "fetch", lambda *given, **more: asked.append((given, more)) or released
    )
    done = run("import-released", "luna16", "--yes")
    assert done.exit_code == 0, done.output
    (((url, path), checks),) = asked
    assert (
        url.startswith("https://media.") and url.endswith("/x/luna.pkl") and path.name == "luna.pkl"
    )
    assert len(checks["sha256"]) == 64 and checks["size"] == released.stat().st_size
    assert "luna16/ct_fm: 2 lesions, 1 rows left out" in done.output
    assert (embeddings.load_embeddings(cohort)["ct_fm"] == 2).all(axis=None)
    assert run("import-released", "luna16", "--file", str(released)).exit_code == 0


def test_a_changed_file_is_refused(released):
    released.write_bytes(released.read_bytes()[:-1])
    done = run("import-released", "luna16", "--file", str(released))
    assert isinstance(done.exception, embeddings.UnsafeFileError)
    assert not embeddings.default_store("released").entries()
