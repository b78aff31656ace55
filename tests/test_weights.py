"""Listing, fetching and checking of released checkpoints; the network is a local server."""

import http.server
import io
import json
import threading

import huggingface_hub
import pytest
import torch
from typer.testing import CliRunner

from tumorbench_book.cli.weights import weights as command
from tumorbench_utils import digests, models
from tumorbench_utils.models import weights


def checkpoint(seed=0):
    """The bytes of a small checkpoint."""
    stream = io.BytesIO()
    generator = torch.Generator().manual_seed(seed)
    torch.save({"weight": torch.rand(200_000, generator=generator)}, stream)
    return stream.getvalue()


CONTENT = checkpoint()


@pytest.fixture(autouse=True)
def own_folders(tmp_path, monkeypatch):
    monkeypatch.setenv("TUMORBENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("TUMORBENCH_WEIGHTS", raising=False)
    return tmp_path / "cache"


@pytest.fixture
def server():
    """A server of CONTENT; ``body`` is what it sends of it, ``length`` what it announces."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.server.asked.append(self.headers.get("Range"))
            if self.server.status >= 400:
                self.send_error(self.server.status)
                return
            self.send_response(self.server.status)
            if self.server.length is not None:
                self.send_header("Content-Length", str(self.server.length))
            self.end_headers()
            self.wfile.write(self.server.content)

        def log_message(self, *args):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as httpd:
        httpd.asked, httpd.length, httpd.status, httpd.content = [], None, 200, CONTENT
        httpd.url = f"http://127.0.0.1:{httpd.server_port}/model_weights.torch"
        threading.Thread(target=httpd.serve_forever, daemon=True).start()
        yield httpd
        httpd.shutdown()


@pytest.fixture
def fmcib(server, monkeypatch):
    """FMCIB, to be fetched from the local server."""
    monkeypatch.setitem(weights.addresses(), "fmcib", {"url": server.url})
    return models.get_model("fmcib")


def test_a_file_is_fetched_once_and_recorded(fmcib, server, own_folders):
    path = weights.fetch("fmcib", progress=False)
    assert path == own_folders / "weights" / "fmcib" / "model_weights.torch"
    assert path.read_bytes() == CONTENT
    record = json.loads(weights.lock_file().read_text())["fmcib"]
    assert record["sha256"] == digests.of_file(path) and record["bytes"] == len(CONTENT)
    assert weights.fetch("fmcib", progress=False) == path == weights.find("fmcib")
    assert len(server.asked) == 1
    assert weights.verify("fmcib") == "unchanged" and weights.verify("suprem") == "absent"


def damaged(content):
    """The file with a block of zeros in the middle, as when parts of a download are mixed."""
    middle = len(content) // 2
    return content[:middle] + bytes(4096) + content[middle + 4096 :]


@pytest.mark.parametrize(
    ("status", "content", "length"),
    [
        (200, CONTENT[:300_000], len(CONTENT)),  # the connection breaks
        (200, CONTENT[:300_000], None),  # it breaks, and no length was announced
        (200, CONTENT[:300_000], 300_000),  # a length that is too small
        (206, CONTENT[300_000:], len(CONTENT) - 300_000),  # a part that nobody asked for
        (206, b"<html>Please try again later</html>", None),
        (200, b"<!DOCTYPE html><html>Please accept the licence</html>", None),
        (200, damaged(CONTENT), len(CONTENT)),
    ],
)
def test_a_damaged_download_never_becomes_the_record(fmcib, server, status, content, length):
    server.status, server.content, server.length = status, content, length
    with pytest.raises(weights.WeightsError, match="no weights for fmcib"):
        weights.fetch("fmcib", progress=False)
    assert weights.find("fmcib") is None and weights._records() == {}
    server.status, server.content, server.length = 200, CONTENT, None
    assert weights.fetch("fmcib", progress=False).read_bytes() == CONTENT
    assert server.asked == [None, None], "no part is continued"


def test_a_damaged_file_of_your_own_is_not_recorded(tmp_path, monkeypatch):
    monkeypatch.setenv("TUMORBENCH_WEIGHTS", str(tmp_path))
    path = tmp_path / models.get_model("voco").card.file
    path.write_bytes(damaged(CONTENT))
    with pytest.raises(weights.WeightsError, match=r"checksum of .* is wrong"):
        weights.verify("voco")
    assert path.exists() and weights._records() == {}


def test_another_file_is_refused(fmcib, server):
    path = weights.fetch("fmcib", progress=False)
    path.write_bytes(checkpoint(1))
    assert weights.verify("fmcib") == "changed"
    for _ in range(2):
        with pytest.raises(weights.WeightsError, match="not the file recorded") as error:
            weights.fetch("fmcib", progress=False)
    assert "tumorbench weights fetch fmcib" in str(error.value)
    path.unlink()
    server.content = checkpoint(2)
    with pytest.raises(weights.WeightsError, match="not the file recorded"):
        weights.fetch("fmcib", progress=False)


@pytest.mark.parametrize("status", [403, 404, 500])
def test_a_refusal_names_the_page_and_the_command(fmcib, server, status):
    server.status = status
    with pytest.raises(weights.WeightsError) as error:
        weights.fetch("fmcib", progress=False)
    for part in (fmcib.card.source, "tumorbench weights fetch fmcib", "TUMORBENCH_WEIGHTS"):
        assert part in str(error.value)


def test_the_hub_is_asked_for_repository_and_file(monkeypatch, own_folders):
    asked = []

    def download(repo, file, *, repo_type, local_dir):
        asked.append((repo, file, repo_type))
        target = local_dir / file
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(CONTENT)
        return str(target)

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    for key, kind in (("suprem", "model"), ("ct_clip_vit", "dataset")):
        card = models.get_model(key).card
        assert weights.fetch(key, progress=False) == own_folders / "weights" / key / card.file
        assert asked[-1] == (card.source.split("co/")[1].removeprefix("datasets/"), card.file, kind)


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
    monkeypatch.setattr(weights, "_from_hub", None)  # any download would fail
    with pytest.raises(weights.WeightsError, match="Gewichte does not hold them"):
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
    assert run(command, ["fetch"]).exit_code == 2
    server.status = 404
    weights.find("fmcib").unlink()
    result = run(command, ["fetch", "fmcib"])
    assert isinstance(result.exception, weights.WeightsError)
