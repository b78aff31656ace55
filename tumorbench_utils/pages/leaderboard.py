"""The leaderboard on a page: a table to sort and filter without a network, and its downloads."""

import base64
import html
import json
import re

import pandas as pd
from IPython.display import HTML

from tumorbench_utils.cohorts import COHORTS
from tumorbench_utils.leaderboard import COLUMNS
from tumorbench_utils.models import MODELS

_MARKS = {"seen": " ●", "possible": " ◐", "unknown": " ?"}

#: Columns in which less is better; they are sorted upwards first, empty cells last.
_LESS = ("rank", "rank over all", "M parameters", "s / patch")

#: All rows, as HTML, without a network.
_LOOK = {"allow_html": True, "showIndex": False, "text_in_header_can_be_selected": False}
_LOOK |= {"connected": False, "paging": False, "maxBytes": 0}

#: Lists of filters: as high as their few lines, without buttons of their own.
_PANES = {"controls": False, "dtOpts": {"scrollY": "11em"}}

#: What a cell is sorted by: the number it begins with, else its words; the small print not at all.
_SORTED = """function (cell, type) {
  if (type !== 'sort' && type !== 'type') return cell;
  const text = cell.split('<small')[0].replace(/<[^>]*>/g, '').trim();
  return text === '–' ? EMPTY : isNaN(parseFloat(text)) ? text : parseFloat(text);
}"""


def cell(value, form: str = "", page: str = "", small="") -> str:
    """Return the HTML of a cell: a dash if the value is missing; all text is escaped.

    Parameters
    ----------
    value : str or float
    form : str
        As for :func:`format`, for example ``".2f"``.
    page : str, optional
        Chapter that the text links to, ``part/name``.
    small : str, optional
        Small print below.
    """
    if pd.isna(value):
        return "–"
    text = html.escape(format(value, form))
    text = f'<a href="../{html.escape(page)}.html">{text}</a>' if page else text
    return text if pd.isna(small) or not small else f"{text}<small>{html.escape(small)}</small>"


def number(row, name: str, form: str, page: str, after: str = "") -> str:
    """Return the cell of a number and its interval: ``NAME, NAME_low, NAME_high`` of a row."""
    low, high = getattr(row, f"{name}_low"), getattr(row, f"{name}_high")
    return cell(getattr(row, name), form, page, f"{low:{form}}–{high:{form}}{after}")


def summary(board: pd.DataFrame) -> pd.DataFrame:
    """Return the leaderboard with one row per model and setting, as HTML cells.

    Parameters
    ----------
    board : DataFrame
        From :func:`tumorbench_utils.leaderboard.assemble`.

    Returns
    -------
    DataFrame of str
        AUCs are links to their chapters. The last columns, ``results``, ``kind`` and ``licence
        allows``, are what rows are filtered by.
    """
    board = board.rename(columns={"low": "auc_low", "high": "auc_high"})
    cohorts, rows = [name for name in COHORTS if (board["cohort"] == name).any()], []
    for (setting, model), part in board.groupby(["setting", "model"], sort=False):
        by_cohort = {row.cohort: row for row in part.itertuples()}
        first = next(iter(by_cohort.values()))
        page = f"models/{model}" if first.kind == "model" and model in MODELS else first.chapter
        row = {"model": cell(model, "", page, first.weights)}
        row["rank"] = number(first, "rank", ".0f", "endpoints/reanalysis")
        row["mean"] = cell(part["auc"].mean() if len(by_cohort) == len(cohorts) else None, ".2f")
        for name in cohorts:
            own = by_cohort.get(name)
            text = own and number(own, "auc", ".2f", own.chapter, _MARKS.get(own.overlap, ""))
            row[COHORTS[name].title] = text or "–"
        mark = " collapsed" if str(first.collapsed) == "True" else ""
        row["robustness"] = number(first, "robustness", ".2f", "trust/test_retest", mark)
        row["M parameters"] = cell(first.parameters / 1e6, ".1f", "models/overview")
        row["s / patch"] = cell(first.seconds, ".2g", "embeddings/at_scale")
        row["licence"] = cell(first.licence, "", "models/overview")
        use = "no weights needed" if pd.isna(first.use) else first.use
        tags = {"results": setting, "kind": first.kind, "licence allows": use}
        rows.append(row | {name: cell(text) for name, text in tags.items()})
    return pd.DataFrame(rows)


def widget(cells: pd.DataFrame, filters: list[str], caption: str) -> HTML:
    """Return a table that a reader can sort and filter without a network.

    DataTables comes from ``_static/itables.js``, which the build copies out of the package; where
    there is none, as in a notebook, the whole table is shown as it is.

    Parameters
    ----------
    cells : DataFrame of str
        HTML, from :func:`cell`.
    filters : list of str
        Columns to filter by, not shown themselves; the first begins with the value of row 0.
    caption : str
    """
    from itables import JavascriptFunction, to_html_datatable

    places = cells.columns.get_indexer(filters).tolist()
    less = [n for n, name in enumerate(cells) if name in _LESS]
    keys = {end: JavascriptFunction(_SORTED.replace("EMPTY", end)) for end in ("''", "Infinity")}
    chosen = [{"column": places[0], "rows": [cells.iat[0, places[0]]]}]
    text = to_html_datatable(
        cells.rename(columns=html.escape),
        caption=html.escape(caption),
        layout={"top": "searchPanes", "topStart": "info", "topEnd": "search", "bottomStart": None},
        columnDefs=[
            {"targets": places, "visible": False, "searchPanes": {"show": True}},
            {"targets": less, "render": keys["Infinity"], "orderSequence": ["asc", "desc"]},
            {"targets": "_all", "render": keys["''"], "orderSequence": ["desc", "asc"]},
        ],
        searchPanes={"columns": places, "preSelect": chosen, **_PANES},
        **_LOOK,
    )
    # No link to another server; and the plain table stays until the script of the book is there.
    text = re.sub(r"<a href=https://itables\.org.*?</a>", "", text, flags=re.S)
    later = r"<script>addEventListener('itables', () => { \1 })</script>"
    text = re.sub(r"<script>(document\.getElementById.*?)</script>", later, text)
    script = '<script src="../../_static/itables.js" defer></script>'
    return HTML(f'<div class="leaderboard">{text}</div>{script}')


def downloads(board: pd.DataFrame, about: str) -> HTML:
    """Return links that save the leaderboard as CSV and as JSON with its data dictionary.

    The files are inside the links, so they need neither a network nor a second file.

    Parameters
    ----------
    board : DataFrame
        From :func:`tumorbench_utils.leaderboard.assemble`.
    about : str
        One sentence for the JSON file: edition, weights.
    """
    rows = json.loads(board.to_json(orient="records", double_precision=15))
    whole = {"about": about, "dictionary": COLUMNS, "rows": rows}
    meanings, links = pd.Series(COLUMNS, name="meaning").rename_axis("column"), []
    for name, text in {
        "leaderboard.csv": board.to_csv(index=False),
        "leaderboard.json": json.dumps(whole, ensure_ascii=False),
        "dictionary.csv": meanings.to_csv(),
    }.items():
        data = base64.b64encode(text.encode()).decode()
        link = f'<a download="{name}" href="data:text/plain;charset=utf-8;base64,{data}">{name}</a>'
        links.append(f"{link} ({len(text) / 1000:.0f} kB)")
    return HTML(f"<p>Download: {' · '.join(links)}</p>")
