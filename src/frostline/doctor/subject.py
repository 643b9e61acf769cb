"""Load ``script.py:build`` and check what the function hands back."""

from __future__ import annotations

import ast
import contextlib
import importlib.util
import inspect
import sys
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, cast

from torch import nn
from torch.nn.parameter import is_lazy
from torch.optim import Optimizer

from frostline._digest import bytes_digest
from frostline.errors import FrostlineError, near_names

_WANTED = "a function without arguments that returns (model, optimizer) or (model, optimizer, loader)"


class ScriptError(FrostlineError):
    """The script cannot be loaded, or what it builds cannot be examined."""


class NothingToTrainError(ScriptError):
    """The script itself found out that no parameter is left to train."""


@dataclass(frozen=True, eq=False)
class Subject:
    """What a training script works with.

    Attributes:
        name: ``script.py:build``, as it was asked for.
        model: the network.
        optimizer: what steps it.
        loader: its batches, or None where the script gave none.
    """

    name: str
    model: nn.Module
    optimizer: Optimizer
    loader: Iterable[object] | None = None


def split_target(target: str) -> tuple[Path, str]:
    """``script.py:build`` to the script and the function; without a colon the function is ``build``."""
    place, colon, function = target.rpartition(":")
    if colon and (function.isidentifier() or not function) and place:
        return Path(place), function or "build"
    return Path(target), "build"


@contextlib.contextmanager
def loaded(script: Path, function: str) -> Iterator[Subject]:
    """Import the script, call the function, and hand out what it built.

    While the block runs the script's folder is on the import path and ``sys.argv`` names the script alone, so that what it
    imports late still works; both are put back.

    Raises:
        ScriptError: no such script or function, it raises, or it returns something else.
        NothingToTrainError: building the optimizer failed because no parameter is left to train.
    """
    if not script.is_file():
        raise ScriptError(
            "no such script or run directory",
            where=script,
            advice=_near_files(script) or "give script.py:FUNCTION, or the folder that frostline train wrote",
        )
    if script.suffix != ".py":
        raise ScriptError("is no Python script", where=script, advice="give script.py:FUNCTION, or the folder that frostline train wrote")
    before, arguments = list(sys.path), list(sys.argv)
    sys.path.insert(0, str(script.resolve().parent))
    sys.argv[:] = [str(script)]
    module = _named(script)
    sys.modules[module.__name__] = module
    try:
        _run(module, script)
        yield _checked(_build(module, script, function), f"{script}:{function}")
    finally:
        sys.path[:], sys.argv[:] = before, arguments
        sys.modules.pop(module.__name__, None)


def _named(script: Path) -> ModuleType:
    """An empty module for the script, under its own name where that is free: a loader's worker processes find its classes by it."""
    stem = script.stem
    free = stem.isidentifier() and not _taken(stem)
    spec = importlib.util.spec_from_file_location(stem if free else f"frostline_doctor_{bytes_digest(str(script).encode())[:12]}", script)
    if spec is None:
        raise ScriptError("cannot be imported", where=script)
    return importlib.util.module_from_spec(spec)


def _run(module: ModuleType, script: Path) -> None:
    try:
        cast("Any", module.__spec__).loader.exec_module(module)
    except Exception as fault:
        raise ScriptError(f"importing it raises {told(fault, script)}", where=script, advice="make it run by itself first") from fault


def _taken(name: str) -> bool:
    return name in sys.modules or name in sys.stdlib_module_names


def _build(module: ModuleType, script: Path, function: str) -> object:
    build: object = vars(module).get(function)
    if not callable(build):
        own = [n.name for n in ast.parse(script.read_bytes()).body if isinstance(n, ast.FunctionDef)]
        has = f"it defines {', '.join(own[:6])}" if own else "it defines no function"
        raise ScriptError(
            f"has no function {function!r}" if build is None else f"{function!r} is a {type(build).__name__}, not a function",
            where=script,
            advice=near_names(function, own) or f"{has}; add {_WANTED}",
        )
    where = f"{script}:{function}"
    required = _required(build)
    if required:
        raise ScriptError(f"wants arguments ({', '.join(required)})", where=where, advice=f"give {_WANTED}")
    try:
        return cast("Callable[[], object]", build)()
    except ValueError as fault:
        if "empty parameter list" in str(fault):
            raise NothingToTrainError(f"raises {told(fault, script)}", where=where) from fault
        raise ScriptError(f"raises {told(fault, script)}", where=where, advice="make it run by itself first") from fault
    except Exception as fault:
        raise ScriptError(f"raises {told(fault, script)}", where=where, advice="make it run by itself first") from fault


def _required(build: Callable[..., object]) -> list[str]:
    try:
        parameters = inspect.signature(build).parameters.values()
    except (TypeError, ValueError):  # a built-in that tells nothing about itself
        return []
    return [p.name for p in parameters if p.default is p.empty and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]


def _checked(made: object, name: str) -> Subject:
    if not isinstance(made, tuple | list) or len(cast("Sequence[object]", made)) not in (2, 3):
        size = f" of {len(cast('Sequence[object]', made))}" if isinstance(made, tuple | list) else ""
        raise ScriptError(
            f"returns a {type(made).__name__}{size}", where=name, advice="return (model, optimizer) or (model, optimizer, loader)"
        )
    parts = list(cast("Sequence[object]", made))
    model, optimizer, loader = parts[0], parts[1], parts[2] if len(parts) == 3 else None
    if not isinstance(model, nn.Module):
        raise ScriptError(f"returns a {type(model).__name__} as the model, not an nn.Module", where=name, advice="return the model first")
    if any(is_lazy(p) for p in model.parameters()):
        raise ScriptError(
            "returns a model with lazy layers that have no size yet", where=name, advice="run it on a batch once before returning it"
        )
    if not isinstance(optimizer, Optimizer):
        raise ScriptError(
            f"returns a {type(optimizer).__name__} as the optimizer, not a torch.optim.Optimizer",
            where=name,
            advice="return the optimizer second",
        )
    if loader is not None and not isinstance(loader, Iterable):
        raise ScriptError(
            f"returns a {type(loader).__name__} as the loader, which cannot be iterated",
            where=name,
            advice="return a DataLoader third, or nothing",
        )
    return Subject(name, model, optimizer, cast("Iterable[object] | None", loader))


def told(fault: BaseException, script: Path | None = None) -> str:
    """``ValueError: ... (line 12)``: an exception in a line, with the last line of the script that it came through."""
    text = " ".join(str(fault).split())
    line = ""
    if isinstance(fault, SyntaxError):
        text, line = fault.msg, f" (line {fault.lineno})"
    elif script is not None:
        lines = [f.lineno for f in traceback.extract_tb(fault.__traceback__) if Path(f.filename).resolve() == script.resolve()]
        line = f" (line {lines[-1]})" if lines else ""
    return f"{type(fault).__name__}: {text[:200]}{line}" if text else f"{type(fault).__name__}{line}"


def _near_files(script: Path) -> str | None:
    folder = script.parent
    return near_names(script.name, [p.name for p in folder.iterdir()]) if folder.is_dir() else None
