"""The gate: what an export answers must be what the run answers. Nothing that fails it is kept."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass

import torch

from frostline.errors import ExportError
from frostline.export.pictures import Pictures
from frostline.run import Run

BATCH_SIZES = (1, 3, 4)
TOLERANCE = 1e-4
"""Largest difference of a logit, of the largest logit there is."""

Answer = Callable[[torch.Tensor], tuple[torch.Tensor, torch.Tensor | None]]
"""An export at work: pictures ``(N, 3, H, W)`` uint8 to logits ``(N, classes)`` and, where it gives them, probabilities."""


@dataclass(frozen=True)
class CheckedOn:
    """What was compared.

    Attributes:
        images: how many different pictures.
        batch_sizes: those that they were given in.
        pictures: which they were, in words.
    """

    images: int
    batch_sizes: tuple[int, ...]
    pictures: str

    def __str__(self) -> str:
        return f"{self.images} images in batches of {', '.join(map(str, self.batch_sizes))} ({self.pictures})"


@dataclass(frozen=True)
class Parity:
    """An export that agrees.

    Attributes:
        max_abs_difference: of any logit.
        largest_logit: in magnitude, of the run.
        checked_on: what was compared.
    """

    max_abs_difference: float
    largest_logit: float
    checked_on: CheckedOn


def check(answer: Answer, run: Run, pictures: Pictures) -> Parity:
    """Compare an export with the run's own network in float32, and its labels with what ``frostline predict`` says.

    A run in bf16 answers in bf16, an export in float32: there, labels are compared with those of the network in float32.

    Raises:
        ExportError: it fails, a logit differs by more than 1e-4 of the largest one, a label differs, or probabilities are not those of
            the logits.
        DataError: there is no picture to compare on.
    """
    device = torch.device("cpu")
    prefix = run.prefix(device)
    preprocess = run.model.opened.preprocess
    apart = largest = 0.0
    images = other_labels = 0
    met: set[int] = set()
    for chunk, different in pictures.chunks(preprocess):
        images += different
        parts = chunk.split(sizes_for(len(chunk)))
        met |= {len(part) for part in parts}
        with torch.no_grad():
            wanted = torch.cat([run.model(preprocess.normalise(p).contiguous(memory_format=torch.channels_last)) for p in parts]).double()
        answers = [_answered(answer, part) for part in parts]
        given = torch.cat([logits.double() for logits, _ in answers])
        if given.shape != wanted.shape:
            raise ExportError(f"it gives {tuple(given.shape)} for {len(chunk)} images, the run {tuple(wanted.shape)}")
        _check_probabilities(given, [p for _, p in answers if p is not None])
        apart = _larger(apart, (given - wanted).abs())
        largest = _larger(largest, wanted.abs())
        labels = wanted if run.recipe.precision == "bf16" else run.probabilities(prefix, chunk)
        other_labels += int((given.argmax(1) != labels.argmax(1)).sum())
    on = CheckedOn(images, tuple(sorted(met)), pictures.what)
    if not apart <= TOLERANCE * largest or other_labels:
        raise ExportError(
            f"it disagrees with the run on {on}: logits differ by up to {apart:.2g} where the largest is {largest:.3g}, "
            f"{other_labels} labels differ"
        )
    return Parity(apart, largest, on)


def sizes_for(count: int) -> list[int]:
    """The batch sizes over and over, until there are so many pictures.

    >>> sizes_for(10)
    [1, 3, 4, 1, 1]
    """
    sizes: list[int] = []
    for size in itertools.cycle(BATCH_SIZES):
        if sum(sizes) == count:
            return sizes
        sizes.append(min(size, count - sum(sizes)))
    return sizes


def _answered(answer: Answer, part: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
    try:
        return answer(part)
    except Exception as fault:  # each runtime has its own kinds
        said = (str(fault).strip() or type(fault).__name__).splitlines()[0][:160]
        raise ExportError(f"it fails on a batch of {len(part)} ({type(fault).__name__}: {said})", advice="try another --format") from fault


def _check_probabilities(logits: torch.Tensor, given: list[torch.Tensor]) -> None:
    if given and not float((torch.cat(given).double() - logits.softmax(1)).abs().max()) <= TOLERANCE:
        raise ExportError("its probabilities are not those of its logits")


def _larger(known: float, found: torch.Tensor) -> float:
    """The larger of the two, and NaN for good once there is one."""
    most = float(found.max())
    return most if most != most or most > known else known
