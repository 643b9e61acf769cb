"""The only reader of weight files: safetensors first, a foreign ``.pth`` only with ``weights_only=True``.

Loading is strict. What a wrapper put before the names (``module.``, ``_orig_mod.``, ``backbone.``, ``encoder.``) is taken
off and said; a tensor that is missing is an error that names it; only the classifier, which is replaced anyway, may differ.
"""

from __future__ import annotations

import pickle
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from frostline.errors import WeightsError

_WRAPPERS = ("module.", "_orig_mod.", "model.", "backbone.", "encoder.")
_CONTAINERS = ("state_dict_ema", "state_dict", "model_state_dict", "model", "model_ema", "net", "teacher", "student")


@dataclass(frozen=True)
class LoadReport:
    """What was loaded.

    Attributes:
        source: the file, package or address in words.
        loaded: tensors taken from the file.
        total: tensors the network has, without its classifier where that was re-initialised.
        stripped: prefixes taken off the names in the file.
        left_over: names in the file that the network has no place for.
        classifier_kept: the file's own classifier fitted and is kept for comparison.
    """

    source: str
    loaded: int
    total: int
    stripped: tuple[str, ...] = ()
    left_over: tuple[str, ...] = ()
    classifier_kept: bool = False

    def __str__(self) -> str:
        text = f"loaded {self.loaded} of {self.total} tensors from {self.source}"
        if self.stripped:
            text += f", prefix {' '.join(self.stripped)} taken off"
        if self.left_over:
            text += f", {len(self.left_over)} left over ({', '.join(self.left_over[:3])})"
        return text


def read_state(path: Path) -> dict[str, torch.Tensor]:
    """Names and tensors of a weights file.

    Raises:
        WeightsError: no such file, not a weights file, or it holds NaN or infinite values.
    """
    if not path.is_file():
        raise WeightsError("no such weights file", where=path)
    try:
        if path.suffix == ".safetensors":
            return _finite(load_file(path), path)
        read: object = torch.load(path, map_location="cpu", weights_only=True)
    except (
        SafetensorError,
        pickle.UnpicklingError,
        zipfile.BadZipFile,
        RuntimeError,
        EOFError,
        OSError,
        ValueError,
        KeyError,
        AttributeError,
        TypeError,
        IndexError,
    ) as fault:
        raise WeightsError(
            f"not a weights file that is safe to read ({str(fault).splitlines()[0][:120] if str(fault) else type(fault).__name__})",
            where=path,
            advice="give a safetensors file or a state dict saved by torch.save",
        ) from fault
    return _finite(_unwrap(read, path), path)


def load_into(module: nn.Module, state: Mapping[str, torch.Tensor], *, source: str, classifier: Sequence[str] = ()) -> LoadReport:
    """Load ``state`` into ``module``, strictly; tensors named in ``classifier`` may be absent or of another size.

    Raises:
        WeightsError: how many tensors matched, and which are missing or of another shape.
    """
    wanted = module.state_dict()
    state, stripped = _strip(state, wanted)
    missing = [n for n in wanted if n not in state and not n.endswith("num_batches_tracked")]
    wrong = [n for n in wanted if n in state and state[n].shape != wanted[n].shape]
    spare = set(classifier)
    unfit = [n for n in (*missing, *wrong) if n in spare]
    missing, wrong = [n for n in missing if n not in spare], [n for n in wrong if n not in spare]
    fitting = {n: state[n] for n in wanted if n in state and n not in wrong and n not in unfit}
    if missing or wrong:
        named = [*missing, *(f"{n} {tuple(state[n].shape)} for {tuple(wanted[n].shape)}" for n in wrong)]
        more = f" and {len(named) - 4} more" if len(named) > 4 else ""
        raise WeightsError(
            f"{len(fitting)} of {len(wanted)} tensors match; missing or of another shape: {', '.join(named[:4])}{more}",
            where=source,
            advice="give the weights of this very architecture",
        )
    module.load_state_dict(fitting, strict=False)
    total = len(wanted) - len(unfit)
    left_over = tuple(n for n in state if n not in wanted)
    return LoadReport(source, len(fitting), total, stripped, left_over, bool(spare) and not unfit)


def _unwrap(read: object, path: Path) -> dict[str, torch.Tensor]:
    for _ in range(3):
        if not isinstance(read, Mapping):
            break
        found = cast("Mapping[object, object]", read)
        if found and all(isinstance(v, torch.Tensor) for v in found.values()):
            return {str(k): cast("torch.Tensor", v) for k, v in found.items()}
        inner = next((found[c] for c in _CONTAINERS if isinstance(found.get(c), Mapping)), None)
        if inner is None:
            break
        read = inner
    raise WeightsError(
        "holds no state dict (a mapping of names to tensors)",
        where=path,
        advice="save model.state_dict() and give that file",
    )


def _finite(state: dict[str, torch.Tensor], path: Path) -> dict[str, torch.Tensor]:
    for name, tensor in state.items():
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            raise WeightsError(f"tensor {name} holds NaN or infinite values", where=path)
    return state


def _strip(state: Mapping[str, torch.Tensor], wanted: Mapping[str, torch.Tensor]) -> tuple[dict[str, torch.Tensor], tuple[str, ...]]:
    """Take wrapper prefixes off, as long as doing so matches more of the wanted names."""
    best, taken = dict(state), tuple[str, ...]()
    while True:
        for prefix in _WRAPPERS:
            shorter = {n.removeprefix(prefix): t for n, t in best.items() if n.startswith(prefix)}
            matched = sum(n in wanted for n in best)
            whole = not matched and len(shorter) == len(best) > 0
            if whole or sum(n in wanted for n in shorter) > matched:
                best, taken = shorter, (*taken, prefix)
                break
        else:
            return best, taken
