"""The run directory: written once, read by everything that uses a result."""

from frostline.run.read import Run, read_run, read_summary
from frostline.run.record import RunRecord, write_run

__all__ = ["Run", "RunRecord", "read_run", "read_summary", "write_run"]
