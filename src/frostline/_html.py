"""Small tables for notebooks; everything in them is escaped."""

from __future__ import annotations

import html
from collections.abc import Mapping


def facts_table(title: str, facts: Mapping[str, object]) -> str:
    """A caption and two columns: what, and its value."""
    left = 'style="text-align:left"'
    known = {html.escape(name): html.escape(str(value)) for name, value in facts.items() if value is not None}
    rows = "".join(f'<tr><th scope="row" {left}>{name}</th><td {left}>{value}</td></tr>' for name, value in known.items())
    return f"<table><caption {left}><b>{html.escape(title)}</b></caption><tbody>{rows}</tbody></table>"
