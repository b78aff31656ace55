"""The leaderboard on a page: a table to sort and filter without a network, and its downloads."""

import base64
import html
import json

import numpy as np
import pandas as pd
from IPython.display import HTML

from tumorbench_utils.cohorts import COHORTS
from tumorbench_utils.leaderboard import COLUMNS
from tumorbench_utils.models import MODELS

#: Where a column that is not an AUC is explained.
_EXPLAINED = {
    "rank": "endpoints/reanalysis",
    "robustness": "trust/test_retest",
    "parameters": "models/overview",
    "s / patch": "embeddings/at_scale",
    "licence": "models/overview",
}

_MARKS = {"seen": "●", "possible": "◐", "unknown": "?"}


def _text(value) -> str:
    return html.escape(str(value))


def _link(page: str, text: str, title: str = "") -> str:
    note = f' title="{_text(title)}"' if title else ""
    return f'<a href="../{page}.html"{note}>{text}</a>'


def _page_of(row) -> str:
    if row.kind == "model" and row.model in MODELS:
        return f"models/{row.model}"
    return row.chapter


def summary(board: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """Return the leaderboard with one row per model and setting: cells, sort keys and tags.

    Parameters
    ----------
    board : DataFrame
        From :func:`assemble`.

    Returns
    -------
    cells : DataFrame of str
        HTML of every cell; AUCs are links to their chapters.
    keys : DataFrame
        What a column is sorted by.
    tags : DataFrame of str
        ``results``, ``kind`` and ``licence allows``: what rows are filtered by.
    """
    cells, keys, tags = [], [], []
    cohorts = [name for name in COHORTS if (board["cohort"] == name).any()]
    for (setting, model), part in board.groupby(["setting", "model"], sort=False):
        first = next(part.itertuples())
        by_cohort = {row.cohort: row for row in part.itertuples()}
        cell = {"model": _link(_page_of(first), _text(model), first.weights or "")}
        key = {"model": model, "rank": first.rank, "mean": part["auc"].mean()}
        cell["rank"] = _ranged("rank", first.rank, first.rank_low, first.rank_high, ".0f")
        whole = set(by_cohort) == set(cohorts)
        cell["mean"] = f"{key['mean']:.2f}" if whole else "–"
        key["mean"] = key["mean"] if whole else np.nan
        for name in cohorts:
            row, title = by_cohort.get(name), COHORTS[name].title
            key[title] = row.auc if row else np.nan
            cell[title] = "–"
            if row:
                mark = _MARKS.get(row.overlap, "")
                sign = f' <span title="pre-training: {row.overlap}">{mark}</span>' if mark else ""
                value = _link(row.chapter, f"{row.auc:.2f}")
                cell[title] = f"{value}{sign}<small>{row.low:.2f}–{row.high:.2f}</small>"
        key["robustness"] = first.robustness
        ends = first.robustness_low, first.robustness_high
        cell["robustness"] = _ranged("robustness", first.robustness, *ends, ".2f")
        if not pd.isna(first.collapsed) and first.collapsed:
            cell["robustness"] += "<small>collapsed</small>"
        key |= {"parameters": first.parameters, "s / patch": first.seconds}
        cell["parameters"] = _linked("parameters", first.parameters / 1e6, "{:.1f} M")
        cell["s / patch"] = _linked("s / patch", first.seconds, "{:.2g}")
        cell["licence"] = _linked("licence", first.licence, "{}")
        key["licence"] = "" if pd.isna(first.licence) else first.licence
        use = "no weights needed" if pd.isna(first.use) else first.use
        cells.append(cell)
        keys.append(key)
        tags.append({"results": setting, "kind": first.kind, "licence allows": use})
    return pd.DataFrame(cells), pd.DataFrame(keys), pd.DataFrame(tags)


def _linked(column: str, value, form: str) -> str:
    return "–" if pd.isna(value) else _link(_EXPLAINED[column], _text(form.format(value)))


def _ranged(column: str, value, low, high, form: str) -> str:
    if pd.isna(value):
        return "–"
    return f"{_linked(column, value, f'{{:{form}}}')}<small>{low:{form}}–{high:{form}}</small>"


def widget(cells: pd.DataFrame, keys: pd.DataFrame, tags: pd.DataFrame, caption: str) -> HTML:
    """Return a table that a reader can sort and filter without a network.

    The script ``_static/leaderboard.js`` adds what is needed; without it the whole table is shown.

    Parameters
    ----------
    cells : DataFrame of str
        HTML of the cells; the first column names the row.
    keys, tags : DataFrame
        As :func:`summary` returns them, rows as in `cells`.
    caption : str
    """
    head = "".join(f'<th scope="col">{_text(name)}</th>' for name in cells)
    lines = []
    for (_, cell), (_, key), (_, tag) in zip(
        cells.iterrows(), keys.iterrows(), tags.iterrows(), strict=True
    ):
        filters = _text(json.dumps(dict(tag), ensure_ascii=False))
        columns = []
        for place, name in enumerate(cells):
            value = key.get(name)
            order = "" if value is None or value != value else _text(value)
            what = 'th scope="row"' if place == 0 else "td"
            columns.append(f'<{what} data-key="{order}">{cell[name]}</{what.split()[0]}>')
        lines.append(f"<tr data-tags='{filters}'>{''.join(columns)}</tr>")
    return HTML(
        f'<div class="leaderboard"><table class="dataframe"><caption>{_text(caption)}</caption>'
        f"<thead><tr>{head}</tr></thead><tbody>{''.join(lines)}</tbody></table></div>"
        '<script src="../../_static/leaderboard.js" defer></script>'
    )


def downloads(board: pd.DataFrame, about: str) -> HTML:
    """Return links that save the leaderboard as CSV and as JSON with its data dictionary.

    The files are inside the links, so they need neither a network nor a second file.

    Parameters
    ----------
    board : DataFrame
        From :func:`assemble`.
    about : str
        One sentence for the JSON file: edition, weights.
    """
    rows = json.loads(board.to_json(orient="records", double_precision=15))
    whole = {"about": about, "dictionary": COLUMNS, "rows": rows}
    files = {
        "leaderboard.csv": ("text/csv", board.to_csv(index=False)),
        "leaderboard.json": ("application/json", json.dumps(whole, ensure_ascii=False)),
        "dictionary.csv": (
            "text/csv",
            pd.Series(COLUMNS, name="meaning").rename_axis("column").to_csv(),
        ),
    }
    links = []
    for name, (kind, text) in files.items():
        data = base64.b64encode(text.encode("utf-8")).decode("ascii")
        links.append(
            f'<a download="{name}" href="data:{kind};charset=utf-8;base64,{data}">{name}</a> '
            f"({len(text) / 1000:.0f} kB)"
        )
    return HTML(f"<p>Download: {' · '.join(links)}</p>")
