"""What cannot be examined is one clear line; what can be is handed back as it was."""

from __future__ import annotations

import copy
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from frostline.doctor import ScriptError, examine
from frostline.doctor.observe import observe
from frostline.doctor.subject import loaded, split_target

HEAD = "import torch\nfrom torch import nn\nnet = nn.Linear(4, 2)\nopt = torch.optim.SGD(net.parameters(), lr=0.1)\n"
X = "torch.randn(8, 4)"

WRONG = {
    "no function of that name": (HEAD + "def biuld(): return net, opt\n", "has no function 'build'; did you mean biuld?"),
    "no function at all": ("x = 1\n", "it defines no function; add a function without arguments that returns (model, optimizer)"),
    "not a function": ("build = 3\n", "'build' is a int, not a function"),
    "a syntax error": ("def build(:\n", "importing it raises SyntaxError: invalid syntax (line 1)"),
    "an import that fails": (
        "x = 1\nimport no_such_module_at_all\n",
        "ModuleNotFoundError: No module named 'no_such_module_at_all' (line 2)",
    ),
    "arguments": (HEAD + "def build(name): return net, opt\n", "wants arguments (name); give a function without arguments"),
    "raises": (HEAD + "def build():\n    raise KeyError('weights')\n", "raises KeyError: 'weights' (line 6); make it run by itself first"),
    "raises a ValueError": (HEAD + "def build():\n    raise ValueError('no')\n", "raises ValueError: no (line 6)"),
    "nothing": (HEAD + "def build(): pass\n", "returns a NoneType; return (model, optimizer)"),
    "four things": (HEAD + "def build(): return net, opt, None, 1\n", "returns a tuple of 4; return"),
    "no model": (HEAD + "def build(): return opt, net\n", "returns a SGD as the model, not an nn.Module; return the model first"),
    "no optimizer": (HEAD + "def build(): return net, 0.1\n", "returns a float as the optimizer, not a torch.optim.Optimizer"),
    "no loader": (HEAD + "def build(): return net, opt, 7\n", "returns a int as the loader, which cannot be iterated"),
    "lazy layers": (HEAD + "def build(): return nn.LazyLinear(2), opt\n", "lazy layers that have no size yet; run it on a batch once"),
    "an empty loader": (HEAD + "def build(): return net, opt, []\n", "its loader gives no batch"),
    "a loader that raises": (HEAD + "def build(): return net, opt, (1 / 0 for _ in range(3))\n", "raises ZeroDivisionError"),
    "a loader without tensors": (HEAD + "def build(): return net, opt, ['a.jpg']\n", "gives a str without a tensor in it"),
    "batches of another shape": (
        HEAD + f"def build(): return net, opt, [{X}[:, :3]]\n",
        "running the model on a batch raises RuntimeError",
    ),
    "no shape to guess": (
        HEAD + "class M(nn.Module):\n    def __init__(s): super().__init__(); s.a = net\n    def forward(s, x, y): return s.a(x + y)\n"
        "def build(): return M(), opt\n",
        "the model takes no input that can be guessed; return (model, optimizer, loader)",
    ),
    "a backward pass that raises": (
        HEAD + "class M(nn.Module):\n    def __init__(s): super().__init__(); s.a = net\n"
        "    def forward(s, x): x = s.a(x).exp(); y = x.mean(); x.add_(1); return x * y\n"
        "def build(): return M(), opt, [" + X + "]\n",
        "running the backward pass raises RuntimeError",
    ),
    "a step that raises": (
        HEAD + "class O(torch.optim.SGD):\n    def step(s, closure=None): raise ArithmeticError('step')\n"
        "def build(): return net, O(net.parameters(), lr=1), [" + X + "]\n",
        "running the optimizer's step raises ArithmeticError: step",
    ),
    "a train() that raises": (
        HEAD
        + "class M(nn.Linear):\n    def train(s, mode=True):\n        if mode: raise OSError('mode')\n        return super().train(mode)\n"
        "def build(): m = M(4, 2); return m, torch.optim.SGD(m.parameters(), lr=1), [" + X + "]\n",
        "running model.train() raises OSError: mode",
    ),
}


@pytest.mark.parametrize("what", WRONG)
def test_what_cannot_be_examined_is_said_in_a_line(what, tmp_path):
    text, words = WRONG[what]
    script = tmp_path / "wrong.py"
    script.write_text(text)
    with pytest.raises(ScriptError) as raised:
        examine(f"{script}:build")
    line = str(raised.value)
    assert line.startswith(str(script))
    assert words in line
    assert "\n" not in line
    assert raised.value.exit_code == 2


def test_no_such_script(tmp_path):
    (tmp_path / "train_ants.py").write_text("")
    with pytest.raises(ScriptError, match=r"no such script or run directory; did you mean train_ants.py\?"):
        examine(tmp_path / "train_ant.py")
    with pytest.raises(ScriptError, match=r"no such script or run directory; give script\.py:FUNCTION"):
        examine("/no/such/folder/train.py:build")


def test_a_file_that_is_no_script(tmp_path):
    (tmp_path / "notebook.ipynb").write_text("{}")
    with pytest.raises(ScriptError, match="is no Python script"):
        examine(tmp_path / "notebook.ipynb")


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        ("a/train.py:make", ("a/train.py", "make")),
        ("train.py", ("train.py", "build")),
        ("train.py:", ("train.py", "build")),
        ("C:/train.py", ("C:/train.py", "build")),
    ],
)
def test_targets(target, expected):
    assert split_target(target) == (Path(expected[0]), expected[1])


KEEPING = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Dropout(0.5), nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.head = nn.Linear(8, 2)

    def forward(self, x):
        return self.head(self.body(x))

def build():
    net = Net()
    net.body.requires_grad_(False).eval()
    optimizer = torch.optim.Adam(net.head.parameters(), lr=0.1)
    net(torch.randn(4, 3, 8, 8)).sum().backward()
    optimizer.step()
    return net, optimizer, [torch.randn(4, 3, 8, 8)]
"""


def test_everything_is_put_back(tmp_path):
    (tmp_path / "keeping.py").write_text(KEEPING)
    path, arguments = list(sys.path), list(sys.argv)
    with loaded(tmp_path / "keeping.py", "build") as subject:
        state = copy.deepcopy(subject.model.state_dict())
        steps = copy.deepcopy(subject.optimizer.state_dict())
        modes = [m.training for m in subject.model.modules()]
        gradients = [None if p.grad is None else p.grad.clone() for p in subject.model.parameters()]
        random = torch.get_rng_state()
        seen = observe(subject)
        assert any(n.moved for n in seen.norms), "the steps did change something"
        assert all(torch.equal(v, state[n]) for n, v in subject.model.state_dict().items())
        now = subject.optimizer.state_dict()
        assert now["param_groups"] == steps["param_groups"]
        assert all(torch.equal(now["state"][i][k], v) for i, s in steps["state"].items() for k, v in s.items())
        assert [m.training for m in subject.model.modules()] == modes
        assert all((p.grad is None) == (g is None) for p, g in zip(subject.model.parameters(), gradients, strict=True))
        assert all(g is None or torch.equal(p.grad, g) for p, g in zip(subject.model.parameters(), gradients, strict=True))
        assert torch.equal(torch.get_rng_state(), random)
        assert not any(m._forward_hooks or m._forward_pre_hooks for m in subject.model.modules())
    assert (sys.path, sys.argv) == (path, arguments)
    assert "keeping" not in sys.modules


def test_a_script_named_like_a_module_that_exists_does_not_replace_it(tmp_path):
    (tmp_path / "torch.py").write_text(HEAD + f"def build(): return net, opt, [{X}]\n")
    assert examine(tmp_path / "torch.py").findings == ()
    assert sys.modules["torch"] is torch


def test_a_script_finds_what_lies_beside_it(tmp_path):
    (tmp_path / "beside_the_script.py").write_text("width = 2\n")
    text = HEAD + f"def build():\n    from beside_the_script import width\n    return net, opt, [{X} * width]\n"
    (tmp_path / "late_import.py").write_text(text)
    assert examine(tmp_path / "late_import.py").findings == ()


def test_nothing_is_run_where_nothing_is_trained(tmp_path):
    text = HEAD + "def build():\n    net.requires_grad_(False)\n    return net, opt, (1 / 0 for _ in range(9))\n"
    (tmp_path / "frozen.py").write_text(text)
    (finding,) = examine(tmp_path / "frozen.py").findings
    assert finding.trap == 27


def test_a_network_without_parameters_has_nothing_to_train(tmp_path):
    (tmp_path / "empty.py").write_text(HEAD + f"def build(): return nn.ReLU(), opt, [{X}]\n")
    (finding,) = examine(tmp_path / "empty.py").findings
    assert (finding.trap, finding.evidence) == (27, "the model has no parameters")
    assert nn.ReLU().training
