import csv
import hashlib
import json
import threading
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pandas as pd
import pytest
from typer.testing import CliRunner

from tumorbench_book import archives
from tumorbench_book.cli.cohorts import cohorts as command
from tumorbench_utils import digests, settings
from tumorbench_utils.cohorts import (
    COHORTS,
    CohortError,
    images,
    load_cohort,
    read_released_table,
)
from tumorbench_utils.cohorts.released import released_files
from tumorbench_utils.downloads import DownloadError


@pytest.fixture
def server(tmp_path):
    """A server of the files in ``tmp_path / "www"``."""
    root = tmp_path / "www"
    root.mkdir()
    log = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            path = root / self.path.lstrip("/")
            log.append(self.path)
            if not path.is_file():
                return self.send_error(404)
            content = path.read_bytes()
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    server.url, server.root, server.log = f"http://127.0.0.1:{server.server_port}", root, log
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def data(tmp_path, monkeypatch):
    folder = tmp_path / "Daten für mich"
    folder.mkdir()
    monkeypatch.setenv("TUMORBENCH_DATA", str(folder))
    return folder


# ------------------------------------------------------------------------------------ released tables


def test_every_released_file_has_a_checksum(reference):
    known = settings.book_data("downloads")["cohorts"]["files"]
    assert {relative for name in COHORTS for relative in released_files(name)} == set(known)
    for relative, expected in known.items():
        path = reference / "cohorts" / "released" / relative
        assert digests.of_file(path) == expected["sha256"]
        assert path.stat().st_size == expected["size"]


@pytest.fixture
def released_at(server, monkeypatch):
    """Let the released tables come from the server."""
    known = settings.book_data("downloads")["cohorts"] | {"url": server.url}
    monkeypatch.setattr(
        settings,
        "book_data",
        lambda _, f=settings.book_data: f(_) if _ == "cohorts" else {"cohorts": known},
    )
    return server


def test_fetch_released_tables(reference, released_at, data):
    (released_at.root / "rider").mkdir()
    source = reference / "cohorts" / "released" / "rider" / "annotations.csv"
    (released_at.root / "rider" / "annotations.csv").write_bytes(source.read_bytes())
    for _ in range(2):
        assert archives.fetch_released("rider_lung_ct") == data.resolve()
    assert len(released_at.log) == 1  # the second time nothing is asked for
    assert len(load_cohort("rider_lung_ct", "released").table) == 52
    shown = CliRunner().invoke(command, ["fetch", "rider_lung_ct"])
    assert shown.exit_code == 0 and "TUMORBENCH_DATA=" in shown.output
    shown = CliRunner().invoke(command, ["check", "rider_lung_ct"])
    assert "52 lesions, 52 scans, 26 patients" in shown.output


def test_damaged_tables_are_not_kept_and_foreign_ones_not_overwritten(released_at, data):
    target = data / "cohorts" / "released" / "rider" / "annotations.csv"
    with pytest.raises(DownloadError, match="404"):
        archives.fetch_released("rider_lung_ct")
    (released_at.root / "rider").mkdir()
    (released_at.root / "rider" / "annotations.csv").write_bytes(b"axc")
    with pytest.raises(DownloadError, match="another file"):
        archives.fetch_released("rider_lung_ct")
    assert not target.exists()
    target.write_bytes(b"mine")
    with pytest.raises(CohortError, match="is not the released file"):
        archives.fetch_released("rider_lung_ct")
    assert target.read_bytes() == b"mine"


def test_fetch_without_a_data_folder_goes_to_the_cache(monkeypatch, tmp_path):
    monkeypatch.delenv("TUMORBENCH_DATA", raising=False)
    monkeypatch.setenv("TUMORBENCH_CACHE", str(tmp_path))
    assert images.data_folder() == tmp_path.resolve() / "data"
    with pytest.raises(KeyError, match="did you mean dlcs"):
        archives.fetch_released("dlc")


# -------------------------------------------------------------------------------------------- plan


def test_plans_need_no_network_and_no_table(monkeypatch, tmp_path):
    monkeypatch.delenv("TUMORBENCH_DATA", raising=False)
    monkeypatch.setenv("TUMORBENCH_CACHE", str(tmp_path))
    for name, card in COHORTS.items():
        frame = images.plan(name)
        assert list(frame.columns) == list(images.PLAN_COLUMNS)
        assert set(frame["role"]) <= {"CT", "SEG"}
        assert frame["licence"].notna().all()
        ct = frame[frame["role"] == "CT"]
        if name in archives.ZENODO:
            assert ct["patient"].nunique() >= card.expected["patients"] - 1
        else:
            assert ct["patient"].nunique() >= card.expected["patients"]
            assert (frame["gigabytes"] > 0).all()
        shown = CliRunner().invoke(command, ["plan", name])
        assert shown.exit_code == 0 and card.title in shown.output


def test_plans_of_the_released_tables_pair_every_scan(reference, monkeypatch):
    monkeypatch.setenv("TUMORBENCH_DATA", str(reference))
    certain = {}
    for name in COHORTS:
        if name == "dlcs":
            continue
        table = read_released_table(name, reference / "cohorts" / "released")
        frame = images.plan(name)
        ct = frame[frame["role"] == "CT"]
        assert set(ct["scan_id"]) == set(table["scan_id"])
        certain[name] = ct[ct["candidates"] == 1]["scan_id"].nunique()
    assert certain == {
        "luna16": 433,
        "nsclc_radiomics": 421,
        "nsclc_radiogenomics": 142,  # R01-059 has six CT series
        "c4kc_kits": 210,
        "colorectal_liver_metastases": 197,
        "rider_lung_ct": 24,
    }


# ----------------------------------------------------------------------------- Imaging Data Commons


def make_wanted():
    return pd.DataFrame({"series": ["1.2", "1.3"], "instances": [3, 2], "gigabytes": [0.01, 0.01]})


def put(root, series, n):
    (root / series).mkdir(parents=True, exist_ok=True)
    for i in range(n):
        (root / series / f"{i}.dcm").write_bytes(b"DICM")


def test_series_are_counted_because_the_client_does_not_raise(tmp_path, monkeypatch):
    calls = []

    def silent(series, root):
        calls.append(series)
        put(root, "1.2", 3)
        put(root, "1.3", len(calls))

    monkeypatch.setattr(archives, "_get_from_archive", silent)
    with pytest.raises(CohortError, match=r"1 of 2 series are incomplete.*1\.3: 1 of 2 files"):
        archives.download_series(make_wanted(), tmp_path)
    archives.download_series(make_wanted(), tmp_path)
    archives.download_series(make_wanted(), tmp_path)  # complete: no client is started
    assert calls == [["1.2", "1.3"], ["1.3"]]


def test_empty_files_do_not_count(tmp_path, monkeypatch):
    def silent(series, root):
        put(root, "1.2", 3)
        put(root, "1.3", 1)
        (root / "1.3" / "9.dcm").touch()

    monkeypatch.setattr(archives, "_get_from_archive", silent)
    with pytest.raises(CohortError, match="1 of 2 files"):
        archives.download_series(make_wanted(), tmp_path)


def test_a_full_disk_is_said_before_anything_is_downloaded(tmp_path):
    wanted = make_wanted().assign(gigabytes=1e9)
    with pytest.raises(CohortError, match="GB are free"):
        archives.download_series(wanted, tmp_path)


def test_images_of_a_cohort_with_several_ct_series(reference, data, monkeypatch):
    """RIDER: where a study holds both sessions, the SEG says which series is which."""
    (data / "cohorts").mkdir()
    (data / "cohorts" / "released").symlink_to(reference / "cohorts" / "released")
    wanted = images.plan("rider_lung_ct")
    files = dict(zip(wanted["series"], wanted["instances"], strict=True))
    truth = {}
    for (scan, role), rows in wanted.groupby(["scan_id", "role"]):
        if role == "CT":  # the first candidate for the test, the last for the retest
            truth[scan] = sorted(rows["series"])[-1 if "-retest" in scan else 0]
    referenced = {
        row.series: {truth[row.scan_id]} for row in wanted[wanted["role"] == "SEG"].itertuples()
    }
    monkeypatch.setattr(archives, "referenced_series", lambda file: referenced[file.parent.name])
    monkeypatch.setattr(
        archives,
        "_get_from_archive",
        lambda series, root: [put(root, s, min(files[s], 400)) for s in series],
    )
    root = archives.fetch_images("rider_lung_ct")
    with open(root / "scans.csv") as stream:
        assert {r["scan_id"]: r["path"] for r in csv.DictReader(stream)} == truth
    cohort = load_cohort("rider_lung_ct", "full")
    assert all(Path(p).is_dir() for p in cohort.table["image_path"])
    assert {Path(p).name for p in cohort.table["image_path"]} == set(truth.values())

    two = wanted[(wanted["role"] == "CT") & (wanted["candidates"] == 2)]["scan_id"].iloc[0]
    masks = wanted[(wanted["role"] == "SEG") & (wanted["scan_id"] == two)]
    referenced[masks["series"].iloc[0]] = {"9.9"}
    with pytest.raises(CohortError, match=f"segmentation of {two} refers to 0 of the 2 CT series"):
        archives.fetch_images("rider_lung_ct")


def test_full_edition_without_images_says_how_to_get_them(reference, monkeypatch):
    monkeypatch.setenv("TUMORBENCH_DATA", str(reference))
    with pytest.raises(CohortError, match=r"52 of 52 scans .*fetch rider_lung_ct --images"):
        load_cohort("rider_lung_ct", "full")


# ------------------------------------------------------------------------------------------- Zenodo


def test_images_from_zenodo(reference, server, data, monkeypatch):
    monkeypatch.setattr(archives, "API", f"{server.url}/api")
    (data / "cohorts").mkdir()
    (data / "cohorts" / "released").symlink_to(reference / "cohorts" / "released")
    table = read_released_table("luna16", data / "cohorts" / "released")
    scans = table["scan_id"].unique()
    (server.root / "api").mkdir()
    for record, part, number in zip(
        (3723295, 4121926), (scans[:300], scans[300:]), (0, 7), strict=True
    ):
        archive = server.root / f"subset{number}.zip"
        with zipfile.ZipFile(archive, "w") as content:
            for scan in part:
                content.writestr(f"subset{number}/{scan}.mhd", "ObjectType = Image\n")
                content.writestr(f"subset{number}/{scan}.raw", b"\0\0")
            content.writestr("../../evil.mhd", "x")
            content.writestr(f"subset{number}/1.2.3.mhd", "not asked for")
        files = [
            {
                "key": "readme.pdf",
                "checksum": "md5:0",
                "size": 1,
                "links": {"self": f"{server.url}/absent"},
            },
            {
                "key": f"../../{archive.name}",  # a list is no path: the folder is not left
                "size": archive.stat().st_size,
                "checksum": f"md5:{hashlib.md5(archive.read_bytes()).hexdigest()}",
                "links": {"self": f"{server.url}/{archive.name}"},
            },
        ]
        (server.root / "api" / str(record)).write_text(json.dumps({"files": files}))
    root = archives.fetch_images("luna16")
    assert len(list(root.glob("*.mhd"))) == len(list(root.glob("*.raw"))) == 433
    assert not list(data.rglob("*.zip")) and not list(data.rglob("evil*"))
    cohort = load_cohort("luna16", "full")
    assert all(Path(p).is_file() for p in cohort.table["image_path"])
    before = len(server.log)
    archives.fetch_images("luna16")
    assert len(server.log) - before == 2  # the two lists of files; nothing is downloaded again

    (root / f"{scans[0]}.raw").unlink()  # lost: its archive is downloaded again, the other not
    archives.fetch_images("luna16")
    assert (root / f"{scans[0]}.raw").is_file() and server.log[-1] == "/subset0.zip"


def test_scans_that_zenodo_does_not_have(server, tmp_path, monkeypatch):
    monkeypatch.setattr(archives, "API", f"{server.url}/api")
    (server.root / "api").mkdir()
    (server.root / "api" / "13799069").write_text(json.dumps({"files": []}))
    table = pd.DataFrame({"scan_id": ["a", "b"], "image_path": ["a.nii.gz", "b.nii.gz"]})
    (tmp_path / "a.nii.gz").touch()
    with pytest.raises(CohortError, match=r"1 of 2 scans are in no file.*b\.nii\.gz"):
        archives._from_zenodo("dlcs", table, tmp_path)


def test_zenodo_without_a_network(reference, data, monkeypatch):
    monkeypatch.setattr(archives, "API", "http://127.0.0.1:9/api")
    (data / "cohorts").mkdir()
    (data / "cohorts" / "released").symlink_to(reference / "cohorts" / "released")
    with pytest.raises(CohortError, match="no list of the files of Zenodo record 13799069"):
        archives.fetch_images("dlcs")


def test_damaged_archives_are_named(tmp_path):
    (tmp_path / "a.zip").write_bytes(b"PK no zip")
    with pytest.raises(CohortError, match="damaged zip"):
        archives.extract(tmp_path / "a.zip", {"a.mhd"}, tmp_path)


def test_scan_lists_cannot_lead_out_of_their_folder(reference, data):
    (data / "cohorts").mkdir()
    (data / "cohorts" / "released").symlink_to(reference / "cohorts" / "released")
    root = data / "images" / "rider_lung_ct"
    root.mkdir(parents=True)
    scan = read_released_table("rider_lung_ct", data / "cohorts" / "released")["scan_id"][0]
    (root / "scans.csv").write_text(f"scan_id,path\n{scan},../../../etc\n")
    with pytest.raises(ValueError, match="leaves its folder"):
        load_cohort("rider_lung_ct", "full")


def test_the_list_of_cohorts():
    shown = CliRunner().invoke(command, ["list"], env={"COLUMNS": "200"})
    assert shown.exit_code == 0
    assert all(name in shown.output for name in COHORTS)
