"""``frostline doctor SCRIPT|RUN``."""

from __future__ import annotations

import contextlib
import sys
from typing import Annotated

import typer

from frostline.cli.output import print_json
from frostline.cli.settings import is_offline


def doctor(
    target: Annotated[
        str, typer.Argument(metavar="SCRIPT|RUN", help="script.py:FUNCTION that builds model and optimizer, or a run directory")
    ],
    json: Annotated[bool, typer.Option("--json", help="print one JSON object")] = False,
) -> None:
    """Find the classic transfer-learning mistakes, each with its evidence and cure.

    FUNCTION takes no arguments and returns (model, optimizer) or (model, optimizer, loader); three training steps are made on
    what it built, and undone. The exit code is 0 whatever is found.
    """
    from frostline.doctor import ScriptError, examine

    with contextlib.redirect_stdout(sys.stderr):  # what the script prints is no result of ours
        try:
            diagnosis = examine(target, offline=is_offline())
        except SystemExit as end:
            raise ScriptError(f"ends the process (exit {end.code})", where=target, advice="keep the main program under __main__") from end
    findings = diagnosis.findings
    if json:
        print_json(
            {
                "checked": {"subject": diagnosis.subject, "how": diagnosis.how, "traps": list(diagnosis.checked)},
                "findings": [
                    {"trap": f.trap, "title": f.title, "severity": f.severity, "evidence": f.evidence, "cure": f.cure} for f in findings
                ],
                "unchecked": [{"trap": trap, "why": why} for trap, why in diagnosis.unchecked.items()],
            }
        )
        return
    print(f"{diagnosis.subject}: {diagnosis.how}")
    for finding in findings:
        print(f"\n{finding.severity}: {finding.title} (trap {finding.trap})")
        print(f"  evidence  {finding.evidence}")
        print(f"  cure      {finding.cure}")
    if findings:
        print()
    mistakes = sum(f.severity == "mistake" for f in findings)
    print(f"{mistakes or 'no'} mistake{'' if mistakes == 1 else 's'} found, {len(diagnosis.checked)} looked for")
    for why in dict.fromkeys(diagnosis.unchecked.values()):
        print(f"not looked for: trap {', '.join(str(t) for t, w in diagnosis.unchecked.items() if w == why)} ({why})")
