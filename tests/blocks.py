"""What a page shows is run: its Python blocks, in order, in one namespace, and its ``frostline ...`` lines, in order, in one folder."""

from __future__ import annotations

import contextlib
import io
import re
import shlex
import subprocess
import sys
import traceback
from pathlib import Path

import torch

from conftest import make_images
from frostline import Recipe, open_backbone
from frostline.data import read_data
from frostline.features.images import digest_files
from frostline.run.identity import begin, identity_of

FENCED = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
INLINE = re.compile(r"`([^`]+)`")
RUN = ("frostline ", "python -c ")


def python_blocks(text: str) -> list[str]:
    return [body for language, body in FENCED.findall(text) if language == "python"]


def command_lines(text: str) -> list[str]:
    """Lines of fenced blocks and code spans in the prose that begin with a command; a backslash continues a line."""
    prose = FENCED.sub(lambda found: "\n" if found[1] == "python" else found[2], text)
    pieces = [line.removeprefix("$ ") for line in prose.replace("\\\n", " ").splitlines()] + [
        " ".join(s.split()) for s in INLINE.findall(prose)
    ]
    return [piece for piece in pieces if piece.startswith(RUN)]


def furnish(folder: Path) -> None:
    """What a reader has: images, a script and an interrupted run under the names that the pages use. ``folder`` is the current one."""
    for split, seed in (("train", 0), ("val", 1)):
        make_images(folder / "DATA" / split, {"ants": 3, "bees": 3}, seed)
    make_images(folder / "LABELLED", {"ants": 2, "bees": 2}, seed=2)
    make_images(folder, {"PICTURES": 2}, seed=3)
    (folder / "a.jpg").write_bytes((folder / "PICTURES" / "000.png").read_bytes())
    (folder / "train.py").write_text(SCRIPT)
    begin(Path("RUN"), recipe := Recipe(data="DATA", epochs=1), begun(recipe))


SCRIPT = """
import torch

def build():
    model = torch.nn.Linear(4, 2)
    return model, torch.optim.SGD(model.parameters(), lr=0.1)
"""


def begun(recipe):
    """The identity of a run that was interrupted before its first checkpoint."""
    manifest = read_data(Path(recipe.data))
    digests = digest_files([r.path for r in manifest.records])
    return identity_of(manifest, digests, open_backbone(recipe.backbone), torch.device("cpu"))


def my_network():
    from torchvision.models import resnet18

    return resnet18()


def broken_blocks(text: str, given: dict[str, object]) -> list[str]:
    """Python blocks that raise, with the last line of what they raised."""
    broken: list[str] = []
    for number, block in enumerate(python_blocks(text), start=1):
        with contextlib.redirect_stdout(io.StringIO()):
            try:
                exec(compile(block, f"Python block {number}", "exec"), given)
            except Exception as fault:
                broken.append(f"block {number}: {traceback.format_exception_only(fault)[-1].strip()}")
    return broken


def broken_lines(text: str, folder: Path, frostline) -> list[str]:
    """Command lines that end with another code than 0. ``...`` at the end of a path stands for the newest thing there."""
    broken: list[str] = []
    for line in command_lines(text):
        words = shlex.split(line, comments=True)
        for i, word in enumerate(words):
            if word.endswith("/..."):
                words[i] = str(max((folder / word.removesuffix("/...")).iterdir(), key=lambda p: p.stat().st_mtime))
        if words[0] == "python":
            done = subprocess.run([sys.executable, *words[1:]], capture_output=True, text=True, cwd=folder)
        else:
            quick = ["--epochs", "1"] if words[1] == "train" and "--epochs" not in words else []
            done = frostline(*words[1:], *quick, cwd=folder)
        if done.returncode != 0 or not done.stdout:
            broken.append(f"{line}: {done.returncode}, {done.stderr.strip().rpartition(chr(10))[2]}")
    return broken
