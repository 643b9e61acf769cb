"""What a person should know about labelled images before training on them, read from the features that training uses anyway."""

from frostline.quality.examination import examine
from frostline.quality.findings import DataQuality

__all__ = ["DataQuality", "examine"]
