"""Phantom patients and their parameters: laws, outcomes with known truth, calibration."""

import copy

import numpy as np
import pandas as pd
import pytest
import yaml
from lifelines import CoxPHFitter, KaplanMeierFitter
from scipy import stats as sps
from scipy.special import expit, logit
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

import tumorbench_phantoms as phantoms
from tumorbench_phantoms import cohort, latent, parameters
from tumorbench_phantoms.facts import facts
from tumorbench_utils import cohorts, digests, settings

COHORTS = (
    "luna16",
    "dlcs",
    "nsclc_radiomics",
    "nsclc_radiogenomics",
    "c4kc_kits",
    "colorectal_liver_metastases",
    "rider_lung_ct",
)
WITH_OUTCOME = COHORTS[:-1]
CLINICAL = {
    "nsclc_radiomics": "stage",
    "nsclc_radiogenomics": "stage",
    "c4kc_kits": "stage",
    "colorectal_liver_metastases": "clinrisk_score",
}


@pytest.fixture(scope="module")
def drawn():
    """Large tables without images, one per cohort."""
    tables = {}
    for name in COHORTS:
        of = phantoms.of_cohort(name)
        tables[name] = phantoms.draw(of, 40_000, phantoms.stream(of, "simulation", 11))
    return tables


def changed(tmp_path, change) -> parameters.Path:
    """Return a copy of the parameters in which `change` has altered something."""
    content = yaml.safe_load(parameters.PARAMETERS.read_text(encoding="utf-8"))
    content = copy.deepcopy(content)
    change(content)
    path = tmp_path / "phantoms.yml"
    path.write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")
    return path


# Parameters


def test_all_twins_are_there():
    content = phantoms.load()
    assert tuple(content["cohorts"]) == COHORTS
    for name in COHORTS:
        of = phantoms.of_cohort(name)
        assert 20 <= of["patients"] and 119 < of["field_mm"] < 141
        assert len(of["scanners"]) in (2, 4)
    with pytest.raises(KeyError, match="unknown phantom cohort 'luna': known are luna16"):
        phantoms.of_cohort("luna")


def set_to(*path_and_value):
    """Return a change that sets one value in nested mappings."""
    *path, last, value = path_and_value

    def change(content):
        for key in path:
            content = content[key]
        content[last] = value

    return change


LUNA = ("cohorts", "luna16")
DIAMETER = (*LUNA, "phenotype", "diameter_mm")
SCANNER = ("share", "spacing_mm", "slice_mm", "thickness_mm")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (set_to("commn", 1), "top level: .*'commn' was unexpected"),
        (set_to("common", "sed", 1), "common: .*'sed' was unexpected"),
        (set_to("common", "size_error", "big"), "common, size_error: 'big' is not of type"),
        (set_to("common", "seed", -1), "common, seed: -1 is less"),
        (set_to("scanners", []), "scanners: .* is not of type 'object'"),
        (set_to("scanners", "A", "sharpnes", 1), "scanners, A: .*'sharpnes'"),
        (set_to("cohorts", None), "cohorts: None is not of type 'object'"),
        (set_to(*LUNA, "pacients", 3), "luna16: .*'pacients' was unexpected"),
        (set_to(*LUNA, "patients", 2.5), "luna16, patients: 2.5"),
        (set_to(*LUNA, "patients", True), "luna16, patients: True"),
        (set_to(*LUNA, "prefix", "../up"), "luna16, prefix"),
        (set_to(*LUNA, "dicom_scans", "3"), "luna16, dicom_scans"),
        (set_to(*LUNA, "lesions_per_patient", 1.0), "luna16, lesions_per_patient"),
        (set_to(*LUNA, "lesions_per_patient", [0.5, 0.4]), "luna16: shares sum to 1"),
        (set_to(*LUNA, "table_lps", "sd", [1, 1, -1]), "table_lps, sd, 2: -1"),
        (set_to(*LUNA, "table_lps", "mean", [0, 0]), "table_lps, mean"),
        (set_to(*LUNA, "covariates", {"shoe_size": {}}), "covariates: .*'shoe_size'"),
        (set_to(*LUNA, "organ", "spleen"), "luna16, organ: 'spleen' is not one of"),
        (set_to(*LUNA, "format", "jpg"), "luna16, format: 'jpg' is not one of"),
        (set_to(*LUNA, "axes", "LPX"), "luna16, axes"),
        (set_to(*LUNA, "axes", "LRS"), "luna16, axes"),
        (set_to(*LUNA, "field_mm", 400), "luna16, field_mm: 400"),
        (set_to(*LUNA, "patient_share", 1.5), "luna16, patient_share: 1.5"),
        (
            set_to(*LUNA, "acquisition", "E", dict.fromkeys(SCANNER, 0.5)),
            "luna16: every scanner is one of",
        ),
        (set_to(*LUNA, "acquisition", "A", "slice_mm", None), "acquisition, A, slice_mm: None"),
        (set_to(*LUNA, "acquisition", "A", "slice_mm", -1), "acquisition, A, slice_mm: -1"),
        (set_to(*DIAMETER, "law", "lognormel"), "diameter_mm, law: 'lognormel' is not one of"),
        (set_to(*DIAMETER, "spread", 0), "diameter_mm, spread: 0"),
        (set_to(*DIAMETER, "spread", float("inf")), "luna16: numbers are finite"),
        (set_to(*DIAMETER, "low", 90), "luna16: low is below high"),
        (set_to(*DIAMETER, "floor", 50), "luna16: a median is above its floor"),
        (set_to(*LUNA, "phenotype", "lobulation", "median", 1.0), "lobulation, median: 1.0"),
        (set_to(*LUNA, "phenotype", "lobulation", "with_size", 1.0), "lobulation, with_size: 1.0"),
        (set_to(*LUNA, "phenotype", "colour", {}), "phenotype: .*'colour'"),
        (set_to(*LUNA, "outcome", "level", "scan"), "outcome, level: 'scan' is not one of"),
        (set_to(*LUNA, "outcome", "kind", "time"), "outcome, kind: 'time' is not one of"),
        (set_to(*LUNA, "outcome", "intercept", float("nan")), "luna16: numbers are finite"),
        (set_to(*LUNA, "outcome", "weights", "age", 1), "luna16: weights are of quantities"),
        (
            set_to("cohorts", "c4kc_kits", "outcome", "follow_up", "share", [1, 0.5, 0.6, 0]),
            "c4kc_kits: days rise from 0",
        ),
        (set_to("cohorts", "c4kc_kits", "outcome", "shape", -1), "outcome, shape: -1"),
        (set_to("cohorts", "c4kc_kits", []), "c4kc_kits: .* is not of type 'object'"),
        (lambda c: c["cohorts"]["luna16"]["outcome"].pop("intercept"), "'intercept' is a"),
    ],
)
def test_faults_in_the_parameters_are_named(tmp_path, change, message):
    with pytest.raises(ValueError, match=message):
        phantoms.check(phantoms.load(changed(tmp_path, change)))


def test_the_shipped_parameters_have_no_fault():
    phantoms.check(phantoms.load())


def test_a_change_touches_only_what_it_concerns(tmp_path):
    def fingerprints(content):
        return {name: digests.of(phantoms.of_cohort(name, content)) for name in COHORTS}

    before = fingerprints(phantoms.load())

    def touched(change):
        after = fingerprints(phantoms.load(changed(tmp_path, change)))
        return {name for name in COHORTS if before[name] != after[name]}

    assert touched(lambda c: None) == set()
    assert touched(set_to("cohorts", "dlcs", "outcome", "intercept", -2)) == {"dlcs"}
    assert touched(set_to("scanners", "C", "noise_hu", 31)) == set(COHORTS) - {"rider_lung_ct"}
    assert touched(set_to("common", "seed", 1)) == set(COHORTS)


# Laws


def test_laws_have_the_quantiles_they_promise():
    z = sps.norm.ppf([0.1, 0.5, 0.9])
    law = {"law": "lognormal", "floor": 3, "median": 5, "spread": 0.7, "low": 0, "high": 99}
    expected = sps.lognorm(0.7, loc=3, scale=2).ppf([0.1, 0.5, 0.9])
    assert latent.value(law, z) == pytest.approx(expected)
    law = {"law": "fraction", "median": 0.2, "spread": 1.5}
    assert logit(latent.value(law, z)) == pytest.approx(logit(0.2) + 1.5 * z)
    law = {"law": "normal", "mean": 10, "sd": 2, "low": 8, "high": 12}
    assert latent.value(law, z) == pytest.approx([8, 10, 12])
    law = {"law": "rare", "share": 0.25, "median": 0.4, "spread": 0.5}
    values = latent.value(law, sps.norm.ppf((np.arange(4000) + 0.5) / 4000))
    assert (values > 0).mean() == pytest.approx(0.25, abs=1e-3)
    assert np.median(values[values > 0]) == pytest.approx(0.4, abs=1e-3)
    law = {"law": "levels", "levels": {"a": 0.2, "b": 0.5, "c": 0.3}}
    levels = latent.value(law, sps.norm.ppf((np.arange(4000) + 0.5) / 4000))
    assert np.bincount(levels.astype(int)) / 4000 == pytest.approx([0.2, 0.5, 0.3], abs=1e-3)


@pytest.mark.parametrize(
    "law",
    [
        {"law": "lognormal", "floor": 3, "median": 5, "spread": 0.7, "low": 0, "high": 1e9},
        {"law": "fraction", "median": 0.2, "spread": 1.5},
        {"law": "normal", "mean": 10, "sd": 2, "low": -1e9, "high": 1e9},
    ],
)
def test_scores_undo_the_laws(law):
    z = np.linspace(-2.5, 2.5, 11)
    assert latent.score(law, latent.value(law, z)) == pytest.approx(z)


def test_scores_of_clipped_values_stay_finite():
    law = {"law": "lognormal", "floor": 3, "median": 5, "spread": 0.7, "low": 3, "high": 9}
    assert np.isfinite(latent.score(law, latent.value(law, np.array([-40.0, 40.0])))).all()


def test_quantities_follow_the_size_as_told(drawn):
    table, of = drawn["c4kc_kits"], phantoms.of_cohort("c4kc_kits")
    size = latent.score(of["phenotype"]["diameter_mm"], table["diameter_mm"].to_numpy())
    for name, expected in (("lobulation", 0.3), ("texture_hu", 0.3), ("attenuation_hu", 0.0)):
        values = latent.score(of["phenotype"][name], table[name].to_numpy())
        assert np.corrcoef(size, values)[0, 1] == pytest.approx(expected, abs=0.02)


def test_lesions_of_a_patient_are_alike_as_told(drawn):
    table = drawn["dlcs"]
    pairs = table[table["lesion"] < 2].pivot(index="patient", columns="lesion", values="lobulation")
    pairs = logit(pairs.dropna())
    assert np.corrcoef(pairs[0], pairs[1])[0, 1] == pytest.approx(0.4, abs=0.03)
    assert not table.drop_duplicates(["patient", "patient_factor"])["patient"].duplicated().any()


# Outcomes


@pytest.mark.parametrize("name", ["luna16", "dlcs"])
def test_labels_follow_the_true_log_odds(drawn, name):
    table = drawn[name].drop_duplicates("patient")
    fitted = LogisticRegression(C=np.inf, solver="newton-cholesky").fit(
        table[["true_logit"]], table["label"].astype(int)
    )
    assert fitted.coef_[0, 0] == pytest.approx(1, abs=0.05)
    assert fitted.intercept_[0] == pytest.approx(0, abs=0.1)


def test_labels_of_dlcs_belong_to_the_patient(drawn):
    table = drawn["dlcs"]
    groups = table.groupby("patient")
    one = table.drop_duplicates(["patient", "label", "true_logit"])
    assert len(one) == table["patient"].nunique()
    of = phantoms.of_cohort("dlcs")
    index = table.loc[groups["diameter_mm"].idxmax()].set_index("patient")
    laws = of["phenotype"]
    expected = of["outcome"]["intercept"] + sum(
        weight * (index[k] if k == "patient_factor" else latent.score(laws[k], index[k]))
        for k, weight in of["outcome"]["weights"].items()
    )
    assert index["true_logit"].to_numpy() == pytest.approx(expected.to_numpy())


def test_some_luna_patients_hold_both_labels(drawn):
    several = drawn["luna16"].groupby("patient")["label"].agg(["size", "nunique"])
    # In the released table 53 of the 153 scans with several lesions.
    assert (several["nunique"] == 2).sum() / (several["size"] > 1).sum() == pytest.approx(
        53 / 153, abs=0.03
    )


@pytest.mark.parametrize("name", [n for n in WITH_OUTCOME if n in CLINICAL])
def test_times_follow_the_true_log_hazard(drawn, name):
    table = drawn[name].head(15_000)
    columns = ["true_log_hazard", "time_days", "event"]
    cox = CoxPHFitter().fit(table[columns].astype(float), "time_days", "event")
    assert cox.params_["true_log_hazard"] == pytest.approx(1, abs=0.08)
    outcome = phantoms.of_cohort(name)["outcome"]
    known = table[table["label"].notna()]
    late = known["time_days"] >= outcome["alive_from"]
    assert (late == (known["label"] == 1)).all()
    assert (known.loc[~late, "event"] == 1).all()
    lost = table[table["label"].isna()]
    assert (lost["event"] == 0).all() and (lost["time_days"] < outcome["alive_from"]).all()


@pytest.mark.parametrize("name", ["nsclc_radiomics", "colorectal_liver_metastases"])
def test_two_year_log_odds_are_those_of_the_deaths(name):
    of = phantoms.of_cohort(name)
    # Everybody is followed for 100 years: the labels then are the survival states themselves.
    of["outcome"]["follow_up"] = {"days": [0, 36_500, 36_501], "share": [1.0, 1.0, 0.0]}
    table = phantoms.draw(of, 40_000, phantoms.stream(of, "simulation", 1))
    bins = pd.qcut(table["true_logit"], 8)
    means = table.assign(p=expit(table["true_logit"]), y=table["label"].astype(float))
    means = means.groupby(bins, observed=True)[["p", "y"]].mean()
    assert means["y"].to_numpy() == pytest.approx(means["p"].to_numpy(), abs=0.03)


def test_follow_up_ends_as_told(drawn):
    table, of = drawn["c4kc_kits"], phantoms.of_cohort("c4kc_kits")
    ends = KaplanMeierFitter().fit(table["time_days"].astype(float), 1 - table["event"].astype(int))
    follow_up = of["outcome"]["follow_up"]
    for day, share in zip(follow_up["days"][1:-1], follow_up["share"][1:-1], strict=True):
        assert ends.predict(day) == pytest.approx(share, abs=0.02)


@pytest.mark.parametrize("name", WITH_OUTCOME)
def test_nothing_beats_the_true_log_odds(drawn, name):
    table = drawn[name][drawn[name]["label"].notna()]
    y = table["label"].astype(int)
    best = roc_auc_score(y, table["true_logit"])
    columns = ["diameter_mm", "lobulation", "spiculation", "texture_hu", "necrosis", "rim_hu"]
    columns = [name for name in columns if table[name].std() > 0]
    X = sps.zscore(np.column_stack([table[columns], np.log(table["size_mm"])]))
    half = len(y) // 2
    fitted = LogisticRegression(C=np.inf, solver="newton-cholesky").fit(X[:half], y[:half])
    other = roc_auc_score(y[half:], fitted.decision_function(X[half:]))
    assert other < best
    assert roc_auc_score(y, table["size_mm"]) + 0.02 < best


def test_rider_has_no_outcome(drawn):
    table = drawn["rider_lung_ct"]
    assert table[["label", "time_days", "event", "true_logit", "true_log_hazard"]].isna().all(None)


def test_the_same_seed_gives_the_same_table():
    of = phantoms.of_cohort("c4kc_kits")
    first = phantoms.draw(of, 50, phantoms.stream(of, "simulation", 1))
    pd.testing.assert_frame_equal(
        first, phantoms.draw(of, 50, phantoms.stream(of, "simulation", 1))
    )
    other = phantoms.draw(of, 50, phantoms.stream(of, "simulation", 2))
    assert not np.allclose(first["diameter_mm"], other["diameter_mm"])


def test_streams_never_meet():
    luna, dlcs = phantoms.of_cohort("luna16"), phantoms.of_cohort("dlcs")
    seen = {
        tuple(phantoms.stream(of, word, *path).generate_state(4))
        for of in (luna, dlcs)
        for word in ("cohort", "training", "simulation")
        for path in [(), (0,), (1,), (0, 0), (0, 1)]
    }
    assert len(seen) == 2 * 3 * 5
    with pytest.raises(ValueError):
        phantoms.stream(luna, "trainign")


def test_training_cases_are_not_those_of_the_cohort():
    planned = phantoms.plan("luna16")
    other = [phantoms.sample("luna16", k) for k in range(40)]
    assert len({p.case.entropy for p in [*planned, *other]}) == len(planned) + len(other)
    shapes = {lesion.entropy for p in planned for lesion in p.case.lesions}
    assert not shapes & {p.case.lesions[0].entropy for p in other}
    assert {p.noise for p in planned}.isdisjoint(p.noise for p in other)
    assert phantoms.sample("luna16", 3).case == other[3].case
    with pytest.raises(ValueError, match="seed"):
        phantoms.sample("luna16", -1)


# Twins and patients


def test_cohorts_are_systematic_samples(drawn):
    pool, n = drawn["luna16"], 200
    pool = pool[pool["patient"] < 25 * n]
    taken = cohort._representative(pool, n)
    assert taken["patient"].unique().tolist() == list(range(n))
    assert len(taken) / n == pytest.approx(len(pool) / (25 * n), abs=0.03)
    assert taken["label"].mean() == pytest.approx(pool["label"].mean(), abs=0.03)
    # Patients come whole, as they are in the pool, and in no telling order.
    merged = taken.merge(pool, on=["diameter_mm", "true_logit", "size_mm"], suffixes=("", "_pool"))
    assert len(merged) == len(taken)
    whole = pool[pool["patient"].isin(merged["patient_pool"])]
    assert len(whole) == len(taken)
    one = taken.drop_duplicates("patient")
    assert abs(sps.spearmanr(one["patient"], one["true_logit"]).statistic) < 0.2


@pytest.mark.parametrize("name", WITH_OUTCOME)
def test_the_cohorts_themselves_are_near_the_facts(name):
    known = pd.read_csv(settings.BOOK_ROOT / "data" / "published" / "cohort_facts.csv")
    known = known[known["cohort"] == name].set_index("fact")["value"]
    twin = facts(pd.concat([p.rows for p in phantoms.plan(name)]))
    for fact in ("share_label_1", "event_share", "survival_2_years"):
        if fact in known:
            assert twin[fact] == pytest.approx(known[fact], abs=0.05), fact
    if "auc_size" in known:
        assert twin["auc_size"] == pytest.approx(known["auc_size"], abs=0.05)
    assert twin["auc_best"] > twin["auc_size"] + 0.02


@pytest.mark.parametrize("name", COHORTS)
def test_twins_are_shaped_after_the_released_facts(drawn, name):
    known = pd.read_csv(settings.BOOK_ROOT / "data" / "published" / "cohort_facts.csv")
    known = known[known["cohort"] == name].set_index("fact")["value"]
    twin = facts(drawn[name], CLINICAL.get(name))
    tolerance = {
        "lesions_per_scan": 0.05,
        "share_label_1": 0.03,
        "share_label_missing": 0.03,
        "event_share": 0.05,
        "survival_2_years": 0.02,
        "survival_5_years": 0.03,
        "median_survival_days": 0.1 * known.get("median_survival_days", 1),
        "size_median_mm": 0.05 * known.get("size_median_mm", 1),
        "auc_size": 0.02,
        "auc_clinical": 0.04,
    }
    compared = known.index.intersection(twin.index)
    assert len(compared) == len(known)
    for fact in compared:
        assert twin[fact] == pytest.approx(known[fact], abs=tolerance[fact]), fact


def test_the_known_facts_are_those_of_the_released_tables(reference):
    known = pd.read_csv(settings.BOOK_ROOT / "data" / "published" / "cohort_facts.csv")
    for name in COHORTS:
        table = cohorts.read_released_table(name, reference / "cohorts" / "released")
        expected = known[known["cohort"] == name].set_index("fact")["value"]
        expected = expected.drop("auc_size") if name == "luna16" else expected
        found = facts(table, CLINICAL.get(name))[expected.index]
        assert found.to_numpy() == pytest.approx(expected.to_numpy(), abs=1e-4)


def test_the_size_of_luna_nodules_is_that_of_the_readers(reference):
    path = reference / "cohorts" / "clean" / "LUNA16.csv"
    table = pd.read_csv(path)
    size = np.sqrt(table["bbox_rows"] * table["bbox_cols"])
    known = pd.read_csv(settings.BOOK_ROOT / "data" / "published" / "cohort_facts.csv")
    known = known[(known["cohort"] == "luna16") & (known["fact"] == "auc_size")]["value"].item()
    assert roc_auc_score(table["label"], size) == pytest.approx(known, abs=1e-4)


def test_facts_of_a_hand_worked_table():
    table = pd.DataFrame(
        {
            "scan_id": ["a", "b", "c", "d"],
            "label": pd.array([1, 0, None, 1], dtype="Int64"),
            "size_mm": [10.0, 30.0, 5.0, 20.0],
            "stage": ["I", "III", "II", "III"],
            "true_logit": [2.0, 3.0, 0.0, 1.0],
            "time_days": pd.array([900.0, 100.0, 50.0, 2000.0], dtype="Float64"),
            "event": pd.array([1, 1, 0, 0], dtype="Int64"),
        }
    )
    result = facts(table, "stage")
    assert result["share_label_1"] == pytest.approx(2 / 3)
    assert result["share_label_missing"] == 0.25 and result["event_share"] == 0.5
    assert result["auc_size"] == 1.0 and result["auc_clinical"] == 0.75 and result["auc_best"] == 0
    # Three at risk on day 100, two on day 900.
    assert result["survival_2_years"] == pytest.approx(2 / 3)
    assert result["survival_5_years"] == pytest.approx(1 / 3)
    assert result["median_survival_days"] == 900
