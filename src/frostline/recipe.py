"""Everything that defines a run, as one value that is written to ``recipe.toml`` and reads back the same."""

from __future__ import annotations

import shlex
import tomllib
from dataclasses import fields
from pathlib import Path
from typing import Literal

import tomli_w
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from frostline.data._names import shown
from frostline.errors import RecipeError
from frostline.fitting.hyper import Options


class Recipe(BaseModel):
    """The settings of ``frostline train``, by the names of its flags; None where the documented rule decides."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    data: str
    val: str | None = None
    backbone: str = "tf_efficientnet_lite0"
    weights: str = "default"
    replace_layer: str | None = None
    unfreeze: str = "none"
    head: str = "linear"
    strategy: Literal["plain", "lp-ft", "gradual", "auto"] = "plain"
    batch_norm: Literal["frozen", "affine", "train"] = "frozen"
    epochs: int | None = Field(default=None, ge=1)
    batch_size: int | None = Field(default=None, ge=1)
    lr: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    backbone_lr: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    weight_decay: float | None = Field(default=None, ge=0, allow_inf_nan=False)
    layer_decay: float = Field(default=1.0, gt=0, le=1)
    augment: Literal["none", "light", "strong"] = "none"
    views: str = "1"
    class_weights: Literal["none", "balanced"] = "none"
    label_smoothing: float = Field(default=0.0, ge=0, lt=1)
    mixup: float = Field(default=0.0, ge=0, allow_inf_nan=False)
    clip_norm: float = Field(default=0.0, ge=0, allow_inf_nan=False)
    accumulate: int = Field(default=1, ge=1)
    ema: float = Field(default=0.0, ge=0, lt=1)
    l2_sp: float = Field(default=0.0, ge=0, allow_inf_nan=False)
    wise: bool = False
    sweep: int = Field(default=0, ge=0)
    budget: str | None = None
    nested: int = Field(default=0, ge=0)
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    engine: Literal["auto", "plain", "eager", "openvino", "compile"] = "auto"
    storage: Literal["fp32", "fp16", "bf16"] = "fp32"
    device: str = "auto"
    seed: int = Field(default=0, ge=0)
    cache: bool = True

    @property
    def head_alone(self) -> bool:
        """Whether nothing but the head is trained."""
        return (self.unfreeze, self.strategy, self.batch_norm) == ("none", "plain", "frozen")

    def options(self) -> Options:
        """What is added to plain training."""
        return Options(**{f.name: getattr(self, f.name) for f in fields(Options)})

    def command(self) -> str:
        """The command line that carries it out: the flags of what is not as it is by default, safe to print and to paste."""
        default = Recipe(data=self.data).model_dump()
        flags: list[str] = []
        for name, value in self.model_dump(exclude_none=True).items():
            if name == "data" or value == default[name]:
                continue
            if name == "cache":
                flags.append("--no-cache")
            else:
                flag = f"--{name.replace('_', '-')}"
                flags += [flag] if value is True else [flag, shlex.quote(shown(value))]
        return " ".join(["frostline train", shlex.quote(shown(self.data)), *flags])

    def to_toml(self) -> str:
        """As TOML; settings that the rule decides are left out."""
        return tomli_w.dumps(self.model_dump(exclude_none=True))


def make_recipe(settings: dict[str, object]) -> Recipe:
    """Check settings and make a recipe of them.

    Raises:
        RecipeError: names every setting that is unknown or out of range, all at once.
    """
    try:
        return Recipe.model_validate(settings)
    except ValidationError as fault:
        faults = [f"--{'.'.join(str(p) for p in e['loc']).replace('_', '-')} {e['input']!r}: {e['msg'].lower()}" for e in fault.errors()]
        raise RecipeError("; ".join(faults), advice="see frostline train --help") from fault


def read_recipe(path: Path) -> Recipe:
    """Read ``recipe.toml``.

    Raises:
        RecipeError: the file is no recipe.
    """
    try:
        return make_recipe(tomllib.loads(path.read_text(encoding="utf-8")))
    except (OSError, tomllib.TOMLDecodeError, UnicodeDecodeError) as fault:
        raise RecipeError(f"cannot be read as a recipe ({fault})", where=path) from fault
