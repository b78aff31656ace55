"""One self-contained HTML file: text, tables and figures, nothing fetched from anywhere."""

import base64
import html
import io
import re
from collections.abc import Iterable, Mapping

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure

_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; color: #222; background: #fff; margin: 0 auto;
  padding: 1rem; max-width: 60rem; }
h1 { line-height: 1.2; } h2 { border-bottom: 1px solid #ccc; margin-top: 2.5rem; }
nav a { margin-right: 1rem; } a { color: #00538a; }
.wide { overflow-x: auto; } img { max-width: 100%; height: auto; }
table { border-collapse: collapse; font-size: 0.85rem; margin: 0.5rem 0; }
th, td { border: 1px solid #ddd; padding: 0.25rem 0.5rem; text-align: left; vertical-align: top; }
th { background: #f3f3f3; } caption, figcaption { text-align: left; color: #555; }
figure { margin: 1rem 0; } figcaption { font-size: 0.85rem; }
.bad { border-left: 4px solid #d55e00; padding: 0.1rem 1rem; background: #fdf3ec; }
.good { border-left: 4px solid #009e73; padding: 0.1rem 1rem; background: #edf7f3; }
"""


def text(words: str) -> str:
    """Return a paragraph; what is special in HTML is escaped."""
    return f"<p>{html.escape(words)}</p>"


def bullets(lines: Iterable[str]) -> str:
    """Return a list of lines."""
    return "<ul>" + "".join(f"<li>{html.escape(str(line))}</li>" for line in lines) + "</ul>"


def box(lead: str, lines: Iterable[str] = (), *, good: bool) -> str:
    """Return a coloured box: a sentence and a list under it."""
    lines = list(lines)
    inner = f"<p><strong>{html.escape(lead)}</strong></p>" + (bullets(lines) if lines else "")
    return f'<div class="{"good" if good else "bad"}">{inner}</div>'


def table(frame: pd.DataFrame, caption: str = "", *, precision: int = 2, index: bool = True) -> str:
    """Return a table that scrolls sideways where the screen is narrow."""
    shown = frame.copy()
    for name in shown:
        if pd.api.types.is_float_dtype(shown[name]):
            values = shown[name].dropna()
            digits = 0 if (values == values.round()).all() else precision
            shown[name] = [
                "–" if pd.isna(v) else f"{v:.{digits}f}" for v in shown[name].astype(object)
            ]
    made = shown.to_html(index=index, na_rep="–", border=0, escape=True)
    made = made.replace("\n", "").replace(
        ">", f"><caption>{html.escape(caption)}</caption>" if caption else ">", 1
    )
    return f'<div class="wide">{made}</div>'


def picture(figure: Figure, caption: str, alt: str) -> str:
    """Return a figure as an embedded PNG and close it."""
    stream = io.BytesIO()
    figure.savefig(stream, format="png", dpi=110, bbox_inches="tight")
    plt.close(figure)
    data = base64.b64encode(stream.getvalue()).decode()
    return (
        f'<figure><img alt="{html.escape(alt, quote=True)}" src="data:image/png;base64,{data}">'
        f"<figcaption>{html.escape(caption)}</figcaption></figure>"
    )


def page(title: str, sections: Mapping[str, Iterable[str]], lead: Iterable[str] = ()) -> str:
    """Return a whole page.

    Parameters
    ----------
    title : str
    sections : mapping of str to iterable of str
        By heading, what the functions of this module return.
    lead : iterable of str
        What stands before the first section.
    """
    names = {heading: re.sub(r"\W+", "-", heading.lower()).strip("-") for heading in sections}
    links = "".join(f'<a href="#{names[h]}">{html.escape(h)}</a>' for h in sections)
    body = "".join(
        f'<section><h2 id="{names[h]}">{html.escape(h)}</h2>{"".join(parts)}</section>'
        for h, parts in sections.items()
    )
    return (
        '<!DOCTYPE html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{html.escape(title)}</title><style>{_STYLE}</style></head><body>"
        f"<h1>{html.escape(title)}</h1><nav>{links}</nav>{''.join(lead)}{body}</body></html>\n"
    )
