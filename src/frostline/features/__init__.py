"""The output of the frozen prefix: computed once an image, cached on disk under a content key, verified when read."""

from frostline.features.dataset import cache_features
from frostline.features.extract import Extracted, FeatureProgress, Prefix, ensure_features
from frostline.features.images import ImageSet
from frostline.features.key import FeatureKey, feature_key, prefix_settings
from frostline.features.store import FeatureStore

__all__ = [
    "Extracted",
    "FeatureKey",
    "FeatureProgress",
    "FeatureStore",
    "ImageSet",
    "Prefix",
    "cache_features",
    "ensure_features",
    "feature_key",
    "prefix_settings",
]
