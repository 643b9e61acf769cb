"""Every planted mistake is found, alone, with its evidence; a correct script gives nothing."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from frostline.doctor import TRAPS, examine

SCRIPTS = Path(__file__).parent / "scripts"

EVIDENCE = {
    "trap_01_statistics_move": r"3 training steps .* 49 of 49 frozen batch-norm layers, .*running_mean by up to [\d.]+ standard dev",
    "trap_02_train_wakes": r"left them in eval mode, model.train\(\) put them back .* 49 of 49",
    "trap_04_dropout_in_frozen_layers": r"backbone\.blocks\.3 \(Dropout2d, p=0\.2\); the same batch twice .* differs by \d",
    "trap_05_frozen_in_optimizer": r"147 of the 149 tensors .*3,371,008 parameters, with weight decay 0\.05.*backbone\.conv_stem\.weight",
    "trap_06_new_head_not_in_optimizer": r"2 tensors .* head\.weight, head\.bias; it holds 2 tensors that the model no longer has",
    "trap_06_forward_never_reaches_head": r"output depends on nothing that is trained; no gradient reaches 2 tensors .* head\.weight, head\.bias",
    "trap_12_wrong_mean_and_std": r"ImageNet's mean and std; measured on 20 images of 48x48: mean .*wants mean \(0\.5, 0\.5, 0\.5\)",
    "trap_15_random_weights": r"14 of 14 frozen norm layers are as initialised.*backbone\.conv1",
    "trap_22_recomputed_every_epoch": r"[\d.e+]+ of [\d.e+]+ ms of a forward pass \(8 samples\) are spent in backbone",
    "trap_25_last_batch_of_one": r"17 samples in batches of 8 leave a last batch of 1 .*head\.0",
    "trap_27_everything_frozen": r"none of 149 parameter tensors .*holds 149",
    "trap_27_optimizer_without_parameters": r"empty parameter list \(line 8\)",
}
CORRECT = ("correct_cached_features", "correct_augmented", "correct_fine_tuning")


def idioms(prefix: str) -> list[str]:
    tree = ast.parse((SCRIPTS / "idioms.py").read_text())
    return [n.name for n in tree.body if isinstance(n, ast.FunctionDef) and n.name.startswith(prefix)]


@pytest.mark.parametrize("script", EVIDENCE)
def test_a_planted_mistake_is_found_and_no_other(script):
    (finding,) = examine(f"{SCRIPTS / script}.py:build").findings
    assert finding.trap == int(script.split("_")[1])
    assert re.search(EVIDENCE[script], finding.evidence)
    assert finding.cure
    assert finding.title == TRAPS[finding.trap]
    assert finding.severity == ("advice" if finding.trap == 22 else "mistake")


def test_every_trap_has_a_script():
    assert {int(name.split("_")[1]) for name in EVIDENCE} == set(TRAPS)
    assert {p.stem for p in SCRIPTS.glob("*_*.py")} == {*EVIDENCE, *CORRECT}


@pytest.mark.parametrize("script", CORRECT)
def test_a_correct_script_gives_nothing(script):
    assert examine(SCRIPTS / f"{script}.py").findings == ()


@pytest.mark.parametrize("function", idioms("trap_"))
def test_the_mistake_in_other_words(function):
    diagnosis = examine(f"{SCRIPTS / 'idioms.py'}:{function}")
    assert [f.trap for f in diagnosis.findings] == [int(function.split("_")[1])], diagnosis.findings


@pytest.mark.parametrize("function", idioms("correct_"))
def test_what_is_right_in_other_words(function):
    assert examine(f"{SCRIPTS / 'idioms.py'}:{function}").findings == ()


def test_what_could_not_be_looked_at_is_said():
    diagnosis = examine(f"{SCRIPTS / 'idioms.py'}:correct_generator_for_loader")
    assert set(diagnosis.unchecked) == {12, 22, 25}
    assert "cannot be told" in diagnosis.unchecked[22]
    assert diagnosis.checked == (1, 2, 4, 5, 6, 15, 27)
    assert set(examine(f"{SCRIPTS / 'idioms.py'}:trap_1_without_a_loader").unchecked) == {12, 22, 25}
