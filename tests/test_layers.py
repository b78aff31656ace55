"""The package is layered: a module imports only from the layers before its own."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "tumorbench_utils"
LAYERS = [
    {"settings", "files"},
    {"checks", "digests"},
    {"downloads"},
    {"stats"},
    {"patches"},
    {"cohorts"},
    {"splits", "baselines"},
    {"models"},
    {"embeddings"},
    {"probes", "handcrafted", "survival", "robustness", "saliency", "similarity"},
    {"results"},
    {"endpoints"},
    {"submissions"},
    {"leaderboard"},
    {"plots"},
    {"cohort_pages", "pages"},
    {"check_cohort", "report"},
]
RANK = {name: rank for rank, layer in enumerate(LAYERS) for name in layer}


def imported(path: Path) -> set[str]:
    """Return the top-level modules of the package that a file imports when it is loaded."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module]
            if node.module == "tumorbench_utils":
                names = [f"tumorbench_utils.{alias.name}" for alias in node.names]
        found.update(n.split(".")[1] for n in names if n.startswith("tumorbench_utils."))
    return found - {"__version__"}


@pytest.mark.parametrize(
    "path", sorted(PACKAGE.rglob("*.py")), ids=lambda p: p.relative_to(PACKAGE).as_posix()
)
def test_imports_point_to_lower_layers(path):
    own = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    if own == "__init__":
        assert not imported(path)
        return
    assert own in RANK, f"{own} has no place in the layers"
    for name in imported(path) - {own}:
        assert RANK[name] < RANK[own], f"{own} imports {name}, which is not below it"
