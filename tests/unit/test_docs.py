"""README and docs: every relative link leads somewhere, and the site knows every page."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from conftest import ROOT

FENCED = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\(([^)\s]+)\)")
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").rglob("*.md"))]


def anchors(text: str) -> set[str]:
    titles = re.findall(r"^#+ (.+)$", FENCED.sub("", text), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", t.lower()).strip().replace(" ", "-") for t in titles}


def broken_links(page: Path, text: str) -> list[str]:
    """Relative links of a page that lead to no file, or to no heading of it."""
    broken: list[str] = []
    for target in LINK.findall(FENCED.sub("", text)):
        if "://" in target or target.startswith("mailto:"):
            continue
        name, _, anchor = target.partition("#")
        there = page.parent / name if name else page
        missing = not there.exists()
        if missing or (anchor and there.suffix == ".md" and anchor not in anchors(there.read_text(encoding="utf-8") if name else text)):
            broken.append(target)
    return broken


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.relative_to(ROOT).as_posix())
def test_links(page):
    assert broken_links(page, page.read_text(encoding="utf-8")) == []


def test_a_planted_broken_link_is_found():
    text = "# Here\n[a](nowhere.md) [b](README.md#no-such) [c](#here) [d](https://x.org/y) [e](docs) [f](#there)\n```\n[g](gone.md)\n```\n"
    assert broken_links(ROOT / "README.md", text) == ["nowhere.md", "README.md#no-such", "#there"]


def test_every_page_is_in_the_site():
    listed = {
        (page.parent / line).relative_to(ROOT / "docs").as_posix()
        for page in (ROOT / "docs").rglob("*.md")
        for tree in re.findall(r"^```\{toctree\}\n(.*?)^```$", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
        for line in tree.splitlines()
        if line and not line.startswith(":")
    }
    assert listed | {"index"} == {p.relative_to(ROOT / "docs").with_suffix("").as_posix() for p in (ROOT / "docs").rglob("*.md")}
