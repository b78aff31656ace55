"""The counting of the house, and that it stays under its ceilings."""

import subprocess

import pytest
import yaml

from tumorbench_book import size

SOURCE = '''"""Module."""

# a comment
import os


def half(n):
    """Return half.

    Of a number.
    """
    if n % 2:
        text = "odd"
        raise ValueError(
            text
        )

    return n // 2
'''


def test_code_lines_leave_out_docstrings_comments_and_blanks():
    lines = SOURCE.split("\n")
    counted = [lines[n - 1].strip() for n in sorted(size.code_lines(SOURCE))]
    expected = ["import os", "def half(n):", "if n % 2:", 'text = "odd"', "raise ValueError("]
    assert counted == [*expected, "text", ")", "return n // 2"]


def test_guard_lines_are_the_whole_refusal():
    assert size.guard_lines(SOURCE) == 5
    assert size.guard_lines('require(a, "b")\nrequired = require\n') == 1
    assert size.guard_lines("if a:\n    b = 1\nelse:\n    c = 2\n") == 0


def test_a_name_that_nobody_uses_is_found(tmp_path):
    (tmp_path / "tumorbench_utils").mkdir()
    (tmp_path / "tumorbench_utils" / "x.py").write_text('__all__ = ["used", "idle", "auc"]\n')
    for room in size.ROOMS[1:]:
        (tmp_path / room).mkdir()
        (tmp_path / room / "y.py").write_text("from tumorbench_utils.x import used\n")
    assert size.unused_names(tmp_path) == ["tumorbench_utils.x.idle"]


@pytest.mark.parametrize("name", yaml.safe_load(size.CEILINGS.read_text("utf-8"))["ceilings"])
def test_the_house_is_under_its_ceilings(name):
    ceilings = yaml.safe_load(size.CEILINGS.read_text("utf-8"))["ceilings"]
    assert size.measure()[name] <= ceilings[name]


def test_ceilings_only_go_down():
    def git(*words):
        return subprocess.run(["git", *words], cwd=size.ROOT, capture_output=True, text=True).stdout

    commits = git("log", "--format=%H", "--", "data/size.yml").split()
    if not commits:
        pytest.skip("needs the history of the repository")
    now = yaml.safe_load(size.CEILINGS.read_text("utf-8"))["ceilings"]
    for commit in commits:
        before = yaml.safe_load(git("show", f"{commit}:data/size.yml"))["ceilings"]
        higher = [name for name in now if now[name] > before.get(name, now[name])]
        assert not higher, f"{higher} were lower in {commit}"
