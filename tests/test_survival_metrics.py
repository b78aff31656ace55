"""Concordance, AUC, Brier score and weighted labels against scikit-survival and cases by hand."""

import numpy as np
import pandas as pd
import pytest
import sksurv.metrics as sk
from lifelines.utils import concordance_index
from sksurv.util import Surv

from tumorbench_utils.survival import (
    SurvivalError,
    bootstrap_concordance,
    censored_label,
    concordance,
    integrated_brier,
    kaplan_meier,
    time_dependent_auc,
)
from tumorbench_utils.survival.metrics import brier_score


def sample(seed, n=150, effect=1.0, ties=False, censoring=900.0):
    """Exponential survival whose log hazard is effect * risk; uniform censoring."""
    rng = np.random.default_rng(seed)
    risk = rng.normal(size=n)
    death, lost = rng.exponential(500 * np.exp(-effect * risk)), rng.uniform(0, censoring, n)
    time, event = np.minimum(death, lost) + 1, death <= lost
    if ties:
        time, risk = np.ceil(time / 60) * 60, np.round(risk, 1)
    return time, event, risk


@pytest.fixture(params=[(0, False), (1, True), (2, True)], ids=["distinct", "ties", "ties 2"])
def pair(request):
    """A training and a test sample; the last training patient outlives the test sample."""
    seed, ties = request.param
    train, test = sample(seed, 200, ties=ties), sample(seed + 50, ties=ties)
    train[0][0], train[1][0] = test[0].max() + 60, True
    return train, test, Surv.from_arrays(train[1], train[0]), Surv.from_arrays(test[1], test[0])


def test_harrell_agrees_with_two_libraries(pair):
    _, (time, event, risk), _, _ = pair
    value = concordance(time, event, risk)
    assert value == pytest.approx(sk.concordance_index_censored(event, time, risk)[0], abs=1e-10)
    assert value == pytest.approx(concordance_index(time, -risk, event), abs=1e-10)


@pytest.mark.parametrize("tau", [None, 300, 600])
def test_uno_agrees_with_scikit_survival(pair, tau):
    train, (time, event, risk), train_y, test_y = pair
    value = concordance(time, event, risk, method="uno", tau=tau, train=train[:2])
    assert value == pytest.approx(
        sk.concordance_index_ipcw(train_y, test_y, risk, tau)[0], abs=1e-10
    )


def test_uno_takes_the_censoring_from_the_patients_scored_by_default():
    time, event, risk = sample(7, ties=True)
    y = Surv.from_arrays(event, time)
    other = sk.concordance_index_ipcw(y, y, risk, tau=600)[0]
    assert concordance(time, event, risk, method="uno", tau=600) == pytest.approx(other, abs=1e-10)


def test_auc_agrees_with_scikit_survival(pair):
    train, (time, event, risk), train_y, test_y = pair
    days = [120, 250, 365.25, 500]
    auc = time_dependent_auc(time, event, risk, days, train=train[:2])
    expected = sk.cumulative_dynamic_auc(train_y, test_y, risk, days)[0]
    assert auc.to_numpy() == pytest.approx(expected, abs=1e-10)
    assert auc.index.tolist() == days


def test_brier_agrees_with_scikit_survival(pair):
    train, (time, event, risk), train_y, test_y = pair
    days = np.linspace(60, 600, 19)
    alive = np.exp(-np.exp(risk)[:, None] * days / 500)
    _, expected = sk.brier_score(train_y, test_y, alive, days)
    scores = brier_score(time, event, alive, days, train=train[:2])
    assert scores == pytest.approx(expected, abs=1e-10)
    whole = integrated_brier(time, event, alive, days, train=train[:2])
    assert whole == pytest.approx(
        sk.integrated_brier_score(train_y, test_y, alive, days), abs=1e-10
    )


def test_concordance_by_hand():
    # pairs: (1,2) (1,3) (1,4) (3,4); patient 2 is censored and starts none
    time, event = [1, 2, 3, 4], [1, 0, 1, 1]
    assert concordance(time, event, [4, 3, 2, 1]) == 1
    assert concordance(time, event, [1, 2, 3, 4]) == 0
    assert concordance(time, event, [2, 3, 2, 1]) == pytest.approx((0 + 0.5 + 1 + 1) / 4)
    assert concordance(time, event, [0, 0, 0, 0]) == 0.5
    assert concordance(time, event, [2, 3, 2, 1], tau=3) == pytest.approx(
        1.5 / 3
    )  # earlier time < 3


def test_uno_by_hand():
    # G drops to 2/3 at 2 (one of three censored); weights 1 at 1, 9/4 at 3
    value = concordance([1, 2, 3, 4], [1, 0, 1, 1], [2, 3, 2, 1], method="uno")
    assert value == pytest.approx((1.5 + 9 / 4) / (3 + 9 / 4))


def test_tied_times():
    # two events at once: no pair; an event and a censoring at once: the event came first
    assert concordance([5, 5, 9], [1, 1, 0], [3, 1, 2]) == pytest.approx(1 / 2)
    assert concordance([5, 5], [1, 0], [2, 1]) == 1


def test_uno_does_not_depend_on_censoring_and_harrell_does():
    """With hazards that are not proportional the pairs that light censoring hides matter."""
    rng = np.random.default_rng(4)
    n = 4000
    risk = rng.normal(size=n)
    death = rng.weibull(np.where(risk > 0, 3.0, 0.6)) * 500 + 1
    full = concordance(death, np.ones(n), risk, tau=600)
    lost = rng.exponential(500, n) + 1
    time, event = np.minimum(death, lost), death <= lost
    uno = concordance(time, event, risk, method="uno", tau=600)
    harrell = concordance(time, event, risk, tau=600)
    assert abs(uno - full) < 0.02 < abs(harrell - full)


def test_measures_do_not_care_about_order_scale_or_memory():
    time, event, risk = sample(5, n=3000, ties=True)
    mixed = np.random.default_rng(0).permutation(3000)
    for method in ("harrell", "uno"):
        one = concordance(time, event, risk, method, tau=500)
        assert concordance(time[mixed], event[mixed], risk[mixed], method, 500) == pytest.approx(
            one
        )
        assert concordance(time, event, 1e-12 * risk + 3e-12, method, 500) == pytest.approx(one)


def test_bootstrap_interval_covers_the_truth():
    truth = concordance(*sample(99, n=6000, censoring=1e9), tau=700)
    hits = 0
    for seed in range(200):
        value, low, high = bootstrap_concordance(*sample(seed, n=120, censoring=1e9), 700, n=300)
        assert low <= value <= high
        hits += low <= truth <= high
    assert 0.89 <= hits / 200 <= 0.985


def test_bootstrap_counts_patients_as_copies_would():
    time, event, risk = sample(6, n=25)
    draw = np.random.default_rng(0).multinomial(25, np.full(25, 1 / 25))
    rows = np.repeat(np.arange(25), draw)
    _, low, high = bootstrap_concordance(time, event, risk, n=1, seed=0)
    assert low == high == pytest.approx(concordance(time[rows], event[rows], risk[rows]))


def test_times_beyond_the_training_patients_are_refused_and_tau_is_the_remedy():
    train, (time, event, risk) = ([100, 200, 300], [1, 0, 1]), sample(8)
    with pytest.raises(SurvivalError, match="followed for 300 days at most; stop earlier"):
        concordance(time, event, risk, method="uno", train=train)
    assert 0 < concordance(time, event, risk, method="uno", tau=300, train=train) < 1
    with pytest.raises(SurvivalError, match="300 days at most"):
        time_dependent_auc(time, event, risk, 400, train=train)
    with pytest.raises(SurvivalError, match="300 days at most"):
        brier_score(time, event, np.full((150, 1), 0.5), [400], train=train)


def test_auc_of_two_year_survival_without_censoring_is_the_plain_auc():
    time, event, risk = sample(10, censoring=1e9)
    later = (time > 400)[:, None] & (time <= 400)
    plain = np.mean((risk[:, None] < risk)[later] + 0.5 * (risk[:, None] == risk)[later])
    assert time_dependent_auc(time, event, risk, 400).iloc[0] == pytest.approx(plain)


def test_brier_by_hand():
    time, event = [1, 2, 3, 4], [1, 1, 1, 1]
    scores = brier_score(time, event, [0.5, 0.5], [1.5, 2.5])
    assert scores.tolist() == [0.25, 0.25]
    perfect = [[0, 0], [1, 0], [1, 1], [1, 1]]
    assert brier_score(time, event, perfect, [1.5, 2.5]).tolist() == [0, 0]


def test_censored_label_by_hand():
    frame = censored_label(
        pd.Series([100, 200, 300, 800], index=list("abcd")),
        pd.Series([1, 0, 1, 0], index=list("abcd")),
        730,
    )
    assert frame["label"].tolist() == [0, pd.NA, 0, 1]
    assert frame["weight"].tolist() == pytest.approx([1, 0, 1.5, 1.5])  # G = 2/3 from 200 days on
    assert frame.index.tolist() == list("abcd")


def test_weights_of_the_label_recover_the_survival():
    time, event, _ = sample(11, n=500, censoring=1500)
    frame = censored_label(time, event, 730)
    weighted = np.average(frame["label"].fillna(0).astype(int), weights=frame["weight"])
    complete = frame["label"].dropna().mean()
    alive = kaplan_meier(time, event).at(730)
    assert weighted == pytest.approx(alive, abs=0.005)
    assert complete < alive - 0.03  # complete cases miss the censored survivors
    assert frame["weight"].sum() == pytest.approx(500, rel=0.02)
