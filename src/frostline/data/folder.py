"""Images sorted into folders: ``root/class/*`` or ``root/{train,val,test}/class/*``."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from frostline.data.manifest import ImageRecord, Manifest
from frostline.errors import DataError, near_names

ALIASES = {"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}
_ADVICE = "put the images into one folder a class, such as DATA/ants/1.jpg"
_PICTURES = {".jpg", ".jpeg", ".png", ".gif", ".bmp", ".webp", ".tif", ".tiff"}


@dataclass
class _Found:
    """Class folders below one root, with their files."""

    classes: dict[str, list[Path]] = field(default_factory=dict[str, list[Path]])
    notes: list[str] = field(default_factory=list[str])


def read_folder(root: Path) -> Manifest:
    """Read a folder of class folders, or one with ``train``, ``val`` (``valid``, ``validation``) and ``test`` in it.

    Every file below a class folder that has no dot name is listed; whether it is an image is found out when it is decoded.
    Class names are the folders' names, sorted by code point.

    Raises:
        DataError: no such folder, no images, one class only, or a class in val or test that train does not have.
    """
    parts = {split: _find(folder, root) for split, folder in _split_folders(root).items()}
    if not parts:
        found = _find(_existing(root), root)
        classes = _usable_classes(found, root)
        return Manifest(classes, tuple(_records(found, classes, None)), tuple(found.notes))
    if "train" not in parts:
        raise DataError("has no train folder beside the others", where=root, advice="name one of them train")
    classes = _usable_classes(parts["train"], root / "train")
    records: list[ImageRecord] = []
    for split, found in parts.items():
        _check_known(found, classes, root / split)
        records.extend(_records(found, classes, split))
    return Manifest(classes, tuple(records), tuple(note for found in parts.values() for note in found.notes))


def read_labelled_folder(root: Path, classes: Sequence[str]) -> Manifest:
    """Read labelled images for classes that are known already; folders are mapped by name.

    A folder with ``train/val/test`` in it stands for its ``test``, or else its ``val``; the manifest's notes say so.

    Raises:
        DataError: no such folder, no images, or a class that is not among ``classes``.
    """
    splits = _split_folders(root)
    notes: list[str] = []
    chosen = root
    if splits and not any((root / name).is_dir() for name in classes):
        split = next((s for s in ("test", "val") if s in splits), None)
        if split is None:
            raise DataError("has a train folder but neither test nor val", where=root, advice="give the folder of class folders itself")
        chosen = splits[split]
        notes.append(f"{chosen.name} of {root} is used")
    found = _find(_existing(chosen), root)
    _check_known(found, classes, chosen)
    records = tuple(_records(found, tuple(classes), None))
    if not records:
        raise _no_images(chosen)
    return Manifest(tuple(classes), records, (*notes, *found.notes))


def _split_folders(root: Path) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for entry in _folders(_existing(root)):
        split = ALIASES.get(entry.name)
        if split is not None:
            if split in found:
                raise DataError(f"has both {found[split].name} and {entry.name}", where=root, advice="keep one of them")
            found[split] = entry
    return found if "train" in found or len(found) > 1 else {}


def _existing(root: Path) -> Path:
    if not root.is_dir():
        names = [p.name for p in _folders(root.parent)] if root.parent.is_dir() else []
        fact = "is not a folder" if root.exists() else "no such folder"
        raise DataError(fact, where=root, advice=near_names(root.name, names) or "give a folder of class folders, or a CSV or Parquet manifest")
    return root


def _folders(root: Path) -> list[Path]:
    return sorted((p for p in root.iterdir() if not p.name.startswith(".") and p.is_dir()), key=lambda p: os.fsencode(p.name))


def _find(folder: Path, root: Path) -> _Found:
    found = _Found()
    inside = root.resolve()
    seen: dict[str, str] = {}
    for entry in _folders(folder):
        if not entry.resolve().is_relative_to(inside):
            found.notes.append(f"{_show(entry)} leads out of {_show(root)} and is ignored")
            continue
        same = unicodedata.normalize("NFC", entry.name)
        if same in seen:
            raise DataError(f"two class folders look the same: {seen[same]!r} and {entry.name!r}", where=folder, advice="rename one of them")
        seen[same] = entry.name
        found.classes[entry.name] = _files(entry, inside, found.notes)
    return found


def _files(folder: Path, inside: Path, notes: list[str]) -> list[Path]:
    """All files below ``folder``; folder links are not followed, so that no loop is entered."""
    files: list[Path] = []
    for place, folders, names in os.walk(folder, followlinks=False):
        folders[:] = sorted(n for n in folders if not n.startswith("."))
        for name in sorted(names):
            path = Path(place) / name
            if name.startswith("."):
                continue
            if path.is_symlink() and not path.resolve().is_relative_to(inside):
                notes.append(f"{_show(path)} leads out of the data folder and is ignored")
            elif path.is_file():
                files.append(path)
    return files


def _usable_classes(found: _Found, root: Path) -> tuple[str, ...]:
    full = sorted(name for name, files in found.classes.items() if files)
    found.notes.extend(f"class folder {_show(root / name)} is empty and is left out" for name in sorted(found.classes) if name not in full)
    if not full:
        raise _no_images(root)
    if len(full) == 1:
        raise DataError(f"one class only ({_show(Path(full[0]))})", where=root, advice="a classifier needs at least two class folders")
    return tuple(full)


def _check_known(found: _Found, classes: Sequence[str], where: Path) -> None:
    unknown = sorted(name for name, files in found.classes.items() if files and name not in classes)
    if unknown:
        listed = ", ".join(unknown[:3]) + (f" and {len(unknown) - 3} more" if len(unknown) > 3 else "")
        raise DataError(f"class {listed} is not one of {', '.join(classes[:6])}{' ...' if len(classes) > 6 else ''}",
                        where=where, advice=near_names(unknown[0], classes) or "rename or remove the folder")


def _records(found: _Found, classes: tuple[str, ...], split: str | None) -> list[ImageRecord]:
    return [ImageRecord(path, label, split) for label, name in enumerate(classes) for path in found.classes.get(name, [])]


def _no_images(root: Path) -> DataError:
    loose = sum(p.suffix.lower() in _PICTURES for p in root.iterdir())
    if loose:
        return DataError(f"{loose} images lie here without class folders", where=root, advice=_ADVICE)
    return DataError("holds no images", where=root, advice=_ADVICE)


def _show(path: Path) -> str:
    return os.fsencode(path).decode("utf-8", errors="replace")
