"""What figures and tables of all chapters share: one style, one palette, one honest label.

No figure or table leaves a chapter without :func:`stamp` or :func:`table`: they write which
edition the numbers come from and, where a network was used, which kind of weights it had.
"""

import html

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from adjustText import adjust_text
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from tumorbench_utils import checks
from tumorbench_utils.stats import Estimate

#: Okabe and Ito's colours: told apart with every common colour vision deficiency.
PALETTE = ("#0072B2", "#E69F00", "#009E73", "#D55E00", "#56B4E9", "#CC79A7", "#F0E442", "#000000")

#: The kinds of weights that a label may name.
WEIGHTS = (
    "teaching encoder",
    "untrained",
    "released weights",
    "released features",
    "own weights",
    "published",
)

#: Where an interactive figure of a page in ``notebooks/PART/`` finds plotly without a network.
PLOTLY_JS = "../../_static/plotly.min.js"

_EDITION_TEXT = {
    "phantom": "phantom edition: procedural scans, no patients",
    "released": "released edition: tables and features released by the authors",
    "full": "full edition: real scans",
    "simulation": "simulation: random numbers, no scans",
    "published": "published figures (Pai et al. 2025)",
}


def use_style() -> None:
    """Set the book's matplotlib defaults: the palette, quiet axes, a white background."""
    plt.rcParams.update(
        {
            "axes.prop_cycle": plt.cycler(color=PALETTE),
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.titlesize": "medium",
            "axes.titlelocation": "left",
            "figure.constrained_layout.use": True,
            "figure.dpi": 110,
            "figure.facecolor": "white",
            "image.cmap": "gray",
            "legend.frameon": False,
        }
    )


def label(edition: str, weights: str | None = None) -> str:
    """Return the text that says where a result comes from.

    Parameters
    ----------
    edition : {"phantom", "released", "full", "published", "simulation"}
        Edition of the data; ``"published"`` for figures of the original publication,
        ``"simulation"`` for made-up numbers.
    weights : str, optional
        One of :data:`WEIGHTS`, where a network was used.
    """
    text = _EDITION_TEXT[checks.one_of(edition, "edition", _EDITION_TEXT)]
    if weights is None:
        return text
    return f"{text} | network: {checks.one_of(weights, 'kind of weights', WEIGHTS)}"


def stamp(figure: Figure, edition: str, weights: str | None = None) -> Figure:
    """Write the label of :func:`label` under a figure and return the figure."""
    figure.supxlabel(label(edition, weights), fontsize=7, color="#555555", x=0.995, ha="right")
    return figure


def table(frame, edition: str, weights: str | None = None, *, caption="", precision=2):
    """Return a styled table whose caption ends with the label of :func:`label`.

    Whatever the table holds is shown as text: names of strangers cannot become HTML.

    Parameters
    ----------
    frame : DataFrame
    edition, weights
        As for :func:`label`.
    caption : str
        What the table shows.
    precision : int
        Decimals of floating-point numbers.

    Returns
    -------
    pandas.io.formats.style.Styler
    """
    text = html.escape(f"{caption} [{label(edition, weights)}]".strip(), quote=False)
    frame = frame.rename_axis(index=_escaped, columns=_escaped)
    style = frame.style.format(precision=precision, na_rep="–", escape="html").set_caption(text)
    for axis in (0, 1):
        style = style.format_index(axis=axis, escape="html")
    return style.set_table_attributes('class="dataframe"')


def _escaped(name):
    return html.escape(name, quote=False) if isinstance(name, str) else name


def estimate(value: float, low: float, high: float) -> str:
    """Return an estimate and its interval as text for a cell: one line however narrow the screen.

    Parameters
    ----------
    value, low, high : float
        The estimate and the ends of its interval; a dash if the estimate is missing.
    """
    return str(Estimate(value, low, high))


def forest(
    axes: Axes, names, values, low, high, *, reference=None, colors=None, filled=None
) -> Axes:
    """Draw estimates with their intervals, one line each, the first on top.

    Parameters
    ----------
    axes : matplotlib Axes
    names : list of str, length n
    values, low, high : array-like, shape (n,)
        Estimates and the ends of their intervals.
    reference : float, optional
        Position of a dashed vertical line, for example chance.
    colors : list of str, length n, optional
    filled : array-like of bool, shape (n,), optional
        Points that are filled, for example those that differ from the reference; all by default.
    """
    values, low, high = (np.asarray(a, dtype=float) for a in (values, low, high))
    rows = np.arange(len(names))
    colors = colors or [PALETTE[0]] * len(names)
    axes.hlines(rows, low, high, colors=colors, linewidth=2)
    face = colors if filled is None else np.where(filled, colors, "white")
    axes.scatter(values, rows, c=face, edgecolors=colors, s=28, zorder=3)
    if reference is not None:
        axes.axvline(reference, color="#777777", linestyle="--", linewidth=1, zorder=0)
    axes.set_yticks(rows, names)
    axes.set_ylim(len(names) - 0.4, -0.6)
    return axes


def forests(tables, reference: float, label: str, *, colors=None, figsize=(7, 6)) -> tuple:
    """Draw one forest per table, one above the other on a shared axis.

    Parameters
    ----------
    tables : mapping of title to DataFrame
        The first three columns are the estimate and the ends of its interval, a row each.
    reference : float
        Position of the dashed vertical line.
    label : str
        Of the shared axis.
    colors : mapping of row to int, optional
        Rows that have another colour of :data:`PALETTE` than the first.
    figsize : (float, float)
        Inches.

    Returns
    -------
    figure, panels
    """
    heights = [len(table) for table in tables.values()]
    shared = {"figsize": figsize, "sharex": True, "height_ratios": heights}
    figure, panels = plt.subplots(len(tables), **shared)
    for axes, (title, table) in zip(panels, tables.items(), strict=True):
        shades = [PALETTE[(colors or {}).get(name, 0)] for name in table.index]
        columns = table.iloc[:, :3].to_numpy(float).T
        forest(axes, list(table.index), *columns, reference=reference, colors=shades)
        axes.tick_params(axis="y", labelsize=8)
        axes.set_title(title)
    panels[-1].set_xlabel(label)
    return figure, panels


def heat(axes: Axes, frame: pd.DataFrame, *, text="{:.2f}", strong=None, **kwargs) -> Axes:
    """Draw a table as a heat map with its numbers in the cells.

    Parameters
    ----------
    axes : matplotlib Axes
    frame : DataFrame
        Rows and columns name the ticks.
    text : str or DataFrame of str
        Format of the numbers (an empty string leaves them out), or what is written instead.
    strong : array-like of bool, same shape, optional
        Cells whose number is bold.
    **kwargs
        Passed on to ``imshow``.
    """
    image = axes.imshow(frame, aspect="auto", **{"cmap": "viridis", **kwargs})
    axes.set_xticks(range(frame.shape[1]), frame.columns, rotation=40, ha="right")
    axes.set_yticks(range(frame.shape[0]), frame.index)
    axes.spines[:].set_visible(False)
    bold = np.zeros(frame.shape, dtype=bool) if strong is None else np.asarray(strong)
    for (row, column), value in np.ndenumerate(frame.to_numpy(dtype=float)):
        words = text.format(value) if isinstance(text, str) else text.iat[row, column]
        if np.isfinite(value):
            # White on dark cells, black on light ones, by the luminance that the eye sees.
            dark = np.dot(image.to_rgba(value)[:3], (0.299, 0.587, 0.114)) < 0.5
            weight = "bold" if bold[row, column] else "normal"
            style = {"color": "white" if dark else "black", "weight": weight, "fontsize": 7}
            axes.text(column, row, words, ha="center", va="center", **style)
    return axes


def name_points(axes: Axes, x, y, names, size: float = 7) -> None:
    """Write a name beside every point of a scatter plot, moved until none covers another.

    Call it when the limits of the axes are final; a thin line leads from a name that had to move
    far to its point.

    Parameters
    ----------
    axes : matplotlib Axes
    x, y : array-like, shape (n,)
    names : sequence of str, length n
    size : float
        Of the letters, in points.
    """
    x, y = np.asarray(x, dtype=float), np.asarray(y, dtype=float)
    texts = [axes.text(*place, fontsize=size) for place in zip(x, y, names, strict=True)]
    line = {"arrowstyle": "-", "color": "#999999", "linewidth": 0.6}
    # A limit in steps: one in seconds would draw another figure on a slow computer.
    adjust_text(texts, x=x, y=y, ax=axes, iter_lim=500, arrowprops=line)


def picture(axes: Axes, image: np.ndarray, title: str = "", **kwargs) -> Axes:
    """Show an image without ticks and frame.

    Parameters
    ----------
    axes : matplotlib Axes
    image : ndarray, shape (rows, columns)
    title : str
    **kwargs
        Passed on to ``imshow``, for example a window ``vmin=-1350, vmax=150`` (HU).
    """
    axes.imshow(image, **kwargs)
    axes.set_title(title, fontsize=8)
    axes.axis("off")
    return axes


def slices(axes: Axes, patch: np.ndarray, axis: int, title: str = "", **kwargs) -> Axes:
    """Show the middle slice of a patch across one axis, without ticks.

    Parameters
    ----------
    axes : matplotlib Axes
    patch : ndarray, shape (d0, d1, d2)
    axis : int
        The axis that is cut in its middle.
    title : str
    **kwargs
        Passed on to ``imshow``.
    """
    axes.imshow(np.take(patch, patch.shape[axis] // 2, axis=axis), **kwargs)
    axes.set_title(title)
    axes.set(xticks=[], yticks=[])
    return axes
