"""Fixtures shared by all tests."""

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def reference() -> Path:
    """Folder with the released tables; tests that need it skip without it."""
    value = os.environ.get("TUMORBENCH_DATA")
    if not value:
        pytest.skip("needs the released tables: set TUMORBENCH_DATA to their folder")
    return Path(value).resolve()


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory, monkeypatch):
    """Keep tests away from the cache and the settings of the person who runs them."""
    monkeypatch.setenv("TUMORBENCH_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))
    monkeypatch.delenv("TUMORBENCH_EDITION", raising=False)


@pytest.fixture
def run_cells(monkeypatch, tmp_path):
    """Run the code cells of a notebook of ``notebooks/reports/`` here, with other parameters."""
    import nbformat
    from IPython import display

    from tumorbench_book import reports

    shown = []
    monkeypatch.setattr(reports, "display", lambda what, **options: shown.append(what))
    monkeypatch.chdir(tmp_path)

    def run(report: str, /, **parameters) -> dict:
        """Return the variables at the end, what was left and what was shown."""
        path = Path(__file__).parents[1] / "notebooks" / "reports" / f"{report}.ipynb"
        variables = {}
        for cell in nbformat.read(path, as_version=4).cells:
            if cell.cell_type == "code":
                exec(compile(cell.source, cell.id, "exec"), variables)
            if "parameters" in cell.metadata.get("tags", []):
                assert set(parameters) <= set(variables)
                variables.update(parameters)
        text = "".join(what.data for what in shown if isinstance(what, display.HTML))
        return {**variables, "shown": text, "left": shown[-1][reports._RECORD]}

    return run
