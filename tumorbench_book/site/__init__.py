"""What is added to the pages: boxes, slides, notebooks to take along, hand-outs.

Their HTML lies in ``templates/``, in which every value is escaped that is not marked as safe.
"""

import re

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

_TEMPLATES = Environment(
    **{"trim_blocks": True, "lstrip_blocks": True, "autoescape": True},
    loader=PackageLoader(__name__),
    undefined=StrictUndefined,
)


def marked(text: str) -> Markup:
    """Return plain text as HTML; words between backticks are code, between asterisks emphasis."""
    text = re.sub(r"`([^`]+)`", r"<code>\1</code>", str(escape(text)))
    return Markup(re.sub(r"\*([^*]+)\*", r"<em>\1</em>", text))


_TEMPLATES.filters["marked"] = marked


def render(template: str, **values) -> str:
    """Fill a file of ``templates/``."""
    return _TEMPLATES.get_template(template).render(values)
