"""Completion as a real bash asks for it: the printed script is sourced, and its function fills COMPREPLY."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from typing import get_args

import pytest

from frostline import Recipe
from frostline.cli.completion import SHELLS, VALUES
from frostline.cli.predict import _FORMATS
from frostline.export import FORMATS

ASK = """
source "$COMPLETION" || exit 3
COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1))
_frostline_completion frostline
printf '%s\\n' "${COMPREPLY[@]}"
"""


@pytest.fixture(scope="module")
def environment(tmp_path_factory):
    """An environment in which ``frostline`` is a command, wherever the tests' interpreter has its scripts."""
    folder = tmp_path_factory.mktemp("bin")
    command = folder / "frostline"
    command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m frostline "$@"\n')
    command.chmod(0o755)
    environment = {**os.environ, "PATH": f"{folder}{os.pathsep}{os.environ['PATH']}", "COMPLETION": str(folder / "script")}
    with (folder / "script").open("wb") as script:
        subprocess.run(["frostline", "completion", "bash"], stdout=script, env=environment, check=True, timeout=60)
    return environment


@pytest.mark.skipif(shutil.which("bash") is None, reason="no bash")
@pytest.mark.parametrize(
    ("typed", "offered"),
    [
        (["frostline", "tr"], {"train"}),
        (["frostline", "cache", "p"], {"prune"}),
        (["frostline", "train", "--bac"], {"--backbone", "--backbone-lr"}),
        (["frostline", "train", "DATA", "--backbone", "tf"], {"tf_efficientnet_lite0"}),
        (["frostline", "train", "--head", "lin"], {"linear", "linear@all", "linear@auto"}),
        (["frostline", "train", "--strategy", ""], {"plain", "lp-ft", "gradual", "auto"}),
        (["frostline", "extract", "--engine", "o"], {"openvino"}),
        (["frostline", "export", "RUN", "--format", ""], set(FORMATS)),
        (["frostline", "predict", "RUN", "--format", "j"], {"jsonl"}),
        (["frostline", "completion", ""], set(SHELLS)),
        (["frostline", "nothing", "x"], {""}),
    ],
)
def test_bash_completes(environment, typed, offered):
    done = subprocess.run(["bash", "--norc", "-c", ASK, "bash", *typed], capture_output=True, text=True, env=environment, timeout=60)
    assert done.stderr == ""
    assert set(done.stdout.split("\n")[:-1]) == offered


def test_what_is_offered_is_what_is_taken():
    for flag in ("strategy", "augment", "class_weights", "batch_norm", "precision", "engine", "storage"):
        assert VALUES[flag] == get_args(Recipe.model_fields[flag].annotation), flag
    assert set(VALUES["export_format"]) == set(FORMATS)
    assert VALUES["predict_format"] == _FORMATS


def test_the_answer_loads_nothing_heavy(environment):
    asked = {**environment, "COMP_WORDS": "frostline train --head ", "COMP_CWORD": "3", "_FROSTLINE_COMPLETE": "complete_bash"}
    probe = (
        "import atexit, sys; atexit.register(lambda: print(*{'torch', 'numpy', 'timm'} & set(sys.modules), 'loaded')); "
        "sys.argv = ['frostline']; from frostline.cli.main import main; main()"
    )
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, env=asked, timeout=60)
    assert done.stdout.splitlines() == [*VALUES["head"], "loaded"]


@pytest.mark.parametrize("shell", SHELLS)
def test_a_script_for_every_shell(frostline, shell):
    done = frostline("completion", shell)
    assert (done.returncode, done.stderr) == (0, "")
    assert f"_FROSTLINE_COMPLETE=complete_{shell}" in done.stdout
    assert "python" not in done.stdout


def test_an_unknown_shell_is_refused(frostline):
    done = frostline("completion", "tcsh")
    assert done.returncode == 2
    assert done.stderr == "frostline: SHELL: no completion is written for 'tcsh'; use bash, zsh, fish\n"
