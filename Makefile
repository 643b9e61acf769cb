# make demo and make test each work as the first command on a machine that has Python 3.11 or later and make.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet
# Folders too: a file that was removed changes only its folder.
SOURCES := $(shell find src -name __pycache__ -prune -o -print) README.md LICENSE

.PHONY: demo test test-all lint bench clean
.DELETE_ON_ERROR:

demo: $(VENV)/.package
	$(BIN)/frostline demo

test: $(VENV)/.package
	$(BIN)/python -m pytest -n auto --dist loadfile -m "not slow"

test-all: $(VENV)/.package
	$(BIN)/python -m pytest -n auto --dist loadfile

lint: $(VENV)/.package
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright --pythonpath $(BIN)/python

bench: $(VENV)/.package
	set -e; for file in benchmarks/*.py; do $(BIN)/python "$$file"; done

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

clean:
	rm -rf $(VENV) dist build frostline-demo
