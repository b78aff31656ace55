"""Time of moving seeds: one read per scan for all trials and models, against one call per trial.

    python benchmarks/robustness.py                          # 50 trials, RIDER's twin
    python benchmarks/robustness.py --cohort luna16 --split  # the test lesions of one split

Ten compact encoders embed every lesion of a cohort for every trial, by ``robustness.jitter_all``.
Beside it a few lesions and trials are done the plain way, each patch cut on its own from its scan
and each model on its own, in the same process; the ratio is that of the times per lesion, trial
and model. On one thread processor time counts, so that other work on the machine matters little.
"""

import argparse
import json
import os
import time

import pandas as pd
import torch

from tumorbench_utils import robustness, splits
from tumorbench_utils.cohorts import Cohort, load_cohort
from tumorbench_utils.models import MODELS
from tumorbench_utils.patches import extract_patch
from tumorbench_utils.robustness.perturbation import shifts


def clocks():
    return time.perf_counter(), time.process_time()


def plain(cohort, encoders, mm, trials):
    """Embed every seed on its own."""
    for number, (model, module) in enumerate(encoders):
        offsets = shifts(mm, trials * len(cohort.table), number)
        for n, offset in enumerate(offsets):
            row = cohort.table.iloc[n % len(cohort.table)]
            seed = row[["coord_x", "coord_y", "coord_z"]].to_numpy(float) + offset
            patch = extract_patch(row["image_path"], seed, model.spec)
            model.encode(module, torch.from_numpy(patch)[None, None])


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cohort", default="rider_lung_ct")
    parser.add_argument("--split", action="store_true", help="only the test lesions of one split")
    parser.add_argument("--trials", type=int, default=50)
    parser.add_argument("--mm", type=float, default=5.0)
    parser.add_argument("--lesions", type=int, help="only the first ones")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--plain-lesions", type=int, default=4)
    parser.add_argument("--plain-trials", type=int, default=3)
    parser.add_argument("--json", help="also write the result here")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    cohort = load_cohort(options.cohort, "phantom")
    table = cohort.table
    if options.split:
        table = table.iloc[splits.grouped_splits(table, 1)[0].test]
    table = table.head(options.lesions or len(table))
    cohort = Cohort(cohort.card, cohort.edition, table)
    few = Cohort(cohort.card, cohort.edition, table.head(options.plain_lesions))
    encoders = [(model, model.build("compact")) for model in MODELS.values()]
    robustness.jitter_all(few, encoders, options.mm, 1)  # the libraries are loaded
    wall, cpu = clocks()
    robustness.jitter_all(cohort, encoders, options.mm, options.trials)
    wall, cpu = clocks()[0] - wall, clocks()[1] - cpu
    start = clocks()
    plain(few, encoders, options.mm, options.plain_trials)
    end = clocks()
    work = len(table) * options.trials
    plain_work = len(few.table) * options.plain_trials
    result = {
        "cohort": options.cohort,
        "lesions": len(table),
        "scans": int(table["image_path"].nunique()),
        "trials": options.trials,
        "models": len(encoders),
        "threads": options.threads,
        "seconds": wall,
        "cpu_seconds": cpu,
        "cpu_ms_per_lesion_and_trial": 1e3 * cpu / work,
        "ratio_cpu": ((end[1] - start[1]) / plain_work) / (cpu / work),
        "ratio_wall": ((end[0] - start[0]) / plain_work) / (wall / work),
    }
    print(pd.Series(result).to_string())
    if options.json:
        with open(options.json, "w", encoding="utf-8") as file:
            json.dump(result, file, indent=1)


if __name__ == "__main__":
    main()
