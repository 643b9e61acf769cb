"""One owner per effect, so that "who could have changed this?" has one answer.

Every check takes a source text and gives the lines that break the rule, so that a planted violation proves that it can fail.
"""

from __future__ import annotations

import ast
import functools
import re
from collections.abc import Callable
from dataclasses import dataclass

import pytest

from sources import MODULES

MOST_LINES_OF_A_FILE = 400
MOST_LINES_OF_A_FUNCTION = 70
LOADS = {
    "torch.load": ("weights_only", True),
    "np.load": ("allow_pickle", False),
    "numpy.load": ("allow_pickle", False),
}


@functools.cache
def full_names(text: str) -> list[tuple[ast.expr, str]]:
    """Every name and attribute of a text with its dotted name, imports under other names resolved; ``?`` is some other value."""
    tree = ast.parse(text)
    real: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            real |= {a.asname: a.name for a in node.names if a.asname}
        elif isinstance(node, ast.ImportFrom):
            real |= {a.asname or a.name: f"{node.module}.{a.name}" for a in node.names}

    def name_of(node: ast.expr) -> str:
        if isinstance(node, ast.Name):
            return real.get(node.id, node.id)
        return f"{name_of(node.value)}.{node.attr}" if isinstance(node, ast.Attribute) else "?"

    return [(node, name_of(node)) for node in ast.walk(tree) if isinstance(node, ast.Name | ast.Attribute)]


@functools.cache
def calls(text: str) -> list[tuple[ast.Call, str]]:
    """Every call of a text with the dotted name of what is called."""
    tree = ast.parse(text)
    names = {(n.lineno, n.col_offset, n.end_lineno, n.end_col_offset): name for n, name in full_names(text)}
    found = [(node, node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)]
    return [(node, names.get((f.lineno, f.col_offset, f.end_lineno, f.end_col_offset), "?")) for node, f in found]


def constant(node: ast.expr | None) -> object:
    return node.value if isinstance(node, ast.Constant) else None


def argument(call: ast.Call, position: int, keyword: str) -> ast.expr | None:
    """The argument at a position or under a keyword, or None where it is not given."""
    named = {k.arg: k.value for k in call.keywords}
    return call.args[position] if len(call.args) > position else named.get(keyword)


def attribute_written(text: str, name: str) -> list[int]:
    written = [
        n.lineno for n in ast.walk(ast.parse(text)) if isinstance(n, ast.Attribute) and n.attr == name and not isinstance(n.ctx, ast.Load)
    ]
    by_name = [c.lineno for c, f in calls(text) if f == "setattr" and constant(argument(c, 1, "name")) == name]
    return written + by_name


def method_called(text: str, pattern: str) -> list[int]:
    """Lines that call a method of such a name on a value; functions of frostline's own modules (``pipeline.train``) are not meant."""
    return [
        c.lineno
        for c, f in calls(text)
        if isinstance(c.func, ast.Attribute) and re.fullmatch(pattern, c.func.attr) and not f.startswith("frostline.")
    ]


def used(text: str, pattern: str) -> list[int]:
    """Lines that name something, called or not."""
    return [n.lineno for n, f in full_names(text) if re.fullmatch(pattern, f)]


def writes_requires_grad(text: str) -> list[int]:
    return attribute_written(text, "requires_grad") + method_called(text, "requires_grad_")


def writes_mode(text: str) -> list[int]:
    return attribute_written(text, "training") + method_called(text, "train|eval")


def hooks(text: str) -> list[int]:
    return method_called(text, r"_?register_\w*hook")


def loads_with_torch(text: str) -> list[int]:
    return used(text, r"torch\.load")


def writes_files(text: str) -> list[int]:
    found = used(text, r"os\.(O_CREAT|O_TRUNC|O_APPEND|replace|rename)|shutil\.(copy\w*|move)|torch\.save|safetensors\.\w+\.save_file")
    found += method_called(text, "write_text|write_bytes")
    for call, name in calls(text):
        if name in {"open", "io.open", "os.fdopen"}:
            mode = argument(call, 1, "mode")
        elif name.endswith(".open") and name != "os.open" and not name.startswith(("frostline.", "PIL.")):  # os.open: by its flags
            mode = argument(call, 0, "mode")
        else:
            continue
        if mode is not None and not re.fullmatch("r?[bt]?", str(constant(mode))):
            found.append(call.lineno)
    return found


def seeds(text: str) -> list[int]:
    return [
        c.lineno
        for c, f in calls(text)
        if re.fullmatch(r"(.*\.)?(manual_seed\w*|fork_rng|set_rng_state)|torch\.Generator|(.*\.)?random\.seed", f)
    ]


def reads_environment(text: str) -> list[int]:
    return used(text, r"os\.(environ|environb|getenv|putenv|unsetenv)")


def turns_the_collector(text: str) -> list[int]:
    return used(text, r"gc\.(?!get_)\w+")


def prints(text: str) -> list[int]:
    return used(text, r"(rich\.)?print|sys\.(__)?(stdout|stderr)(__)?")


def exits(text: str) -> list[int]:
    return used(text, r"sys\.exit|os\._exit|exit|quit|SystemExit")


def runs_what_it_reads(text: str) -> list[int]:
    """Pickle and its kin, eval and exec, torch.load and np.load that do not say that they refuse pickles."""
    found = used(text, r"(pickle|_pickle|cloudpickle|dill|marshal|shelve)\.(?!UnpicklingError$|PickleError$)\w+.*")
    found += used(text, r"joblib\.(load|dump)|(builtins\.)?(eval|exec)|torch\.(save|jit\.load|hub\.load\w*)|yaml\.(unsafe_)?load")
    for node in ast.walk(ast.parse(text)):
        module = node.module if isinstance(node, ast.ImportFrom) else None
        if module in {"pickle", "marshal", "dill", "cloudpickle", "shelve"}:
            found.append(node.lineno)
    loads = [(c, f) for c, f in calls(text) if f in LOADS]
    for call, name in loads:
        keyword, refusing = LOADS[name]
        if not any(k.arg == keyword and constant(k.value) is refusing for k in call.keywords):
            found.append(call.lineno)
    named = [n.lineno for n, f in full_names(text) if f in LOADS]
    return found + (named if len(named) > len(loads) else [])  # handed on as a value, nobody sees how it is called


def too_long(text: str) -> list[int]:
    tree = ast.parse(text)
    functions = [n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef)]
    found = [n.lineno for n in functions if (n.end_lineno or n.lineno) - n.lineno + 1 > MOST_LINES_OF_A_FUNCTION]
    return found + ([MOST_LINES_OF_A_FILE] if len(text.splitlines()) > MOST_LINES_OF_A_FILE else [])


@dataclass(frozen=True)
class Rule:
    """A check, the modules that may break it, texts that must be found and texts that must not."""

    breaks: Callable[[str], list[int]]
    owners: tuple[str, ...]
    planted: tuple[str, ...]
    innocent: tuple[str, ...] = ()


RULES = {
    "requires_grad": Rule(
        writes_requires_grad,
        ("freeze.apply",),
        ("p.requires_grad = False", "p.requires_grad_(False)", "a, p.requires_grad = 1, True", "setattr(p, 'requires_grad', False)"),
        ("if p.requires_grad: pass",),
    ),
    "train and eval mode": Rule(
        writes_mode,
        ("freeze.apply",),
        ("model.eval()", "self.net.train(False)", "build().eval()", "m.training = True"),
        ("from frostline import pipeline\npipeline.train(r)", "ast.literal_eval(x)", "if m.training: pass", "train(x)"),
    ),
    "hooks": Rule(
        hooks,
        ("backbone.tap",),
        ("m.register_forward_hook(f)", "m.register_full_backward_pre_hook(f)", "p.register_hook(f)"),
        ("m.register_buffer('a', b)",),
    ),
    "torch.load": Rule(
        loads_with_torch,
        ("backbone._checkpoint",),
        ("torch.load(p, weights_only=True)", "from torch import load\nload(p)", "import torch as t\nt.load(p)"),
        ("json.load(f)",),
    ),
    "unsafe loading": Rule(
        runs_what_it_reads,
        (),
        (
            "torch.load(p)",
            "torch.load(p, weights_only=False)",
            "torch.load(p, weights_only=given)",
            "functools.partial(torch.load)",
            "from torch import load\nload(p)",
            "torch.save(x, p)",
            "torch.hub.load(r, m)",
            "np.load(p)",
            "np.load(p, allow_pickle=True)",
            "pickle.loads(b)",
            "import pickle as q\nq.Unpickler(f).load()",
            "from pickle import loads",
            "marshal.loads(b)",
            "joblib.load(p)",
            "eval(s)",
            "exec(s)",
        ),
        (
            "torch.load(p, weights_only=True)",
            "np.load(p, allow_pickle=False)",
            "try: f()\nexcept pickle.UnpicklingError: pass",
            "model.eval()",
            "json.loads(s)",
        ),
    ),
    "files": Rule(
        writes_files,
        ("_atomic",),
        (
            "open(p, 'wb')",
            "open(p, mode='a')",
            "open(p, how)",
            "p.open('x')",
            "Path(p).open(mode='r+')",
            "p.write_text(s)",
            "Path(p).write_bytes(b)",
            "os.fdopen(h, 'wb')",
            "os.open(p, os.O_WRONLY | os.O_CREAT)",
            "os.replace(a, b)",
            "from safetensors.torch import save_file\nsave_file(t, p)",
        ),
        (
            "open(p)",
            "open(p, 'rb')",
            "p.open(encoding='utf-8')",
            "from frostline import _atomic\n_atomic.write_text(p, s)",
            "from frostline._atomic import write_bytes\nwrite_bytes(p, b)",
            "from PIL import Image\nImage.open(b, formats=F)",
            "p.mkdir(parents=True)",
            "os.open(os.devnull, os.O_WRONLY)",
        ),
    ),
    "seeds": Rule(
        seeds,
        ("_rng",),
        ("torch.manual_seed(0)", "torch.cuda.manual_seed_all(0)", "torch.Generator()", "g.manual_seed(1)", "np.random.seed(0)"),
        ("def f() -> Generator[int, None, None]: ...", "def f(g: torch.Generator): ..."),
    ),
    "environment": Rule(
        reads_environment,
        ("cli.settings",),
        ("os.environ['A']", "os.getenv('A')", "from os import environ\nenviron.get('A')"),
        ("os.cpu_count()",),
    ),
    "garbage collector": Rule(
        turns_the_collector,
        ("_collector",),
        ("import gc\ngc.disable()", "from gc import freeze\nfreeze()", "import gc\ngc.set_threshold(9)"),
        ("import gc\ngc.get_threshold()",),
    ),
    "printing": Rule(
        prints, ("cli.",), ("print(1)", "import rich\nrich.print(1)", "sys.stdout.write(s)", "f(out=print)"), ("self.print(1)",)
    ),
    "exit codes": Rule(
        exits, ("cli.",), ("sys.exit(1)", "raise SystemExit(1)", "from sys import exit\nexit(2)", "os._exit(1)"), ("stack.exit()",)
    ),
    "length": Rule(
        too_long,
        (),
        ("x = 1\n" * 401, "def f():\n" + "    x = 1\n" * 70, "class A:\n    async def f(self):\n" + "        x = 1\n" * 70),
        ("x = 1\n" * 400, "def f():\n" + "    x = 1\n" * 69),
    ),
}


def owns(owners: tuple[str, ...], module: str) -> bool:
    return any(module.startswith(o) if o.endswith(".") else module == o for o in owners)


@pytest.mark.parametrize("what", RULES)
def test_one_owner(what):
    rule = RULES[what]
    broken = [f"{name}:{line}" for name, text in MODULES.items() if not owns(rule.owners, name) for line in rule.breaks(text)]
    assert broken == [], f"{what}: only {', '.join(rule.owners) or 'nobody'} may"


@pytest.mark.parametrize("what", [what for what, rule in RULES.items() if rule.owners])
def test_every_owner_uses_what_it_owns(what):
    rule = RULES[what]
    assert any(rule.breaks(text) for name, text in MODULES.items() if owns(rule.owners, name)), "the owner is gone, or the check is blind"


@pytest.mark.parametrize(("what", "planted"), [(what, text) for what, rule in RULES.items() for text in rule.planted])
def test_a_planted_violation_is_found(what, planted):
    assert RULES[what].breaks(planted) != []


@pytest.mark.parametrize(("what", "text"), [(what, text) for what, rule in RULES.items() for text in rule.innocent])
def test_what_is_allowed_is_not_found(what, text):
    assert RULES[what].breaks(text) == []
