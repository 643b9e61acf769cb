"""Training: a generator of events over cached features or images."""

from frostline.fitting.events import EpochDone, Event, FeaturesReady, Finished, Planned, Stopped
from frostline.fitting.job import Compute, fit

__all__ = ["Compute", "EpochDone", "Event", "FeaturesReady", "Finished", "Planned", "Stopped", "fit"]
