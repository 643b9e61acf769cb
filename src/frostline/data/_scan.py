"""List folders without ever leaving the root or running in circles."""

from __future__ import annotations

import os
from pathlib import Path

from frostline.data._names import shown
from frostline.errors import DataError, near_names


class Scan:
    """Lists files and folders below one root and remembers what it left out.

    A link to a file is followed when it resolves inside the root; a link to a folder is never followed, which is what
    rules out loops and one class swallowing another.

    Args:
        root: the folder that nothing may leave.

    Raises:
        DataError: there is no such folder.
    """

    def __init__(self, root: Path) -> None:
        _check_folder(root)
        self.root = root
        self._inside = os.path.join(os.path.realpath(root), "")  # noqa: PTH118 (as a prefix, with its separator)
        self._left_out: dict[str, list[Path]] = {}

    def listing(self, folder: Path) -> tuple[list[Path], list[Path]]:
        """Files and folders directly in ``folder``, each by name; names that begin with a dot are not there.

        Args:
            folder: the root, or a folder that an earlier listing gave.

        Raises:
            DataError: the folder cannot be listed.
        """
        files: list[Path] = []
        folders: list[Path] = []
        try:
            with os.scandir(folder) as entries:
                for entry in entries:
                    self._sort_in(entry, folder / entry.name, files, folders)
        except OSError as fault:
            raise DataError(f"cannot be listed: {fault.strerror}", where=shown(folder)) from fault
        return sorted(files), sorted(folders)

    def files_below(self, folder: Path) -> list[Path]:
        """Every file below ``folder``, at any depth.

        Args:
            folder: the root, or a folder that an earlier listing gave.

        Raises:
            DataError: a folder cannot be listed.
        """
        found: list[Path] = []
        waiting = [folder]
        while waiting:
            files, folders = self.listing(waiting.pop())
            found += files
            waiting += reversed(folders)
        return found

    def leave_out(self, why: str, path: Path) -> None:
        """Remember that ``path`` is not used.

        Args:
            why: the reason, as what the path is ("empty class folder").
            path: what is left out.
        """
        self._left_out.setdefault(why, []).append(path)

    def notes(self) -> tuple[str, ...]:
        """One sentence for each reason for which something was left out."""
        return tuple(
            f"ignored {len(set(paths))} x {why}, first: {shown(paths[0].relative_to(self.root))}" for why, paths in self._left_out.items()
        )

    def _sort_in(self, entry: os.DirEntry[str], path: Path, files: list[Path], folders: list[Path]) -> None:
        if entry.name.startswith("."):
            return
        if entry.is_symlink():
            why = self._refused_link(path)
            if why is None:
                files.append(path)
            else:
                self.leave_out(why, path)
        elif entry.is_dir(follow_symlinks=False):
            folders.append(path)
        elif entry.is_file(follow_symlinks=False):
            files.append(path)

    def _refused_link(self, path: Path) -> str | None:
        target = os.path.realpath(path)
        if not f"{target}{os.sep}".startswith(self._inside):
            return "link that leaves the folder"
        if os.path.isdir(target):  # noqa: PTH112 (a str already, and there may be millions)
            return "link to a folder"
        return None if os.path.isfile(target) else "link to nothing"  # noqa: PTH113


def _check_folder(root: Path) -> None:
    if root.is_dir():
        return
    if root.exists():
        raise DataError("is a file, expected a folder of class folders", where=shown(root))
    parent = root.parent
    siblings = [p.name for p in parent.iterdir()] if os.access(parent, os.R_OK) and parent.is_dir() else []
    raise DataError("no such folder", where=shown(root), advice=near_names(root.name, map(shown, siblings)))
