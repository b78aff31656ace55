"""Occlusion of one 48^3 patch with the full Models Genesis encoder, against MONAI's.

    python benchmarks/saliency.py                     # CPU, as many threads as torch takes
    python benchmarks/saliency.py --threads 1         # one thread, time of the processor
    python benchmarks/saliency.py --device cuda

Three things in the same run, each in a process of its own so that peaks of memory are its own:
``monai.visualize.OcclusionSensitivity`` with the published mask and overlap (an embedding per
voxel), ``saliency.occlusion_map``, and the bare forward passes that the windows need. Weights are
untrained; they do not change the work. Memory is the peak above what the process held before.

The bare passes are the floor, and on two cores they are nearly half of MONAI's time. Tried there to
lower it, without a gain that lasts from run to run: channels-last layout, normalising in place, the
first level one patch or a quarter of its channels at a time, batches of 4 and 8. Huge pages
(``THP_MEM_ALLOC_ENABLE=1``) do help, MONAI more than this package.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd
import psutil
import torch
from monai.data.utils import dense_patch_slices

from tumorbench_utils import saliency
from tumorbench_utils.models import get_model

MASK, OVERLAP = 12, 0.25
MB = 1e6


def ours(model, module, patch):
    return saliency.occlusion_map(model, module, patch.cpu().numpy(), mask=MASK, overlap=OVERLAP)


def monai(model, module, patch):
    from monai.visualize import OcclusionSensitivity

    sensitivity = OcclusionSensitivity(
        module, mask_size=MASK, overlap=OVERLAP, activate=False, verbose=False
    )
    image = patch[None, None]
    with torch.inference_mode():
        embeddings = torch.as_tensor(sensitivity(image)[0])[0]
        whole = module(image)[0][:, None, None, None]
        return (1 - torch.cosine_similarity(embeddings, whole, dim=0)).cpu().numpy()


def forward(model, module, patch):
    step = int(MASK * (1 - OVERLAP))
    windows = dense_patch_slices(tuple(patch.shape), (MASK,) * 3, (step,) * 3)
    with torch.inference_mode():
        for start in range(0, len(windows) + 1, saliency._BATCH):
            n = min(saliency._BATCH, len(windows) + 1 - start)
            module(patch.expand(n, 1, *patch.shape).contiguous())


WAYS = {"MONAI": monai, "occlusion_map": ours, "forward passes": forward}


def peak_mb(device):
    if device == "cuda":
        return torch.cuda.max_memory_allocated() / MB
    scale = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * scale / MB


def measure(way, options, folder):
    """Time of the clock (of the processor if one thread runs alone), memory and map of one way."""
    if options.threads:
        torch.set_num_threads(options.threads)
    model = get_model(options.model)
    module = model.build(options.size).to(options.device)
    values = np.random.default_rng(0).random(model.spec.size, dtype=np.float32)
    patch = torch.from_numpy(values).to(options.device)
    with torch.inference_mode():
        module(patch[None, None])  # what is loaded at the first call is not measured
    if options.device == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated() / MB
    else:
        before = psutil.Process().memory_info().rss / MB
    alone = options.device == "cpu" and torch.get_num_threads() == 1
    clock = time.process_time if alone else time.perf_counter
    start = clock()
    result = WAYS[way](model, module, patch)
    if options.device == "cuda":
        torch.cuda.synchronize()
    row = {"way": way, "seconds": clock() - start, "MB": peak_mb(options.device) - before}
    if result is not None:
        np.save(Path(folder) / f"{way}.npy", result)
    return row


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="models_genesis", metavar="KEY")
    parser.add_argument("--size", default="full", choices=["full", "compact"])
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--threads", type=int, help="threads on the CPU; default: torch's choice")
    parser.add_argument("--rounds", type=int, default=2, help="the three ways in turn; best counts")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    parser.add_argument("--folder", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(measure(options.one, options, options.folder)))
        return
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(options.rounds):
            for way in WAYS:
                call = [sys.executable, __file__, *sys.argv[1:], "--one", way, "--folder", folder]
                done = subprocess.run(call, check=True, stdout=subprocess.PIPE, text=True)
                rows.append(json.loads(done.stdout.splitlines()[-1]))
                print(rows[-1], flush=True)
        maps = [np.load(Path(folder) / f"{way}.npy") for way in ("MONAI", "occlusion_map")]
    best = pd.DataFrame(rows).groupby("way", sort=False).min()
    best["seconds / ours"] = best["seconds"] / best.loc["occlusion_map", "seconds"]
    best["MB / ours"] = best["MB"] / best.loc["occlusion_map", "MB"]
    print(best.round(3).to_string())
    print(f"largest difference of the two maps: {np.abs(maps[0] - maps[1]).max():.2g}", end=" ")
    print(f"(largest value {maps[0].max():.2g})")


if __name__ == "__main__":
    main()
