"""Time and memory of one patch: resampling the whole scan with MONAI against the book's way.

Both cut the same 48 mm cube out of the same four files, each in a process of its own, one after the
other in one run. The MONAI chain (LoadImage, Orientation, Spacing, crop, ScaleIntensityRange, pad)
may use all cores; the book's way uses one. The chain loads with SimpleITK, which is faster than the
readers it brings along. The two patches are compared voxel by voxel.

    python benchmarks/patches.py --json OUT.json [--size 512 512 300] [--repeats 15]
"""

import argparse
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

FILES = {"a.mhd": False, "b.nii": False, "c.nii.gz": True, "d.nrrd": True}
SPACING = (0.7, 0.7, 1.25)
PATCH_MM = 48


def make_volume(folder: Path, size: np.ndarray, repeats: int) -> dict:
    """Write a noisy chest-like volume (int16 HU) in all four formats."""
    import SimpleITK as sitk

    rng = np.random.default_rng(0)
    ni, nj, nk = size
    y, x = np.meshgrid(np.linspace(-1, 1, nj), np.linspace(-1, 1, ni), indexing="ij")
    body = np.where((x / 0.9) ** 2 + (y / 0.7) ** 2 < 1, 40, -1000)
    for side in (-0.42, 0.42):
        body[((x - side) / 0.3) ** 2 + (y / 0.5) ** 2 < 1] = -850
    array = np.empty((nk, nj, ni), np.int16)
    for plane in array:
        plane[:] = np.clip(body + rng.normal(0, 15, body.shape), -1024, None)
    image = sitk.GetImageFromArray(array)
    image.SetSpacing(SPACING)
    for name, packed in FILES.items():
        sitk.WriteImage(image, str(folder / name), useCompression=packed)
    return {}


def seed_of(size: tuple[int, int, int], where: float) -> np.ndarray:
    """Return a seed in the middle of the slices, at a share `where` of the scan's height."""
    last = np.array(size) - 1.0
    return last * (0.5, 0.5, where) * SPACING


def run_monai(folder: Path, seed: np.ndarray, repeats: int) -> dict:
    """Time the MONAI chain."""
    import SimpleITK as sitk
    from monai.data.image_reader import ImageReader
    from monai.transforms import (
        LoadImage,
        Orientation,
        ScaleIntensityRange,
        Spacing,
        SpatialCrop,
        SpatialPad,
    )

    class Reader(ImageReader):
        """SimpleITK behind MONAI's LoadImage."""

        def verify_suffix(self, filename):
            return True

        def read(self, data, **kwargs):
            return sitk.ReadImage(str(data[0]))

        def get_data(self, img):
            affine = np.eye(4)
            affine[:3, :3] = np.reshape(img.GetDirection(), (3, 3)) * img.GetSpacing()
            affine[:3, 3] = img.GetOrigin()
            affine = np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine
            array = sitk.GetArrayFromImage(img).transpose(2, 1, 0)
            return array, {"affine": affine, "original_channel_dim": float("nan")}

    load = LoadImage(reader=Reader(), image_only=True, ensure_channel_first=True)
    turn = Orientation("LPS", labels=(("L", "R"), ("P", "A"), ("I", "S")))
    resample = Spacing((1, 1, 1), diagonal=True, mode="bilinear", padding_mode="zeros")
    scale = ScaleIntensityRange(-1024, 2048, 0, 1, clip=True)
    pad = SpatialPad((PATCH_MM,) * 3)

    def cut(path):
        grid = resample(turn(load(path)))
        ras = np.array([-seed[0], -seed[1], seed[2], 1.0])
        centre = np.trunc(np.linalg.inv(grid.affine.numpy()) @ ras)[:3].astype(int)
        low = np.maximum(centre - PATCH_MM // 2, 0)
        high = np.minimum(centre + PATCH_MM // 2, grid.shape[1:])
        cube = SpatialCrop(roi_start=low.tolist(), roi_end=high.tolist())(grid)
        return pad(scale(cube))[0].numpy()

    return measure(cut, folder, repeats)


def run_book(folder: Path, seed: np.ndarray, repeats: int) -> dict:
    """Time `extract_patch`."""
    from tumorbench_utils.patches import PatchSpec, extract_patch

    spec = PatchSpec("RAS", size=(PATCH_MM,) * 3)
    return measure(lambda path: extract_patch(path, seed, spec), folder, repeats)


def measure(cut, folder: Path, repeats: int) -> dict:
    """Return the median seconds of `cut` per file, its patches and the peak memory."""
    cut(folder / "a.mhd")  # Pays for imports and caches, in both ways.
    found = {}
    for name in FILES:
        seconds = []
        for _ in range(repeats):
            start = time.perf_counter()
            patch = cut(folder / name)
            seconds.append(time.perf_counter() - start)
        found[f"seconds {name}"] = statistics.median(seconds)
        found[f"patch {name}"] = patch
    # The largest memory that this process has held, in MB (Linux counts in kB, macOS in bytes).
    unit = 1 << 20 if sys.platform == "darwin" else 1 << 10
    return found | {"peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit}


def run_further(folder: Path, seed: np.ndarray, repeats: int) -> dict:
    """Measure the CPU time of each further patch of a scan: more seeds, more specs per seed."""
    from tumorbench_utils.patches import PatchSpec, extract_patches

    one = [PatchSpec()]
    seven = [
        *(PatchSpec(code) for code in ("SPL", "RAS", "LPS")),
        *(PatchSpec(code, window_hu=(-1000, 1000)) for code in ("RAS", "LPS")),
        PatchSpec("RAS", size=(64, 64, 64)),
        PatchSpec("SLP", (1.5, 0.75, 0.75), (60, 60, 60), (-1000, 1000), (-1, 1)),
    ]
    seeds = seed + np.random.default_rng(0).uniform(-20, 20, (20, 3))

    def spent(n, specs):
        start = time.process_time()
        extract_patches(folder / "b.nii", seeds[:n], specs)
        return 1e3 * (time.process_time() - start)

    spent(1, one)
    first = statistics.median(spent(1, one) for _ in range(repeats))
    found = {}
    for name, specs in (("seeds", one), ("specs", seven)):
        further = [spent(20, specs) - first for _ in range(repeats)]
        found[f"further_{name}_ms"] = statistics.median(further) / (20 * len(specs) - 1)
    return found


def in_its_own_process(task: str, folder: Path, seed: np.ndarray, repeats: int) -> dict:
    """Run one task of this file in a new process and return what it found."""
    out = folder / "found.npz"
    request = [task, str(folder), json.dumps(seed.tolist()), str(repeats), str(out)]
    threads = {} if task == "monai" else {"OMP_NUM_THREADS": "1"}
    command = [sys.executable, __file__, "--task", *request]
    done = subprocess.run(command, env=os.environ | threads, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{task} failed:\n{done.stderr}")
    with np.load(out) as found:
        return {key: found[key] for key in found.files}


def compare(folder: Path, size: tuple[int, int, int], repeats: int, chain_repeats: int) -> dict:
    """Return one row per format, and the cost of further patches."""
    # In a process of its own too: a process starts with the peak memory of the one that began it.
    in_its_own_process("make", folder, np.array(size), 1)
    middle = seed_of(size, 0.5)
    chain = in_its_own_process("monai", folder, middle, chain_repeats)
    book = in_its_own_process("book", folder, middle, repeats)
    end = in_its_own_process("book", folder, seed_of(size, 1.0), repeats)
    rows = []
    for name in FILES:
        whole, direct, last = (float(found[f"seconds {name}"]) for found in (chain, book, end))
        gap = np.abs(chain[f"patch {name}"] - book[f"patch {name}"]).max()
        rows.append(
            {
                "format": name[1:],
                "monai_s": whole,
                "book_ms": 1e3 * direct,
                "book_last_slice_ms": 1e3 * last,
                "ratio": whole / direct,
                "ratio_last_slice": whole / last,
                "largest_difference": float(gap),
            }
        )
    further = in_its_own_process("further", folder, middle, max(3, repeats // 3))
    peaks = float(chain["peak_mb"]), max(float(found["peak_mb"]) for found in (book, end))
    return {
        "size": list(size),
        "spacing_mm": SPACING,
        "cores": os.cpu_count(),
        "machine": platform.machine(),
        "rows": rows,
        "monai_peak_mb": peaks[0],
        "book_peak_mb": peaks[1],
        "memory_ratio": peaks[0] / peaks[1],
        **{key: float(value) for key, value in further.items()},
    }


def table(result: dict) -> str:
    """Return the rows as text."""
    names = list(result["rows"][0])
    lines = ["  ".join(f"{name:>18}" for name in names)]
    for row in result["rows"]:
        cells = (f"{v:>18.4g}" if isinstance(v, float) else f"{v:>18}" for v in row.values())
        lines.append("  ".join(cells))
    lines += [f"{key}: {value:.4g}" for key, value in result.items() if isinstance(value, float)]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path, help="where to write the result")
    parser.add_argument("--size", type=int, nargs=3, default=(512, 512, 300))
    parser.add_argument("--repeats", type=int, default=15, help="of the book's way; median")
    parser.add_argument("--chain-repeats", type=int, default=1, help="of the MONAI chain")
    parser.add_argument("--task", nargs=5, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.task:
        task, folder, seed, repeats, out = options.task
        tasks = {"make": make_volume, "monai": run_monai, "book": run_book, "further": run_further}
        run = tasks[task]
        np.savez(out, **run(Path(folder), np.array(json.loads(seed)), int(repeats)))
        return
    with tempfile.TemporaryDirectory() as folder:
        sizes = tuple(options.size)
        result = compare(Path(folder), sizes, options.repeats, options.chain_repeats)
    print(table(result))
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
