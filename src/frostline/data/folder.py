"""Images sorted into class folders: ``root/class/*`` or ``root/{train,val,test}/class/*``."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from frostline.data._classes import refuse_twins, refuse_unknown, sorted_classes
from frostline.data._names import listed, shown, split_called
from frostline.data._scan import Scan
from frostline.data.manifest import ImageRecord, Manifest
from frostline.errors import DataError

_PICTURES = {".jpg", ".jpeg", ".png", ".gif", ".bmp", ".tif", ".tiff", ".webp", ".ppm", ".pgm"}


def read_folder(root: Path) -> Manifest:
    """The images to train on. Every file counts that does not begin with a dot; decoding says which are images.

    Args:
        root: a folder of class folders, or one with ``train`` and optionally ``val`` (``valid``, ``validation``) and
            ``test``, each with class folders.

    Raises:
        DataError: no such folder, no images, fewer than two classes, classes that training does not have.
    """
    scan = Scan(root)
    splits = _split_folders(scan)
    if not splits:
        files = _class_files(scan, root)
        classes = sorted_classes(files, root)
        return Manifest(classes, tuple(_records(files, classes, None)), scan.notes())
    by_split = {split: _class_files(scan, folder, split == "train") for split, folder in splits.items()}
    classes = sorted_classes(by_split["train"], splits["train"])
    for split, files in by_split.items():
        refuse_unknown(files, classes, splits[split])
    records = tuple(r for split, files in by_split.items() for r in _records(files, classes, split))
    return Manifest(classes, records, scan.notes())


def read_labelled_folder(root: Path, classes: Sequence[str]) -> Manifest:
    """Labelled images to measure on, their classes matched by name.

    Args:
        root: a folder of class folders, one class being enough; of one with ``test`` or ``val`` that is used.
        classes: the classes of the model.

    Raises:
        DataError: no such folder, no images, or a class that the model does not know.
    """
    scan = Scan(root)
    folder, notes = _folder_to_measure(scan, classes)
    files = _class_files(scan, folder)
    refuse_unknown(files, classes, folder)
    return Manifest(tuple(classes), tuple(_records(files, classes, None)), (*notes, *scan.notes()))


def _split_folders(scan: Scan) -> dict[str, Path]:
    """The folder of each split, train first; empty where the folders are classes."""
    folders = scan.listing(scan.root)[1]
    splits = _by_split(scan, folders)
    if not splits or not scan.listing(next(iter(splits.values())))[1]:
        return {}
    others = [p.name for p in folders if split_called(p.name) is None]
    if "train" not in splits:
        if others:
            return {}
        raise DataError("no train folder beside " + listed([p.name for p in folders]), where=shown(scan.root))
    if others and len(splits) == 1:
        fact = f"{splits['train'].name} holds folders like a split, but lies beside {listed(others)}"
        raise DataError(fact, where=shown(scan.root), advice="name the folder with the class folders, or move the rest")
    for folder in folders:
        if split_called(folder.name) is None:
            scan.leave_out("folder beside the splits", folder)
    return splits


def _by_split(scan: Scan, folders: Sequence[Path]) -> dict[str, Path]:
    splits: dict[str, Path] = {}
    for folder in folders:
        split = split_called(folder.name)
        if split is not None and splits.setdefault(split, folder) != folder:
            fact = f"both {splits[split].name} and {folder.name} name the {split} split"
            raise DataError(fact, where=shown(scan.root), advice="keep one of them")
    return {s: splits[s] for s in ("train", "val", "test") if s in splits}


def _folder_to_measure(scan: Scan, classes: Sequence[str]) -> tuple[Path, tuple[str, ...]]:
    folders = scan.listing(scan.root)[1]
    if any(p.name in classes for p in folders):
        return scan.root, ()
    splits = _by_split(scan, folders)
    for split in ("test", "val"):
        if split in splits and scan.listing(splits[split])[1]:
            return splits[split], (f"measured on {shown(splits[split].name)} of {shown(scan.root)}",)
    return scan.root, ()


def _class_files(scan: Scan, folder: Path, required: bool = True) -> dict[str, list[Path]]:
    """Files of each class folder in ``folder`` that has any, by the name of the class."""
    loose, folders = scan.listing(folder)
    for path in loose:
        scan.leave_out("file outside the class folders", path)
    files = {p.name: scan.files_below(p) for p in folders}
    for path in folders:
        if not files[path.name]:
            scan.leave_out("empty class folder", path)
    filled = {name: paths for name, paths in files.items() if paths}
    if required and not filled:
        raise _no_images(scan, folder, loose)
    refuse_twins(sorted(filled), folder)
    return filled


def _no_images(scan: Scan, folder: Path, loose: Iterable[Path]) -> DataError:
    pictures = sum(p.suffix.lower() in _PICTURES for p in loose)
    if pictures:
        fact = f"{pictures} image files but no class folders"
        return DataError(fact, where=shown(folder), advice="sort them into one folder a class")
    fact = "; ".join(["no images in class folders", *scan.notes()])
    return DataError(fact, where=shown(folder), advice=f"put them in {shown(folder)}/CLASS/")


def _records(files: Mapping[str, Iterable[Path]], classes: Sequence[str], split: str | None) -> Iterable[ImageRecord]:
    label = {name: i for i, name in enumerate(classes)}
    return (ImageRecord(path, label[name], split) for name, paths in files.items() for path in paths)
