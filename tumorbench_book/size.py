"""How large the house is: ``make size`` counts it and holds it against its ceilings.

A code-only line is no docstring, comment or blank line. A guard line belongs to a ``raise``, to an
``if`` whose last statement raises, or to a call of ``require``.
The ceilings in ``data/size.yml`` only go down.
"""

import ast
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[1]
ROOMS = ("tumorbench_utils", "tumorbench_phantoms", "tumorbench_training", "tumorbench_book")
CEILINGS = ROOT / "data" / "size.yml"


def code_lines(text: str) -> set[int]:
    """Return the numbers of the code-only lines of a source."""
    lines = {n for n, s in enumerate(text.split("\n"), 1) if s.strip() and s.strip()[0] != "#"}
    for node in ast.walk(ast.parse(text)):
        body = getattr(node, "body", None)
        if isinstance(body, list) and body and isinstance(body[0], ast.Expr):
            if isinstance(getattr(body[0].value, "value", None), str):
                lines -= set(range(body[0].lineno, body[0].end_lineno + 1))
    return lines


def guard_lines(text: str) -> int:
    """Return how many code lines belong to a refusal."""
    found = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.If) and isinstance(node.body[-1], ast.Raise):
            found.update(range(node.lineno, node.body[-1].end_lineno + 1))
        elif isinstance(node, ast.Raise) or (
            isinstance(node, ast.Expr) and ast.unparse(node).startswith("require(")
        ):
            found.update(range(node.lineno, node.end_lineno + 1))
    return len(found & code_lines(text))


def cells(root: Path = ROOT) -> Iterator[tuple[Path, str, bool]]:
    """Give every code cell of the notebooks: its file, its source, and whether it is hidden."""
    for path in sorted(root.glob("notebooks/**/*.ipynb")):
        if ".ipynb_checkpoints" in path.parts:
            continue
        for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
            if cell["cell_type"] == "code":
                tags = set(cell["metadata"].get("tags", []))
                hidden = {"hide-input", "hide-cell", "remove-input", "remove-cell"} & tags
                yield path, "".join(cell["source"]), bool(hidden)


def public_names(root: Path = ROOT) -> dict[str, list[str]]:
    """Return the names in ``__all__`` of every module of the shared package."""
    found = {}
    for path in sorted((root / "tumorbench_utils").rglob("*.py")):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "__all__":
                module = ".".join(path.relative_to(root).with_suffix("").parts)
                found[module.removesuffix(".__init__")] = ast.literal_eval(node.value)
    return found


def unused_names(root: Path = ROOT) -> list[str]:
    """Return the public names that no chapter, no command and no line of the contract uses."""
    used = [source for _, source, _ in cells(root)]
    for room in ROOMS[1:]:
        used += [p.read_text(encoding="utf-8") for p in (root / room).rglob("*.py")]
    words = set(re.findall(r"\w+", "\n".join(used)))
    words |= set(yaml.safe_load(CEILINGS.read_text(encoding="utf-8"))["contract"])
    names = public_names(root)
    return [f"{module}.{n}" for module, all_ in names.items() for n in all_ if n not in words]


def measure(root: Path = ROOT) -> dict[str, float]:
    """Return the figures that have ceilings."""
    texts = {
        room: [p.read_text(encoding="utf-8") for p in (root / room).rglob("*.py")]
        for room in (*ROOMS, "tests")
    }
    lines = {f"lines in {r}": sum(len(code_lines(t)) for t in ts) for r, ts in texts.items()}
    tests = lines["lines in tests"]
    everything = sum(lines.values()) - tests
    guards = sum(guard_lines(t) for t in texts["tumorbench_utils"])
    shown, hidden = 0, 0
    for _, source, is_hidden in cells(root):
        n = sum(bool(s.strip()) and s.strip()[0] != "#" for s in source.split("\n"))
        shown, hidden = shown + n * (not is_hidden), hidden + n * is_hidden
    return {
        **lines,
        "lines in all rooms": everything,
        "guard lines in tumorbench_utils, %": round(
            100 * guards / lines["lines in tumorbench_utils"], 1
        ),
        "hidden lines in notebooks, %": round(100 * hidden / (shown + hidden), 1),
        "lines in notebooks": shown + hidden,
        "public names without a caller": len(unused_names(root)),
        "lines for a line of tests": round(everything / tests, 2),
    }


def rooms(root: Path = ROOT) -> dict[str, int]:
    """Return the code-only lines of every folder and module of the shared package."""
    found = {}
    for path in sorted((root / "tumorbench_utils").rglob("*.py")):
        name = path.relative_to(root / "tumorbench_utils").parts[0].removesuffix(".py")
        found[name] = found.get(name, 0) + len(code_lines(path.read_text(encoding="utf-8")))
    return found


def main() -> None:
    """Print every figure beside its ceiling; exit with 1 if one is above it."""
    ceilings = yaml.safe_load(CEILINGS.read_text(encoding="utf-8"))["ceilings"]
    found = measure()
    for name, value in rooms().items():
        print(f"  tumorbench_utils/{name:<16}{value:>6}")
    for name, value in found.items():
        ceiling = ceilings.get(name)
        mark = "  ABOVE ITS CEILING" if ceiling is not None and value > ceiling else ""
        print(f"{name:<40}{value:>8}{'' if ceiling is None else f'  (ceiling {ceiling})'}{mark}")
    print(*unused_names(), sep="\n")
    sys.exit(any(found[name] > value for name, value in ceilings.items()))


if __name__ == "__main__":
    main()
