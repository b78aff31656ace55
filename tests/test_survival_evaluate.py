"""Cross-validated prediction: known truth, no look at the test patients, and refusals."""

import numpy as np
import pandas as pd
import pytest

from tumorbench_utils.splits import Split, grouped_splits
from tumorbench_utils.survival import concordance, evaluate
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
    assert result.difference("clinical + embedding", "clinical").low > 0


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
    assert (result.n, result.left_out) == (220, 0)
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
    model = RidgeCox(parts(x)[train], none[train], time[train], event[train] == 1, train, 0)
    own = result.predictions.query("split == 0 and model == 'embedding'")
    risk = model.risk(parts(x), none)[own["row"]]
    assert own["risk"].to_numpy() == pytest.approx(risk)
    cut = np.median(model.risk(parts(x), none)[train])
    assert own["high_risk"].tolist() == (risk > cut).tolist()


def test_missing_covariates_leave_the_same_patients_for_all_models():
    x, time, event, covariates, _ = sample()
    covariates.loc[:9, "age"] = np.nan
    result = evaluate(x, time, event, covariates, splits_of(event))
    assert (result.n, result.left_out) == (210, 10)
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


def test_a_death_counts_once_however_many_lesions_a_patient_has():
    x, time, event, _, _ = sample(n=120)
    lesions = np.where(np.arange(120) < 12, 6, 1)
    rows = np.repeat(np.arange(120), lesions)
    first = np.flatnonzero(~pd.Series(rows).duplicated())
    table = pd.DataFrame({"patient_id": rows, "event": event[rows]})
    splits = grouped_splits(table, n_repeats=3, stratify="event")
    noise = np.random.default_rng(0).normal(size=(len(rows), x.shape[1]))
    noise[first] = 0  # the first lesion of a patient stands for the patient
    result = evaluate(x[rows] + noise, time[rows], event[rows], splits=splits, groups=rows)
    assert (result.n, result.events, result.left_out) == (120, event.sum(), len(rows) - 120)
    # the same patients, one row each, in the same splits
    place = dict(zip(first, range(120), strict=True))
    single = [
        Split(*(np.array([place[r] for r in part if r in place], dtype=int) for part in split))
        for split in splits
    ]
    one = evaluate(x, time, event, splits=single)
    pd.testing.assert_frame_equal(result.scores, one.scores)


def test_the_order_of_the_rows_does_not_matter():
    x, time, event, covariates, _ = sample()
    names = pd.Index([f"p{i:03d}" for i in range(220)], name="lesion_id")
    x, covariates = pd.DataFrame(x, names), covariates.set_index(names)
    time, event = pd.Series(time, names), pd.Series(event, names)
    splits = splits_of(event.to_numpy(), 2)
    mixed = np.random.default_rng(0).permutation(220)
    place = np.argsort(mixed)
    turned = [Split(*(place[part] for part in split)) for split in splits]
    one = evaluate(x, time, event, covariates, splits)
    two = evaluate(x, time.iloc[mixed], event, covariates, turned)
    assert two.scores["value"].to_numpy() == pytest.approx(one.scores["value"].to_numpy())


def test_patient_folds_share_out_the_events():
    died = np.random.default_rng(0).random(50) < 0.3
    fold = patient_folds(died, np.arange(50), seed=1)
    per_fold = np.bincount(fold, weights=died)
    assert np.ptp(per_fold) <= 1 and np.ptp(np.bincount(fold)) <= 1


@pytest.mark.parametrize("unit", [1e160, 1e-200])
def test_the_unit_of_the_embedding_and_of_a_covariate_changes_nothing(unit):
    x, time, event, covariates, _ = sample()
    splits, age = splits_of(event, 2), covariates[["age"]]
    one = evaluate(x, time, event, age, splits)
    two = evaluate(x.astype(float) * unit, time, event, age * 1e-9, splits)
    assert two.scores["value"].to_numpy() == pytest.approx(one.scores["value"].to_numpy())


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


def test_measures_without_patients_are_left_out():
    x, time, event, _, _ = sample()
    result = evaluate(x, time / 10, event, splits=splits_of(event))
    assert set(result.scores["metric"]) == {"harrell", "uno", "brier"}
