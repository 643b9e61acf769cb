"""SHA-256 digests of files, tensors and settings: frostline's only notion of "the same"."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def bytes_digest(data: bytes) -> str:
    """SHA-256 of ``data`` as 64 hexadecimal digits.

    >>> bytes_digest(b"")[:8]
    'e3b0c442'
    """
    return hashlib.sha256(data).hexdigest()


def file_digest(path: Path) -> str:
    """SHA-256 of a file's content.

    Raises:
        OSError: the file cannot be read.
    """
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def settings_digest(settings: Mapping[str, object]) -> str:
    """SHA-256 of a mapping of plain JSON values, whatever the order of its keys.

    Raises:
        TypeError: a value is not plain JSON (what cannot be digested is refused, never given a random key).
    """
    return bytes_digest(json.dumps(settings, sort_keys=True, separators=(",", ":"), allow_nan=False).encode())


def tensors_digest(tensors: Mapping[str, torch.Tensor]) -> str:
    """SHA-256 over names, dtypes, shapes and bytes of tensors, in the order of their names."""
    total = hashlib.sha256()
    for name in sorted(tensors):
        total.update(f"{name}:{tensor_digest(tensors[name])};".encode())
    return total.hexdigest()


def tensor_digest(tensor: torch.Tensor) -> str:
    """SHA-256 of one tensor's dtype, shape and bytes (of the values, whatever the strides and the device)."""
    import torch

    plain = tensor.detach().cpu().contiguous()
    digest = hashlib.sha256(f"{plain.dtype}{tuple(plain.shape)}".encode())
    digest.update(plain.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
