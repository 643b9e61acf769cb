"""What README shows is run: every Python block, in order, in one namespace, and every ``frostline ...`` line, in order, in one folder."""

from __future__ import annotations

import pytest

from blocks import broken_blocks, broken_lines, command_lines, furnish, my_network, python_blocks
from conftest import ROOT

README = (ROOT / "README.md").read_text(encoding="utf-8")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    furnish(tmp_path)
    return tmp_path


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


@pytest.mark.slow
def test_command_lines(folder, anew):
    assert {line.split()[1] for line in command_lines(README) if line.startswith("frostline")} >= {
        "train",
        "evaluate",
        "predict",
        "inspect",
    }
    assert broken_lines(README, folder, anew) == []
    assert all((run / "summary.json").is_file() for run in (folder / "runs").iterdir())


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
