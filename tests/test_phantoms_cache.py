"""Phantom cohorts on disk: formats, determinism, damage, other parameters, full disks."""

import errno
import json
import logging
import os
import threading

import numpy as np
import pandas as pd
import pytest
import SimpleITK as sitk
import yaml

import tumorbench_phantoms as phantoms
from tumorbench_phantoms import cache, cohort, parameters
from tumorbench_utils import cohorts, digests, files

SMALL = ("luna16", "dlcs", "nsclc_radiogenomics", "rider_lung_ct")


@pytest.fixture(scope="module")
def small_yml(tmp_path_factory):
    """Parameters with two small patients per cohort."""
    content = yaml.safe_load(parameters.PARAMETERS.read_text(encoding="utf-8"))
    for section in content["cohorts"].values():
        section |= {"patients": 2, "field_mm": 60}
        if "dicom_scans" in section:
            section["dicom_scans"] = 1
        for scanner in section["acquisition"].values():
            scanner |= {"spacing_mm": 1.5, "slice_mm": 2.5}
    path = tmp_path_factory.mktemp("yml") / "phantoms.yml"
    path.write_text(yaml.safe_dump(content), encoding="utf-8")
    return path


@pytest.fixture(autouse=True)
def _small(small_yml, tmp_path, monkeypatch):
    own = tmp_path / "phantoms.yml"
    own.write_bytes(small_yml.read_bytes())
    monkeypatch.setattr(parameters, "PARAMETERS", own)


@pytest.fixture(scope="module")
def made(small_yml, tmp_path_factory):
    """Small cohorts, made once for the tests that only read."""
    folder = tmp_path_factory.mktemp("made")
    before, parameters.PARAMETERS = parameters.PARAMETERS, small_yml
    tables = {n: phantoms.generate(n, folder / n, progress=False) for n in SMALL}
    parameters.PARAMETERS = before
    return tables


def generate(tmp_path, name="dlcs", **options):
    return phantoms.generate(name, tmp_path / "out" / name, progress=False, **options)


def change(**section):
    """Alter the section of dlcs."""
    content = yaml.safe_load(parameters.PARAMETERS.read_text(encoding="utf-8"))
    content["cohorts"]["dlcs"] |= section
    parameters.PARAMETERS.write_text(yaml.safe_dump(content), encoding="utf-8")


def contents(folder):
    return {
        p.relative_to(folder).as_posix(): digests.of_file(p)
        for p in sorted(folder.rglob("*"))
        if p.is_file() and p.name != "stamps.json"
    }


def leftovers(folder):
    """What lies in a folder, locks aside."""
    return sorted(p.name for p in folder.iterdir() if not p.name.endswith(".lock"))


# What is written


@pytest.mark.parametrize(
    ("name", "suffix", "direction"),
    [
        ("luna16", ".mhd", (1, 0, 0, 0, 1, 0, 0, 0, 1)),
        ("dlcs", ".nii.gz", (-1, 0, 0, 0, -1, 0, 0, 0, 1)),
        ("nsclc_radiogenomics", ".nrrd", (0, 1, 0, 0, 0, 1, 1, 0, 0)),
        ("rider_lung_ct", ".nrrd", (1, 0, 0, 0, 1, 0, 0, 0, 1)),
    ],
)
def test_images_are_written_in_the_format_of_their_cohort(
    made, small_yml, monkeypatch, name, suffix, direction
):
    monkeypatch.setattr(parameters, "PARAMETERS", small_yml)
    table = made[name]
    assert table["image_path"].str.endswith(suffix).all()
    for item in phantoms.plan(name):
        rows = table[table["scan_id"] == item.scan_id]
        image = sitk.ReadImage(rows["image_path"].iloc[0])
        assert image.GetPixelID() == sitk.sitkInt16
        assert image.GetDirection() == pytest.approx(direction)
        scan = phantoms.scan(item.case, item.acquisition, item.noise)
        upright = sitk.DICOMOrient(image, "LPS")
        assert (sitk.GetArrayFromImage(upright) == sitk.GetArrayFromImage(scan.image)).all()
        assert upright.GetOrigin() == pytest.approx(scan.image.GetOrigin(), abs=1e-3)
        assert upright.GetSpacing() == pytest.approx(scan.image.GetSpacing(), abs=1e-6)
        for path, expected in zip(rows["mask_path"], scan.masks, strict=True):
            mask = sitk.ReadImage(path)
            assert mask.GetSize() == image.GetSize() and mask.GetPixelID() == sitk.sitkUInt8
            upright = sitk.GetArrayFromImage(sitk.DICOMOrient(mask, "LPS"))
            assert (upright == sitk.GetArrayFromImage(expected)).all()


def test_masks_are_where_the_seeds_point(made):
    for name, table in made.items():
        for _, row in table.iterrows():
            x, y, z = cohorts.seeds_from_mask(row["mask_path"])[1]
            away = np.array([x, y, z]) - row[["coord_x", "coord_y", "coord_z"]].to_numpy(float)
            assert 0 < np.linalg.norm(away) < 4, name


def test_nothing_uncompressed_lies_beside_the_images(made):
    folder = os.path.dirname(made["dlcs"]["image_path"].iloc[0])
    assert not [n for n in os.listdir(folder) if n.endswith(".nii")]


def test_the_dicom_series_holds_the_same_scan(made):
    table = made["nsclc_radiogenomics"]
    assert table["dicom_path"].notna().tolist() == [True, False]
    folder = table["dicom_path"].iloc[0]
    (series,) = sitk.ImageSeriesReader.GetGDCMSeriesIDs(folder)
    names = sitk.ImageSeriesReader.GetGDCMSeriesFileNames(folder, series)
    image = sitk.ReadImage(names)
    other = sitk.DICOMOrient(sitk.ReadImage(table["image_path"].iloc[0]), "LPS")
    assert (sitk.GetArrayFromImage(image) == sitk.GetArrayFromImage(other)).all()
    assert image.GetOrigin() == pytest.approx(other.GetOrigin(), abs=1e-4)
    assert image.GetSpacing() == pytest.approx(other.GetSpacing(), abs=1e-4)


def test_tables_have_the_columns_of_the_contract_and_the_truth(made):
    first = ["lesion_id", "patient_id", "scan_id", "image_path", "coord_x", "coord_y", "coord_z"]
    truth = ["true_logit", "true_log_hazard", "true_diameter_mm", "true_lobulation"]
    truth += ["true_spiculation", "true_attenuation_hu", "true_texture_hu", "true_necrosis"]
    truth += ["true_texture_length_mm", "true_calcification", "true_rim", "patient_factor"]
    for name, table in made.items():
        assert list(table.columns[:10]) == [*first, "label", "time_days", "event"], name
        assert {*truth, "scanner", "mask_path", "size_mm"} <= set(table.columns)
        assert table["lesion_id"].is_unique
        types = table.dtypes.astype(str)
        assert types[["label", "event", "time_days"]].tolist() == ["Int64", "Int64", "Float64"]
        assert all(os.path.isabs(p) and os.path.isfile(p) for p in table["image_path"])
        assert table[truth[2:]].notna().all(None)
    rider = made["rider_lung_ct"]
    assert rider["session"].tolist() == ["test", "retest"] * 2
    assert len(rider.drop_duplicates(["patient_id", "true_diameter_mm"])) == 2
    assert {"age", "sex", "stage", "histology"} <= set(made["nsclc_radiogenomics"].columns)


def test_a_cohort_can_be_scanned_again_in_memory(made, small_yml, monkeypatch):
    monkeypatch.setattr(parameters, "PARAMETERS", small_yml)
    row = made["dlcs"].iloc[0]
    stored = sitk.DICOMOrient(sitk.ReadImage(row["image_path"]), "LPS")
    again = phantoms.render("dlcs", row["scan_id"])
    assert (sitk.GetArrayFromImage(again.image) == sitk.GetArrayFromImage(stored)).all()
    other = phantoms.render("dlcs", row["scan_id"], seed=1, slice_mm=5.0, noise_hu=50)
    assert other.image.GetSpacing()[2] == 5
    assert other.centroids_lps == pytest.approx(again.centroids_lps, abs=3)
    with pytest.raises(KeyError, match="unknown scan of dlcs"):
        phantoms.render("dlcs", "nobody")
    with pytest.raises(TypeError, match="slice_m"):
        phantoms.render("dlcs", row["scan_id"], slice_m=5.0)


# The same bytes, and only when needed


def test_the_same_parameters_give_the_same_bytes(tmp_path):
    generate(tmp_path / "a", workers=1)
    generate(tmp_path / "b", workers=3)
    first, second = (contents(tmp_path / k / "out" / "dlcs") for k in "ab")
    assert first == second and len(first) > 6


def test_a_whole_cohort_is_not_made_again(tmp_path, monkeypatch):
    first = generate(tmp_path)
    monkeypatch.setattr(cohort, "make", None)
    pd.testing.assert_frame_equal(first, generate(tmp_path))
    assert phantoms.verify("dlcs", tmp_path / "out" / "dlcs") == []


def test_a_copied_cohort_is_read_not_made(tmp_path, monkeypatch):
    generate(tmp_path)
    (tmp_path / "out" / "dlcs").rename(tmp_path / "moved")
    for path in (tmp_path / "moved").iterdir():
        os.utime(path, (1, 1))
    monkeypatch.setattr(cohort, "make", None)
    table = phantoms.generate("dlcs", tmp_path / "moved", progress=False)
    assert all(p.startswith(str(tmp_path / "moved")) for p in table["image_path"])


def test_changed_parameters_make_the_cohort_again(tmp_path, caplog):
    first = generate(tmp_path)
    change(patients=3)
    with caplog.at_level(logging.WARNING):
        second = generate(tmp_path)
    assert second["patient_id"].nunique() == 3 != first["patient_id"].nunique()
    assert "other parameters or by another version" in caplog.text
    assert leftovers(tmp_path / "out") == ["dlcs"]


def test_another_version_of_the_generator_makes_the_cohort_again(tmp_path, monkeypatch):
    generate(tmp_path)
    before = json.loads((tmp_path / "out/dlcs/manifest.json").read_text())["key"]
    monkeypatch.setattr(cache, "_generator", lambda: "another")
    generate(tmp_path)
    assert json.loads((tmp_path / "out/dlcs/manifest.json").read_text())["key"] != before


def truncate(path):
    path.write_bytes(path.read_bytes()[:-100])


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 255
    path.write_bytes(content)


@pytest.mark.parametrize("pattern", ["*[0-9].nii.gz", "*_mask.nrrd", "table.parquet"])
@pytest.mark.parametrize("damage", [truncate, flip, os.unlink])
def test_damaged_files_are_found_and_made_again(tmp_path, caplog, pattern, damage):
    generate(tmp_path)
    folder = tmp_path / "out" / "dlcs"
    whole = contents(folder)
    victim = sorted(folder.glob(pattern))[0]
    damage(victim)
    assert phantoms.verify("dlcs", folder) == [victim.name]
    with caplog.at_level(logging.WARNING):
        generate(tmp_path)
    assert f"made again: {'the content of ' if damage is flip else ''}{victim.name}" in caplog.text
    assert contents(folder) == whole


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '{"cohort": "dlcs"}', '{"cohort": "dlcs", "key": 1, "files": 3}']
)
def test_a_broken_manifest_is_no_manifest(monkeypatch, tmp_path, text):
    monkeypatch.setenv("TUMORBENCH_CACHE", str(tmp_path))
    first = phantoms.generate("dlcs", progress=False)
    (tmp_path / "phantoms" / "dlcs" / "manifest.json").write_text(text)
    pd.testing.assert_frame_equal(first, phantoms.generate("dlcs", progress=False))
    assert json.loads((tmp_path / "phantoms" / "dlcs" / "manifest.json").read_text())["files"]


def test_missing_stamps_only_cost_a_reading(tmp_path, monkeypatch):
    generate(tmp_path)
    stamps = tmp_path / "out" / "dlcs" / "stamps.json"
    known = stamps.read_text()
    stamps.unlink()
    monkeypatch.setattr(cohort, "make", None)
    generate(tmp_path)
    assert json.loads(stamps.read_text()) == json.loads(known)


def test_two_that_ask_at_once_make_it_once(tmp_path, monkeypatch):
    made, make = [], cache._make
    monkeypatch.setattr(cache, "_make", lambda *a: (made.append(a[0]), make(*a)))
    tables = [None, None]

    def ask(k):
        tables[k] = generate(tmp_path)

    threads = [threading.Thread(target=ask, args=(k,)) for k in range(2)]
    [t.start() for t in threads]
    [t.join() for t in threads]
    assert made == ["dlcs"]
    pd.testing.assert_frame_equal(*tables)


# What goes wrong


def test_unknown_cohorts_name_the_known_ones(tmp_path):
    with pytest.raises(KeyError, match="unknown phantom cohort 'dlsc': did you mean dlcs"):
        phantoms.generate("dlsc", tmp_path / "x")
    with pytest.raises(KeyError, match="unknown phantom cohort"):
        phantoms.verify("dlsc")
    assert not (tmp_path / "x").exists()
    with pytest.raises(FileNotFoundError, match="holds no phantom cohort"):
        phantoms.verify("dlcs", tmp_path / "x")


@pytest.mark.parametrize("workers", [0, -2])
def test_workers_are_counted_from_one(tmp_path, workers):
    with pytest.raises(ValueError, match="workers"):
        generate(tmp_path, workers=workers)


def test_folders_with_other_things_are_left_alone(tmp_path):
    thesis = tmp_path / "out" / "dlcs" / "thesis.txt"
    thesis.parent.mkdir(parents=True)
    thesis.write_text("years of work")
    with pytest.raises(FileExistsError, match="does not hold the phantom cohort dlcs"):
        generate(tmp_path)
    assert thesis.read_text() == "years of work"
    generate(tmp_path, "luna16")
    with pytest.raises(FileExistsError, match="does not hold the phantom cohort dlcs"):
        phantoms.generate("dlcs", tmp_path / "out" / "luna16")


def test_an_empty_folder_and_odd_names_are_fine(tmp_path):
    folder = tmp_path / "Übung [1] für später"
    folder.mkdir()
    table = phantoms.generate("dlcs", folder, progress=False)
    assert sitk.ReadImage(table["image_path"].iloc[0]).GetDimension() == 3


def test_a_folder_that_cannot_be_made_is_said_plainly(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OSError, match=r"cannot make the phantom cohort dlcs in .*TUMORBENCH_CACHE"):
        phantoms.generate("dlcs", tmp_path / "file" / "dlcs", progress=False)


@pytest.mark.skipif(
    not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write everywhere"
)
def test_a_read_only_folder_is_said_plainly(tmp_path):
    (tmp_path / "closed").mkdir(mode=0o500)
    with pytest.raises(PermissionError, match=r"Permission denied; set TUMORBENCH_CACHE"):
        phantoms.generate("dlcs", tmp_path / "closed" / "dlcs", progress=False)


def test_a_warm_cohort_can_be_read_where_nothing_can_be_written(tmp_path, monkeypatch):
    first = generate(tmp_path)

    def refuse(*args, **kwargs):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(files, "atomic_path", refuse)
    (tmp_path / "out" / "dlcs" / "stamps.json").unlink()
    pd.testing.assert_frame_equal(first, generate(tmp_path))


def test_a_full_disk_is_said_before_anything_is_written(tmp_path, monkeypatch):
    usage = lambda path: type("usage", (), {"free": 1000})  # noqa: E731
    monkeypatch.setattr(cache.shutil, "disk_usage", usage)
    with pytest.raises(OSError, match=r"needs 0\.0 GB, 0\.0 GB are free; set TUMORBENCH_CACHE"):
        generate(tmp_path)
    assert leftovers(tmp_path / "out") == []


@pytest.mark.parametrize(
    "fault",
    [OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt(), RuntimeError("x")],
)
def test_what_stops_half_way_leaves_nothing(tmp_path, monkeypatch, fault):
    calls, make = [], cohort.make

    def stop(*args):
        calls.append(args)
        if len(calls) == 2:
            raise fault
        return make(*args)

    monkeypatch.setattr(cohort, "make", stop)
    with pytest.raises(type(fault)) as caught:
        generate(tmp_path, workers=1)
    assert leftovers(tmp_path / "out") == []
    if isinstance(fault, OSError):
        assert "No space left on device; set TUMORBENCH_CACHE" in str(caught.value)


def test_a_failed_remake_keeps_the_lock_free(tmp_path, monkeypatch):
    generate(tmp_path)
    change(patients=1)
    with monkeypatch.context() as patch:
        patch.setattr(cohort, "make", lambda *a: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            generate(tmp_path)
    assert set(generate(tmp_path)["patient_id"]) == {"DLCS-P0001"}


def test_remains_of_a_killed_process_are_cleared(tmp_path):
    (tmp_path / "out" / ".part-0123456789ab-dlcs").mkdir(parents=True)
    (tmp_path / "out" / ".part-0123456789ab-luna16").mkdir()
    generate(tmp_path)
    assert leftovers(tmp_path / "out") == [".part-0123456789ab-luna16", "dlcs"]
