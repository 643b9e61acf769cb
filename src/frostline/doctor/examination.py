"""What was observed of a training script. The checks are functions of these values and of nothing else."""

from __future__ import annotations

from dataclasses import dataclass, field

from frostline.doctor.anatomy import Freshness
from frostline.doctor.loader import LoaderFacts
from frostline.doctor.pixels import Pixels, Wanted


@dataclass(frozen=True)
class ParameterFacts:
    """One parameter tensor of the model.

    Attributes:
        name: dotted.
        size: number of elements.
        requires_grad: as the script left it.
        held: the optimizer has it, by identity.
        weight_decay: of its group in the optimizer, 0 where it is in none.
        lr: of its group in the optimizer, 0 where it is in none.
        reached: it had a gradient after a backward pass.
        pushed: that gradient was not 0 everywhere.
        moved: its values changed in the training steps.
    """

    name: str
    size: int
    requires_grad: bool
    held: bool
    weight_decay: float = 0.0
    lr: float = 0.0
    reached: bool = False
    pushed: bool = False
    moved: bool = False

    @property
    def frozen(self) -> bool:
        """Not trained, on purpose: no gradient is wanted, or none arrives and the optimizer does not wait for one."""
        return not self.requires_grad or (not self.held and not self.reached)


@dataclass(frozen=True)
class NormFacts:
    """One batch-norm layer with running statistics.

    Attributes:
        name: dotted.
        frozen: it lies in frozen layers.
        left_in_eval: the script had put it in eval mode.
        awake: it ran in training mode.
        shift: the largest move of its running mean in the training steps, in standard deviations.
        ratio: the largest factor by which its running variance changed, at least 1.
    """

    name: str
    frozen: bool
    left_in_eval: bool
    awake: bool
    shift: float
    ratio: float

    @property
    def moved(self) -> bool:
        """Whether its running statistics changed at all."""
        return self.shift > 0 or self.ratio > 1


@dataclass(frozen=True)
class DropFacts:
    """One layer inside frozen ones that drops something at random in training mode, and ran in that mode.

    Attributes:
        name: dotted; where no layer is to blame, the place in words.
        kind: its type.
        rate: how much it drops.
        left_in_eval: the script had put it in eval mode.
    """

    name: str
    kind: str
    rate: float
    left_in_eval: bool


@dataclass(frozen=True)
class PrefixFacts:
    """The frozen layers before all that is trained, as they ran.

    Attributes:
        frozen_ms: milliseconds a batch spent in them.
        forward_ms: milliseconds a batch of the whole forward pass.
        samples: in that batch.
        given: shape of one sample that enters the model.
        features: shape of one sample that leaves them.
        name: the module that they are, dotted; empty where they are several.
        whole: they are a backbone: what leaves them is one vector a sample, or one frozen module holds most of the model's parameters.
    """

    frozen_ms: float
    forward_ms: float
    samples: int
    given: tuple[int, ...]
    features: tuple[int, ...]
    name: str
    whole: bool


@dataclass(frozen=True)
class Examination:
    """Everything that was observed.

    Attributes:
        data: where the batches came from, in words.
        steps: training steps that were made.
        parameters: of the model, in its order.
        strangers: tensors that the optimizer holds and the model does not.
        attached: the model's output depends on something that is trained.
        norms: the batch-norm layers with running statistics.
        drops: what drops at random inside frozen layers.
        jitter: how much the frozen layers' output differs between two runs of one batch, relative; 0 where it does not.
        fresh: whether the frozen layers look untrained.
        wanted: what the weights want to see, where that is known.
        pixels: what they are given, where that was measured.
        loader: how the loader behaves, None where there is none.
        prefix: the frozen layers that could be computed once, None where there are none.
    """

    data: str
    steps: int
    parameters: tuple[ParameterFacts, ...]
    strangers: int = 0
    attached: bool = True
    norms: tuple[NormFacts, ...] = ()
    drops: tuple[DropFacts, ...] = ()
    jitter: float = 0.0
    fresh: Freshness = field(default_factory=lambda: Freshness(0, ()))
    wanted: Wanted | None = None
    pixels: Pixels | None = None
    loader: LoaderFacts | None = None
    prefix: PrefixFacts | None = None
