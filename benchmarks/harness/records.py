"""Measurements as lines of JSON, so that a part can be measured again and the page written anew from all of them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

Record = Mapping[str, object]


def append(file: Path, record: Record) -> None:
    """Add one measurement."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("a") as stream:
        stream.write(json.dumps(record) + "\n")


def read(file: Path, kind: str) -> list[Record]:
    """All measurements of one kind, in the order in which they were made."""
    if not file.exists():
        return []
    return [r for r in map(json.loads, file.read_text().splitlines()) if r["kind"] == kind]


def alike(records: Sequence[Record], fields: tuple[str, ...]) -> list[Record]:
    """Those that agree in ``fields`` with the last one: ratios do not survive another machine or other images."""
    return [r for r in records if all(r.get(field) == records[-1].get(field) for field in fields)]


def newest(records: Sequence[Record], by: str) -> list[Record]:
    """For each value of ``by`` the records of the last session that measured it; ``records`` are in the order they were made."""
    session = {r[by]: r["session"] for r in records}
    return [r for r in records if r["session"] == session[r[by]]]
