"""Which architectures are cut where, and whether both parts in a row are the network: a table in Markdown.

``python benchmarks/cut_table.py > docs/cuts.md``; ``--only NAME`` checks one. Everything is opened as a user would open it, with
random weights. Every dropout layer is set to 0.1, so that training draws random numbers where it can; parameters that begin at zero
(heads, scales of residual branches) are set to small numbers, so that nothing is equal because it is nothing.
"""

from __future__ import annotations

import argparse
import gc
import resource
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import timm
import torch
import torchvision
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from frostline import FreezePlan, TransferModel, open_backbone, split
from frostline.errors import FrostlineError
from frostline.freeze.cut import Split
from frostline.freeze.layers import layers_of


def words(text: str) -> list[str]:
    return text.split()


TIMM = words("""
resnet18 resnet26 seresnet18 resnext26ts seresnext26ts ecaresnet26t skresnet18 resnest14d res2net50_14w_8s densenet121 dpn48b
efficientnet_lite0 tf_efficientnet_lite1 efficientnet_b0 tf_efficientnet_b0 efficientnetv2_rw_t tf_efficientnetv2_b0
mobilenetv2_050 mobilenetv3_small_050 mobilenetv3_large_100 mobilenetv4_conv_small_050 mobilenetv4_hybrid_medium mnasnet_050
fbnetc_100 lcnet_050 tinynet_e ghostnet_050 ghostnetv2_100 rexnet_100 selecsls42 hgnetv2_b0 vovnet39a ese_vovnet19b_slim_dw
hrnet_w18_small dla46_c darknet17 cspresnet50 cspdarknet53 repvgg_a0 repvit_m0_9 xception41 inception_v3 inception_next_atto
convnext_atto convnext_femto convnextv2_atto convnextv2_femto regnetx_002 regnety_002 regnetz_005 nfnet_f0 eca_nfnet_l0
vit_tiny_patch16_224 vit_relpos_small_patch16_224 vit_small_patch16_dinov3 deit_tiny_patch16_224
deit_tiny_distilled_patch16_224 deit3_small_patch16_224 beit_base_patch16_224 eva02_tiny_patch14_224 cait_xxs24_224
xcit_nano_12_p16_224 swin_tiny_patch4_window7_224 swinv2_cr_tiny_224 swinv2_tiny_window8_256 maxvit_pico_rw_256
coatnet_nano_rw_224 coat_lite_tiny mixer_s32_224 resmlp_12_224 gmlp_ti16_224 poolformer_s12 poolformerv2_s12 convformer_s18
levit_128s efficientformer_l1 efficientformerv2_s0 efficientvit_b0 efficientvit_m0 mobilevit_xxs mobilevitv2_050
twins_pcpvt_small twins_svt_small pvt_v2_b0 crossvit_9_240 convit_tiny volo_d1_224 tnt_s_patch16_224 pit_ti_224 nest_tiny
convmixer_768_32 hiera_tiny_224 visformer_tiny tiny_vit_5m_224 focalnet_tiny_srf fastvit_t8 edgenext_xx_small gcvit_xxtiny
davit_tiny mvitv2_tiny
sequencer2d_s mambaout_femto halonet26t lambda_resnet26t starnet_s1 test_vit shvit_s1 swiftformer_xs rdnet_tiny ghostnetv3_050
hardcorenas_a vit_tiny_r_s16_p8_224 botnet26t_256 bat_resnext26ts haloregnetz_b naflexvit_base_patch16_gap samvit_base_patch16_224
legacy_seresnet18 nextvit_small coat_tiny maxxvitv2_nano_rw_256 vitamin_small_224 mobileone_s0 tresnet_m repghostnet_050
mobilenet_edgetpu_v2_xs
""")
TORCHVISION = words("""
resnet18 resnext50_32x4d wide_resnet50_2 densenet121 efficientnet_b0 efficientnet_v2_s mobilenet_v2 mobilenet_v3_small mnasnet0_5
shufflenet_v2_x0_5 squeezenet1_1 googlenet inception_v3 convnext_tiny regnet_y_400mf vgg11
vgg11_bn alexnet vit_b_32 swin_t swin_v2_t maxvit_t
""")
ARCHITECTURES = (*(f"timm:{n}" for n in TIMM), *(f"torchvision:{n}" for n in TORCHVISION))
DROPOUT = 0.1


@dataclass(frozen=True)
class Check:
    """One plan on one architecture.

    Attributes:
        plan: the selector.
        way: how the cut was found; ``failed`` where an error was raised.
        name: the last block before the cut.
        why: the reason that the cut gives, or the error.
        tensors: number of tensors that cross.
        bytes: of what crosses, an image.
        share: of the work that lies before the cut.
        seconds: to find the cut.
        evaluated: largest difference in eval mode, relative to the largest value; 0 where every bit is equal.
        trained: the same in training mode, gradients and batch-norm statistics included.
    """

    plan: str
    way: str
    name: str = ""
    why: str = ""
    tensors: int = 0
    bytes: int = 0
    share: float = 0.0
    seconds: float = 0.0
    evaluated: float = float("inf")
    trained: float = float("inf")

    @property
    def cut(self) -> bool:
        """Whether there is something to cache."""
        return self.way not in ("input", "failed")

    @property
    def exact(self) -> bool:
        """Whether every bit is equal."""
        return self.evaluated == self.trained == 0


@dataclass(frozen=True)
class Row:
    """One architecture."""

    name: str
    blocks: int = 0
    checks: list[Check] = field(default_factory=list)
    error: str = ""

    @property
    def cut(self) -> bool:
        """Whether every plan is cut, and both parts in a row are the network."""
        return bool(self.checks) and all(c.cut and max(c.evaluated, c.trained) < 1e-5 for c in self.checks)

    @property
    def exact(self) -> bool:
        """Whether they are equal to the last bit."""
        return self.cut and all(c.exact for c in self.checks)

    @property
    def says(self) -> list[str]:
        """What a user reads about the plans that are not cut."""
        return [self.error] if self.error else [f"{c.plan}: {c.why}" for c in self.checks if not c.cut]


def check(name: str) -> Row:
    """Open an architecture and check three plans; what goes wrong is in the row, as the user would see it."""
    try:
        model = TransferModel(open_backbone(name, "random"), num_classes=3)
        blocks = len(layers_of(model.backbone).blocks)
    except Exception as fault:
        return Row(name, error=_said(fault))
    _rouse(model)
    example = model.example(3)
    plans = [f"last:{n}" for n in dict.fromkeys((1, 2, max(1, blocks // 2)))]
    return Row(name, blocks, [_check(model, plan, example) for plan in plans])


def _rouse(model: nn.Module) -> None:
    """Let every layer have its say: heads, scales and last norms of residual branches that begin at nothing hide what is wrong."""
    for module in model.modules():
        if isinstance(module, nn.Dropout) and not module.inplace:
            module.p = DROPOUT
    draw = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.abs().max() < 1e-3:
                parameter.uniform_(-0.2, 0.2, generator=draw)


def _check(model: TransferModel, plan: str, example: torch.Tensor) -> Check:
    try:
        began = time.perf_counter()
        parts = split(model, FreezePlan(plan), example)
        seconds = time.perf_counter() - began
        batches = (example[:2], (0.1 - 0.75 * example).flip(0).contiguous(memory_format=torch.channels_last))
        evaluated = max(_evaluated(model, parts, batch) for batch in batches)
        return Check(
            plan,
            parts.cut.way,
            parts.cut.name,
            parts.cut.why,
            len(parts.layout.parts),
            parts.layout.bytes,
            _share(model, parts, example[:1]),
            seconds,
            evaluated,
            max(_trained(model, parts, batch) for batch in batches),
        )
    except Exception as fault:
        return Check(plan, "failed", why=_said(fault))


def _said(fault: Exception) -> str:
    first = str(fault).splitlines()[0] if str(fault) else ""
    return first if isinstance(fault, FrostlineError) else f"{type(fault).__name__}: {first}"


def _evaluated(model: nn.Module, parts: Split, batch: torch.Tensor) -> float:
    model.eval()
    parts.suffix.eval()
    with torch.no_grad():
        return _difference([parts.suffix(_crossing(parts, batch))], [model(batch)])


def _crossing(parts: Split, batch: torch.Tensor) -> torch.Tensor | tuple[torch.Tensor, ...]:
    """What crosses, through a row of a cache."""
    with torch.no_grad():
        given = parts.prefix(batch)
    again = parts.layout.unpack(parts.layout.pack(given if isinstance(given, tuple) else (given,)))
    return again if isinstance(given, tuple) else again[0]


def _trained(model: nn.Module, parts: Split, batch: torch.Tensor) -> float:
    """Output, gradients and statistics after one step forth and back in training mode, with the same draws."""
    before = {n: b.clone() for n, b in model.named_buffers()}
    found: list[list[torch.Tensor]] = []
    for through_parts in (True, False):
        with torch.no_grad():
            for n, b in model.named_buffers():
                b.copy_(before[n])
        model.zero_grad()
        model.train()
        parts.suffix.train()
        crossing = _crossing(parts, batch)
        torch.manual_seed(7)
        out = parts.suffix(crossing) if through_parts else model(batch)
        out.square().sum().backward()
        grads = [p.grad if p.grad is not None else torch.zeros(0) for p in model.parameters()]
        found.append([out.detach(), *grads, *(b.clone().float() for b in model.buffers())])
    return _difference(*found)


def _difference(ours: Sequence[torch.Tensor], theirs: Sequence[torch.Tensor]) -> float:
    """The largest difference, relative to the largest value of its tensor; infinite where shapes differ or values are not finite."""
    worst = 0.0
    for a, b in zip(ours, theirs, strict=True):
        if a.shape != b.shape or not bool(b.isfinite().all()):
            return float("inf")
        if not torch.equal(a, b):
            worst = max(worst, float((a - b).abs().max() / b.abs().max().clamp_min(1e-30)))
    return worst


def _share(model: nn.Module, parts: Split, image: torch.Tensor) -> float:
    counted: list[int] = []
    for module in (parts.prefix, model.eval()):
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            module(image)
        counted.append(counter.get_total_flops())
    return counted[0] / max(1, counted[1])


def lines(rows: Iterator[Row]) -> Iterator[str]:
    """The page, line by line, as the rows come."""
    yield "# How architectures are cut\n"
    yield "`python benchmarks/cut_table.py > docs/cuts.md`, "
    yield f"torch {torch.__version__.partition('+')[0]}, timm {timm.__version__}, torchvision {torchvision.__version__.partition('+')[0]}, "
    yield f"{torch.get_num_threads()} thread of a CPU.\n"
    yield "Random weights, no parameter at zero, every dropout layer at 0.1. The cut shown is the one for `last:2`. *parity*: over"
    yield "`last:1`, `last:2` and the last half of the blocks, two batches each, in eval and in training mode (output, gradients,"
    yield "batch-norm statistics), what crosses packed and unpacked as in a cache: whether what the two parts give is what the network"
    yield "gives, to the last bit, or the largest difference relative to the largest value. *seconds*: to find the cut, at most; most of"
    yield "it is running the network on 19 images.\n"
    yield "| architecture | blocks | way | cut for last:2 | crosses | of the work before it | parity | seconds |"
    yield "|---|---|---|---|---|---|---|---|"
    every: list[Row] = []
    for row in rows:
        every.append(row)
        yield _line(row)
    cut, exact = sum(r.cut for r in every), sum(r.exact for r in every)
    yield f"\n{cut} of {len(every)} are cut for all three plans ({cut / max(1, len(every)):.0%}), {exact} of them to the last bit."
    if any(r.says for r in every):
        yield "\nWhat is not cut, and what is said about it:\n"
    for row in every:
        for said in row.says:
            yield f"- `{row.name}` {said}"
        for c in row.checks:
            if c.cut and not c.exact:
                yield f"- `{row.name}` {c.plan}: differs by {c.evaluated:.1e} in eval mode, {c.trained:.1e} in training mode"


def _line(row: Row) -> str:
    if row.error:
        return f"| {row.name} | | failed | {row.error} | | | | |"
    shown = next((c for c in row.checks if c.plan == "last:2"), row.checks[0])
    ways = "/".join(dict.fromkeys(c.way for c in row.checks))
    worst = max(max(c.evaluated, c.trained) for c in row.checks)
    parity = "exact" if worst == 0 else f"{worst:.0e}"
    several = "" if shown.tensors == 1 else f"{shown.tensors} tensors, "
    return (
        f"| {row.name} | {row.blocks} | {ways} | {shown.name} | {several}{shown.bytes / 1024:.0f} KiB "
        f"| {shown.share:.0%} | {parity} | {max(c.seconds for c in row.checks):.1f} |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description="How architectures are cut, as a table.")
    parser.add_argument("--only", action="append", help="an architecture, such as timm:resnet18; may be repeated")
    parser.add_argument("--verbose", action="store_true", help="every plan's cut, and the peak of memory so far")
    given = parser.parse_args()
    torch.set_num_threads(1)

    def rows() -> Iterator[Row]:
        for name in given.only or ARCHITECTURES:
            row = check(name)
            if given.verbose:
                for c in row.checks:
                    print("  ", c)
                print("   peak MiB", resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)
            yield row
            gc.collect()

    for line in lines(rows()):
        print(line, flush=True)


if __name__ == "__main__":
    main()
