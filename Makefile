# Every target does its own set-up into .venv, and does nothing twice.
#
#   make demo        ResNet-50 on this CPU, checked against PyTorch, both latencies in one table
#   make test        the tests
#   make coverage    the tests again, with a figure of the lines that they reach
#   make test-full   the tests of the full-size models, and of vector mathematics over all fp32 numbers
#   make models      some fifty model families at reduced depth: native or not, error, compile time, latency beside eager PyTorch
#   make bench       eight models, mlc and eager PyTorch side by side; all models and peers: see the README
#   make fuzz        a minute of random graphs and torch programs
#   make lint types  ruff; mypy on the installed package
#
# PYTHON=python3.12 chooses the interpreter (3.11 or newer); ARGS="-k matmul" goes to pytest or to the benchmark;
# JOBS=0 runs the tests in one process (for --pdb, say), JOBS=4 in four, each of which imports PyTorch and TVM;
# PIP_ARGS="--extra-index-url ..." goes to pip, for instance to take PyTorch's CPU-only build from PyTorch's own index.

PYTHON ?= python3
VENV ?= .venv
ARGS ?=
JOBS ?= 2
PIP_ARGS ?=

PIP := $(VENV)/bin/python -m pip install --disable-pip-version-check --no-compile -qq $(PIP_ARGS) --constraint constraints.txt
STAMP := $(VENV)/mlc-installed
TYPES := $(VENV)/types
PYTEST := $(VENV)/bin/pytest tests --numprocesses=$(JOBS) --dist=worksteal
NATIVE := $(wildcard setup.py runtime/native/*.c runtime/native/*.h)

.PHONY: help setup demo test coverage test-full fuzz models bench lint types clean

help:
	@sed -n '3,14s/^# \{0,1\}//p' Makefile

setup: $(STAMP)

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "mlc needs Python 3.11 or newer; choose one with: make PYTHON=/path/to/python3.11"; exit 1; }
	@command -v cc > /dev/null || { echo "mlc needs a C compiler called cc, such as Debian's package gcc"; exit 1; }
	@rm -rf $(VENV)
	@$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); echo "python cannot make virtual environments; Debian's package is python3-venv"; exit 1; }

# torch on its own first: pip then has no freedom left to choose a CUDA build for another package's sake. pip compiles Python files one after
# the other, which takes over a minute; compileall takes all processors (and like pip minds no file that is not of this Python).
$(STAMP): pyproject.toml constraints.txt $(NATIVE) | $(VENV)/bin/python
	@echo "setting up $(VENV), 1/2: PyTorch (some minutes the first time)"
	@$(PIP) "$$(grep '^torch==' constraints.txt)"
	@echo "setting up $(VENV), 2/2: mlc and what else it needs"
	@$(PIP) --editable '.[test,bench,dev]'
	@$(VENV)/bin/python -m compileall -qq -j 0 $(VENV)/lib || true
	@touch $@

demo: $(STAMP)
	@$(VENV)/bin/python -m mlc.benchmarks.demo $(ARGS)

test: $(STAMP)
	$(PYTEST) $(ARGS)

# On its own, because watching every line takes a sixth of the processor's time.
coverage: $(STAMP)
	$(PYTEST) --cov --cov-config=pyproject.toml --cov-report=term:skip-covered $(ARGS)

test-full: $(STAMP)
	$(VENV)/bin/pytest tests -m full $(ARGS)

models: $(STAMP)
	@$(VENV)/bin/python -m mlc.benchmarks.coverage $(ARGS)

fuzz: $(STAMP)
	$(VENV)/bin/mlc fuzz --seconds 60 $(ARGS)

bench: $(STAMP)
	@$(VENV)/bin/mlc bench $(ARGS)

lint: $(STAMP)
	$(VENV)/bin/ruff check .

# The root folder is the package, whatever the checkout is called: mypy sees it under its name only once installed.
types: $(STAMP)
	@rm -rf $(TYPES) build/lib build/bdist.*
	@$(PIP) --no-deps --target $(TYPES) .
	@rm -rf build/lib build/bdist.*
	MYPYPATH=$(TYPES) $(VENV)/bin/mypy --config-file pyproject.toml -p mlc

clean:
	rm -rf build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis .coverage htmlcov bench.json
	find . -path ./$(VENV) -prune -o -name __pycache__ -type d -print | xargs rm -rf
