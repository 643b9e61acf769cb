"""``make pictures``: what README and the site show, drawn by a real Chromium from generated digits. Writes docs/pictures/*.{png,svg}."""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import textwrap
from html import escape
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))  # the browser of the tests
from chromium import CHROMIUM, Page, chromium  # noqa: E402

MOST_BYTES = 150_000
WORDS = "#d7dde5"


def frostline(*arguments: object, cwd: Path) -> str:
    """What a command prints on stdout."""
    done = subprocess.run(
        [sys.executable, "-m", "frostline", *map(str, arguments)],
        cwd=cwd,
        capture_output=True,
        text=True,
        env={**os.environ, "COLUMNS": "110"},
    )
    if done.returncode:
        sys.exit(done.stderr)
    return done.stdout


def few(folder: Path, each: int) -> None:
    """Keep so many pictures of each digit: the pictures are of the tool, not of its accuracy."""
    for digit in folder.rglob("*"):
        if digit.is_dir():
            for path in sorted(digit.glob("*.png"))[each:]:
                path.unlink()


def shoot(page: Page, path: Path, height: int) -> None:
    """The upper part of the page, in 256 colours."""
    import base64
    import io

    from PIL import Image

    width = page.run("document.documentElement.clientWidth")
    clip = {"x": 0, "y": 0, "width": width, "height": height, "scale": 1}
    found = page.do("Page.captureScreenshot", format="png", captureBeyondViewport=True, clip=clip)
    picture = Image.open(io.BytesIO(base64.b64decode(found["data"]))).convert("RGB").quantize(256, dither=Image.Dither.NONE)
    picture.save(path, optimize=True)


def terminal(command: str, lines: list[str], path: Path) -> None:
    """A command and its answer as an SVG."""
    shown = [f"$ {command}", *lines]
    width, height = 24 + round(7.25 * max(map(len, shown))), 28 + 18 * len(shown)
    rows = "".join(
        f'<text x="12" y="{30 + 18 * i}" fill="{WORDS if i else "#8fd3ff"}" xml:space="preserve">{escape(line)}</text>'
        for i, line in enumerate(shown)
    )
    path.write_text(
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}" role="img" '
        f'font-family="ui-monospace, Menlo, Consolas, monospace" font-size="12"><title>{escape(command)}</title>'
        f'<rect width="100%" height="100%" rx="8" fill="#14202b"/>{rows}</svg>\n',
        encoding="utf-8",
    )


def served(run: Path, picture: Path, page: Page, out: Path, cwd: Path) -> None:
    """The page of ``frostline serve`` with an answer on it."""
    command = [sys.executable, "-m", "frostline", "serve", str(run), "--port", "0"]
    with subprocess.Popen(command, cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as server:
        try:
            assert server.stdout is not None
            page.go(server.stdout.readline().split()[-1], 900, 700)
            page.drop(picture)
            page.wait("document.querySelectorAll('.answered').length === 1 && !document.querySelector('.waiting')")
            page.run("Promise.all([...document.images].map(i => i.complete ? 0 : new Promise(r => { i.onload = i.onerror = r })))")
            shoot(page, out, min(page.run("document.documentElement.scrollHeight"), 760))
        finally:
            server.terminate()


def draw(work: Path, out: Path) -> None:
    """All pictures, from images written to ``work``."""
    from frostline.demo import write_digits

    write_digits(work / "digits")
    few(work / "digits", 30)
    frostline("train", "digits", "--out", "run", "--quiet", cwd=work)
    frostline("report", "run", cwd=work)
    with chromium(work / "profile") as page:
        address = (work / "run" / "report.html").as_uri()
        page.go(address, 1100, 800)
        shoot(page, out / "report.png", 900)
        page.go(address, 390, 800, mobile=True)
        shoot(page, out / "report-phone.png", 844)
        served(Path("run"), sorted((work / "digits/test/3").iterdir())[0].resolve(), page, out / "serve.png", work)
    advice = frostline("advise", "digits", "--quiet", cwd=work).rstrip().splitlines()
    terminal(
        "frostline advise digits",
        [part for line in advice for part in textwrap.wrap(line, 110, replace_whitespace=False, drop_whitespace=False) or [""]],
        out / "advise.svg",
    )


def main() -> None:
    """Draw, and refuse what is too large to keep."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "pictures")
    out: Path = parser.parse_args().out
    if CHROMIUM is None:
        sys.exit("pictures: no Chromium is installed; install the package chromium")
    out.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix="frostline-pictures-"))
    try:
        draw(work, out)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    for path in sorted(out.iterdir()):
        print(f"{path}: {path.stat().st_size} bytes")
    if large := [str(p) for p in out.iterdir() if p.stat().st_size > MOST_BYTES]:
        sys.exit(f"pictures: larger than {MOST_BYTES} bytes: {', '.join(large)}")


if __name__ == "__main__":
    main()
