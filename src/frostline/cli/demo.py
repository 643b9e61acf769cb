"""``frostline demo``."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

from frostline.cli.output import interval, print_json, print_next, print_summary
from frostline.cli.screen import Screen
from frostline.cli.settings import cache_folder


def demo(
    out: Annotated[Path, typer.Option(help="folder for the images and the run")] = Path("frostline-demo"),
    cache_dir: Annotated[Path | None, typer.Option(help="folder of the feature cache")] = None,
    json: Annotated[bool, typer.Option("--json", help="print one JSON object")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="no progress")] = False,
) -> None:
    """Do the main job on embedded weights and real data, offline, in about a minute."""
    from frostline import pipeline, use
    from frostline.cli.main import seconds_since_start
    from frostline.demo import write_digits
    from frostline.recipe import Recipe
    from frostline.run import read_run
    from frostline.run.summary import scores_json

    images, run = out / "digits", out / f"run-{time.strftime('%Y%m%d-%H%M%S')}"
    cache = cache_folder(cache_dir)
    with Screen(quiet=quiet) as screen:
        screen.say(f"writing handwritten digits to {images}")
        count = write_digits(images)
        screen.say(f"training on {count} images, backbone frozen")
        summary = pipeline.train(
            Recipe(data=str(images)),
            run,
            cache=cache,
            listen=screen.listen,
            offline=True,
            startup=seconds_since_start(),
        )
    opened = read_run(run, offline=True)
    scores, _ = use.evaluate(opened, images / "test", cache=cache)
    some = [sorted((images / "test" / str(digit)).iterdir())[0] for digit in range(10)]
    answers = list(use.predict(opened, some))
    if json:
        print_json(
            summary
            | {
                "evaluated": scores_json(scores, opened.classes),
                "predicted": [{"path": str(a.path), "label": a.label, "probability": a.probabilities[a.label or ""]} for a in answers],
            }
        )
        return
    print_summary(summary)
    print(f"evaluated   {interval(scores_json(scores))} by the run read back from disk")
    for answer in answers:
        print(f"predicted   {answer.path}: {answer.label} ({answer.probabilities[answer.label or '']:.2f})")
    print_next(str(run), "YOUR_FOLDER")
