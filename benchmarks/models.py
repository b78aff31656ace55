"""Time and memory of the encoders, each in a process of its own.

    python benchmarks/models.py                      # both sizes of all ten, CPU and GPU if any
    python benchmarks/models.py --models suprem voco --sizes full
    python benchmarks/models.py --loop               # against the loop of the reference

Per model and size: memory to build it, as a ratio to its own size; milliseconds per patch at
batch 1 and 8 in float32 and bfloat16; peak memory. ``--loop`` measures patches per second from
file to embedding: whole-volume resampling with MONAI and batches of one in float32 (the loop of
the reference) against region reads and batches of eight, side by side in one process.
"""

import argparse
import json
import os
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

from tumorbench_utils import models
from tumorbench_utils.patches import extract_patch

MB = 1e6


def best_ms(run, device, repeats):
    """Shortest of some runs, after one to warm up.

    On one thread it is the time of the processor that counts, so that other work on the machine
    matters little; else that of the clock on the wall.
    """
    alone = device == "cpu" and torch.get_num_threads() == 1
    clock = time.process_time if alone else time.perf_counter
    times = []
    for _ in range(repeats + 1):
        start = clock()
        run()
        if device == "cuda":
            torch.cuda.synchronize()
        times.append(clock() - start)
    return 1e3 * min(times[1:])


def peak_mb():
    scale = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * scale / MB


def memory_of_building(model, size):
    """Megabytes at the peak above what was held before, and the encoder's own."""
    model.build("compact")  # the libraries are loaded before anything is measured
    before = psutil.Process().memory_info().rss / MB
    module = model.build(size)
    tensors = (*module.parameters(), *module.buffers())
    own = sum(t.numel() * t.element_size() for t in tensors) / MB
    return module, max(peak_mb() - before, 0), own


def measure(key, size, device, repeats, batches):
    model = models.get_model(key)
    module, built, own = memory_of_building(model, size)
    module = module.to(device)
    low, high = model.spec.out_range
    row = {"model": key, "size": size, "device": device, "own MB": own, "build / own": built / own}
    for dtype, name in ((None, "float32"), (torch.bfloat16, "bfloat16")):
        for n in batches:
            x = torch.rand(n, 1, *model.spec.size, device=device) * (high - low) + low

            def run(x=x, n=n, dtype=dtype):
                model.encode(module, x, batch_size=n, autocast=dtype)

            row[f"ms {name} batch {n}"] = best_ms(run, device, repeats) / n
    row["peak MB"] = torch.cuda.max_memory_allocated() / MB if device == "cuda" else peak_mb()
    return row


def reference_patch(path, seed, spec):
    """Cut a patch as the reference does: load, turn and resample everything, then crop."""
    from monai import transforms as t

    chain = t.Compose(
        [
            t.LoadImage(image_only=True, ensure_channel_first=True),
            t.Orientation(axcodes="RAS"),
            t.Spacing(pixdim=spec.spacing_mm, mode="bilinear", padding_mode="zeros"),
            t.ScaleIntensityRange(*spec.window_hu, *spec.out_range, clip=True),
        ]
    )
    volume = chain(path)
    ras = np.array([-seed[0], -seed[1], seed[2], 1.0])
    centre = (np.linalg.inv(volume.affine.numpy()) @ ras)[:3].astype(int)
    crop = t.SpatialCrop(roi_center=centre.tolist(), roi_size=spec.world_size)
    cube = t.SpatialPad(spec.world_size)(crop(volume))
    return t.Orientation(axcodes=spec.orientation)(cube).as_tensor()[None]


def loop(key, size, device, lesions):
    """Patches per second from file to embedding, the reference's way and this package's."""
    import SimpleITK as sitk

    model = models.get_model(key)
    module = model.build(size).to(device)
    scan = np.random.default_rng(0).normal(-300, 300, (160, 320, 320)).astype(np.int16)
    image = sitk.GetImageFromArray(scan)
    image.SetSpacing((0.8, 0.8, 1.5))
    seed = (128.0, 128.0, 120.0)
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder) / "scan.nii.gz")
        sitk.WriteImage(image, path, useCompression=True)

        def theirs():
            with torch.inference_mode():
                for _ in range(lesions):
                    module(reference_patch(path, seed, model.spec).to(device))

        def ours():
            cut = [extract_patch(path, seed, model.spec) for _ in range(lesions)]
            model.encode(module, torch.from_numpy(np.stack(cut))[:, None], batch_size=8)

        reference = best_ms(theirs, device, 1)
        package = best_ms(ours, device, 1)
    row = {"model": key, "size": size, "device": device}
    row["reference patches/s"] = 1e3 * lesions / reference
    row["package patches/s"] = 1e3 * lesions / package
    row["ratio"] = reference / package
    return row


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", nargs="+", default=list(models.MODELS), metavar="KEY")
    parser.add_argument("--sizes", nargs="+", default=["compact", "full"])
    parser.add_argument("--devices", nargs="+", help="default: cpu, and cuda if there is one")
    parser.add_argument("--threads", type=int, default=1, help="threads on the CPU")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--loop", action="store_true")
    parser.add_argument("--lesions", type=int, default=8, help="lesions of --loop")
    parser.add_argument("--csv", help="also write the table here")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        torch.set_num_threads(options.threads)
        key, size, device = options.one.split("/")
        if options.loop:
            row = loop(key, size, device, options.lesions)
        else:
            row = measure(key, size, device, options.repeats, options.batches)
        print(json.dumps(row))
        return
    devices = options.devices or ["cpu"] + ["cuda"] * torch.cuda.is_available()
    passed = [f"--threads={options.threads}", f"--repeats={options.repeats}"]
    passed += [f"--lesions={options.lesions}", "--batches", *map(str, options.batches)]
    rows = []
    for device in devices:
        for size in options.sizes:
            for key in options.models:
                command = [sys.executable, __file__, f"--one={key}/{size}/{device}", *passed]
                done = subprocess.run(
                    command + ["--loop"] * options.loop,
                    env={**os.environ, "OMP_NUM_THREADS": str(options.threads)},
                    stdout=subprocess.PIPE,
                    text=True,
                )
                if done.returncode:
                    print(f"{key} ({size}, {device}) failed", file=sys.stderr)
                    continue
                rows.append(json.loads(done.stdout.splitlines()[-1]))
                print(pd.DataFrame(rows[-1:]).to_string(index=False), flush=True)
    frame = pd.DataFrame(rows)
    print(frame.round(2).to_string(index=False))
    if options.csv:
        frame.to_csv(options.csv, index=False)


if __name__ == "__main__":
    main()
