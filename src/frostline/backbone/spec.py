"""How a backbone is named: ``tf_efficientnet_lite0``, ``timm:resnet18``, ``torchvision:resnet18``, ``hf:NAME`` or ``module:attr``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from frostline.errors import BackboneError


@dataclass(frozen=True)
class BackboneSpec:
    """Which library a backbone comes from, and its name there.

    >>> BackboneSpec.parse("resnet18")
    BackboneSpec(family='timm', name='resnet18')
    >>> BackboneSpec.parse("torchvision:resnet18")
    BackboneSpec(family='torchvision', name='resnet18')
    >>> BackboneSpec.parse("my_nets.small:build")
    BackboneSpec(family='own', name='my_nets.small:build')
    """

    family: Literal["timm", "torchvision", "hf", "own"]
    name: str

    @staticmethod
    def parse(text: str) -> BackboneSpec:
        """Read a name as given on the command line.

        Raises:
            BackboneError: the name is empty or half empty.
        """
        family, colon, name = text.strip().partition(":")
        if not family or (colon and not name):
            raise BackboneError(
                f"{text!r} names no backbone",
                where="--backbone",
                advice="use NAME, timm:NAME, torchvision:NAME, hf:NAME or module:attr",
            )
        if not colon:
            return BackboneSpec("timm", family)
        if family == "timm":
            return BackboneSpec("timm", name)
        if family == "torchvision":
            return BackboneSpec("torchvision", name)
        if family == "hf":
            return BackboneSpec("hf", name)
        return BackboneSpec("own", text.strip())

    def __str__(self) -> str:
        return self.name if self.family == "own" else f"{self.family}:{self.name}"
