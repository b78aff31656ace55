"""What the pages of the models show in common: facts, stages, input and cost of an encoder."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pandas as pd
import psutil
import torch
from matplotlib.axes import Axes
from torch.utils.flop_counter import FlopCounterMode

from tumorbench_utils import plots
from tumorbench_utils.cohorts import load_cohort
from tumorbench_utils.models import FoundationModel, ModelCard
from tumorbench_utils.patches import PatchSpec, extract_patches

_OPPOSITE = dict(zip("RLAPSI", "LRPAIS", strict=True))
_PLANE = {"S": "axial", "I": "axial", "A": "coronal", "P": "coronal"}


def facts(card: ModelCard) -> pd.DataFrame:
    """Return the facts of a card, one per row."""
    rows = {
        "paper": card.paper,
        "year": card.year,
        "DOI": card.doi or "not known to us",
        "pre-training": card.strategy,
        "pre-training data": card.data,
        "native input": card.native_input,
        "licence": card.licence,
        "allows": card.allows,
        "access": f"{card.access} {card.gate}".strip(),
        "weights": f"{card.file} at {card.source}",
        "parameters of the encoder": f"{card.parameters:,}",
    }
    return pd.DataFrame({"": rows})


# ------------------------------------------------------------------------------------ architecture


def stages(model: FoundationModel, names: dict[str, str]) -> pd.DataFrame:
    """Trace a full encoder, without its memory, and say what its stages put out.

    Parameters
    ----------
    model : FoundationModel
    names : dict of str to str
        Title of a stage by the name of its module, in order.

    Returns
    -------
    DataFrame
        One row per stage: ``stage``, ``shape`` (of one patch, channels included, as the module
        gives it) and ``parameters``.
    """
    shapes = {}
    with torch.device("meta"):
        module = model.build("full")
        for name in names:

            def note(part, args, output, name=name):
                shapes[name] = tuple(output.shape)

            module.get_submodule(name).register_forward_hook(note)
        with torch.inference_mode():
            module(torch.empty(1, 1, *model.spec.size))
    count = {n: sum(p.numel() for p in module.get_submodule(n).parameters()) for n in names}
    rows = [(title, shapes[name][1:], count[name]) for name, title in names.items()]
    return pd.DataFrame(rows, columns=["stage", "shape", "parameters"])


def draw_stages(axes: Axes, frame: pd.DataFrame) -> Axes:
    """Draw stages (channels, d0, d1, d2) as blocks: as tall as the grid, as wide as the channels.

    Parameters
    ----------
    axes : matplotlib Axes
    frame : DataFrame
        Columns ``stage`` and ``shape``; a shape of one number is drawn as a vector.
    """
    left = 0.0
    for row in frame.itertuples():
        channels, grid = row.shape[0], row.shape[1:]
        width, height = 0.25 + np.log2(channels) / 10, (max(grid) if grid else 1) ** 0.5
        color = plots.PALETTE[4] if grid else plots.PALETTE[1]
        axes.add_patch(plots.plt.Rectangle((left, -height / 2), width, height, color=color))
        size = " x ".join(map(str, grid))
        middle = left + width / 2
        axes.text(middle, height / 2 + 0.3, row.stage, ha="center", fontsize=8)
        text = f"{channels}\n{size}"
        axes.text(middle, -height / 2 - 0.3, text, ha="center", va="top", fontsize=7)
        left += width + 0.55
    axes.set(xlim=(-0.3, left - 0.2), ylim=(-4.6, 4.2))
    axes.axis("off")
    return axes


# ------------------------------------------------------------------------------------------- input


def examples(n: int = 4) -> pd.DataFrame:
    """Return phantom lung nodules of rising size, every edition the same.

    Returns
    -------
    DataFrame
        Rows of the LUNA16 phantoms, sorted by ``size_mm``, evenly over its range.
    """
    table = load_cohort("luna16", "phantom").table.sort_values("size_mm")
    table = table[table["size_mm"].between(6, 30)]
    return table.iloc[np.linspace(0, len(table) - 1, n).round().astype(int)]


def cut(row: pd.Series, *specs: PatchSpec) -> list[np.ndarray]:
    """Return the patches of one lesion, one per specification, from one read of its scan."""
    seed = tuple(row[["coord_x", "coord_y", "coord_z"]].astype(float))
    return extract_patches(row["image_path"], [seed], specs)[0]


def draw_patch(axes: np.ndarray, patch: np.ndarray, spec: PatchSpec) -> np.ndarray:
    """Draw the middle slices of a patch across its three axes, with the directions at the edges.

    Parameters
    ----------
    axes : array of three matplotlib Axes
    patch : ndarray, shape (d0, d1, d2)
    spec : PatchSpec
        What it was cut with: gives the letters, and the range of the grey values.
    """
    low, high = spec.out_range
    for axis, one in enumerate(axes):
        rows, columns = (letter for i, letter in enumerate(spec.orientation) if i != axis)
        title = f"axis {axis}: {_PLANE.get(spec.orientation[axis], 'sagittal')}"
        plots.slices(one, patch, axis, title, vmin=low, vmax=high)
        for x, y, letter in (
            (0.5, 0.93, _OPPOSITE[rows]),
            (0.5, 0.03, rows),
            (0.02, 0.48, _OPPOSITE[columns]),
            (0.93, 0.48, columns),
        ):
            one.text(x, y, letter, color=plots.PALETTE[6], fontsize=8, transform=one.transAxes)
    return axes


def draw_embeddings(axes: np.ndarray, embeddings: np.ndarray, sizes_mm: pd.Series) -> np.ndarray:
    """Draw the start of some embeddings as rows, and the similarity of the lesions beside them.

    The mean over the lesions is removed first; on the left every dimension is scaled to -1..1.

    Parameters
    ----------
    axes : array of two matplotlib Axes
    embeddings : ndarray, shape (n, dim)
    sizes_mm : Series, length n
        Names the rows.
    """
    names = [f"{size:.0f} mm" for size in sizes_mm]
    centred = embeddings - embeddings.mean(axis=0)
    start = centred[:, :100]
    scale = np.abs(start).max(axis=0)
    scaled = start / np.where(scale > 0, scale, 1)
    axes[0].imshow(scaled, aspect="auto", cmap="PuOr", vmin=-1, vmax=1)
    axes[0].set(yticks=range(len(names)), yticklabels=names, xlabel="dimension")
    unit = centred / np.linalg.norm(centred, axis=1, keepdims=True)
    axes[1].imshow(unit @ unit.T, cmap="PuOr", vmin=-1, vmax=1)
    axes[1].set(xticks=range(len(names)), yticks=range(len(names)), title="similarity")
    axes[1].set_xticklabels(names, fontsize=7, rotation=45)
    axes[1].set_yticklabels(names, fontsize=7)
    return axes


# -------------------------------------------------------------------------------------------- cost


@contextmanager
def _peak_memory() -> Iterator[dict]:
    """Watch the memory of this process; the result's ``mb`` is the peak above the start."""
    process, done = psutil.Process(), threading.Event()
    start = process.memory_info().rss
    result = {"mb": 0.0}

    def watch():
        while not done.wait(0.005):
            result["mb"] = max(result["mb"], (process.memory_info().rss - start) / 1e6)

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield result
    finally:
        done.set()
        thread.join()


def cost(model: FoundationModel, sizes: tuple[str, ...] = ("compact", "full")) -> pd.DataFrame:
    """Measure an encoder on this machine's CPU: one patch in float32.

    Returns
    -------
    DataFrame
        One row per size: ``parameters``, ``weights MB``, ``s to build``, ``ms per patch`` (the
        shorter of two runs, if the first took less than a second) and ``peak MB`` (memory above
        what was held before, weights included).
    """
    low, high = model.spec.out_range
    # Noise, not a constant: MedImageInsight embeds slices that are alike only once.
    generator = torch.Generator().manual_seed(0)
    patch = torch.rand(1, 1, *model.spec.size, generator=generator) * (high - low) + low
    rows = {}
    for size in sizes:
        with _peak_memory() as peak:
            start = time.perf_counter()
            module = model.build(size)
            built = time.perf_counter() - start
            times = []
            while not times or (len(times) == 1 and times[0] < 1):
                start = time.perf_counter()
                model.encode(module, patch)
                times.append(time.perf_counter() - start)
        parameters = sum(p.numel() for p in module.parameters())
        del module
        rows[size] = {
            "parameters": parameters,
            "weights MB": 4e-6 * parameters,
            "s to build": built,
            "ms per patch": 1e3 * min(times),
            "peak MB": peak["mb"],
        }
    return pd.DataFrame.from_dict(rows, orient="index").astype({"parameters": int})


def gigaflops(model: FoundationModel, size: str = "full") -> float:
    """Count the multiplications and additions (1e9) of one patch, without doing them."""
    with torch.device("meta"), torch.inference_mode():
        module = model.build(size)
        with FlopCounterMode(display=False) as counter:
            module(torch.empty(1, 1, *model.spec.size))
    return counter.get_total_flops() / 1e9
