# One word per job. `make demo` and `make test` set themselves up on a fresh machine with Python >= 3.11.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.set-up

.PHONY: setup demo test check gpu-test matrix clean

setup: $(STAMP)

# torch first and alone: the pinned CPU build satisfies every later requirement
$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; assert sys.version_info >= (3, 11), f"Python 3.11 or newer is needed, this is {sys.version}"'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt torch
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev,train]'
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt --no-deps speculators hs-connectors
	touch $(STAMP)

demo: setup
	@$(BIN)/outrider demo

check: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

test: check
	$(BIN)/python -m pytest

matrix: setup
	$(BIN)/python -m pytest -m matrix tests/identity

# on a machine with a GPU, with the Python that has torch for it
gpu-test:
	PYTHONPATH=src $(PYTHON) -m pytest -m gpu

clean:
	rm -rf $(VENV) build dist
