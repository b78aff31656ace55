"""The store: what is written is read, what is damaged, stale or strange is refused."""

import errno
import json
import multiprocessing
import resource
import signal
import sys
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tumorbench_utils import embeddings
from tumorbench_utils.embeddings import store as stores
from tumorbench_utils.embeddings.code import made_by
from tumorbench_utils.models import MODELS
from tumorbench_utils.patches import PatchSpec

META = {"weights": "untrained", "patch": {"size": [8, 8, 8]}, "grid": "exact"}


def frame(n=5, dim=4, start=0, value=None) -> pd.DataFrame:
    rng = np.random.default_rng(n + start)
    values = rng.normal(size=(n, dim)) if value is None else np.full((n, dim), value)
    index = pd.Index([f"l{i}" for i in range(start, start + n)], name="lesion_id")
    return pd.DataFrame(values.astype(np.float32), index=index, columns=stores.columns(dim))


@pytest.fixture
def store(tmp_path):
    return embeddings.EmbeddingStore(tmp_path / "store")


def test_what_is_written_is_read(store):
    want = frame()
    store.write("luna16", "fmcib", want, META)
    got = store.read("luna16", "fmcib")
    pd.testing.assert_frame_equal(got, want)
    assert got.index.name == "lesion_id" and list(got.columns) == ["f0", "f1", "f2", "f3"]
    assert store.missing("luna16", "fmcib", ["l9", "l1", "x", "l9"]) == ["l9", "x"]
    assert store.missing("luna16", "voco", ["l1"]) == ["l1"]
    assert store.entries() == ["luna16/fmcib"] and store.verify() == []
    meta = store.meta("luna16", "fmcib")
    assert meta["rows"] == 5 and meta["dim"] == 4 and meta["package_version"]
    assert {k: meta[k] for k in META} == META


def test_the_file_is_plain_parquet(store):
    store.write("luna16", "fmcib", frame(), META)
    (path,) = store.root.rglob("*.parquet")
    table = pq.read_table(path)
    assert table.schema.field("embedding").type == pa.list_(pa.float32(), 4)
    assert table.column("lesion_id").to_pylist() == [f"l{i}" for i in range(5)]
    header = json.loads(table.schema.metadata[b"tumorbench"])
    assert header["meta"] == META and header["dim"] == 4
    assert path.stem == stores.key_of(META, 4)


def test_cohorts_and_models_as_objects(store):
    cohort, model = SimpleNamespace(card=SimpleNamespace(key="luna16")), MODELS["fmcib"]
    store.write(cohort, model, frame(), META)
    pd.testing.assert_frame_equal(store.read("luna16", "fmcib"), store.read(cohort, model))


def test_rows_are_added_and_replaced(store):
    store.write("c", "m", frame(5), META)
    store.write("c", "m", frame(3, start=4, value=7), META)
    got = store.read("c", "m")
    assert list(got.index) == [f"l{i}" for i in range(7)]
    assert (got.loc["l4":] == 7).all(axis=None)
    pd.testing.assert_frame_equal(got.iloc[:4], frame(5).iloc[:4])
    again = frame(7, value=1).iloc[::-1]
    store.write("c", "m", again, META)
    pd.testing.assert_frame_equal(store.read("c", "m"), again)


def test_wide_and_empty_frames(store):
    store.write("c", "wide", frame(3, 4096), META)
    assert store.read("c", "wide").shape == (3, 4096)
    store.write("c", "empty", frame(0), META)
    assert store.read("c", "empty").shape == (0, 4) and store.verify() == []


def test_unicode_roots_and_ids(tmp_path):
    store = embeddings.EmbeddingStore(tmp_path / "Tümor ü 肺")
    ids = ["läsion/1", "病灶", "../x", " "]
    want = frame(4)
    want.index = pd.Index(ids, name="lesion_id")
    store.write("kohorte_ä", "m-1.0", want, META)
    assert list(store.read("kohorte_ä", "m-1.0").index) == ids


def test_default_root(monkeypatch, tmp_path):
    monkeypatch.setenv("TUMORBENCH_CACHE", str(tmp_path))
    assert embeddings.EmbeddingStore().root == tmp_path / "embeddings"


# -- bad input ---------------------------------------------------------------------------------

NAMES = ["", ".", "..", "../x", "a/b", "/abs", "a\\b", "a\0b", ".hidden", "a b", "x" * 121, "a\n",
         "~", "_x", "..\\x", "C:x"]  # fmt: skip
GOOD = frame()
BAD_INPUT = [
    *[((name, "m", GOOD, META), ValueError, "not a name for the store") for name in NAMES],
    *[(("c", name, GOOD, META), ValueError, "not a name for the store") for name in NAMES],
    *[(("c", n, GOOD, META), ValueError, "not a name for the store") for n in (None, 3, b"m", ["m"])],
    *[
        (("c", "m", GOOD.astype(float).where(GOOD != GOOD.iloc[2, 1], bad), META), ValueError, "l2")
        for bad in (np.nan, 1e300, -np.inf)
    ],
    *[
        (("c", "m", bad, META), ValueError, "with columns f0")
        for bad in (GOOD.rename(columns={"f1": "g"}), GOOD[["f1", "f0"]], GOOD.iloc[:, :0],
                    GOOD.reset_index(), GOOD.astype(int), GOOD.astype(str), GOOD.astype(complex))
    ],
    (("c", "m", pd.concat([GOOD, GOOD]), META), ValueError, "comes more than once"),
    *[
        (("c", "m", bad, META), ValueError, "non-empty string")
        for bad in (GOOD.reset_index(drop=True), GOOD.rename(index={"l0": ""}),
                    GOOD.rename(index={"l0": np.nan}))
    ],
    *[(("c", "m", bad, META), ValueError, "DataFrame") for bad in (GOOD.to_numpy(), None)],
    *[
        (("c", "m", GOOD, bad), ValueError, "meta is a mapping")
        for bad in ({"a": {1, 2}}, {"a": float("nan")}, {"a": np.ones(2)}, "untrained")
    ],
]  # fmt: skip


@pytest.mark.parametrize(("given", "error", "match"), BAD_INPUT, ids=range(len(BAD_INPUT)))
def test_bad_input_is_refused_and_nothing_written(store, given, error, match):
    with pytest.raises(error, match=match):
        store.write(*given)
    assert not store.root.exists()


def test_links_that_lead_elsewhere(store, tmp_path):
    store.root.mkdir()
    (tmp_path / "outside").mkdir()
    (store.root / "c").symlink_to(tmp_path / "outside")
    with pytest.raises(ValueError, match="leaves its folder"):
        store.write("c", "m", frame(), META)


def test_meta_may_hold_specs_paths_and_numbers_of_numpy(store, tmp_path):
    meta = {"patch": PatchSpec(), "file": tmp_path, "n": np.int64(3), "x": np.float32(0.5)}
    store.write("c", "m", frame(), meta)
    got = store.meta("c", "m")
    assert got["patch"]["size"] == [48, 48, 48] and got["n"] == 3 and got["x"] == 0.5


def test_one_string_is_no_list_of_ids(store):
    with pytest.raises(TypeError, match="list of ids"):
        store.missing("c", "m", "l1")


def test_absent_entries_name_what_is_there(store):
    store.write("luna16", "fmcib", frame(), META)
    with pytest.raises(KeyError, match="luna16/fmcib"):
        store.read("luna16", "voco")


# -- stale -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "change", [{"weights": "other"}, {"patch": {"size": [9, 8, 8]}}, {"grid": "monai14"}, {"x": 1}]
)
def test_another_key_never_mixes(store, change):
    old, new = frame(5), frame(2, value=3)
    store.write("c", "m", old, META)
    store.write("c", "m", new, {**META, **change})
    pd.testing.assert_frame_equal(store.read("c", "m"), new)
    pd.testing.assert_frame_equal(store.read("c", "m", key=stores.key_of(META, 4)), old)
    with pytest.raises(stores.StaleError, match="embed again"):
        store.read("c", "m", key=stores.key_of(META, 5))
    assert store.missing("c", "m", ["l0"], key=stores.key_of(META, 5)) == ["l0"]
    store.write("c", "m", frame(1, start=9), META)  # the first is the current one again
    assert list(store.read("c", "m").index) == ["l0", "l1", "l2", "l3", "l4", "l9"]
    assert store.verify() == []


def test_another_width_never_mixes(store):
    store.write("c", "m", frame(5, 4), META)
    store.write("c", "m", frame(2, 3), META)
    assert store.read("c", "m").shape == (2, 3)


def test_entries_of_other_code_are_not_read(store):
    now = made_by(type(MODELS["fmcib"]))
    store.write("c", "fmcib", frame(), {**META, **now})
    assert store.missing("c", "fmcib", ["l0"]) == []
    store.write("c", "fmcib", frame(), {**META, **now, "code": "0123456789abcdef"})
    with pytest.raises(stores.StaleError, match="other code"):
        store.read("c", "fmcib")
    assert store.missing("c", "fmcib", ["l0"]) == ["l0"]
    assert store.verify() == []


def test_another_format_is_made_again(store, monkeypatch):
    monkeypatch.setattr(stores, "FORMAT", 99)
    store.write("c", "m", frame(), META)
    monkeypatch.undo()
    with pytest.raises(stores.StoreError, match="no file of this version"):
        store.read("c", "m")
    assert "its contents are not what its name says" in store.verify()[0].reason
    assert store.missing("c", "m", ["l0"], key=stores.key_of(META, 4)) == ["l0"]
    store.write("c", "m", frame(2, value=3), META)
    assert (store.read("c", "m") == 3).all(axis=None)


def test_files_of_the_first_layout_are_not_read(store):
    old = store.root / "c" / "m.parquet"
    old.parent.mkdir(parents=True)
    frame().to_parquet(old)
    with pytest.raises(KeyError, match="no embeddings"):
        store.read("c", "m")
    assert store.entries() == [] and store.verify()[0].path == "c/m.parquet"


# -- damage ------------------------------------------------------------------------------------


def test_every_flipped_bit_is_found_or_changes_nothing(store):
    store.write("c", "m", frame(3, 2), META)
    path, rng = store.path("c", "m"), np.random.default_rng(0)
    whole, refused = path.read_bytes(), 0
    for at in range(len(whole)):
        broken = bytearray(whole)
        broken[at] ^= 1 << int(rng.integers(8))
        path.write_bytes(broken)
        try:
            pd.testing.assert_frame_equal(store.read("c", "m"), frame(3, 2))
        except stores.StoreError:
            refused += 1
        if at % 5 == 0:
            found = [problem.path for problem in store.verify()]
            assert found == [f"c/m/{path.name}"] or b"parquet-cpp" in whole[at - 40 : at + 20], at
    assert refused > len(whole) / 2
    path.write_bytes(whole)
    assert store.verify() == []


def test_every_truncation_is_found(store):
    store.write("c", "m", frame(3, 2), META)
    path = store.path("c", "m")
    whole = path.read_bytes()
    for length in range(0, len(whole), 7):
        path.write_bytes(whole[:length])
        assert len(store.verify()) == 1
    path.write_bytes(whole + b"x")
    assert len(store.verify()) == 1
    with pytest.raises(stores.StoreError, match="damaged"):
        store.read("c", "m")


def test_a_damaged_pointer_leads_nowhere(store):
    store.write("c", "m", frame(), META)
    for text in ("../../../etc/passwd", "0" * 16, "", "ü"):
        (store.root / "c" / "m" / "current").write_text(text)
        with pytest.raises(KeyError, match="no embeddings"):
            store.read("c", "m")
    store.write("c", "m", frame(1, start=5), META)
    assert len(store.read("c", "m")) == 6


def test_contents_of_another_entry_are_refused(store):
    store.write("c", "m", frame(), META)
    path = store.path("c", "m")
    store.write("c", "m", frame(), {**META, "weights": "other"})
    other = store.path("c", "m").read_bytes()
    path.write_bytes(other)
    frame().to_parquet(store.path("c", "m"))  # and what any tool writes
    assert len(store.verify()) == 2
    with pytest.raises(stores.StoreError, match="is damaged"):
        store.read("c", "m")


def test_a_damaged_entry_is_not_overwritten(store):
    store.write("c", "m", frame(), META)
    path = store.path("c", "m")
    path.write_bytes(path.read_bytes()[:-9])
    before = path.read_bytes()
    with pytest.raises(stores.StoreError):
        store.write("c", "m", frame(), META)
    assert path.read_bytes() == before


# -- writers -----------------------------------------------------------------------------------


def _write_on_a_full_disk(root, answer):
    # The limit on file size stands in for the disk: the kernel refuses to write on.
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20000, 20000))
    try:
        embeddings.EmbeddingStore(root).write("c", "m", frame(2000), META)
    except OSError as error:
        answer.put(error.errno)


@pytest.mark.skipif(sys.platform == "win32", reason="needs limits on file size")
def test_a_full_disk_loses_nothing(store):
    store.write("c", "m", frame(5), META)
    context = multiprocessing.get_context("fork")
    answer = context.Queue()
    writer = context.Process(target=_write_on_a_full_disk, args=(store.root, answer))
    writer.start()
    assert answer.get(timeout=60) == errno.EFBIG
    writer.join()
    pd.testing.assert_frame_equal(store.read("c", "m"), frame(5))
    assert not [p for p in store.root.rglob(".part-*")]


def test_what_is_written_last_wins_over_what_a_killed_run_left(store):
    store.write("c", "m", frame(3), META)
    path = store.path("c", "m")
    for number in (0, 1):
        part = path.with_suffix(f".part-{number:06d}.parquet")
        rows = frame(2, start=1 + number, value=number + 1)
        stores.write_file(part, rows, pd.Series("x", rows.index), META)
    left = path.with_name(".part-0123456789ab-x.parquet")
    left.write_bytes(b"half")
    store.write("c", "m", frame(1, start=3, value=9), META)
    got = store.read("c", "m")["f0"]
    assert got.to_dict() == {"l0": frame(3).loc["l0", "f0"], "l1": 1, "l2": 2, "l3": 9}
    assert sorted(p.name for p in path.parent.iterdir()) == sorted([path.name, "current"])


def _write_many(root, worker):
    store = embeddings.EmbeddingStore(root)
    for n in range(6):
        store.write("c", "m", frame(2, start=worker * 100 + 2 * n), META)
        store.write("c", "shared", frame(4, value=worker), META)


def test_concurrent_writers_lose_nothing(store):
    context = multiprocessing.get_context("fork")
    workers = [context.Process(target=_write_many, args=(store.root, n)) for n in range(4)]
    for worker in workers:
        worker.start()
    while any(worker.is_alive() for worker in workers):
        for model in ("m", "shared"):  # a reader sees a whole file at any time
            if store.missing("c", model, ["l0"]) == []:
                got = store.read("c", model)
                assert model == "m" or (got == got.iloc[0, 0]).all(axis=None)
    assert [worker.exitcode for worker in workers] == [0] * 4
    got = store.read("c", "m")
    assert sorted(got.index) == sorted(f"l{w * 100 + i}" for w in range(4) for i in range(12))
    assert store.verify() == []


def test_a_folder_without_permission_to_write_can_be_read(store):
    store.write("c", "m", frame(), META)
    for path in [*store.root.rglob("*"), store.root]:
        path.chmod(0o555 if path.is_dir() else 0o444)
    try:
        assert store.read("c", "m").shape == (5, 4) and store.verify() == []
    finally:
        for path in [store.root, *store.root.rglob("*")]:
            path.chmod(0o755)
