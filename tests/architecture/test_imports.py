"""Imports run one way: a room imports only from rooms before it; no cycles; nothing heavy at start-up."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

import frostline
from sources import MODULES

LEAFS = ("errors", "_digest", "_atomic", "_rng", "_device", "_html", "_extras", "_collector")
ROOMS = (
    "data",
    "given",
    "ahead",
    "backbone",
    "freeze",
    "features",
    "heads",
    "model",
    "lora",
    "fitting",
    "listening",
    "recipe",
    "run",
    "gather",
    "quality",
    "familiar",
    "use",
    "nested",
    "advise",
    "export",
    "explaining",
    "report",
    "plotting",
    "opened",
    "serve",
    "pipeline",
    "labelled",
    "classifier",
    "extractor",
    "demo",
    "doctor",
    "cli",
    "__main__",
)
ORDER = {name: (0 if name in LEAFS else 1 + ROOMS.index(name)) for name in (*LEAFS, *ROOMS)}
SAYS_NOTHING = {"utils", "helpers", "common", "misc", "base", "manager", "core"}

# Cycles inside one room that are closed by an import inside a function. No other is allowed, and one that goes must go here too.
KNOWN_CYCLES = {
    frozenset({"cli.main", "cli.demo", "cli.train"}),  # a verb asks main for the time since the start
    frozenset({"freeze.plan", "freeze.cut", "freeze.chain", "freeze.table"}),  # a plan asks its table to describe it
}


def public_homes(text: str) -> dict[str, str]:
    """Where the public names of ``frostline/__init__.py`` live: ``from frostline import fit`` is an import of ``fitting``."""
    return {
        alias.name: node.module.removeprefix("frostline.")
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("frostline.")
        for alias in node.names
    }


HOMES = public_homes(Path(frostline.__file__).read_text(encoding="utf-8"))


def names_imported(module: str, text: str, packages: set[str]) -> set[str]:
    """Dotted names that a source text imports, wherever in it: at the top, in functions, for type checking, by importlib."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            found |= {a.name for a in node.names}
        elif isinstance(node, ast.ImportFrom):
            whole = ["frostline", *module.split(".")]
            above = whole[: len(whole) - node.level + (module in packages)] if node.level else []
            source = ".".join([*above, *([node.module] if node.module else [])])
            found |= {f"{source}.{a.name}" for a in node.names}
        elif isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant) and isinstance(node.args[0].value, str):
            called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            if called in {"import_module", "__import__"}:
                found.add(node.args[0].value)
    return found


def imported(module: str, text: str, known: set[str], homes: Mapping[str, str] = HOMES) -> set[str]:
    """frostline's modules that a source text imports; ``frostline`` is the package itself, through which anything is reached."""
    packages = {name.rpartition(".")[0] for name in known} - {""}
    found: set[str] = set()
    for name in names_imported(module, text, packages):
        if name == "frostline":
            found.add("frostline")
        elif name.startswith("frostline."):
            inner = name.removeprefix("frostline.")
            inner = homes.get(inner, inner) if inner not in known else inner
            while inner and inner not in known:
                inner = inner.rpartition(".")[0]
            found.add(inner)
    return found - {""}


def against_the_stream(module: str, text: str, known: set[str]) -> list[str]:
    """What a source text imports of its own room's place or later, and not of its own room."""
    room = module.partition(".")[0]

    def allowed(other: str) -> bool:
        there = other.partition(".")[0]
        if there == "frostline":
            return False
        both_leafs = ORDER[there] == ORDER[room] == 0
        return there == room or both_leafs or ORDER[there] < ORDER[room]

    return sorted(other for other in imported(module, text, known) if not allowed(other))


def cycles(texts: Mapping[str, str]) -> set[frozenset[str]]:
    """Groups of modules that reach each other by imports."""
    graph = {name: imported(name, text, set(texts)) - {name, "frostline"} for name, text in texts.items()}

    def reached(start: str) -> set[str]:
        seen: set[str] = set()
        todo = list(graph[start])
        while todo:
            name = todo.pop()
            if name not in seen:
                seen.add(name)
                todo.extend(graph[name])
        return seen

    reach = {name: reached(name) for name in graph}
    return {frozenset(other for other in reach[name] if name in reach[other]) for name in graph if name in reach[name]}


def unplaced(modules: set[str]) -> set[str]:
    return {name.partition(".")[0] for name in modules} - set(ORDER)


def named_for_nothing(modules: set[str]) -> set[str]:
    return {name for name in modules if {part.strip("_") for part in name.split(".")} & SAYS_NOTHING}


@pytest.mark.parametrize("module", sorted(MODULES))
def test_a_room_imports_only_from_rooms_before_it(module):
    assert not unplaced({module}), f"{module}: place the new room in the order of rooms"
    assert against_the_stream(module, MODULES[module], set(MODULES)) == []


@pytest.mark.parametrize(
    ("module", "planted", "expected"),
    [
        ("data.folder", "def f():\n    from frostline.features.store import FeatureStore\n", ["features.store"]),
        ("data.folder", "if TYPE_CHECKING:\n    from frostline.fitting import Event\n", ["fitting"]),
        ("data.folder", "from ..features import store", ["features.store"]),
        ("data", "from .. import pipeline", ["pipeline"]),
        ("data.folder", "importlib.import_module('frostline.run.read')", ["run.read"]),
        ("data.folder", "from frostline import ImageClassifier", ["classifier"]),
        ("data.folder", "import frostline as fl", ["frostline"]),
        ("errors", "import frostline.data.decode", ["data.decode"]),
        ("pipeline", "from frostline import cli", ["cli"]),
    ],
)
def test_a_planted_import_against_the_stream_is_found(module, planted, expected):
    assert against_the_stream(module, planted, set(MODULES)) == expected


@pytest.mark.parametrize(
    ("module", "text"),
    [
        ("cli.train", "from frostline import pipeline"),
        ("run.environment", "from frostline import __version__"),
        ("_device", "from frostline.errors import DeviceError"),
        ("heads", "from .mlp import MLPHead"),
        ("heads.mlp", "from . import contract"),
        ("data.folder", "import torch, json"),
    ],
)
def test_an_import_with_the_stream_is_allowed(module, text):
    assert against_the_stream(module, text, set(MODULES)) == []


def test_a_module_that_nobody_placed_is_found():
    assert unplaced({"errors", "data.folder"}) == set()
    assert unplaced({"pages.app", "_shapes"}) == {"pages", "_shapes"}


def test_no_modules_import_each_other():
    assert cycles(MODULES) == KNOWN_CYCLES


def test_a_planted_cycle_is_found():
    texts = {
        "data": "",
        "data.a": "from frostline.data.b import x",
        "data.b": "def f():\n    from frostline.data import c",
        "data.c": "if TYPE_CHECKING:\n    from .a import y",
        "data.d": "from frostline.data.a import z",
    }
    assert cycles(texts) == {frozenset({"data.a", "data.b", "data.c"})}
    assert cycles({**texts, "data.c": ""}) == set()


def test_no_module_is_named_for_nothing():
    assert named_for_nothing(set(MODULES)) == set()
    assert named_for_nothing({"data._utils", "core.a", "data.scan"}) == {"data._utils", "core.a"}


HEAVY = ("torch", "timm", "torchvision", "sklearn", "numpy", "pydantic")


def loaded_by(statement: str) -> list[str]:
    """Which of the heavy packages a fresh interpreter has loaded after a statement."""
    probe = f"import sys; {statement}; print(*[m for m in {HEAVY} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


@pytest.mark.parametrize("module", ["frostline", "frostline.cli.main"])
def test_start_up_imports_nothing_heavy(module):
    assert loaded_by(f"import {module}") == []


def test_a_heavy_import_would_be_seen():
    assert "numpy" in loaded_by("import frostline, numpy")


def test_every_public_name_is_there():
    assert all(getattr(frostline, name) is not None for name in frostline.__all__)
    assert callable(frostline.fit)
    with pytest.raises(AttributeError):
        frostline.nothing_of_the_kind  # noqa: B018
