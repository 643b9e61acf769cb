"""One page that says what a run is worth, what was frozen, where it errs and how to use it."""

from frostline.report.write import Written, write_report

__all__ = ["Written", "write_report"]
