"""Imports run one way: a room imports only from rooms before it; no cycles; nothing heavy at start-up."""

from __future__ import annotations

import ast
import subprocess
import sys

import pytest

import frostline
from sources import MODULES

LEAFS = ("errors", "_digest", "_atomic", "_rng", "_device")
ROOMS = (
    "data",
    "backbone",
    "freeze",
    "features",
    "heads",
    "model",
    "fitting",
    "recipe",
    "run",
    "pipeline",
    "classifier",
    "demo",
    "cli",
    "__main__",
)
ORDER = {name: (0 if name in LEAFS else 1 + ROOMS.index(name)) for name in (*LEAFS, *ROOMS)}
SAYS_NOTHING = {"utils", "helpers", "common", "misc", "base", "manager", "core"}


def imported(text: str, known: set[str]) -> set[str]:
    """Names of frostline's modules that a source text imports, wherever in it."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(text)):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [a.name for a in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = [f"{node.module}.{a.name}" for a in node.names] + [node.module]
        for name in names:
            if name.startswith("frostline."):
                inner = name.removeprefix("frostline.")
                while inner and inner not in known:
                    inner = inner.rpartition(".")[0]
                found.add(inner)
    return found - {""}


def against_the_stream(name: str, text: str, known: set[str]) -> list[str]:
    room = name.partition(".")[0]
    return [
        other
        for other in imported(text, known)
        if (other.partition(".")[0] != room
        and ORDER[other.partition(".")[0]] >= ORDER[room] > 0)
        or (ORDER[room] == 0
        and ORDER[other.partition(".")[0]] > 0)
    ]


@pytest.mark.parametrize("name", sorted(MODULES))
def test_a_room_imports_only_from_rooms_before_it(name):
    assert name.partition(".")[0] in ORDER, f"{name}: place the new room in the order of rooms"
    assert against_the_stream(name, MODULES[name], set(MODULES)) == []


def test_a_planted_import_against_the_stream_is_found():
    known = set(MODULES)
    assert against_the_stream("data.folder", "def f():\n    from frostline.features.store import FeatureStore\n", known) == [
        "features.store"
    ]
    assert against_the_stream("errors", "import frostline.data.decode", known) == ["data.decode"]
    assert against_the_stream("cli.train", "from frostline import pipeline", known) == []


def test_no_two_modules_import_each_other():
    graph = {name: imported(text, set(MODULES)) - {name} for name, text in MODULES.items()}

    def reaches(start: str) -> set[str]:
        seen: set[str] = set()
        todo = list(graph[start])
        while todo:
            name = todo.pop()
            if name not in seen:
                seen.add(name)
                todo.extend(graph[name])
        return seen

    lazily = {"cli.main", "freeze.plan"}  # a verb asks main for the time, a plan its table to describe itself: inside functions
    assert [name for name in graph if name in reaches(name) and not any(name.startswith(x) for x in ("cli.", "freeze."))] == []
    assert {n for n in graph if n.startswith("freeze.") and n in reaches(n)} <= {"freeze.plan", "freeze.table", "freeze.cut"}
    assert lazily <= set(graph)


def test_no_module_is_named_for_nothing():
    assert not [n for n in MODULES if n.rpartition(".")[2] in SAYS_NOTHING]


@pytest.mark.parametrize("what", ["frostline", "frostline.cli.main"])
def test_start_up_imports_nothing_heavy(what):
    probe = f"import sys, {what}; print([m for m in ('torch', 'timm', 'torchvision', 'sklearn', 'numpy', 'pydantic') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stderr


def test_every_public_name_is_there():
    assert all(getattr(frostline, name) is not None for name in frostline.__all__)
    assert callable(frostline.fit)
    with pytest.raises(AttributeError):
        frostline.nothing_of_the_kind  # noqa: B018
