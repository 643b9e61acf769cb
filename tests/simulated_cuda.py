"""A CUDA device that is not there: tensors that say ``cuda:0``, lie in the processor's memory, and may not be mixed with others.

Under :func:`simulated_cuda` the storages of tensors made on ``cuda``, or computed from such, are marked. Every operation is looked at on its
way to the processor's kernels: one that mixes marked and unmarked tensors raises what CUDA raises, ``.numpy()`` of a marked tensor too.
Copies with ``non_blocking`` from or to pinned memory are under way until something waits for them: what was to arrive is not there yet,
and using its memory raises.

It shows that devices are not mixed and that nothing is read before it is there. It does not show that a GPU computes the same, that it has
a kernel for an operation and a type, how fast it is, or how much memory it takes. Autocast for ``cuda`` casts what it casts for the
processor. One device, one stream. Not simulated: pickling, DLPack, ``torch.compile``, gradients through a copy from one device to another.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest
import torch
from torch.multiprocessing.reductions import StorageWeakRef
from torch.nn.parameter import UninitializedTensorMixin
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

from simulated_stream import Event, Stream

CUDA = torch.device("cuda", 0)
HOST = torch.device("cpu")

aten: Any = torch.ops.aten

INDEXED = {aten.index, aten._unsafe_index, aten.index_put, aten.index_put_, aten._index_put_impl_, aten._unsafe_index_put}
"""Operations that take indices from the processor for a tensor on the device."""

TAKE_NUMBERS = {*INDEXED, aten.fill, aten.fill_, aten.masked_fill, aten.masked_fill_, aten.index_fill, aten.index_fill_}
"""Operations besides the elementwise ones that take a tensor without dimensions from the processor."""

WAITING = {aten._local_scalar_dense, aten.nonzero, aten.equal, aten.is_nonzero, aten.masked_select}
"""Operations whose result, or its shape, the processor waits for."""


class Marks:
    """Storages that are marked; the mark ends with the storage."""

    def __init__(self) -> None:
        self._marked: dict[int, StorageWeakRef] = {}
        self._most = 4096

    def add(self, tensor: torch.Tensor) -> None:
        storage = tensor.untyped_storage()
        self._marked[storage._cdata] = StorageWeakRef(storage)  # while it lives no other storage gets the same address
        if len(self._marked) > self._most:
            self._marked = {k: v for k, v in list(self._marked.items()) if not v.expired()}
            self._most = 2 * len(self._marked) + 4096

    def __contains__(self, tensor: torch.Tensor) -> bool:
        return not isinstance(tensor, UninitializedTensorMixin) and tensor.untyped_storage()._cdata in self._marked


class Machine:
    """What every thread shares: which storages are on the device or pinned, what is under way, the device's random numbers."""

    def __init__(self) -> None:
        self.device, self.pinned, self.stream = Marks(), Marks(), Stream()
        self.generator = torch.Generator()
        self.local = threading.local()

    def modes(self) -> contextlib.ExitStack:
        """The simulation in the thread that enters it."""
        stack = contextlib.ExitStack()
        stack.enter_context(_Operations(self))
        stack.enter_context(_Functions(self))
        return stack

    @contextlib.contextmanager
    def calling(self, name: str, value: bool) -> Iterator[None]:
        """Note something of the call from Python that is being carried out: ``on_device`` or ``to_host``."""
        before = getattr(self.local, name, False)
        setattr(self.local, name, value)
        try:
            yield
        finally:
            setattr(self.local, name, before)

    def noted(self, name: str) -> bool:
        return getattr(self.local, name, False)

    # -- operations, below autograd

    def execute(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        tensors = [t for t in pytree.tree_leaves((args, kwargs)) if isinstance(t, torch.Tensor)]
        packet, here = func.overloadpacket, any(t in self.device for t in tensors)
        if packet in (aten._to_copy, aten.copy_):
            return self._copy(func, args, kwargs)
        if packet is aten.is_pinned:
            return args[0] in self.pinned
        asked = kwargs.get("device")
        factory = not tensors or asked is not None
        there = (asked is not None and asked.type == "cuda") or (here and asked is None) or (factory and self.noted("on_device"))
        if here:
            self._check(func, args, kwargs, tensors)
        self._check_generator(args, kwargs, there)
        hosts = [t for t in tensors if t not in self.device]
        if not is_view(func):
            self.stream.check(hosts, [t for t in written(func, args, kwargs) if t not in self.device])
        if here and packet in WAITING:
            self.stream.synchronize()
        plain = {k: v for k, v in kwargs.items() if k != "pin_memory"}
        if asked is not None and asked.type == "cuda":
            plain["device"] = HOST
        if packet is aten._pin_memory:
            found = args[0].clone()
        else:
            with self._drawing(func, args, kwargs) if there else contextlib.nullcontext():
                found = func(*args, **plain)
        marks = self.device if there else self.pinned if packet is aten._pin_memory or kwargs.get("pin_memory") else None
        if marks is not None:
            self._mark(marks, found, hosts)
        return found

    def _mark(self, marks: Marks, found: Any, hosts: Sequence[torch.Tensor]) -> None:
        theirs = {t.untyped_storage()._cdata for t in hosts}
        for tensor in pytree.tree_leaves(found):
            if isinstance(tensor, torch.Tensor) and tensor not in marks and tensor.untyped_storage()._cdata not in theirs:
                marks.add(tensor)

    def _check(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], tensors: Sequence[torch.Tensor]) -> None:
        """Raise where tensors of the processor take part that CUDA would not take."""
        packet = func.overloadpacket
        if packet is aten.set_ or "_foreach_copy" in str(packet):
            return
        changed = written(func, args, kwargs)
        free = {id(t) for t in pytree.tree_leaves(args[1]) if t is not None} if packet in INDEXED and args[0] in self.device else set[int]()
        numbers = torch.Tag.pointwise in func.tags or packet in TAKE_NUMBERS or "_foreach" in str(packet)
        for tensor in tensors:
            if tensor in self.device or id(tensor) in free:
                continue
            if numbers and not tensor.dim() and not any(tensor is c for c in changed):
                continue
            raise RuntimeError(
                f"Expected all tensors to be on the same device, but found at least two devices, {CUDA} and cpu! ({func}, simulated)"
            )

    def _check_generator(self, args: tuple[Any, ...], kwargs: dict[str, Any], there: bool) -> None:
        if there and any(isinstance(a, torch.Generator) for a in (*args, *kwargs.values())):
            raise RuntimeError("Expected a 'cuda' device type for generator but found 'cpu'")

    @contextlib.contextmanager
    def _drawing(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Iterator[None]:
        """Draw from the device's own generator, and leave the processor's as it is."""
        if torch.Tag.nondeterministic_seeded not in func.tags:
            yield
            return
        before = torch.default_generator.get_state()
        torch.default_generator.set_state(self.generator.get_state())
        try:
            yield
        finally:
            self.generator.set_state(torch.default_generator.get_state())
            torch.default_generator.set_state(before)

    def _copy(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """``_to_copy`` and ``copy_``: the operations that go from one device to another."""
        making = func.overloadpacket is aten._to_copy
        source, asked = (args[0] if making else args[1]), kwargs.get("device")
        later = bool(kwargs.get("non_blocking", False) if making else (args[2] if len(args) > 2 else kwargs.get("non_blocking", False)))
        here = source in self.device
        if making:
            there = asked.type == "cuda" if asked is not None and asked.type != "cpu" else here and not self.noted("to_host")
            kwargs = {k: v for k, v in kwargs.items() if k not in ("non_blocking", "pin_memory")}
            kwargs = kwargs | ({"device": HOST} if asked is not None and asked.type == "cuda" else {})
        else:
            there = args[0] in self.device
        self.stream.check([] if here else [source], [] if there or making else [args[0]])
        if here and not there:
            return self._arriving(func, args, kwargs, later and (making or args[0] in self.pinned))
        found = func(*args, **kwargs)
        if there and making:
            self.device.add(found)
        if there and not here and later and source in self.pinned:
            self.stream.leaves(source)
        return found

    def _arriving(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], later: bool) -> torch.Tensor:
        """From the device to the processor: at once, waiting for all that was begun, or later."""
        if not later:
            self.stream.synchronize()
            return func(*args, **kwargs)
        if func.overloadpacket is aten._to_copy:
            value = func(*args, **kwargs)
            target = torch.full_like(value, torch.nan if value.is_floating_point() else 0)
            self.pinned.add(target)
        else:
            target, value = args[0], args[1].clone()
        self.stream.arrives(target, value)
        return target

    # -- calls from Python

    def call(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        handler = _HANDLERS.get(func)
        if handler is not None and ((args and isinstance(args[0], torch.Tensor)) or func in _MAKERS):
            return handler(self, func, args, kwargs)
        if getattr(func, "__name__", "") == "__get__":
            return func(*args, **kwargs)
        tensors = (t for t in pytree.tree_leaves((args, kwargs)) if isinstance(t, torch.Tensor))
        with self.calling("on_device", kwargs.get("device") is None and any(t in self.device for t in tensors)):
            return func(*args, **kwargs)

    def place(self, tensor: torch.Tensor) -> torch.device:
        return CUDA if tensor in self.device else tensor.device

    def move(self, tensor: torch.Tensor, device: torch.device | None, **how: Any) -> torch.Tensor:
        """``Tensor.to``, which for torch itself always begins on the processor."""
        here = tensor in self.device
        if device is None or (device.type == "cuda") == here:
            with self.calling("on_device", here):
                return tensor.to(**{k: v for k, v in how.items() if v is not None and k != "non_blocking"})
        how = {k: v for k, v in how.items() if v is not None}
        with self.calling("to_host", here):
            return tensor.to(**{**how, "device": device, "copy": True})


def is_view(func: Any) -> bool:
    return any(r.alias_info is not None and not r.alias_info.is_write for r in func._schema.returns)


def written(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[torch.Tensor]:
    """The tensors that an operation changes."""
    schema = func._schema.arguments
    if not any(a.alias_info is not None and a.alias_info.is_write for a in schema):
        return []
    given = [(s, a) for s, a in zip(schema, args, strict=False)] + [(s, kwargs[s.name]) for s in schema if s.name in kwargs]
    leaves = (pytree.tree_leaves(a) for s, a in given if s.alias_info is not None and s.alias_info.is_write)
    return [t for group in leaves for t in group if isinstance(t, torch.Tensor)]


class _Operations(TorchDispatchMode):
    def __init__(self, machine: Machine) -> None:
        super().__init__()
        self.machine = machine

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None) -> Any:
        with torch._C.DisableTorchFunction():
            return self.machine.execute(func, args, kwargs or {})


class _Functions(TorchFunctionMode):
    def __init__(self, machine: Machine) -> None:
        super().__init__()
        self.machine = machine

    def __torch_function__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None) -> Any:
        return self.machine.call(func, args, kwargs or {})


def _to(machine: Machine, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    tensor, *rest = args
    how = {"copy": kwargs.pop("copy")} if "copy" in (kwargs := dict(kwargs)) else {}
    other = rest[0] if rest and isinstance(rest[0], torch.Tensor) else kwargs.get("other")
    device, dtype, later, layout = torch._C._nn._parse_to(*rest, **kwargs)
    device = device if other is None else machine.place(other)
    return machine.move(tensor, device, dtype=dtype, non_blocking=later, memory_format=layout, **how)


def _make(machine: Machine, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """``torch.tensor`` and its like: made on the processor, and then moved."""
    kwargs = dict(kwargs)
    device, wanted = kwargs.pop("device", None), kwargs.pop("requires_grad", False)
    device = None if device is None else torch.device(device)
    if device is None:
        given = [t for t in pytree.tree_leaves(args) if isinstance(t, torch.Tensor)]
        device = machine.place(given[0]) if given else HOST
    made = machine.move(func(*args, **kwargs), device)
    return made.requires_grad_() if wanted else made


def _numpy(machine: Machine, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    if args[0] in machine.device:
        raise TypeError(f"can't convert {CUDA} device type tensor to numpy. Use Tensor.cpu() to copy the tensor to host memory first.")
    machine.stream.check([args[0]], [])
    return func(*args, **kwargs)


def _refused(machine: Machine, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    if args[0] in machine.device:
        raise NotImplementedError(f"{func} of a tensor on a simulated device")
    return func(*args, **kwargs)


def _deepcopy(machine: Machine, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    found = func(*args, **kwargs)
    if args[0] in machine.device:
        machine.device.add(found)
        if args[0].grad is not None:
            machine.device.add(found.grad)
    return found


def _set_grad(machine: Machine, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    if args[1] is not None and (args[0] in machine.device) != (args[1] in machine.device):
        raise RuntimeError("assigned grad has data located on a different device")
    return func(*args, **kwargs)


_T: Any = torch.Tensor
_MAKERS: set[Any] = {torch.tensor, torch.as_tensor, torch.asarray}
_HANDLERS: dict[Any, Callable[[Machine, Any, tuple[Any, ...], dict[str, Any]], Any]] = {
    _T.device.__get__: lambda m, f, a, k: m.place(a[0]),
    _T.is_cuda.__get__: lambda m, f, a, k: a[0] in m.device,
    _T.is_cpu.__get__: lambda m, f, a, k: a[0] not in m.device and f(*a),
    _T.get_device: lambda m, f, a, k: 0 if a[0] in m.device else f(*a),
    _T.grad.__set__: _set_grad,
    _T.to: _to,
    _T.cpu: lambda m, f, a, k: m.move(a[0], HOST, **k),
    _T.cuda: lambda m, f, a, k: m.move(a[0], CUDA, non_blocking=k.get("non_blocking", False)),
    _T.numpy: _numpy,
    _T.__array__: _numpy,
    _T.tolist: lambda m, f, a, k: m.move(a[0], HOST).tolist() if a[0] in m.device else f(*a),
    _T.new_tensor: _make,
    _T.__deepcopy__: _deepcopy,
    **dict.fromkeys(_MAKERS, _make),
    **dict.fromkeys((_T.__dlpack__, _T.type), _refused),
}


@contextlib.contextmanager
def simulated_cuda() -> Iterator[Machine]:
    """A machine with one CUDA device, for this thread and for those that are started meanwhile."""
    machine = Machine()
    torch._C._ensureCUDADeviceGuardSet()
    with pytest.MonkeyPatch.context() as patch:
        for name, value in _cuda_module(machine).items():
            patch.setattr(torch.cuda, name, value)
        _patch_torch(machine, patch)
        with machine.modes():
            yield machine


def _cuda_module(machine: Machine) -> dict[str, Any]:
    """What ``torch.cuda`` answers."""
    stream, generator = machine.stream, machine.generator
    return {
        "_lazy_init": lambda: None,
        "is_available": lambda: True,
        "device_count": lambda: 1,
        "current_device": lambda: 0,
        "get_device_name": lambda device=None: "simulated",
        "is_bf16_supported": lambda including_emulation=True: True,
        "is_current_stream_capturing": lambda: False,
        "synchronize": lambda device=None: stream.synchronize(),
        "current_stream": lambda device=None: stream,
        "default_stream": lambda device=None: stream,
        "Event": lambda **how: Event(stream),
        "manual_seed": generator.manual_seed,
        "manual_seed_all": generator.manual_seed,
        "get_rng_state": lambda device="cuda": generator.get_state(),
        "set_rng_state": lambda state, device="cuda": generator.set_state(state),
    }


def _patch_torch(machine: Machine, patch: pytest.MonkeyPatch) -> None:
    """What torch asks below Python: threads, autocast, and which tensors an optimizer takes together."""
    pickled = torch.Tensor._reduce_ex_internal
    run, autocast, group = threading.Thread.run, torch.autocast.__init__, torch._C._group_tensors_by_device_and_dtype

    def run_simulated(thread: threading.Thread) -> None:
        with machine.modes():
            run(thread)

    def autocast_simulated(self: torch.autocast, device_type: str, dtype: torch.dtype | None = None, *args: Any, **kwargs: Any) -> None:
        if device_type == "cuda":
            device_type, dtype = "cpu", dtype or torch.float16
        autocast(self, device_type, dtype, *args, **kwargs)

    def group_simulated(lists: Any, with_indices: bool = False) -> Any:
        groups = {}
        for (device, dtype), found in group(lists, with_indices).items():
            groups[CUDA if found[0][0][0] in machine.device else device, dtype] = found
        return groups

    def pickled_simulated(self: torch.Tensor, protocol: int) -> Any:
        return _refused(machine, pickled, (self, protocol), {})

    patch.setattr(torch.Tensor, "_reduce_ex_internal", pickled_simulated)
    patch.setattr(threading.Thread, "run", run_simulated)
    patch.setattr(torch.autocast, "__init__", autocast_simulated)
    patch.setattr(torch._C, "_group_tensors_by_device_and_dtype", group_simulated)
