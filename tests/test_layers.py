"""The four rooms know each other in one direction, and so do the layers of the shared package."""

import ast
import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "tumorbench_utils"
#: What each room may import of the others.
ROOMS = {
    "tumorbench_phantoms": set(),
    "tumorbench_utils": {"tumorbench_phantoms"},
    "tumorbench_training": {"tumorbench_phantoms", "tumorbench_utils"},
    "tumorbench_book": {"tumorbench_phantoms", "tumorbench_utils", "tumorbench_training"},
}
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
    {"pages"},
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


@pytest.mark.parametrize("file", ["CONTRIBUTING.md", "tumorbench_utils/__init__.py"])
def test_the_plan_of_the_house_names_the_same_layers(file):
    text = (ROOT / file).read_text(encoding="utf-8")
    listed = re.search(r"settings, files ->.*?report$", text, re.S | re.M)[0]
    layers = listed.replace("\n", " ").split("->")
    assert [{n.strip() for n in layer.split(",")} for layer in layers] == LAYERS


def packages(path: Path) -> set[str]:
    """Return the top-level packages that a file imports, anywhere in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found.update(alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module.split(".")[0])
    return found


@pytest.mark.parametrize("room", ROOMS)
def test_rooms_import_in_one_direction(room):
    for path in (ROOT / room).rglob("*.py"):
        others = {name for name in packages(path) if name.startswith("tumorbench_")} - {room}
        assert others <= ROOMS[room], f"{path.relative_to(ROOT)} imports {others - ROOMS[room]}"


def test_phantoms_need_few_libraries():
    allowed = {"numpy", "scipy", "pandas", "SimpleITK", "pydicom", "highdicom", "contourpy", "isal"}
    allowed |= {"yaml", "jsonschema", "tqdm", "tumorbench_phantoms"}
    used = set().union(*(packages(p) for p in (ROOT / "tumorbench_phantoms").glob("*.py")))
    assert used - set(sys.stdlib_module_names) <= allowed
