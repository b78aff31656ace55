"""Time of the probes, as ratios measured side by side in one run.

    python benchmarks/probes.py            # the published kNN protocol against the plain loop
    python benchmarks/probes.py --table    # also six cohorts x ten models x four probes

The plain loop is the reference's: one scikit-learn classifier per k in the order of its grid, ten
splits. Both are given the same 677 x 4096 embeddings; the run fails if k or a score differ. The
table scores the embeddings of the phantom cohorts where they have been computed and random ones of
the same shape where not.
"""

import argparse
import time

import numpy as np
import pandas as pd
from sklearn.metrics import roc_auc_score
from sklearn.neighbors import KNeighborsClassifier

from tumorbench_utils import probes, splits
from tumorbench_utils.cohorts import COHORTS, load_cohort
from tumorbench_utils.embeddings import default_store
from tumorbench_utils.models import MODELS
from tumorbench_utils.probes.knn import published_order


def embeddings(n, d, dtype, seed=0):
    rng = np.random.default_rng(seed)
    y = rng.permutation(np.arange(n) < 0.48 * n).astype(int)
    return (rng.normal(size=(n, d)) + 0.05 * y[:, None]).astype(dtype), y


def plain_loop(X, y, parts):
    chosen, scores = [], []
    for split in parts:
        best, best_k = -1.0, None
        for k in published_order():
            model = KNeighborsClassifier(k, metric="cosine").fit(X[split.train], y[split.train])
            area = roc_auc_score(y[split.val], model.predict_proba(X[split.val])[:, 1])
            if area > best:
                best, best_k = area, k
        model = KNeighborsClassifier(best_k, metric="cosine").fit(X[split.train], y[split.train])
        chosen.append(best_k)
        scores.append(roc_auc_score(y[split.test], model.predict_proba(X[split.test])[:, 1]))
    return chosen, np.array(scores)


def published_protocol():
    rows = []
    for dtype in (np.float32, np.float64):
        X, y = embeddings(677, 4096, dtype)
        parts = splits.reference_splits(y)
        start = time.perf_counter()
        chosen, scores = plain_loop(X, y, parts)
        slow = time.perf_counter() - start
        fast = []
        for _ in range(5):
            start = time.perf_counter()
            result = probes.run_probe(X, y, parts, protocol="published")
            fast.append(time.perf_counter() - start)
        if result.chosen != chosen or np.abs(result.scores - scores).max() > 1e-12:
            raise SystemExit("the two do not agree")
        row = {"dtype": np.dtype(dtype).name, "plain loop s": slow, "run_probe s": min(fast)}
        rows.append(row | {"ratio": slow / min(fast), "ratio of median": slow / np.median(fast)})
    print(pd.DataFrame(rows).to_string(index=False, float_format="%.3g"))


def four_probes(X, y, patients, parts):
    options = {"groups": patients}
    runs = {
        "knn": lambda: probes.run_probe(X, y, parts, **options),
        "linear": lambda: probes.run_probe(X, y, parts, "linear", **options),
        "1-shot": lambda: probes.few_shot(X, y, parts, [1], **options),
        "published linear": lambda: probes.run_probe(X, y, parts, "linear", protocol="published"),
    }
    seconds = {}
    for probe, run in runs.items():
        start = time.perf_counter()
        run()
        seconds[probe] = time.perf_counter() - start
    return seconds


def full_table():
    store, rows, found = default_store("phantom"), [], 0
    for name in list(COHORTS)[:6]:
        table = load_cohort(name, "phantom").table
        table = table[table["label"].notna()].set_index("lesion_id")
        y, parts = table["label"].astype(int), splits.grouped_splits(table)
        for model, encoder in MODELS.items():
            try:
                X = store.read(name, model).loc[y.index]
                found += 1
            except (KeyError, OSError, ValueError):
                random = np.random.default_rng(0).normal(size=(len(y), encoder.dim))
                X = pd.DataFrame(random.astype(np.float32), y.index)
            rows.append({"model": model, **four_probes(X, y, table["patient_id"], parts)})
    seconds = pd.DataFrame(rows).groupby("model").sum()
    print(f"\nseconds over six cohorts; {found} of 60 sets of embeddings came from the store:")
    print(seconds.assign(together=seconds.sum(axis=1)).to_string(float_format="%.2f"))
    print(f"all together: {seconds.to_numpy().sum():.1f}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--table", action="store_true", help="also the full table")
    options = parser.parse_args()
    published_protocol()
    if options.table:
        full_table()
