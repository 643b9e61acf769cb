"""The way of a sweep, and of a solved head, through a job: what they cannot go with is refused, and what they choose is set."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass, fields, replace

import torch

from frostline.errors import RecipeError
from frostline.features.depths import ALL, END
from frostline.features.extract import FeatureProgress
from frostline.fitting.candidates import SteppedHead
from frostline.fitting.depth import Places
from frostline.fitting.events import CachePlanned, DepthChosen, FeaturesReady, Swept
from frostline.fitting.hyper import Options, default_hyper, override
from frostline.fitting.phase import Given, Ready
from frostline.fitting.phases import Phase
from frostline.fitting.prepare import Compute, Labelled, prefix_of, prepare
from frostline.fitting.sources import FeatureRows
from frostline.fitting.sweep import sweep
from frostline.fitting.weigh import weighed
from frostline.freeze.cut import split_resolved
from frostline.freeze.select import Nothing, parse_selector
from frostline.heads import HeadSpec
from frostline.heads.contract import AUTO
from frostline.model import TransferModel


@dataclass(frozen=True)
class _Faults:
    """Flags that were given and cannot be, told in one line."""

    what: str
    flags: tuple[str, ...]
    why: str

    def check(self) -> None:
        if self.flags:
            raise RecipeError(f"{self.what} {self.why}", where=", ".join(self.flags), advice="leave out the one or the other")


def check_choice(head: HeadSpec, count: int, phases: Sequence[Phase], given: Given, compute: Compute) -> None:
    """Refuse what a sweep or a solved head cannot go with.

    Args:
        head: of the model.
        count: heads to sweep, 0 for none.
        phases: of the job.
        given: what a person asked for.
        compute: how features are had.

    Raises:
        RecipeError: naming every flag concerned.
    """
    if count < 0 or count == 1:
        raise RecipeError(f"{count} heads are nothing to choose among", where="--sweep", advice="give 2 or more, or 0 for no sweep")
    if not count and not head.solved:
        return
    what = "--sweep" if count else f"--head {head}"
    if count and head.kind != "linear":
        raise RecipeError("--sweep chooses the head", where=f"--head {head}", advice="leave out the one or the other")
    first = "takes a frozen backbone and one phase" if count else "takes a frozen backbone, in the first phase at least"
    _Faults(what, _not_frozen(phases if count else phases[:1]), first).check()
    _Faults(what, _not_in_memory(given, compute), "takes plain features that are computed once").check()
    if len(phases) > 1:  # rates and options that were given are those of the phases that unfreeze
        frozen = [p for p in phases if not _not_frozen((p,))]
        theirs = [(f"--{n}", v) for p in frozen for n, v in (("epochs", p.epochs), ("lr", p.lr), ("backbone-lr", p.backbone_lr))]
        _Faults(what, tuple(dict.fromkeys(f for f, v in theirs if v is not None)), "is solved at once, without steps, in its phase").check()
        return
    own = phases[0]
    unused = [("--backbone-lr", given.backbone_lr), ("--backbone-lr", own.backbone_lr), ("--lr", given.lr), ("--lr", own.lr)]
    unused += [("--weight-decay", given.weight_decay)]
    if not count:
        unused += [("--epochs", given.epochs), ("--epochs", own.epochs), ("--batch-size", given.batch_size)]
    flags = tuple(dict.fromkeys(flag for flag, value in unused if value is not None))
    defaults = Options()
    flags += tuple(f"--{f.name.replace('_', '-')}" for f in fields(Options) if getattr(given.options, f.name) != getattr(defaults, f.name))
    _Faults(what, flags, "chooses rate and decay by itself and trains plainly" if count else "is solved at once, without steps").check()


def _not_frozen(phases: Sequence[Phase]) -> tuple[str, ...]:
    if len(phases) > 1:
        return ("--strategy",)
    found: list[str] = []
    if any(not isinstance(parse_selector(p.plan.unfreeze), Nothing) for p in phases):
        found.append("--unfreeze")
    if any(p.plan.batch_norm != "frozen" for p in phases):
        found.append("--batch-norm")
    return tuple(found)


def _not_in_memory(given: Given, compute: Compute) -> tuple[str, ...]:
    return (("--augment",) if given.views.augment != "none" else ()) + (("--no-cache",) if compute.recompute else ())


def choose_head(
    model: TransferModel,
    phase: Phase,
    images: Labelled,
    given: Given,
    compute: Compute,
    device: torch.device,
    count: int,
    places: Places,
) -> Generator[FeatureProgress | CachePlanned | FeaturesReady | DepthChosen | Swept, None, tuple[Given, Ready | None]]:
    """Sweep ``count`` heads and put the chosen one on the model, untrained; gives its settings and what it is to be trained on.

    With a count of 0 nothing happens.

    Args:
        model: its head is replaced.
        phase: the only one of the job.
        images: to train on; those to judge by are not looked at.
        given: what a person asked for.
        compute: how features are had.
        device: where the model is.
        count: heads to try.
        places: the depths that it may be put on, with their features, where those were computed already; None is where it sits.

    Raises:
        RecipeError: a class has one image only, or too few groups.
        DataError: nothing that can be read is left.
    """
    if not count:
        return given, places.ready.get(None)
    here = model.head_spec.at if model.head_spec.at != AUTO else None
    found = {here if at is None else at: ready for at, ready in places.ready.items()}
    if not found:
        resolved = phase.plan.apply(model)
        parts = split_resolved(model, resolved, model.example(2))
        prefix = prefix_of(parts, model.opened, images, compute, device)
        found[here] = Ready(parts, prefix, *(yield from prepare(parts, prefix, images, given.views, compute, given.seed)))
    sources = {at: ready.sources.train for at, ready in found.items()}
    features = {at: own.first.to(device) for at, own in sources.items() if isinstance(own, FeatureRows)}
    first = next(iter(sources.values()))
    assert isinstance(first, FeatureRows)
    if ALL in features:
        sizes = places.sizes or model.opened.parts
        features[ALL] = weighed(features[ALL], sizes, first.labels, model.num_classes, given.seed, first.units)
    number = len(images.train)
    rule = default_hyper(images=number, head="linear", backbone_trained=False)
    hyper = override(rule, epochs=given.epochs if phase.epochs is None else phase.epochs, batch_size=given.batch_size)
    swept = sweep(features, first.labels, model.num_classes, count, hyper, given.seed, first.units, number)
    key = swept.chosen.candidate
    if places.told is not None:
        yield replace(places.told, chosen=key.head.at or END, why=f"{key} is the best of all heads of the sweep; {places.told.why}")
    yield swept
    model.put_head(key.head, given.seed)
    if isinstance(key, SteppedHead):
        given = replace(given, lr=key.lr, weight_decay=key.weight_decay)
    else:
        given = replace(given, solution=swept.chosen)
    return given, found[key.head.at]
