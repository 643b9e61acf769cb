"""The classic transfer-learning mistakes, found in a training script or a run, each with its evidence and cure."""

from frostline.doctor.diagnose import examine
from frostline.doctor.findings import TRAPS, Diagnosis, Finding
from frostline.doctor.subject import ScriptError

__all__ = ["TRAPS", "Diagnosis", "Finding", "ScriptError", "examine"]
