"""A backbone that is known and not opened: its tensors under their names, read from the weights file, without the library they are for.

Opening a network of timm's costs more time than training a head on cached features. Once it was opened, a record of it is kept;
where nothing has to be run through the network, the record and the weights file are enough. docs/design/0004-engines.md.
"""

from __future__ import annotations

import importlib.metadata
import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NoReturn, cast

import torch
from torch import nn

from frostline._atomic import write_text
from frostline._digest import file_digest, settings_digest, tensor_digest, tensors_digest
from frostline.backbone._checkpoint import LoadReport, read_state
from frostline.backbone._embedded import packaged
from frostline.backbone.network import Backbone
from frostline.backbone.preprocess import Preprocess
from frostline.backbone.spec import BackboneSpec
from frostline.errors import BackboneError, FrostlineError

_FORMAT = 1


class Sealed(nn.Module):
    """Holds the tensors of a network, and cannot be run.

    Args:
        features: shape of one image's features.
        tensors: by dotted name; whether each is a parameter.
    """

    def __init__(self, features: tuple[int, ...], tensors: dict[str, tuple[torch.Tensor, bool]]) -> None:
        super().__init__()
        self.shape_of_features = features  # no network has a layer of that name
        met: set[int] = set()
        for name, (given, is_parameter) in tensors.items():
            tensor = given.clone() if id(given) in met else given  # equal tensors of the network are one in the file
            met.add(id(given))
            owner, _, leaf = name.rpartition(".")
            place = self._place(owner)
            if is_parameter:
                place.register_parameter(leaf, nn.Parameter(tensor))
            else:
                place.register_buffer(leaf, tensor)

    def _place(self, name: str) -> nn.Module:
        place: nn.Module = self
        for part in filter(None, name.split(".")):
            if part not in dict(place.named_children()):
                place.add_module(part, nn.Module())
            place = place.get_submodule(part)
        return place

    def forward(self, images: torch.Tensor) -> NoReturn:
        """Nothing can be run.

        Raises:
            BackboneError: always; what was cached when the run began is not there any more.
        """
        raise BackboneError(f"has to be run on {len(images)} images that were cached a moment ago", advice="run the same command again")


def record_backbone(opened: Backbone, features: tuple[int, ...], cache: Path) -> None:
    """Keep a record of an opened backbone whose weights are in one file; of others, and where nothing can be written, keep none.

    Args:
        opened: as it was opened; its tensors must be those of the file.
        features: shape of one image's features.
        cache: folder of the cache.
    """
    path = _record_path(opened.name, opened.weights, cache)
    if path is None or is_record(path):
        return
    file = _weights_file(opened.name, opened.weights)
    assert file is not None  # there is no record path without one
    origin = {tensor_digest(t): n for n, t in read_state(file).items()}
    parameters = dict(opened.body.named_parameters())
    every = {**parameters, **dict(opened.body.named_buffers())}
    state = opened.body.state_dict()
    if set(state) != set(every) or any(tensor_digest(t) not in origin for t in state.values()):
        return  # it has tensors that no file holds
    record = {
        "name": opened.name,
        "weights": opened.weights,
        "preprocess": opened.preprocess.settings(),
        "report": asdict(opened.report),
        "architecture": opened.architecture,
        "first_tokens": opened.first_tokens,
        "digest": opened.digest,
        "features": list(features),
        "tensors": {n: [origin[tensor_digest(t)], n in parameters] for n, t in state.items()},
    }
    try:
        write_text(path, json.dumps({**record, "self": settings_digest(record)}))
    except OSError:  # the next run opens the network again
        return


@dataclass(frozen=True, eq=False)
class Recorded:
    """What was recorded of a backbone when it was opened.

    Attributes:
        name: as in :class:`Backbone`.
        preprocess: likewise.
        architecture: likewise.
        digest: likewise; whether the file still gives these tensors is found out by :meth:`sealed`.
        file: the weights file.
        values: the record.
    """

    name: str
    preprocess: Preprocess
    architecture: str
    digest: str
    file: Path
    values: dict[str, Any] = field(repr=False)

    def sealed(self) -> Backbone | None:
        """The backbone with its tensors, sealed; None where the file does not give the tensors that were recorded."""
        try:
            state = read_state(self.file)
            tensors = {n: (state[origin], bool(kind)) for n, (origin, kind) in self.values["tensors"].items()}
            body = Sealed(tuple(self.values["features"]), tensors)
            report = cast("dict[str, Any]", {k: tuple(v) if isinstance(v, list) else v for k, v in self.values["report"].items()})
            if tensors_digest(body.state_dict()) != self.digest:
                return None
            return Backbone(
                self.name,
                body,
                self.preprocess,
                self.values["weights"],
                LoadReport(**report),
                self.architecture,
                first_tokens=self.values["first_tokens"],
                digest=self.digest,
            )
        except (OSError, ValueError, KeyError, TypeError, AttributeError, FrostlineError):
            return None


def recorded_backbone(source: str, weights: str, cache: Path) -> Recorded | None:
    """The record of a backbone; None where there is none."""
    path = _record_path(source, weights, cache)
    record = None if path is None else _read(path)
    file = _weights_file(source, weights)
    if record is None or file is None:
        return None
    try:
        preprocess = Preprocess.from_settings(record["preprocess"])
        return Recorded(record["name"], preprocess, record["architecture"], record["digest"], file, record)
    except (KeyError, TypeError, AttributeError, FrostlineError):
        return None


def is_record(path: Path) -> bool:
    """Whether a file is a record of which every byte is as it was written."""
    return _read(path) is not None


def _read(path: Path) -> dict[str, Any] | None:
    try:
        record = cast("dict[str, Any]", json.loads(path.read_text(encoding="utf-8")))
        return record if record.pop("self") == settings_digest(record) else None
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def _record_path(source: str, weights: str, cache: Path) -> Path | None:
    file = _weights_file(source, weights)
    if file is None:
        return None
    try:
        versions = {n: importlib.metadata.version(n) for n in ("timm", "torchvision")}
    except importlib.metadata.PackageNotFoundError:  # taken from a folder: nobody knows which version it is
        return None
    spec = BackboneSpec.parse(source)
    key = {"format": _FORMAT, "spec": str(spec), "weights": weights, "file": file_digest(file), "torch": torch.__version__, **versions}
    return cache / "backbones" / f"{settings_digest(key)[:32]}.json"


def _weights_file(source: str, weights: str) -> Path | None:
    """The one file that the weights of a library's network come from, where that is known without the library."""
    spec = BackboneSpec.parse(source)
    if spec.family == "own" or weights == "random":
        return None
    if weights != "default":
        return Path(weights) if Path(weights).is_file() else None
    try:
        package = packaged(spec.name) if spec.family == "timm" else None
        return None if package is None else package.file()
    except FrostlineError:
        return None
