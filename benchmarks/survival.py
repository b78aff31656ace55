"""Time of the cross-validated survival table, and of the ridge Cox solver against lifelines.

The table: four cohorts with the patients, deaths and (made-up) features of the released ones, ten
embeddings each and two short ones as controls: every one beside the clinical table,
in ten splits, all choices inside. The solver: the same penalised models by lifelines and the book,
one after the other in one run; the largest difference of their coefficients is printed as well.

    python benchmarks/survival.py [--json OUT.json] [--workers 2]
"""

import argparse
import json
import time
import warnings
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd
from lifelines import CoxPHFitter
from threadpoolctl import threadpool_limits

from tumorbench_utils.splits import grouped_splits
from tumorbench_utils.survival import evaluate
from tumorbench_utils.survival.ridge import RiskSets, fit_ridge

#: Patients and share of deaths of the released cohorts.
COHORTS = {
    "nsclc_radiomics": (421, 0.89),
    "nsclc_radiogenomics": (143, 0.36),
    "c4kc_kits": (207, 0.10),
    "colorectal_liver_metastases": (197, 0.54),
}

#: Lengths of the ten embeddings, and of two controls.
LENGTHS = (4096, 512, 512, 1024, 768, 3072, 512, 512, 1024, 4096, 256, 30)


def cohort(name: str) -> tuple[np.ndarray, np.ndarray, pd.DataFrame, np.ndarray]:
    """Return times, events, covariates and latent factors of a made-up cohort."""
    n, share = COHORTS[name]
    rng = np.random.default_rng(n)
    factors = rng.normal(size=(n, 8))
    death = rng.exponential(900 * np.exp(-0.7 * factors[:, 0])) + 1
    lost = rng.exponential(900 * share / (1 - share), n) + 1
    covariates = pd.DataFrame({"age": rng.normal(65, 10, n), "stage": rng.integers(1, 4, n)})
    return np.minimum(death, lost), death <= lost, covariates, factors


def evaluate_one(task: tuple[str, int]) -> float:
    """Evaluate one embedding in one cohort; return its concordance."""
    name, which = task
    time_days, event, covariates, factors = cohort(name)
    rng = np.random.default_rng(which)
    length = LENGTHS[which]
    x = factors @ rng.normal(size=(8, length)) + 2 * rng.normal(size=(len(event), length))
    table = pd.DataFrame({"patient_id": np.arange(len(event)), "event": event.astype(int)})
    splits = grouped_splits(table, stratify="event")
    result = evaluate(x.astype(np.float32), time_days, event, covariates, splits)
    scores = result.summary.set_index(["model", "metric"])["mean"]
    return float(scores["clinical + embedding", "uno"])


def time_table(workers: int) -> dict:
    """Time the whole table on a number of processes."""
    tasks = [(name, which) for name in COHORTS for which in range(len(LENGTHS))]
    start = time.perf_counter()
    with ProcessPoolExecutor(workers) as pool:
        scores = list(pool.map(evaluate_one, tasks))
    seconds = time.perf_counter() - start
    return {
        "entries": len(tasks),
        "workers": workers,
        "seconds": seconds,
        "mean C": np.mean(scores),
    }


def time_solver(repeats: int = 20) -> dict:
    """Time penalised fits with 34 covariates by lifelines and by the book."""
    time_days, event, covariates, factors = cohort("colorectal_liver_metastases")
    rng = np.random.default_rng(0)
    x = np.column_stack([covariates, factors, rng.normal(size=(len(event), 24))])
    x = (x - x.mean(axis=0)) / x.std(axis=0, ddof=1)
    frame = pd.DataFrame(x).assign(time=time_days, event=event)
    seconds, difference = np.zeros(2), 0.0
    for penalty in np.geomspace(1, 1000, repeats):
        start = time.perf_counter()
        ours = fit_ridge(RiskSets(time_days, event), x, np.full(x.shape[1], penalty))
        middle = time.perf_counter()
        fit = CoxPHFitter(penalizer=penalty / len(x)).fit(frame, "time", "event")
        seconds += middle - start, time.perf_counter() - middle
        difference = max(difference, float(np.abs(ours - fit.params_.to_numpy()).max()))
    return {
        "fits": repeats,
        "book, ms": 1000 * seconds[0] / repeats,
        "lifelines, ms": 1000 * seconds[1] / repeats,
        "ratio": seconds[1] / seconds[0],
        "largest difference": difference,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path, help="where to write the result")
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    with threadpool_limits(1):
        result = {"solver": time_solver(), "table": time_table(options.workers)}
    for part, values in result.items():
        print(part)
        for key, value in values.items():
            print(f"  {key:<20} {value:.4g}")
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
