"""``frostline serve``: a real process on a free port, spoken to over real sockets."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch

from frostline._digest import tensor_digest
from frostline.explaining.cam import Heat, heat_of
from frostline.features.pixels import pixel_batches, pixels_of
from frostline.run import read_run
from frostline.serve.app import policy
from frostline.serve.explain import Explainer
from frostline.serve.limits import Guard, Limits
from frostline.use import Labeller, predict

TINY = ("--backbone", "tiny_net:build")


def command(run, *flags):
    return [sys.executable, "-m", "frostline", "serve", str(run), "--port", "0", *map(str, flags)]


@contextlib.contextmanager
def serving(run, tiny_module, *flags) -> Iterator[tuple[subprocess.Popen, int]]:
    environment = {**os.environ, "PYTHONPATH": str(tiny_module)}
    with subprocess.Popen(command(run, *flags), stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment, text=True) as process:
        try:
            first = process.stdout.readline().strip()
            assert first.startswith("http://127.0.0.1:"), process.stderr.read()
            yield process, int(first.rpartition(":")[2])
        finally:
            process.kill()


@pytest.fixture(scope="module")
def run(frostline, images, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "run"
    done = frostline("train", images, *TINY, "--epochs", "2", "--out", folder, "--quiet")
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture(scope="module")
def port(run, tiny_module) -> Iterator[int]:
    with serving(run, tiny_module, "--max-body", "1") as (_, port):
        yield port


def multipart(files: list[tuple[str, bytes]]) -> tuple[bytes, str]:
    mark = uuid.uuid4().hex
    parts = [
        f'--{mark}\r\nContent-Disposition: form-data; name="files"; filename="{name}"\r\n\r\n'.encode() + data + b"\r\n"
        for name, data in files
    ]
    return b"".join(parts) + f"--{mark}--\r\n".encode(), f"multipart/form-data; boundary={mark}"


def ask(port, method, path, body=None, headers=None) -> tuple[int, dict[str, str], bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    connection.request(method, path, body, headers or {})
    reply = connection.getresponse()
    found = reply.status, {k.lower(): v for k, v in reply.getheaders()}, reply.read()
    connection.close()
    return found


def post(port, files, path="/predict") -> tuple[int, object]:
    body, kind = multipart(files)
    status, _, said = ask(port, "POST", path, body, {"Content-Type": kind})
    return status, json.loads(said)


def contents(*paths: Path) -> list[tuple[str, bytes]]:
    return [(str(p), p.read_bytes()) for p in paths]


def test_answers_are_those_of_predict_in_order_with_one_bad_file_among_a_hundred(frostline, port, run, images):
    good = sorted(images.rglob("*.png"))
    files = [*good[:37], *good[:60], *good[:2]]
    wanted = [json.loads(line) for line in frostline("predict", run, *files, "--json").stdout.splitlines()]
    sent = contents(*files)
    sent.insert(41, ("bad.jpg", b"no picture"))
    status, said = post(port, sent)
    assert status == 200
    assert said[41] == {"path": "bad.jpg", "error": "no image of a known format (JPEG, PNG, GIF, BMP, TIFF, WEBP, PPM)"}
    assert said[:41] + said[42:] == wanted
    assert post(port, sent[3:4])[1] == wanted[3:4]


def test_the_same_file_gives_the_same_tensor_by_every_way(images, run, tiny):
    tiny()
    preprocess = read_run(run, offline=True).model.opened.preprocess
    paths = sorted(images.rglob("*.png"))[::13]
    cached = next(pixel_batches(paths, preprocess, [len(paths)]))
    assert [tensor_digest(p) for p in cached] == [tensor_digest(pixels_of(p.read_bytes(), preprocess)) for p in paths]


def test_many_clients_at_once_get_what_each_would_get_alone(port, run, images, tiny):
    tiny()
    paths = sorted(images.rglob("*.png"))
    wanted = {str(a.path): a.to_json(str(a.path)) for a in predict(read_run(run, offline=True), paths)}
    with ThreadPoolExecutor(16) as pool:
        replies = list(pool.map(lambda p: post(port, contents(p)), paths))
    assert all(status == 200 for status, _ in replies)
    assert [said[0] for _, said in replies] == [wanted[str(p)] for p in paths]


def test_health_model_openapi_and_page(port, run):
    assert ask(port, "GET", "/healthz")[2] == b'{"status":"ok"}'
    said = json.loads(ask(port, "GET", "/model")[2])
    assert said["classes"] == ["green", "red"]
    assert said["heat"] is True
    assert said["most_bytes"] == 2**20
    described = json.loads(ask(port, "GET", "/openapi.json")[2])
    assert set(described["paths"]) == {"/predict", "/explain", "/healthz", "/model"}
    assert set(described["components"]["schemas"]["Answer"]["properties"]) == {
        "path",
        "label",
        "probability",
        "probabilities",
        "unfamiliar",
        "unfamiliarity",
    }
    status, headers, page = ask(port, "GET", "/")
    assert status == 200
    assert headers["content-security-policy"] == policy(page.decode())
    assert "'unsafe" not in headers["content-security-policy"]
    assert b"http://" not in page
    assert b"https://" not in page
    assert [ask(port, "GET", path)[0] for path in ("/docs", "/redoc")] == [404, 404]


def test_explain_says_what_was_seen_what_spoke_for_it_and_what_is_like_it(port, run, images):
    status, (said, bad) = post(port, [*contents(images / "red" / "003.png"), ("x", b"")], "/explain")
    assert status == 200
    assert bad == {"path": "x", "error": "empty file"}
    assert said["seen"].startswith("data:image/jpeg;base64,")
    assert len(said["heat"]) == len(said["heat"][0]) == 3
    assert len(said["nearest"]) == 5
    rows = dict(line.split(",")[:2] for line in (run / "split.csv").read_text().splitlines()[1:])
    assert all(rows[n["path"]] == n["label"] for n in said["nearest"])
    assert said["nearest"][0]["path"] == str(images / "red" / "003.png") or "003" in (run / "split.csv").read_text()
    assert {k: said[k] for k in ("label", "probabilities")} == {
        k: post(port, contents(images / "red" / "003.png"))[1][0][k] for k in ("label", "probabilities")
    }


@pytest.mark.parametrize("head", ["linear", "conv:4"])
def test_heat_adds_up_to_the_difference_of_logits(head, images, tmp_path, frostline, tiny):
    done = frostline("train", images, *TINY, "--head", head, "--epochs", "2", "--out", tmp_path / "run", "--quiet")
    assert done.returncode == 0, done.stderr
    tiny()
    found = read_run(tmp_path / "run", offline=True)
    with torch.no_grad():  # two epochs leave the last layer at about zero, where it begins
        found.model.head.linear.weight.copy_(torch.linspace(-1, 1, found.model.head.linear.weight.numel()).sin().view(2, -1))
    heat = heat_of(found)
    assert isinstance(heat, Heat)
    preprocess = found.model.opened.preprocess
    pictures = torch.stack([pixels_of(p.read_bytes(), preprocess) for p in sorted(images.rglob("*.png"))[::10]])
    with torch.no_grad():
        logits = found.model(preprocess.normalise(pictures))
    sums = torch.tensor([float(heat(preprocess.normalise(p[None]), 1).sum()) for p in pictures])
    apart = (logits[:, 1] - logits[:, 0]) - sums  # a constant is left: the bias, and what centring takes off
    assert float(sums.std()) > 1e-3
    assert float(apart.std()) < 1e-3 * float(sums.std())


def test_a_head_without_exact_heat_says_so(images, tmp_path, frostline, tiny):
    assert frostline("train", images, *TINY, "--head", "mlp:4", "--epochs", "1", "--out", tmp_path / "run", "--quiet").returncode == 0
    tiny()
    labeller = Labeller(read_run(tmp_path / "run", offline=True))
    explained = Explainer(labeller)(pixels_of((images / "red" / "000.png").read_bytes(), labeller.prefix.preprocess), "red")
    assert explained["heat"] is None
    assert explained["heat_why"] == "a mlp:4 head is no sum over positions"


def test_a_body_over_the_limit_is_413_whether_declared_or_chunked(port, images):
    body, kind = multipart([("big.png", b"x" * (3 * 2**20))])
    assert ask(port, "POST", "/predict", body, {"Content-Type": kind})[0] == 413
    chunks = (body[i : i + 2**16] for i in range(0, len(body), 2**16))
    assert ask(port, "POST", "/predict", chunks, {"Content-Type": kind})[0] == 413
    # declared only: refused before a byte of it is sent
    with socket.create_connection(("127.0.0.1", port), 10) as line:
        line.sendall(f"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: {kind}\r\nContent-Length: 99999999999\r\n\r\n".encode())
        assert line.recv(100).startswith(b"HTTP/1.1 413")
    # a lie about the length: no more than was declared is taken for the body, and the rest is no request
    with socket.create_connection(("127.0.0.1", port), 10) as line:
        line.sendall(
            f"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: {kind}\r\nContent-Length: 200\r\n\r\n".encode() + body[:90000]
        )
        assert line.recv(100).startswith(b"HTTP/1.1 4")
    assert post(port, contents(images / "red" / "000.png"))[0] == 200


def through_guard(limits, headers, chunks, app=None, held=0):
    """What the guard answers to a request, and what the application behind it was given."""
    given: list[bytes] = []
    sent: list[dict] = []

    async def behind(scope, receive, send):
        more = True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                await send({"type": "http.response.start", "status": 400, "headers": []})
                return
            given.append(message["body"])
            more = message["more_body"]
        await send({"type": "http.response.start", "status": 200, "headers": []})

    rest = [{"type": "http.request", "body": c, "more_body": i + 1 < len(chunks)} for i, c in enumerate(chunks)]

    async def receive():
        return rest.pop(0)

    async def send(message):
        sent.append(message)

    guard = Guard(app or behind, limits, loopback=True)
    guard.over(0, held)
    asyncio.run(guard({"type": "http", "headers": [(k.encode(), v.encode()) for k, v in headers.items()]}, receive, send))
    return sent[0]["status"], b"".join(given)


def test_a_lying_body_is_413_and_never_held():
    status, given = through_guard(Limits(body=1000), {"host": "localhost", "content-length": "10"}, [b"x" * 400] * 10)
    assert status == 413
    assert len(given) == 800
    assert through_guard(Limits(body=1000), {"host": "localhost"}, [b"x" * 500] * 2) == (200, b"x" * 1000)


def test_more_than_can_be_held_at_once_is_503():
    assert through_guard(Limits(held=1000), {"host": "localhost", "content-length": "600"}, [b"x" * 600], held=500)[0] == 503
    assert through_guard(Limits(held=1000), {"host": "localhost"}, [b"x" * 400] * 2, held=500)[0] == 503
    assert through_guard(Limits(held=1000), {"host": "localhost"}, [b"x" * 400], held=500)[0] == 200


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Host": "evil.example"}, 403),
        ({"Host": "evil.example:80"}, 403),
        ({"Host": "localhost"}, 200),
        ({"Host": "[::1]:99"}, 200),
        ({"Origin": "null"}, 403),
        ({"Origin": "http://evil.example"}, 403),
    ],
)
def test_other_hosts_and_other_sites_are_refused(port, headers, status):
    assert ask(port, "GET", "/healthz", headers=headers)[0] == status


def test_what_is_no_upload_is_refused(port):
    assert ask(port, "POST", "/predict", b"{}", {"Content-Type": "application/json"})[0] == 422
    body, kind = multipart([])
    assert ask(port, "POST", "/predict", body, {"Content-Type": kind})[0] in (400, 422)
    assert ask(port, "POST", "/predict", b"--x broken", {"Content-Type": "multipart/form-data; boundary=x"})[0] in (400, 422)
    assert ask(port, "GET", "/predict")[0] == 405


def test_names_come_back_as_they_were_sent(port, images):
    name = "<script>alert(1)</script> ü.png"
    assert post(port, [(name, (images / "red" / "000.png").read_bytes())])[1][0]["path"] == name


def test_sigterm_drains(run, tiny_module, images):
    """A request that is under way is answered whole; then the process ends with 0."""
    body, kind = multipart(contents(*sorted(images.rglob("*.png")) * 5))
    with serving(run, tiny_module) as (process, port):
        with socket.create_connection(("127.0.0.1", port), 60) as line:
            head = f"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n\r\n".encode()
            line.sendall(head + body[:-1000])
            time.sleep(0.5)
            process.send_signal(signal.SIGTERM)
            time.sleep(0.5)
            line.sendall(body[-1000:])
            answer = http.client.HTTPResponse(line)
            answer.begin()
            assert answer.status == 200
            assert len(json.loads(answer.read())) == 300
        assert process.wait(30) == 0
        assert process.stderr.read().splitlines()[-1].startswith("frostline: stopped")
        with pytest.raises(OSError, match="refused"):
            socket.create_connection(("127.0.0.1", port), 5)


def test_what_cannot_be_served_is_one_line(frostline, run, tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        for arguments, words in (
            ((tmp_path / "none",), "no such run directory"),
            ((run, "--port", taken.getsockname()[1]), "cannot be had"),
            ((run, "--host", "no.such.host.invalid"), "is no address of this machine"),
        ):
            done = frostline("serve", *arguments)
            assert done.returncode == 2
            assert words in done.stderr
            assert len(done.stderr.splitlines()) == 1
            assert "Traceback" not in done.stderr


def test_a_missing_extra_is_one_line(run):
    hide = "import sys, importlib.abc\n"
    hide += "class Hide(importlib.abc.MetaPathFinder):\n    def find_spec(self, name, path, target=None):\n"
    hide += "        if name.split('.')[0] in ('fastapi', 'uvicorn'): raise ModuleNotFoundError(name)\n"
    hide += "import importlib.util; real = importlib.util.find_spec\n"
    hide += "importlib.util.find_spec = lambda n, *a: None if n in ('fastapi', 'uvicorn') else real(n, *a)\n"
    hide += "sys.meta_path.insert(0, Hide())\nfrom frostline.cli.main import run\n"
    done = subprocess.run([sys.executable, "-c", f"{hide}sys.exit(run(['serve', {str(run)!r}]))"], capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr == 'frostline: frostline serve: fastapi, uvicorn is not installed; pip install "frostline[serve]"\n'


def test_stalled_sockets_are_closed_while_others_are_served(run, tiny_module, images, port):
    """Nothing sent, half a header, half a body, one byte now and then: closed by 10 s."""
    began = time.monotonic()
    begin = b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: multipart/form-data; boundary=x\r\nContent-Length: 5000\r\n\r\n--x"
    lines = [socket.create_connection(("127.0.0.1", port), 20) for _ in range(20)]
    for line, first in zip(lines, [b"", b"GET /hea", begin, begin] * 5, strict=True):
        line.sendall(first)
    ended: list[float] = []

    def drip(line):
        with contextlib.suppress(OSError):
            while True:
                time.sleep(1)
                line.sendall(b"y")

    def until_closed(line):
        with contextlib.suppress(OSError):
            while line.recv(4096):
                pass
        ended.append(time.monotonic() - began)

    drips = [threading.Thread(target=drip, args=(line,), daemon=True) for line in lines[3::4]]
    waits = [threading.Thread(target=until_closed, args=(line,)) for line in lines]
    for thread in (*drips, *waits):
        thread.start()
    while time.monotonic() - began < 8:
        assert post(port, contents(images / "red" / "000.png"))[0] == 200
    for thread in waits:
        thread.join(20)
    assert len(ended) == 20
    assert min(ended) > 8
    assert max(ended) < 13


@pytest.mark.slow
def test_two_hundred_stalled_sockets(run, tiny_module, images):
    with serving(run, tiny_module) as (_, port):
        began = time.monotonic()
        lines = [socket.create_connection(("127.0.0.1", port), 30) for _ in range(200)]
        for line in lines:
            line.sendall(b"POST /predict HTTP/1.1\r\nHost: localhost\r\n")
        served = 0
        while time.monotonic() - began < 9:
            served += post(port, contents(images / "red" / "000.png"))[0] == 200
        assert served > 20
        for line in lines:
            line.settimeout(10)
            with contextlib.suppress(ConnectionResetError):
                assert line.recv(1) == b""
        assert time.monotonic() - began < 15


@pytest.mark.slow
def test_64_clients_with_50_requests_each_get_offline_answers_or_503(run, tiny_module, images, tiny):
    tiny()
    paths = sorted(images.rglob("*.png"))
    wanted = {str(a.path): a.to_json(str(a.path)) for a in predict(read_run(run, offline=True), paths)}
    with serving(run, tiny_module) as (_, port):

        def client(number):
            return [(p, *post(port, contents(p))) for p in (paths[(number + i) % 60] for i in range(50))]

        with ThreadPoolExecutor(64) as pool:
            replies = [reply for some in pool.map(client, range(64)) for reply in some]
    assert len(replies) == 3200
    assert {status for _, status, _ in replies} <= {200, 503}
    assert all(said[0] == wanted[str(p)] for p, status, said in replies if status == 200)
    assert sum(status == 200 for _, status, _ in replies) > 1600
