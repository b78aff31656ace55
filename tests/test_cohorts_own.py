"""Cohorts of a stranger: own column names, own codes, own formats, own mistakes."""

import os
import shutil

import numpy as np
import pandas as pd
import pytest
import SimpleITK as sitk
import yaml

from tumorbench_phantoms import write_strange
from tumorbench_phantoms.cohort import _make, _tidy, plan
from tumorbench_phantoms.parameters import of_cohort
from tumorbench_utils import cohorts
from tumorbench_utils.cohorts import CohortError, describe
from tumorbench_utils.cohorts.own import read_own_table
from tumorbench_utils.settings import cache_dir

HEADER = "lesion_id,patient_id,image_path,coord_x,coord_y,coord_z,label,size_mm,note"
ROWS = ["L1,P1,a.nii,1,2,3,0,5.5,x", "L2,P1,a.nii,4,5,6,1,,y", "L3,P2,b.nii,-1.5,0,9,,7,"]


@pytest.fixture
def folder(tmp_path):
    for name in ("a.nii", "b.nii"):
        sitk.WriteImage(sitk.Image((4, 4, 4), sitk.sitkInt16), str(tmp_path / name))
    return tmp_path


def write(folder, rows=ROWS, header=HEADER, name="lesions.csv", **kind):
    path = folder / name
    path.write_text("\n".join([header, *rows]) + "\n", **{"encoding": "utf-8", **kind})
    return path


def changed(row, column, value):
    """The rows with one cell changed; row as in a spreadsheet."""
    rows = [line.split(",") for line in ROWS]
    rows[row - 2][HEADER.split(",").index(column)] = value
    return [",".join(cells) for cells in rows]


def test_a_table_with_the_standard_columns(folder):
    table = read_own_table(write(folder))
    assert list(table["lesion_id"]) == ["L1", "L2", "L3"]
    assert list(table["scan_id"]) == ["a.nii", "a.nii", "b.nii"]
    assert table["image_path"].iloc[2] == str((folder / "b.nii").resolve())
    assert table["label"].tolist() == [0, 1, pd.NA]
    assert table["time_days"].isna().all() and table["event"].isna().all()
    np.testing.assert_allclose(table[["coord_x", "coord_y", "coord_z"]].iloc[2], [-1.5, 0, 9])
    np.testing.assert_allclose(table["size_mm"], [5.5, np.nan, 7])
    assert table["note"].tolist()[:2] == ["x", "y"] and table["note"].isna().iloc[2]
    assert table.attrs["rows"] == [2, 3, 4]


def test_other_names_and_other_codes(folder):
    path = write(
        folder,
        ["n1,c1,a.nii,1,2,3,bösartig,NA", "n2,c2,b.nii,1,2,3,gutartig,4"],
        "Läsion,Fall,Datei,X,Y,Z,Befund,Größe",
    )
    table = read_own_table(
        path,
        columns={
            "lesion_id": "Läsion",
            "patient_id": "Fall",
            "image_path": "Datei",
            "coord_x": "X",
            "coord_y": "Y",
            "coord_z": "Z",
            "label": "Befund",
            "size_mm": "Größe",
        },
        values={"label": {"gutartig": 0, "bösartig": 1}, "size_mm": {"NA": None}},
    )
    assert table["label"].tolist() == [1, 0]
    assert np.isnan(table["size_mm"][0]) and table["size_mm"][1] == 4


@pytest.mark.parametrize(
    ("row", "column", "value", "said"),
    [
        (3, "coord_x", "left", r"row 3, column 'coord_x': 'left' is not a number"),
        (3, "coord_x", "9000", r"row 3, column 'coord_x': '9000' is not between -500 and 500"),
        (3, "coord_x", "nan", r"row 3, column 'coord_x': 'nan' is not a number"),
        (3, "coord_y", "", r"row 3, column 'coord_y': the cell is empty"),
        (3, "lesion_id", "L1", r"row \d, column 'lesion_id': 'L1' stands in more than one row"),
        (4, "lesion_id", "", r"row 4, column 'lesion_id': the cell is empty"),
        (4, "patient_id", "P2 ", r"row 4, column 'patient_id': 'P2 ' has blanks around it"),
        (3, "patient_id", "P9", r"row 3, column 'patient_id': the scan 'a.nii' belongs to several"),
        (2, "label", "2", r"row 2, column 'label'"),
        (2, "label", "malignant", r"row 2, column 'label': 'malignant' is not a number"),
        (2, "size_mm", "-1", r"row 2, column 'size_mm'"),
        (4, "image_path", "../b.nii", r"row 4, column 'image_path': .* leaves its folder"),
        (4, "image_path", "/etc/passwd", r"row 4, column 'image_path': .* leaves its folder"),
        (4, "image_path", "c.nii", r"row 4, column 'image_path': there is no 'c.nii'"),
        (4, "image_path", "x\\b.nii", r"row 4, column 'image_path'.*use / between folders"),
    ],
)
def test_a_fault_names_file_row_and_column(folder, row, column, value, said):
    path = write(folder, changed(row, column, value))
    with pytest.raises(CohortError, match=rf"(?s)lesions\.csv: .*{said}"):
        read_own_table(path)


def test_a_fault_names_the_column_as_the_file_does(folder):
    path = write(folder, changed(3, "label", "no"), HEADER.replace("label", "Befund"))
    with pytest.raises(CohortError, match="row 3, column 'Befund'"):
        read_own_table(path, columns={"label": "Befund"})


def test_a_link_out_of_the_folder_is_refused(folder, tmp_path_factory):
    outside = tmp_path_factory.mktemp("outside") / "secret.nii"
    sitk.WriteImage(sitk.Image((4, 4, 4), sitk.sitkInt16), str(outside))
    (folder / "link.nii").symlink_to(outside)
    with pytest.raises(CohortError, match="leaves its folder"):
        read_own_table(write(folder, changed(4, "image_path", "link.nii")))


def test_headers_and_files_that_are_not_right(folder):
    with pytest.raises(CohortError, match="no column patient_id"):
        read_own_table(write(folder, header=HEADER.replace("patient_id", "case")))
    with pytest.raises(CohortError, match="coord_x, coord_y, coord_z or mask_path"):
        read_own_table(write(folder, header=HEADER.replace("coord_", "c")))
    with pytest.raises(CohortError, match="there is a column 'label'"):
        read_own_table(write(folder), columns={"label": "note"})
    with pytest.raises(CohortError, match="did you mean note"):
        read_own_table(write(folder), columns={"label": "nota"})
    with pytest.raises(CohortError, match="names the column 'stage'"):
        read_own_table(write(folder), values={"stage": {"a": 1}})
    with pytest.raises(CohortError, match="parted by ';'"):
        read_own_table(write(folder, [r.replace(",", ";") for r in ROWS], HEADER.replace(",", ";")))
    with pytest.raises(CohortError, match="CSV UTF-8"):
        read_own_table(write(folder, [ROWS[0].replace("x", "ä")], encoding="latin-1"))
    with pytest.raises(CohortError, match="no such file"):
        read_own_table(folder / "absent.csv")
    with pytest.raises(CohortError, match="no rows"):
        read_own_table(write(folder, []))
    with pytest.raises(CohortError, match="row 3: 3 cells"):
        read_own_table(write(folder, [ROWS[0], "a,b,c"]))
    with pytest.raises(CohortError, match="no such folder"):
        read_own_table(write(folder), images=folder / "scans")


def test_half_a_follow_up_is_refused(folder):
    path = write(folder, ["L1,P1,a.nii,1,2,3,100,1", "L2,P2,b.nii,1,2,3,,1"],
                 "lesion_id,patient_id,image_path,coord_x,coord_y,coord_z,time_days,event")  # fmt: skip
    with pytest.raises(CohortError, match="row 3, column 'time_days': the cell is empty"):
        read_own_table(path)


def test_blank_lines_are_passed_over_and_rows_keep_their_numbers(folder):
    rows = [ROWS[0], "", *changed(3, "label", "7")[1:]]
    with pytest.raises(CohortError, match="row 4, column 'label'"):
        read_own_table(write(folder, rows))


def test_all_faults_of_a_table_are_named_at_once(folder):
    rows = [
        "L1,P1,a.nii,left,2,3,0,5.5,x",
        "L2,P1 ,a.nii,4,5,6,2,,y",
        "L3,P2,c.nii,1,0,,,7,",
        "L3,P3,b.nii,1,2,3,,9999,",
    ]
    with pytest.raises(CohortError) as error:
        read_own_table(write(folder, rows))
    for said in (
        "row 2, column 'coord_x': 'left' is not a number",
        "row 3, column 'label': '2' is none of 0, 1",
        "row 3, column 'patient_id': 'P1 ' has blanks around it",
        "row 4, column 'image_path': there is no 'c.nii'",
        "row 4, column 'coord_z': the cell is empty",
        "row 5, column 'lesion_id': 'L3' stands in more than one row",
        "row 5, column 'size_mm': '9999' is not between 0 and 2000",
    ):
        assert said in str(error.value)
    assert str(error.value).count("column 'coord_x'") == 1  # one cell, one fault


@pytest.mark.parametrize(
    ("header", "said"),
    [
        (HEADER.replace("coord_x", "Coord_X"), "'Coord_X' should be called 'coord_x'"),
        (HEADER.replace("label", " label"), "' label' should be called 'label'"),
        (HEADER.replace("coord_x", "cx"), "no column coord_x"),
        ("sep=,\n" + HEADER, "'sep=,' is no header; remove that line"),
        (HEADER.replace("note", "label"), "the column 'label' stands there twice"),
    ],
)
def test_a_header_that_is_nearly_right_is_explained(folder, header, said):
    with pytest.raises(CohortError, match=said):
        read_own_table(write(folder, header=header))


ALIVE = "lesion_id,patient_id,image_path,coord_x,coord_y,coord_z,time_days,alive"


def follow_up(folder, *alive):
    rows = [
        f"{c},{c},a.nii,0,0,0,{'' if v == '' else 10},{v}"
        for c, v in zip("abc", alive, strict=True)
    ]
    return write(folder, [r.replace("a.nii", f"a.nii#{r[0]}") for r in rows], ALIVE)


@pytest.mark.parametrize(
    "alive", [("1.0", "0.0", ""), ("1", "0", ""), ("01", " 0", ""), ("1e0", "0.00", "")]
)
@pytest.mark.parametrize("codes", [{1: 0, 0: 1}, {"1": 0, "0": 1}, {1.0: 0, 0.0: 1}])
def test_codes_are_compared_as_numbers(folder, alive, codes):
    for name in "abc":
        (folder / f"a.nii#{name}").touch()
    table = read_own_table(
        follow_up(folder, *alive), columns={"event": "alive"}, values={"event": codes}
    )
    assert table["event"].tolist() == [0, 1, pd.NA]


@pytest.mark.parametrize(
    ("column", "cells", "codes", "said"),
    [
        ("label", ["benign", "Malignant", ""], {"benign": 0, "malignant": 1},
         r"row 3, column 'label': 'Malignant' is none of 'benign', 'malignant' in `values`"),
        ("label", ["1", "2", "3"], {1: 0, 2: 1}, "row 4, column 'label': '3' is none of 1, 2"),
        ("label", ["benign", "1", ""], {"benign": 0, "malignant": 1}, "'1' is none of 'benign'"),
        ("note", ["1", "2", "9"], {1: "male", 2: "female"}, "row 4, column 'note': '9' is none"),
        ("note", ["-999", "2", "9"], {999: None}, "names 999, which stands in no cell"),
        ("label", ["1", "2", "2"], {1: 0, "1.0": 1, 2: 1}, "names a cell twice"),
    ],
)  # fmt: skip
def test_codes_that_are_not_named_are_refused(folder, column, cells, codes, said):
    at = HEADER.split(",").index(column)
    rows = [
        ",".join([*r.split(",")[:at], c, *r.split(",")[at + 1 :]])
        for r, c in zip(ROWS, cells, strict=True)
    ]
    with pytest.raises(CohortError, match=said):
        read_own_table(write(folder, rows), values={column: codes})


def test_words_among_numbers_leave_the_numbers_alone(folder):
    rows = [*changed(2, "size_mm", "<4")[:1], *changed(3, "size_mm", "n/a")[1:]]
    table = read_own_table(write(folder, rows), values={"size_mm": {"<4": 3, "n/a": None}})
    np.testing.assert_allclose(table["size_mm"], [3, np.nan, 7])


def test_decimal_commas_in_further_columns_are_refused(folder):
    rows = [f'{r.rsplit(",", 1)[0]},"{v}"' for r, v in zip(ROWS, ("1,5", "2,5", ""), strict=True)]
    with pytest.raises(CohortError, match=r"row 2, column 'note': '1,5' is not a number.*row 3"):
        read_own_table(write(folder, rows))


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        (["L1,P1,a.nii,1,2,3,100,1", "L2,P1,b.nii,1,2,3,900,0"],
         r"row 3, column 'event': 0, but 1 in an earlier row of 'P1'"),
        (["L1,P1,a.nii,1,2,3,100,1", "L2,P1,a.nii,1,2,3,900,1"],
         r"row 3, column 'time_days': 900, but 100 in an earlier row of 'a.nii'"),
    ],
)  # fmt: skip
def test_rows_of_a_patient_that_contradict_each_other(folder, rows, said):
    path = write(folder, rows, ALIVE.replace("alive", "event"))
    with pytest.raises(CohortError, match=said):
        read_own_table(path)


def test_many_columns_are_read(folder):
    more = [f"c{i}" for i in range(3000)]
    rows = [r + "," + ",".join(["1"] * len(more)) for r in ROWS]
    assert len(read_own_table(write(folder, rows, ",".join([HEADER, *more]))).columns) > 3000


# ------------------------------------------------------------------------------------------- masks


def box_mask(path, *labels):
    array = np.zeros((6, 6, 20), np.uint8)
    for i, label in enumerate(labels):
        array[2, 2, 4 * i : 4 * i + 3] = label
    sitk.WriteImage(sitk.GetImageFromArray(array), str(path))


def with_masks(folder, mask, label="", image="a.nii"):
    header = "lesion_id,patient_id,image_path,mask_path,mask_label"
    return write(folder, [f"L1,P1,{image},{mask},{label}"], header)


def test_seeds_come_from_masks(folder):
    box_mask(folder / "one.nrrd", 3)
    box_mask(folder / "two.nrrd", 3, 5)
    table = read_own_table(with_masks(folder, "one.nrrd"))
    np.testing.assert_allclose(table[["coord_x", "coord_y", "coord_z"]].iloc[0], [1, 2, 2])
    table = read_own_table(with_masks(folder, "two.nrrd", 5))
    np.testing.assert_allclose(table[["coord_x", "coord_y", "coord_z"]].iloc[0], [5, 2, 2])


@pytest.mark.parametrize(
    ("mask", "label", "said"),
    [
        ("two.nrrd", "", "holds the labels 3, 5"),
        ("two.nrrd", "4", "no label 4"),
        ("empty.nrrd", "", "the mask is empty"),
        ("../two.nrrd", "", "leaves its folder"),
        ("", "", "neither coordinates nor a mask"),
    ],
)
def test_masks_that_do_not_do(folder, mask, label, said):
    box_mask(folder / "two.nrrd", 3, 5)
    box_mask(folder / "empty.nrrd")
    with pytest.raises(CohortError, match=rf"lesions\.csv: row 2, column .*{said}"):
        read_own_table(with_masks(folder, mask, label))


def test_a_mask_that_changes_is_read_again(folder):
    box_mask(folder / "m.nrrd", 3)
    path = with_masks(folder, "m.nrrd")
    assert read_own_table(path)["coord_x"][0] == 1
    box_mask(folder / "m.nrrd", 0, 3)
    assert read_own_table(path)["coord_x"][0] == 5


def test_a_mask_whose_voxels_lie_apart_is_read_every_time(folder):
    for labels, expected in (((3,), 1), ((0, 3), 5)):
        box_mask(folder / "m.mhd", *labels)
        os.utime(folder / "m.mhd", (1, 1))
        os.utime(folder / "m.raw", (1, 1))
        assert read_own_table(with_masks(folder, "m.mhd"))["coord_x"][0] == expected


def test_a_dicom_segmentation_beside_its_series(reference, tmp_path):
    shutil.copytree(reference / "dicom", tmp_path / "scans")
    path = with_masks(tmp_path, "scans/liver_seg.dcm", image="scans/ct")
    for _ in range(2):  # the second time from the cache
        seed = read_own_table(path)[["coord_x", "coord_y", "coord_z"]].iloc[0]
        (expected,) = cohorts.seeds_from_mask(reference / "dicom" / "liver_seg.nrrd").values()
        np.testing.assert_allclose(seed, expected, atol=1e-3)


def test_a_mask_that_lost_its_orientation_is_refused(folder):
    array = np.zeros((4, 5, 6), np.uint8)
    array[1, 2, 3] = 1
    mask = sitk.GetImageFromArray(array)
    scan = sitk.Image(mask.GetSize(), sitk.sitkInt16)
    scan.SetOrigin((-50, 20, 300))
    sitk.WriteImage(scan, str(folder / "a.nii"))
    sitk.WriteImage(mask, str(folder / "m.nii"))
    with pytest.raises(CohortError, match=r"row 2, column 'mask_path': m.nii has as many voxels"):
        read_own_table(with_masks(folder, "m.nii"))
    # The same voxels stored the other way round fill the same place.
    mask.CopyInformation(scan)
    sitk.WriteImage(sitk.DICOMOrient(mask, "RAS"), str(folder / "m.nii"))
    seed = read_own_table(with_masks(folder, "m.nii"))[["coord_x", "coord_y", "coord_z"]]
    np.testing.assert_allclose(seed.iloc[0], (-47, 22, 301))


# ------------------------------------------------------------------------------------- description


def describe_as(folder, **fields):
    path = folder / "mine.yml"
    path.write_text(yaml.safe_dump(fields), encoding="utf-8")
    return path


def test_a_description_becomes_a_cohort(folder, monkeypatch):
    monkeypatch.setattr("tumorbench_utils.cohorts.registry.COHORTS", dict(cohorts.COHORTS))
    write(folder)
    path = describe_as(folder, key="mine", title="Mine", table="lesions.csv", positive="bad")
    card, reader = describe(path)
    assert (card.key, card.title, card.positive) == ("mine", "Mine", "bad")
    assert len(reader(None)) == 3


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"table": "lesions.csv"}, "'key' is missing"),
        ({"key": "mine"}, "'table' is missing"),
        ({"key": "my cohort", "table": "t.csv"}, "plain name"),
        ({"key": "mine", "table": "t.csv", "titles": "x"}, "did you mean title"),
        ({"key": "mine", "table": "t.csv", "size_direction": 0}, "1 or -1"),
        ({"key": "mine", "table": "t.csv", "size_direction": True}, "1 or -1"),
        ({"key": "mine", "table": ["t.csv"]}, "table is text"),
        ({"key": "mine", "table": "t.csv", "columns": "label"}, "columns is a list of"),
        ({"key": "mine", "table": "t.csv", "values": {"label": 1}}, "values: label"),
        ({"key": "mine", "table": "t.csv", "values": {"label": {True: 1}}}, "in quotes"),
    ],
)
def test_a_description_that_is_wrong_is_refused(folder, fields, said):
    with pytest.raises(CohortError, match=rf"mine\.yml: .*{said}"):
        describe(describe_as(folder, **fields))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("key: a\ntable: t.csv\nkey: b\n", "'key' stands there twice"),
        ("key: a\nvalues: {label: {1: 0, 1: 1}}\n", "'1' stands there twice"),
        ("a: &a [x]\nb: &b [*a, *a]\nkey: *b\n", "references"),
        ("key: " + "[" * 3000, "not a YAML file"),
        ("key: 2024-13-45\n", "not a YAML file"),
    ],
)
def test_yaml_that_says_two_things_or_too_much_is_refused(folder, text, said):
    (folder / "mine.yml").write_text(text)
    with pytest.raises(CohortError, match=rf"mine\.yml: .*{said}"):
        describe(folder / "mine.yml")


def test_a_description_that_is_no_yaml_is_refused(folder):
    path = folder / "mine.yml"
    path.write_text("key: [a, b\n")
    with pytest.raises(CohortError, match="not a YAML file"):
        describe(path)
    path.write_text("just words")
    with pytest.raises(CohortError, match="field: value"):
        describe(path)
    with pytest.raises(CohortError, match="no such file"):
        describe(folder / "absent.yml")


# ---------------------------------------------------------------------------------- mixed formats


STRANGE = {
    "lesion_id": "Nodule",
    "patient_id": "Case",
    "image_path": "File",
    "mask_path": "Contour",
    "mask_label": "Contour no.",
    "coord_x": "X",
    "coord_y": "Y",
    "coord_z": "Z",
    "label": "Diagnosis",
    "size_mm": "Diameter [mm]",
}


def test_every_format_of_a_stranger_leads_to_the_same_lesions(tmp_path):
    parameters = of_cohort("luna16")
    made = tmp_path / "made"
    made.mkdir()
    rows = [_make(item, parameters, made, False) for item in plan("luna16")[:5]]
    truth = _tidy(rows, parameters)
    for name in ("image_path", "mask_path"):
        truth[name] = [str(made / relative) for relative in truth[name]]
    path = write_strange(truth, tmp_path / "sent")
    kinds = {p.suffix for p in (tmp_path / "sent/scans").iterdir()}
    assert {".dcm", ".gz", ".nrrd", ".mhd"} <= kinds
    table = read_own_table(
        path,
        images=tmp_path / "sent/scans",
        columns=STRANGE,
        values={"label": {"benign": 0, "malignant": 1}},
    )
    assert table["label"].tolist() == truth["label"].tolist()
    # The truth's seeds are clicks: a few mm beside the centroid of the mask.
    seeds = ["coord_x", "coord_y", "coord_z"]
    away = np.linalg.norm(table[seeds].to_numpy() - truth[seeds].to_numpy(), axis=1)
    assert away.max() < 5
    assert list((cache_dir() / "seeds").glob("*.json"))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"coord_x": [True, False]}, r"row 0, column 'coord_x': True is not a number"),
        ({"coord_x": [1j, 2]}, r"row 0, column 'coord_x': 1j is not a number"),
        ({"coord_x": [1.0, np.inf]}, "row 1, column 'coord_x': inf is not a number"),
        ({"scan_id": ["s", "s"]}, "row 1, column 'patient_id': the scan 's' belongs to several"),
    ],
)
def test_the_table_of_a_reader_is_checked_as_well(monkeypatch, changes, said):
    monkeypatch.setattr("tumorbench_utils.cohorts.registry.COHORTS", known := dict(cohorts.COHORTS))
    table = pd.DataFrame(
        {
            **{name: ["a", "b"] for name in ("lesion_id", "patient_id", "scan_id", "image_path")},
            **{name: [1.0, 2.0] for name in ("coord_x", "coord_y", "coord_z")},
            **{name: [np.nan, np.nan] for name in ("label", "time_days", "event")},
        }
    )
    cohorts.register(cohorts.CohortCard(key="mine", title="Mine"), lambda folder: table)
    assert "mine" in known and len(cohorts.load_cohort("mine").table) == 2
    table = table.assign(**changes)
    with pytest.raises(CohortError, match=said):
        cohorts.load_cohort("mine")
