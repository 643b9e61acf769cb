#!/usr/bin/env bash
# From an empty environment to a served model, by the five commands of README, with the seconds of each.
# benchmarks/first_steps.sh [PYTHON]: installs from this checkout; FIRST_STEPS_PIP holds more arguments of pip.
set -euo pipefail
checkout="$(cd "$(dirname "$0")/.." && pwd)"
python="${1:-python3}"
work="$(mktemp -d)"
server=
finish() { [ -z "$server" ] || kill "$server" 2>/dev/null || true; rm -rf "$work"; }
trap finish EXIT
export FROSTLINE_HOME="$work/cache" FROSTLINE_OFFLINE=1
cd "$work"

now() { date +%s.%N; }
began="$(now)"
step() { # step NAME COMMAND...
  local name="$1" start; shift
  start="$(now)"
  "$@" >"$work/out" 2>"$work/err" || { echo "$name failed:"; cat "$work/out" "$work/err"; exit 1; }
  printf '%-34s %7.1f s\n' "$name" "$(echo "$(now) - $start" | bc)"
}

install() { "$python" -m venv venv && venv/bin/python -m pip install --quiet ${FIRST_STEPS_PIP:-} "$checkout[serve]"; }
serve_one() {
  venv/bin/frostline serve "$run" --port 0 >address 2>serve.err &
  server=$!
  until [ -s address ]; do kill -0 "$server" || { cat serve.err; return 1; }; sleep 0.1; done
  venv/bin/python - "$(grep -o 'http://[^ ]*' address | head -1)" "$picture" <<'END'
import json, sys, urllib.request
from pathlib import Path
body = b"--b\r\nContent-Disposition: form-data; name=\"files\"; filename=\"a.png\"\r\n\r\n" + Path(sys.argv[2]).read_bytes() + b"\r\n--b--\r\n"
asked = urllib.request.Request(f"{sys.argv[1].rstrip('/')}/predict", body, {"Content-Type": "multipart/form-data; boundary=b"})
answer = json.load(urllib.request.urlopen(asked, timeout=60))
assert answer[0]["label"], answer
END
}

step "venv, pip install .[serve]" install
step "frostline demo (data and train)" venv/bin/frostline demo
run="$(ls -d frostline-demo/run-*)"
picture="$(ls frostline-demo/digits/test/3/*.png | head -1)"
step "frostline report" venv/bin/frostline report "$run"
step "frostline predict" venv/bin/frostline predict "$run" frostline-demo/digits/test/3
step "frostline serve, one request" serve_one
printf '%-34s %7.1f s\n' "all" "$(echo "$(now) - $began" | bc)"
