"""Probes that see a handful of lesions per class."""

import numpy as np

from tumorbench_utils.probes import knn
from tumorbench_utils.probes.inputs import check_splits, probe_input
from tumorbench_utils.probes.result import ProbeResult
from tumorbench_utils.probes.run import Runner, run_checked


def few_shot(X, y, splits, shots=(1, 5, 10), seed=0, *, groups=None) -> dict[int, ProbeResult]:
    """Score nearest neighbours fitted on a few lesions per class.

    As published, except for the seed (the reference drew without one): `shots` lesions of either
    class are drawn from the training rows, k = 1 to 2 x `shots` (50 at most) is chosen by the AUC
    on all validation rows with the published order of ties, cosine distance, raw features.

    Parameters
    ----------
    X, y, splits, groups
        As for :func:`run_probe`.
    shots : sequence of int
        Lesions per class.
    seed : int
        A draw depends on the seed, the number of shots and the number of the split only.

    Returns
    -------
    dict of ProbeResult
        One per number of shots. For the corrected interval ``n_train`` is the size of the pool
        that the few were drawn from: it is the pools of two splits that overlap.

    Raises
    ------
    ValueError
        As :func:`run_probe`; also if a class has fewer training rows than `shots`.
    """
    data = probe_input(X, y, groups)
    splits = check_splits(splits, data.y)
    if np.ndim(shots) != 1:
        raise ValueError(f"shots must be a list of whole numbers, not {shots!r}")
    shots = list(shots)
    if not shots:
        raise ValueError("shots is empty; give the numbers of lesions per class")
    for count in shots:
        if not isinstance(count, int | np.integer) or isinstance(count, bool) or count < 1:
            raise ValueError(f"shots must be whole numbers above 0, not {count!r}")
    if not isinstance(seed, int | np.integer) or isinstance(seed, bool) or seed < 0:
        raise ValueError(f"the seed must be a whole number, 0 or more, not {seed!r}")
    numbers = {id(split): number for number, split in enumerate(splits)}
    table = knn.CosineTable(data.X)

    def fit(data, split, count):
        rng = np.random.default_rng([seed, count, numbers[id(split)]])
        drawn = [_draw(data.y, split.train, label, count, rng) for label in (0, 1)]
        train = np.concatenate(drawn)
        k_max = min(knn.K_MAX, len(train))
        counts = table.counts(split.val, train, data.y, k_max)
        k = knn.choose_k_as_published(counts, data.y[split.val])
        return k, table.counts(split.test, train, data.y, k_max)[:, k - 1] / k

    results = {}
    for count in shots:
        run = Runner(f"{count}-shot knn", "published", lambda d, s, c=int(count): fit(d, s, c))
        results[int(count)] = run_checked(data, splits, run, "auc")
    return results


def _draw(y, train, label: int, count: int, rng) -> np.ndarray:
    pool = np.asarray(train)[y[train] == label]
    if len(pool) < count:
        raise ValueError(
            f"{count} lesions of label {label} were asked for; a split has {len(pool)} to draw from"
        )
    return rng.choice(pool, size=count, replace=False)
