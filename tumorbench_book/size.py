"""How large the house is: ``make size`` counts it and holds it against its ceilings.

A code-only line is no docstring, comment or blank line. A guard line belongs to a ``raise``, to an
``if`` whose last statement raises, or to a call of ``require``.
The ceilings in ``data/size.yml`` only go down.
"""

import ast
import json
import re
import sys
from collections import Counter
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
        last = node.body[-1] if isinstance(node, ast.If) else node
        called = isinstance(node, ast.Expr) and ast.unparse(node).startswith("require(")
        if isinstance(last, ast.Raise) or called:
            found.update(range(node.lineno, last.end_lineno + 1))
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
    lines = {room: sum(map(len, map(code_lines, found))) for room, found in texts.items()}
    everything = sum(lines[room] for room in ROOMS)
    guards = sum(map(guard_lines, texts["tumorbench_utils"])) / lines["tumorbench_utils"]
    shown = {True: 0, False: 0}
    for _, source, hidden in cells(root):
        stripped = (line.strip() for line in source.split("\n"))
        shown[hidden] += sum(not line.startswith("#") for line in stripped if line)
    chapters = sum(shown.values())
    return {
        **{f"lines in {room}": n for room, n in lines.items()},
        "lines in all rooms": everything,
        "guard lines, % of tumorbench_utils": round(100 * guards, 1),
        "hidden lines in notebooks, %": round(100 * shown[True] / chapters, 1),
        "lines in notebooks": chapters,
        "public names without a caller": len(unused_names(root)),
        "lines for a line of tests": round(everything / lines["tests"], 2),
    }


def main() -> None:
    """Print every figure beside its ceiling; exit with 1 if one is above it."""
    ceilings = yaml.safe_load(CEILINGS.read_text(encoding="utf-8"))["ceilings"]
    found, parts = measure(), Counter()
    for path in sorted((ROOT / ROOMS[0]).rglob("*.py")):
        part = path.relative_to(ROOT / ROOMS[0]).parts[0].removesuffix(".py")
        parts[part] += len(code_lines(path.read_text(encoding="utf-8")))
    for name, value in [
        *((f"  {ROOMS[0]}/{part}", n) for part, n in parts.items()),
        *found.items(),
    ]:
        ceiling = f"(ceiling {ceilings[name]})" if name in ceilings else ""
        mark = "ABOVE ITS CEILING" if value > ceilings.get(name, value) else ""
        print(f"{name:<40}{value:>8}  {ceiling} {mark}".rstrip())
    print(*unused_names(), sep="\n")
    sys.exit(any(found[name] > value for name, value in ceilings.items()))


if __name__ == "__main__":
    main()
