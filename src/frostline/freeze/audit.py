"""Proof, in every run, that frozen means frozen: digests before and after, of parameters *and* buffers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import nn

from frostline._digest import tensor_digest
from frostline.errors import AuditError
from frostline.freeze.plan import ResolvedPlan


@dataclass(frozen=True)
class Fingerprint:
    """SHA-256 of every frozen parameter and buffer, and of every trainable parameter, by name."""

    frozen: Mapping[str, str]
    trainable: Mapping[str, str]


@dataclass(frozen=True)
class Audit:
    """The outcome.

    Attributes:
        frozen_unchanged: no frozen parameter or buffer changed by a single bit.
        trainable_moved: every trainable parameter changed.
        changed: frozen names that changed all the same.
        still: trainable names that did not move.
    """

    frozen_unchanged: bool
    trainable_moved: bool
    changed: tuple[str, ...] = ()
    still: tuple[str, ...] = ()

    def check(self) -> None:
        """Refuse a result whose frozen layers changed.

        Raises:
            AuditError: naming the first tensors that changed.
        """
        if not self.frozen_unchanged:
            raise AuditError(
                f"{len(self.changed)} frozen tensors changed during training: {', '.join(self.changed[:4])}",
                advice="this is a bug in frostline or in a layer that writes to itself; please report it",
            )


def fingerprint(module: nn.Module, resolved: ResolvedPlan) -> Fingerprint:
    """Digest what must not change and what must."""
    tensors: dict[str, torch.Tensor] = {**dict(module.named_parameters()), **dict(module.named_buffers())}
    return Fingerprint(
        frozen={n: tensor_digest(tensors[n]) for n in (*resolved.frozen, *resolved.frozen_buffers)},
        trainable={n: tensor_digest(tensors[n]) for n in resolved.trainable},
    )


def audit(before: Fingerprint, after: Fingerprint) -> Audit:
    """Compare two fingerprints of one network."""
    changed = tuple(n for n, digest in before.frozen.items() if after.frozen[n] != digest)
    still = tuple(n for n, digest in before.trainable.items() if after.trainable[n] == digest)
    return Audit(not changed, not still, changed, still)
