"""Calibration: one temperature, fitted on held-out images, that makes stated probabilities come true (Guo 2017).

It is folded into the last layer of the head, so that every use of the model gets calibrated probabilities and no use has to know of
it. Labels do not change.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import nn

from frostline.fitting.events import Finished
from frostline.fitting.folds import stratified_folds
from frostline.fitting.metrics import Scores, score

FEWEST = 20
"""Validation images below which a temperature is guesswork, and none is fitted."""
FOLDS = 5
RANGE = (0.05, 20.0)


@dataclass(frozen=True)
class Calibration:
    """What a temperature did.

    Attributes:
        temperature: logits are divided by it; 1 where no other does better on images that it was not fitted on.
        n: validation images that it was fitted on.
        log_loss_before: of the validation images without it, in nats.
        log_loss_after: with it; each image's temperature is fitted on the other folds.
        error_before: expected calibration error of the validation images without it.
        error_after: with it, likewise.
    """

    temperature: float
    n: int
    log_loss_before: float
    log_loss_after: float
    error_before: float
    error_after: float


def fit_temperature(logits: torch.Tensor, labels: torch.Tensor) -> float:
    """The temperature with the lowest log loss.

    The loss is convex in its inverse; its zero is found by halving. Targets are smoothed by ``1 / (N + 2)`` (as Platt 1999 does), so that a
    few images that are all right do not ask for certainty.

    Args:
        logits: ``(N, classes)`` of images that training did not see.
        labels: ``(N,)``.
    """
    z = logits.double()
    classes = z.shape[1]
    smooth = 1 / (len(z) + 2)
    targets = (1 - smooth) * nn.functional.one_hot(labels, classes).double() + smooth / classes
    wanted = float((targets * z).sum())
    low, high = 1 / RANGE[1], 1 / RANGE[0]
    for _ in range(60):
        middle = (low * high) ** 0.5
        rising = float(((z * middle).softmax(1) * z).sum()) > wanted
        low, high = (low, middle) if rising else (middle, high)
    return 1 / (low * high) ** 0.5


def calibrated(head: nn.Module, finished: Finished, seed: int) -> tuple[Finished, Calibration | None]:
    """Fit a temperature on the validation images and fold it into the head.

    Args:
        head: its ``linear`` layer, the last one, is scaled in place.
        finished: of the training.
        seed: of the folds.

    Returns:
        The same with calibrated logits (of validation images each by the temperature of the other folds), and what was done; None
        where there are too few images.
    """
    logits, labels = finished.val_logits, finished.val_labels
    last = getattr(head, "linear", None)
    if logits is None or labels is None or len(labels) < FEWEST or not isinstance(last, nn.Linear):
        return finished, None
    crossed = torch.empty_like(logits)
    lone = bool((torch.bincount(labels) == 1).any())  # such a class cannot be in two folds: one number can do without shares of classes
    for fold in stratified_folds(torch.zeros_like(labels) if lone else labels, FOLDS, seed):
        crossed[fold.held] = logits[fold.held] / fit_temperature(logits[fold.train], labels[fold.train])
    before, after = score(logits, labels), score(crossed, labels)
    if after.log_loss >= before.log_loss:
        return finished, Calibration(1.0, len(labels), *_errors(before, before))
    temperature = fit_temperature(logits, labels)
    with torch.no_grad():
        for parameter in last.parameters():
            parameter.div_(temperature)
    told = replace(finished, train_logits=finished.train_logits / temperature, val_logits=crossed)
    return told, Calibration(temperature, len(labels), *_errors(before, after))


def _errors(before: Scores, after: Scores) -> tuple[float, float, float, float]:
    return before.log_loss, after.log_loss, before.calibration_error, after.calibration_error
