"""Kaplan-Meier, patients at risk and restricted means against hand-worked cases."""

import numpy as np
import pandas as pd
import pytest
from lifelines import KaplanMeierFitter
from matplotlib.figure import Figure

from tumorbench_utils.survival import SurvivalError, draw_curves, kaplan_meier, rmst_difference

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
    for day, message in ((3.5, "last contact at 3 days"), (-1, "not known"), (np.nan, "missing")):
        with pytest.raises(SurvivalError, match=message):
            km.at(day)
    assert kaplan_meier([1, 2], [1, 1]).at(100) == 0  # nobody is left: known


def test_all_censored_is_a_flat_curve():
    km = kaplan_meier([3, 4, 5], [0, 0, 0])
    assert (km.table["survival"] == 1).all() and km.median == np.inf
    assert not km.table.isna().any(axis=None)


@pytest.mark.parametrize(
    "event", [[True, False, True], [1.0, 0.0, 1.0], pd.array([1, 0, 1], dtype="Int64")]
)
def test_events_may_be_booleans_or_numbers(event):
    assert kaplan_meier([1, 2, 3], event).table["survival"].tolist() == pytest.approx(
        [1, 2 / 3, 2 / 3, 0]
    )


def test_curves_end_at_the_last_tick_and_count_the_patients_at_risk():
    time, event, arm = two_arms()
    axes = Figure().subplots()
    draw_curves(axes, time, event, arm, ticks=(0, 6, 10, 22))
    labels = [label.get_text().split("\n") for label in axes.get_xticklabels()]
    assert labels == [["0", "21", "21"], ["6", "21", "12"], ["10", "15", "8"], ["22", "7", "2"]]
    for line, group in zip(axes.lines, ("6-MP", "placebo"), strict=True):
        rows = [i for i, name in enumerate(arm) if name == group]
        km = kaplan_meier([time[i] for i in rows], [event[i] for i in rows])
        assert line.get_label() == group
        assert line.get_ydata() == pytest.approx(km.at(line.get_xdata()))


def test_time_and_event_are_joined_by_their_index():
    time = pd.Series([1.0, 2, 3], index=list("abc"))
    event = pd.Series([1, 1, 0], index=list("abc"))
    km = kaplan_meier(time, event[::-1])
    pd.testing.assert_frame_equal(km.table, kaplan_meier([1, 2, 3], [1, 1, 0]).table)


def test_restricted_mean_by_hand():
    # a: S = 1, 2/3, 1/3 on [0,1), [1,2), [2,4); b: nobody dies before 4
    result = rmst_difference([1, 2, 9, 9, 9, 9], [1, 1, 1, 0, 0, 0], list("aaabbb"), tau=4)
    assert result.value == pytest.approx(4 - 7 / 3)
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
