"""What publishes the book: workflows, the script that writes the pages' branch, metadata."""

import itertools
import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[1]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
PUBLISH = ROOT / ".github" / "publish.sh"


def load(path):
    return yaml.safe_load(path.read_text(encoding="utf-8"))


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda p: p.name)
def test_actions_are_pinned_by_commit_and_say_their_version(path):
    lines = re.findall(r"uses: (.*)", path.read_text(encoding="utf-8"))
    assert lines
    for line in lines:
        assert re.fullmatch(r"[\w.-]+/[\w.-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+", line), line


def test_one_action_has_one_version():
    lines = {u for p in WORKFLOWS for u in re.findall(r"uses: (.*)", p.read_text("utf-8"))}
    assert len({line.split("@")[0] for line in lines}) == len(lines)


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda p: p.name)
def test_workflows_read_only_and_end(path):
    flow = load(path)
    assert flow["permissions"] == {"contents": "read"}
    for name, job in flow["jobs"].items():
        assert job["timeout-minutes"] <= 120
        writes = job.get("permissions", {}).get("contents") == "write"
        assert not writes or name == "publish"


def test_tests_run_on_every_system_and_python_that_is_promised():
    matrix = load(ROOT / ".github" / "workflows" / "test.yml")["jobs"]["test"]["strategy"]["matrix"]
    assert {name.split("-")[0] for name in matrix["os"]} == {"ubuntu", "macos", "windows"}
    assert matrix["python"] == ["3.10", "3.11", "3.12", "3.13"]


def test_make_targets_of_the_workflows_exist():
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text("utf-8"), re.M))
    called = {t for p in WORKFLOWS for t in re.findall(r"\bmake ([a-z]+)", p.read_text("utf-8"))}
    assert called
    assert called <= targets


def git(folder, *arguments):
    done = subprocess.run(["git", "-C", folder, *arguments], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


@pytest.fixture
def checkout(tmp_path):
    """A clone with one commit whose origin is a folder."""
    if not (shutil.which("git") and shutil.which("bash")):
        pytest.skip("needs git and bash")
    origin, clone = tmp_path / "origin.git", tmp_path / "clone"
    subprocess.run(["git", "init", "--quiet", "--bare", origin], check=True)
    subprocess.run(["git", "clone", "--quiet", origin, clone], check=True, capture_output=True)
    who = ("-c", "user.name=t", "-c", "user.email=t@example.org")
    git(clone, *who, "commit", "--quiet", "--allow-empty", "-m", "first")
    git(clone, "push", "--quiet", "origin", "HEAD:main")
    return clone


def publish(checkout, place, *pages):
    folder = checkout / "pages"
    shutil.rmtree(folder, ignore_errors=True)
    if pages:
        folder.mkdir()
    for name in pages:
        (folder / name).write_text(name)
    done = subprocess.run(
        ["bash", PUBLISH, place, "pages"], cwd=checkout, capture_output=True, text=True
    )
    return done


def published(checkout):
    git(checkout, "fetch", "--quiet", "--force", "origin", "gh-pages:gh-pages")
    assert git(checkout, "rev-list", "--count", "gh-pages") == ["1"]
    return set(git(checkout, "ls-tree", "-r", "--name-only", "gh-pages"))


def test_pages_and_previews_live_beside_each_other(checkout):
    steps = [
        (("", "a.html", "b.html"), {"a.html", "b.html"}),
        (("preview/7", "p.html"), {"a.html", "b.html", "preview/7/p.html"}),
        (("", "a.html"), {"a.html", "preview/7/p.html"}),
        (("preview/8", "q.html"), {"a.html", "preview/7/p.html", "preview/8/q.html"}),
        (("preview/7",), {"a.html", "preview/8/q.html"}),
    ]
    for arguments, expected in steps:
        done = publish(checkout, *arguments)
        assert done.returncode == 0, done.stderr
        assert published(checkout) == {*expected, ".nojekyll"}


def test_a_place_outside_the_previews_is_refused(checkout):
    done = publish(checkout, "../elsewhere", "a.html")
    assert done.returncode == 1
    assert "../elsewhere" in done.stderr


def test_release_metadata_agree():
    zenodo = json.loads((ROOT / ".zenodo.json").read_text(encoding="utf-8"))
    cff = load(ROOT / "CITATION.cff")
    assert zenodo["title"] == cff["title"]
    assert zenodo["version"] == cff["version"]
    assert zenodo["license"] == cff["license"]
    assert zenodo["keywords"] == cff["keywords"]
    assert [c["name"] for c in zenodo["creators"]] == [a["name"] for a in cff["authors"]]
    links = {item["identifier"] for item in zenodo["related_identifiers"]}
    assert links == {cff["url"], *(reference["doi"] for reference in cff["references"])}


def test_binder_installs_the_pinned_versions_of_this_checkout():
    folder = ROOT / "binder"
    lines = (folder / "requirements.txt").read_text(encoding="utf-8").splitlines()
    (constraints,) = [line.split()[1] for line in lines if line.startswith("-c ")]
    assert (folder / constraints).resolve() == ROOT / "constraints.txt"
    assert "-e .[book]" in lines
    version = (folder / "runtime.txt").read_text(encoding="utf-8").strip()
    assert version == "python-3.11"
    body = "".join(itertools.dropwhile(lambda t: "python -c" not in t, open(folder / "postBuild")))
    compile(body.split('"')[1], "postBuild", "exec")


def test_the_first_steps_of_the_readme_can_be_done_as_written():
    import nbformat

    text = (ROOT / "README.md").read_text(encoding="utf-8")
    name, parameter, cohort = re.search(
        r"`make chapter NAME=(\S+) PARAMETERS=(\w+)=(\w+)`", text
    ).groups()
    notebook = nbformat.read(ROOT / "notebooks" / f"{name}.ipynb", as_version=4)
    (cell,) = [c for c in notebook.cells if "parameters" in c.metadata.get("tags", [])]
    assert re.search(rf"^{parameter} = ", cell.source, re.M)
    from tumorbench_utils.cohorts import COHORTS

    assert cohort in COHORTS
    assert f"open\n   `{name}.ipynb`" in text
    assert "`.venv/bin/tumorbench`" in text


def test_make_passes_parameters_on_to_the_command():
    if not shutil.which("make"):
        pytest.skip("needs make")
    words = ["make", "--dry-run", "--silent", "chapter", "NAME=a/b", "PARAMETERS=x=1 y=z"]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True)
    assert 'tumorbench book --chapter "a/b" --force -p x=1 -p y=z' in done.stdout, done.stderr
