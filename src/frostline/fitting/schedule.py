"""The learning rate over time, as a pure function of the step."""

from __future__ import annotations

import math


def warmup_cosine(step: int, total: int, warmup_fraction: float) -> float:
    """Factor on the peak learning rate: linear up over the warm-up, then half a cosine down to 0 (Loshchilov 2017).

    >>> [round(warmup_cosine(s, 10, 0.2), 2) for s in (0, 1, 2, 6, 9)]
    [0.5, 1.0, 1.0, 0.5, 0.04]
    """
    warmup = math.ceil(total * warmup_fraction)
    if step < warmup:
        return (step + 1) / warmup
    return 0.5 * (1.0 + math.cos(math.pi * (step - warmup) / max(1, total - warmup)))
