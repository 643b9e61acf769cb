"""``docs/benchmarks.md`` and its picture, written from the records alone."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from harness import records
from harness.chart import Bar, chart
from harness.figures import fit_line, wilson
from harness.records import Record

COLD, WARM = "cold", "warm"
OWN = {COLD, "new", WARM, "sweep", "sweep-64"}


@dataclass(frozen=True)
class Row:
    """All runs of one contestant in its last session.

    Attributes:
        key: the contestant.
        runs: their records; one with the reason where it could not be measured.
        beside: median seconds of everybody who ran in the same session.
    """

    key: str
    runs: Sequence[Record]
    beside: Mapping[str, float]

    @property
    def measured(self) -> list[Record]:
        return [r for r in self.runs if "seconds" in r]

    def median(self, field: str) -> float:
        return statistics.median(cast("float", r[field]) for r in self.measured)

    def ends(self, field: str) -> tuple[float, float]:
        values = [cast("float", r[field]) for r in self.measured]
        return min(values), max(values)

    @property
    def session(self) -> str:
        return cast("str", self.runs[0]["session"])


def write_page(docs: Path) -> str:
    """Write the page and the picture into ``docs``; a line that says what was written."""
    file = docs / "benchmarks.jsonl"
    contest, limits = contest_rows(file), newest_of(file, "limits")
    parts = [_HEAD]
    if contest:
        picture(contest, docs / "benchmarks.svg")
        parts += [conditions(contest), f"![{alt(contest)}](benchmarks.svg)", contest_table(contest), ratios(contest)]
    if limits:
        parts.append(limits_section(limits, contest))
    parts += [section(read) for section, read in ((growth_section, newest_growth(file)), (gpu_section, newest_gpu(file))) if read]
    (docs / "benchmarks.md").write_text("\n\n".join(part for part in parts if part) + "\n")
    return f"written: {docs / 'benchmarks.md'}"


_HEAD = """# Benchmarks

Written by `make bench` from `benchmarks.jsonl`; what each part measures and how to run it is in
`benchmarks/README.md`. Seconds are wall time. Only ratios within one session travel to another
machine."""


def contest_rows(file: Path) -> list[Row]:
    """Each contestant's last session on the machine, the images and the epochs of the newest record."""
    alike = records.alike(records.read(file, "contest"), ("machine", "data", "epochs", "device"))
    found = records.newest(alike, "who")
    taken: dict[tuple[object, object], list[float]] = {}
    for r in alike:
        if "seconds" in r:
            taken.setdefault((r["session"], r["who"]), []).append(cast("float", r["seconds"]))
    rows = []
    for key in dict.fromkeys(cast("str", r["who"]) for r in found):
        runs = [r for r in found if r["who"] == key]
        beside = {cast("str", who): statistics.median(s) for (session, who), s in taken.items() if session == runs[0]["session"]}
        rows.append(Row(key, runs, beside))
    return rows


def newest_of(file: Path, kind: str) -> list[Record]:
    """The last session of one kind."""
    found = records.read(file, kind)
    return [r for r in found if r["session"] == found[-1]["session"]]


def newest_growth(file: Path) -> list[Record]:
    """The last session of each of its three parts."""
    return records.newest(records.alike(records.read(file, "growth"), ("machine",)), "what")


def newest_gpu(file: Path) -> list[Record]:
    """The last session of each model."""
    return records.newest(records.alike(records.read(file, "gpu"), ("machine",)), "model")


def conditions(rows: Sequence[Row]) -> str:
    """Machine, images, versions, command and date of each session."""
    last = max((r for row in rows for r in row.runs), key=lambda r: cast("str", r["session"]))
    images = cast("dict[str, int]", last["images"])
    lines = [
        f"- machine: {last['machine']}; device `{last['device']}`",
        f"- images: `{last['data_name']}`, {images['train']} to train on, {images['val']} to judge, {last['classes']} classes "
        f"(digest `{last['data']}`)",
        f"- job: tf_efficientnet_lite0 with its ImageNet weights, frozen, 224 px, batch 32, no augmentation, "
        f"passes over the training images: {last['epochs']}",
    ]
    for whose, found in cast("dict[str, dict[str, str]]", last["versions"]).items():
        lines.append(f"- {whose}: {', '.join(f'{k} {v}' for k, v in found.items())}")
    sessions = {row.session: row.runs[0] for row in sorted(rows, key=lambda row: row.session)}
    for session, record in sessions.items():
        lines.append(f"- {session.replace('T', ' ')}, load {record['load_before']} before it: `{record['command']}`")
    return "\n".join(lines)


def by_time(rows: Sequence[Row]) -> list[Row]:
    """Those that were measured, the fastest first."""
    return sorted((row for row in rows if row.measured), key=lambda row: row.median("seconds"))


def times(row: Row, rows: Sequence[Row], key: str) -> float | None:
    """How many times the seconds of ``key``: in the same session if it ran there, else in its last one."""
    other = next((r.median("seconds") for r in rows if r.key == key and r.measured), None)
    seconds = row.beside.get(key, other)
    return row.median("seconds") / seconds if seconds else None


def contest_table(rows: Sequence[Row]) -> str:
    """One line a contestant, the fastest first, those without figures last."""
    newest = max(row.session for row in rows)
    lines = [
        "| | runs | seconds, median (least to most) | times cold | times warm | CPU s | peak MB | accuracy (95 %) | trained |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for row in by_time(rows):
        low, high = row.ends("seconds")
        first = row.measured[0]
        right, n = int(row.median("right")), cast("int", first["n"])
        bottom, top = wilson(right, n)
        cold, warm = (f"{t:.3g}" if (t := times(row, rows, key)) else "" for key in (COLD, WARM))
        spread = f" ({low:.2f} to {high:.2f})" if len(row.measured) > 1 else ""
        trained = f"{first['trained']:,}" if first["trained"] is not None else ""
        name = f"**{first['shown']}**" if row.key in OWN else first["shown"]
        mark = "" if row.session == newest else " †"
        lines.append(
            f"| {name}{mark} | {len(row.measured)} | {row.median('seconds'):.2f}{spread} | {cold} | {warm} "
            f"| {row.median('cpu_seconds'):.1f} | {row.median('peak_mb'):.0f} | {right / n:.3f} ({bottom:.3f} to {top:.3f}) | {trained} |"
        )
    for row in rows:
        if not row.measured:
            why = row.runs[0].get("cannot") or f"failed: {row.runs[0].get('failed')}"
            lines.append(f"| {row.runs[0]['shown']} | 0 | {str(why).replace('|', '/')} | | | | | | |")
    notes = ["Whole process, imports included; CPU seconds of all its processes, peak memory of the largest one.", _FAIRNESS]
    if any(row.session != newest for row in rows):
        notes.append("† measured in an earlier session; its ratios are to frostline in that session, where frostline ran in it.")
    return "\n".join(lines) + "\n\n" + " ".join(notes)


_FAIRNESS = (
    "*trained*: parameters that the optimizer changed. The accuracy is on the validation images, of the epoch or head that the contestant "
    "itself keeps; frostline, the tutorial and DINOv2's evaluation choose theirs on the same images. "
    "DINOv2's is the best of 13 on them: `benchmarks/same_choice.py` compares like with like."
)


def ratios(rows: Sequence[Row]) -> str:
    """The ratios that were aimed at, with what was found."""
    keyed = {row.key: row for row in rows if row.measured}

    def ratio(upper: str, lower: str) -> float | None:
        return times(keyed[upper], rows, lower) if upper in keyed else None

    aims = (
        ("tutorial's loop / frostline cold", ratio("tutorial", COLD), "40 or more, 50 is wished for"),
        ("tutorial's loop / frostline, new images", ratio("tutorial", "new"), "70 or more"),
        ("tutorial's loop / frostline, second run", ratio("tutorial", WARM), "100 or more"),
        ("Lightning, BackboneFinetuning / frostline cold", ratio("lightning", COLD), "50 or more"),
        ("fastai vision_learner / frostline cold", ratio("fastai", COLD), "80 or more"),
        ("frostline cold / extract-once script", ratio(COLD, "extract"), "0.60 or less"),
        ("frostline, 13 heads / one", ratio("sweep", COLD), "1.2 or less"),
        ("frostline, 64 heads / one", ratio("sweep-64", COLD), "1.2 or less"),
    )
    found = [f"| {what} | {value:.2f} | {aim} |" for what, value, aim in aims if value is not None]
    return "\n".join(["| ratio | found | aim |", "|---|---|---|", *found]) if found else ""


def alt(rows: Sequence[Row]) -> str:
    """The picture in words."""
    told = ", ".join(f"{row.measured[0]['shown']} {row.median('seconds'):.3g}" for row in by_time(rows))
    return f"Bar chart of wall seconds on a logarithmic axis: {told}".replace("[", "(").replace("]", ")")


def picture(rows: Sequence[Row], file: Path) -> None:
    """The bar chart."""
    bars = []
    for row in by_time(rows):
        found = times(row, rows, COLD)
        note = f"{row.median('seconds'):.3g} s" + (f"  ({found:.3g} x)" if found and row.key != COLD else "")
        bars.append(Bar(str(row.measured[0]["shown"]), row.median("seconds"), *row.ends("seconds"), note, row.key in OWN))
    if bars:
        last = rows[0].runs[0]
        images = cast("dict[str, int]", last["images"])
        title = f"A classifier on a frozen backbone, {images['train']} + {images['val']} images, {last['epochs']} epochs"
        file.write_text(
            chart(bars, title, "Wall seconds of the whole process, logarithmic; in brackets: times frostline with nothing cached")
        )


def limits_section(found: Sequence[Record], contest: Sequence[Row]) -> str:
    """Imports, decoding, forward, and their sum for the images of the contest."""

    def values(what: str) -> list[Record]:
        return [r for r in found if r["what"] == what]

    lines = ["## The machine's limit", f"{found[0]['machine']}; load {found[0]['load_before']} before; `{found[0]['command']}`"]
    lines.append("Imports alone, seconds: " + "; ".join(f"{r['name']} {r['value']:.2f}" for r in values("imports")) + ".")
    decoded = values("decode")
    if decoded:
        lines.append(
            f"Decoding alone ({decoded[0]['images']}), images a second: "
            + ", ".join(f"{r['name']} {r['value']:.0f}" for r in decoded)
            + "."
        )
    table = ["| forward alone | batch | images a second | prepared once, s | relative L2 difference to eager |", "|---|---|---|---|---|"]
    for r in values("forward"):
        table.append(f"| {r['name']} | {r['batch']} | {r['value']:.0f} | {r['prepared']:.1f} | {r['difference']:.0e} |")
    lines.append("\n".join(table))
    exact = [r for r in values("forward") if cast("float", r["difference"]) < 1e-4]
    together = next((r for r in values("imports") if "," in str(r["name"])), None)
    if exact and decoded and together and contest:
        lines.append(floor(exact, decoded, together, contest))
    return "\n\n".join(lines)


def floor(exact: Sequence[Record], decoded: Sequence[Record], together: Record, contest: Sequence[Row]) -> str:
    """What a cold run of the contest cannot fall below on cores that decoding and forward share."""
    n = sum(cast("dict[str, int]", contest[0].runs[0]["images"]).values())
    best = max(exact, key=lambda r: cast("float", r["value"]))
    value: Callable[[Record], float] = lambda r: cast("float", r["value"])  # noqa: E731
    decode, forward, imports = n / max(map(value, decoded)), n / value(best), value(together)
    whole = decode + forward + imports
    text = (
        f"For the {n} images above: imports ({together['name']}) {imports:.2f} s + decoding {decode:.2f} s + forward "
        f"({best['name']}, batch {best['batch']}) {forward:.2f} s = **{whole:.2f} s**. "
        f"Preparing that engine once, {best['prepared']:.1f} s, is not in it."
    )
    cold = next((row for row in contest if row.key == COLD and row.measured), None)
    if cold is None:
        return text
    return text + f" frostline with nothing cached takes {cold.median('seconds') / whole:.2f} times that (aim: 1.2)."


def growth_section(found: Sequence[Record]) -> str:
    """Three tables, and a straight line for the first."""
    titles = {"images": "images", "classes": "classes", "depth": "`--unfreeze`"}
    lines = ["## How time and memory grow", f"{found[0]['machine']}; {found[0]['epochs']} passes over the training images"]
    lines += sorted({f"`{r['command']}` (load {r['load_before']} before)" for r in found})
    for what, title in titles.items():
        points = [r for r in found if r["what"] == what]
        if not points:
            continue
        fixed = f" ({points[0]['images']:,} images)" if "images" in points[0] else ""
        head = f"| {title}{fixed} | seconds | of that features | training | peak MB | cached MB | cut | trained |"
        table = [head, "|---|---|---|---|---|---|---|---|"]
        for r in points:
            at = f"{r['at']:,}" if isinstance(r["at"], int) else r["at"]
            table.append(
                f"| {at} | {r['seconds']:.1f} | {r['features']:.2f} | {r['train']:.2f} | {r['peak_mb']:.0f} | {r['cache_mb']} "
                f"| {r['cut']} | {r['trained']:,} |"
            )
        lines.append("\n".join(table))
        if what == "images":
            lines.append(straight(points))
    return "\n\n".join(line for line in lines if line)


def straight(points: Sequence[Record]) -> str:
    """The fitted lines in words."""
    xs = [cast("float", r["at"]) for r in points]
    told = []
    for field, unit in (("seconds", "s"), ("peak_mb", "MB")):
        line = fit_line(xs, [cast("float", r[field]) for r in points])
        if line:
            told.append(
                f"{line.start:.2f} {unit} and {1000 * line.slope:+.2f} {unit} for every 1,000 images "
                f"(r2 {line.r2:.4f}, farthest point {100 * line.worst:.0f} % off)"
            )
    return f"Straight line: {'; '.join(told)}." if told else ""


def gpu_section(found: Sequence[Record]) -> str:
    """Images a second on a GPU, against the fastest forward pass of the same precision."""
    models: dict[str, list[Mapping[str, object]]] = {}
    for r in found:
        models.setdefault(cast("str", r["model"]), []).append(r)
    lines = ["## On a GPU", f"{found[0]['machine']}; `{found[0]['command']}`"]
    table = ["| | | images a second | of the fastest forward in its precision | relative L2 difference |", "|---|---|---|---|---|"]
    for model, rows in models.items():
        for r in rows:
            alike = [cast("float", o["rate"]) for o in rows if _is_forward(o) and _is_half(o) == _is_half(r)]
            share = f"{cast('float', r['rate']) / max(alike):.2f}" if alike else ""
            apart = f"{r['difference']:.0e}" if "difference" in r else ""
            table.append(f"| {model} | {r['what']} | {r['rate']:.0f} | {share} | {apart} |")
    return "\n\n".join([*lines, "\n".join(table)])


def _is_forward(found: Mapping[str, object]) -> bool:
    return cast("str", found["what"]).startswith("forward")


def _is_half(found: Mapping[str, object]) -> bool:
    return cast("str", found["what"]).endswith("bf16")
