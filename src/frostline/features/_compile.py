"""Run a prefix with ``torch.compile``."""

from __future__ import annotations

from typing import cast

import torch
from torch import nn

from frostline.features.engine import Run, plain


def compiled(body: nn.Module, precision: str) -> Run:
    """A prefix that is compiled when it is first run, for the one batch shape there is; raises whatever torch's compiler raises, then."""
    return plain(cast("nn.Module", torch.compile(body, dynamic=False)), precision).run
