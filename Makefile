# One word per job. `make demo` and `make test` set themselves up on a fresh machine with Python >= 3.11.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALL := $(BIN)/python -m pip install --disable-pip-version-check -c constraints.txt

.PHONY: setup setup-dev demo check test matrix gpu-test bench-kernels clean

# what the engine needs; does nothing the second time
setup: $(VENV)/.set-up
# what its tests need on top
setup-dev: $(VENV)/.set-up-dev

# torch first and alone: the constrained build satisfies every later requirement
$(VENV)/.set-up: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and f"Python 3.11 or newer is needed, this is {sys.version}. Set PYTHON=...")'
	@echo "Setting up $(VENV): torch and what the engine needs. This takes a few minutes, once."
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(INSTALL) torch
	$(INSTALL) -e .
	touch $@

# the speculators library comes without its own requirements, which would pull a CUDA build of torchvision
$(VENV)/.set-up-dev: $(VENV)/.set-up
	@echo "Setting up what the tests need on top."
	$(INSTALL) -e '.[dev]'
	$(INSTALL) --no-deps speculators hs-connectors
	touch $@

demo: setup
	@$(BIN)/outrider demo

check: setup-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# two processes of one thread each: small matrices gain nothing from threads
test: check
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile

matrix: setup-dev
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 -m matrix tests/identity

# on a machine with a GPU, with the Python that has a torch for it
gpu-test:
	PYTHONPATH=src $(PYTHON) -m pytest -m gpu tests

# tables of kernel speed into benchmarks/results/, likewise
bench-kernels:
	PYTHONPATH=src $(PYTHON) -m benchmarks.kernels

clean:
	rm -rf $(VENV) build dist
