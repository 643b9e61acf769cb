"""``frostline predict``: what names files, formats, order, streaming, exit codes."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from PIL import Image

from frostline.run import read_run
from frostline.use import Labeller, check_named, files_named, label_files

TINY = ("--backbone", "tiny_net:build")


@pytest.fixture(scope="module")
def run(frostline, images, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "run"
    done = frostline("train", images, *TINY, "--epochs", "2", "--out", folder, "--quiet")
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture
def piped(tiny_module, cache):
    """Runs predict with bytes on stdin."""

    def ask(run, *flags, given: bytes):
        command = [sys.executable, "-m", "frostline", "predict", str(run), *map(str, flags)]
        environment = {**os.environ, "PYTHONPATH": str(tiny_module)}
        return subprocess.run(command, input=given, capture_output=True, env=environment, timeout=120)

    return ask


def rows(text: str | bytes) -> list[dict]:
    return [json.loads(line) for line in text.splitlines()]


def test_the_three_formats_say_the_same(frostline, run, images, tmp_path):
    (tmp_path / "bad, one.png").write_text("no picture")
    files = [images / "red" / "000.png", tmp_path / "bad, one.png", images / "green" / "001.png"]
    lines = frostline("predict", run, *files, "--format", "jsonl")
    table, as_csv = (frostline("predict", run, *files, "--format", f) for f in ("table", "csv"))
    assert frostline("predict", run, *files, "--json").stdout == lines.stdout
    for done in (lines, table, as_csv):
        assert done.returncode == 0
        assert done.stderr == "frostline: 1 of 3 files gave no answer; their rows say why\n"
    said, cells = rows(lines.stdout), list(csv.DictReader(as_csv.stdout.splitlines()))
    assert set(said[0]) == {"path", "label", "probability", "probabilities", "unfamiliar", "unfamiliarity"}
    assert [c["path"] for c in cells] == [s["path"] for s in said] == [str(f) for f in files]
    for cell, answer in zip(cells, said, strict=True):
        assert cell["error"] == answer.get("error", "")
        if "error" not in answer:
            assert cell["label"] == answer["label"]
            assert {c: float(cell[f"p:{c}"]) for c in ("green", "red")} == answer["probabilities"]
            assert float(cell["unfamiliarity"]) == answer["unfamiliarity"]
            assert cell["unfamiliar"] == json.dumps(answer["unfamiliar"])
    lines_of_table = table.stdout.splitlines()
    assert len(lines_of_table) == 4
    for line, answer in zip(lines_of_table[1:], said, strict=True):
        assert answer["path"] in line
        assert ("no image" in line) if "error" in answer else line.startswith(answer["label"])


def test_folders_patterns_and_stdin_keep_their_order(frostline, piped, run, images, tmp_path):
    for name in ("b", "a"):
        (tmp_path / name / ".hidden").mkdir(parents=True)
        for file in ("2.png", "1.png", ".hidden/no.png", ".no.png"):
            Image.new("RGB", (40, 40), "red").save(tmp_path / name / file)
    inside = [f"{name}/{number}.png" for name in ("b", "a") for number in (1, 2)]
    asked = frostline("predict", run, "b", "a", "--json", cwd=tmp_path)
    assert [r["path"] for r in rows(asked.stdout)] == inside
    for pattern in ("*/*.png", "**/*.png", "[ab]", str(tmp_path / "?")):
        found = [r["path"] for r in rows(frostline("predict", run, pattern, "--json", cwd=tmp_path).stdout)]
        assert [str(Path(p).relative_to(tmp_path)) if Path(p).is_absolute() else p for p in found] == sorted(inside)
    names = "\n".join(str(tmp_path / n) for n in (*inside, "b"))
    listed = piped(run, "-", "--json", given=f"{names}\r\n\n{tmp_path / 'none.png'}".encode())
    wanted = [*(str(tmp_path / n) for n in (*inside, *inside[:2])), str(tmp_path / "none.png")]
    assert [r["path"] for r in rows(listed.stdout)] == wanted
    assert rows(listed.stdout)[-1]["error"].startswith("cannot be read")
    assert listed.returncode == 0


def test_names_that_end_with_nul(piped, run, tmp_path):
    odd = [os.fsencode(tmp_path) + b"/two\nlines.png", os.fsencode(tmp_path) + b"/caf\xe9.png", os.fsencode(tmp_path) + b"/[a].png"]
    for name in odd:
        Image.new("RGB", (40, 40), "green").save(os.fsdecode(name))
    done = piped(run, "-", "--null", "--json", given=b"\0".join(odd))
    assert done.returncode == 0
    assert [r["path"].rpartition("/")[2] for r in rows(done.stdout)] == ["two\nlines.png", "caf\\xe9.png", "[a].png"]
    assert all("label" in r for r in rows(done.stdout))
    table = piped(run, "-", "--null", given=b"\0".join(odd))
    assert len(table.stdout.splitlines()) == 4  # a name cannot make a line of its own


def test_one_bad_file_among_a_hundred(frostline, run, images, tmp_path):
    good = [str(p) for p in sorted(images.rglob("*.png"))]
    (tmp_path / "bad.jpg").write_bytes(b"\xff\xd8\xff\xe0 no more")
    files = [*good[:57], str(tmp_path / "bad.jpg"), *good[:42]]
    said = rows(frostline("predict", run, *files, "--json").stdout)
    assert [r["path"] for r in said] == files
    assert [i for i, r in enumerate(said) if "error" in r] == [57]
    assert said[58:] == said[:42]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("no.jpg",), "no.jpg: no such file or folder"),
        (("*.gif",), "*.gif: no file matches"),
        (("bad.txt",), "none of 1 files is an image that can be read"),
        (("empty",), "holds no files"),
        (("bad.txt", "--format", "xml"), "no format is called 'xml'"),
        (("bad.txt", "--json", "--format", "csv"), "contradicts --format csv"),
        (("bad.txt", "--null"), "no names are read from stdin"),
    ],
)
def test_what_cannot_be_done_is_one_line(frostline, run, tmp_path, arguments, words):
    (tmp_path / "bad.txt").write_text("no picture")
    (tmp_path / "empty").mkdir()
    done = frostline("predict", run, *arguments, cwd=tmp_path)
    assert done.returncode == 2
    assert words in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_a_run_without_the_record_says_so_once(frostline, run, images, tmp_path):
    import shutil

    shutil.copytree(run, tmp_path / "run")
    (tmp_path / "run" / "familiar.safetensors").unlink()
    done = frostline("predict", tmp_path / "run", images / "red", "--json")
    assert {r["unfamiliar"] for r in rows(done.stdout)} == {r["unfamiliarity"] for r in rows(done.stdout)} == {None}
    assert done.stderr.count("unfamiliar") == 1
    (tmp_path / "run" / "familiar.safetensors").write_bytes(b"none")
    assert frostline("predict", tmp_path / "run", images / "red").returncode == 2


def test_answers_come_while_names_arrive(run, images, tiny):
    """However many files there are, no more than two batches of names are taken ahead of the answers."""
    tiny()
    taken = 0

    def endless():
        nonlocal taken
        while True:
            taken += 1
            yield images / "red" / f"{taken % 30:03}.png"

    answers = label_files(Labeller(read_run(run, offline=True)), endless())
    for given in range(1, 200):
        assert next(answers).label is not None
        assert taken <= given + 32
    answers.close()


def test_the_first_answers_do_not_wait_for_the_last_name(run, images, tiny_module):
    command = [sys.executable, "-m", "frostline", "predict", str(run), "-", "--json"]
    environment = {**os.environ, "PYTHONPATH": str(tiny_module)}
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment) as process:
        watch = threading.Timer(100, process.kill)
        watch.start()
        process.stdin.write(b"".join(f"{images / 'red' / '000.png'}\n".encode() for _ in range(40)))
        process.stdin.flush()
        first = json.loads(process.stdout.readline())
        assert process.poll() is None
        process.stdin.close()
        rest = process.stdout.read().splitlines()
        watch.cancel()
    assert first["label"]
    assert len(rest) == 39


def test_names_that_are_patterns_but_exist_are_taken_as_they_are(tmp_path):
    (tmp_path / "[a].png").write_bytes(b"")
    (tmp_path / "a.png").write_bytes(b"")
    check_named([tmp_path / "[a].png"])
    assert list(files_named([tmp_path / "[a].png"])) == [tmp_path / "[a].png"]
    (tmp_path / "[a].png").unlink()
    assert list(files_named([tmp_path / "[a].png"])) == [tmp_path / "a.png"]
