"""Images and labels: found, split, decoded."""

from frostline.data.decode import Decoded, decode
from frostline.data.manifest import ImageRecord, Manifest
from frostline.data.read import read_data, read_labelled
from frostline.data.split import ensure_splits

__all__ = ["Decoded", "ImageRecord", "Manifest", "decode", "ensure_splits", "read_data", "read_labelled"]
