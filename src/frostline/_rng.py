"""The only place where frostline draws random numbers: every stream is a function of (seed, purpose, index).

Nothing reads or writes torch's global generator for its own draws; layers that draw by themselves (dropout) run under
:func:`seeded`, which gives the global state back afterwards.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator

import numpy as np
import torch


def stream(seed: int, purpose: str, index: int = 0) -> torch.Generator:
    """A CPU generator that depends on nothing but its arguments."""
    digest = hashlib.sha256(f"{seed}/{purpose}/{index}".encode()).digest()
    generator = torch.Generator()
    generator.manual_seed(int.from_bytes(digest[:8], "little") >> 1)
    return generator


def permutation(count: int, seed: int, epoch: int, phase: int = 0) -> torch.Tensor:
    """The order of ``count`` images in ``epoch`` of ``phase``: ``(count,)`` int64."""
    return torch.randperm(count, generator=stream(seed, "order" if not phase else f"order {phase}", epoch))


def beta(parameter: float, seed: int, purpose: str, index: int = 0) -> float:
    """One draw from the symmetric Beta distribution, between 0 and 1."""
    first = stream(seed, purpose, index).initial_seed()
    return float(np.random.default_rng(first).beta(parameter, parameter))


@contextlib.contextmanager
def seeded(seed: int, purpose: str, index: int = 0) -> Iterator[None]:
    """Run a block with torch's global generators seeded, and restore them afterwards."""
    first = stream(seed, purpose, index).initial_seed()
    accelerated = torch.cuda.is_available() or torch.backends.mps.is_available()
    with torch.random.fork_rng(devices=range(torch.cuda.device_count()) if accelerated else ()):
        # Without an accelerator the CPU's generator is all there is; seeding all of them takes a stack trace for each that is not there.
        (torch.random if accelerated else torch.default_generator).manual_seed(first)
        yield
