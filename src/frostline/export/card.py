"""The model card: ``README.md`` in Hugging Face's form, written from what the run recorded."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import tomli_w
from huggingface_hub import EvalResult, ModelCardData

from frostline import __version__
from frostline.backbone._embedded import PACKAGES
from frostline.data._names import shown
from frostline.export.lines import placed
from frostline.export.parity import Parity
from frostline.run import Run, layout

_MOST_NAMED = 100
_SPECIAL = r"\`*_{}[]|<>&~$"
"""Characters that Markdown or HTML take for more than themselves inside a line."""
_PRIVATE = {"data", "val", "weights", "cache"}
"""Settings that name places on the machine that trained, or say nothing about the model."""


@dataclass(frozen=True, eq=False)
class Written:
    """What was written beside the card.

    Attributes:
        format: of the export.
        what: it is, in words.
        library: in Hugging Face's words.
        lines: of Python, that load it.
        usage: lines that load it and label a picture.
        preprocess: what is done to a picture before, and what the file does itself.
    """

    format: str
    what: str
    library: str
    lines: tuple[str, ...]
    usage: tuple[str, ...]
    preprocess: Mapping[str, Any]


def model_card(run: Run, written: Written, parity: Parity) -> str:
    """The card as text: front matter for machines, then prose for people.

    Args:
        run: what it says about training and results is from its record.
        written: the export.
        parity: how it was checked.
    """
    summary = run.summary
    classes = ", ".join(plain_text(c) for c in run.classes[:_MOST_NAMED])
    more = f" and {len(run.classes) - _MOST_NAMED} more (`labels.json`)" if len(run.classes) > _MOST_NAMED else ""
    parts = [
        f"---\n{_front_matter(run, written)}\n---",
        f"# {len(run.classes)} classes on {plain_text(summary['backbone'])}",
        f"An image classifier: {_article(str(summary['head']))} head on {plain_text(summary['backbone'])}, trained with frostline. "
        f"This folder holds {plain_text(written.what)}.",
        f"## Classes\n\nIn the order of the outputs: {classes}{more}.",
        f"## How it was trained\n\n{_training(run)}",
        f"## Results\n\n{_results(summary)}",
        f"## Data and environment\n\n{_data(run)}",
        f"## Use\n\n{_use(written)}",
        f"## Checked\n\nOn {plain_text(str(parity.checked_on))} no logit differs by more than {parity.max_abs_difference:.1e} from the "
        f"model that was trained, where the largest is {parity.largest_logit:.3g}, and all labels are equal. "
        "An export that disagrees is not written.",
        f"## Limits\n\n{_limits(run)}",
    ]
    return "\n\n".join(parts) + "\n"


def plain_text(text: object) -> str:
    r"""A name that Markdown and HTML leave as it is; control characters are escaped.

    >>> plain_text("a_b<i>")
    'a\\_b\\<i\\>'
    """
    return "".join(f"\\{c}" if c in _SPECIAL else c for c in shown(text))


def _article(head: str) -> str:
    return f"{'an' if head[0] in 'aeiou' else 'a'} {plain_text(head)}"


def _front_matter(run: Run, written: Written) -> str:
    scores, split = _best_scores(run.summary)
    results: list[EvalResult] = []
    if scores is not None:
        results.append(
            EvalResult(
                task_type="image-classification",
                dataset_type="imagefolder",
                dataset_name=_data_name(run),
                dataset_split=split,
                metric_type="accuracy",
                metric_value=round(float(scores["accuracy"]), 4),
            )
        )
    data = ModelCardData(
        library_name=written.library,
        license=_license(run),
        pipeline_tag="image-classification",
        tags=["image-classification", "frostline", "transfer-learning", written.format],
        metrics=["accuracy"],
        model_name=f"{len(run.classes)} classes on {shown(run.summary['backbone'])}",
        eval_results=results or None,
    )
    return data.to_yaml()


def _license(run: Run) -> str | None:
    """Of the backbone's published weights, where their publisher says it."""
    if not run.model.opened.published:
        return None
    if run.model.opened.name.removeprefix("timm:") in PACKAGES:
        return "apache-2.0"
    config = cast("Mapping[str, Any]", vars(run.model.opened.body).get("pretrained_cfg") or {})
    return config.get("license")


def _best_scores(summary: Mapping[str, Any]) -> tuple[Mapping[str, Any] | None, str]:
    """The scores to quote: of test images where there are some."""
    return (summary["test"], "test") if summary.get("test") else (summary.get("val"), "validation")


def _data_name(run: Run) -> str:
    return shown(Path(run.recipe.data).name) or "images"


def _training(run: Run) -> str:
    said, recipe = run.summary, run.recipe
    unfrozen = said.get("unfrozen_blocks") or []
    trained = f"{_article(str(said['head']))} head" + (f" and the layers {plain_text(', '.join(unfrozen))}" if unfrozen else "")
    audit = said["audit"]
    proof = (
        f"{audit['frozen_tensors']} frozen tensors, batch-norm statistics included, were bit-identical before and after"
        if audit["frozen_unchanged"]
        else "frozen layers CHANGED"
    )
    own = tomli_w.dumps(recipe.model_dump(exclude_defaults=True, exclude=_PRIVATE, exclude_none=True)).strip().replace("`", "'")
    weights = str(said["weights"]).replace(recipe.weights, Path(recipe.weights).name)  # a file's place is nobody's business
    lines = [
        f"- Backbone: {plain_text(said['backbone'])}, {plain_text(weights)}.",
        f"- Trained: {said['trainable_parameters']:,} parameters ({trained}); frozen: {said['frozen_parameters']:,}.",
        f"- Proof: {proof}.",
        f"- Strategy {plain_text(said['strategy'])}, {said['epochs_run']} epochs run, epoch {said['best_epoch']} kept, seed {recipe.seed}.",
    ]
    lines += [f"- Chosen by cross-validation among {len(said[k]['candidates'])} heads." for k in ("sweep", "solved") if said.get(k)]
    settings = f"Settings that are not frostline's defaults:\n\n```toml\n{own}\n```" if own else "All settings are frostline's defaults."
    return "\n".join(lines) + "\n\n" + settings


def _results(summary: Mapping[str, Any]) -> str:
    rows = [
        "| images | n | accuracy | 95 % interval | balanced accuracy | log loss | calibration error |",
        "|---|---|---|---|---|---|---|",
        f"| training | {summary['train']['n']} | {summary['train']['accuracy']:.3f} | | | | |",
    ]
    for split, name in (("val", "validation"), ("test", "test")):
        scores = summary.get(split)
        if scores:
            low, high = scores["interval"]
            rows.append(
                f"| {name} | {scores['n']} | {scores['accuracy']:.3f} | {low:.3f} to {high:.3f} | {scores['balanced_accuracy']:.3f} "
                f"| {scores['log_loss']:.3f} | {scores['calibration_error']:.3f} |"
            )
    chose = "The validation images also chose which epoch was kept, so that their figure leans to the good side."
    notes = [chose] if summary.get("val_chose_epoch") else []
    notes += [] if summary.get("test") else ["No test images were given."]
    notes += [f"Warning: {plain_text(w)}." for w in summary.get("warnings") or []]
    return "\n".join(rows) + ("\n\n" + " ".join(notes) if notes else "")


def _data(run: Run) -> str:
    said = run.summary
    lines = [
        f"- {said['images_used']} images of {plain_text(_data_name(run))} used, {len(said['images_skipped'])} skipped as unreadable.",
        f"- {len(said.get('duplicates_across_splits') or [])} images lay byte for byte in two splits.",
    ]
    try:
        made = cast("dict[str, Any]", json.loads((run.folder / layout.ENVIRONMENT).read_text(encoding="utf-8")))
        packages = ", ".join(f"{name} {version}" for name, version in made["packages"].items())
        lines.append(f"- Made with Python {plain_text(made['python'])} on {plain_text(made['device'])}: {plain_text(packages)}.")
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        lines.append("- What it was made with was not recorded.")
    return "\n".join([*lines, f"- Exported with frostline {__version__}."])


def _use(written: Written) -> str:
    before, inside = written.preprocess["before"], written.preprocess["inside"]
    steps = "\n".join(f"{i}. {plain_text(step)}" for i, step in enumerate(before, 1))
    does = f"\n\nThe file does itself: {plain_text('; '.join(inside))}." if inside else ""
    code = "\n".join(placed(written.usage, "."))
    return f"Before a picture is given to it:\n\n{steps}{does}\n\nIn this folder:\n\n```python\n{code}\n```"


def _limits(run: Run) -> str:
    found = _license(run)
    named = (
        f"The backbone's weights are published under {found}." if found else "The licence of the backbone's weights is not recorded here."
    )
    return (
        "- It answers with one of its classes whatever it is shown; a picture of something else gets one too.\n"
        "- It has been measured on pictures like those it was trained on, and on no others.\n"
        f"- {plain_text(named)} Those of the training images are for whoever publishes this to see to."
    )
