"""Images that come from a program instead of a folder: arrays, data sets of torch, torchvision and Hugging Face, tar shards."""

from __future__ import annotations

from frostline.given.dataset import dataset_manifest
from frostline.given.pictures import Pictures, picture_files
from frostline.given.shards import unpack_shards

__all__ = ["Pictures", "dataset_manifest", "picture_files", "unpack_shards"]
