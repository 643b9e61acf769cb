"""One page that says what a run is worth, what was frozen, where it errs and how to use it."""

from frostline.report.contents import Report
from frostline.report.write import Written, epochs_of, examine, write_report

__all__ = ["Report", "Written", "epochs_of", "examine", "write_report"]
