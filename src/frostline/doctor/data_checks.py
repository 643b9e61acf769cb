"""What the loader gives, and what is done with it again and again: traps 12, 22 and 25."""

from __future__ import annotations

from frostline.doctor.examination import Examination
from frostline.doctor.findings import Finding, counted, listed
from frostline.doctor.pixels import Pixels, Wanted, fault

_SHARE = 0.2
"""Frozen layers that take a smaller part of the forward pass are not worth a cache."""


def wrong_normalisation(seen: Examination) -> Finding | None:
    """Trap 12: the images do not reach the weights as those want them."""
    if seen.wanted is None or seen.pixels is None:
        return None
    found = fault(seen.pixels, seen.wanted)
    if found is None:
        return None
    return Finding(
        12,
        f"what reaches the pre-trained layers looks like: {found}; {_measured(seen.pixels)}; {_expected(seen.wanted, seen.pixels)}",
        f"normalise once, after scaling to 0..1, with mean {_row(seen.wanted.mean)} and std {_row(seen.wanted.std)}; timm: "
        "timm.data.create_transform(**timm.data.resolve_model_data_config(model)); torchvision: weights.transforms(); "
        "frostline.open_backbone(...).preprocess",
    )


def recomputed_prefix(seen: Examination) -> Finding | None:
    """Trap 22: a frozen backbone runs on the very same images in every epoch. Advice: only time is lost."""
    prefix = seen.prefix
    if prefix is None or seen.loader is None or not seen.loader.repeats or not prefix.whole:
        return None
    smaller = _elements(prefix.features) < _elements(prefix.given)
    if prefix.frozen_ms < _SHARE * prefix.forward_ms or not smaller:
        return None
    where = f"in {prefix.name}, which is" if prefix.name else "in layers that are"
    part = f"model.{prefix.name}" if prefix.name else "frozen"
    size = f"{'x'.join(map(str, prefix.features))} numbers a sample instead of {'x'.join(map(str, prefix.given))}"
    return Finding(
        22,
        f"{prefix.frozen_ms:.3g} of {prefix.forward_ms:.3g} ms of a forward pass ({counted(prefix.samples, 'sample')}) are spent {where} "
        f"frozen, and the loader gives every image the same in every epoch",
        f"run them once, in eval mode under torch.no_grad(), and train on what they give ({size}): "
        f"pairs = [({part}(x), y) for x, y in loader]; cached = TensorDataset(*map(torch.cat, zip(*pairs))); "
        "frostline train DATA --unfreeze none does so by itself",
        severity="advice",
    )


def single_last_sample(seen: Examination) -> Finding | None:
    """Trap 25: the last batch is one sample, and batch norm takes its statistics from it."""
    awake = [n.name for n in seen.norms if n.awake]
    if seen.loader is None or seen.loader.last != 1 or not awake:
        return None
    count, size = seen.loader.count, seen.loader.batch_size
    sizes = "every batch is one sample" if size == 1 else f"{count} samples in batches of {size} leave a last batch of 1 (drop_last=False)"
    return Finding(
        25,
        f"{sizes}; {counted(len(awake), 'batch-norm layer')} would take mean and variance from it: {listed(awake)}",
        "give the DataLoader drop_last=True, or a batch size that leaves no remainder of 1",
    )


def _measured(pixels: Pixels) -> str:
    low, high = min(c.low for c in pixels.channels), max(c.high for c in pixels.channels)
    return (
        f"measured on {pixels.shape[0]} images of {pixels.shape[2]}x{pixels.shape[3]}: mean {_row([c.mean for c in pixels.channels])}, "
        f"std {_row([c.std for c in pixels.channels])}, values {low:.3g} to {high:.3g}"
    )


def _expected(wanted: Wanted, pixels: Pixels) -> str:
    lows = [(0 - m) / s for m, s in zip(wanted.mean, wanted.std, strict=True)]
    highs = [(1 - m) / s for m, s in zip(wanted.mean, wanted.std, strict=True)]
    other_size = wanted.size is not None and wanted.size != pixels.shape[2:]
    size = f", images of {wanted.size[0]}x{wanted.size[1]}" if wanted.size and other_size else ""
    return (
        f"{wanted.source} wants mean {_row(wanted.mean)} and std {_row(wanted.std)}: values {min(lows):.3g} to {max(highs):.3g} with a std "
        f"of about {0.25 / wanted.std[0]:.1g}{size}"
    )


def _row(values: list[float] | tuple[float, ...]) -> str:
    return f"({', '.join(f'{v:.3g}' for v in values)})"


def _elements(shape: tuple[int, ...]) -> int:
    total = 1
    for side in shape:
        total *= side
    return total
