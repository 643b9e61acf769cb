"""What begins before torch is imported."""

from __future__ import annotations

import contextlib
from pathlib import Path


def images_ahead(
    data: Path | None, val: Path | None, backbone: str | None, weights: str | None, cache: Path | None
) -> contextlib.AbstractContextManager[None]:
    """A block in which the images of a job are decoded ahead; where none are named, one that does nothing."""
    if data is None:
        return contextlib.nullcontext()
    from frostline.ahead import decoding_ahead

    return decoding_ahead(data, val, backbone, weights, cache)
