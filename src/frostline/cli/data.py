"""``frostline data DATA``: what a person should see in labelled images before training on them."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from frostline.cli import options
from frostline.cli.early import images_ahead
from frostline.cli.output import print_json, printable
from frostline.cli.screen import Screen
from frostline.cli.settings import cache_folder, is_offline
from frostline.errors import DataError, RecipeError

if TYPE_CHECKING:
    from frostline.quality import DataQuality

_NOT_OF_THE_RECIPE = ("context", "cache_dir", "no_cache", "out", "json", "quiet")
_MOST = 10

PageOut = Annotated[Path | None, typer.Option(metavar="FILE.html", help="draw it too: one HTML file with the pictures in it")]


def data(
    context: typer.Context,
    data: options.Data = None,
    val: options.Val = None,
    backbone: options.Backbone = None,
    weights: options.Weights = None,
    replace_layer: options.ReplaceLayer = None,
    device: options.Device = None,
    seed: options.Seed = None,
    cache_dir: options.CacheDir = None,
    no_cache: Annotated[bool, typer.Option("--no-cache", help="neither read nor write the feature cache")] = False,
    out: PageOut = None,
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Find copies, leakage, suspect labels, outliers and classes that overlap, by the features that training uses."""
    if data is None:
        raise RecipeError("no images were named", where="DATA", advice="give a folder of class folders, or a manifest")
    if out is not None and (out.is_dir() or out.suffix.lower() not in (".html", ".htm")):
        raise RecipeError("is no name for a page", where=f"--out {printable(out)}", advice="give FILE.html")
    kept = None if no_cache else cache_folder(cache_dir)
    with images_ahead(data, val, backbone, weights, kept):
        from frostline.quality import examine
        from frostline.recipe import make_recipe

        given: dict[str, Any] = {n: v for n, v in context.params.items() if n not in _NOT_OF_THE_RECIPE}
        given |= {"data": str(data), "val": val and str(val)}
        recipe = make_recipe({name: value for name, value in given.items() if value is not None})
        with Screen(quiet=quiet) as screen:
            found = examine(recipe, cache=kept, listen=screen.listen, offline=is_offline())
    if out is not None:
        _draw(found, out)
    if json:
        print_json(found.to_json() | {"page": None if out is None else str(out)})
        return
    for line in _words(found):
        print(line)
    if out is not None:
        print(f"page        {printable(out)}")


def _draw(found: DataQuality, out: Path) -> None:
    from frostline._atomic import write_text
    from frostline.quality.page import page

    try:
        write_text(out, page(found))
    except OSError as fault:
        raise DataError(f"cannot be written: {fault.strerror}", where=f"--out {printable(out)}", advice="give another file") from fault


def _words(found: DataQuality) -> Iterable[str]:
    """The findings, one line each, the worst first."""
    from frostline.data._names import listed, shown

    yield f"images      {len(found.pictures)} in {len(found.classes)} classes ({listed(found.classes)}), {len(found.skipped)} skipped"
    for split, counts in found.counts().items():
        fewest, most = min(counts.items(), key=lambda c: c[1]), max(counts.items(), key=lambda c: c[1])
        yield f"{split:<12}{sum(counts.values())}: {shown(fewest[0])} {fewest[1]} to {shown(most[0])} {most[1]} a class"
    for kind, count in found.converted.items():
        yield f"converted   {count} {kind} to RGB"
    for what, some in (("skipped", [f"{shown(p)}: {why}" for p, why in found.skipped]), ("tiny", _tiny(found))):
        yield from _block(f"{what:<12}", some, len(some))
    yield from _copies(found)
    yield from _labels(found)
    called = [o for o in found.outliers if o.called]
    if found.outlier_threshold is None:
        yield "outliers    too few images to say what is usual"
    else:
        yield f"outliers    {len(called)} images farther than {found.outlier_threshold:.2f} from their nearest"
        for outlier in called[:_MOST]:
            yield f"  {outlier.score:.2f}  {_named(found, outlier.row)}"
        yield from _more(len(called))
    for overlap in found.overlaps:
        first, second = (shown(found.classes[i]) for i in overlap.classes)
        low, high = overlap.interval
        yield (
            f"overlap     {first} and {second}: {overlap.confused} of {overlap.images} images are taken for the other class "
            f"({overlap.share:.1%}, interval {low:.1%} to {high:.1%})"
        )
    if found.judged is not None and not found.overlaps:
        yield "overlap     none beyond what some wrong labels explain"
    for note in found.notes:
        yield f"note        {shown(note)}"


def _copies(found: DataQuality) -> Iterable[str]:
    exact, near = sorted(found.exact, key=found.across, reverse=True), sorted(found.near, key=lambda c: not found.across(c.rows))
    leaks = sum(map(found.across, found.exact)) + sum(found.across(c.rows) for c in near)
    yield f"copies      {len(exact)} pictures several times byte for byte, {len(near)} pairs nearly the same"
    if leaks:
        yield f"leakage     {leaks} of these lie in several splits: what is trained on is also judged by"
    for rows in exact[:_MOST]:
        yield f"  exact{_marks(found, rows)}  {'  =  '.join(_named(found, row) for row in rows[:3])}{' ...' if len(rows) > 3 else ''}"
    yield from _more(len(exact))
    for copy in near[:_MOST]:
        turned = ", mirrored" if copy.mirrored else ""
        yield f"  {copy.likeness:.0%} alike{turned}{_marks(found, copy.rows)}  {'  ~  '.join(_named(found, row) for row in copy.rows)}"
    yield from _more(len(near))


def _labels(found: DataQuality) -> Iterable[str]:
    from frostline.data._names import shown

    if found.judged is None:
        yield "labels      too few images of two classes to judge by"
        return
    agree = found.judged.right / found.judged.images
    yield f"labels      {len(found.suspects)} of {found.judged.images} are suspect; held-out heads agree with {agree:.1%} of all"
    for s in found.suspects[:_MOST]:
        likely = f"{shown(found.classes[s.likely])} {s.probability_likely:.2f} against {s.probability_given:.2f}"
        yield f"  {_named(found, s.row)}: rather {likely}"
    yield from _more(len(found.suspects))


def _tiny(found: DataQuality) -> list[str]:
    return [f"{_named(found, row)}: a side below {found.tiny_side} pixels" for row in found.tiny]


def _named(found: DataQuality, row: int) -> str:
    from frostline.data._names import shown

    picture = found.pictures[row]
    return f"{shown(picture.path)} ({shown(found.classes[picture.label])}, {picture.split})"


def _marks(found: DataQuality, rows: tuple[int, ...]) -> str:
    return (" LEAKAGE" if found.across(rows) else "") + (" TWO LABELS" if found.contradictory(rows) else "")


def _block(name: str, lines: list[str], count: int) -> Iterable[str]:
    for line in lines[:_MOST]:
        yield f"{name}{line}"
    yield from _more(count)


def _more(count: int) -> Iterable[str]:
    if count > _MOST:
        yield f"  and {count - _MOST} more: --json has all"
