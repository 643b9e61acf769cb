"""The command as a person runs it: text, JSON, exit codes."""

from __future__ import annotations

import json
from pathlib import Path

SCRIPTS = Path(__file__).parent / "scripts"


def test_json_is_one_object_whatever_the_script_prints(frostline, tmp_path):
    (tmp_path / "chatty.py").write_text(
        f"import sys\nsys.path.insert(0, {str(SCRIPTS)!r})\nprint('importing')\nfrom idioms import *\n"
        "def build():\n    print('building', sys.argv)\n    model = tiny(TinyAsleep)\n"
        "    return model, torch.optim.SGD(model.parameters(), lr=0.1, weight_decay=0.01), batches()\n"
    )
    done = frostline("doctor", "chatty.py:build", "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert answer["checked"]["subject"] == "chatty.py:build"
    assert answer["checked"]["traps"] == [1, 2, 4, 5, 6, 15, 25, 27]
    assert [u["trap"] for u in answer["unchecked"]] == [12, 22]
    (finding,) = answer["findings"]
    assert set(finding) == {"trap", "title", "severity", "evidence", "cure"}
    assert (finding["trap"], finding["severity"]) == (5, "mistake")
    assert "8 of the 10 tensors" in finding["evidence"]
    assert "weight decay 0.01" in finding["evidence"]
    assert "building ['chatty.py']" in done.stderr


def test_words(frostline):
    done = frostline("doctor", f"{SCRIPTS / 'idioms.py'}:trap_2_with_dropout")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0].endswith("idioms.py:trap_2_with_dropout: 3 training steps on batches of its loader")
    assert "mistake: train() wakes layers that were put in eval mode (trap 2)" in lines
    assert any(line.startswith("  evidence  the script left them in eval mode") and "features.3" in line for line in lines)
    assert any(line.startswith("  cure      keep frozen layers in eval mode by overriding train()") for line in lines)
    assert "1 mistake found, 8 looked for" in lines


def test_nothing_found(frostline):
    done = frostline("doctor", f"{SCRIPTS / 'idioms.py'}:correct_torchvision")
    assert (done.returncode, done.stdout.splitlines()[-1]) == (0, "no mistakes found, 10 looked for")


def test_wrong_input_is_one_line_and_exit_code_2(frostline, tmp_path):
    (tmp_path / "main_program.py").write_text("import sys\nsys.exit(3)\n")
    for arguments, words in (
        (("doctor", tmp_path / "none.py:build"), "no such script or run directory"),
        (("doctor", tmp_path / "main_program.py"), "ends the process (exit 3); keep the main program under __main__"),
        (("doctor", tmp_path), "is no finished run"),
        (("doctor",), "Missing argument"),
    ):
        done = frostline(*arguments)
        assert done.returncode == 2, done.stderr
        assert done.stdout == ""
        assert len(done.stderr.strip().splitlines()) == 1
        assert words in done.stderr
