"""The boxes of a chapter: how to run it, questions with feedback, how to cite."""

import re
from pathlib import Path

import pytest
import yaml

from tumorbench_book import keys
from tumorbench_book.site import boxes, facts, render

ROOT = Path(__file__).resolve().parents[1]


def test_questions_belong_to_chapters_and_each_chapter_once():
    found = boxes.quizzes(ROOT)
    assert set(found) <= set(keys.chapters(ROOT))
    asked = [q["ask"] for questions in found.values() for q in questions]
    assert len(asked) == len(set(asked))


@pytest.mark.parametrize(
    ("answers", "message"),
    [
        ([{"say": "a", "because": "b"}], "exactly one right"),
        ([{"say": "a", "because": "b", "right": True}] * 2, "exactly one right"),
        ([{"say": "a", "right": True}], "because"),
        ([], "exactly one right"),
    ],
)
def test_faulty_questions_are_named(tmp_path, answers, message):
    path = tmp_path / boxes.QUIZZES
    path.parent.mkdir(parents=True)
    path.write_text(yaml.safe_dump({"part/one": [{"ask": "Why so?", "answers": answers}]}))
    with pytest.raises(ValueError, match=f"part/one.*Why so.*{message}"):
        boxes.quizzes(tmp_path)


def test_a_question_shows_feedback_without_scripts_and_escapes_text():
    answers = [
        {"say": "x < 1", "because": "`x` is *not*."},
        {"say": "x > 1", "because": "Yes.", "right": True},
    ]
    shown = render("quiz.html", questions=[{"ask": "Is x < 1?", "answers": answers}])
    assert "<summary>x &lt; 1</summary>" in shown
    assert "<strong>Not this one.</strong> <code>x</code> is <em>not</em>." in shown
    assert shown.count("<strong>Right.</strong>") == 1
    assert "<script" not in shown


@pytest.mark.parametrize(
    ("edition", "command"),
    [
        ("phantom", "make chapter NAME=part/one"),
        ("released", "TUMORBENCH_EDITION=released make chapter NAME=part/one"),
    ],
)
def test_run_box_gives_the_command_of_the_edition_and_links(monkeypatch, edition, command):
    monkeypatch.setenv("TUMORBENCH_EDITION", edition)
    shown = boxes.run_box("notebooks/part/one")
    assert shown.children[1].astext() == command
    links = shown.children[2].astext()
    for target in (
        facts.binder("part/one"),
        facts.colab("part/one"),
        "../../launch/part/one.ipynb",
        "../../exercises/part/one.ipynb",
        "../../slides/part/one.html",
    ):
        assert f'href="{target}"' in links


def test_one_repository_and_one_version_everywhere():
    config = yaml.safe_load((ROOT / "_config.yml").read_text(encoding="utf-8"))
    cff = facts.citation()
    repo, branch = facts.repository()
    owner, name = repo.split("/")
    pages = f"https://{owner}.github.io/{name}/"
    assert config["repository"]["url"] == cff["repository-code"] == f"https://github.com/{repo}"
    assert config["html"]["baseurl"] == cff["url"] == pages
    assert facts.binder("a/b").startswith(f"https://mybinder.org/v2/gh/{repo}/{branch}?")
    missing = (ROOT / "_static" / "404.html").read_text(encoding="utf-8")
    assert missing.count(f'"{pages}') == missing.count('"https://')
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert f'version = "{cff["version"]}"' in project


def test_bibtex_holds_title_version_and_year():
    entry = facts.bibtex()
    cff = facts.citation()
    assert entry.startswith("@software{")
    assert entry.count("{") == entry.count("}")
    for value in (cff["title"], str(cff["version"]), str(cff["date-released"])[:4]):
        assert value in entry


def test_the_readme_shows_the_same_entry_and_a_picture_that_exists():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert facts.bibtex() in text
    (picture,) = re.findall(r"!\[[^\]]{40,}\]\(([^)]+)\)", text)
    assert 10_000 < (ROOT / picture).stat().st_size < 400_000
    assert f"## {facts.citation()['version']}" in (ROOT / "CHANGELOG.md").read_text("utf-8")
