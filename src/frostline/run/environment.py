"""What a run was made with."""

from __future__ import annotations

import platform
from importlib.metadata import version

import torch

from frostline import __version__

_PACKAGES = ("torch", "torchvision", "timm", "numpy", "pillow", "scikit-learn", "safetensors")


def environment(device: torch.device) -> dict[str, object]:
    """Versions, machine and threads, as plain JSON values."""
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "machine": platform.machine(),
        "threads": torch.get_num_threads(),
        "device": str(device)
        if device.type == "cpu"
        else f"{device} {torch.cuda.get_device_name(device)}"
        if device.type == "cuda"
        else str(device),
        "packages": {name: version(name) for name in _PACKAGES} | {"frostline": __version__},
    }
