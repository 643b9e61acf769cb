"""The only place where frostline writes files: a reader sees the old content or the new, never a part.

Temp file in the same folder, write, fsync, rename, fsync of the folder (``man 2 rename``; a rename without the first
fsync may leave an empty file after a power cut).
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO


@contextlib.contextmanager
def atomic_file(path: Path) -> Iterator[BinaryIO]:
    """Open a new version of ``path`` for writing; it replaces the old one when the block ends without an error.

    Raises:
        OSError: the folder is not writable or the disk is full; the old content is untouched.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{path.name[:40]}.", suffix=".part", dir=path.parent)
    temporary = Path(name)
    try:
        with os.fdopen(handle, "wb") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        temporary.chmod(0o666 & ~_umask())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    _sync_folder(path.parent)


def write_bytes(path: Path, data: bytes) -> None:
    """Replace the content of ``path`` by ``data``, atomically."""
    with atomic_file(path) as stream:
        stream.write(data)


def write_text(path: Path, text: str) -> None:
    """Replace the content of ``path`` by ``text`` in UTF-8, atomically; names that are no UTF-8 are escaped."""
    write_bytes(path, text.encode("utf-8", errors="backslashreplace"))


def check_writable(folder: Path) -> None:
    """Find out whether files can be made in a folder, which is made where it is not there; nothing else is left behind.

    Raises:
        OSError: they cannot.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=folder):
        pass


def _umask() -> int:
    current = os.umask(0)
    os.umask(current)
    return current


def _sync_folder(folder: Path) -> None:
    try:
        handle = os.open(folder, os.O_RDONLY)
    except OSError:  # Windows cannot open a folder
        return
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextlib.contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """A folder to fill, which becomes ``path`` as a whole when the block ends without an error; if another is there by then, it stays.

    Raises:
        OSError: nothing can be written there.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    made = Path(tempfile.mkdtemp(prefix=f".{path.name[:40]}.", suffix=".part", dir=path.parent))
    try:
        made.chmod(0o777 & ~_umask())
        yield made
        for file in made.iterdir():
            with file.open("rb") as stream:
                os.fsync(stream.fileno())
        with contextlib.suppress(FileExistsError, OSError):
            made.rename(path)
            _sync_folder(path.parent)
    finally:
        shutil.rmtree(made, ignore_errors=True)


def remove_folder(path: Path) -> None:
    """Remove a folder and what is in it, as far as that can be."""
    shutil.rmtree(path, ignore_errors=True)
