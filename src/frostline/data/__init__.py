"""From folders and tables to labelled images, their splits and their pixels."""

from frostline.data.decode import Decoded, decode, read_image_bytes
from frostline.data.folder import read_folder, read_labelled_folder
from frostline.data.manifest import ImageRecord, Manifest
from frostline.data.read import read_data, read_labelled
from frostline.data.split import duplicates_across, ensure_splits
from frostline.data.table import read_labelled_table, read_table

__all__ = [
    "Decoded",
    "ImageRecord",
    "Manifest",
    "decode",
    "duplicates_across",
    "ensure_splits",
    "read_data",
    "read_folder",
    "read_image_bytes",
    "read_labelled",
    "read_labelled_folder",
    "read_labelled_table",
    "read_table",
]
