# make demo and make test each work as the first command on a machine that has Python 3.11 or later and make.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
BENCH_VENV ?= .venv-bench
# make bench DATA=DIR: a folder with train/ and val/; without one, generated digits. BENCH: more arguments of benchmarks/run.py.
DATA ?= $(wildcard ../shared/data/hymenoptera)
BENCH ?=
PIP := $(BIN)/python -m pip install --quiet
# Folders too: a file that was removed changes only its folder.
SOURCES := $(shell find src -name __pycache__ -prune -o -print) README.md LICENSE

.PHONY: demo test test-all lint docs pictures bench clean
.DELETE_ON_ERROR:

demo: $(VENV)/.package
	$(BIN)/frostline demo

# A worker that dies ends the suite, and is named with its signal: xdist gives its files to a new one, and then waits for ever.
PYTEST := $(BIN)/python -m pytest -n auto --dist loadfile --no-loadscope-reorder --max-worker-restart=0

test: $(VENV)/.package
	$(PYTEST) -m "not slow"

test-all: $(VENV)/.package
	$(PYTEST)

lint: $(VENV)/.package
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright --pythonpath $(BIN)/python

# The site, in build/docs. Every warning is an error; nothing is fetched.
docs: $(VENV)/.package
	$(BIN)/python -m sphinx -q -W --keep-going -b html -d build/doctrees docs build/docs

# What README and the site show, from generated digits; wants a Chromium.
pictures: $(VENV)/.package
	$(BIN)/python docs/pictures.py

# Takes about an hour on two cores: the peers' training loops take minutes each. Writes docs/benchmarks.md, .svg and .jsonl.
bench: $(VENV)/.package $(BENCH_VENV)/.requirements
	$(BIN)/python benchmarks/run.py $(DATA) --peers $(BENCH_VENV)/bin/python $(BENCH)
	$(BIN)/python benchmarks/limits.py $(DATA) --peers $(BENCH_VENV)/bin/python
	$(BIN)/python benchmarks/growth.py
	$(BIN)/python benchmarks/gpu.py --peers $(BENCH_VENV)/bin/python

# What frostline needs, and what its developers and its build need; brought up to date when either list changes.
$(VENV)/.requirements: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "frostline needs Python 3.11 or later: make PYTHON=python3.11")'
	$(PYTHON) -m venv $(VENV)
	$(PIP) --upgrade -c constraints.txt "pip>=25.1" hatchling
	$(PIP) --no-build-isolation -c constraints.txt --group dev .
	touch $@

# The package itself, installed as a user would have it: the tests import this, not the source tree.
$(VENV)/.package: $(VENV)/.requirements $(SOURCES)
	$(PIP) --no-build-isolation --no-deps --force-reinstall .
	touch $@

# The peers have an environment of their own: they pull in far more than frostline needs, and none of it is frostline's.
$(BENCH_VENV)/.requirements: benchmarks/peers/requirements.txt constraints.txt
	$(PYTHON) -m venv $(BENCH_VENV)
	$(BENCH_VENV)/bin/python -m pip install --quiet --upgrade -c constraints.txt "pip>=25.1"
	$(BENCH_VENV)/bin/python -m pip install --quiet -c constraints.txt -r benchmarks/peers/requirements.txt
	touch $@

clean:
	rm -rf $(VENV) $(BENCH_VENV) dist build frostline-demo
