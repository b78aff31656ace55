"""All pairs of ten models: seconds for each measure and its permutation null.

    python benchmarks/similarity.py                       # 677 lesions, 1,000 permutations
    python benchmarks/similarity.py --naive 0             # without the loop

The null is compared with the plain loop in the same run: for every pair and every permutation the
measure is computed anew. `--naive` permutations of three pairs are timed, checked against the fast
null, and scaled up. Times are those of the processor.
"""

import argparse
import time

import numpy as np
import pandas as pd

from tumorbench_utils import similarity
from tumorbench_utils.models import MODELS


def seconds(run):
    """CPU time of one call on all threads, and what it returned."""
    start = time.process_time()
    result = run()
    return time.process_time() - start, result


def embeddings(n, rng):
    """Ten embeddings of `n` lesions that share a signal, as long as those of the models."""
    signal = rng.normal(size=(n, 20))
    return {
        key: signal @ rng.normal(size=(20, model.dim)) + 4 * rng.normal(size=(n, model.dim))
        for key, model in MODELS.items()
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--lesions", type=int, default=677)
    parser.add_argument("--permutations", type=int, default=1000)
    parser.add_argument("--naive", type=int, default=2, help="permutations of the plain loop")
    parser.add_argument("--measures", nargs="+", default=list(similarity.MEASURES))
    options = parser.parse_args()
    models = embeddings(options.lesions, np.random.default_rng(0))
    pairs = len(models) * (len(models) - 1) // 2
    rows = []
    for name in options.measures:
        measure = similarity.MEASURES[name]
        row = {"measure": name}
        row["values, s"], result = seconds(lambda name=name: similarity.pairwise(models, name))
        whole, _ = seconds(
            lambda name=name: similarity.pairwise(models, name, n_permutations=options.permutations)
        )
        row[f"with {options.permutations} permutations, s"] = whole
        if options.naive:
            some = result.sample(3, random_state=0)
            loops = []
            for a, b in zip(some["first"], some["second"], strict=True):
                loop, slow = seconds(
                    lambda a=a, b=b, measure=measure: similarity.permutation_null(
                        lambda x, y: measure(x, y), models[a], models[b], options.naive
                    )
                )
                fast = similarity.permutation_null(name, models[a], models[b], options.naive)
                assert np.allclose(fast, slow, atol=1e-4), f"{name}: the two nulls differ"
                loops.append(loop / options.naive)
            row["plain loop, s"] = np.mean(loops) * pairs * options.permutations
            row["loop / this"] = row["plain loop, s"] / whole
        rows.append(row)
        print(pd.DataFrame(rows[-1:]).round(1).to_string(index=False), flush=True)
    print(f"{options.lesions} lesions, {len(models)} models, {pairs} pairs")
    print(pd.DataFrame(rows).round(1).to_string(index=False))


if __name__ == "__main__":
    main()
