"""Pre-trained networks: named, loaded strictly, with the preprocessing that belongs to their weights."""

from frostline.backbone.network import Backbone
from frostline.backbone.open import open_backbone
from frostline.backbone.preprocess import Preprocess

__all__ = ["Backbone", "Preprocess", "open_backbone"]
