"""WiSE-FT (Wortsman 2022): weights between those before fine-tuning and those after it, the share chosen on validation images."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch

SHARES = tuple(i / 10 for i in range(11))


def interpolate(
    start: Mapping[str, torch.Tensor], end: Mapping[str, torch.Tensor], loss_of: Callable[[dict[str, torch.Tensor]], float]
) -> tuple[float, float, dict[str, torch.Tensor]]:
    """The best of eleven mixtures ``(1 - share) * start + share * end``.

    Args:
        start: weights and statistics before, by name.
        end: after, of the same names.
        loss_of: validation loss of a mixture.

    Returns:
        The share of ``end``, the loss and the mixture; of equal losses the one nearer to ``end``.
    """
    loss, share = min((loss_of(_mixture(start, end, share)), -share) for share in SHARES)
    return -share, loss, _mixture(start, end, -share)


def _mixture(start: Mapping[str, torch.Tensor], end: Mapping[str, torch.Tensor], share: float) -> dict[str, torch.Tensor]:
    return {n: torch.lerp(start[n], e, share) if e.is_floating_point() else e for n, e in end.items()}
