"""Phantom cohorts on disk: formats, determinism, damage, other parameters, full disks."""

import errno
import json
import logging
import os

import numpy as np
import pandas as pd
import pytest
import SimpleITK as sitk
import yaml

import tumorbench_phantoms as phantoms
from tumorbench_phantoms import cohort, parameters
from tumorbench_utils import cohorts, digests
from tumorbench_utils.cohorts import phantom

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
    tables = {}
    for name in SMALL:
        table = phantoms.generate(name, folder / name, progress=False)
        for column in ("image_path", "mask_path", "dicom_path"):
            if column in table:
                there = table[column].notna()
                table.loc[there, column] = str(folder / name) + os.sep + table.loc[there, column]
        tables[name] = table
    parameters.PARAMETERS = before
    return tables


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


@pytest.fixture
def store(tmp_path, monkeypatch):
    """The folder of the phantoms in a cache of the test's own."""
    monkeypatch.setenv("TUMORBENCH_CACHE", str(tmp_path / "Übung [1] für später"))
    return tmp_path / "Übung [1] für später" / "phantoms"


def folders(store):
    return sorted(p.name for p in store.iterdir() if not p.name.endswith(".lock"))


def test_the_same_parameters_give_the_same_bytes(tmp_path):
    for name, workers in (("a", 1), ("b", 3)):
        phantoms.generate("dlcs", tmp_path / name, workers=workers, progress=False)
    first, second = contents(tmp_path / "a"), contents(tmp_path / "b")
    assert first == second and len(first) > 4


def test_a_whole_cohort_is_not_made_again(store, monkeypatch):
    first = phantom.phantom_table("dlcs")
    monkeypatch.setattr(phantoms, "generate", None)
    pd.testing.assert_frame_equal(first, phantom.phantom_table("dlcs"))
    (folder,) = store.glob("dlcs-*/")
    for path in folder.iterdir():  # copied from elsewhere: other times, the same content
        os.utime(path, (1, 1))
    pd.testing.assert_frame_equal(first, phantom.phantom_table("dlcs"))


def test_changed_parameters_and_another_generator_make_another_folder(store, monkeypatch):
    first = phantom.phantom_table("dlcs")
    change(patients=3)
    second = phantom.phantom_table("dlcs")
    assert second["patient_id"].nunique() == 3 != first["patient_id"].nunique()
    monkeypatch.setattr(digests, "of_code", lambda *modules: "another")
    phantom.phantom_table("dlcs")
    assert len(folders(store)) == 3


def truncate(path):
    path.write_bytes(path.read_bytes()[:-100])


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 255
    path.write_bytes(content)


@pytest.mark.parametrize("pattern", ["*[0-9].nii.gz", "*_mask.nrrd", "table.parquet"])
@pytest.mark.parametrize("damage", [truncate, flip, os.unlink])
def test_damaged_files_are_found_and_made_again(store, caplog, pattern, damage):
    phantom.phantom_table("dlcs")
    (folder,) = store.glob("dlcs-*/")
    whole = contents(folder)
    victim = sorted(folder.glob(pattern))[0]
    damage(victim)
    with caplog.at_level(logging.WARNING):
        phantom.phantom_table("dlcs")
    assert (
        f"made again: {'' if damage is os.unlink else 'the content of '}{victim.name}"
        in caplog.text
    )
    after = contents(folder)
    assert {k: v for k, v in after.items() if k != "manifest.json"} == {
        k: v for k, v in whole.items() if k != "manifest.json"
    }


@pytest.mark.parametrize("text", ["", "{", "[]", '{"table.parquet": 3}'])
def test_a_broken_manifest_is_no_manifest(store, text):
    first = phantom.phantom_table("dlcs")
    (manifest,) = store.glob("dlcs-*/manifest.json")
    manifest.write_text(text)
    pd.testing.assert_frame_equal(first, phantom.phantom_table("dlcs"))
    assert json.loads(manifest.read_text())["table.parquet"]


def test_folders_with_other_things_are_left_alone(store):
    phantom.phantom_table("dlcs")
    (folder,) = store.glob("dlcs-*/")
    (folder / "manifest.json").unlink()
    (folder / "thesis.txt").write_text("years of work")
    with pytest.raises(FileExistsError, match="holds no phantom cohort"):
        phantom.phantom_table("dlcs")
    assert (folder / "thesis.txt").read_text() == "years of work"


@pytest.mark.parametrize(
    "fault",
    [OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt(), RuntimeError("x")],
)
def test_what_stops_half_way_leaves_nothing(store, monkeypatch, fault):
    calls, make = [], cohort._make

    def stop(*args):
        calls.append(args)
        if len(calls) == 2:
            raise fault
        return make(*args)

    monkeypatch.setattr(cohort, "_make", stop)
    with pytest.raises(type(fault)) as caught:
        phantom.phantom_table("dlcs")
    assert folders(store) == []
    if isinstance(fault, OSError):
        assert "No space left on device; TUMORBENCH_CACHE" in str(caught.value)


def test_unknown_cohorts_name_the_known_ones(tmp_path):
    with pytest.raises(KeyError, match="unknown phantom cohort 'dlsc': known are "):
        phantoms.generate("dlsc", tmp_path / "x")
    assert not (tmp_path / "x").exists()


def test_a_fault_in_the_parameters_is_said_before_anything_is_made(store):
    change(field_mm=400)
    with pytest.raises(ValueError, match="dlcs, field_mm: 400"):
        phantom.phantom_table("dlcs")
    assert folders(store) == []
