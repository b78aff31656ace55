"""Patients before they are scanned: phenotypes, covariates and outcomes, without images.

The outcome is drawn from the phenotype by a known model, so the log-odds and the log-hazard of
every lesion are known. They bound what any predictor can reach.
"""

import zlib

import numpy as np
import pandas as pd
from scipy.special import expit, logit, ndtr, ndtri

from tumorbench_phantoms.parameters import PHENOTYPE

_WORDS = ("cohort", "training", "simulation")  # the order is part of the seeds


def stream(parameters: dict, namespace: str, *path: int) -> np.random.SeedSequence:
    """Return the seed of one thing in one namespace.

    Streams of different namespaces never coincide: the first word of the spawn key differs.

    Parameters
    ----------
    parameters : dict
        Of one cohort, see :func:`~tumorbench_phantoms.parameters.of_cohort`.
    namespace : {"cohort", "training", "simulation"}
    *path : int
        Numbers that say which thing is meant.
    """
    key = (_WORDS.index(namespace), zlib.crc32(parameters["name"].encode()), *path)
    return np.random.SeedSequence(parameters["seed"], spawn_key=key)


def value(law: dict, z: np.ndarray) -> np.ndarray:
    """Turn standard normal numbers into values of a quantity.

    Parameters
    ----------
    law : dict
        One of the laws that ``data/phantoms.yml`` explains; for ``levels`` the result is the
        position of the level.
    z : ndarray of float
    """
    kind = law["law"]
    if kind == "lognormal":
        floor = law.get("floor", 0.0)
        drawn = floor + (law["median"] - floor) * np.exp(law["spread"] * z)
        return np.clip(drawn, law["low"], law["high"])
    if kind == "fraction":
        return expit(logit(law["median"]) + law["spread"] * z)
    if kind == "normal":
        return np.clip(law["mean"] + law["sd"] * z, law["low"], law["high"])
    upper = ndtr(z)
    if kind == "rare":
        present = upper > 1 - law["share"]
        rank = np.clip((upper - (1 - law["share"])) / law["share"], 1e-9, 1 - 1e-9)
        return np.where(present, expit(logit(law["median"]) + law["spread"] * ndtri(rank)), 0.0)
    edges = np.cumsum(list(law["levels"].values()))[:-1]
    return np.searchsorted(edges, upper, side="right").astype(float)


def score(law: dict, values: np.ndarray) -> np.ndarray:
    """Return the scores that the weights of an outcome multiply.

    They depend on the value alone, so nothing enters an outcome that the scan or the table does
    not show. See the head of ``data/phantoms.yml``.
    """
    kind = law["law"]
    if kind == "lognormal":
        floor = law.get("floor", 0.0)
        ratio = np.maximum((values - floor) / (law["median"] - floor), 1e-2)
        return np.log(ratio) / law["spread"]
    if kind == "fraction":
        return (logit(values) - logit(law["median"])) / law["spread"]
    if kind == "normal":
        return (values - law["mean"]) / law["sd"]
    return np.asarray(values, float)


def draw(parameters: dict, n_patients: int, seed: np.random.SeedSequence) -> pd.DataFrame:
    """Draw lesions with their outcomes, without images.

    Parameters
    ----------
    parameters : dict
        Of one cohort, see :func:`~tumorbench_phantoms.parameters.of_cohort`.
    n_patients : int
    seed : SeedSequence

    Returns
    -------
    DataFrame
        One row per lesion: ``patient`` and ``lesion`` (counted from 0), ``scanner``,
        ``patient_factor``, the quantities of the phenotype, the covariates, ``size_mm``,
        ``true_logit``, ``true_log_hazard``, ``label``, ``time_days``, ``event``.
    """
    rng = np.random.default_rng(seed)
    shares = parameters["lesions_per_patient"]
    counts = 1 + rng.choice(len(shares), size=n_patients, p=np.array(shares) / sum(shares))
    patient = np.repeat(np.arange(n_patients), counts)
    first = np.repeat(np.cumsum(counts) - counts, counts)
    table = pd.DataFrame({"patient": patient, "lesion": np.arange(len(patient)) - first})
    acquisition = parameters["acquisition"]
    weights = np.array([a["share"] for a in acquisition.values()])
    chosen = rng.choice(len(weights), size=n_patients, p=weights / weights.sum())
    table["scanner"] = np.array(list(acquisition))[chosen][patient]
    table["patient_factor"] = rng.standard_normal(n_patients)[patient]
    common = parameters.get("patient_share", 0.0)
    size = None
    for name in PHENOTYPE:
        shared, own = rng.standard_normal(n_patients)[patient], rng.standard_normal(len(patient))
        z = np.sqrt(common) * shared + np.sqrt(1 - common) * own
        law = parameters["phenotype"].get(name)
        size = z if size is None else size
        table[name] = 0.0 if law is None else value(law, _tied(z, size, law))
    largest = np.lexsort((-table["diameter_mm"].to_numpy(), patient))
    index = largest[first]
    covariates = parameters.get("covariates", {})
    for name, law in covariates.items():
        z = rng.standard_normal(n_patients)[patient]
        drawn = value(law, _tied(z, size[index], law))
        table[name] = np.round(drawn) if law["law"] == "normal" else drawn
    error = rng.normal(0, parameters["size_error"], len(patient))
    table["size_mm"] = (table["diameter_mm"] * np.exp(error)).round(1)
    _outcome(table, parameters, index, rng)
    for name, law in covariates.items():
        if law["law"] == "levels":
            names = list(law["levels"])
            numbers = all(level.isdecimal() for level in names)
            levels = pd.Series(names, dtype="Int64" if numbers else object)
            table[name] = levels[table[name].astype(int)].array
    return table


def _tied(z: np.ndarray, size: np.ndarray, law: dict) -> np.ndarray:
    """Return standard normal numbers with the law's correlation to the size."""
    r = law.get("with_size", 0.0)
    return r * size + np.sqrt(1 - r * r) * z


def _outcome(table: pd.DataFrame, parameters: dict, index: np.ndarray, rng) -> None:
    """Draw the outcome into `table`; `index` is the row of each patient's largest lesion."""
    n = len(table)
    logits, hazard = np.full(n, np.nan), np.full(n, np.nan)
    label, time, event = (np.full(n, np.nan) for _ in range(3))
    outcome = parameters.get("outcome")
    patient = table["patient"].to_numpy()
    if outcome is not None:
        predictor = np.zeros(n)
        for name, weight in outcome["weights"].items():
            law = {**parameters["phenotype"], **parameters.get("covariates", {})}.get(name)
            values = table[name].to_numpy(float)
            predictor += weight * (values if law is None else score(law, values))
        by_patient = outcome["kind"] == "survival" or outcome["level"] == "patient"
        if by_patient:
            predictor = predictor[index]
        chance = rng.uniform(size=n)
        chance = chance[patient] if by_patient else chance
        follow_up = rng.uniform(size=n)[patient]
        if outcome["kind"] == "label":
            logits = outcome["intercept"] + predictor
            label = (chance < expit(logits)).astype(float)
        else:
            hazard = predictor
            label, time, event, logits = _survival(outcome, hazard, chance, follow_up)
    table["true_logit"], table["true_log_hazard"] = logits, hazard
    table["label"] = pd.array(label).astype("Int64")
    table["time_days"] = pd.array(time, dtype="Float64")
    table["event"] = pd.array(event).astype("Int64")


def _survival(outcome: dict, hazard, chance, follow_up) -> tuple:
    """Return label, time in whole days, event, and the log-odds of label 1."""
    shape, scale, alive_from = outcome["shape"], outcome["scale"], outcome["alive_from"]
    death = scale * (-np.log(chance) * np.exp(-hazard)) ** (1 / shape)
    days, share = outcome["follow_up"]["days"], outcome["follow_up"]["share"]
    end = np.interp(follow_up, share[::-1], days[::-1])
    event = (death <= end).astype(float)
    time = np.maximum(np.floor(np.minimum(death, end)), 1)
    label = np.where(time >= alive_from, 1.0, np.where(event == 1, 0.0, np.nan))
    cumulative = np.exp(hazard) * (np.ceil(alive_from) / scale) ** shape
    return label, time, event, -np.log(np.expm1(cumulative))
