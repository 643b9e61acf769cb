"""Put a script's model in training mode, make a few steps, run a batch again, and write down what happened."""

from __future__ import annotations

import contextlib
import itertools
import math
from collections.abc import Collection, Sequence

import torch
from torch import nn

from frostline._rng import seeded
from frostline.backbone.tap import Call, recording
from frostline.doctor.anatomy import drop_rate, freshness, frozen_modules
from frostline.doctor.batches import drawn, generated, prepared, run_model
from frostline.doctor.examination import DropFacts, Examination, NormFacts, ParameterFacts, PrefixFacts
from frostline.doctor.loader import loader_facts
from frostline.doctor.pixels import Pixels, Wanted, measure
from frostline.doctor.repeat import Repeat, repeat
from frostline.doctor.subject import Subject
from frostline.doctor.training import Steps, blamed, held_by, restored, train_steps
from frostline.doctor.wanted import images_given, wanted_of
from frostline.freeze.apply import evaluating, set_mode

STEPS = 3


def observe(subject: Subject) -> Examination:
    """Examine what a script built. Model and optimizer are as before when this returns; random numbers are drawn from own streams.

    Raises:
        ScriptError: no batch can be had, or the model, the backward pass or the optimizer raises.
    """
    model = subject.model
    modes = {name: module.training for name, module in model.named_modules()}
    if not any(p.requires_grad for p in model.parameters()):
        return Examination("nothing was run", 0, _parameters(subject, Steps()))
    found = wanted_of(model)
    with contextlib.ExitStack() as stack:
        stack.enter_context(seeded(0, "doctor"))
        stack.enter_context(restored(model, subject.optimizer))
        with blamed(subject.name, "model.eval()"):
            stack.enter_context(evaluating(model))
        batches, data = _batches(subject, found[1] if found else None)
        with blamed(subject.name, "model.train()"):
            set_mode(model, training=True)
        steps = train_steps(subject, batches, keep=found[0] if found else ())
        parameters = _parameters(subject, steps)
        frozen = frozen_modules(model, {id(p) for p, f in zip(model.parameters(), parameters, strict=True) if f.frozen})
        trained = _owners_of_trained(model, parameters)
        again = repeat(model, batches[0], frozen, trained, subject.name)
        drops = _drops(model, steps.calls, again, frozen, trained, modes)
        prefix = None if again.varied or again.place else _prefix(subject, batches[0], frozen, trained)
    held = {id(p) for p in model.parameters()}
    wanted = found[1] if found and not freshness(model, modes).random else None  # random weights want nothing
    return Examination(
        data=data,
        steps=len(batches),
        parameters=parameters,
        strangers=sum(id(p) not in held for p in held_by(subject.optimizer)),
        attached=steps.attached,
        norms=_norms(steps, frozen, modes),
        drops=drops,
        jitter=again.jitter,
        fresh=freshness(model, frozen),
        wanted=wanted,
        pixels=_pixels(steps.calls, found[0], wanted) if found and wanted and subject.loader is not None else None,
        loader=None if subject.loader is None else loader_facts(subject.loader),
        prefix=prefix,
    )


def _batches(subject: Subject, wanted: Wanted | None) -> tuple[list[object], str]:
    device = next(subject.model.parameters()).device

    def works(batch: object) -> bool:
        try:
            with torch.no_grad():
                run_model(subject.model, prepared(batch, device))
        except Exception:  # whatever it raises: this shape is not the one
            return False
        return True

    if subject.loader is None:
        sizes = [(len(wanted.mean), *wanted.size)] if wanted and wanted.size else []
        batches, data = generated(subject.model, sizes, works, subject.name), "generated batches"
    else:
        batches, data = drawn(subject.loader, STEPS, subject.name), "batches of its loader"
    return [prepared(batch, device) for batch in itertools.islice(itertools.cycle(batches), STEPS)], data


def _parameters(subject: Subject, steps: Steps) -> tuple[ParameterFacts, ...]:
    groups = {id(p): group for group in subject.optimizer.param_groups for p in group["params"]}
    return tuple(
        ParameterFacts(
            name=name,
            size=p.numel(),
            requires_grad=p.requires_grad,
            held=id(p) in groups,
            weight_decay=float(groups.get(id(p), {}).get("weight_decay") or 0.0),
            lr=float(groups.get(id(p), {}).get("lr") or 0.0),
            reached=id(p) in steps.reached,
            pushed=id(p) in steps.pushed,
            moved=id(p) in steps.moved,
        )
        for name, p in subject.model.named_parameters()
    )


def _owners_of_trained(model: nn.Module, parameters: Sequence[ParameterFacts]) -> set[str]:
    trained = {id(p) for p, f in zip(model.parameters(), parameters, strict=True) if not f.frozen}
    return {name for name, module in model.named_modules() if any(id(p) in trained for p in module.parameters(recurse=False))}


def _norms(steps: Steps, frozen: Collection[str], modes: dict[str, bool]) -> tuple[NormFacts, ...]:
    awake = {call.name for call in steps.calls if call.training}
    found: list[NormFacts] = []
    for name, old in steps.before.items():
        new = steps.after[name]
        shift = ((new.mean - old.mean).abs() / (old.var.clamp_min(0) + 1e-12).sqrt()).max()
        ratio = ((new.var + 1e-12) / (old.var + 1e-12)).log().abs().max()
        found.append(NormFacts(name, name in frozen, not modes[name], name in awake, float(shift), math.exp(float(ratio))))
    return tuple(found)


def _drops(
    model: nn.Module, calls: Sequence[Call], again: Repeat, frozen: Collection[str], trained: Collection[str], modes: dict[str, bool]
) -> tuple[DropFacts, ...]:
    """Layers that drop inside frozen ones: lying in a frozen module, or running between frozen layers before anything trained."""
    modules = dict(model.named_modules())
    order = {call.name: call.order for call in reversed(calls)}
    owners = [order[n] for n, m in modules.items() if n in order and n in frozen and any(True for _ in m.parameters(recurse=False))]
    first, last = min(owners, default=0), max(owners, default=-1)
    first_trained = min((order[n] for n in trained if n in order), default=last + 1)
    ran = {call.name for call in calls if call.training}
    found = [
        DropFacts(name, type(module).__name__, drop_rate(module), not modes[name])
        for name, module in modules.items()
        if drop_rate(module) > 0 and name in ran and (name in frozen or first < order[name] < min(last, first_trained))
    ]
    if found or again.place is None:
        return tuple(found)
    inside = [
        DropFacts(name, type(module).__name__, drop_rate(module), not modes[name])
        for name, module in modules.items()
        if drop_rate(module) > 0 and module.training and f"{name}.".startswith(f"{again.place}.")
    ]
    return tuple(inside) or (DropFacts(again.place, "random function", 0.0, left_in_eval=False),)


def _pixels(calls: Sequence[Call], places: Collection[str], wanted: Wanted) -> Pixels | None:
    images = images_given(calls, places, len(wanted.mean))
    return None if images is None else measure(images, wanted)


def _prefix(subject: Subject, batch: object, frozen: Collection[str], trained: Collection[str]) -> PrefixFacts | None:
    model = subject.model
    timed: list[tuple[float, float, list[Call]]] = []
    for _ in range(2):
        with blamed(subject.name, "the model on a batch"), recording(model) as calls:
            run_model(model, batch)
        spent = sum(c.seconds for c in calls if c.name in frozen and not any(n in frozen for n in c.within))
        timed.append((sum(c.seconds for c in calls if not c.within), spent, calls))
    whole, spent, calls = min(timed, key=lambda t: t[0])
    sizes = {name: sum(p.numel() for p in module.parameters()) for name, module in model.named_modules()}
    held = {name for name, module in model.named_modules() if name in frozen and any(True for _ in module.parameters(recurse=False))}
    ran = [c for c in calls if c.name in held]
    after = next((c for c in calls if c.name in trained), None)
    entered = next((c.shape for c in calls if not c.within), None)
    if not ran or after is None or after.shape is None or entered is None or max(c.order for c in ran) > after.order:
        return None
    largest = max(frozen, key=lambda n: sizes[n])
    alone = sizes[largest] >= 0.99 * sum(sizes[n] for n in frozen if n.rpartition(".")[0] not in frozen)
    backbone = len(after.shape) == 2 or 2 * sizes[largest] >= sizes[""]
    return PrefixFacts(1e3 * spent, 1e3 * whole, entered[0], entered[1:], after.shape[1:], largest if alone else "", backbone)
