"""Input of statistics and probes that looks like numbers, and is not; and numbers in other types."""

import numpy as np
import pandas as pd
import pytest

from tumorbench_utils import probes, splits, stats

Y, S = [0, 0, 1, 1], [0.1, 0.4, 0.35, 0.8]


@pytest.mark.parametrize("kind", [np.int64, np.int8, np.float32, np.bool_])
def test_numpy_scalars_in_a_column_of_objects_are_numbers(kind):
    assert stats.auc(pd.Series([kind(v) for v in Y], dtype=object), S) == 0.75


@pytest.mark.parametrize(
    "score",
    [
        ["1", "2", "3", "4"],
        pd.Series(["1", "2", "3", "4"]),
        pd.Series([1, 2, 3, "4"], dtype=object),
        pd.to_datetime(["2020", "2021", "2022", "2023"]),
        [1, 2, 3, 4j],
    ],
)
def test_text_dates_and_complex_values_are_no_scores(score):
    with pytest.raises(ValueError, match="score must hold numbers"):
        stats.auc(Y, score)


def test_text_is_no_p_value_no_performance_and_no_feature():
    with pytest.raises(ValueError, match="p_values must hold numbers"):
        stats.holm(["0.01", "0.02"])
    frame = pd.DataFrame(np.eye(3)).astype(str)
    with pytest.raises(ValueError, match="must hold numbers"):
        stats.friedman_nemenyi(frame)
    y = np.arange(40) % 2
    with pytest.raises(ValueError, match="X must hold numbers"):
        probes.run_probe(np.eye(40).astype(str), y, splits.reference_splits(y, 2))


@pytest.mark.parametrize("size", ["70", True, None, [70], np.nan])
def test_sizes_of_splits_are_numbers(size):
    with pytest.raises(ValueError, match="n_train must be a number above 0"):
        stats.corrected_interval([0.7, 0.8], size, 30)


def test_what_is_no_split_is_named():
    y = np.arange(40) % 2
    X = np.random.default_rng(0).normal(size=(40, 2))
    one = splits.reference_splits(y, 1)[0]
    for wrong in (one, [(one.train, one.val, one.test)]):
        with pytest.raises(ValueError, match=r"\.train, \.val and \.test"):
            probes.run_probe(X, y, wrong)
    for shots, seed, says in ((5, 0, "list"), ([1], None, "seed"), ([1], -1, "seed")):
        with pytest.raises(ValueError, match=says):
            probes.few_shot(X, y, [one], shots, seed)
