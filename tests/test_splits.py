import numpy as np
import pandas as pd
import pytest
from sklearn.model_selection import train_test_split

from tumorbench_utils.checks import InputError
from tumorbench_utils.splits import (
    LeakageError,
    Split,
    assert_disjoint,
    grouped_splits,
    leakage_report,
    reference_splits,
)


def make_table(seed=0, patients=80, per_patient_label=True):
    """Lesions of patients: one to six each, about a third of label 1."""
    rng = np.random.default_rng(seed)
    owner = np.repeat(np.arange(patients), rng.integers(1, 7, patients))
    labels = (rng.random(patients) < 0.35).astype(int)[owner]
    if not per_patient_label:
        labels = (rng.random(len(owner)) < 0.35).astype(int)
    return pd.DataFrame(
        {
            "patient_id": [f"P{i:03d}" for i in owner],
            "scan_id": [f"S{i:03d}" for i in owner],
            "label": pd.array(labels, dtype="Int64"),
        },
        index=rng.permutation(len(owner)) + 1000,
    )


# ------------------------------------------------------------------------------ published protocol


def test_reference_splits_are_two_calls_of_train_test_split():
    labels = np.r_[np.zeros(60, int), np.ones(41, int)]
    splits = reference_splits(labels)
    assert len(splits) == 10
    for state, split in zip(range(10, 20), splits, strict=True):
        rest, test = train_test_split(
            np.arange(101), test_size=0.3, random_state=state, stratify=labels
        )
        train, val = train_test_split(
            rest, test_size=0.2 / 0.7, random_state=state, stratify=labels[rest]
        )
        for mine, theirs in zip(split, (train, val, test), strict=True):
            assert np.issubdtype(mine.dtype, np.integer)
            np.testing.assert_array_equal(mine, theirs)


@pytest.mark.parametrize("kind", [list, np.array, lambda v: pd.Series(v, index=range(50, 150))])
def test_reference_splits_take_every_kind_of_vector(kind):
    labels = [0, 1] * 50
    expected = reference_splits(np.array(labels), n_repeats=2)
    for split, other in zip(expected, reference_splits(kind(labels), n_repeats=2), strict=True):
        np.testing.assert_array_equal(split.train, other.train)
    nullable = pd.Series(pd.array(labels, dtype="Int64"))
    np.testing.assert_array_equal(reference_splits(nullable, 1)[0].test, expected[0].test)


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        ([0.0, 1.0, np.nan] * 10, "10 of 30 labels are missing"),
        (pd.array([0, 1, pd.NA] * 10, dtype="Int64"), "10 of 30 labels are missing"),
        ([1] * 20, "one class only"),
        ([], "one class only"),
        ([0] * 20 + [1], "least populated class"),
        (list(np.linspace(0, 1, 60)), "least populated class"),
    ],
)
def test_reference_splits_refuse_labels_that_cannot_be_stratified(labels, said):
    with pytest.raises(ValueError, match=said):
        reference_splits(labels)


# -------------------------------------------------------------------------------------- grouped


@pytest.mark.parametrize("per_patient_label", [True, False])
def test_grouped_splits_are_disjoint_complete_and_keep_shares(per_patient_label):
    table = make_table(1, 200, per_patient_label)
    overall = table["label"].mean()
    for split in grouped_splits(table, n_repeats=20, seed=3):
        assert_disjoint(table, split)
        np.testing.assert_array_equal(np.sort(np.concatenate(split)), np.arange(len(table)))
        for side, share in zip(split, (0.5, 0.2, 0.3), strict=True):
            assert abs(len(side) / len(table) - share) < 0.02
            assert abs(table["label"].iloc[side].mean() - overall) < 0.03


def test_single_lesions_are_stratified_exactly():
    table = pd.DataFrame({"patient_id": range(100), "label": [0] * 60 + [1] * 40})
    for split in grouped_splits(table, n_repeats=5):
        assert [len(side) for side in split] == [50, 20, 30]
        assert [int(table["label"].iloc[side].sum()) for side in split] == [20, 8, 12]


def test_every_patient_lands_on_every_side_about_as_often_as_the_fractions_say():
    # The largest patient too: a greedy rule without chance would always train on it.
    table = make_table(2, 60)
    largest = table["patient_id"].value_counts().index[0]
    at_home = [
        np.isin(largest, table["patient_id"].iloc[s.test]) for s in grouped_splits(table, 300)
    ]
    assert 0.2 < np.mean(at_home) < 0.4


def test_grouped_splits_repeat_with_their_seed_and_differ_with_another():
    table = make_table()
    first, again, other = (grouped_splits(table, 2, seed=s) for s in (5, 5, 6))
    np.testing.assert_array_equal(first[1].test, again[1].test)
    assert not np.array_equal(first[0].test, other[0].test)
    assert not np.array_equal(first[0].test, first[1].test)


def test_few_groups_of_a_class_are_spread_over_all_sides():
    table = pd.DataFrame({"patient_id": range(40), "label": [1] * 3 + [0] * 37})
    for split in grouped_splits(table, n_repeats=30):
        assert all(table["label"].iloc[side].sum() == 1 for side in split)


def test_grouped_splits_take_fractions_group_and_no_strata():
    table = make_table(3, 120).drop(columns="label")
    split = grouped_splits(table, 1, (0.2, 0.2, 0.6), group="scan_id", stratify=None)[0]
    assert abs(len(split.test) / len(table) - 0.6) < 0.02
    assert_disjoint(table, split, group="scan_id")


@pytest.mark.parametrize(
    ("changes", "options", "said"),
    [
        ({}, {"group": "site"}, "column 'site' must stand once"),
        ({"label": [pd.NA, 1, 0, 1]}, {}, "20 of 80 labels are missing"),
        ({"patient_id": [None, "a", "b", "c"]}, {}, "'patient_id' is missing in row 0"),
        ({"label": [1, 1, 1, 1]}, {}, "one class only"),
        ({"patient_id": ["a", "a", "b", "b"]}, {}, "at least 3 groups"),
        ({}, {"fractions": (0.5, 0.5)}, "fractions"),
        ({}, {"fractions": (0.5, 0.2, 0.2)}, "fractions"),
        ({}, {"fractions": (0.7, 0, 0.3)}, "fractions"),
        ({}, {"fractions": (np.nan, 0.5, 0.5)}, "fractions"),
    ],
)
def test_grouped_splits_refuse_what_cannot_be_grouped(changes, options, said):
    table = pd.DataFrame({"patient_id": range(80), "label": [0, 1] * 40})
    table = table.assign(**{name: cells * 20 for name, cells in changes.items()})
    with pytest.raises(InputError, match=said):
        grouped_splits(table, **options)
    with pytest.raises(InputError):
        grouped_splits(table.iloc[:0])


# -------------------------------------------------------------------------------------- leakage


def test_leakage_report_on_a_case_worked_by_hand():
    #          0    1    2    3    4    5    6    7
    patient = ["A", "A", "B", "B", "C", "C", "D", "A"]
    table = pd.DataFrame({"patient_id": patient, "label": [1, 1, 0, 1, 0, 0, 1, 0]})
    # train holds A (1) and B (0) and C (0); val holds A (1); test holds B (1), C (0), D, A (0).
    split = Split(np.array([0, 2, 4]), np.array([1]), np.array([3, 5, 6, 7]))
    report = leakage_report(table, split).set_index(["level", "first", "second"])
    assert set(report.index.get_level_values("level")) == {"patient_id"}
    to_test = report.loc[("patient_id", "train", "test")]
    assert (to_test["groups"], to_test["lesions"], to_test["share"]) == (3, 3, 0.75)
    assert to_test["same_label"] == pytest.approx(1 / 3)  # C agrees; B and A do not
    to_val = report.loc[("patient_id", "train", "val")]
    assert (to_val["lesions"], to_val["same_label"]) == (1, 1.0)
    assert report.loc[("patient_id", "val", "test"), "lesions"] == 1


def test_leakage_report_is_empty_of_leaks_for_grouped_splits():
    table = make_table()
    report = leakage_report(table, grouped_splits(table, 1)[0])
    assert report["lesions"].sum() == 0
    assert set(report["level"]) == {"patient_id", "scan_id"}
    assert leakage_report(table, reference_splits(table["label"], 1)[0])["lesions"].sum() > 0


def test_assert_disjoint_names_the_patients():
    table = make_table()
    with pytest.raises(LeakageError, match=r"values of patient_id are in train and in .*P\d\d\d"):
        assert_disjoint(table, reference_splits(table["label"], 1)[0])
    rows = np.arange(len(table))
    with pytest.raises(LeakageError, match="rows are in train and in test"):
        assert_disjoint(table, Split(rows[:10], rows[10:20], rows[5:8]))
    assert issubclass(LeakageError, ValueError)


@pytest.mark.parametrize("outside", [[-1], [10**6], [0.5], [[1, 2]]])
def test_positions_outside_the_table_are_refused(outside):
    split = Split(np.array([0]), np.array([1]), np.array(outside))
    with pytest.raises(ValueError, match="positions"):
        leakage_report(make_table(), split)
    with pytest.raises(ValueError, match="positions"):
        assert_disjoint(make_table(), split)


def test_leakage_of_the_published_protocol(reference):
    # About 40% of LUNA16's and 37% of DLCS's test lesions have a train lesion of their patient.
    from tumorbench_utils.cohorts import read_released_table

    shares = {}
    for name in ("luna16", "dlcs"):
        table = read_released_table(name, reference / "cohorts" / "released")
        table = table[table["used_in_reference"]].reset_index(drop=True)
        reports = [leakage_report(table, s) for s in reference_splits(table["label"])]
        rows = pd.concat(reports).query("level == 'patient_id' and second == 'test'")
        shares[name] = rows[rows["first"] == "train"]
    assert shares["luna16"]["share"].mean() == pytest.approx(0.40, abs=0.03)
    assert shares["dlcs"]["share"].mean() == pytest.approx(0.37, abs=0.03)
    assert (shares["dlcs"]["same_label"] == 1).all()


def test_a_table_that_holds_a_column_twice_is_refused():
    table = make_table()
    twice = pd.concat([table, table[["patient_id"]]], axis=1)
    for call in (
        lambda: grouped_splits(twice),
        lambda: leakage_report(twice, Split([0], [1], [2])),
        lambda: assert_disjoint(twice, Split([0], [1], [2])),
        lambda: grouped_splits({"patient_id": ["a"], "label": [0]}),
    ):
        with pytest.raises(InputError, match=r"once in the table|a DataFrame"):
            call()


def test_leakage_of_labels_in_words():
    table = pd.DataFrame({"patient_id": list("aabb"), "label": ["no", "no", "no", "yes"]})
    report = leakage_report(table, Split([0, 2], [], [1, 3]))
    row = report.query("first == 'train' and second == 'test'").iloc[0]
    # By hand: 'no' is met by 'no' in patient a; 'yes' is met by 'no' in patient b.
    assert (row["groups"], row["lesions"], row["share"], row["same_label"]) == (2, 2, 1, 0.5)
