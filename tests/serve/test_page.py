"""The page, in a real Chromium that can reach nothing but the server."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator

import pytest

from chromium import CHROMIUM, chromium

pytest.importorskip("fastapi")
pytest.importorskip("websocket", reason="websocket-client is not installed")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium on this machine")

ANSWERED = "document.querySelectorAll('.card').length === {} && !document.querySelector('.waiting')"
ROWS = "[...document.querySelectorAll('.answered')].map(c => [...c.querySelectorAll('.chances li')].map(r => [r.dataset.label, Number(r.dataset.probability)]))"


@pytest.fixture(scope="module")
def run(frostline, images, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "<b>run"
    done = frostline("train", images, "--backbone", "tiny_net:build", "--epochs", "3", "--out", folder, "--quiet")
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture(scope="module")
def address(run, tiny_module) -> Iterator[str]:
    command = [sys.executable, "-m", "frostline", "serve", str(run), "--port", "0", "--max-body", "1"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, env={**os.environ, "PYTHONPATH": str(tiny_module)}, text=True) as process:
        yield process.stdout.readline().strip()
        process.kill()


@pytest.fixture(scope="module")
def page(address, tmp_path_factory):
    with chromium(tmp_path_factory.mktemp("profile")) as tab:
        yield tab
        assert tab.complaints == []  # no script failed, and the policy blocked nothing
        assert {a.split(":")[0] + ":" + a.split("/")[2] if a.startswith("http") else a[:5] for a in tab.asked} <= {
            f"http:{address.removeprefix('http://')}",
            "data:",
            "blob:",
        }


def test_a_dropped_image_gets_the_answer_of_predict(page, address, run, images, frostline):
    files = [images / "red" / "004.png", images / "green" / "005.png"]
    wanted = [json.loads(line) for line in frostline("predict", run, *files, "--json").stdout.splitlines()]
    page.go(address)
    page.drop(*files)
    page.wait(ANSWERED.format(2))
    assert page.run("[...document.querySelectorAll('.label')].map(n => n.textContent)") == [w["label"] for w in wanted]
    for shown, answer in zip(page.run(ROWS), wanted, strict=True):
        assert {name for name, _ in shown} == set(answer["probabilities"])
        for name, value in shown:
            assert value == pytest.approx(answer["probabilities"][name], abs=1e-6)
    assert page.run("document.querySelectorAll('.seen canvas').length") == 2
    assert page.run("[...document.querySelectorAll('.near img, .seen img')].every(i => i.complete && i.naturalWidth > 0 && i.alt)")
    assert page.run("document.querySelectorAll('.near li').length") == 10
    drawn = (
        "(c => [...c.getContext('2d').getImageData(0, 0, c.width, c.height).data].some(v => v > 0))(document.querySelector('.seen canvas'))"
    )
    assert page.run(drawn)
    page.run("document.getElementById('heat').click()")
    assert page.run("getComputedStyle(document.querySelector('.seen canvas')).visibility") == "hidden"
    page.run("document.getElementById('heat').click()")


def test_a_pasted_image_and_one_from_the_camera(page, address):
    page.go(address)
    page.run(
        """(async () => {
        const canvas = document.createElement('canvas'); canvas.width = canvas.height = 40;
        const blob = await new Promise(done => canvas.toBlob(done));
        const data = new DataTransfer(); data.items.add(new File([blob], 'pasted.png', {type: 'image/png'}));
        document.dispatchEvent(new ClipboardEvent('paste', {clipboardData: data}));
        })()"""
    )
    page.wait(ANSWERED.format(1))
    page.run("document.getElementById('start').click()")
    page.wait("document.getElementById('video').videoWidth > 0")
    page.run("document.getElementById('take').click()")
    page.wait(ANSWERED.format(2))
    assert page.run("[...document.querySelectorAll('.answered .name')].map(n => n.textContent)") == ["pasted.png", "camera.png"]
    page.run("document.getElementById('stop').click()")
    assert page.run("document.getElementById('video').hidden || document.getElementById('camera').hidden")


def test_what_is_no_image_or_too_large_is_said_and_names_stay_text(page, address, tmp_path, images):
    bad = tmp_path / "<img src=x onerror=alert(1)>.png"
    bad.write_text("no picture")
    large = tmp_path / "large.png"
    large.write_bytes(b"x" * 2**21)
    page.go(address)
    page.wait("document.getElementById('model').textContent.includes('green')")
    page.drop(bad, large, images / "red" / "001.png")
    page.wait(ANSWERED.format(3))
    said = page.run("[...document.querySelectorAll('.bad')].map(n => n.textContent).filter(t => t)")
    assert said[0].startswith("No answer: no image of a known format")
    assert said[1] == "No answer: larger than 1 MB"
    assert page.run("document.querySelector('.name').textContent") == bad.name
    assert page.run("document.querySelectorAll('[onerror], b > b, header b').length") == 0
    assert page.run("document.getElementById('model').textContent").startswith("<b>run: green, red, right on ")


@pytest.mark.parametrize(("width", "dark"), [(360, True), (1200, False)])
def test_it_fits_a_phone_and_a_desktop_by_day_and_night(page, address, images, width, dark, tmp_path):
    page.go(address, width, 800, dark=dark, mobile=width < 500)
    page.drop(images / "red" / "002.png", at=(100, 100))
    page.wait(ANSWERED.format(1))
    assert page.run("document.documentElement.scrollWidth") <= width
    light = page.run("getComputedStyle(document.body).backgroundColor.match(/\\d+/g).map(Number).reduce((a, b) => a + b)")
    assert (light < 150) == dark
    smallest = page.run(
        "Math.min(...[...document.querySelectorAll('button, .button')].filter(b => b.offsetParent).map(b => b.offsetHeight))"
    )
    assert smallest >= 44
    page.screenshot(tmp_path / "page.png")
    assert (tmp_path / "page.png").stat().st_size > 10_000


def test_it_can_be_used_by_keyboard_and_read_aloud(page, address):
    page.go(address)
    page.run("document.getElementById('files').focus()")
    assert page.run("getComputedStyle(document.querySelector('.button')).outlineStyle") in ("solid", "auto", "none")
    assert page.run("document.documentElement.lang") == "en"
    assert page.run("document.querySelector('[aria-live]').id") == "said"
    unnamed = "[...document.querySelectorAll('button, input, video, section, ol')].filter(n => !(n.textContent.trim() || n.ariaLabel || (n.labels && n.labels.length)))"
    assert page.run(f"{unnamed}.map(n => n.id)") == []
