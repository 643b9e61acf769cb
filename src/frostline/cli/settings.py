"""What the environment says, and where things go by default. The only reader of environment variables."""

from __future__ import annotations

import os
import time
from pathlib import Path


def is_offline() -> bool:
    """``FROSTLINE_OFFLINE=1`` or ``HF_HUB_OFFLINE=1``: fetch nothing. The hub's own client is told as well."""
    offline = any(os.environ.get(name, "").lower() in {"1", "true", "yes", "on"} for name in ("FROSTLINE_OFFLINE", "HF_HUB_OFFLINE"))
    if offline:
        os.environ["HF_HUB_OFFLINE"] = "1"
    return offline


def cache_folder(given: Path | None) -> Path:
    """``--cache-dir``, else ``FROSTLINE_HOME``, else the user's cache folder."""
    if given is not None:
        return given
    home = os.environ.get("FROSTLINE_HOME")
    if home:
        return Path(home)
    import platformdirs

    return Path(platformdirs.user_cache_dir("frostline"))


def default_out(name: str) -> Path:
    """``runs/<time>-<name>``, with a number added if that exists already."""
    stem = f"{time.strftime('%Y%m%d-%H%M%S')}-{name}"
    taken = Path("runs") / stem
    number = 2
    while taken.exists():
        taken = Path("runs") / f"{stem}-{number}"
        number += 1
    return taken


def silence_telemetry() -> None:
    """Nothing that frostline loads reports to its maker: onnxruntime does since 1.29."""
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # read once, when onnxruntime is imported
