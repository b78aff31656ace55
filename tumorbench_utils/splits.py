"""Splits of a cohort into train, validation and test: as published, and grouped by patient.

Positions are those of the rows of a table (``iloc``), never labels of its index.
"""

from functools import partial
from itertools import combinations
from typing import NamedTuple

import numpy as np
import pandas as pd
from sklearn.model_selection import train_test_split

from tumorbench_utils import checks
from tumorbench_utils.checks import InputError

#: Shares of train, validation and test in the published protocol.
FRACTIONS = (0.5, 0.2, 0.3)


class LeakageError(InputError):
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

    See Also
    --------
    sklearn.model_selection.train_test_split : what is called here twice.
    grouped_splits : the same with patients kept together.

    References
    ----------
    .. [1] Pai S et al. (2025). Foundation model embeddings for quantitative tumor imaging
       biomarkers. AIM-Harvard/TumorImagingBench, ``src/tumorimagingbench/evaluation``.
    """
    classes = _classes(labels, "labels")
    splits = []
    for state in range(seed, seed + n_repeats):
        draw = partial(train_test_split, random_state=state)
        rest, test = draw(np.arange(len(classes)), test_size=0.3, stratify=classes)
        train, val = draw(rest, test_size=0.2 / 0.7, stratify=classes[rest])
        splits.append(Split(train, val, test))
    return splits


def grouped_splits(
    table, n_repeats=10, fractions=FRACTIONS, seed=0, group="patient_id", stratify="label"
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

    See Also
    --------
    sklearn.model_selection.GroupShuffleSplit : keeps groups together, but not class shares.
    sklearn.model_selection.StratifiedGroupKFold : keeps both for folds of equal size; for three
        sides of chosen size it misses the share of label 1 by up to 0.1.
    """
    checks.columns(table, [group] if stratify is None else [group, stratify])
    shares = np.asarray(fractions, dtype=float)
    if shares.shape != (3,) or not (shares > 0).all() or abs(shares.sum() - 1) > 1e-6:
        raise InputError(f"fractions must be three shares above 0 that sum to 1, not {fractions}")
    codes = checks.groups(table[group], table, f"column {group!r}")
    classes = np.zeros(len(table), dtype=int)
    if stratify is not None:
        classes = _classes(table[stratify], f"column {stratify!r}")
    counts = pd.crosstab(codes, classes).to_numpy()
    holders = (counts > 0).sum(axis=0).tolist()
    if not holders or min(holders) < 3:
        raise InputError(f"three sides need at least 3 groups of every class, not {holders}")
    rng, splits = np.random.default_rng(seed), []
    for _ in range(n_repeats):
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
    raise InputError("no split holds every class on every side: too few or too large groups")


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
    checks.columns(table, ["patient_id", *table.columns.intersection(["scan_id", "label"])])
    sides = _sides(table, split)
    labels = table.get("label", pd.Series(pd.NA, index=table.index))
    codes = pd.factorize(labels.to_numpy(dtype=object))[0]
    frame = pd.DataFrame({"label": np.where(codes < 0, np.nan, codes)})  # -1: no label
    rows = []
    for level in [name for name in ("patient_id", "scan_id") if name in table]:
        frame["group"] = checks.groups(table[level], table, f"column {level!r}")
        for first, second in combinations(sides, 2):
            known, met = frame.iloc[sides[first]], frame.iloc[sides[second]]
            met = met[met["group"].isin(known["group"])]
            labelled = known.dropna().groupby("group")["label"].agg(["min", "max"])
            copied = met.join(labelled, on="group").dropna()
            right = (copied["min"] == copied["label"]) & (copied["max"] == copied["label"])
            share = len(met) / len(sides[second]) if len(sides[second]) else np.nan
            counts = met["group"].nunique(), len(met), share, right.mean()
            rows.append((level, first, second, *counts))
    return pd.DataFrame(rows, columns="level first second groups lesions share same_label".split())


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
    checks.columns(table, [group])
    sides = _sides(table, split)
    checks.groups(table[group], table, f"column {group!r}")
    names = table[group].reset_index(drop=True)
    for first, second in combinations(sides, 2):
        rows = np.intersect1d(sides[first], sides[second])
        shared = set(names[sides[first]]) & set(names[sides[second]])
        for what, twice in (("rows", rows.tolist()), (f"values of {group}", sorted(shared))):
            if twice:
                some = ", ".join(map(str, twice[:5])) + (", ..." if len(twice) > 5 else "")
                raise LeakageError(f"{len(twice)} {what} are in {first} and in {second}: {some}")


# ------------------------------------------------------------------------------------ checked input


def _classes(labels, name: str) -> np.ndarray:
    """Return labels as codes 0, 1, ...; at least two classes, none missing."""
    codes, found = pd.factorize(pd.Series(labels), sort=True)
    if missing := (codes < 0).sum():
        raise InputError(f"{name}: {missing} of {len(codes)} labels are missing: leave them out")
    if len(found) < 2:
        raise InputError(f"{name}: one class only ({list(found)}); stratifying needs two")
    return codes


def _sides(table: pd.DataFrame, split: Split) -> dict[str, np.ndarray]:
    """Return the positions of each side, all of them inside the table."""
    sides = {name: np.asarray(getattr(split, name)) for name in Split._fields}
    for name, positions in sides.items():
        whole = positions.ndim == 1 and (positions.dtype.kind in "iu" or not positions.size)
        if not whole or not np.isin(positions, np.arange(len(table))).all():
            raise InputError(f"{name}: positions must be whole numbers from 0 to {len(table) - 1}")
    return {name: positions.astype(int) for name, positions in sides.items()}
