"""Edition, folders, atomic files and paths that stay where they belong."""

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


def test_atomic_path_replaces_folders(tmp_path):
    target = tmp_path / "scans"
    for content in ("first", "second"):
        with files.atomic_path(target) as part:
            part.mkdir()
            (part / content).write_text(content)
    assert [p.name for p in target.iterdir()] == ["second"]


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
