"""Cross-validated prediction: known truth, no look at the test patients, and refusals."""

import numpy as np
import pandas as pd
import pytest

from tumorbench_utils.splits import Split, grouped_splits
from tumorbench_utils.survival import SurvivalError, concordance, evaluate
from tumorbench_utils.survival.model import Components, RidgeCox, patient_folds


def sample(seed=0, n=220, d=60, effect=1.0):
    """Embedding whose strongest of three factors drives the hazard; age drives it too."""
    rng = np.random.default_rng(seed)
    factors = rng.normal(size=(n, 3)) * (3, 2, 1)
    x = (factors @ rng.normal(size=(3, d)) + rng.normal(size=(n, d))).astype(np.float32)
    age = rng.normal(65, 10, n)
    log_hazard = effect * (factors[:, 0] / 3 + 0.05 * (age - 65))
    death, lost = rng.exponential(700 * np.exp(-log_hazard)) + 1, rng.uniform(1, 3000, n)
    covariates = pd.DataFrame({"age": age, "sex": rng.choice(["female", "male"], n)})
    return x, np.minimum(death, lost), (death <= lost).astype(int), covariates, log_hazard


def splits_of(event, n_repeats=4, patients=None):
    patients = np.arange(len(event)) if patients is None else patients
    table = pd.DataFrame({"patient_id": patients, "event": event})
    return grouped_splits(table, n_repeats=n_repeats, stratify="event")


@pytest.fixture(scope="module")
def result():
    x, time, event, covariates, _ = sample()
    return evaluate(x, time, event, covariates, splits_of(event))


def test_finds_what_there_is_and_stays_below_the_truth(result):
    _, time, event, _, truth = sample()
    mean = result.summary.set_index(["model", "metric"])["mean"]
    best = concordance(time, event, truth, "uno", result.tau)
    for model in ("clinical", "embedding"):
        assert 0.55 < mean[model, "uno"] < mean["clinical + embedding", "uno"] < best + 0.05
    for model in ("embedding", "clinical + embedding"):
        assert mean[model, "brier"] < mean["Kaplan-Meier", "brier"]
    assert mean["clinical + embedding", "auc_730"] > 0.75
    assert result.difference("clinical + embedding", "clinical")["low"] > 0


def test_noise_gives_chance():
    rng = np.random.default_rng(1)
    values = []
    for seed in range(4):
        _, time, event, _, _ = sample(seed)
        result = evaluate(rng.normal(size=(220, 40)), time, event, splits=splits_of(event))
        values.append(result.summary.set_index("metric").loc["uno", "mean"])
    assert np.mean(values) == pytest.approx(0.5, abs=0.06)


def test_shape_of_the_result(result):
    assert set(result.scores["metric"]) == {
        "harrell",
        "uno",
        "brier",
        "auc_365",
        "auc_730",
        "auc_1095",
    }
    counts = result.scores.groupby("model").size()
    assert counts.to_dict() == {
        "Kaplan-Meier": 4,
        "clinical": 24,
        "embedding": 24,
        "clinical + embedding": 24,
    }
    assert not result.scores.isna().any(axis=None)
    assert result.chosen.groupby("model")["penalty"].apply(lambda p: p.isna().all())["clinical"]
    assert (result.n, result.left_out, result.skipped) == (220, 0, [])
    assert {"risk", "high_risk", "survival_730"} <= set(result.predictions)
    assert result.predictions["survival_730"].between(0, 1).all()
    assert not result.summary.isna().any(axis=None)


def test_the_test_patients_are_only_scored():
    """Another outcome of the test patients must not change any prediction."""
    x, time, event, covariates, _ = sample()
    splits = splits_of(event)[:2]
    train = np.concatenate([splits[0].train, splits[0].val])
    other_time, other_event = time.copy(), event.copy()
    test = splits[0].test
    other_time[test], other_event[test] = time[test][::-1], event[test][::-1]
    one = evaluate(x, time, event, covariates, splits, tau=900).predictions.query("split == 0")
    two = evaluate(x, other_time, other_event, covariates, splits, tau=900).predictions.query(
        "split == 0"
    )
    pd.testing.assert_frame_equal(one, two)
    assert np.intersect1d(train, one["row"]).size == 0
    x_moved = x.copy()
    x_moved[test[0]] += 100  # nor may one test patient move the others
    three = evaluate(x_moved, time, event, covariates, splits, tau=900).predictions.query(
        "split == 0"
    )
    rest = (one["row"] != test[0]).to_numpy()
    pd.testing.assert_frame_equal(one[rest], three[rest])


def test_high_risk_is_cut_at_the_training_median(result):
    x, time, event, _, _ = sample()
    split = splits_of(event)[0]
    train = np.sort(np.concatenate([split.train, split.val]))
    parts = Components(x[train].astype(float))
    none = np.empty((len(x), 0))
    model = RidgeCox(parts(x)[train], none[train], time[train], event[train] == 1, train, seed=0)
    own = result.predictions.query("split == 0 and model == 'embedding'")
    risk = model.risk(parts(x), none)[own["row"]]
    assert own["risk"].to_numpy() == pytest.approx(risk)
    cut = np.median(model.risk(parts(x), none)[train])
    assert own["high_risk"].tolist() == (risk > cut).tolist()


def test_missing_covariates_leave_the_same_patients_for_all_models():
    x, time, event, covariates, _ = sample()
    covariates.loc[:9, "age"] = np.nan
    result = evaluate(x, time, event, covariates, splits_of(event))
    assert (result.n, result.left_out, result.missing["age"]) == (210, 10, 10)
    assert result.predictions["row"].min() == 10
    assert result.events == event[10:].sum()


def test_without_splits_and_without_embedding():
    _, time, event, covariates, _ = sample()
    result = evaluate(None, time, event, covariates)
    assert result.scores["split"].nunique() == 10
    assert set(result.scores["model"]) == {"clinical", "Kaplan-Meier"}
    again = evaluate(None, time, event, covariates, seed=0)
    pd.testing.assert_frame_equal(result.scores, again.scores)


def test_nobody_was_censored():
    x, time, _, _, _ = sample(n=120)
    result = evaluate(x, time, np.ones(120))
    assert result.events == result.n == 120 and not result.scores.isna().any(axis=None)


def test_covariates_may_be_an_array():
    _, time, event, covariates, _ = sample()
    numbers = covariates[["age"]].assign(male=covariates["sex"].eq("male"))
    splits = splits_of(event, 2)
    one = evaluate(None, time, event, numbers, splits)
    two = evaluate(None, time, event, numbers.to_numpy(dtype=float), splits)
    pd.testing.assert_frame_equal(one.scores, two.scores)


def test_a_level_seen_in_the_test_part_only_is_handled():
    _, time, event, covariates, _ = sample()
    splits = splits_of(event)
    covariates["centre"] = "a"
    covariates.loc[splits[0].test[0], "centre"] = "b"
    result = evaluate(None, time, event, covariates, splits)
    assert not result.scores.isna().any(axis=None)


def test_lesions_of_a_patient_stay_together():
    x, time, event, _, _ = sample(n=120)
    patients = np.repeat(np.arange(60), 2)
    time, event = time[::2].repeat(2), event[::2].repeat(2)
    result = evaluate(x, time, event, groups=patients)
    for _, rows in result.predictions.groupby("split")["row"]:
        assert rows.isin(2 * np.arange(60)).sum() == rows.isin(2 * np.arange(60) + 1).sum()
    leaking = [
        Split(np.arange(0, 80), np.arange(0), np.arange(81, 120)),
        Split(np.arange(0, 81), np.arange(0), np.arange(81, 120)),
    ]
    with pytest.raises(SurvivalError, match="split 1 has a patient in training and in test"):
        evaluate(x, time, event, splits=leaking, groups=patients)


def test_patient_folds_share_out_the_events():
    rng = np.random.default_rng(0)
    groups = rng.integers(0, 50, 120)
    died = rng.random(50) < 0.3
    fold = patient_folds(died[groups], groups, 5, seed=1)
    assert pd.Series(fold).groupby(groups).nunique().max() == 1
    per_fold = (
        pd.Series(died[np.unique(groups)])
        .groupby(pd.Series(fold).groupby(groups).first().to_numpy())
        .sum()
    )
    assert per_fold.max() - per_fold.min() <= 1


def test_components_are_those_of_scikit_learn():
    from sklearn.decomposition import PCA
    from sklearn.preprocessing import StandardScaler

    for n, d in ((40, 90), (90, 40)):
        x = np.random.default_rng(0).normal(size=(n, d)) * np.arange(1, d + 1)
        x[:, 3] = 7.0  # constant
        ours = Components(x)(x)
        z = StandardScaler().fit_transform(np.delete(x, 3, axis=1))
        theirs = PCA(32).fit_transform(z)
        assert np.abs(ours) == pytest.approx(np.abs(theirs) / theirs[:, 0].std())


def test_measures_without_patients_are_skipped_and_said():
    x, time, event, _, _ = sample()
    result = evaluate(x, time / 10, event, splits=splits_of(event))
    assert [s["metric"] for s in result.skipped] == ["auc_365", "auc_730", "auc_1095"]
    assert set(result.scores["metric"]) == {"harrell", "uno", "brier"}


def with_nan(x):
    x = x.copy()
    x[7, 3] = np.nan
    return x


BAD = {
    "missing feature": (
        lambda a: a | {"X": with_nan(a["X"])},
        "X is missing or not finite in row 7",
    ),
    "one dimension": (lambda a: a | {"X": a["X"][:, 0]}, "shape"),
    "no feature": (lambda a: a | {"X": a["X"][:, :0]}, "shape"),
    "text feature": (lambda a: a | {"X": pd.DataFrame({"f0": ["a"] * 220})}, "must hold numbers"),
    "other length": (lambda a: a | {"X": a["X"][:-1]}, "X has 219 rows"),
    "constant": (lambda a: a | {"X": np.ones((220, 5))}, "constant among the training"),
    "nothing": (lambda a: a | {"X": None, "covariates": None}, "give an embedding"),
    "one covariate without columns": (
        lambda a: a | {"covariates": np.ones(220)},
        "DataFrame or an array",
    ),
    "covariates length": (lambda a: a | {"covariates": a["covariates"][:-1]}, "219 rows"),
    "order": (
        lambda a: a | {"X": pd.DataFrame(a["X"])[::-1], "time": pd.Series(a["time"])},
        "different indexes",
    ),
    "event": (lambda a: a | {"event": a["event"] * 2}, "must be 1"),
    "zero time": (lambda a: a | {"time": a["time"] * 0}, "above 0"),
    "splits": (lambda a: a | {"splits": [(1, 2)]}, "must have train, val and test"),
    "one split": (lambda a: a | {"splits": a["splits"][:1]}, "at least two splits"),
    "rows": (
        lambda a: a | {"splits": [s._replace(test=s.test + 200) for s in a["splits"]]},
        "outside 0..219",
    ),
    "overlap": (
        lambda a: a | {"splits": [s._replace(test=s.train) for s in a["splits"]]},
        "in training and in test",
    ),
    "no event in test": (
        lambda a: (
            a | {"splits": [s._replace(test=s.test[a["event"][s.test] == 0]) for s in a["splits"]]}
        ),
        "no event among its .* test patients",
    ),
    "no event in training": (
        lambda a: (
            a
            | {
                "splits": [
                    s._replace(train=s.train[:0], val=s.val[a["event"][s.val] == 0])
                    for s in a["splits"]
                ]
            }
        ),
        "no event among its .* training patients",
    ),
    "few rows": (
        lambda a: {"X": a["X"][:5], "time": a["time"][:5], "event": np.array([1, 0, 1, 0, 1])},
        "5 rows cannot be split",
    ),
    "tau": (lambda a: a | {"tau": 1e6}, "beyond the training patients"),
    "negative tau": (lambda a: a | {"tau": -1}, "above 0"),
    "groups": (lambda a: a | {"groups": [1, 2]}, "patient of each of the 220 rows"),
    "few events": (
        lambda a: a | {"event": np.where(np.arange(220) % 50 == 0, 1, 0), "splits": None},
        "too few to choose a penalty",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_refuses(name):
    x, time, event, covariates, _ = sample()
    good = {
        "X": x,
        "time": time,
        "event": event,
        "covariates": covariates,
        "splits": splits_of(event, 2),
    }
    make, message = BAD[name]
    with pytest.raises(SurvivalError, match=message):
        evaluate(**make(good))


def test_unknown_scores_name_the_known(result):
    with pytest.raises(SurvivalError, match="known are"):
        result.difference("clinical", "embedding alone")
