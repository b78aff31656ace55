"""What the pages of the models show in common: facts, stages, input and cost of an encoder."""

import timeit

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
import yaml
from IPython.display import Markdown

from tumorbench_utils import plots, settings
from tumorbench_utils.cohorts import load_cohort
from tumorbench_utils.models import FoundationModel, weights
from tumorbench_utils.models.base import ModelCard
from tumorbench_utils.patches import PatchSpec, extract_patch

_TEXTS = yaml.safe_load((settings.BOOK_ROOT / "data" / "model_page.yml").read_text("utf-8"))

_OPPOSITE = dict(zip("RLAPSI", "LRPAIS", strict=True))
_EDGES = (0.5, 0.93), (0.5, 0.03), (0.02, 0.48), (0.93, 0.48)
_PLANE = {"S": "axial", "I": "axial", "A": "coronal", "P": "coronal"}


def shared(part: str, model: FoundationModel) -> Markdown:
    """Return a text that all pages share: a part of ``data/model_page.yml``."""
    here = "is here" if weights.find(model.key) else "is not here"
    return Markdown(_TEXTS[part].format(model=model, here=here))


def facts(card: ModelCard) -> pd.DataFrame:
    """Return the facts of a card, one per row."""
    rows = {name: text.format(card=card).strip() for name, text in _TEXTS["facts"].items()}
    return pd.DataFrame({"": rows}).replace("None", "not known to us")


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

    def note(part, args, output):
        shapes[part] = tuple(output.shape[1:])

    with torch.device("meta"), torch.inference_mode():
        module = model.build("full")
        titles = {module.get_submodule(name): title for name, title in names.items()}
        for part in titles:
            part.register_forward_hook(note)
        module(torch.empty(1, 1, *model.spec.size))
    rows = [(titles[part], shape, count(part)) for part, shape in shapes.items()]
    return pd.DataFrame(rows, columns=["stage", "shape", "parameters"])


def count(module: torch.nn.Module) -> int:
    """Return how many parameters a network has."""
    return sum(p.numel() for p in module.parameters())


def draw_stages(frame: pd.DataFrame, edition: str, ylim=(-4.6, 4.2)) -> None:
    """Draw stages (channels, d0, d1, d2) as blocks: as tall as the grid, as wide as the channels.

    Parameters
    ----------
    frame : DataFrame
        Columns ``stage`` and ``shape``; a shape of one number is drawn as a vector.
    edition : str
    ylim : tuple of 2 floats
    """
    figure, axes = plt.subplots(figsize=(8, 3))
    left = 0.0
    for row in frame.itertuples():
        channels, *grid = row.shape
        width, height = 0.25 + np.log2(channels) / 10, max(grid, default=1) ** 0.5
        color = plots.PALETTE[4] if grid else plots.PALETTE[1]
        axes.add_patch(plt.Rectangle((left, -height / 2), width, height, color=color))
        middle, said = left + width / 2, f"{channels}\n{' x '.join(map(str, grid))}"
        axes.text(middle, height / 2 + 0.3, row.stage, ha="center", fontsize=8)
        axes.text(middle, -height / 2 - 0.3, said, ha="center", va="top", fontsize=7)
        left += width + 0.55
    axes.set(xlim=(-0.3, left - 0.2), ylim=ylim)
    axes.axis("off")
    plots.stamp(figure, edition)


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


def cut(row: pd.Series, spec: PatchSpec) -> np.ndarray:
    """Return the patch of one lesion."""
    seed = row[["coord_x", "coord_y", "coord_z"]].astype(float)
    return extract_patch(row["image_path"], seed, spec)


def stack(table: pd.DataFrame, spec: PatchSpec) -> torch.Tensor:
    """Return the patches of some lesions as a tensor (n, 1, d0, d1, d2)."""
    return torch.from_numpy(np.stack([cut(row, spec) for _, row in table.iterrows()]))[:, None]


def draw_patch(patch: np.ndarray, spec: PatchSpec) -> None:
    """Draw the middle slices of a patch across its three axes, with the directions at the edges.

    Parameters
    ----------
    patch : ndarray, shape (d0, d1, d2)
    spec : PatchSpec
        What it was cut with: gives the letters, and the range of the grey values.
    """
    figure, axes = plt.subplots(1, 3, figsize=(8, 2.9))
    low, high = spec.out_range
    for axis, one in enumerate(axes):
        title = f"axis {axis}: {_PLANE.get(spec.orientation[axis], 'sagittal')}"
        plots.slices(one, patch, axis, title, vmin=low, vmax=high)
        down, right = spec.orientation.replace(spec.orientation[axis], "")
        letters = _OPPOSITE[down], down, _OPPOSITE[right], right
        for place, letter in zip(_EDGES, letters, strict=True):
            one.text(*place, letter, color=plots.PALETTE[6], fontsize=8, transform=one.transAxes)
    plots.stamp(figure, "phantom")


def draw_views(views: dict[str, np.ndarray], vmax: float = 0.6) -> np.ndarray:
    """Draw pictures (rows, columns) with grey values from 0 to `vmax` in a row; return the axes."""
    figure, axes = plt.subplots(1, len(views), figsize=(1 + 1.8 * len(views), 2.5))
    for one, (title, view) in zip(axes, views.items(), strict=True):
        plots.picture(one, view, title, vmin=0, vmax=vmax)
    plots.stamp(figure, "phantom")
    return axes


def draw_embeddings(embeddings: torch.Tensor, sizes_mm: pd.Series, kind: str) -> None:
    """Draw the start of some embeddings as rows, and the similarity of the lesions beside them.

    The mean over the lesions is removed first; on the left every dimension is scaled to -1..1.

    Parameters
    ----------
    embeddings : Tensor, shape (n, dim)
    sizes_mm : Series, length n
        Names the rows.
    kind : str
        Of the weights, for the label.
    """
    names = [f"{size:.0f} mm" for size in sizes_mm]
    centred = embeddings.numpy() - embeddings.numpy().mean(axis=0)
    scaled = centred / np.maximum(np.abs(centred).max(axis=0), 1e-12)
    unit = centred / np.linalg.norm(centred, axis=1, keepdims=True)
    figure, axes = plt.subplots(1, 2, figsize=(8, 2.6), width_ratios=(3, 1))
    options = {"text": "", "cmap": "PuOr", "vmin": -1, "vmax": 1}
    plots.heat(axes[0], pd.DataFrame(scaled[:, :100], index=names), **options)
    axes[0].set(xticks=range(0, 100, 20), xticklabels=range(0, 100, 20), xlabel="dimension")
    plots.heat(axes[1], pd.DataFrame(unit @ unit.T, names, names), **options)
    axes[1].set_title("similarity")
    plots.stamp(figure, "phantom", kind)


def cost(model: FoundationModel, sizes: tuple[str, ...] = ("compact", "full")) -> pd.DataFrame:
    """Measure an encoder on this machine's CPU: one patch in float32.

    Returns
    -------
    DataFrame
        One row per size: ``parameters``, ``weights MB``, ``s to build``, and ``ms per patch``
        (the shorter of two runs).
    """
    low, high = model.spec.out_range
    # Noise, not a constant: MedImageInsight embeds slices that are alike only once.
    generator = torch.Generator().manual_seed(0)
    patch = torch.rand(1, 1, *model.spec.size, generator=generator) * (high - low) + low
    rows = {}
    for size in sizes:
        start = timeit.default_timer()
        module = model.build(size)
        built, n = timeit.default_timer() - start, count(module)
        runs = timeit.repeat(lambda module=module: model.encode(module, patch), number=1, repeat=2)
        rows[size] = [n, 4e-6 * n, built, 1e3 * min(runs)]
    names = ["parameters", "weights MB", "s to build", "ms per patch"]
    return pd.DataFrame.from_dict(rows, "index", columns=names).astype({"parameters": int})
