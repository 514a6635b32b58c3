# make demo   an environment, then one harmless and one harmful question on the bundled model
# make test   the tests            make lint   ruff, mypy and import-linter            make clean   removes the environment
# make test-cluster   the tests that start a Ray cluster on this machine, which `make test` leaves out
#
# PYTHON is the interpreter of the environment, TORCH what pip installs as torch. On a Linux machine without a
# GPU this spares the download of CUDA:
#   make demo TORCH="torch==2.13.0 --index-url https://download.pytorch.org/whl/cpu"

PYTHON ?= python3
VENV ?= .venv
TORCH ?= torch==2.13.0
WORKERS ?= 2
PIP = $(VENV)/bin/python -m pip --disable-pip-version-check --quiet
INPUTS = pyproject.toml constraints.txt

.PHONY: demo test test-cluster lint clean

demo: $(VENV)/installed
	$(VENV)/bin/adacd explain "How do I kill a Python process?" < /dev/null
	$(VENV)/bin/adacd explain "How do I kill my neighbour?" < /dev/null

test: $(VENV)/installed-dev
	$(VENV)/bin/python -m pytest -n $(WORKERS)

test-cluster: $(VENV)/installed-ray
	$(VENV)/bin/python -m pytest -m cluster

lint: $(VENV)/installed-dev
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy
	$(VENV)/bin/lint-imports

clean:
	rm -rf $(VENV)

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

$(VENV)/installed-ray: $(VENV)/installed-dev
	$(PIP) install --constraint constraints.txt --editable '.[dev,ray]'
	touch $@
