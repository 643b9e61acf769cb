"""A moving average of what is trained, judged and kept in its place (Polyak 1992; the warm-up is TensorFlow's)."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping

import torch


class MovingAverage:
    """Averages that follow the weights; with decay 0 there are none and every call does nothing.

    Args:
        decay: share of the old average that stays, at most; fewer while there are few steps: ``min(decay, (1 + t) / (10 + t))``.
        weights: the trained weights, and the batch-norm statistics that go with them, by name.
        state: the averages by name, filled and kept up to date here; what is in it already is gone on with.
    """

    def __init__(self, decay: float, weights: Mapping[str, torch.Tensor], state: dict[str, torch.Tensor]) -> None:
        self._decay, self._weights, self._state = decay, weights, state
        if decay and not state:
            state.update({n: p.detach().clone() for n, p in weights.items()})

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Take in the weights after ``step``, counted from 0."""
        if self._decay:
            new = 1 - min(self._decay, (1 + step) / (10 + step))
            for name, weight in self._weights.items():
                self._state[name].lerp_(weight, new)

    @contextlib.contextmanager
    def in_place(self) -> Iterator[None]:
        """Run a block with the averages in the weights' place."""
        if not self._decay:
            yield
            return
        kept = {n: p.detach().clone() for n, p in self._weights.items()}
        self._copy(self._state)
        try:
            yield
        finally:
            self._copy(kept)

    @torch.no_grad()
    def _copy(self, values: Mapping[str, torch.Tensor]) -> None:
        for name, weight in self._weights.items():
            weight.copy_(values[name])
