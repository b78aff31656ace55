"""The reader of the released feature files: what it reads, and that nothing it refuses runs.

``released_pickles.json`` holds files in the released layout with made-up numbers, written by the
versions of pandas and numpy that its keys name (zlib, base64).
"""

import base64
import datetime
import hashlib
import io
import json
import os
import pickle
import struct
import tracemalloc
import zlib
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from tumorbench_utils import embeddings
from tumorbench_utils.cohorts import COHORTS, load_cohort
from tumorbench_utils.embeddings import inert, load, released
from tumorbench_utils.models import MODELS

PICKLES = json.loads(Path(__file__).with_name("released_pickles.json").read_text())
MADE = {"CTFMExtractor": (1, 512), "CTClipVitExtractor": (1, 2, 1, 2, 512),
        "PASTAExtractor": (1, 1024, 1, 2, 1), "MedImageInsightExtractor": (2, 1024)}  # fmt: skip
POOLED = {"CTFMExtractor": "ct_fm", "CTClipVitExtractor": "ct_clip_vit",
          "PASTAExtractor": "pasta", "MedImageInsightExtractor": "medimageinsight"}  # fmt: skip


def table() -> pd.DataFrame:
    """The table whose rows the files hold; the second and third in another order."""
    return pd.DataFrame(
        {
            "lesion_id": ["one", "three", "two"],
            "patient_id": ["p1", "p3", "p2"],
            "scan_id": ["s1", "s3", "s2"],
            "coord_x": [10.5, 30.0, -20.25],
            "coord_y": [1.0, 3.125, 2.0],
            "coord_z": [-100.0, 0.0, -50.5],
        }
    )


def rows() -> list[pd.Series]:
    frame = pd.DataFrame(
        {
            "coordX": [10.5, -20.25, 30.0],
            "coordY": [1.0, 2.0, 3.125],
            "coordZ": [-100.0, -50.5, 0.0],
            "image_path": ["/a/one.nrrd", "/a/two.nrrd", "/a/three.nrrd"],
        }
    )
    return [row for _, row in frame.iterrows()]


def content(feature=None, **extractors) -> dict:
    """A file in the released layout."""
    feature = np.ones((1, 512), np.float32) if feature is None else feature
    items = [{"feature": feature, "row": row} for row in rows()]
    return {"CTFMExtractor": {"train": items[:2], "val": [], "test": items[2:]}, **extractors}


def read(tmp_path, data, **options):
    path = tmp_path / "file.pkl"
    path.write_bytes(data if isinstance(data, bytes) else pickle.dumps(data, 4))
    return embeddings.import_released(path, "luna16", table=table(), **options)


def numbers(shape, n):
    return (np.arange(np.prod(shape)) % 7 + n).astype(np.float32).reshape(shape)


@pytest.mark.parametrize("made_by", PICKLES)
def test_reads_what_each_version_writes(tmp_path, made_by):
    frames = read(tmp_path, zlib.decompress(base64.b64decode(PICKLES[made_by])))
    assert set(frames) == set(POOLED.values())
    for extractor, shape in MADE.items():
        frame = frames[POOLED[extractor]]
        assert list(frame.index) == ["one", "three", "two"] and frame.index.name == "lesion_id"
        assert set(frame.dtypes) == {np.dtype("float32")}
        assert frame.attrs["unmatched"] == []
        for n, lesion in enumerate(["one", "two", "three"]):  # as in the file
            values = numbers(shape, n)
            if extractor == "CTClipVitExtractor":
                values = (values[:, 0, 0, 0] + values[:, 1, 0, 0]
                          + values[:, 0, 0, 1] + values[:, 1, 0, 1]) / 4  # fmt: skip
            elif extractor == "PASTAExtractor":
                values = (values[..., 0, 0, 0] + values[..., 0, 1, 0]) / 2
            elif extractor == "MedImageInsightExtractor":
                values = (values[:1] + values[1:]) / 2
            np.testing.assert_array_equal(frame.loc[lesion], values.reshape(-1))


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_reads_what_is_installed_writes(tmp_path, protocol):
    rng = np.random.default_rng(0)
    feature = rng.normal(size=(1, 512)).astype(np.float32)
    frames = read(tmp_path, pickle.dumps(content(feature), protocol))
    np.testing.assert_array_equal(frames["ct_fm"].loc["two"], feature[0])


def test_reads_the_sample_as_unpickling_it_would(reference):
    path = reference / "features" / "luna_upstream_format.pkl"
    frames = embeddings.import_released(path, "luna16")
    with open(path, "rb") as stream:
        trusted = pickle.Unpickler(stream).load()  # of our own making
    lengths = {"ct_clip_vit": (1, 2, 3), "pasta": (2, 3, 4), "medimageinsight": (0,)}
    assert len(frames) == 10
    seeds = load_cohort("luna16", "released").table.set_index("lesion_id")
    for name, splits in trusted.items():
        model = released.EXTRACTORS[name].model
        items = [item for split in splits.values() for item in split]
        frame = frames[model]
        assert len(frame) == len(items) and frame.attrs["unmatched"] == []
        xyz = seeds.loc[frame.index, ["coord_x", "coord_y", "coord_z"]].to_numpy()
        for item in items:
            seed = [item["row"][f"coord{axis}"] for axis in "XYZ"]
            lesion = np.linalg.norm(xyz - seed, axis=1).argmin()
            pooled = item["feature"]
            if model in lengths:
                pooled = pooled.mean(axis=lengths[model])
            np.testing.assert_array_equal(frame.iloc[lesion], pooled.reshape(-1))


def test_pooled_features_are_taken_as_they_are(tmp_path):
    flat = {
        name: {"train": [{"feature": numbers(shape, 0), "row": rows()[0]}]}
        for name, shape in [("MedImageInsightExtractor", (1024,)), ("PASTAExtractor", (1, 1024)),
                            ("CTClipVitExtractor", (1, 512))]
    }  # fmt: skip
    frames = read(tmp_path, flat)
    for model, frame in frames.items():
        np.testing.assert_array_equal(frame.loc["one"], numbers((frame.shape[1],), 0), model)


def test_memory_order_and_byte_order(tmp_path):
    values = numbers((1, 1024, 2, 3, 4), 0)
    expected = values.mean(axis=(2, 3, 4))[0]
    for array in (np.asfortranarray(values), values.astype(">f4"), values.astype("f8")):
        file = {"PASTAExtractor": {"test": [{"feature": array, "row": rows()[0]}]}}
        got = read(tmp_path, file)["pasta"].loc["one"]
        np.testing.assert_allclose(got, expected, rtol=1e-6)


def test_widths_are_those_of_the_models():
    for name, layout in released.EXTRACTORS.items():
        if layout.model in MODELS:
            assert MODELS[layout.model].dim == layout.dim, name


# -- joining -----------------------------------------------------------------------------------


def test_rows_that_do_not_match_are_reported(tmp_path):
    file = content()
    items = file["CTFMExtractor"]["train"]
    items.append({"feature": items[0]["feature"], "row": rows()[0] * 1})
    items[-1]["row"]["coordX"] = 99.0
    items.append({"feature": items[0]["feature"], "row": rows()[0].drop("coordY")})
    items.append({"feature": items[0]["feature"], "row": rows()[1]})
    items.append({"feature": np.full((1, 512), np.nan, np.float32), "row": rows()[2]})
    del file["CTFMExtractor"]["test"]
    with pytest.warns(UserWarning, match="4 rows of the feature file"):
        frame = read(tmp_path, file)["ct_fm"]
    assert list(frame.index) == ["one", "two"]
    reasons = {(u["split"], u["position"]): u["reason"] for u in frame.attrs["unmatched"]}
    assert set(reasons) == {("train", n) for n in (2, 3, 4, 5)}
    assert "no lesions of the table" in reasons["train", 2]
    assert "no coordX" in reasons["train", 3]
    assert "same seed as another row" in reasons["train", 4]
    assert "not finite" in reasons["train", 5]


def test_one_seed_of_several_lesions_needs_a_name(tmp_path):
    double = table()
    double.loc[2, ["coord_x", "coord_y", "coord_z"]] = [10.5, 1.0, -100.0]
    path = tmp_path / "file.pkl"
    file = content()
    file["CTFMExtractor"]["train"][1]["row"] = rows()[0].copy()
    file["CTFMExtractor"]["train"][0]["row"]["image_path"] = "/a/s1s2.nrrd"
    file["CTFMExtractor"]["train"][1]["row"]["image_path"] = "/a/s2.nrrd"
    path.write_bytes(pickle.dumps(file, 4))
    with pytest.warns(UserWarning, match="1 rows"):
        frame = embeddings.import_released(path, "luna16", table=double)["ct_fm"]
    assert list(frame.index) == ["three", "two"]
    (unmatched,) = frame.attrs["unmatched"]
    assert "2 lesions of the table have" in unmatched["reason"] and unmatched["position"] == 0


TABLES = {
    "luna16": [f"luna16/luna16/{part}.csv" for part in ("train", "val", "test")],
    "dlcs": ["dlcs/data.csv"],
    "nsclc_radiomics": [f"nsclc_radiomics/{p}_annotations.csv" for p in ("train", "val", "test")],
    "nsclc_radiogenomics": ["nsclc_radiogenomics/annotations.csv"],
    "c4kc_kits": ["c4c-kits/data.csv"],
    "colorectal_liver_metastases": ["colorectal_liver_metastases/data.csv"],
    "rider_lung_ct": ["rider/annotations.csv"],
}


@pytest.mark.filterwarnings("ignore:1 rows of the feature file")
@pytest.mark.parametrize("cohort", TABLES)
def test_every_row_of_the_released_tables_finds_its_lesion(tmp_path, reference, cohort):
    """A file made from the released CSV files as the authors' code reads them."""
    files = [reference / "cohorts" / "released" / name for name in TABLES[cohort]]
    lines = [row for file in files for _, row in pd.read_csv(file).iterrows()]
    items = [
        {"feature": np.full((1, 512), n, np.float32), "row": row} for n, row in enumerate(lines)
    ]
    path = tmp_path / "file.pkl"
    path.write_bytes(pickle.dumps({"CTFMExtractor": {"train": items}}, 4))
    frame = embeddings.import_released(path, cohort)["ct_fm"]
    lesions = load_cohort(cohort, "released").table
    assert list(frame.index) == list(lesions["lesion_id"])
    assert len(frame.attrs["unmatched"]) == len(lesions.attrs["excluded"])
    for lesion, row in lesions.set_index("lesion_id").iterrows():
        line = lines[int(frame.at[lesion, "f0"])]
        assert abs(line["coordX"] - row["coord_x"]) < 1e-3
        if cohort == "dlcs":  # holds the same nodule twice under two names
            assert line["nodule_id"] == lesion


def test_left_out_lesions_are_named(tmp_path):
    short = table().iloc[:2].reset_index(drop=True)
    short.attrs["excluded"] = [{"lesion_id": "/a/two.nrrd", "reason": "a duplicate"}]
    path = tmp_path / "file.pkl"
    path.write_bytes(pickle.dumps(content(), 4))
    with pytest.warns(UserWarning):
        frame = embeddings.import_released(path, "luna16", table=short)["ct_fm"]
    assert "left out of the cohort: a duplicate" in frame.attrs["unmatched"][0]["reason"]


def test_file_of_another_cohort(tmp_path):
    other = table().assign(coord_x=500.0)
    path = tmp_path / "file.pkl"
    path.write_bytes(pickle.dumps(content(), 4))
    with pytest.raises(embeddings.UnsafeFileError, match="another cohort"):
        embeddings.import_released(path, "dlcs", table=other)


# -- refusals ----------------------------------------------------------------------------------


class Call:
    """Pickles as a call of `function` with `args`."""

    def __init__(self, function, *args):
        self.call = function, args

    def __reduce__(self):
        return self.call


class Trap:
    """A function that must never run."""

    ran = False


def spring():
    Trap.ran = True


def raw_global(module, name, args=b")") -> bytes:
    return b"\x80\x02c" + f"{module}\n{name}\n".encode() + args + b"R."


ATTACKS = {
    "os.system": lambda: pickle.dumps({"a": Call(os.system, "exit 1")}, 4),
    "eval": lambda: pickle.dumps(Call(eval, "1"), 2),
    "own function": lambda: pickle.dumps(content(feature=Call(spring)), 4),
    "in a row": lambda: pickle.dumps({"CTFMExtractor": {"train": [Call(spring)]}}, 4),
    "as a key": lambda: b"\x80\x02}cos\ngetcwd\n)RK\x01s.",
    "getattr": lambda: raw_global("builtins", "getattr"),
    "dotted path": lambda: b"\x80\x04\x8c\x05numpy\x8c\x10ndarray.__class__\x93.",
    "module in a name": lambda: b"\x80\x04\x8c\x05numpy\x8c\x0aos.system1\x93.",
    "numpy.load": lambda: raw_global("numpy", "load", b"X\x01\x00\x00\x00x\x85"),
    "pandas.read_pickle": lambda: raw_global("pandas", "read_pickle"),
    "numpy runstring": lambda: raw_global("numpy.testing._private.utils", "runstring"),
    "partial": lambda: raw_global("functools", "partial"),
    "persistent id": lambda: b"\x80\x02X\x01\x00\x00\x00aQ.",
    "persistent id as text": lambda: b"\x80\x02Pabc\n.",
    "extension registry": lambda: b"\x80\x02\x82\x01.",
    "inst": lambda: b"(ios\nsystem\n.",
    "obj": lambda: b"\x80\x02(cos\nsystem\no.",
    "newobj with keywords": lambda: b"\x80\x04cnumpy\nndarray\n)}\x92.",
    "build on a name": lambda: b"\x80\x02cnumpy\nndarray\n}b.",
    "call of a value": lambda: b"\x80\x02X\x02\x00\x00\x00os)R.",
    "out-of-band buffer": lambda: b"\x80\x05\x97.",
    "an object with a date": lambda: pickle.dumps(content(feature=datetime.date(2020, 1, 1)), 4),
}


@pytest.mark.parametrize("attack", ATTACKS)
def test_refuses_what_could_run(tmp_path, attack):
    Trap.ran = False
    with pytest.raises(embeddings.UnsafeFileError):
        read(tmp_path, ATTACKS[attack]())
    assert not Trap.ran


def test_refuses_before_it_needs_a_table(tmp_path, monkeypatch):
    monkeypatch.delenv("TUMORBENCH_DATA", raising=False)
    path = tmp_path / "file.pkl"
    path.write_bytes(ATTACKS["os.system"]())
    with pytest.raises(embeddings.UnsafeFileError, match="system"):
        embeddings.import_released(path, "luna16")
    path.write_bytes(pickle.dumps(content(), 4))
    with pytest.raises(ValueError, match="TUMORBENCH_DATA"):
        embeddings.import_released(path, "luna16")


def test_the_traps_do_run_when_unpickled():
    """The attacks above are real: the usual reader falls for them."""
    Trap.ran = False
    pickle.Unpickler(io.BytesIO(ATTACKS["own function"]())).load()
    assert Trap.ran


def test_names_the_offender(tmp_path):
    with pytest.raises(embeddings.UnsafeFileError, match=r"posix.system|nt.system"):
        read(tmp_path, ATTACKS["os.system"]())
    with pytest.raises(embeddings.UnsafeFileError, match=r"file\.pkl"):
        read(tmp_path, b"")


BOMBS = {
    "memo at 2**32": b"\x80\x02]r\xff\xff\xff\xff.",
    "bytes of an exabyte": b"\x80\x04\x8e" + struct.pack("<Q", 1 << 60) + b"abc.",
    "text of an exabyte": b"\x80\x04\x8d" + struct.pack("<Q", 1 << 60) + b"abc.",
    "frame of an exabyte": b"\x80\x04\x95" + struct.pack("<Q", 1 << 60) + b"].",
    "bytearray of an exabyte": b"\x80\x05\x96" + struct.pack("<Q", 1 << 60) + b"abc.",
    "lists in lists": b"\x80\x02]" + b"q\x00]h\x00h\x00h\x00e" * 3 + b".",
    "deep": b"\x80\x02" + b"]" + b"\x85" * 100_000 + b".",
    "a deep key": b"\x80\x02})" + b"\x85" * 100_000 + b"K\x01s.",
    "stack of marks": b"\x80\x02" + b"(" * 100_000 + b"t" * 10 + b".",
    "array of a TiB": pickle.dumps(content(), 2).replace(
        b"K\x01M\x00\x02\x86", b"J\x00\x00\x10\x00J\x00\x00\x04\x00\x86"
    ),
    # All of these whole numbers have one hash: a dictionary would look at each for each.
    "colliding keys": b"\x80\x02}("
    + b"".join(
        b"\x8a\x0a" + (n * (2**61 - 1)).to_bytes(10, "little") + b"K\x01" for n in range(50_000)
    )
    + b"u.",
    "calls in calls": pickle.dumps(
        {"CTFMExtractor": {"train": [{"feature": 1, "row": 0}]}}, 2
    ).replace(
        b"K\x01", b"c_codecs\nencode\nq\xff" + b"h\xff" * 50_000 + b"K\x01" + b"\x85R" * 50_000
    ),
}


@pytest.mark.parametrize("bomb", BOMBS)
def test_bombs_do_not_go_off(tmp_path, bomb):
    tracemalloc.start()
    with pytest.raises(embeddings.UnsafeFileError):
        read(tmp_path, BOMBS[bomb])
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 400e6


def test_one_array_cannot_be_named_a_million_times(tmp_path):
    feature = np.ones((1, 1024, 8, 8, 8), np.float32)  # 2 MB, written once
    items = [{"feature": feature, "row": rows()[0]}] * 1000
    with pytest.raises(embeddings.UnsafeFileError, match="larger than the file"):
        read(tmp_path, {"PASTAExtractor": {"train": items}})


def test_messages_stay_short(tmp_path):
    with pytest.raises(embeddings.UnsafeFileError) as caught:
        read(tmp_path, {"x" * 10**6: {"train": []}})
    assert len(str(caught.value)) < 1000


@pytest.mark.parametrize(
    "feature",
    [
        np.ones((1, 511), np.float32),
        np.ones((2, 512), np.float32),
        np.ones((1, 512), np.int64),
        np.ones((1, 512), np.complex64),
        np.ones((1, 512), object),
        np.array("text"),
        np.ones(0, np.float32),
        np.float32(1),
        [1.0] * 512,
        False,
        b"raw",
        pd.Series(np.ones(512, np.float32)),
    ],
    ids=lambda f: f"{type(f).__name__}-{getattr(f, 'shape', '')}-{getattr(f, 'dtype', '')}",
)
def test_refuses_other_features(tmp_path, feature):
    with pytest.raises(embeddings.UnsafeFileError):
        read(tmp_path, content(feature))


@pytest.mark.parametrize(
    "shape",
    [b"J\xff\xff\xff\xffM\x00\x02\x86", b"M\xff\xffM\xff\xff\x86", b"K\x01M\x00\x03\x86",
     b"G\x3f\xf0\x00\x00\x00\x00\x00\x00M\x00\x02\x86", b"K\x01K\x02\x86"],
)  # fmt: skip
def test_refuses_shapes_that_the_bytes_do_not_fill(tmp_path, shape):
    data = pickle.dumps(content(), 2)
    assert data.count(b"K\x01M\x00\x02\x86") >= 1
    with pytest.raises(embeddings.UnsafeFileError):
        read(tmp_path, data.replace(b"K\x01M\x00\x02\x86", shape))


@pytest.mark.parametrize(
    "file",
    [
        {},
        [],
        1,
        "text",
        np.ones(3),
        {"NewExtractor": {"train": []}},
        {"CTFMExtractor": []},
        {"CTFMExtractor": {}},
        {"CTFMExtractor": {"holdout": []}},
        {"CTFMExtractor": {"train": {}}},
        {"CTFMExtractor": {"train": []}},
        {"CTFMExtractor": {"train": [{"feature": np.ones(512, np.float32)}]}},
        {"CTFMExtractor": {"train": [{"feature": np.ones(512, np.float32), "row": {}}]}},
        {1: {"train": []}},
    ],
    ids=lambda f: str(f)[:40],
)
def test_refuses_other_structures(tmp_path, file):
    with pytest.raises(embeddings.UnsafeFileError):
        read(tmp_path, file)


def test_truncated_anywhere(tmp_path):
    data = pickle.dumps(content(), 4)
    rng = np.random.default_rng(0)
    for cut in [0, 1, 2, len(data) - 1, *rng.integers(0, len(data), 60)]:
        with pytest.raises(embeddings.UnsafeFileError):
            read(tmp_path, data[:cut])


def test_broken_bytes_never_escape_as_another_error(tmp_path):
    data = pickle.dumps(content(), 4)
    rng = np.random.default_rng(1)
    refused = 0
    for _ in range(150):
        broken = bytearray(data)
        for at in rng.integers(0, len(data), 3):
            broken[at] = rng.integers(256)
        try:
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr("warnings.warn", lambda *a, **k: None)
                read(tmp_path, bytes(broken))
        except embeddings.UnsafeFileError:
            refused += 1
    assert refused > 0


def test_trailing_bytes_and_second_pickles(tmp_path):
    data = pickle.dumps(content(), 4)
    for tail in (b"x", ATTACKS["eval"]()):
        with pytest.raises(embeddings.UnsafeFileError, match="follow its end"):
            read(tmp_path, data + tail)


def test_checksums(tmp_path):
    data = pickle.dumps(content(), 4)
    right = hashlib.sha256(data).hexdigest()
    assert read(tmp_path, data, sha256=right.upper())
    with pytest.raises(embeddings.UnsafeFileError, match="SHA-256"):
        read(tmp_path, data, sha256="0" * 64)
    # A wrong checksum is found before anything in the file is looked at.
    with pytest.raises(embeddings.UnsafeFileError, match="it was not read"):
        read(tmp_path, ATTACKS["eval"](), sha256=right)


def test_pointer_and_absent_file(tmp_path):
    with pytest.raises(embeddings.UnsafeFileError, match="Git LFS pointer"):
        read(tmp_path, b"version https://git-lfs.github.com/spec/v1\noid sha256:00\n")
    with pytest.raises(FileNotFoundError):
        embeddings.import_released(tmp_path / "none.pkl", "luna16", table=table())
    with pytest.raises(FileNotFoundError):
        embeddings.import_released(tmp_path, "luna16", table=table())
    with pytest.raises(KeyError, match="luna16"):
        path = tmp_path / "file.pkl"
        path.write_bytes(b"")
        embeddings.import_released(path, "luna61")


def test_reader_never_imports(monkeypatch):
    """No name is looked up, the allowed ones neither."""
    monkeypatch.setattr("builtins.__import__", lambda *a, **k: pytest.fail("imported"))
    value = inert.read_inert(b"\x80\x02cnumpy\nndarray\n)R.")
    assert isinstance(value, inert.Record) and value.name == "numpy.ndarray"


def test_numbers_and_texts_of_rows():
    frame = pd.DataFrame({"a": [1, 2], "b": [1.5, np.nan], "flag": [True, False], "t": ["x", None]})
    for _, row in frame.iterrows():
        got = inert.series(inert.read_inert(pickle.dumps(row, 4)))
        assert list(got) == list(frame.columns)
        for name, value in row.items():
            assert got[name] == value or (pd.isna(value) and pd.isna(got[name]))
    only_numbers = frame[["a", "b"]].iloc[0]
    assert inert.series(inert.read_inert(pickle.dumps(only_numbers, 5))) == {"a": 1.0, "b": 1.5}
    only_text = pd.Series(["x", "y", None], index=["p", "q", "r"], dtype="string")
    got = inert.series(inert.read_inert(pickle.dumps(only_text, 4)))
    assert got == {"p": "x", "q": "y", "r": None}


# -- the catalogue -----------------------------------------------------------------------------


def test_import_into_the_store(tmp_path, monkeypatch):
    """What is imported once is read from the store; a half import counts as none."""
    data = pickle.dumps(content(PASTAExtractor={"train": [
        {"feature": np.ones((1, 1024), np.float32), "row": rows()[0]}]}), 4)  # fmt: skip
    known = {"path": "x/luna.pkl", "size": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    monkeypatch.setitem(embeddings.released_files(), "luna16", known)
    monkeypatch.setattr("tumorbench_utils.cohorts.load_cohort", lambda *a: cohort)
    monkeypatch.setenv("TUMORBENCH_DATA", str(tmp_path))
    monkeypatch.setenv("TUMORBENCH_CACHE", str(tmp_path / "cache"))
    cohort = SimpleNamespace(card=SimpleNamespace(key="luna16"), edition="released", table=table())
    assert embeddings.edition_with_features("released", ["luna16"])[0] == "phantom"
    assert "import-released luna16" in embeddings.edition_with_features("released", ["luna16"])[1]
    with pytest.raises(load.FeaturesMissingError, match="tumorbench import-released luna16"):
        embeddings.load_embeddings(cohort)
    (tmp_path / "features").mkdir()
    (tmp_path / "features" / "luna.pkl").write_bytes(data)
    assert embeddings.edition_with_features("released", ["luna16"]) == ("released", "")
    got = embeddings.load_embeddings(cohort)
    assert got.weights == "released features" and set(got) == {"ct_fm", "pasta"}
    assert list(got["ct_fm"].index) == ["one", "three", "two"] and list(got["pasta"].index) == [
        "one"
    ]
    store = embeddings.default_store("released")
    store.path("luna16", "pasta").unlink()
    assert set(embeddings.load_embeddings(cohort)) == {"ct_fm", "pasta"}
    (tmp_path / "features" / "luna.pkl").unlink()
    assert set(embeddings.load_embeddings(cohort, ["pasta"])) == {"pasta"}
    with pytest.raises(load.FeaturesMissingError, match="voco"):
        embeddings.load_embeddings(cohort, ["voco"])
    (tmp_path / "features" / "luna.pkl").write_bytes(data[:-1])
    store.path("luna16", "pasta").unlink()
    with pytest.raises(embeddings.UnsafeFileError, match="SHA-256"):
        embeddings.load_embeddings(cohort)


def test_every_cohort_has_a_file():
    assert set(embeddings.released_files()) == set(COHORTS)
    for known in embeddings.released_files().values():
        assert len(known["sha256"]) == 64 and known["path"][40] == "/" and known["size"] > 1e6


def test_the_phantom_edition_asks_for_no_released_features(tmp_path, monkeypatch):
    """Its store holds embeddings that say nothing of an import."""
    monkeypatch.setenv("TUMORBENCH_CACHE", str(tmp_path))
    frame = pd.DataFrame({"f0": [1.0]}, index=pd.Index(["a"], name="lesion_id"))
    embeddings.load.default_store("phantom").write("luna16", "fmcib", frame, {"weights": "own"})
    assert embeddings.edition_with_features("phantom", ["luna16"]) == ("phantom", "")
