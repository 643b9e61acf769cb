"""``frostline completion SHELL``, and the values that a shell completes behind a flag. Nothing heavy is imported: the shell waits."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

import typer

from frostline.errors import RecipeError

SHELLS = ("bash", "zsh", "fish")
VALUES = {
    "backbone": ("tf_efficientnet_lite0", "timm:", "torchvision:"),
    "weights": ("default", "random"),
    "unfreeze": ("none", "last:1", "last:2", "last:4", "from:", "params:", "norm", "bias", "all"),
    "head": ("linear", "linear@all", "linear@auto", "ridge", "ridge@auto", "logistic", "logistic@auto", "mlp:512", "conv:256", "attention"),
    "strategy": ("plain", "lp-ft", "gradual", "auto"),
    "augment": ("none", "light", "strong"),
    "views": ("1", "2", "4", "8", "live"),
    "class_weights": ("none", "balanced"),
    "batch_norm": ("frozen", "affine", "train"),
    "precision": ("auto", "fp32", "bf16"),
    "engine": ("auto", "plain", "eager", "openvino", "compile"),
    "storage": ("fp32", "fp16", "bf16"),
    "device": ("auto", "cpu", "cuda", "mps"),
    "export_format": ("safetensors", "torch-export", "onnx"),
    "export_preprocess": ("inside", "json"),
    "predict_format": ("table", "csv", "jsonl"),
    "shell": SHELLS,
}
"""What is offered behind each flag; where a flag takes more than these (a path, a number), they are the common ones."""


def one_of(flag: str) -> Callable[[str], list[str]]:
    """A completer of the values of a flag, by its name in :data:`VALUES`."""

    def begin_with(incomplete: str) -> list[str]:
        return [value for value in VALUES[flag] if value.startswith(incomplete)]

    return begin_with


def completion(shell: Annotated[str, typer.Argument(help="bash, zsh or fish", autocompletion=one_of("shell"))]) -> None:
    """Print the script that makes a shell complete frostline's verbs, flags and values."""
    if shell not in SHELLS:
        raise RecipeError(f"no completion is written for {shell!r}", where="SHELL", advice=f"use {', '.join(SHELLS)}")
    from typer._completion_shared import get_completion_script  # typer.completion has it too, but does not export it

    print(get_completion_script(prog_name="frostline", complete_var="_FROSTLINE_COMPLETE", shell=shell))
