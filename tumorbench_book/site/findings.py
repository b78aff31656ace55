"""``{finding}``: a sentence with numbers, taken from the chapter that computed it."""

from pathlib import Path

import nbformat
from docutils import nodes
from sphinx.util.docutils import SphinxDirective


class Finding(SphinxDirective):
    """The text of the cell that a chapter tags ``finding-NAME``, and a link to the chapter.

    Called as ``{finding} PART/CHAPTER NAME``; its content, if any, leads the sentence. The chapter
    must have been run.
    """

    required_arguments = 2
    has_content = True

    def run(self):
        """Return the paragraphs of the finding."""
        chapter, name = self.arguments
        source = Path(self.env.srcdir, "notebooks", f"{chapter}.ipynb")
        self.env.note_dependency(str(source))
        notebook = nbformat.read(source, as_version=4) if source.exists() else None
        cells = notebook.cells if notebook else []
        tag = f"finding-{name}"
        found = [
            output.data["text/markdown"]
            for cell in cells
            if tag in cell.metadata.get("tags", [])
            for output in cell.outputs
            if "text/markdown" in output.get("data", {})
        ]
        if len(found) != 1:
            raise self.error(f"{source.name} has {len(found)} cells tagged {tag!r} with a sentence")
        text = f"{' '.join(self.content)} {found[0].strip()} ({{doc}}`/notebooks/{chapter}`)"
        holder = nodes.container()
        self.state.nested_parse([text.strip()], self.content_offset, holder)
        return holder.children
