"""Listing, fetching and checking of released checkpoints; the network is a local server."""

import http.server
import json
import re
import threading
from dataclasses import replace

import huggingface_hub
import pytest
from typer.testing import CliRunner

from tumorbench_book.cli.weights import weights as command
from tumorbench_utils import digests, models
from tumorbench_utils.models import weights

CONTENT = bytes(range(256)) * 4000


@pytest.fixture(autouse=True)
def own_folders(tmp_path, monkeypatch):
    monkeypatch.setenv("TUMORBENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("TUMORBENCH_WEIGHTS", raising=False)
    return tmp_path / "cache"


@pytest.fixture
def server():
    """A server of CONTENT; ``cut`` breaks the connection once, ``ranges`` may be switched off."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.server.asked.append(self.headers.get("Range"))
            start = 0
            if self.server.status != 200:
                self.send_error(self.server.status)
                return
            wanted = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range") or "")
            if wanted and self.server.ranges:
                start = int(wanted[1])
                self.send_response(206)
                whole = len(self.server.content)
                self.send_header("Content-Range", f"bytes {start}-{whole - 1}/{whole}")
            else:
                self.send_response(200)
            body = self.server.content[start:]
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            cut, self.server.cut = self.server.cut, None
            self.wfile.write(body[:cut])

        def log_message(self, *args):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as httpd:
        httpd.asked, httpd.cut, httpd.ranges, httpd.status = [], None, True, 200
        httpd.content = CONTENT
        httpd.url = f"http://127.0.0.1:{httpd.server_port}/model_weights.torch"
        threading.Thread(target=httpd.serve_forever, daemon=True).start()
        yield httpd
        httpd.shutdown()


@pytest.fixture
def fmcib(server, monkeypatch):
    """FMCIB, to be fetched from the local server."""
    model = models.get_model("fmcib")
    monkeypatch.setattr(model, "card", replace(model.card, url=server.url), raising=False)
    return model


def test_a_file_is_fetched_once_and_recorded(fmcib, server, own_folders):
    path = weights.fetch("fmcib", progress=False)
    assert path == own_folders / "weights" / "fmcib" / "model_weights.torch"
    assert path.read_bytes() == CONTENT
    record = json.loads(weights.lock_file().read_text())["fmcib"]
    assert record["sha256"] == digests.of_file(path) and record["bytes"] == len(CONTENT)
    assert weights.fetch("fmcib", progress=False) == path == weights.find("fmcib")
    assert len(server.asked) == 1
    assert weights.verify("fmcib") == "unchanged" and weights.verify("suprem") == "absent"


@pytest.mark.parametrize("ranges", [True, False])
def test_an_interrupted_download_goes_on(fmcib, server, ranges):
    server.cut, server.ranges = 300_000, ranges
    with pytest.raises(weights.WeightsError, match="the download failed"):
        weights.fetch("fmcib", progress=False)
    assert weights.find("fmcib") is None, "half a file must not pass for the whole"
    assert weights.fetch("fmcib", progress=False).read_bytes() == CONTENT
    first, second = server.asked
    assert first is None and 0 < int(second.removeprefix("bytes=").removesuffix("-")) <= 300_000


def test_another_file_is_refused(fmcib, server):
    path = weights.fetch("fmcib", progress=False)
    path.write_bytes(CONTENT[:-1] + b"!")
    assert weights.verify("fmcib") == "changed"
    for _ in range(2):
        with pytest.raises(weights.WeightsError, match="not the file that was recorded") as error:
            weights.fetch("fmcib", progress=False)
    assert "tumorbench weights fetch fmcib" in str(error.value)
    path.unlink()
    server.content = b"new" + CONTENT
    with pytest.raises(weights.WeightsError, match="not the file that was recorded"):
        weights.fetch("fmcib", progress=False)


@pytest.mark.parametrize("status", [403, 404, 500])
def test_a_refusal_names_the_page_and_the_command(fmcib, server, status):
    server.status = status
    with pytest.raises(weights.WeightsError) as error:
        weights.fetch("fmcib", progress=False)
    for part in (fmcib.card.source, "tumorbench weights fetch fmcib", "TUMORBENCH_WEIGHTS"):
        assert part in str(error.value)


def test_a_web_page_is_not_kept(fmcib, server):
    server.content = b"<!DOCTYPE html><html>Please accept the licence</html>"
    with pytest.raises(weights.WeightsError, match="web page"):
        weights.fetch("fmcib", progress=False)
    assert weights.find("fmcib") is None and not weights.lock_file().exists()


def test_the_hub_is_asked_for_repository_and_file(monkeypatch, own_folders):
    asked = []

    def download(repo, file, *, repo_type, local_dir):
        asked.append((repo, file, repo_type))
        target = local_dir / file
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(CONTENT)
        return str(target)

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    for key in ("suprem", "ct_clip_vit"):
        card = models.get_model(key).card
        assert weights.fetch(key, progress=False) == own_folders / "weights" / key / card.file
        assert asked[-1] == (card.repo, card.file, card.repo_type)
    assert asked[1][2] == "dataset"


def test_a_gate_is_explained(monkeypatch):
    class GatedRepoError(OSError):
        pass

    def download(*args, **kwargs):
        raise GatedRepoError("401 Client Error\nCannot access gated repo")

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    card = models.get_model("ct_clip_vit").card
    with pytest.raises(weights.WeightsError, match="behind a gate") as error:
        weights.fetch("ct_clip_vit", progress=False)
    for part in (card.source, card.gate.rstrip("."), "tumorbench weights fetch ct_clip_vit"):
        assert part in str(error.value)


@pytest.mark.parametrize("place", ["voco/{}", "{}"])
def test_a_folder_of_your_own_is_read_and_never_written(tmp_path, monkeypatch, place):
    folder = tmp_path / "Gewichte"
    monkeypatch.setenv("TUMORBENCH_WEIGHTS", str(folder))
    with pytest.raises(FileNotFoundError, match="TUMORBENCH_WEIGHTS"):
        weights.find("voco")
    path = folder / place.format(models.get_model("voco").card.file)
    path.parent.mkdir(parents=True)
    monkeypatch.setattr(weights, "_download", None)  # any download would fail
    with pytest.raises(weights.WeightsError, match="does not hold the weights of voco"):
        weights.fetch("voco")
    path.write_bytes(CONTENT)
    before = sorted(folder.rglob("*"))
    assert weights.fetch("voco") == path and sorted(folder.rglob("*")) == before
    assert weights.verify("voco") == "unchanged"


def test_a_broken_lock_file_is_named(fmcib):
    weights.lock_file().parent.mkdir(parents=True, exist_ok=True)
    weights.lock_file().write_text("{")
    with pytest.raises(weights.WeightsError, match=r"weights\.lock\.json is not JSON"):
        weights.fetch("fmcib", progress=False)


def test_unknown_models_are_unknown_here_too():
    for call in (weights.find, weights.fetch, weights.verify):
        with pytest.raises(KeyError, match="did you mean voco"):
            call("vocco")


def test_the_overview_has_all_models():
    frame = weights.overview()
    assert list(frame.index) == list(models.MODELS)
    assert not frame["here"].any()
    assert frame[["file", "source", "licence", "allows"]].map(bool).all(axis=None)
    assert frame.loc["ct_clip_vit", "access"] == "gated"


def test_the_commands(fmcib, server):
    run = CliRunner().invoke
    listed = run(command, ["list"]).output
    for model in models.MODELS.values():
        for fact in (model.key, model.card.file, model.card.source, model.card.licence):
            assert fact in listed
    result = run(command, ["fetch", "fmcib"])
    assert result.exit_code == 0 and str(weights.find("fmcib")) in result.output
    assert "MIT" in result.output, "the licence is shown when a file is fetched"
    assert "fmcib: unchanged" in run(command, ["verify"]).output
    assert isinstance(run(command, ["verify", "suprem"]).exception, weights.WeightsError)
    assert isinstance(run(command, ["fetch"]).exception, ValueError)
    server.status = 404
    weights.find("fmcib").unlink()
    result = run(command, ["fetch", "fmcib"])
    assert isinstance(result.exception, weights.WeightsError)
