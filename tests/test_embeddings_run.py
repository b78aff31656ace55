"""Runs: everything embedded once, after crashes too, alone, side by side or on a cluster."""

import errno
import multiprocessing
import os
import signal
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import cloudpickle
import numpy as np
import pandas as pd
import pytest
import SimpleITK as sitk
import torch

from tumorbench_utils import embeddings, models
from tumorbench_utils.embeddings import run as run_module
from tumorbench_utils.embeddings import shards as shards_module
from tumorbench_utils.models import FoundationModel
from tumorbench_utils.patches import PatchSpec

SEEDS = ((6.0, 7.0, 8.0), (9.0, 8.0, 7.0), (7.5, 9.0, 6.0))


class Tiny(FoundationModel):
    """A model that sees 6 x 5 x 4 voxels; writes a line to `log` for every patch it gets."""

    def __init__(self, key="tiny", dim=3, log=None, pause=0.0, **spec):
        self.key, self.dim, self.log, self.pause = key, dim, log, pause
        self.card = SimpleNamespace(file="tiny.pt", source="nowhere")
        self.spec = PatchSpec(size=(6, 5, 4), **spec)

    def network(self, size):
        return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(120, self.dim))

    def encode(self, module, patches):
        time.sleep(self.pause * len(patches))
        result = super().encode(module, patches)
        if self.log is not None:
            with open(self.log, "a") as stream:
                stream.writelines(f"{self.key} {float(p.sum()):.3f}\n" for p in patches)
        return result


def write_scans(folder: Path, count: int) -> pd.DataFrame:
    """Write scans of noise with three lesions each; return their table."""
    rng = np.random.default_rng(0)
    rows = []
    folder.mkdir(parents=True, exist_ok=True)
    for n in range(count):
        path = folder / f"scan{n}.nii.gz"
        image = sitk.GetImageFromArray(rng.integers(-1000, 500, (16, 16, 16)).astype("int16"))
        sitk.WriteImage(image, str(path))
        rows += [(f"l{n}_{k}", f"scan{n}", str(path), *seed) for k, seed in enumerate(SEEDS)]
    names = ["lesion_id", "scan_id", "image_path", "coord_x", "coord_y", "coord_z"]
    return pd.DataFrame(rows, columns=names)


def cohort_of(table: pd.DataFrame, edition="phantom") -> SimpleNamespace:
    return SimpleNamespace(card=SimpleNamespace(key="noise"), edition=edition, table=table)


def two_models(log=None, pause=0.0) -> list:
    return [Tiny("a", 3, log, pause), Tiny("b", 2, log, pause, orientation="SPL")]


def pairs(log=None, pause=0.0) -> list:
    return [(model, model.build("compact")) for model in two_models(log, pause)]


@pytest.fixture
def cohort(tmp_path):
    return cohort_of(write_scans(tmp_path / "scans", 5))


@pytest.fixture
def store(tmp_path):
    return embeddings.EmbeddingStore(tmp_path / "store")


def embed(*args, **options):
    return embeddings.embed(*args, progress=False, **options)


def lines(log: Path) -> list[str]:
    return log.read_text().splitlines() if log.exists() else []


# -- what comes out ----------------------------------------------------------------------------


def test_values_are_those_of_the_model_alone(cohort, store):
    from tumorbench_utils.patches import extract_patch

    report = embed(cohort, pairs(), store, batch_size=4)
    assert not report.failed and not report.skipped and len(report.done) == 30
    for model, module in pairs():
        frame = store.read("noise", model.key)
        assert list(frame.index) == list(cohort.table["lesion_id"])
        for row in cohort.table.itertuples():
            seed = (row.coord_x, row.coord_y, row.coord_z)
            patch = torch.from_numpy(extract_patch(row.image_path, seed, model.spec))
            alone = model.encode(module, patch[None, None])[0]
            np.testing.assert_allclose(frame.loc[row.lesion_id], alone, rtol=1e-5, atol=1e-6)
    assert store.verify() == [] and kept(store.root) == 0


def test_names_take_the_compact_encoder_of_the_registry(cohort, store, monkeypatch):
    monkeypatch.setitem(models.MODELS, "tiny", Tiny())
    embed(cohort, ["tiny"], store)
    meta = store.meta("noise", "tiny")
    assert meta["checkpoint"] == "untrained" and meta["size"] == "compact" and meta["rows"] == 15
    assert meta["patch"]["size"] == [6, 5, 4] and meta["grid"] == "exact" and meta["code"]
    embed(cohort, [Tiny()], store)
    again = embed(cohort, [embeddings.Encoder(Tiny())], store)
    assert not again.done and len(again.skipped) == 15


def test_one_read_per_scan_for_all_models(cohort, store, monkeypatch):
    calls = []
    extract = shards_module.extract_patches
    monkeypatch.setattr(
        shards_module, "extract_patches", lambda *a: calls.append(a[0]) or extract(*a)
    )
    embed(cohort, pairs(), store)
    assert sorted(calls) == sorted(cohort.table["image_path"].unique())


def test_rows_of_a_scan_need_not_stand_together(cohort, store, tmp_path):
    embed(cohort, pairs(), store)
    mixed = cohort_of(cohort.table.sample(frac=1, random_state=0))
    other = embeddings.EmbeddingStore(tmp_path / "other")
    embed(mixed, pairs(), other)
    got, want = other.read("noise", "a"), store.read("noise", "a")
    assert list(got.index) == list(mixed.table["lesion_id"])
    np.testing.assert_allclose(got.loc[want.index], want, rtol=1e-5, atol=1e-6)


def test_report(cohort, store):
    report = embed(cohort, pairs(), store)
    assert report.table().loc["a"].to_dict() == {"done": 15, "skipped": 0, "failed": 0}
    assert ("a", "l0_0") in report.done and "30 embeddings made" in str(report)
    report = embed(cohort, pairs(), store)
    assert report.table().loc["b"].to_dict() == {"done": 0, "skipped": 15, "failed": 0}


def test_progress_says_rate_and_time_left(cohort, store, capsys):
    embeddings.embed(cohort, pairs(pause=0.01), store, batch_size=3)
    err = capsys.readouterr().err
    assert "noise" in err and "patch/s" in err and "30/30" in err


# -- what is done twice and what is not --------------------------------------------------------


def test_only_what_is_missing_is_computed(cohort, store, tmp_path):
    log = tmp_path / "log"
    part = cohort_of(cohort.table.iloc[:7])
    embed(part, pairs(log)[:1], store)
    assert len(lines(log)) == 7
    report = embed(cohort, pairs(log), store)
    assert len(lines(log)) == 30 and len(report.done) == 23 and len(report.skipped) == 7
    embed(cohort, pairs(log), store)
    assert len(lines(log)) == 30


def test_a_function_is_not_called_again(cohort, store):
    calls = []

    def mean_and_spread(patch):
        calls.append(patch.shape)
        return [patch.mean(), patch.std()]

    model = models.from_function("mine", mean_and_spread, PatchSpec(size=(6, 5, 4)))
    assert len(embed(cohort, [model], store).done) == 15
    count = len(calls)
    assert len(embed(cohort, [model], store).skipped) == 15 and len(calls) == count


def test_a_change_of_anything_is_noticed(cohort, store, tmp_path, monkeypatch):
    log = tmp_path / "log"

    def count(table=cohort.table, **spec) -> int:
        before = len(lines(log))
        model = Tiny("a", 3, log, **spec)
        embed(cohort_of(table), [(model, module)], store)
        return len(lines(log)) - before

    module = Tiny().build("compact")
    assert count() == 15 and count() == 0
    moved = cohort.table.copy()
    moved.loc[0, "coord_x"] += 0.25
    assert count(moved) == 1  # a seed
    os.utime(moved["image_path"].iloc[-1], (1e9, 1e9))
    assert count(moved) == 3  # an image
    assert count(moved, window_hu=(-1000, 1000)) == 15  # the patch
    assert count(moved) == 0  # and back
    with torch.no_grad():
        module[1].bias += 1
    assert count(moved) == 15  # the weights
    monkeypatch.setattr("tumorbench_utils.embeddings.code.code_version", lambda cls: "another")
    assert count(moved) == 15  # the code


@pytest.mark.parametrize(
    ("header", "voxels"), [("s.mhd", "other.img"), ("s.nhdr", "below/s.dat"), ("s.mha", "s.mha")]
)
def test_changed_voxels_are_noticed_wherever_they_lie(tmp_path, store, header, voxels):
    path, data = tmp_path / header, tmp_path / voxels
    table = cohort_of(write_scans(tmp_path / "scans", 1)).table.assign(image_path=str(path))
    image = sitk.ReadImage(str(tmp_path / "scans" / "scan0.nii.gz"))
    sitk.WriteImage(image, str(path), useCompression=False)
    if path != data:
        data.parent.mkdir(exist_ok=True)
        (made,) = (p for p in tmp_path.glob("s.*") if p != path)
        path.write_text(path.read_text().replace(made.name, voxels))
        made.rename(data)
    assert len(embed(cohort_of(table), pairs()[:1], store).done) == 3
    state, content = data.stat(), bytearray(data.read_bytes())
    content[-1000] ^= 1
    data.write_bytes(content)
    os.utime(data, ns=(state.st_atime_ns, state.st_mtime_ns))  # same size, same date
    assert len(embed(cohort_of(table), pairs()[:1], store).done) == 3
    assert len(embed(cohort_of(table), pairs()[:1], store).skipped) == 3


def test_changed_slices_are_noticed(tmp_path):
    for name in "ab":
        (tmp_path / name).write_bytes(b"slice")
    before = run_module._state(tmp_path)
    os.utime(tmp_path / "a", (1e9, 1e9))  # an older slice of the same size took its place
    assert run_module._state(tmp_path) != before


NETWORK = """
import torch
import my_helper
LIMIT = {limit}
def prepare(x):
    return my_helper.scaled(x).clamp(0, LIMIT)
class Net(torch.nn.Module):
    def forward(self, x):
        return torch.stack([prepare(x).mean((1, 2, 3, 4)), prepare(x).amax((1, 2, 3, 4))], 1)
class Model(Tiny):
    def encode(self, module, patches):
        return prepare(super().encode(module, patches))
unused = {unused}
"""


def test_changes_of_a_users_own_code_are_noticed(tmp_path, monkeypatch):
    """Helpers, constants and imported files of a network or a model of one's own count."""
    import importlib
    import runpy

    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)

    def metas(limit=1, unused=1, factor=1) -> list[dict]:
        (tmp_path / "my_helper.py").write_text(f"def scaled(x):\n    return x * {factor}\n")
        (tmp_path / "mine.py").write_text(NETWORK.format(limit=limit, unused=unused))
        sys.modules.pop("my_helper", None)
        importlib.invalidate_caches()
        made = runpy.run_path(str(tmp_path / "mine.py"), {"Tiny": Tiny})
        encoders = [
            (models.from_module("mine", made["Net"]()),),
            (Tiny(), made["Net"]()),
            (made["Model"](),),
        ]
        return [embeddings.Encoder(m[0], module=(*m, None)[1]).meta() for m in encoders]

    first = metas()
    assert metas() == metas(unused=2) == first
    for change in ({"limit": 0.1}, {"factor": 2}):
        assert all(a != b for a, b in zip(first, metas(**change), strict=True)), change


def test_what_a_model_counts_is_not_its_code():
    calls, seen = [], {"n": 0}

    class Counting(Tiny):
        def encode(self, module, patches):
            calls.append(len(patches))
            seen["n"] += 1
            return super().encode(module, patches)

    model = Counting()
    before = embeddings.Encoder(model).meta()
    model.encode(model.build(), torch.zeros(1, 1, 6, 5, 4))
    assert calls and embeddings.Encoder(model).meta() == before


def test_another_class_under_a_known_name_can_be_read(cohort, store):
    model = Tiny("fmcib")
    embed(cohort, [(model, model.build())], store)
    assert len(store.read("noise", "fmcib")) == 15


def test_images_may_go_once_they_are_embedded(cohort, store):
    embed(cohort, pairs(), store)
    for path in cohort.table["image_path"].unique():
        os.remove(path)
    report = embed(cohort, pairs(), store)
    assert len(report.skipped) == 30 and not report.failed


def test_code_version_follows_the_code(tmp_path):
    from tumorbench_utils.embeddings.code import code_version

    versions = [code_version(type(models.MODELS[k])) for k in ("suprem", "models_genesis")]
    assert versions == [code_version(type(models.MODELS[k])) for k in ("suprem", "models_genesis")]
    assert versions[0] != versions[1] and all(len(v) == 16 for v in versions)
    assert code_version(Tiny) not in versions


# -- bad scans ---------------------------------------------------------------------------------


def test_bad_scans_are_recorded_and_the_rest_goes_on(cohort, store):
    table = cohort.table
    Path(table["image_path"][0]).write_bytes(b"no image")
    whole = Path(table["image_path"][3]).read_bytes()
    Path(table["image_path"][3]).write_bytes(whole[: len(whole) // 2])
    table.loc[6, "coord_x"] = 4000.0
    table.loc[7, "coord_y"] = np.nan
    table["image_path"] = table["image_path"].astype(object)
    table.loc[9:11, "image_path"] = None
    table.loc[12:, "image_path"] = "nowhere.nii.gz"
    report = embed(cohort, pairs(), store)
    failed = {f.lesion_id: f for f in report.failed if f.model == "a"}
    assert set(failed) == set(table["lesion_id"]) - {"l2_2"}
    assert [lesion for model, lesion in report.done if model == "a"] == ["l2_2"]
    assert "4000" in failed["l2_0"].reason and "finite" in failed["l2_1"].reason
    assert "no image is named" in failed["l3_0"].reason and failed["l3_0"].scan_id == "scan3"
    assert all(f.reason for f in report.failed) and "scan3: no image" in str(report)
    Path(table["image_path"][3]).write_bytes(whole)
    report = embed(cohort, pairs(), store)  # tried again
    assert ("a", "l1_0") in report.done and ("a", "l2_2") in report.skipped


def test_a_reader_that_breaks_is_a_bad_scan(cohort, store, monkeypatch):
    extract = shards_module.extract_patches

    def broken(image, seeds, specs):
        if "scan2" in image:
            raise RuntimeError("itk::ERROR")
        return extract(image, seeds, specs)

    monkeypatch.setattr(shards_module, "extract_patches", broken)
    report = embed(cohort, pairs(), store)
    assert {f.scan_id for f in report.failed} == {"scan2"} and len(report.done) == 24
    assert "RuntimeError: itk::ERROR" in report.failed[0].reason


class Picky(Tiny):
    """Refuses or spoils what is brighter than it likes."""

    def encode(self, module, patches):
        if self.pause == "raise" and (patches.mean((1, 2, 3, 4)) > 0.203).any():
            raise ValueError("too bright")
        result = super(Tiny, self).encode(module, patches)
        if self.pause == "nan":
            result[patches.mean((1, 2, 3, 4)) > 0.203] = np.nan
        return result


@pytest.mark.parametrize("kind", ["raise", "nan"])
def test_one_bad_patch_costs_only_itself(cohort, store, kind):
    model = Picky("a", 3, None, kind)
    report = embed(cohort, [(model, model.build())], store, batch_size=5)
    assert 0 < len(report.failed) < 15 and len(report.done) + len(report.failed) == 15
    assert np.isfinite(store.read("noise", "a")).all(axis=None)
    assert ("too bright" if kind == "raise" else "not finite") in report.failed[0].reason


def test_a_fault_of_the_model_stops_the_run_and_keeps_what_is_done(cohort, store, tmp_path):
    class Breaking(Tiny):
        def encode(self, module, patches):
            if len(lines(self.log)) >= 6:
                raise RuntimeError("out of memory")
            return super().encode(module, patches)

    model = Breaking("a", 3, tmp_path / "log")
    with pytest.raises(RuntimeError, match="out of memory"):
        embed(cohort, [(model, model.build())], store, batch_size=3)
    assert len(store.read("noise", "a")) == 6


# -- bad arguments -----------------------------------------------------------------------------


def put(column, value):
    """Return a change of a table: another value in its third row."""
    return lambda table: table.astype({column: object}).where(
        ~((table.index == 2)[:, None] & (table.columns == column)), value
    )


BAD_ARGUMENTS = [
    ({"models": "tiny"}, TypeError, "list"),
    ({"models": Tiny()}, TypeError, "list"),
    ({"models": []}, ValueError, "no models"),
    ({"models": ["tiny", "tiny"]}, ValueError, "more than once"),
    ({"models": ["tyni"]}, KeyError, "tiny"),
    ({"models": [3]}, TypeError, "a model is"),
    ({"models": [("tiny", "weights")]}, TypeError, "a model is"),
    *[({"batch_size": n}, ValueError, "batch_size") for n in (0, -1, 1.5, "8", True)],
    ({"device": "cuda"}, ValueError, "CUDA"),
    ({"device": "gpu"}, RuntimeError, "gpu"),
    ({"device": "meta"}, ValueError, "known are cpu, cuda, mps"),
    ({"cohort": "luna16"}, TypeError, "cohort"),
    ({"store": "folder"}, TypeError, "EmbeddingStore"),
    ({"change": lambda table: table.drop(columns="coord_z")}, ValueError, "coord_z"),
    ({"change": lambda table: pd.concat([table] * 2)}, ValueError, "l0_0"),
    ({"change": put("lesion_id", 3)}, ValueError, "string"),
    ({"change": put("coord_y", "left")}, ValueError, "coord_y"),
]


@pytest.mark.parametrize(("given", "error", "match"), BAD_ARGUMENTS, ids=range(len(BAD_ARGUMENTS)))
def test_bad_arguments(cohort, store, monkeypatch, given, error, match):
    if given == {"device": "cuda"} and torch.cuda.is_available():
        pytest.skip("there is a CUDA device here")
    monkeypatch.setitem(models.MODELS, "tiny", Tiny())
    change = given.pop("change", lambda table: table)
    arguments = {"cohort": cohort_of(change(cohort.table)), "models": ["tiny"], "store": store}
    with pytest.raises(error, match=match):
        embed(**{**arguments, **given})
    assert not store.root.exists()


def test_an_empty_table_is_no_work(cohort, store):
    report = embed(cohort_of(cohort.table.iloc[:0]), pairs(), store)
    assert not report.done and not report.failed


def test_full_weights_are_asked_for(cohort, store, monkeypatch, tmp_path):
    monkeypatch.setitem(models.MODELS, "tiny", Tiny())
    monkeypatch.delenv("TUMORBENCH_WEIGHTS", raising=False)
    monkeypatch.setenv("TUMORBENCH_CACHE", str(tmp_path / "cache"))
    full = cohort_of(cohort.table, "full")
    with pytest.raises(FileNotFoundError, match="TUMORBENCH_WEIGHTS"):
        embed(full, ["tiny"], store)
    monkeypatch.setenv("TUMORBENCH_WEIGHTS", str(tmp_path))
    with pytest.raises(FileNotFoundError, match=r"tiny\.pt"):
        embed(full, ["tiny"], store)
    module = Tiny().build(seed=5)
    torch.save(module.state_dict(), tmp_path / "tiny.pt")
    embed(full, ["tiny"], store)
    meta = store.meta("noise", "tiny")
    assert meta["weights"] == "released weights" and len(meta["checkpoint"]) == 64
    report = embed(full, [(Tiny(), module)], embeddings.EmbeddingStore(tmp_path / "pair"))
    assert len(report.done) == 15
    pair = embeddings.EmbeddingStore(tmp_path / "pair").read("noise", "tiny")
    np.testing.assert_allclose(store.read("noise", "tiny"), pair, rtol=1e-5, atol=1e-6)


# -- crashes and company -----------------------------------------------------------------------


def test_a_full_disk_keeps_what_is_done(cohort, store, monkeypatch):
    write, calls = run_module.write_file, []

    def full(*args):
        calls.append(1)
        if len(calls) > 3:
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(*args)

    monkeypatch.setattr(run_module, "write_file", full)
    with pytest.raises(OSError, match="No space left"):
        embed(cohort, pairs(), store, batch_size=3)
    monkeypatch.undo()
    report = embed(cohort, pairs(), store, batch_size=3)
    assert len(report.skipped) == 9 and len(report.done) == 21 and store.verify() == []


def test_what_killed_writers_left_is_swept_away(cohort, store):
    embed(cohort, pairs(), store)
    left = store.path("noise", "a").with_name(".part-0123456789ab-a.parquet")
    left.write_bytes(b"half")
    embed(cohort, pairs(), store)
    assert not left.exists() and store.verify() == []


def test_damaged_files_are_repaired_and_said(cohort, store):
    embed(cohort, pairs(), store)
    want = store.read("noise", "a")
    path = store.path("noise", "a")
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.warns(UserWarning, match="embedded again"):
        report = embed(cohort, pairs(), store)
    assert len(report.done) == 15 and len(report.skipped) == 15 and len(report.repaired) == 1
    pd.testing.assert_frame_equal(store.read("noise", "a"), want)
    assert list(store.root.rglob("*.damaged"))


def test_a_store_on_a_read_only_disk_can_be_used(cohort, store, monkeypatch):
    embed(cohort, pairs(), store)

    def refused(*args, **options):
        raise OSError(errno.EROFS, "Read-only file system")

    for name in ("os.replace", "os.unlink", "os.mkdir", "pathlib.Path.mkdir"):
        monkeypatch.setattr(name, refused)
    monkeypatch.setattr("filelock.FileLock.acquire", refused)
    monkeypatch.setattr("os.access", lambda *given: False)
    report = embed(cohort, pairs(), store)
    assert len(report.skipped) == 30 and len(store.read("noise", "a")) == 15
    with pytest.raises(OSError, match="Read-only"):
        embed(cohort, [(Tiny(), Tiny().build())], store)


def run_in_folder(folder: Path, table: pd.DataFrame) -> None:
    """What the processes run that get killed or meet."""
    torch.set_num_threads(1)  # a forked process has no threads to share work with
    store = embeddings.EmbeddingStore(folder / "store")
    embed(cohort_of(table), pairs(folder / "log", 0.005), store, batch_size=3)


def start_run(folder: Path, table: pd.DataFrame) -> multiprocessing.Process:
    process = multiprocessing.get_context("fork").Process(
        target=run_in_folder, args=(folder, table)
    )
    process.start()
    return process


def kept(folder: Path) -> int:
    return len(list(folder.rglob("[!.]*.part-*.parquet")))


def test_killed_at_any_moment_nothing_is_lost_or_done_twice(tmp_path):
    table = write_scans(tmp_path / "scans", 24)
    log, batch = tmp_path / "log", 3
    for after in (3, 6):  # shards on disk when the run is killed
        process = start_run(tmp_path, table)
        while kept(tmp_path / "store") < after:
            assert process.is_alive()
            time.sleep(0.002)
        process.kill()
        process.join()
    store = embeddings.EmbeddingStore(tmp_path / "store")
    report = embed(cohort_of(table), pairs(log), store, batch_size=batch)
    assert len(report.skipped) >= 2 * batch and not report.failed
    assert len(report.done) + len(report.skipped) == 144
    # In flight at each of the two kills: one batch.
    assert 144 <= len(lines(log)) <= 144 + 2 * batch
    whole = embeddings.EmbeddingStore(tmp_path / "whole")
    embed(cohort_of(table), pairs(), whole, batch_size=batch)
    for model in ("a", "b"):
        pd.testing.assert_frame_equal(store.read("noise", model), whole.read("noise", model))
    assert store.verify() == []


def test_two_runs_on_one_store_share_the_work(tmp_path):
    table = write_scans(tmp_path / "scans", 12)
    processes = [start_run(tmp_path, table) for _ in range(2)]
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0]
    assert len(lines(tmp_path / "log")) == 2 * len(table)
    store = embeddings.EmbeddingStore(tmp_path / "store")
    assert store.missing("noise", "a", table["lesion_id"]) == [] and store.verify() == []


def test_a_waiting_run_says_so(cohort, store, capsys):
    held = threading.Event()

    def hold():
        with store.lock("noise"):
            held.set()
            time.sleep(1.5)

    thread = threading.Thread(target=hold)
    thread.start()
    held.wait()
    embed(cohort, pairs(), store)
    thread.join()
    assert "another run embeds noise" in capsys.readouterr().err


# -- a cluster ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def client():
    distributed = pytest.importorskip("distributed")
    # The workers cannot import this file.
    cloudpickle.register_pickle_by_value(sys.modules[__name__])
    with (
        distributed.LocalCluster(
            n_workers=2, threads_per_worker=1, dashboard_address=None, resources={"GPU": 0}
        ) as cluster,
        distributed.Client(cluster) as made,
    ):
        yield made
    cloudpickle.unregister_pickle_by_value(sys.modules[__name__])


def test_workers_give_the_same_as_one_process(client, tmp_path):
    cohort = cohort_of(write_scans(tmp_path / "scans", 6))
    cohort.table.loc[4, "coord_x"] = 4000.0
    alone, many = (embeddings.EmbeddingStore(tmp_path / name) for name in ("alone", "many"))
    first = embed(cohort, pairs(), alone, batch_size=4)
    second = embed(cohort, pairs(), many, batch_size=4, client=client)
    assert sorted(first.done) == sorted(second.done)
    assert sorted(first.failed) == sorted(second.failed) and len(first.failed) == 2
    for model in ("a", "b"):
        pd.testing.assert_frame_equal(alone.read("noise", model), many.read("noise", model))


def test_killed_workers_cost_only_their_shard(client, tmp_path):
    cohort = cohort_of(write_scans(tmp_path / "scans", 16))
    log, store = tmp_path / "log", embeddings.EmbeddingStore(tmp_path / "store")
    workers = list(client.run(os.getpid).values())

    def kill():
        while kept(store.root) < 3:
            time.sleep(0.005)
        for pid in workers:
            os.kill(pid, signal.SIGKILL)

    killer = threading.Thread(target=kill)
    killer.start()
    report = embed(cohort, pairs(log, 0.02), store, batch_size=3, client=client)
    killer.join()
    assert len(report.done) == 96 and not report.failed
    # A shard is 3 lesions by 2 models; each of the two workers loses one, and perhaps one that
    # it had just finished.
    assert 96 <= len(lines(log)) <= 96 + 4 * 6
    assert store.verify() == [] and len(store.read("noise", "b")) == 48


def test_a_shard_that_kills_its_workers_is_recorded(client, tmp_path):
    class Deadly(Tiny):
        def encode(self, module, patches):
            if Path(self.log).exists():
                os.kill(os.getpid(), signal.SIGKILL)
            return super(Tiny, self).encode(module, patches)

    cohort = cohort_of(write_scans(tmp_path / "scans", 1))
    (tmp_path / "log").write_text("")
    model = Deadly("a", 3, tmp_path / "log")
    client.run_on_scheduler(lambda dask_scheduler: setattr(dask_scheduler, "allowed_failures", 0))
    store = embeddings.EmbeddingStore(tmp_path / "store")
    report = embed(cohort, [(model, model.build())], store, client=client)
    assert len(report.failed) == 3 and "worker died" in report.failed[0].reason


def test_a_gpu_that_no_worker_offers(client, cohort, store):
    with pytest.raises(ValueError, match="resource GPU"):
        embed(cohort, pairs(), store, client=client, device="cuda")
    assert run_module._device(None, client) == "cpu"
