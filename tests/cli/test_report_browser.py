"""The report in a real browser: silent, alone, fit for a phone, and without a serious fault of accessibility."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from conftest import make_images

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe-playwright-python is not installed")

TINY = ("--backbone", "tiny_net:build")
CHROMIUM = next((found for name in ("chromium", "chromium-browser", "google-chrome") if (found := shutil.which(name))), None)

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")


@pytest.fixture(scope="module")
def page_file(frostline, tmp_path_factory) -> Path:
    """A page with every section: twelve classes of long names, two runs side by side, a leaked copy, a picture that is gone."""
    root = tmp_path_factory.mktemp("browser")
    names = [f"a class called {number}, at some length" for number in range(12)]
    for split, count, seed in (("train", 8, 0), ("val", 4, 1), ("test", 4, 2)):
        make_images(root / "data" / split, dict.fromkeys(names, count), seed)
    shutil.copy(root / "data" / "train" / names[0] / "000.png", root / "data" / "val" / names[0] / "leaked.png")
    shared = ("train", root / "data", *TINY, "--epochs", "3", "--out")
    assert frostline(*shared, root / "one").returncode == 0
    assert frostline(*shared, root / "two", "--unfreeze", "last:1", "--strategy", "lp-ft").returncode == 0
    assert frostline("advise", root / "data", *TINY).returncode == 0
    (root / "data" / "test" / names[0] / "001.png").unlink()
    done = frostline("report", root / "one", "--compare", root / "two")
    assert done.returncode == 0, done.stderr
    return root / "one" / "report.html"


@pytest.fixture(scope="module")
def browser():
    with playwright.sync_playwright() as driver:
        opened = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield opened
        opened.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280])
def test_it_is_silent_alone_fits_and_is_accessible(browser, page_file, width, scheme):
    context = browser.new_context(viewport={"width": width, "height": 844}, color_scheme=scheme)
    page = context.new_page()
    said, asked = [], []
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("request", lambda request: asked.append(request.url))
    page.goto(page_file.as_uri())
    page.evaluate("window.scrollTo(0, document.body.scrollHeight)")
    page.wait_for_load_state("networkidle")
    assert said == []
    assert [url for url in asked if not url.startswith("data:")] == [page_file.as_uri()]
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.evaluate("[...document.images].every(i => i.complete && i.naturalWidth > 0)")
    assert page.evaluate("document.images.length") >= 12
    context.close()
    checked = browser.new_context(viewport={"width": width, "height": 844}, color_scheme=scheme, bypass_csp=True).new_page()
    checked.goto(page_file.as_uri())  # the page's own policy would not let axe-core in
    found = axe.Axe().run(checked).response
    assert len(found["passes"]) > 20
    assert [(v["id"], [n["html"] for n in v["nodes"][:3]]) for v in found["violations"] if v["impact"] in ("serious", "critical")] == []
    checked.context.close()


def test_it_is_used_by_keyboard_and_prints(browser, page_file):
    page = browser.new_page(viewport={"width": 1280, "height": 844})
    page.goto(page_file.as_uri())
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to the result"
    assert page.evaluate("document.activeElement.getBoundingClientRect().left") >= 0
    page.keyboard.press("Enter")
    assert page.url.endswith("#result")
    page.emulate_media(media="print")
    assert not page.locator("nav").is_visible()
    assert page.locator(".headline").is_visible()
    assert page.pdf().startswith(b"%PDF")
    page.close()


def test_every_section_is_there(browser, page_file):
    page = browser.new_page()
    page.goto(page_file.as_uri())
    titles = page.locator("h2").all_inner_texts()
    assert titles == [
        "What it is worth",
        "Side by side",
        "Pictures to look at",
        "Class by class",
        "Does it know how sure it is?",
        "What was frozen",
        "How it learned",
        "Doubtful pictures",
        "Where the time went",
        "Data and environment",
        "Use it",
    ]
    assert "Accuracy by depth" in page.locator("h3").all_inner_texts()
    assert page.locator(".matrix tbody tr").count() == 12
    assert page.locator(".pairs img").count() == 2
    page.close()
