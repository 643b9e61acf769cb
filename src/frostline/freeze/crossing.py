"""What crosses a cut: one or more tensors an image, packed into one row of float32 so that any store can keep them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Crossing:
    """One tensor that crosses.

    Attributes:
        shape: of one image, without the batch dimension.
        channels_last: whether ``(C, H, W)`` lies in memory as ``(H, W, C)``; kept, for convolutions round by layout.
    """

    shape: tuple[int, ...]
    channels_last: bool = False

    @property
    def size(self) -> int:
        """Number of values an image."""
        return math.prod(self.shape)


@dataclass(frozen=True)
class Layout:
    """All tensors that cross, in order.

    Attributes:
        parts: the tensors.
    """

    parts: tuple[Crossing, ...]

    @staticmethod
    def of(tensors: Sequence[torch.Tensor]) -> Layout:
        """The layout of a batch of ``(N, ...)`` tensors.

        >>> Layout.of([torch.zeros(2, 3, 4, 4)]).size
        48
        """
        return Layout(tuple(Crossing(tuple(t.shape[1:]), is_channels_last(t)) for t in tensors))

    @property
    def size(self) -> int:
        """Number of values an image."""
        return sum(part.size for part in self.parts)

    @property
    def bytes(self) -> int:
        """Bytes an image, in float32."""
        return 4 * self.size

    def pack(self, tensors: Sequence[torch.Tensor]) -> torch.Tensor:
        """``(N, ...)`` tensors to rows ``(N, size)`` float32."""
        rows = [
            (t.permute(0, 2, 3, 1) if part.channels_last else t).reshape(len(t), part.size)
            for t, part in zip(tensors, self.parts, strict=True)
        ]
        return (rows[0] if len(rows) == 1 else torch.cat(rows, 1)).to(torch.float32)

    def unpack(self, rows: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """The reverse of :meth:`pack`: views of ``rows`` where there is one tensor, copies where there are more."""
        several = len(self.parts) > 1
        found: list[torch.Tensor] = []
        for part, columns in zip(self.parts, rows.split([part.size for part in self.parts], 1), strict=True):
            if part.channels_last:
                channels, height, width = part.shape
                tensor = columns.reshape(len(rows), height, width, channels).permute(0, 3, 1, 2)
            else:
                tensor = columns.reshape(len(rows), *part.shape)
            found.append(tensor.clone() if several and tensor.data_ptr() == columns.data_ptr() else tensor)
        return tuple(found)


def is_channels_last(tensor: torch.Tensor) -> bool:
    """Whether a ``(N, C, H, W)`` tensor lies in memory as ``(N, H, W, C)``; of one pixel, which lies both ways, the strides tell."""
    if tensor.ndim != 4 or not tensor.is_contiguous(memory_format=torch.channels_last):
        return False
    channels, _, width = tensor.shape[1:]
    return not tensor.is_contiguous() or (channels > 1 and tensor.stride()[1:] == (1, width * channels, channels))
