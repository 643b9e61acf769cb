"""What is put on top: one file a head."""

from frostline.heads.build import build_head
from frostline.heads.contract import FeatureShape, HeadSpec, InputScale

__all__ = ["FeatureShape", "HeadSpec", "InputScale", "build_head"]
