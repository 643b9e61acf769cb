"""Training: a generator of events over cached features or images."""

from frostline.fitting.events import (
    CachePlanned,
    DepthChosen,
    EpochDone,
    Event,
    FeaturesReady,
    Finished,
    Gathered,
    PhaseDone,
    Planned,
    Resumed,
    Solved,
    StepDone,
    Stopped,
    Swept,
)
from frostline.fitting.hyper import Options
from frostline.fitting.job import fit
from frostline.fitting.phases import Phase
from frostline.fitting.prepare import Compute
from frostline.fitting.snapshot import Snapshot

__all__ = [
    "CachePlanned",
    "Compute",
    "DepthChosen",
    "EpochDone",
    "Event",
    "FeaturesReady",
    "Finished",
    "Gathered",
    "Options",
    "Phase",
    "PhaseDone",
    "Planned",
    "Resumed",
    "Snapshot",
    "Solved",
    "StepDone",
    "Stopped",
    "Swept",
    "fit",
]
