# Everything runs inside .venv, which is made again only when what it is made of changes.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
PIP    := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt
# A stamp says "this install is finished"; an install that was cut off leaves none.
BASE   := $(VENV)/.installed
DEV    := $(VENV)/.installed-dev
DOCS   := $(VENV)/.installed-docs
# What an install is made of; the kernels are compiled by it where there is a compiler.
SOURCES := pyproject.toml setup.py constraints.txt $(wildcard src/native/*)

.DEFAULT_GOAL := help
.PHONY: help demo test test-slow check format docs gpu-check clean
.DELETE_ON_ERROR:

help:
	@echo "make demo | test | test-slow | check | format | docs | gpu-check | clean"

$(BIN)/python:
	$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); exit 1; }

$(BASE): $(SOURCES) | $(BIN)/python
	$(PIP) -e .
	@touch $@

$(DEV): $(SOURCES) | $(BIN)/python
	$(PIP) -e '.[dev]'
	@touch $(BASE) $@

$(DOCS): $(SOURCES) | $(BIN)/python
	$(PIP) -e '.[docs]'
	@touch $(BASE) $@

demo: $(BASE)
	@$(BIN)/griffin demo

# Two processes of one thread each, files whole: tiny tensors gain nothing from threads. pytest's
# summary stays the last line: nothing is echoed after it.
test: $(DEV)
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile -m "not slow"

# 5 is pytest's "nothing was collected", which is no failure while there are no slow tests.
test-slow: $(DEV)
	@$(BIN)/python -m pytest -m slow --timeout=1800 || [ $$? -eq 5 ]

check: $(DEV)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/pyright
	$(BIN)/codespell
	$(BIN)/python docs/generate_cli.py --check

format: $(DEV)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

docs: $(DOCS)
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

# No installation here: it runs with the Python at hand, on whatever machine has the GPU.
gpu-check:
	@$(PYTHON) tests/gpu_check.py

clean:
	rm -rf $(VENV) build site
