"""What the pages of docs/ show is run, as in README. ``RUN`` and ``DIR`` are a finished run and its export."""

from __future__ import annotations

import re
import shutil
import subprocess

import pytest

from blocks import broken_blocks, broken_lines, command_lines, furnish, python_blocks
from conftest import ROOT

QUICK = ("formats/feature-cache",)
SLOW = ("tutorial", "explain", "export", "predict", "report", "doctor", "advice", "data-quality")
# A page's example of an answer, or a command that stays: shown, not run here.
SHOWN = (
    "frostline serve RUN",
    "frostline data hymenoptera",
    "frostline report runs/ants --compare",
    "frostline doctor trap_05",
)


@pytest.fixture(scope="module")
def run(frostline, tmp_path_factory):
    """A finished run on the images that every page is given."""
    folder = tmp_path_factory.mktemp("docs")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        furnish(folder)
        shutil.rmtree(folder / "RUN")
        done = frostline("train", "DATA", "--epochs", "1", "--engine", "plain", "--out", "RUN", cwd=folder)
        assert done.returncode == 0, done.stderr
    return folder


def pages() -> set[str]:
    found = {p.relative_to(ROOT / "docs").with_suffix("").as_posix() for p in (ROOT / "docs").rglob("*.md")}
    return {p for p in found if not p.startswith(("design/", "LOG", "changelog", "cuts", "advice-study", "benchmarks", "ecosystem"))}


def has_something_to_run(page: str) -> bool:
    text = (ROOT / "docs" / f"{page}.md").read_text(encoding="utf-8")
    return bool(python_blocks(text) or runnable(text))


def runnable(text: str) -> list[str]:
    """Whole command lines: one with a placeholder in capitals that no reader's folder has, a bare verb or an ellipsis only names a thing."""
    named = {"DATA", "RUN", "DIR", "LABELLED", "PICTURES"}
    lines = dict.fromkeys(" ".join(line.split("#")[0].split()) for line in command_lines(text) if not line.startswith(SHOWN))
    whole = [line for line in lines if re.match(r"frostline \S+ [^-]", line) and not re.search("…|[|>]", line)]
    return [line for line in whole if not {w.strip("[]") for w in line.split("#")[0].split() if w.strip("[].").isupper()} - named]


def check(page: str, folder, frostline) -> None:
    text = (ROOT / "docs" / f"{page}.md").read_text(encoding="utf-8")
    lines = "\n".join(runnable(text))
    given: dict[str, object] = {}
    if page == "tutorial":  # its first block makes the images
        assert broken_blocks(text[: text.index("## 2.")], given) == []
    assert broken_lines(f"```\n{lines}\n```\n", folder, frostline) == []
    if page == "tutorial":
        text = text[text.index("## 6.") :]
    assert broken_blocks(text, given) == []


@pytest.fixture
def folder(run, tmp_path, monkeypatch):
    shutil.copytree(run, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    shutil.copy(tmp_path / "a.jpg", tmp_path / "folder")
    (tmp_path / "shots" / "a").mkdir(parents=True)
    shutil.copy(tmp_path / "a.jpg", tmp_path / "shots" / "a")
    return tmp_path


@pytest.mark.parametrize("page", QUICK)
def test_quick_pages(page, folder, frostline):
    check(page, folder, frostline)


@pytest.mark.slow
@pytest.mark.parametrize("page", SLOW)
def test_slow_pages(page, folder, anew):
    check(page, folder, anew)


def test_every_page_is_run_or_shows_nothing():
    shown = {p for p in pages() if has_something_to_run(p)}
    assert shown == {*QUICK, *SLOW}


@pytest.mark.parametrize("shell", ["bash"])
def test_pipes_of_the_pages_are_what_a_shell_takes(shell):
    """Lines with a pipe or a redirection are not run; that a shell can read them is checked."""
    for page in pages():
        lines = [s for s in command_lines((ROOT / "docs" / f"{page}.md").read_text()) if "|" in s or " > " in s]
        for line in (s for s in lines if not set(s) & set("[…")):
            assert subprocess.run([shell, "-n", "-c", line]).returncode == 0, (page, line)
