"""The simulated device itself: what it lets pass and what it finds."""

from __future__ import annotations

import copy
import io
import pickle
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from torch import nn

from simulated_cuda import Machine, simulated_cuda

HERE = torch.arange(6.0).reshape(2, 3)


@pytest.fixture(autouse=True)
def machine() -> Iterator[Machine]:
    with simulated_cuda() as machine:
        yield machine


def there() -> torch.Tensor:
    return HERE.to("cuda")


MADE: dict[str, Callable[[], torch.Tensor]] = {
    "moved": there,
    "cuda": lambda: HERE.cuda(),
    "to another": lambda: torch.ones(1).to(there()),
    "zeros": lambda: torch.zeros(2, device="cuda"),
    "tensor": lambda: torch.tensor([1.0], device="cuda:0"),
    "as_tensor": lambda: torch.as_tensor(np.ones(2), device="cuda"),
    "like": lambda: torch.zeros_like(there()),
    "new": lambda: there().new_zeros(3),
    "new tensor": lambda: there().new_tensor([1.0]),
    "view": lambda: there()[0],
    "iterated": lambda: next(iter(there())),
    "result": lambda: there() @ there().T,
    "with a number": lambda: there() * torch.tensor(2.0),
    "indexed from the processor": lambda: there()[torch.tensor([1])],
    "filled": lambda: there().masked_fill(there() > 1, torch.tensor(0.0)),
    "cast": lambda: there().double().to(torch.float16).to(torch.float32),
    "one_hot": lambda: nn.functional.one_hot(torch.tensor([0, 1], device="cuda"), 2),
    "parameter": lambda: nn.Parameter(there()).data,
    "module": lambda: nn.Linear(3, 2).to("cuda")(there()),
    "module made there": lambda: nn.Linear(3, 2, device="cuda")(there()),
    "copied module": lambda: copy.deepcopy(nn.Linear(3, 2).cuda()).weight,
    "copied": lambda: copy.deepcopy(there()),
    "drawn": lambda: torch.rand(2, device="cuda"),
    "dropped": lambda: nn.functional.dropout(there()),
    "gradient": lambda: torch.autograd.grad((p := nn.Parameter(there())).square().sum(), p)[0],
    "autocast": lambda: _under_autocast(),
    "in another thread": lambda: ThreadPoolExecutor(1).submit(lambda: there() + 1).result(),
}

MIXED: dict[str, Callable[[], object]] = {
    "sum": lambda: there() + HERE,
    "sum in place": lambda: there().add_(HERE),
    "sum in place, the other way": lambda: HERE.clone().add_(there()),
    "to a number": lambda: torch.tensor(1.0).add_(there().sum()),
    "a number there": lambda: HERE + there()[0, 0],
    "product": lambda: there() @ HERE.T,
    "product with a vector": lambda: there() @ torch.ones(3),
    "cat": lambda: torch.cat([there(), HERE]),
    "stack of numbers": lambda: torch.stack([there().sum(), HERE.sum()]),
    "where": lambda: torch.where(there() > 1, HERE, 0.0),
    "indexed from the device": lambda: HERE[torch.tensor([1], device="cuda")],
    "put from the processor": lambda: there().__setitem__(torch.tensor([1]), HERE[:1]),
    "gathered": lambda: there().gather(1, torch.tensor([[0]])),
    "labels": lambda: nn.functional.cross_entropy(there(), torch.tensor([0, 1])),
    "weights": lambda: nn.functional.cross_entropy(there(), torch.tensor([0, 1], device="cuda"), weight=torch.ones(3)),
    "module": lambda: nn.Linear(3, 2)(there()),
    "images": lambda: nn.Conv2d(3, 2, 1).to("cuda")(torch.ones(1, 3, 2, 2)),
    "weights put in place of those there": lambda: _assigned()(there()),
    "compared": lambda: torch.equal(there(), HERE),
    "gradient": lambda: setattr(nn.Parameter(there()), "grad", HERE),
    "optimizer": lambda: _fused(torch.tensor(0.0)),
    "generator": lambda: torch.rand(2, device="cuda", generator=torch.Generator()),
    "in another thread": lambda: ThreadPoolExecutor(1).submit(lambda: there() + HERE).result(),
}


def _under_autocast() -> torch.Tensor:
    with torch.autocast("cuda", dtype=torch.bfloat16):
        found = there() @ there().T
    assert found.dtype == torch.bfloat16
    return found


def _assigned() -> nn.Module:
    norm = nn.BatchNorm1d(3).to("cuda")
    norm.load_state_dict(nn.BatchNorm1d(3).state_dict(), assign=True)
    return norm


def _fused(step: torch.Tensor) -> None:
    state = [[there()] for _ in range(4)]
    torch._fused_adamw_(*state, [], [step], lr=0.1, beta1=0.9, beta2=0.99, weight_decay=0.0, eps=1e-8, amsgrad=False, maximize=False)


@pytest.mark.parametrize("name", MADE)
def test_what_is_made_there_is_there(name: str) -> None:
    found = MADE[name]()
    assert (found.device, found.is_cuda, found.is_cpu) == (torch.device("cuda:0"), True, False)
    assert found.cpu().device.type == "cpu" == HERE.device.type


@pytest.mark.parametrize("name", MIXED)
def test_devices_that_are_mixed_are_found(name: str) -> None:
    with pytest.raises(RuntimeError, match=r"same device|different device|device type for generator"):
        MIXED[name]()


def test_values_are_those_of_the_processor() -> None:
    assert torch.equal(there().cpu(), HERE)
    assert there().tolist() == HERE.tolist()
    assert float(there().sum()) == there().sum().item() == 15
    assert torch.equal((there().T @ there()).to("cpu"), HERE.T @ HERE)
    assert torch.empty(2).copy_(there()[0, :2]).tolist() == [0, 1]


@pytest.mark.parametrize("use", [lambda t: t.numpy(), np.asarray, lambda t: np.stack([t]), lambda t: t.detach().numpy()])
def test_numpy_does_not_see_the_device(use: Callable[[torch.Tensor], object]) -> None:
    with pytest.raises(TypeError, match="can't convert cuda:0"):
        use(there())
    use(there().cpu())


def test_pickling_is_not_simulated() -> None:
    with pytest.raises(NotImplementedError, match="simulated"):
        pickle.dump(there(), io.BytesIO())


def test_a_module_moves_in_place() -> None:
    layer = nn.Linear(3, 2)
    weight = layer.weight
    layer.to("cuda")
    assert layer.weight is weight
    assert weight.is_cuda
    assert not layer.cpu().weight.is_cuda


def test_the_device_draws_from_its_own_generator() -> None:
    torch.manual_seed(3)
    before = torch.get_rng_state()
    first = torch.rand(4, device="cuda")
    assert torch.equal(torch.get_rng_state(), before)
    assert not torch.equal(torch.rand(4, device="cuda").cpu(), first.cpu())
    with torch.random.fork_rng([0]):
        torch.manual_seed(3)
        assert torch.equal(torch.rand(4, device="cuda").cpu(), first.cpu())


def test_what_arrives_later_is_waited_for() -> None:
    pinned = torch.zeros(2, 3, pin_memory=True)
    assert pinned.is_pinned()
    pinned.copy_(there(), non_blocking=True)
    event = torch.cuda.Event()
    event.record()
    with pytest.raises(RuntimeError, match="read before it is there"):
        pinned.sum()
    with pytest.raises(RuntimeError, match="read before it is there"):
        pinned[1].numpy()
    event.synchronize()
    assert torch.equal(pinned, HERE)
    arriving = there().to("cpu", non_blocking=True)
    with pytest.raises(RuntimeError, match="read before it is there"):
        arriving.clone()
    torch.cuda.synchronize()
    assert torch.equal(arriving, HERE)


def test_an_event_waits_for_what_came_before_it() -> None:
    pinned = torch.zeros(2, 2, 3, pin_memory=True)
    pinned[0].copy_(there(), non_blocking=True)
    first = torch.cuda.current_stream().record_event()
    pinned[1].copy_(there(), non_blocking=True)
    first.synchronize()
    assert torch.equal(pinned[0], HERE)
    with pytest.raises(RuntimeError, match="read before it is there"):
        pinned[1].clone()


def test_what_leaves_is_not_changed_before_it_has_left() -> None:
    pinned = HERE.pin_memory()
    pinned.to("cuda", non_blocking=True)
    assert torch.equal(pinned, HERE)
    with pytest.raises(RuntimeError, match="changed while"):
        pinned.zero_()
    pinned.numpy()[:] = 5
    with pytest.raises(RuntimeError, match="changed by numpy"):
        torch.cuda.synchronize()
