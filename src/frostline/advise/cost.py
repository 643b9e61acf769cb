"""What a plan will cost on this machine: seconds, peak memory, bytes of cache.

What is counted is one ``frostline train`` of that plan, from the moment at which its libraries are there: listing the images, opening the
backbone, and for every cut an engine that is chosen and verified and one pass over the images, then training, and what follows it.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from frostline.advise.speeds import Speeds, Step, head_speed
from frostline.features.depths import ALL
from frostline.fitting.forget import FEWEST, HELD_OUT
from frostline.fitting.hyper import Hyper, default_hyper
from frostline.fitting.prepare import IN_MEMORY
from frostline.fitting.solved import FOLDS, work_of
from frostline.heads import HeadSpec

UNSURE = 0.25
"""Share by which a plan may be quicker or slower than what a few timed batches say (docs/LOG.md, 2026-11-27)."""
AROUND = 0.3
"""Seconds of proofs, records and files that every run has, whatever is trained: 0.25 to 0.35 on two cores (docs/LOG.md, 2026-11-27)."""


@dataclass(frozen=True)
class Images:
    """How many images there are.

    Attributes:
        train: to train on.
        val: to judge by.
        test: of the test.
    """

    train: int
    val: int
    test: int = 0


@dataclass(frozen=True)
class Cost:
    """What a plan costs.

    Attributes:
        seconds: all epochs; importing the libraries is not counted.
        interval: least (training stops as soon as its patience allows) and most.
        peak_memory: bytes, of the whole process.
        cache: bytes of features on disk.
    """

    seconds: float
    interval: tuple[float, float]
    peak_memory: int
    cache: int


def head_seconds(spec: HeadSpec, width: int, classes: int, images: Images, speeds: Speeds, device: torch.device) -> tuple[float, float]:
    """Seconds that a head takes on features that are there: least, where training stops as soon as its patience allows, and most.

    Args:
        spec: a linear head, or one that is solved.
        width: features that it is put on.
        classes: number of classes.
        images: to train on, and to judge by.
        speeds: of the machine.
        device: where a linear head is trained.
    """
    everywhere = spec.at == ALL
    first = speeds.weighing if everywhere else 0.0
    if spec.solved:
        seconds = first + work_of(spec, images.train, width, classes, FOLDS) / speeds.solving
        return seconds, seconds
    hyper = default_hyper(images=images.train, head="linear", backbone_trained=False, all_depths=everywhere)
    epoch = (images.train + images.val) * head_speed(width, classes, device, hyper.batch_size)
    return first + _fewest(hyper) * epoch, first + hyper.epochs * epoch


def cost_of(step: Step, speeds: Speeds, images: Images, width: int, resident: int, head: tuple[float, float], *, probe: bool) -> Cost:
    """Count what a plan costs.

    Args:
        step: measured under it.
        speeds: of the machine.
        images: how many there are.
        width: features that the head is put on.
        resident: bytes of this process before any training.
        head: seconds of the head by itself: see :func:`head_seconds`.
        probe: whether the head is trained on the whole, frozen backbone before anything else is (lp-ft).
    """
    pictures = images.train + images.val
    cache = pictures * 4 * width
    frozen = speeds.passing(pictures)
    if step.frozen:
        tested = images.test * (1 / speeds.decode + 1 / speeds.engine)
        most = speeds.opening + AROUND + frozen + head[1] + tested
        return Cost(most, _unsure(most - head[1] + head[0], most), resident + cache, cache)
    hyper = default_hyper(images=images.train, head="linear", backbone_trained=True)
    steps = -(-images.train // hyper.batch_size)
    epoch = images.train * step.seconds + images.val * step.forward + steps * step.update
    once = speeds.opening + AROUND + step.splitting + _afterwards(step, speeds, images)
    if step.crossing:
        once += speeds.passing(pictures, step.before)
    else:
        epoch += pictures / speeds.decode
    low, high = (frozen + head[0], frozen + head[1]) if probe else (0.0, 0.0)
    memory = resident + step.saved * hyper.batch_size + 24 * step.trained + min(pictures * step.crossing, IN_MEMORY)
    most = once + high + hyper.epochs * epoch
    interval = _unsure(once + low + _fewest(hyper) * epoch, most)
    return Cost(most, interval, memory, pictures * step.crossing + (cache if probe else 0))


def _afterwards(step: Step, speeds: Speeds, images: Images) -> float:
    """Seconds of what follows training: all images judged, what was forgotten measured, the test run through the new backbone."""
    pictures = images.train + images.val
    compared = min(HELD_OUT, images.val if images.val >= FEWEST else pictures)
    looked = pictures * (step.forward + (0.0 if step.crossing else 1 / speeds.decode))
    forgotten = compared * (1 / speeds.decode + 2 * speeds.module)
    return looked + forgotten + images.test * (1 / speeds.decode + speeds.module)  # an engine for one run alone would not pay


def _unsure(low: float, high: float) -> tuple[float, float]:
    """The range of seconds from the fewest epochs to all of them, wider by what a few timed batches leave open."""
    return low * (1 - UNSURE), high * (1 + UNSURE)


def _fewest(hyper: Hyper) -> int:
    """Epochs after which training stops where the first one was the best."""
    return min(hyper.epochs, 1 + hyper.patience)
