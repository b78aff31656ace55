"""Kaplan-Meier, log-rank, patients at risk and restricted means against hand-worked cases."""

import numpy as np
import pandas as pd
import pytest
from lifelines import KaplanMeierFitter
from lifelines.statistics import logrank_test

from tumorbench_utils.survival import (
    SurvivalError,
    kaplan_meier,
    logrank,
    number_at_risk,
    rmst_difference,
)

# Freireich et al. (1963): weeks in remission of 21 patients on 6-mercaptopurine and 21 on placebo.
MP_TIME = [6, 6, 6, 6, 7, 9, 10, 10, 11, 13, 16, 17, 19, 20, 22, 23, 25, 32, 32, 34, 35]
MP_EVENT = [1, 1, 1, 0, 1, 0, 1, 0, 0, 1, 1, 0, 0, 0, 1, 1, 0, 0, 0, 0, 0]
PLACEBO_TIME = [1, 1, 2, 2, 3, 4, 4, 5, 5, 8, 8, 8, 8, 11, 11, 12, 12, 15, 17, 22, 23]


def two_arms():
    time = MP_TIME + PLACEBO_TIME
    event = MP_EVENT + [1] * 21
    return time, event, ["6-MP"] * 21 + ["placebo"] * 21


def test_curve_of_the_textbook_example():
    km = kaplan_meier(MP_TIME, MP_EVENT)
    assert km.at([6, 7, 10, 13, 16, 22, 23]) == pytest.approx(
        [18 / 21, 18 / 21 * 16 / 17, 0.7529, 0.6902, 0.6275, 0.5378, 0.4482], abs=5e-5
    )
    assert km.median == 23
    assert (km.n, km.events) == (21, 9)
    assert km.table.set_index("time")["at_risk"].loc[[0, 6, 7, 10, 35]].tolist() == [
        21,
        21,
        17,
        15,
        1,
    ]


def test_greenwood_interval_by_hand():
    # S(6) = 6/7 with Greenwood's sum 3 / (21 * 18); limits on the scale of log(-log S)
    km = kaplan_meier(MP_TIME, MP_EVENT).table.set_index("time")
    s, theta = 6 / 7, 1.959963984540054 * np.sqrt(3 / (21 * 18)) / np.log(6 / 7)
    assert km.loc[6, ["low", "high"]].tolist() == pytest.approx(
        [s ** np.exp(-theta), s ** np.exp(theta)]
    )


def test_agrees_with_lifelines_where_times_are_tied():
    rng = np.random.default_rng(0)
    time, event = np.ceil(rng.exponential(10, 200)), rng.integers(0, 2, 200)
    km, fit = kaplan_meier(time, event), KaplanMeierFitter().fit(time, event)
    assert km.table["survival"].to_numpy() == pytest.approx(fit.survival_function_.to_numpy()[:, 0])
    assert km.table[["low", "high"]].to_numpy() == pytest.approx(
        fit.confidence_interval_.to_numpy()
    )
    days = np.arange(0, 30)
    assert km.at(days) == pytest.approx(fit.predict(days).to_numpy())


@pytest.mark.parametrize(
    ("time", "event", "median"),
    [
        ([1, 2, 3, 4], [1, 1, 1, 1], 2),  # exactly 1/2 counts, rounding or not
        ([1, 2, 3, 4, 5, 6], [1, 1, 1, 1, 1, 1], 3),
        ([1, 2, 3, 4, 5], [1, 0, 1, 0, 1], 5),
        ([1, 2, 3], [1, 0, 0], np.inf),
        ([5], [1], 5),
    ],
)
def test_median(time, event, median):
    assert kaplan_meier(time, event).median == median


def test_interval_of_the_median_covers_the_truth():
    rng = np.random.default_rng(1)
    truth, hits = np.log(2) * 100, 0
    for _ in range(200):
        death, censored = rng.exponential(100, 80), rng.uniform(20, 300, 80)
        low, high = kaplan_meier(np.minimum(death, censored), death <= censored).median_interval
        hits += low <= truth <= high
    assert 0.9 <= hits / 200 <= 0.99


def test_at_gives_a_number_for_a_number_and_refuses_the_unknown():
    km = kaplan_meier([1, 2, 3], [1, 1, 0])
    assert isinstance(km.at(1), float) and km.at(0) == 1 and km.at(0.5) == 1
    with pytest.raises(SurvivalError, match="last patient was censored at 3 days"):
        km.at(3.5)
    with pytest.raises(SurvivalError, match="negative"):
        km.at(-1)
    with pytest.raises(SurvivalError, match="missing"):
        km.at(np.nan)
    assert kaplan_meier([1, 2], [1, 1]).at(100) == 0  # nobody is left: known


def test_all_censored_is_a_flat_curve():
    km = kaplan_meier([3, 4, 5], [0, 0, 0])
    assert (km.table["survival"] == 1).all() and km.median == np.inf
    assert not km.table.isna().any(axis=None)


BAD = {
    "zero time": ([0, 1, 2], [1, 0, 1], "above 0"),
    "negative time": ([-3, 1, 2], [1, 0, 1], "above 0"),
    "missing time": ([np.nan, 1, 2], [1, 0, 1], "time is missing"),
    "missing time, nullable": (pd.array([None, 1, 2], dtype="Int64"), [1, 0, 1], "time is missing"),
    "infinite time": ([np.inf, 1, 2], [1, 0, 1], "not finite"),
    "text": (["a", "b", "c"], [1, 0, 1], "must hold numbers"),
    "numbers as text": (["1", "2", "3"], [1, 0, 1], "must hold numbers"),
    "one string": ("123", [1, 0, 1], "one-dimensional"),
    "dates": (pd.to_datetime(["2020-01-01"] * 3), [1, 0, 1], "must hold numbers"),
    "two columns": ([[1, 2], [3, 4]], [1, 0], "one-dimensional"),
    "code 2": ([1, 2, 3], [1, 2, 1], "must be 1"),
    "fraction": ([1, 2, 3], [1, 0.5, 1], "must be 1"),
    "missing event": ([1, 2, 3], [1, None, 1], "event is missing"),
    "event as text": ([1, 2, 3], ["dead", "alive", "dead"], "must hold numbers"),
    "lengths": ([1, 2, 3], [1, 0], "3 values, event has 2"),
    "empty": ([], [], "empty"),
    "indexes": (
        pd.Series([1, 2], index=["a", "b"]),
        pd.Series([1, 0], index=["b", "a"]),
        "indexes",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_outcomes_are_named(name):
    time, event, message = BAD[name]
    with pytest.raises(SurvivalError, match=message):
        kaplan_meier(time, event)


@pytest.mark.parametrize(
    "event", [[True, False, True], [1.0, 0.0, 1.0], pd.array([1, 0, 1], dtype="Int64")]
)
def test_events_may_be_booleans_or_numbers(event):
    assert kaplan_meier([1, 2, 3], event).events == 2


def test_number_at_risk_by_group():
    time, event, arm = two_arms()
    table = number_at_risk(time, event, [0, 6, 10, 22], arm)
    assert table.loc["6-MP"].tolist() == [21, 21, 15, 7]
    assert table.loc["placebo"].tolist() == [21, 12, 8, 2]
    assert number_at_risk(time, event, [0]).loc["all", 0] == 42


def test_logrank_of_the_textbook_example():
    result = logrank(*two_arms())
    assert result.statistic == pytest.approx(16.79, abs=0.005)  # as printed in Cox and Oakes (1984)
    assert result.degrees == 1
    other = logrank_test(MP_TIME, PLACEBO_TIME, MP_EVENT, [1] * 21)
    assert result.p == pytest.approx(other.p_value)


@pytest.mark.parametrize("group", [["a"] * 3, ["a", None, "b"], ["a", "b"]])
def test_logrank_refuses_bad_groups(group):
    with pytest.raises(SurvivalError):
        logrank([1, 2, 3], [1, 1, 1], group)


def test_restricted_mean_by_hand():
    # a: S = 1, 2/3, 1/3 on [0,1), [1,2), [2,4); b: nobody dies before 4
    result = rmst_difference([1, 2, 9, 9, 9, 9], [1, 1, 1, 0, 0, 0], list("aaabbb"), tau=4)
    assert result.means == pytest.approx({"a": 1 + 2 / 3 + 2 / 3, "b": 4})
    assert result.difference == pytest.approx(4 - 7 / 3)
    # Greenwood: A_1 = 2/3 + 2/3, d/(n(n-d)) = 1/6; A_2 = 2/3, 1/2
    error = np.sqrt((4 / 3) ** 2 / 6 + (2 / 3) ** 2 / 2)
    assert (result.high - result.low) / 2 == pytest.approx(1.959964 * error)


def test_restricted_mean_interval_covers_the_truth():
    rng = np.random.default_rng(3)
    tau, hits = 200, 0
    truth = 200 * (1 - np.exp(-tau / 200)) - 100 * (1 - np.exp(-tau / 100))
    for _ in range(400):
        group = np.repeat(["a", "b"], 100)
        death = rng.exponential(np.where(group == "a", 100, 200))
        censored = rng.uniform(50, 800, 200)
        time = np.minimum(death, censored)
        result = rmst_difference(time, death <= censored, group, tau)
        hits += result.low <= truth <= result.high
    assert 0.925 <= hits / 400 <= 0.98


def test_restricted_mean_refuses_what_it_cannot_know():
    time, event, arm = two_arms()
    with pytest.raises(SurvivalError, match="'6-MP' was followed for 35 days"):
        rmst_difference(time, event, arm, tau=40)
    with pytest.raises(SurvivalError, match="two groups"):
        rmst_difference(time, event, ["a"] * 42, tau=10)
    with pytest.raises(SurvivalError, match="neither group has an event"):
        rmst_difference(time, event, arm, tau=0.5)
    with pytest.raises(SurvivalError, match="increasing days above 0"):
        rmst_difference(time, event, arm, tau=-1)
    with pytest.raises(SurvivalError, match="one number"):
        rmst_difference(time, event, arm, tau=[1, 2])
