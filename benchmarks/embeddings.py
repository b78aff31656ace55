"""Embedding a cohort, its overheads, and importing released features; all as ratios of one run.

    python benchmarks/embeddings.py [--parts end-to-end overhead import] [--json OUT.json]

``end-to-end``: lesions per second from .nii.gz scans to a store with all models, against a loop as
the reference runs it: one lesion and one model at a time, the whole scan loaded, turned and
resampled with MONAI for each. First the ten compact encoders, then the full ones that a CPU can
run. The loop is timed on one lesion (it does the same again for every other one).

``overhead``: a model that takes 50 ms a patch, in a plain loop over small scans, through the store,
and through the store and a dask cluster of one worker.

``import``: a file of the size and layout of the largest lung nodule file, read without running
anything in it, against Python's own reader of the same file.
"""

import argparse
import json
import pickle
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import SimpleITK as sitk
import torch

from tumorbench_utils import embeddings, models
from tumorbench_utils.embeddings.released import EXTRACTORS
from tumorbench_utils.patches import PatchSpec, extract_patches

SIZE, SPACING = (512, 512, 240), (0.7, 0.7, 1.25)
NOT_ON_A_CPU = ("voco", "medimageinsight")


def seconds(run) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def write_cohort(folder: Path, scans: int, lesions: int, size=SIZE) -> SimpleNamespace:
    """Write noisy scans (.nii.gz, int16) with lesions at random; return them as a cohort."""
    rng = np.random.default_rng(0)
    extent, rows = np.array(size) * SPACING, []
    for n in range(scans):
        path = folder / f"scan{n}.nii.gz"
        image = sitk.GetImageFromArray(rng.normal(-300, 300, size[::-1]).astype(np.int16))
        image.SetSpacing(SPACING)
        sitk.WriteImage(image, str(path), useCompression=True)
        for k in range(lesions):
            seed = rng.uniform(0.2, 0.8, 3) * extent
            rows.append((f"l{n}_{k}", f"scan{n}", str(path), *seed))
    names = ["lesion_id", "scan_id", "image_path", "coord_x", "coord_y", "coord_z"]
    table = pd.DataFrame(rows, columns=names)
    return SimpleNamespace(card=SimpleNamespace(key="noise"), edition="phantom", table=table)


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


def end_to_end(scans: int, lesions: int) -> pd.DataFrame:
    rows = []
    full = [key for key in models.MODELS if key not in NOT_ON_A_CPU]
    with tempfile.TemporaryDirectory() as folder:
        cohort = write_cohort(Path(folder), scans, lesions)
        row = cohort.table.iloc[0]
        seed = (row["coord_x"], row["coord_y"], row["coord_z"])
        for size, keys in (("compact", list(models.MODELS)), ("full", full)):
            modules = {key: models.get_model(key).build(size) for key in keys}

            def loop(modules=modules):
                with torch.inference_mode():
                    for key, module in modules.items():
                        patch = reference_patch(row["image_path"], seed, models.get_model(key).spec)
                        module(patch)

            pairs = [(models.get_model(key), module) for key, module in modules.items()]
            store = embeddings.EmbeddingStore(Path(folder) / size)
            package = seconds(lambda p=pairs, s=store: embeddings.embed(cohort, p, s))
            reference = seconds(loop)
            rate = len(cohort.table) / package
            rows.append((size, len(keys), rate, 1 / reference, rate * reference))
            print(rows[-1], flush=True)
    columns = ["size", "models", "lesions/s", "reference lesions/s", "ratio"]
    return pd.DataFrame(rows, columns=columns)


class Sleeper(models.FoundationModel):
    """A model that takes 50 ms a patch."""

    key, dim, spec = "sleeper", 512, PatchSpec(size=(8, 8, 8))
    card = SimpleNamespace(file="none")

    def network(self, size):
        """Return something small."""
        return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(512, 512))

    def encode(self, module, patches):
        """Take the time."""
        time.sleep(0.05 * len(patches))
        return super().encode(module, patches)


def overhead(scans: int) -> pd.DataFrame:
    from distributed import Client

    model = Sleeper()
    module = model.build()
    with tempfile.TemporaryDirectory() as folder:
        cohort = write_cohort(Path(folder), scans, 2, size=(32, 32, 32))

        def loop():
            waiting = []
            for path, part in cohort.table.groupby("image_path"):
                seeds = part[["coord_x", "coord_y", "coord_z"]].to_numpy()
                waiting += [cut for (cut,) in extract_patches(path, seeds, [model.spec])]
                if len(waiting) == 8:
                    model.encode(module, torch.from_numpy(np.stack(waiting)[:, None]))
                    waiting = []

        def run(name, client=None):
            store = embeddings.EmbeddingStore(Path(folder) / name)
            embeddings.embed(cohort, [(model, module)], store, client=client, progress=False)

        ways = {"plain loop": [], "store": [], "store and dask": []}
        with Client(n_workers=1, threads_per_worker=1, dashboard_address=None) as client:
            run("first")  # imports, and the scans into the cache of the system
            run("warm", client)
            for n in range(3):  # one after the other, so that a busy moment hits all three
                ways["plain loop"].append(seconds(loop))
                ways["store"].append(seconds(lambda n=n: run(f"store{n}")))
                ways["store and dask"].append(seconds(lambda n=n: run(f"dask{n}", client)))
        best = {way: min(times) for way, times in ways.items()}
        rows = [(way, took, took / best["plain loop"] - 1) for way, took in best.items()]
    return pd.DataFrame(rows, columns=["way", "seconds", "overhead"])


def import_speed() -> pd.DataFrame:
    rng, lesions = np.random.default_rng(0), 677
    xyz = rng.uniform(-200, 200, (lesions, 3))
    frame = pd.DataFrame(xyz, columns=["coordX", "coordY", "coordZ"])
    frame.insert(0, "Unnamed: 0", range(lesions))
    frame["image_path"] = [f"/data/{n:060d}.mhd" for n in range(lesions)]
    file = {
        name: {
            "train": [
                {"feature": rng.random((1, layout.dim), np.float32), "row": row}
                for _, row in frame.iterrows()
            ]
        }
        for name, layout in EXTRACTORS.items()
    }
    table = pd.DataFrame(xyz, columns=["coord_x", "coord_y", "coord_z"])
    for name in ("lesion_id", "scan_id", "patient_id"):
        table[name] = [f"l{n}" for n in range(lesions)]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "features.pkl"
        path.write_bytes(pickle.dumps(file, 4))
        safe = seconds(lambda: embeddings.import_released(path, "luna16", table=table))
        unsafe = seconds(lambda: pickle.Unpickler(path.open("rb")).load())
        megabytes = path.stat().st_size / 1e6
    return pd.DataFrame(
        [(megabytes, safe, unsafe, safe / unsafe)],
        columns=["MB", "seconds", "seconds, own reader", "ratio"],
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parts = ["end-to-end", "overhead", "import"]
    parser.add_argument("--parts", nargs="+", choices=parts, default=parts)
    parser.add_argument("--scans", type=int, default=4)
    parser.add_argument("--lesions", type=int, default=2, help="per scan")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    runs = {
        "end-to-end": lambda: end_to_end(options.scans, options.lesions),
        "overhead": lambda: overhead(60),
        "import": import_speed,
    }
    results = {}
    for part in options.parts:
        table = runs[part]()
        print(f"\n{part}\n{table.to_string(index=False)}")
        results[part] = table.to_dict("records")
    if options.json:
        options.json.write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
