"""Why a picture got its label: which pixels mattered, and which training images it is most like."""

from __future__ import annotations

from frostline.explaining.explain import explain
from frostline.explaining.explanation import Explanation
from frostline.explaining.pixels import METHODS

__all__ = ["METHODS", "Explanation", "explain"]
