"""What README shows is run: every Python block, in order, in one namespace, and every ``frostline ...`` line, in order, in one folder."""

from __future__ import annotations

import contextlib
import io
import re
import shlex
import subprocess
import sys
import traceback
from pathlib import Path

import pytest
import torch

from conftest import ROOT, make_images
from frostline import Recipe, open_backbone
from frostline.data import read_data
from frostline.features.images import digest_files
from frostline.run.identity import begin, identity_of

README = (ROOT / "README.md").read_text(encoding="utf-8")
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


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """What README's reader has: images, a script and an interrupted run under the names that README uses."""
    for split, seed in (("train", 0), ("val", 1)):
        make_images(tmp_path / "DATA" / split, {"ants": 3, "bees": 3}, seed)
    make_images(tmp_path / "LABELLED", {"ants": 2, "bees": 2}, seed=2)
    make_images(tmp_path, {"PICTURES": 2}, seed=3)
    (tmp_path / "a.jpg").write_bytes((tmp_path / "PICTURES" / "000.png").read_bytes())
    (tmp_path / "train.py").write_text(SCRIPT)
    monkeypatch.chdir(tmp_path)
    begin(Path("RUN"), recipe := Recipe(data="DATA", epochs=1), begun(recipe))
    return tmp_path


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
                exec(compile(block, f"README, Python block {number}", "exec"), given)
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


def test_python_blocks(folder):
    given: dict[str, object] = {"my_network": my_network()}
    assert len(python_blocks(README)) >= 3
    assert broken_blocks(README, given) == []
    assert given["clf"].classes_.tolist() == ["ants", "bees"]
    assert (folder / "run" / "summary.json").is_file()
    network = given["my_network"]
    assert network.training
    assert network.fc.training
    assert not network.layer4.training
    assert [n for n, p in network.named_parameters() if p.requires_grad] == ["fc.weight", "fc.bias"]


def test_command_lines(folder, frostline):
    assert {line.split()[1] for line in command_lines(README) if line.startswith("frostline")} >= {
        "train",
        "evaluate",
        "predict",
        "inspect",
    }
    assert broken_lines(README, folder, frostline) == []
    assert all((run / "summary.json").is_file() for run in (folder / "runs").iterdir())


def test_links():
    targets = [t for t in re.findall(r"\]\(([^)#]+)\)", README) if "://" not in t]
    assert targets
    assert [t for t in targets if not (ROOT / t).exists()] == []


PLANTED = """
Say `frostline
train DATA --epoch 3`, or $x$.

```
$ frostline evaluate runs/... \\
    LABELLED   # how good
frostlines are no command
```

```python
x = 1
```

```python
y = x + nothing
```

Or `python -c "import sys; sys.exit(3)"`.

```python
z = x
```
"""


def test_what_is_planted_is_found(folder, frostline):
    assert python_blocks(PLANTED) == ["x = 1\n", "y = x + nothing\n", "z = x\n"]
    assert [" ".join(line.split()) for line in command_lines(PLANTED)] == [
        "frostline evaluate runs/... LABELLED # how good",
        "frostline train DATA --epoch 3",
        'python -c "import sys; sys.exit(3)"',
    ]
    given: dict[str, object] = {}
    assert broken_blocks(PLANTED, given) == ["block 2: NameError: name 'nothing' is not defined"]
    assert given["z"] == 1
    (folder / "runs" / "unfinished").mkdir(parents=True)
    broken = broken_lines(PLANTED, folder, frostline)
    assert len(broken) == 3
    assert "is no finished run" in broken[0]
    assert "--epoch" in broken[1]
    assert broken[2].endswith(": 3, ")
