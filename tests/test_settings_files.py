"""Edition, folders, atomic files and paths that stay where they belong."""

import errno
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from tumorbench_utils import files, settings


def test_edition_defaults_to_phantom_and_follows_the_variable(monkeypatch):
    assert settings.edition() == "phantom"
    monkeypatch.setenv("TUMORBENCH_EDITION", "released")
    assert settings.edition() == "released"
    assert settings.edition("full") == "full"


def test_unknown_edition_names_the_near_and_the_known(monkeypatch):
    monkeypatch.setenv("TUMORBENCH_EDITION", "phantoms")
    with pytest.raises(
        ValueError, match=r"did you mean phantom.*known are phantom, released, full"
    ):
        settings.edition()


def test_data_dir_refuses_a_folder_that_is_not_there(monkeypatch, tmp_path):
    monkeypatch.setenv("TUMORBENCH_DATA", str(tmp_path / "missing"))
    with pytest.raises(FileNotFoundError, match="TUMORBENCH_DATA"):
        settings.data_dir()
    monkeypatch.setenv("TUMORBENCH_DATA", str(tmp_path))
    assert settings.data_dir() == tmp_path.resolve()


def test_atomic_path_leaves_the_old_file_when_the_block_fails(tmp_path):
    target = tmp_path / "folder" / "table.csv"
    with files.atomic_path(target) as part:
        part.write_text("old")
    with pytest.raises(OSError, match="full"), files.atomic_path(target) as part:
        part.write_text("half")
        raise OSError("disk full")
    assert target.read_text() == "old"
    assert [p.name for p in target.parent.iterdir()] == ["table.csv"]


def test_atomic_path_makes_folders_and_replaces_none(tmp_path):
    target = tmp_path / "scans"
    with files.atomic_path(target) as part:
        part.mkdir()
        (part / "first").write_text("first")
    with pytest.raises(FileExistsError, match="is a folder and is left as it is"):
        with files.atomic_path(target):
            pass
    assert [p.name for p in target.iterdir()] == ["first"]


def test_things_are_made_once_whoever_asks(tmp_path):
    calls = []

    def make(part):
        calls.append(part)
        time.sleep(0.05)
        part.write_text("whole")

    (tmp_path / ".part-0123456789ab-x.txt").write_text("left by a process that was killed")
    (tmp_path / ".part-0123456789ab-y.txt").write_text("of another file")
    with ThreadPoolExecutor(4) as pool:
        made = list(pool.map(lambda _: files.made(tmp_path / "x.txt", make), range(4)))
    assert len(calls) == 1 and {p.read_text() for p in made} == {"whole"}
    left = sorted(p.name for p in tmp_path.iterdir() if not p.name.endswith(".lock"))
    assert left == [".part-0123456789ab-y.txt", "x.txt"]


def test_what_cannot_be_made_leaves_nothing_and_names_the_folder(tmp_path):
    def full(part):
        part.write_text("half")
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(OSError, match="No space left on device; TUMORBENCH_CACHE"):
        files.made(tmp_path / "x.txt", full)
    assert [p.name for p in tmp_path.iterdir() if not p.name.endswith(".lock")] == []


@pytest.mark.parametrize("bad", ["../secret", "a/../../secret", "/etc/passwd"])
def test_inside_refuses_paths_that_leave(tmp_path, bad):
    with pytest.raises(ValueError, match="leaves its folder"):
        files.inside(tmp_path, bad)


def test_inside_refuses_a_link_that_leaves(tmp_path):
    (tmp_path / "root").mkdir()
    (tmp_path / "root" / "link").symlink_to(tmp_path)
    with pytest.raises(ValueError, match="leaves its folder"):
        files.inside(tmp_path / "root", "link/other")
    assert files.inside(tmp_path / "root", "a/b.nii") == (tmp_path / "root/a/b.nii").resolve()
