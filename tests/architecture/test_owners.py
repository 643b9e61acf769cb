"""One owner per effect, so that "who could have changed this?" has one answer."""

from __future__ import annotations

import ast
from collections.abc import Callable

import pytest

from sources import MODULES


def attributes_written(text: str, name: str) -> bool:
    for node in ast.walk(ast.parse(text)):
        targets = node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AugAssign | ast.AnnAssign) else []
        if any(isinstance(t, ast.Attribute) and t.attr == name for t in targets):
            return True
    return False


def called(text: str, *names: str) -> bool:
    """Whether a function or method of one of these names is called."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Call):
            f = node.func
            name = f.attr if isinstance(f, ast.Attribute) else f.id if isinstance(f, ast.Name) else ""
            if name in names:
                return True
    return False


def method_called(text: str, *names: str) -> bool:
    """Whether something.NAME() is called on anything but the modules pipeline and pq."""
    return any(
        isinstance(n, ast.Call)
        and isinstance(n.func, ast.Attribute)
        and n.func.attr in names
        and not (isinstance(n.func.value, ast.Name) and n.func.value.id == "pipeline")
        for n in ast.walk(ast.parse(text))
    )


def opens_for_writing(text: str) -> bool:
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Call):
            f = node.func
            name = f.attr if isinstance(f, ast.Attribute) else f.id if isinstance(f, ast.Name) else ""
            modes = [
                a.value for a in (*node.args, *(k.value for k in node.keywords)) if isinstance(a, ast.Constant) and isinstance(a.value, str)
            ]
            if name in {"open", "fdopen"} and any(set(m) & set("wax+") and len(m) <= 3 for m in modes):
                return True
            if isinstance(f, ast.Attribute) and name in {"write_text", "write_bytes"}:
                return True
    return False


def unsafe(text: str) -> bool:
    tree = ast.parse(text)
    if called(text, "eval_", "exec") or any(
        isinstance(n, ast.Call) and isinstance(n.func, ast.Name) and n.func.id in {"eval", "exec"} for n in ast.walk(tree)
    ):
        return True
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in {"load", "loads"}:
            owner = node.func.value.id if isinstance(node.func.value, ast.Name) else ""
            if owner in {"pickle", "marshal", "joblib", "dill"}:
                return True
            keywords = {k.arg: getattr(k.value, "value", None) for k in node.keywords}
            if owner == "torch" and keywords.get("weights_only") is not True:
                return True
            if owner == "np" and keywords.get("allow_pickle") is not False:
                return True
    return False


RULES: dict[str, tuple[Callable[[str], bool], set[str], str]] = {
    "requires_grad": (
        lambda t: attributes_written(t, "requires_grad") or called(t, "requires_grad_"),
        {"freeze.apply"},
        "p.requires_grad = False",
    ),
    "train and eval mode": (
        lambda t: attributes_written(t, "training") or method_called(t, "train", "eval"),
        {"freeze.apply"},
        "model.eval()",
    ),
    "hooks": (
        lambda t: called(t, "register_forward_hook", "register_forward_pre_hook", "register_full_backward_hook"),
        {"backbone.tap"},
        "m.register_forward_hook(f)",
    ),
    "torch.load": (
        lambda t: any(
            isinstance(n, ast.Attribute) and n.attr == "load" and isinstance(n.value, ast.Name) and n.value.id == "torch"
            for n in ast.walk(ast.parse(t))
        ),
        {"backbone._checkpoint"},
        "torch.load(p, weights_only=True)",
    ),
    "files": (opens_for_writing, {"_atomic"}, "open(p, 'wb')"),
    "seeds": (lambda t: called(t, "manual_seed", "manual_seed_all", "Generator", "fork_rng"), {"_rng"}, "torch.manual_seed(0)"),
    "environment": (
        lambda t: any(isinstance(n, ast.Attribute) and n.attr in {"environ", "getenv"} for n in ast.walk(ast.parse(t))),
        {"cli.settings"},
        "os.environ['A']",
    ),
    "unsafe loading": (unsafe, set(), "torch.load(p)"),
}


@pytest.mark.parametrize("what", RULES)
def test_one_owner(what):
    breaks, owners, planted = RULES[what]
    assert breaks(planted), "the check cannot fail"
    assert {name for name, text in MODULES.items() if breaks(text)} <= owners


def test_only_the_command_line_prints_and_exits():
    found = {
        n
        for n, t in MODULES.items()
        if any(isinstance(c, ast.Call) and isinstance(c.func, ast.Name) and c.func.id == "print" for c in ast.walk(ast.parse(t)))
    }
    assert found
    assert all(n.startswith("cli.") for n in found)
    assert {n for n, t in MODULES.items() if method_called(t, "exit")} <= {"cli.main"}


def test_files_and_functions_can_be_read_in_one_sitting():
    for name, text in MODULES.items():
        assert text.count("\n") <= 400, name
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef):
                assert (node.end_lineno or 0) - node.lineno <= 75, f"{name}.{node.name}"
