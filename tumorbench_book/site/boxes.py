"""Boxes that every chapter gets without writing them: how to run it, and questions to answer.

- A box "Run this chapter" closes the section Prerequisites.
- The questions of ``notebooks/lecturers/quizzes.yml`` open the section Exercises.
- ``{quiz-answers}`` lists all questions with their right answers, for lecturers.
- ``{cite-this-book}`` prints the BibTeX entry made from ``CITATION.cff``.
"""

import re
from html import escape
from pathlib import Path

import yaml
from docutils import nodes
from sphinx.transforms import SphinxTransform
from sphinx.util.docutils import SphinxDirective

from tumorbench_book.site.facts import bibtex, binder, colab
from tumorbench_utils import settings

QUIZZES = Path("notebooks", "lecturers", "quizzes.yml")


def quizzes(root: Path) -> dict[str, list[dict]]:
    """Return the questions of each chapter.

    Each question holds ``ask`` and ``answers``; each answer ``say``, ``because`` and, for exactly
    one of them, ``right: true``.

    Raises
    ------
    ValueError
        If a question has no or several right answers, or an answer has no feedback.
    """
    found = yaml.safe_load((root / QUIZZES).read_text(encoding="utf-8"))
    for name, questions in found.items():
        for question in questions:
            where = f"{QUIZZES}: {name}: {question.get('ask')!r}"
            answers = question.get("answers", [])
            if sum(bool(answer.get("right")) for answer in answers) != 1:
                raise ValueError(f"{where} needs exactly one right answer")
            if not all(answer.get("say") and answer.get("because") for answer in answers):
                raise ValueError(f"{where}: every answer needs `say` and `because`")
    return found


def html(text: str) -> str:
    """Return plain text as HTML; words between backticks are code, between asterisks emphasis."""
    text = re.sub(r"`([^`]+)`", r"<code>\1</code>", escape(str(text), quote=False))
    return re.sub(r"\*([^*]+)\*", r"<em>\1</em>", text)


def question_html(question: dict) -> str:
    """Return one question: each answer opens its feedback. Works without scripts."""
    lines = [f'<p class="quiz-question">{html(question["ask"])}</p>']
    for answer in question["answers"]:
        verdict = "Right" if answer.get("right") else "Not this one"
        kind = "right" if answer.get("right") else "wrong"
        lines.append(
            f'<details class="quiz-answer"><summary>{html(answer["say"])}</summary>'
            f'<p class="quiz-{kind}"><strong>{verdict}.</strong> {html(answer["because"])}</p>'
            "</details>"
        )
    return f'<div class="quiz">{"".join(lines)}</div>'


def box(title: str, kind: str, *content: nodes.Node) -> nodes.admonition:
    """Return a box of the page."""
    return nodes.admonition("", nodes.title("", title), *content, classes=[kind])


def raw(text: str) -> nodes.raw:
    """Return HTML as a node."""
    return nodes.raw("", text, format="html")


def run_box(docname: str) -> nodes.admonition:
    """Return the box with the commands that run a chapter, and its other forms."""
    name = docname.removeprefix("notebooks/")
    up = "../" * docname.count("/")
    edition = settings.edition()
    command = f"make chapter NAME={name}"
    if edition != "phantom":
        command = f"TUMORBENCH_EDITION={edition} {command}"
    code = nodes.literal_block(command, command, language="bash")
    links = [
        f'<a href="{binder(name)}">Binder</a>',
        f'<a href="{colab(name)}">Colab</a>',
        f'<a href="{up}launch/{name}.ipynb" download>notebook</a>',
        f'<a href="{up}exercises/{name}.ipynb" download>notebook without solutions</a>',
        f'<a href="{up}slides/{name}.html">slides</a>',
    ]
    lab = (
        f"<p>or <code>make lab</code> and open <code>{name}.ipynb</code>. Elsewhere: "
        f"{', '.join(links[:2])}. To take along: {', '.join(links[2:])}.</p>"
    )
    return box("Run this chapter", "run-this-chapter", code, raw(lab))


class Boxes(SphinxTransform):
    """Put the boxes into the sections of a chapter."""

    default_priority = 400

    def apply(self, **kwargs) -> None:
        """Add the boxes to the page that is being read."""
        docname = self.env.docname
        name = docname.removeprefix("notebooks/")
        sections = {n: s for s in self.document.findall(nodes.section) for n in s["names"]}
        if docname != name and Path(self.env.doc2path(docname)).suffix == ".ipynb":
            sections["prerequisites"] += run_box(docname)
        questions = quizzes(Path(self.env.srcdir)).get(name)
        if questions:
            text = "".join(question_html(q) for q in questions)
            hint = raw("<p>Choose an answer to see what speaks for or against it.</p>")
            quiz = box("Check yourself", "check-yourself", hint, raw(text))
            sections["exercises"].insert(1, quiz)


class QuizAnswers(SphinxDirective):
    """All questions with their right answers, chapter by chapter."""

    def run(self) -> list[nodes.Node]:
        """Return one paragraph and list per chapter."""
        lines = []
        for name, questions in quizzes(Path(self.env.srcdir)).items():
            page = "../" * self.env.docname.count("/") + f"notebooks/{name}.html"
            lines.append(f'<p><a href="{page}"><code>{name}</code></a></p><ul>')
            for question in questions:
                right = next(a for a in question["answers"] if a.get("right"))
                lines.append(
                    f"<li>{html(question['ask'])} <strong>{html(right['say'])}</strong> "
                    f"{html(right['because'])}</li>"
                )
            lines.append("</ul>")
        return [raw("".join(lines))]


class CiteThisBook(SphinxDirective):
    """The BibTeX entry of the book, with a button to copy it."""

    def run(self) -> list[nodes.Node]:
        """Return the entry as a block of code."""
        return [nodes.literal_block(bibtex(), bibtex(), language="bibtex")]
