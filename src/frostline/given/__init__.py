"""Images that come from a program instead of a folder: arrays, and data sets of torch, torchvision and Hugging Face."""

from __future__ import annotations

from frostline.given.dataset import dataset_manifest
from frostline.given.pictures import Pictures, picture_files

__all__ = ["Pictures", "dataset_manifest", "picture_files"]
