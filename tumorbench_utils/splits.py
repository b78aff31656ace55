"""Splits of a cohort into train, validation and test: as published, and grouped by patient.

Positions are those of the rows of a table (``iloc``), never labels of its index.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from sklearn.model_selection import train_test_split

#: Shares of train, validation and test in the published protocol.
FRACTIONS = (0.5, 0.2, 0.3)

_SIDES = ("train", "val", "test")


class LeakageError(ValueError):
    """A split that holds lesions of one patient on two sides."""


class Split(NamedTuple):
    """One split: integer positions of the rows of a table.

    Attributes
    ----------
    train, val, test : ndarray of int
    """

    train: np.ndarray
    val: np.ndarray
    test: np.ndarray


def reference_splits(labels, n_repeats: int = 10, seed: int = 10) -> list[Split]:
    """Return the splits of the published protocol.

    Lesions are drawn one by one, stratified by label, without regard to patients: 30% to test,
    then 2/7 of the rest to validation, both with the state ``seed + i``. Lesions of one patient
    therefore stand on both sides: see :func:`leakage_report`.

    Parameters
    ----------
    labels : array-like, shape (n,)
        Labels in the order of the table, none missing.
    n_repeats : int
        Number of splits. Published: 10.
    seed : int
        State of the first split. Published: 10, so 10 to 19.

    Returns
    -------
    list of Split
        Positions in the order in which scikit-learn's ``train_test_split`` gives them.

    Raises
    ------
    ValueError
        If labels are missing, hold one class only, or a class is too small for three sides.
    """
    classes = _classes(labels, "labels")
    first, repeats = _whole(seed, "seed"), _whole(n_repeats, "n_repeats", least=1)
    if first + repeats > 2**32:
        raise ValueError(f"seed must leave room for {repeats} states below 2**32, not {seed!r}")
    splits = []
    for state in range(first, first + repeats):
        try:
            rest, test = train_test_split(
                np.arange(len(classes)), test_size=0.3, random_state=state, stratify=classes
            )
            train, val = train_test_split(
                rest, test_size=0.2 / 0.7, random_state=state, stratify=classes[rest]
            )
        except ValueError as error:
            counts = np.bincount(classes).tolist()
            raise ValueError(
                f"classes of {counts} lesions cannot be split three ways with every class on "
                f"every side ({error})"
            ) from None
        splits.append(Split(train, val, test))
    return splits


def grouped_splits(
    table: pd.DataFrame,
    n_repeats: int = 10,
    fractions: Sequence[float] = FRACTIONS,
    seed: int = 0,
    group: str = "patient_id",
    stratify: str | None = "label",
) -> list[Split]:
    """Return random splits in which no group stands on two sides.

    Groups are drawn in random order, the large ones first. Each goes to a side that still has room
    for the lesions of its classes, with a chance proportional to that room; where no side has, to
    the one whose class counts it disturbs least.

    Parameters
    ----------
    table : DataFrame
        Rows without a label are refused: leave them out first, so that it is seen.
    n_repeats : int
        Number of splits.
    fractions : sequence of three floats
        Shares of lesions in train, validation and test, per class; each above 0, together 1.
    seed : int
        Seed of all splits.
    group : str
        Column whose values are kept together.
    stratify : str or None
        Column whose shares are kept, as well as groups allow; None to keep only the sizes.

    Returns
    -------
    list of Split
        Positions in ascending order. Every side holds every class.

    Raises
    ------
    ValueError
        If a column is absent or has missing values, there is one class only, the fractions are no
        shares, or there are too few groups of a class for three sides.
    """
    _check_table(table)
    for column in (group, stratify):
        if column is not None and column not in table:
            raise ValueError(f"the table has no column {column!r}; it has {list(table.columns)}")
    shares = _shares(fractions)
    codes = _groups(table, group)
    classes = np.zeros(len(table), dtype=int)
    if stratify is not None:
        classes = _classes(table[stratify], f"column {stratify!r}")
    counts = np.zeros((codes.max() + 1, classes.max() + 1), dtype=int)
    np.add.at(counts, (codes, classes), 1)
    holders = (counts > 0).sum(axis=0)
    if holders.min() < 3:
        raise ValueError(
            f"three sides need at least 3 groups of every class; column {group!r} has "
            f"{holders.tolist()} per class"
        )
    rng = np.random.default_rng(_whole(seed, "seed"))
    splits = []
    for _ in range(_whole(n_repeats, "n_repeats", least=1)):
        side = _assign(counts, shares, rng)[codes]
        splits.append(Split(*(np.flatnonzero(side == i) for i in range(3))))
    return splits


def _assign(counts: np.ndarray, shares: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return a side per group; `counts` holds lesions per group and class."""
    total = counts.sum(axis=0)
    target = shares[:, None] * total
    sizes = counts.sum(axis=1)
    for _ in range(200):
        shuffled = rng.permutation(len(counts))
        order = shuffled[np.argsort(-sizes[shuffled], kind="stable")]
        have = np.zeros_like(target)
        side = np.empty(len(counts), dtype=int)
        for one in order:
            held = counts[one] > 0
            room = (target - have)[:, held]
            fits = (counts[one, held] <= room + 0.5).all(axis=1)
            chance = np.where(fits, np.clip(room, 0, None).sum(axis=1), 0)
            if chance.sum() > 0:
                side[one] = rng.choice(3, p=chance / chance.sum())
            else:
                growth = (2 * (have - target) + counts[one]) * counts[one] / total**2
                side[one] = growth.sum(axis=1).argmin()
            have[side[one]] += counts[one]
        if (have > 0).all():
            return side
    raise ValueError(
        "no split was found in which every side holds every class; there are too few groups of "
        "one class, or one group holds most of it"
    )


def leakage_report(table: pd.DataFrame, split: Split) -> pd.DataFrame:
    """Count what the sides of a split share.

    Parameters
    ----------
    table : DataFrame
        With ``patient_id``; ``scan_id`` and ``label`` are looked at where they are.
    split : Split
        Positions in `table`.

    Returns
    -------
    DataFrame
        One row per level (``patient_id``, ``scan_id``) and pair of sides, with

        - ``first``, ``second``: the sides; a model learns or is tuned on the first;
        - ``groups``: patients or scans on both;
        - ``lesions``: lesions of the second side with a lesion of their group on the first;
        - ``share``: their share of the second side;
        - ``same_label``: of those lesions with a label, the share for whom all labelled lesions of
          their group on the first side carry it too: what copying the label would get right.

    Raises
    ------
    ValueError
        If there is no ``patient_id``, or positions lie outside the table.
    """
    sides = _checked_sides(table, split)
    if "patient_id" not in table:
        raise ValueError("the table has no column 'patient_id'")
    labels = table["label"] if "label" in table else pd.Series(pd.NA, index=table.index)
    if labels.ndim != 1:
        raise ValueError("the column 'label' stands in the table twice")
    codes = pd.factorize(labels.to_numpy(dtype=object))[0]  # -1: no label
    frame = pd.DataFrame({"label": pd.array(codes, dtype="Int64").astype("Float64")})
    frame.loc[codes < 0, "label"] = pd.NA
    rows = []
    for level in ("patient_id", "scan_id"):
        if level not in table:
            continue
        frame["group"] = _groups(table, level)
        for first, second in (("train", "val"), ("train", "test"), ("val", "test")):
            known = frame.iloc[sides[first]]
            met = frame.iloc[sides[second]]
            met = met[met["group"].isin(known["group"])]
            labelled = known.dropna().groupby("group")["label"].agg(["min", "max"])
            copied = met.dropna().join(labelled, on="group").dropna()
            right = (copied["min"] == copied["label"]) & (copied["max"] == copied["label"])
            rows.append(
                {
                    "level": level,
                    "first": first,
                    "second": second,
                    "groups": met["group"].nunique(),
                    "lesions": len(met),
                    "share": len(met) / len(sides[second]) if len(sides[second]) else np.nan,
                    "same_label": float(right.mean()) if len(copied) else np.nan,
                }
            )
    return pd.DataFrame(rows)


def assert_disjoint(table: pd.DataFrame, split: Split, *, group: str = "patient_id") -> None:
    """Raise if a group stands on two sides of a split.

    Parameters
    ----------
    table : DataFrame
    split : Split
        Positions in `table`.
    group : str
        Column whose values must not be shared.

    Raises
    ------
    LeakageError
        Naming the groups, or the rows that are on two sides themselves.
    ValueError
        If the column is absent or has missing values, or positions lie outside the table.
    """
    sides = _checked_sides(table, split)
    if group not in table:
        raise ValueError(f"the table has no column {group!r}; it has {list(table.columns)}")
    names = table[group].to_numpy()[np.unique(_groups(table, group), return_index=True)[1]]
    codes = _groups(table, group)
    for first, second in (("train", "val"), ("train", "test"), ("val", "test")):
        twice = np.intersect1d(sides[first], sides[second])
        if len(twice):
            raise LeakageError(
                f"{len(twice)} rows are in {first} and in {second}: {_some(twice.tolist())}"
            )
        shared = np.intersect1d(codes[sides[first]], codes[sides[second]])
        if len(shared):
            raise LeakageError(
                f"{len(shared)} values of {group} are in {first} and in {second}: "
                f"{_some(names[shared].tolist())}"
            )


# ------------------------------------------------------------------------------------ checked input


def _some(values: list) -> str:
    return ", ".join(map(str, values[:5])) + (", ..." if len(values) > 5 else "")


def _whole(value: int, name: str, least: int = 0) -> int:
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < least:
        raise ValueError(f"{name} must be a whole number of at least {least}, not {value!r}")
    return int(value)


def _check_table(table: pd.DataFrame) -> None:
    if not isinstance(table, pd.DataFrame):
        raise TypeError(f"table is a DataFrame, not {type(table).__name__}")


def _shares(fractions: Sequence[float]) -> np.ndarray:
    try:
        shares = np.asarray(fractions, dtype=float)
    except (TypeError, ValueError):
        shares = np.zeros(0)
    if shares.shape != (3,) or not (shares > 0).all() or abs(shares.sum() - 1) > 1e-6:
        raise ValueError(
            f"fractions must be three shares above 0 that make 1 together, not {fractions!r}"
        )
    return shares


def _classes(labels, name: str) -> np.ndarray:
    """Return labels as codes 0, 1, ...; at least two classes, none missing."""
    if np.ndim(labels) != 1:
        raise ValueError(f"{name} must have one dimension, not {np.ndim(labels)}")
    labels = pd.Series(labels).reset_index(drop=True)
    if labels.empty:
        raise ValueError(f"{name}: empty")
    if labels.isna().any():
        raise ValueError(
            f"{name}: {int(labels.isna().sum())} of {len(labels)} labels are missing; leave those "
            "rows out first: table[table['label'].notna()]"
        )
    codes, found = pd.factorize(labels, sort=True)
    if len(found) < 2:
        raise ValueError(f"{name}: one class only ({found[0]!r}); stratifying needs two")
    if len(found) > max(20, len(labels) // 2):
        raise ValueError(f"{name}: {len(found)} different values are no classes")
    return codes


def _groups(table: pd.DataFrame, column: str) -> np.ndarray:
    """Return the groups of a table as codes 0, 1, ..., none missing."""
    if table.empty:
        raise ValueError("the table has no rows")
    if table[column].ndim != 1:
        raise ValueError(f"the column {column!r} stands in the table twice")
    if table[column].isna().any():
        raise ValueError(
            f"column {column!r}: {int(table[column].isna().sum())} of {len(table)} rows are in no "
            "group"
        )
    return pd.factorize(table[column])[0]


def _checked_sides(table: pd.DataFrame, split: Split) -> dict[str, np.ndarray]:
    """Return the positions of each side, all of them inside the table."""
    _check_table(table)
    if not all(hasattr(split, name) for name in _SIDES):
        raise TypeError(
            f"split has the sides train, val and test, {type(split).__name__} has not: "
            "Split(train, val, test)"
        )
    return dict(_positions(table, split))


def _positions(table: pd.DataFrame, split: Split) -> Iterator[tuple[str, np.ndarray]]:
    for name in _SIDES:
        positions = np.asarray(getattr(split, name))
        if positions.size == 0:
            positions = positions.astype(int)
        if positions.ndim != 1 or positions.dtype.kind not in "iu":
            raise ValueError(f"{name}: positions must be a vector of whole numbers")
        if positions.size and (positions.min() < 0 or positions.max() >= len(table)):
            raise ValueError(
                f"{name}: positions {positions.min()} to {positions.max()} lie outside a table of "
                f"{len(table)} rows; were they made for another table?"
            )
        yield name, positions
