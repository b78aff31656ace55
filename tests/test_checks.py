"""The ground floor: checks at the boundary, digests, downloads."""

import hashlib
import http.server
import threading

import numpy as np
import pandas as pd
import pytest

from tumorbench_utils import checks, digests, downloads
from tumorbench_utils.checks import InputError

S = pd.Series


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: checks.one_of("knm", "probe", ["knn", "linear"]), "unknown probe 'knm'.*knn"),
        (lambda: checks.numbers(["1", "2"], "x"), "x must hold numbers, but it holds text"),
        (lambda: checks.numbers(np.array(["2020"], "M8[Y]"), "x"), "it holds dates"),
        (lambda: checks.numbers([1 + 2j], "x"), "it holds complex values"),
        (lambda: checks.numbers([1, None], "x"), "1 values are missing or infinite.*row 1"),
        (lambda: checks.numbers([[1, 2], [3]], "x", ndim=2), "rows of one length"),
        (lambda: checks.numbers([1, 2], "x", n=3), "x has 2 values where 3 are needed"),
        (lambda: checks.numbers([[1]], "x"), r"x must have 1 dimension\(s\), not 2"),
        (lambda: checks.labels([0, 1, 2]), "y must hold 0 and 1 only; it holds 2"),
        (lambda: checks.labels([]), "it is empty"),
        (lambda: checks.labels(S([0, 1, pd.NA], dtype="Int64")), "missing or infinite.*row 2"),
        (lambda: checks.labels([1, 1]), "one class only \\(2 times 1\\)"),
        (lambda: checks.aligned([1, 2], [1], "x"), "x has 1 rows where 2 are needed"),
        (lambda: checks.aligned(S([1], ["a"]), S([1], ["b"]), "x"), "look at 'a'"),
        (lambda: checks.aligned(S([1, 2], ["a", "b"]), S([1, 2], ["a", "a"]), "x"), "look at"),
        (lambda: checks.aligned(S([1, 2], [1, 0]), [1, 2], "x", strict=True), "names its rows"),
        (lambda: checks.groups([1, None], [0, 1]), "groups is missing in row 1"),
        (lambda: checks.share(1.0), "level must lie between 0 and 1, not 1.0"),
    ],
)
def test_refusals(call, message):
    with pytest.raises(InputError, match=message):
        call()


def test_what_is_accepted_comes_back_as_numbers():
    assert checks.labels(S([True, False], dtype="boolean")).tolist() == [1, 0]
    assert checks.labels(np.array([0, 1.0, None], object)[:2]).dtype == np.int64
    assert checks.numbers(S([1, 2], dtype="Int64"), "x").dtype == np.float64
    assert checks.labels([0, 0], both=False).tolist() == [0, 0]


def test_rows_are_joined_by_name_and_never_by_position():
    y, x = S([0, 1, 1], list("abc")), S([3.0, 1.0, 2.0], list("cab"))
    assert checks.aligned(y, x, "x").tolist() == [1, 2, 3]
    frame = pd.DataFrame({"f0": [3, 1, 2]}, list("cab"))
    assert checks.aligned(y, frame, "x")["f0"].tolist() == [1, 2, 3]
    assert checks.aligned(y, [5, 6, 7], "x") == [5, 6, 7]
    assert checks.groups(S(["p", "q", "p"], list("bac")), y).tolist() == [0, 1, 1]
    assert checks.groups(None, y).tolist() == [0, 1, 2]


def test_digests_tell_values_types_and_order_apart():
    frame = pd.DataFrame({"a": [1.0, 2.0]}, ["x", "y"])
    different = [
        digests.of(frame),
        digests.of(frame.iloc[::-1]),
        digests.of(frame.rename(columns={"a": "b"})),
        digests.of(frame.astype("float32")),
        digests.of([1, "1"]),
        digests.of(["1", 1]),
        digests.of([[1], "1"]),
        digests.of({"a": 1, "b": None}),
        digests.of(np.array([1, 2])),
        digests.of(np.array([[1, 2]])),
    ]
    assert len(set(different)) == len(different)
    assert digests.of({"b": None, "a": 1}) == digests.of({"a": 1, "b": None})
    assert digests.of(frame.copy()) == different[0]


def test_code_counts_with_what_it_imports_but_not_its_comments(tmp_path, monkeypatch):
    package = tmp_path / "tumorbench_training"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "a.py").write_text("from tumorbench_training import b\n")
    monkeypatch.setattr(digests, "_root", lambda name: tmp_path / name)

    def digest(text):
        (package / "b.py").write_text(text)
        return digests.of_code("tumorbench_training.a")

    first = digest('"""Words."""\nX = 1\n')
    assert digest('"""New words."""\n# and a comment\nX = 1\n') == first
    assert digest('"""Words."""\nX = 2\n') != first


@pytest.fixture
def server():
    """A local server of three files; ``/endless`` never ends."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            if self.path == "/missing":
                self.send_error(404)
                return
            self.send_response(200)
            self.end_headers()
            try:
                while self.path == "/endless":
                    self.wfile.write(b"x" * 1024)
                self.wfile.write(b"content")
            except OSError:
                pass  # the client had enough

        def log_message(self, *args):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{running.server_port}"
        running.shutdown()


def test_downloads_are_whole_and_right_or_absent(server, tmp_path):
    sha256 = hashlib.sha256(b"content").hexdigest()
    path = downloads.fetch(f"{server}/a", tmp_path / "a", sha256=sha256, size=7, progress=False)
    assert path.read_bytes() == b"content"
    before = path.stat().st_mtime_ns
    downloads.fetch(f"{server}/a", path, sha256=sha256, progress=False)
    assert path.stat().st_mtime_ns == before


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("missing", {}, "could not be fetched: 404"),
        ("a", {"sha256": "0" * 64}, "sent another file: its SHA-256 is another one"),
        ("a", {"size": 9}, "sent another file: 7 bytes instead of 9"),
        ("endless", {"size": 5000}, "could not be fetched: it is longer than announced"),
    ],
)
def test_downloads_that_go_wrong_leave_nothing(server, tmp_path, name, options, message):
    with pytest.raises(downloads.DownloadError, match=message):
        downloads.fetch(f"{server}/{name}", tmp_path / "x", progress=False, **options)
    assert list(tmp_path.iterdir()) == []
