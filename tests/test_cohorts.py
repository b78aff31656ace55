import csv
import dataclasses
import json
import shutil
import subprocess
import sys

import jsonschema
import numpy as np
import pandas as pd
import pytest
import yaml

from tumorbench_utils import cohorts, settings
from tumorbench_utils.cohorts import COHORTS, CohortCard, CohortError, read_released_table
from tumorbench_utils.cohorts.own import _Loader
from tumorbench_utils.cohorts.released import released_files, stage_group
from tumorbench_utils.cohorts.tables import STANDARD_COLUMNS, check_standard

NAMES = list(COHORTS)


@pytest.fixture(scope="module")
def released(reference):
    return reference / "cohorts" / "released"


@pytest.fixture
def copy(released, tmp_path):
    """Return a function that copies one cohort's files to a folder of the test."""

    def make(name):
        for relative in released_files(name):
            target = tmp_path / "released" / relative
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(released / relative, target)
        return tmp_path / "released"

    return make


def edit(path, row, column, value):
    """Change one cell; rows as a spreadsheet shows them."""
    with open(path, newline="") as stream:
        rows = list(csv.reader(stream))
    rows[row - 1][rows[0].index(column)] = value
    with open(path, "w", newline="") as stream:
        csv.writer(stream).writerows(rows)


# ------------------------------------------------------------------------------------------- cards


def test_the_seven_cohorts():
    assert NAMES == [
        "luna16",
        "dlcs",
        "nsclc_radiomics",
        "nsclc_radiogenomics",
        "c4kc_kits",
        "colorectal_liver_metastases",
        "rider_lung_ct",
    ]
    for key, card in COHORTS.items():
        assert card.key == key and released_files(key)
        for value in (card.title, card.organ, card.source, card.doi, card.licence, card.access):
            assert value
        assert card.doi.startswith("10.")
        assert card.known_problems and card.citation and card.label_rule
        for column in (card.size_column, card.clinical_column):
            assert column is None or column in card.covariates
        if card.has_survival:  # label 1 is alive: size and stage speak against it
            assert card.size_direction == card.clinical_direction == -1
        total = sum(card.expected[f"label_{k}"] for k in ("0", "1", "missing"))
        assert total == card.expected["rows"]


@pytest.mark.parametrize("name", ["cohorts", "downloads"])
def test_data_of_the_book_fit_their_schema(name):
    folder = settings.BOOK_ROOT / "data"
    content = yaml.load((folder / f"{name}.yml").read_text(), _Loader)  # refuses names twice
    assert content == settings.book_data(name)
    schema = json.loads((folder / f"{name}.schema.json").read_text())
    validator = jsonschema.Draft202012Validator(schema)
    validator.check_schema(schema)
    assert not list(validator.iter_errors(content))
    content["cohorts" if name == "downloads" else "luna16"]["typo"] = 1
    assert list(validator.iter_errors(content))


def test_unknown_names_name_the_nearest():
    for call in (cohorts.card, cohorts.load_cohort, lambda n: read_released_table(n, ".")):
        with pytest.raises(KeyError, match="did you mean luna16"):
            call("luna")
    with pytest.raises(ValueError, match="known are phantom, released, full"):
        cohorts.load_cohort("luna16", "real")


# ------------------------------------------------------------------------------------ released


@pytest.mark.parametrize("name", NAMES)
def test_released_tables_have_the_counts_of_their_cards(released, name):
    table, card = read_released_table(name, released), COHORTS[name]
    excluded = table.attrs["excluded"]
    assert len(table) + len(excluded) == card.expected["rows"]
    assert all(set(row) == {"lesion_id", "reason"} and row["reason"] for row in excluded)
    assert not set(table["lesion_id"]) & {row["lesion_id"] for row in excluded}
    assert list(table.columns[: len(STANDARD_COLUMNS)]) == list(STANDARD_COLUMNS)
    assert table["lesion_id"].is_unique
    for column in ("label", "label_reference", "event"):
        assert table[column].dtype == "Int64"
        assert set(table[column].dropna()) <= {0, 1}
    assert np.isfinite(table[["coord_x", "coord_y", "coord_z"]]).all(axis=None)
    assert table["time_days"].notna().all() == card.has_survival
    assert table["event"].notna().all() == card.has_survival
    for column in card.covariates:
        if name != "luna16":  # its covariates come with an optional file
            assert column in table, column
    assert not table["image_path"].str.startswith("/").any()


def test_labels_follow_their_rules(released):
    # (0, 1, missing) of the honest label and of the published one, as counted by hand.
    counts = {
        "luna16": ((350, 327, 0), (350, 327, 0)),
        "dlcs": ((2223, 264, 0), (2223, 264, 0)),
        "nsclc_radiomics": ((251, 169, 1), (252, 169, 0)),
        "nsclc_radiogenomics": ((28, 105, 10), (51, 92, 0)),  # one more of each without R01-038
        "c4kc_kits": ((16, 118, 76), (16, 118, 76)),
        "colorectal_liver_metastases": ((18, 176, 3), (18, 176, 3)),
        "rider_lung_ct": ((0, 0, 52), (0, 0, 52)),
    }
    for name, (honest, published) in counts.items():
        table = read_released_table(name, released)
        for column, expected in (("label", honest), ("label_reference", published)):
            found = table[column]
            assert ((found == 0).sum(), (found == 1).sum(), found.isna().sum()) == expected, name
        if COHORTS[name].has_survival:
            alive, dead = table["label"] == 1, table["label"] == 0
            assert (table["time_days"][alive] >= 730).all()
            assert (table["time_days"][dead] < 731).all() and (table["event"][dead] == 1).all()
            lost = table["label"].isna()
            assert (table["event"][lost] == 0).all() and (table["time_days"][lost] < 731).all()


def test_known_anomalies_are_listed_and_blanked(released):
    radiomics = read_released_table("nsclc_radiomics", released).set_index("lesion_id")
    listed = pd.DataFrame(radiomics.attrs["anomalies"])
    assert listed.groupby("column")["lesion_id"].count().to_dict() == {
        "label": 1,
        "m_stage": 5,
        "n_stage": 3,
        "t_stage": 2,
    }
    assert radiomics.loc[["LUNG1-056", "LUNG1-272"], "t_stage"].isna().all()
    assert pd.isna(radiomics.loc["LUNG1-406", "label"])
    assert radiomics.loc["LUNG1-406", "label_reference"] == 0
    missing = radiomics[["age", "histology", "stage"]].isna().sum()
    assert missing.tolist() == [22, 42, 1]

    genomics = read_released_table("nsclc_radiogenomics", released)
    assert [row["lesion_id"] for row in genomics.attrs["excluded"]] == ["R01-038"]
    notes = pd.DataFrame(genomics.attrs["anomalies"])["note"].value_counts()
    assert notes.loc["differs from the dates of CT and death"] == 15

    liver = read_released_table("colorectal_liver_metastases", released).set_index("lesion_id")
    assert liver["clinrisk_score"].isna().sum() == 29
    assert liver["carcinoembryonic_antigen"].isna().sum() == 29
    assert liver.index[liver["size_mm"].isna()].tolist() == ["CRLM-CT-1004", "CRLM-CT-1027"]
    assert liver.loc["CRLM-CT-1070", "n_masks"] == 35
    numbers = liver.select_dtypes("number").drop(columns=["coord_x", "coord_y", "coord_z"])
    assert not (numbers < 0).any(axis=None)

    dlcs = read_released_table("dlcs", released)
    assert dlcs["duplicate_of"].notna().sum() == 6
    labels = dlcs.groupby("patient_id")["label"]
    assert (labels.min() == labels.max()).all()

    kits = read_released_table("c4kc_kits", released)
    assert (~kits["malignant"]).sum() == 18
    assert (~kits["malignant"] & kits["label"].notna()).sum() == 10
    assert sorted(kits["age"][kits["age"] < 18]) == [1, 11, 12, 17]


CLEAN = {
    "luna16": "LUNA16",
    "dlcs": "DLCS",
    "colorectal_liver_metastases": "Colorectal-Liver-Metastases",
    "rider_lung_ct": "RIDER",
}


@pytest.mark.parametrize("name", list(CLEAN))
def test_agreement_with_the_worked_tables(reference, released, name):
    text = {"patient_id": str, "scan_id": str, "lesion_id": str}
    worked = pd.read_csv(reference / "cohorts" / "clean" / f"{CLEAN[name]}.csv", dtype=text)
    table = read_released_table(name, released)
    if "max_tumor_size_cm" in worked:
        worked["size_mm"] = 10 * worked["max_tumor_size_cm"].replace(0, np.nan)
    shared = [column for column in worked if column in table]
    assert set(STANDARD_COLUMNS) - set(shared) == {"image_path"}
    for column in shared:
        found, expected = table[column], worked[column]
        assert (found.isna() == expected.isna()).all(), column
        found, expected = found.dropna(), expected.dropna()
        if pd.api.types.is_numeric_dtype(found):
            # times in the worked tables are rounded to a tenth of a day
            tolerance = 0.051 if column == "time_days" else 1e-6
            np.testing.assert_allclose(found.astype(float), expected, rtol=0, atol=tolerance)
        else:
            assert (found == expected).all(), column


def test_luna16_has_no_size_in_millimetres(released):
    assert not [c for c in read_released_table("luna16", released) if "size" in c or "mm" in c]


@pytest.mark.parametrize(
    ("tnm", "group"),
    [
        (("Tis", "N0", "M0"), "0"),
        (("T1a", "N0", "M0"), "IA"),
        (("T2a", "N0", "M0"), "IB"),
        (("T2b", "N0", "M0"), "IIA"),
        (("T1b", "N1", "M0"), "IIA"),
        (("T2a", "N1", "M0"), "IIA"),
        (("T2b", "N1", "M0"), "IIB"),
        (("T3", "N0", "M0"), "IIB"),
        (("T3", "N1", "M0"), "IIIA"),
        (("T1a", "N2", "M0"), "IIIA"),
        (("T4", "N0", "M0"), "IIIA"),
        (("T4", "N1", "M0"), "IIIA"),
        (("T4", "N2", "M0"), "IIIB"),
        (("T1a", "N3", "M0"), "IIIB"),
        (("T1a", "N0", "M1b"), "IV"),
    ],
)
def test_stage_groups_of_the_seventh_edition(tnm, group):
    assert stage_group(*tnm) == group


# ----------------------------------------------------------------------------------- bad input

SEED_COLUMN = dict.fromkeys(NAMES, "coordY")
ID_COLUMN = {
    "luna16": "Unnamed: 0",
    "dlcs": "nodule_id",
    "nsclc_radiomics": "PatientID",
    "nsclc_radiogenomics": "Case ID",
    "c4kc_kits": "patient_id",
    "colorectal_liver_metastases": "Patient-ID",
    "rider_lung_ct": "PatientID",
}


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    "value", ["left lung", "", "nan", "inf", "1e9", "-700", "12,5"], ids=lambda v: v or "empty"
)
def test_bad_coordinates_are_named(copy, name, value):
    folder = copy(name)
    file = released_files(name)[0]
    edit(folder / file, 5, "coordY", value)
    with pytest.raises(CohortError, match=r"row 5, column 'coordY'") as error:
        read_released_table(name, folder)
    assert file.split("/")[-1] in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("name", NAMES)
def test_duplicated_ids_are_named(copy, name):
    folder, file = copy(name), released_files(name)[0]
    path = folder / file
    first = pd.read_csv(path, dtype=str)[ID_COLUMN[name]].iloc[0]
    edit(path, 7, ID_COLUMN[name], first)
    with pytest.raises(CohortError, match=r"row 2.*more than one row"):
        read_released_table(name, folder)


@pytest.mark.parametrize("name", NAMES)
def test_missing_columns_and_files_are_named(copy, name):
    folder, file = copy(name), released_files(name)[0]
    path = folder / file
    path.write_text(path.read_text().replace("coordZ", "coord_z", 1))
    with pytest.raises(CohortError, match=r"no column 'coordZ'"):
        read_released_table(name, folder)
    path.rename(path.with_name("renamed.csv"))
    with pytest.raises(CohortError, match=r"no such file; .*renamed\.csv"):
        read_released_table(name, folder)


@pytest.mark.parametrize("name", NAMES)
def test_one_row_more_or_less_is_noticed(copy, name):
    folder, file = copy(name), released_files(name)[-1]
    lines = (folder / file).read_text().splitlines(keepends=True)
    (folder / file).write_text("".join(lines[:-1]))
    with pytest.raises(
        CohortError, match=r"not 2487|not 677|not 210|not 197|no pair|is not in any of"
    ):
        read_released_table(name, folder)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    "path", ["../../../etc/passwd", "/etc/passwd", "", "a/../../x.mhd", "C:\\scan.nii.gz"]
)
def test_paths_that_leave_their_folder_are_named(copy, name, path):
    folder, file = copy(name), released_files(name)[0]
    column = "ct_nifti_file" if name == "dlcs" else "image_path"
    edit(folder / file, 4, column, path)
    with pytest.raises(CohortError, match=rf"row 4, column '{column}'"):
        read_released_table(name, folder)


@pytest.mark.parametrize("name", [n for n in NAMES if n != "luna16"])
def test_paths_of_another_scan_are_named(copy, name):
    folder, file = copy(name), released_files(name)[0]
    column = "ct_nifti_file" if name == "dlcs" else "image_path"
    other = pd.read_csv(folder / file, dtype=str)[column].iloc[8]
    edit(folder / file, 2, column, other)
    with pytest.raises(CohortError, match=rf"row 2, column '{column}': the path names"):
        read_released_table(name, folder)


@pytest.mark.parametrize(
    ("name", "other"), [("dlcs", "c4kc_kits"), ("nsclc_radiomics", "nsclc_radiogenomics")]
)
def test_the_table_of_another_cohort_is_recognised(copy, released, name, other):
    folder = copy(name)
    shutil.copy(released / released_files(other)[0], folder / released_files(name)[0])
    with pytest.raises(CohortError, match="table of another cohort"):
        read_released_table(name, folder)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "empty"),
        (b"patient-id,nodule_id\na,b\n", "no column"),
        (b"patient-id,nodule_id\n", "no rows below the header"),
        (b"\xff\xfe\x00\x01", "not a CSV table"),
        (b"a,b\n1,2,3\n", "row 2: 3 cells, but the header has 2"),
        (b'a,b\n"1,2\n', "not a CSV table"),
    ],
)
def test_files_that_are_no_tables(tmp_path, content, said):
    (tmp_path / "dlcs").mkdir()
    (tmp_path / "dlcs" / "data.csv").write_bytes(content)
    with pytest.raises(CohortError, match=said):
        read_released_table("dlcs", tmp_path)


def test_folders_that_are_not_there(tmp_path):
    for folder in (tmp_path / "absent", tmp_path):
        with pytest.raises(CohortError, match=r"no such file; .* is empty, or no folder"):
            read_released_table("dlcs", folder)


@pytest.mark.parametrize(
    ("name", "column", "value", "said"),
    [
        ("luna16", "malignancy", "3", "is none of 0, 1"),
        ("luna16", "Unnamed: 0", "12.5", "not as it should be"),
        ("dlcs", "Malignant_lbl", "0.5", "is none of"),
        ("dlcs", "w", "-3", "is not between 0.1 and 400"),
        ("dlcs", "benchmark_split", "all", "is none of train, validation, test"),
        ("dlcs", "nodule_id", "DLCS_9999_01", "is no nodule of"),
        ("nsclc_radiomics", "Survival.time", "-1", "is not between"),
        ("nsclc_radiomics", "age", "old", "not a number"),
        ("nsclc_radiogenomics", "Pathological T stage", "T9", "is none of"),
        ("c4kc_kits", "vital_status", "unknown", "is none of"),
        ("c4kc_kits", "malignant", "1", "is none of"),
        ("colorectal_liver_metastases", "sex", "3", "is none of"),
        ("colorectal_liver_metastases", "carcinoembryonic_antigen", "-5", "negative"),
        ("colorectal_liver_metastases", "Subject ID", "CRLM-CT-9999", "is not"),
        ("rider_lung_ct", "PatientID", "1129164940-third", "not as it should be"),
    ],
)
def test_values_outside_their_rule_are_named(copy, name, column, value, said):
    folder, file = copy(name), released_files(name)[0]
    edit(folder / file, 3, column, value)
    with pytest.raises(CohortError, match=rf"row 3, column '{column}'.*{said}"):
        read_released_table(name, folder)


def test_a_patient_with_both_labels_in_dlcs(copy):
    folder = copy("dlcs")
    edit(folder / "dlcs" / "data.csv", 3, "Malignant_lbl", "1")  # the second nodule of DLCS_0001
    with pytest.raises(CohortError, match="DLCS_0001 has both labels"):
        read_released_table("dlcs", folder)


def test_stored_parts_must_fit_the_table(copy, released):
    folder = copy("nsclc_radiomics")
    part = folder / "nsclc_radiomics" / "val_annotations.csv"
    edit(part, 2, "coordX", "1.5")
    with pytest.raises(CohortError, match=r"val_annotations\.csv: row 2, column 'coordX'.*differs"):
        read_released_table("nsclc_radiomics", folder)
    shutil.copy(released / "nsclc_radiomics" / "test_annotations.csv", part)
    with pytest.raises(CohortError, match="stands in more than one row"):
        read_released_table("nsclc_radiomics", folder)


def test_a_lesion_in_two_parts_of_luna16(copy):
    folder = copy("luna16")
    stolen = pd.read_csv(folder / "luna16/luna16/train.csv", dtype=str)["Unnamed: 0"].iloc[0]
    edit(folder / "luna16/luna16/test.csv", 2, "Unnamed: 0", stolen)
    with pytest.raises(
        CohortError, match=r"train\.csv: row 2, .*test\.csv: row 2, .*more than one row"
    ):
        read_released_table("luna16", folder)


# ------------------------------------------------------------------------------------ load_cohort


@pytest.mark.parametrize("deep", [True, False])
def test_load_released_from_both_layouts(copy, monkeypatch, tmp_path, deep):
    folder = copy("rider_lung_ct")
    if deep:
        (tmp_path / "data" / "cohorts").mkdir(parents=True)
        folder.rename(tmp_path / "data" / "cohorts" / "released")
        folder = tmp_path / "data"
    monkeypatch.setenv("TUMORBENCH_DATA", str(folder))
    monkeypatch.setenv("TUMORBENCH_EDITION", "released")
    cohort = cohorts.load_cohort("rider_lung_ct")
    assert (cohort.edition, len(cohort.table), cohort.size_column) == ("released", 52, None)
    assert cohort.card is COHORTS["rider_lung_ct"]
    images = folder.resolve() / "images" / "rider_lung_ct"
    assert cohort.table["image_path"].str.startswith(str(images)).all()


def test_released_edition_without_data_says_how_to_get_it(monkeypatch, tmp_path):
    monkeypatch.delenv("TUMORBENCH_DATA", raising=False)
    with pytest.raises(CohortError, match="tumorbench cohorts fetch dlcs"):
        cohorts.load_cohort("dlcs", "released")
    monkeypatch.setenv("TUMORBENCH_DATA", str(tmp_path))
    with pytest.raises(CohortError, match=r"dlcs/data\.csv; get it with"):
        cohorts.load_cohort("dlcs", "released")


def test_boxes_of_luna16_are_pixels(reference, monkeypatch):
    monkeypatch.setenv("TUMORBENCH_DATA", str(reference))
    cohort = cohorts.load_cohort("luna16", "released")
    assert cohort.size_column == "size_px" and "size_mm" not in cohort.table
    worked = pd.read_csv(reference / "cohorts" / "clean" / "LUNA16.csv")
    largest = worked[["bbox_rows", "bbox_cols"]].max(axis=1)
    np.testing.assert_array_equal(cohort.table["size_px"], largest)
    assert cohort.table.attrs["excluded"] == []


def test_boxes_of_other_lesions_are_refused(reference, copy, monkeypatch):
    folder = copy("luna16")
    (folder / "cohorts" / "clean").mkdir(parents=True)
    target = folder / "cohorts" / "clean" / "LUNA16.csv"
    shutil.copy(reference / "cohorts" / "clean" / "LUNA16.csv", target)
    edit(target, 3, "coord_x", "0.25")
    monkeypatch.setenv("TUMORBENCH_DATA", str(folder))
    with pytest.raises(CohortError, match="LUNA16_0002 is absent or is another one"):
        cohorts.load_cohort("luna16", "released")


# ------------------------------------------------------------------------- standard columns, register


def standard_table(**columns):
    table = pd.DataFrame(
        {
            "lesion_id": ["a", "b", "c"],
            "patient_id": ["p", "p", "q"],
            "scan_id": ["s", "s", "t"],
            "image_path": ["s.nii", "s.nii", "t.nii"],
            "coord_x": [1, 2, 3],
            "coord_y": [1.5, 2.0, 3.0],
            "coord_z": [-900.0, 2.0, 3.0],
            "label": [0, 1, None],
            "time_days": [100.0, None, None],
            "event": [1, None, None],
            "age": [61, 62, 63],
        }
    )
    return table.assign(**columns)


def test_standard_columns_are_converted_and_put_first():
    table = standard_table()[["age", *standard_table().columns[:-1]]]
    table.attrs["excluded"] = [{"lesion_id": "z", "reason": "blurred"}]
    checked = check_standard(table.set_axis([7, 8, 9]), "mine.csv")
    assert list(checked.columns) == [*STANDARD_COLUMNS, "label_reference", "age"]
    assert list(checked.index) == [0, 1, 2]
    assert checked["label"].tolist() == [0, 1, pd.NA]
    pd.testing.assert_series_equal(checked["label_reference"], checked["label"], check_names=False)
    assert checked["coord_x"].dtype == np.float64
    assert checked.attrs == table.attrs


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        ({"lesion_id": ["a", "a", "c"]}, "row 0, column 'lesion_id'.*more than one row"),
        ({"lesion_id": ["a", None, "c"]}, "row 1, column 'lesion_id': the cell is empty"),
        ({"lesion_id": [1, 2, 3]}, "column 'lesion_id'"),
        ({"coord_x": [1, np.nan, 3]}, "row 1, column 'coord_x': the cell is empty"),
        ({"coord_x": [1, np.inf, 3]}, "row 1, column 'coord_x'"),
        ({"coord_x": ["left", 2, 3]}, "row 0, column 'coord_x': 'left' is not a number"),
        ({"coord_z": [0, 5000, 3]}, "row 1, column 'coord_z'"),
        ({"label": [0, 2, 1]}, "row 1, column 'label'"),
        ({"label": ["benign", "malignant", None]}, "row 0, column 'label'"),
        ({"time_days": [-5, None, None]}, "row 0, column 'time_days'"),
        ({"event": [None, None, None]}, "row 0, column 'event'"),
        ({"patient_id": ["p", "q", "q"]}, "'s' belongs to several patients"),
    ],
)
def test_faults_of_a_table_are_named(columns, said):
    with pytest.raises(CohortError, match=f"mine.csv: .*{said}"):
        check_standard(standard_table(**columns), "mine.csv")


def test_a_table_without_columns_or_rows():
    with pytest.raises(CohortError, match="no column 'coord_z'"):
        check_standard(standard_table().drop(columns="coord_z"), "mine.csv")
    with pytest.raises(CohortError, match="no rows"):
        check_standard(standard_table().iloc[:0], "mine.csv")


@pytest.fixture
def registered():
    yield
    for name in list(COHORTS):
        if name not in NAMES:
            COHORTS.pop(name)


def test_a_registered_cohort_is_loaded_by_name(registered, monkeypatch, tmp_path):
    monkeypatch.setenv("TUMORBENCH_DATA", str(tmp_path))
    folders = []

    def reader(folder):
        folders.append(folder)
        return standard_table()

    card = dataclasses.replace(COHORTS["dlcs"], key="mine", title="Mine")
    cohorts.register(card, reader)
    cohort = cohorts.load_cohort("mine", "full")
    assert cohort.card.title == "Mine" and len(cohort.table) == 3
    assert len(read_released_table("mine", tmp_path)) == 3
    assert folders == [tmp_path.resolve(), tmp_path]
    cohorts.register(dataclasses.replace(card, title="Again"), reader)
    assert cohorts.card("mine").title == "Again"


def test_phantom_tables_are_checked_and_passed_through(monkeypatch):
    made = standard_table(true_logit=[0.1, 0.2, 0.3], size_mm=[5.0, 6.0, 7.0])
    made_by = "tumorbench_utils.cohorts.phantom.phantom_table"
    monkeypatch.setattr(made_by, lambda name: made)
    cohort = cohorts.load_cohort("luna16")
    assert (cohort.edition, cohort.size_column) == ("phantom", "size_mm")
    assert cohort.table["true_logit"].tolist() == [0.1, 0.2, 0.3]
    monkeypatch.setattr(made_by, lambda name: made.drop(columns="coord_x"))
    with pytest.raises(CohortError, match="phantoms luna16: no column 'coord_x'"):
        cohorts.load_cohort("luna16")


def test_register_refuses_what_is_no_cohort(registered):
    card = dataclasses.replace(COHORTS["dlcs"], key="mine")
    with pytest.raises(ValueError, match="cohort of the book"):
        cohorts.register(COHORTS["dlcs"], lambda folder: standard_table())
    with pytest.raises(TypeError, match="CohortCard"):
        cohorts.register({"key": "mine"}, lambda folder: standard_table())
    with pytest.raises(TypeError, match="callable"):
        cohorts.register(card, standard_table())
    for key in ("", "a b", "../up"):
        with pytest.raises(ValueError, match="plain name"):
            cohorts.register(dataclasses.replace(card, key=key), lambda folder: standard_table())
    cohorts.register(card, lambda folder: None)
    with pytest.raises(CohortError, match="gave NoneType"):
        cohorts.load_cohort("mine")
    cohorts.register(card, lambda folder: standard_table(coord_x=[np.nan] * 3))
    with pytest.raises(CohortError, match="the table of mine: row 0, column 'coord_x'"):
        cohorts.load_cohort("mine")


def test_loading_a_cohort_needs_no_slow_library():
    code = "import sys, tumorbench_utils.cohorts; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout
    slow = {"SimpleITK", "pydicom", "scipy", "sklearn", "torch", "jsonschema", "matplotlib"}
    assert "pandas" in loaded.split() and not slow & set(loaded.split())


def test_a_card_is_made_of_a_few_facts():
    card = CohortCard(key="mine", title="Mine")
    assert not card.has_survival and card.size_column is None
    with pytest.raises(dataclasses.FrozenInstanceError):
        card.key = "other"
