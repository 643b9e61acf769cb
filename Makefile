# make demo and make test each work as the first command on a machine that has Python 3.11 or later and make.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
SOURCES := $(shell find src -type f -name '*.py') README.md LICENSE

.PHONY: demo test test-all lint bench clean
.DELETE_ON_ERROR:

demo: $(VENV)/.package
	$(BIN)/frostline demo

test: $(VENV)/.package
	$(BIN)/python -m pytest -m "not slow"

test-all: $(VENV)/.package
	$(BIN)/python -m pytest

lint: $(VENV)/.package
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright --pythonpath $(BIN)/python

bench: $(VENV)/.package
	$(BIN)/python benchmarks/head_defaults.py

# What frostline needs, and what its developers need; made anew when either list changes.
$(VENV)/.requirements: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade "pip>=25.1"
	$(BIN)/python -m pip install --quiet -c constraints.txt --group dev .
	touch $@

# The package itself, installed as a user would have it: the tests import this, not the source tree.
$(VENV)/.package: $(VENV)/.requirements $(SOURCES)
	$(BIN)/python -m pip install --quiet --no-deps --force-reinstall .
	touch $@

clean:
	rm -rf $(VENV) dist build frostline-demo
