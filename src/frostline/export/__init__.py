"""Export a finished run for other tools; one that disagrees with the run is not written."""

from frostline.export.write import FORMATS, Exported, export

__all__ = ["FORMATS", "Exported", "export"]
