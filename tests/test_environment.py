"""The environments agree: pyproject.toml is the truth, the two other files follow it."""

import re
from pathlib import Path

import pytest
import yaml
from packaging.specifiers import SpecifierSet

tomllib = pytest.importorskip("tomllib", reason="needs Python 3.11")
ROOT = Path(__file__).resolve().parents[1]
CONDA_NAMES = {"pytorch": "torch", "matplotlib-base": "matplotlib"}


def split(requirement: str) -> tuple[str, str]:
    name, version = re.fullmatch(r"([\w.-]+)\s*(.*)", requirement).groups()
    name = CONDA_NAMES.get(name, name).lower().replace("_", "-")
    return name, version.replace(" ", "")


def declared() -> dict[str, str]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    groups = [project["dependencies"], *project["optional-dependencies"].values()]
    return dict(split(item) for group in groups for item in group)


def test_conda_environment_lists_the_same_packages_and_ranges():
    entries = yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]
    pip = next(entry["pip"] for entry in entries if isinstance(entry, dict))
    plain = [entry for entry in entries if isinstance(entry, str)]
    names = [entry for entry in [*plain, *pip] if not entry.startswith(("python>", "--"))]
    found = dict(split(entry) for entry in names if entry != "pip")
    assert found == declared()


def test_constraints_pin_every_declared_package_inside_its_range():
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    lines = [line.partition(";")[0].strip() for line in lines if not line.startswith("#")]
    pins = dict(split(line) for line in lines if line)
    for name, allowed in declared().items():
        assert name in pins, f"{name} is not pinned in constraints.txt"
        version = pins[name].removeprefix("==")
        assert version in SpecifierSet(allowed), f"{name} {version} is not {allowed}"
        assert "+" not in version, f"{name}: a local version cannot be had from an index"


def test_every_package_says_what_it_is_for():
    rows = re.findall(r"(?m)^\| ([\w., -]+) \| \w", (ROOT / "CONTRIBUTING.md").read_text("utf-8"))
    named = {split(name)[0] for row in rows for name in row.split(", ")} - {"package"}
    assert named == set(declared())
