"""Write the golden trajectories anew: ``python tests/golden/rewrite.py``, with an interpreter that has frostline installed.

For changes of results that are meant; say in the commit which change it is.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from conftest import TINY_NETWORK
from golden.trajectories import RECORD, RUNS, losses_of


def main() -> None:
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        (folder / "tiny_net.py").write_text(TINY_NETWORK)
        environment = {**os.environ, "PYTHONPATH": scratch, "FROSTLINE_HOME": str(folder / "cache"), "FROSTLINE_OFFLINE": "1"}

        def frostline(*arguments: object) -> subprocess.CompletedProcess[str]:
            command = [sys.executable, "-m", "frostline", *map(str, arguments)]
            return subprocess.run(command, capture_output=True, text=True, env=environment)

        record = {run: losses_of(frostline, folder, run) for run in RUNS}
    RECORD.write_text(json.dumps(record, indent=2) + "\n")


if __name__ == "__main__":
    main()
