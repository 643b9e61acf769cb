"""Explain the answers of a run, picture by picture."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from torch import nn

from frostline.data.decode import read_image_bytes
from frostline.errors import DecodeError, RecipeError, near_names
from frostline.explaining.explanation import Explanation
from frostline.explaining.pixels import PixelHeat
from frostline.explaining.similar import SimilarImages
from frostline.features.pixels import pixels_of
from frostline.run import Run
from frostline.use import Labeller


def explain(
    run: Run, paths: Iterable[str | Path], *, method: str = "gradcam", label: str | None = None, device: str = "auto"
) -> Iterator[Explanation | DecodeError]:
    """Say of each picture which pixels spoke for a class, and which training images it is most like.

    Args:
        run: a finished run, from :func:`frostline.read_run`.
        paths: image files.
        method: ``gradcam``, ``cam``, ``integrated-gradients`` or ``occlusion``: see :class:`frostline.explaining.pixels.PixelHeat`.
        label: the class to explain; None explains the answer.
        device: where the network runs.

    Yields:
        One explanation a picture, in their order; the error where a file is no image.

    Raises:
        RecipeError: no such method or class.
        ExtraError: captum is not installed.
        BackboneError: the method does not fit the network.
    """
    if label is not None and label not in run.classes:
        near = near_names(label, run.classes)
        raise RecipeError(f"{label!r} is no class of this run", where="--class", advice=near or f"use {', '.join(run.classes[:10])}")
    labeller = Labeller(run, device)
    heat, similar = PixelHeat(run, method, labeller.prefix.device), SimilarImages(labeller)
    return (_explained(labeller, heat, similar, Path(path), method, label) for path in paths)


def _explained(
    labeller: Labeller, heat: PixelHeat, similar: SimilarImages, path: Path, method: str, label: str | None
) -> Explanation | DecodeError:
    try:
        pixels = pixels_of(read_image_bytes(path), labeller.prefix.preprocess)
    except DecodeError as fault:
        return fault
    if isinstance(pixels, DecodeError):
        return pixels.at(path)
    (answer,) = labeller.answers([path], [pixels])
    assert answer.label is not None
    of = label or answer.label
    images = labeller.prefix.preprocess.normalise(pixels[None].to(labeller.prefix.device))
    shares = heat(images, labeller.run.classes.index(of))
    whole = nn.functional.interpolate(shares[None, None], size=tuple(pixels.shape[1:]), mode="bilinear", align_corners=False)
    seen = pixels.permute(1, 2, 0).contiguous().numpy()
    return Explanation(path, answer.label, answer.probabilities, of, method, seen, whole[0, 0].numpy(), tuple(similar.to(pixels)))
