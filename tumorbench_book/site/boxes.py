"""What chapters get or call: boxes, questions, run times, sentences of other chapters.

- A box "Run this chapter" closes the section Prerequisites.
- The questions of ``notebooks/lecturers/quizzes.yml`` open the section Exercises.
- ``{quiz-answers}`` lists all questions with their right answers, for lecturers.
- ``{cite-this-book}`` prints the BibTeX entry made from ``CITATION.cff``.
- ``{run-time}`measured` `` prints how long the page ran when it was built.
- ``{finding}`` shows a sentence of another chapter.
- ``{execution-status}`` lists every chapter with its run time, edition and versions.
"""

from pathlib import Path

import nbformat
import yaml
from docutils import nodes
from sphinx.transforms import SphinxTransform
from sphinx.util.docutils import SphinxDirective, SphinxRole

from tumorbench_book.keys import recorded
from tumorbench_book.site import render
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
    for name, question in ((key, question) for key in found for question in found[key]):
        answers = question.get("answers", [])
        whole = all(answer.get("say") and answer.get("because") for answer in answers)
        if not whole or sum(bool(answer.get("right")) for answer in answers) != 1:
            raise ValueError(
                f"{QUIZZES}: {name}: {question.get('ask')!r} needs exactly one right answer, and "
                "`say` and `because` in every answer"
            )
    return found


def box(title: str, kind: str, *content: nodes.Node) -> nodes.admonition:
    """Return a box of the page."""
    return nodes.admonition("", nodes.title("", title), *content, classes=[kind])


def html(template: str, **values) -> nodes.raw:
    """Return a filled template as a node."""
    return nodes.raw("", render(template, **values), format="html")


def run_box(docname: str) -> nodes.admonition:
    """Return the box with the commands that run a chapter, and its other forms."""
    name, edition = docname.removeprefix("notebooks/"), settings.edition()
    command = f"make chapter NAME={name}"
    if edition != "phantom":
        command = f"TUMORBENCH_EDITION={edition} {command}"
    code = nodes.literal_block(command, command, language="bash")
    links = {"up": "../" * docname.count("/"), "binder": binder(name), "colab": colab(name)}
    return box("Run this chapter", "run-this-chapter", code, html("run.html", name=name, **links))


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
        if questions := quizzes(Path(self.env.srcdir)).get(name):
            quiz = box("Check yourself", "check-yourself", html("quiz.html", questions=questions))
            sections["exercises"].insert(1, quiz)


class QuizAnswers(SphinxDirective):
    """All questions with their right answers, chapter by chapter."""

    def run(self) -> list[nodes.Node]:
        """Return one paragraph and list per chapter."""
        up = "../" * self.env.docname.count("/")
        return [html("answers.html", quizzes=quizzes(Path(self.env.srcdir)), up=up)]


class CiteThisBook(SphinxDirective):
    """The BibTeX entry of the book, with a button to copy it."""

    def run(self) -> list[nodes.Node]:
        """Return the entry as a block of code."""
        return [nodes.literal_block(bibtex(), bibtex(), language="bibtex")]


class RunTime(SphinxRole):
    """How long this page ran when it was built."""

    def run(self) -> tuple[list[nodes.Node], list]:
        """Return the run time of the page as text."""
        seconds = recorded(self.env.doc2path(self.env.docname)).get("seconds")
        return [nodes.Text("not run" if seconds is None else f"{seconds:.0f} s")], []


class ExecutionStatus(SphinxDirective):
    """A table of all chapters: run time, edition, Python and torch."""

    def run(self) -> list[nodes.Node]:
        """Return the table of all chapters."""
        root = Path(self.env.srcdir)
        pages = sorted((root / "notebooks").rglob("*.ipynb"))
        chapters = {p.relative_to(root).with_suffix("").as_posix(): recorded(p) for p in pages}
        return self.parse_text_to_nodes(render("status.md", chapters=chapters))


class Finding(SphinxDirective):
    """The text of the cell that a chapter tags ``finding-NAME``, and a link to the chapter.

    Called as ``{finding} PART/CHAPTER NAME``; its content, if any, leads the sentence. The chapter
    must have been run.
    """

    required_arguments = 2
    has_content = True

    def run(self) -> list[nodes.Node]:
        """Return the paragraphs of the finding."""
        chapter, name = self.arguments
        source = Path(self.env.srcdir, "notebooks", f"{chapter}.ipynb")
        self.env.note_dependency(str(source))
        found = [
            output.data["text/markdown"].strip()
            for cell in (nbformat.read(source, as_version=4).cells if source.exists() else [])
            if f"finding-{name}" in cell.metadata.get("tags", [])
            for output in cell.outputs
            if "text/markdown" in output.get("data", {})
        ]
        if len(found) != 1:
            raise self.error(f"{chapter} has {len(found)} sentences in cells tagged finding-{name}")
        text = " ".join([*self.content, *found, f"({{doc}}`/notebooks/{chapter}`)"])
        return self.parse_text_to_nodes(text)
