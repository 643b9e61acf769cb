"""Pictures decoded by a process of its own while this one imports torch.

Importing torch and opening a network keep one processor busy for seconds, and the others idle: threads cannot use them, for the
import holds the interpreter. So the command line starts a process that needs no torch, which reads, checks and decodes the images
of the job into memory that both see, up to a fixed number. Whoever then wants the pixels of some content gets those that are there
and decodes the rest. Nothing depends on it: where the process cannot start, or dies, all are decoded as ever.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, cast

import numpy as np

from frostline._digest import bytes_digest
from frostline.data.crop import RESAMPLING, Crop
from frostline.data.decode import decode, read_image_bytes
from frostline.data.read import read_data
from frostline.errors import FrostlineError

MOST_BYTES = 96 << 20
"""The most memory that pictures decoded ahead may take."""

_EMBEDDED = {"name": "tf_efficientnet_lite0", "weights": "default"}
_EMBEDDED_CROP = Crop((224, 224), 256, "center", "bicubic")


@dataclass
class Ahead:
    """A process that decodes, and the memory that it decodes into.

    Attributes:
        process: the other process.
        memory: file of the pictures, one behind the other in the order of the index.
        index: the end of a pipe, never waited for, that gives the digest of each finished picture, a line each.
        crop: what is done to each picture.
        places: where each picture is, of those that have been heard of.
        heard: the beginning of a line.
        ended: whether the process is.
        asking: held while the pipe is read, for many threads ask at once.
    """

    process: subprocess.Popen[bytes]
    memory: int
    index: int
    crop: Crop
    places: dict[str, int] = field(default_factory=dict[str, int])
    heard: bytes = b""
    ended: bool = False
    asking: threading.Lock = field(default_factory=threading.Lock)

    def settled(self) -> dict[str, int]:
        """End the process, and say which pictures are there."""
        with self.asking:
            if not self.ended:
                self.ended = True
                self.process.kill()
                self.process.wait()
                self._listen()
                os.close(self.index)
            return self.places

    def _listen(self) -> None:
        """Read what the process has told so far."""
        with contextlib.suppress(BlockingIOError):
            while told := os.read(self.index, 1 << 16):
                *lines, self.heard = (self.heard + told).split(b"\n")
                self.places.update((line.decode(), place) for place, line in enumerate(lines, len(self.places)))

    def _place(self, digest: str) -> int | None:
        """Where a picture is. Who asks for one that is not there yet decodes from now on, and needs the processors himself."""
        with self.asking:
            if digest not in self.places and not self.ended:
                self._listen()
            if digest in self.places:
                return self.places[digest]
        return self.settled().get(digest)

    def pixels(self, digest: str, crop: Crop) -> np.ndarray[Any, np.dtype[np.uint8]] | None:
        """``(H, W, 3)`` uint8 of the picture with this content, if it is there."""
        place = self._place(digest) if crop == self.crop else None
        if place is None:
            return None
        size = _picture_bytes(crop)
        data = os.pread(self.memory, size, place * size)
        return np.frombuffer(bytearray(data), np.uint8).reshape(*crop.size, 3) if len(data) == size else None

    def close(self) -> None:
        """End the process, and give the memory back."""
        self.settled()
        os.close(self.memory)


_ahead: Ahead | None = None


def pixels_ahead(digest: str, crop: Crop) -> np.ndarray[Any, np.dtype[np.uint8]] | None:
    """The pixels of the picture with this content, ``(H, W, 3)`` uint8, if they were decoded ahead."""
    return None if _ahead is None else _ahead.pixels(digest, crop)


@contextlib.contextmanager
def decoding_ahead(data: Path, val: Path | None, backbone: str | None, weights: str | None, cache: Path | None) -> Iterator[None]:
    """Decode ahead as long as the block runs, where it is known what the backbone wants to see and a second processor is there.

    Args:
        data: the images.
        val: separate images of validation.
        backbone: its name; None for the embedded one.
        weights: where they are from; None for the published ones.
        cache: folder of the feature cache; pictures that have features there are left out.
    """
    global _ahead
    name = backbone or _EMBEDDED["name"]
    crop = _crop_of({"name": name, "weights": weights or _EMBEDDED["weights"]}, cache)
    if crop is None or sys.platform != "linux" or len(os.sched_getaffinity(0)) < 2:
        yield
        return
    job = {"data": str(data), "val": None if val is None else str(val), "crop": asdict(crop), "backbone": name}
    _ahead = _start({**job, "cache": None if cache is None else str(cache)}, crop)
    try:
        yield
    finally:
        started, _ahead = _ahead, None
        if started is not None:
            started.close()


def _start(job: dict[str, Any], crop: Crop) -> Ahead | None:
    """The process; None where the machine gives no memory, pipe or process."""
    if sys.platform != "linux":
        return None
    try:
        memory = os.memfd_create("frostline")
        index, told = os.pipe()
        os.set_blocking(index, False)
    except OSError:
        return None
    try:
        # -P: what lies in the user's folder is never imported. A group of its own: an interrupt is for this process to answer.
        command = [sys.executable, "-P", "-m", "frostline.ahead", json.dumps({**job, "memory": memory, "index": told})]
        process = subprocess.Popen(
            command,
            pass_fds=(memory, told),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            process_group=0,
        )
    except OSError:
        os.close(memory)
        os.close(index)
        return None
    finally:
        os.close(told)
    return Ahead(process, memory, index, crop)


def _crop_of(backbone: dict[str, str], cache: Path | None) -> Crop | None:
    """What a backbone wants to see, as far as that is known without its library: of the embedded one, and of those on record."""
    for record in () if cache is None else sorted((cache / "backbones").glob("*.json")):
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            found = cast("dict[str, Any]", json.loads(record.read_bytes()))
            if {name: found[name] for name in backbone} == backbone:
                shown = found["preprocess"]
                return _crop({"size": shown["crop"], **{name: shown[name] for name in ("resize", "mode", "interpolation")}})
    return _EMBEDDED_CROP if backbone == _EMBEDDED else None


def _crop(settings: dict[str, Any]) -> Crop:
    crop = Crop((settings["size"][0], settings["size"][1]), settings["resize"], settings["mode"], settings["interpolation"])
    if crop.interpolation not in RESAMPLING:
        raise ValueError(crop.interpolation)
    return crop


def _picture_bytes(crop: Crop) -> int:
    return 3 * crop.size[0] * crop.size[1]


def _known(backbone: str, cache: Path | None) -> set[str]:
    """Digests of the images that some cut of a backbone has features of: a later run seldom wants their pixels."""
    known: set[str] = set()
    for key in () if cache is None else sorted((cache / "features").glob("*/key.json")):
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            if json.loads(key.read_bytes())["backbone"] == backbone:
                for shard in key.parent.glob("*.json"):
                    known.update(json.loads(shard.read_bytes()).get("digests", ()))
    return known


def decode_ahead(job: dict[str, Any]) -> None:
    """What the process does: decode picture after picture until the memory is full, and tell of each."""
    crop = _crop(job["crop"])
    size = _picture_bytes(crop)
    cache = None if job["cache"] is None else Path(job["cache"])
    seen = _known(job["backbone"], cache)
    place = 0
    for record in read_data(Path(job["data"]), None if job["val"] is None else Path(job["val"])).records:
        if (place + 1) * size > MOST_BYTES:
            return
        with contextlib.suppress(FrostlineError):  # whoever wants this picture will find out what is wrong with it
            data = read_image_bytes(record.path)
            digest = bytes_digest(data)
            if digest not in seen:
                seen.add(digest)
                os.pwrite(job["memory"], crop.of(decode(data).image).tobytes(), place * size)
                os.write(job["index"], f"{digest}\n".encode())
                place += 1


if __name__ == "__main__":
    os.nice(19)  # what the other process leaves: its parallel operations would wait for a processor that this one holds
    with contextlib.suppress(FrostlineError, BrokenPipeError):
        decode_ahead(json.loads(sys.argv[1]))
