"""The look at a cohort: what it must find, and what the report must be."""

import re

import numpy as np
import pandas as pd
import pytest
import SimpleITK as sitk
from typer.testing import CliRunner

from tumorbench_book import reports
from tumorbench_book.cli import cli
from tumorbench_utils import check_cohort
from tumorbench_utils.cohorts import CohortError

HEADER = "lesion_id,patient_id,image_path,coord_x,coord_y,coord_z,label,size_mm"


def scan(path, seed=0, spacing=(1, 1, 1.0), scale=lambda hu: hu):
    """Fat with a box of soft tissue and a layer of air, noise of its own."""
    rng = np.random.default_rng(seed)
    array = rng.normal(-100, 10, (80, 90, 90))
    array[:, :10] = -1000
    array[30:50, 30:60, 30:60] = rng.normal(40, 10, (20, 30, 30))
    image = sitk.GetImageFromArray(scale(array).astype(np.int16))
    image.SetSpacing(spacing)
    image.SetOrigin((10, 20, -300))
    sitk.WriteImage(image, str(path))


def write(folder, rows):
    path = folder / "lesions.csv"
    path.write_text("\n".join([HEADER, *rows]) + "\n", encoding="utf-8")
    return path


def found_in(folder, rows):
    return check_cohort.check(check_cohort.read(write(folder, rows)))


@pytest.fixture
def folder(tmp_path):
    scan(tmp_path / "a.nii", 1)
    scan(tmp_path / "b.nrrd", 2)
    return tmp_path


GOOD = ["L1,P1,a.nii,55,65,-260,0,9", "L2,P2,b.nrrd,55,65,-260,1,12"]


def test_nothing_is_wrong_with_a_good_cohort(folder):
    found = found_in(folder, GOOD)
    assert found.faults == []
    assert list(found.scans["format"]) == [".nii", ".nrrd"]
    assert list(found.scans["axes"]) == ["LPS", "LPS"]
    assert found.lesions["centre_hu"].between(20, 60).all()
    # By hand: index (45, 45, 40) in 90 x 90 x 80 voxels of 1 mm; the nearest face is that of z.
    np.testing.assert_allclose(found.lesions["margin_mm"], 39)


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ("L2,P2,b.nrrd,500,65,-260,1,12", r"row 3, column 'coord_x' \(L2\).*mm outside"),
        ("L2,P2,b.nrrd,-55,-65,-260,1,12", r"row 3, column 'coord_x'.*\(RAS\) it lies inside"),
        ("L2,P2,b.nrrd,45,45,40,1,12", r"row 3, column 'coord_x'.*as voxel numbers"),
        ("L2,P2,bad.nrrd,55,65,-260,1,12", r"row 3, column 'image_path' \(L2\)"),
        ("L2,P2,mask.nrrd,45,45,40,1,12", r"row 3, column 'image_path'.*not HU"),
        ("L2,P2,copy.nii,55,65,-260,1,12", r"row 3, column 'patient_id'.*same scan.*L1 of P1"),
    ],
)
def test_a_fault_names_its_row_and_column(folder, row, said):
    (folder / "bad.nrrd").write_text("no picture")
    sitk.WriteImage(sitk.Image((90, 90, 80), sitk.sitkInt16) + 1, str(folder / "mask.nrrd"))
    scan(folder / "copy.nii", 1)
    found = found_in(folder, [GOOD[0], row])
    assert len(found.faults) == 1
    assert re.search(rf"lesions\.csv: {said}", found.faults[0])


def test_one_bad_seed_does_not_hide_the_others(folder):
    rows = [*GOOD, "L3,P2,b.nrrd,500,65,-260,1,12", "L4,P2,b.nrrd,50,65,-262,1,12"]
    found = found_in(folder, rows)
    assert len(found.faults) == 1 and set(found.lesions.index) == {"L1", "L2", "L4"}


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([GOOD[0], "L2,p1,b.nrrd,55,65,-260,1,12"], "nearly the same name: 'P1', 'p1'"),
        ([GOOD[0], "L2,P-001,b.nrrd,55,65,-260,1,12"], "nearly the same name"),
        ([GOOD[0], "L2,P2,b.nrrd,55,65,-260,0,12"], "all labels are 0"),
        (["L1,P1,a.nii,55,65,-260,,9", "L2,P2,b.nrrd,55,65,-260,,9"], "neither labels nor times"),
        ([GOOD[0], "L2,P1,a.nii,55.2,65,-260,0,9"], "L1 and L2 lie less than 1 mm apart"),
        ([GOOD[0], "L2,P2,b.nrrd,15,65,-260,1,12"], "1 of 2 lesions lie less than 24 mm"),
        ([GOOD[0], "L2,P2,b.nrrd,55,25,-260,1,12"], "1 seeds lie in air"),
        ([GOOD[0], "L2,P2,grey.nii,55,65,-260,1,12"], "1 scans do not look like HU.*grey"),
        ([GOOD[0], "L2,P2,thick.nii,55,65,-260,1,12"], "more than 5 mm apart, for example thick"),
        ([GOOD[0], "L2,P2,thick.nii,55,65,-260,1,12"], "can tell the label from the scanner"),
        (["L1,P1,a.nii,55,65,-260,0,0.9", "L2,P2,b.nrrd,55,65,-260,1,1.2"], "are they in mm"),
    ],
)
def test_remarks(folder, run_cells, rows, said):
    scan(folder / "thick.nii", 3, spacing=(1, 1, 6.0))
    scan(folder / "grey.nii", 4, scale=lambda hu: ((hu + 1000) / 1400 * 254).clip(1, 254))
    made = run_cells("check_cohort", path=str(write(folder, rows)))
    assert re.search(said, "\n".join(made["left"]["remarks"]))
    assert made["left"]["counts"]["lesions"] == 2


def test_patients_with_different_numbers_are_not_taken_for_one(folder, run_cells):
    rows = [GOOD[0].replace("P1", "P10"), GOOD[1].replace("P2", "P1")]
    remarks = run_cells("check_cohort", path=str(write(folder, rows)))["remarks"]
    assert "same name" not in "\n".join(remarks)


@pytest.mark.parametrize("turn", [(-1, -1, 1), (1, 1, 1)])
def test_mirrored_seeds_that_stay_inside_are_seen_from_the_whole_cohort(tmp_path, run_cells, turn):
    """Nodules on one side, lung on the other, scans around the origin: all mirrored are in lung."""
    rows = []
    for n in range(4):
        array = np.random.default_rng(n).normal(-850, 20, (70, 90, 90))
        array[30:40, 20:30, 60:70] = 40
        image = sitk.GetImageFromArray(array.astype(np.int16))
        image.SetOrigin((-45, -45, -30))
        sitk.WriteImage(image, str(tmp_path / f"s{n}.nii"))
        x, y, z = np.multiply((20, -20, 5), turn)
        rows.append(f"L{n},P{n},s{n}.nii,{x},{y},{z},{n % 2},9")
    made = run_cells("check_cohort", path=str(write(tmp_path, rows)))
    assert made["faults"] == []
    said = "4 of 4 seeds lie in lung or air, but with x and y negated (RAS) 4 lie in tissue"
    assert (said in "\n".join(made["remarks"])) is (turn[0] < 0)


def test_the_page_needs_no_other_file_and_no_word_of_a_stranger_runs(folder):
    """The whole way: papermill, kernel, nbconvert, from the command line."""
    rows = [GOOD[0], "<b>$\\frac{1}$,P2,b.nrrd,55,65,-260,1,12"]
    path = write(folder, [*rows, "<script>alert(1)</script>,P2,b.nrrd,500,65,-260,1,12"])
    (folder / "nbformat.py").write_text("open('ran', 'w'); raise SystemExit(7)")
    result = CliRunner().invoke(cli, ["check-cohort", str(path)])
    assert result.exit_code == 1 and "row 4, column 'coord_x'" in result.output
    assert "3 lesions, 2 scans, 2 patients; 1 faults" in result.output
    text = (folder / "lesions-check.html").read_text(encoding="utf-8")
    assert "<script" not in text and "&lt;script&gt;" in text
    sources = re.findall(r"(?:src|href)=\"([^\"]{0,30})", text)
    assert sources and all(s.startswith(("data:image/png", "#")) for s in sources)
    for heading in ("Counts", "Leakage", "Missing data", "Lesions", "Intensities", "Geometry"):
        assert f">{heading}<" in text
    assert 'alt="Small pictures of lesions' in text
    assert not (folder / "ran").exists()


def test_tables_of_a_page_escape_and_format(monkeypatch):
    frame, shown = pd.DataFrame({"a<b": ["<i>", None], "x": [1.256, np.nan]}), []
    monkeypatch.setattr(reports, "display", shown.append)
    reports.show_table(frame, "5 < 6", file="a<b.csv")
    reports.show("<b>", ["<i>"])
    made = "".join(html.data for html in shown)
    assert "<i>" not in made and "<b>" not in made and "a<b" not in made
    assert "&lt;i&gt;" in made and "5 &lt; 6" in made and "1.26" in made and "–" in made


def test_a_fault_of_the_table_ends_the_check(folder):
    path = write(folder, [GOOD[0], "L2,P2,b.nrrd,left,65,-260,1,12"])
    with pytest.raises(CohortError, match=r"lesions\.csv: row 3, column 'coord_x'"):
        check_cohort.read(path)


def test_a_folder_of_the_user_stays_what_it_is(folder, monkeypatch):
    """`--out FOLDER` used to replace the folder by a file."""
    path = write(folder, GOOD)
    before = {p.name: p.read_bytes() for p in folder.iterdir()}
    record = {
        "faults": [],
        "remarks": [],
        "counts": dict.fromkeys(["lesions", "scans", "patients"], 2),
    }
    monkeypatch.setattr(reports, "make", lambda *a, **k: reports.Made(reports._OURS, record))
    for out in (folder, folder / "new", path):
        CliRunner().invoke(cli, ["check-cohort", str(path), "--out", str(out)])
    assert {p.name: p.read_bytes() for p in folder.iterdir() if p.name in before} == before
    assert (folder / "lesions-check.html").is_file()
    assert (folder / "new" / "lesions-check.html").is_file()


def test_a_description_names_its_images_itself(folder):
    write(folder, GOOD)
    path = folder / "mine.yml"
    path.write_text("key: mine\ntable: lesions.csv\ntitle: Mine\n")
    assert check_cohort.read(path).card.title == "Mine"
    with pytest.raises(CohortError, match="names the folder of the scans itself"):
        check_cohort.read(path, folder)
