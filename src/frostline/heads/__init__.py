"""What is put on top: one file a head."""

from frostline.heads.build import build_head
from frostline.heads.contract import HeadSpec, InputScale

__all__ = ["HeadSpec", "InputScale", "build_head"]
