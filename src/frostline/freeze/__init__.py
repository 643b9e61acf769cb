"""What is frozen: selectors, the plan, its application, the cut and the proof."""

from frostline.freeze.audit import Audit, audit, fingerprint
from frostline.freeze.cut import Cut, Split, split
from frostline.freeze.plan import FreezePlan, ResolvedPlan

__all__ = ["Audit", "Cut", "FreezePlan", "ResolvedPlan", "Split", "audit", "fingerprint", "split"]
