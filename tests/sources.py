"""The source texts of the installed package, by module name."""

from __future__ import annotations

from pathlib import Path

import frostline

SOURCE = Path(frostline.__file__).parent


def module_name(path: Path) -> str:
    parts = path.relative_to(SOURCE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(p): p.read_text() for p in sorted(SOURCE.rglob("*.py")) if p != SOURCE / "__init__.py"}
