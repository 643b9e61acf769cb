"""Which pictures are shown, and what is said of each."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

from frostline.data._names import shown
from frostline.report.contents import Album
from frostline.report.doubtful import Doubts
from frostline.report.judged import Judged
from frostline.report.mistakes import Answer, answers, least_sure, surest_mistakes
from frostline.report.pictures import Tile, Wanted, tiles
from frostline.report.words import SPLITS, whole

Copy = tuple[tuple[str, str], tuple[str, str]]
"""Two images that show one picture: the path and the split of each."""

MOST_SUSPECTS = 12
MOST_COPIES = 6


def album_of(judged: Judged | None, doubts: Doubts, copies: Sequence[Copy] | None, classes: Sequence[str], data: Path) -> Album:
    """Choose the pictures and read them again for their thumbnails.

    Args:
        judged: the run's answers; None where there are none.
        doubts: suspect labels.
        copies: pairs in two splits that show one picture; None where nobody looked.
        classes: names.
        data: the folder that file names are shown below.
    """
    found = [] if judged is None else answers(judged.probabilities, judged.labels)
    names = [shown(c) for c in classes]
    wrong, unsure = surest_mistakes(found), least_sure(found)
    wanted = [] if judged is None else [_mistake(judged, a, names, data) for a in wrong] + [_unsure(judged, a, names, data) for a in unsure]
    suspects = (doubts.suspects or ())[:MOST_SUSPECTS]
    wanted += [_suspect(doubts, s.row, s.likely, s.probability_likely, names, data) for s in suspects]
    wanted += [_copy(one, other, data) for pair in (copies or ())[:MOST_COPIES] for one, other in (pair, pair[::-1])]
    ends = [0, len(wrong), len(wrong) + len(unsure), len(wrong) + len(unsure) + len(suspects), len(wanted)]
    seen = tiles(wanted)
    parts: list[tuple[Tile, ...]] = [tuple(seen[a:b]) for a, b in pairwise(ends)]
    return Album(
        parts[0],
        parts[1],
        parts[2],
        tuple(zip(parts[3][::2], parts[3][1::2], strict=True)),
        sum(not a.right for a in found),
        None if doubts.suspects is None else len(doubts.suspects),
        doubts.why,
        None if copies is None else len(copies),
    )


def below(path: Path, folder: Path) -> str:
    """A file's name on the page: its path below the folder of the data, or where it lies elsewhere its own name and its folder's."""
    if path.is_relative_to(folder) and path != folder:
        return shown(path.relative_to(folder))
    return shown("/".join(path.parts[-2:]))


def _mistake(judged: Judged, answer: Answer, names: Sequence[str], data: Path) -> Wanted:
    path = judged.images.paths[answer.row]
    title = f"{names[answer.predicted]}, {whole(answer.probability)} sure"
    alt = f"Labelled {names[answer.label]}, taken for {names[answer.predicted]}"
    return Wanted(path, judged.images.digests[answer.row], below(path, data), title, f"labelled {names[answer.label]}", alt, True)


def _unsure(judged: Judged, answer: Answer, names: Sequence[str], data: Path) -> Wanted:
    path = judged.images.paths[answer.row]
    title = f"{names[answer.predicted]} ({whole(answer.probability)}) or {names[answer.runner_up]} ({whole(answer.second)})"
    verdict = "right" if answer.right else "wrong"
    alt = f"Labelled {names[answer.label]}; {names[answer.predicted]} or {names[answer.runner_up]}"
    words = f"labelled {names[answer.label]}: {verdict}"
    return Wanted(path, judged.images.digests[answer.row], below(path, data), title, words, alt, not answer.right)


def _suspect(doubts: Doubts, row: int, likely: int, probability: float, names: Sequence[str], data: Path) -> Wanted:
    path, label = doubts.images.paths[row], names[doubts.images.labels[row]]
    words = f"labelled {label}, in {SPLITS[doubts.splits[row]]}"
    alt = f"Labelled {label}, probably {names[likely]}"
    return Wanted(path, doubts.images.digests[row], below(path, data), f"rather {names[likely]}, {whole(probability)}", words, alt)


def _copy(one: tuple[str, str], other: tuple[str, str], data: Path) -> Wanted:
    shows, like = below(Path(one[0]), data), below(Path(other[0]), data)
    return Wanted(Path(one[0]), None, shows, f"in {one[1]}", "", f"{shows}, which shows the same as {like}")
