# The environment lives in .venv; everything else needs only make and Python 3.11 with its venv module.
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/$(if $(filter Windows_NT,$(OS)),Scripts,bin)
READY := $(VENV)/.ready

# Compiled modules are kept, whatever the environment says: the tests start many processes.
export PYTHONDONTWRITEBYTECODE :=

.PHONY: run test quick processors check bench torture killtest soak corpus tracking clean

run: $(READY)
	$(BIN)/batchemo run sample_media --out results

# Two processes, since tests wait for processes of their own; PYTEST takes more options, as in `make test PYTEST='-k blur'`.
TEST := $(BIN)/python -m pytest --numprocesses 2 --dist worksteal

test: $(READY)
	$(TEST) --durations 20 $(PYTEST)

# Below a minute: what needs no second process, no browser and no video.
quick: $(READY)
	$(TEST) -m 'not (slow or browser or process or dask or media)' $(PYTEST)

# What depends on the processor, run as several.
processors: $(READY)
	$(BIN)/python -m checks.processors

check: $(READY)
	$(BIN)/python -m ruff check .
	$(BIN)/python -m ruff format --check .
	$(BIN)/python -m mypy

bench: $(READY)
	$(BIN)/python bench/compare.py

# These take from minutes to hours, and leave what they made in a folder of /tmp or of CHECKS.
CHECKS ?= $(or $(TMPDIR),/tmp)/batchemo-checks

torture killtest soak corpus: $(READY)
	$(BIN)/python -m checks.$@ --folder $(CHECKS)/$@

# Takes FER2013 (make tracking DATA=fer2013.csv); about ten minutes.
tracking: $(READY)
	$(BIN)/python -m training tracking --data $(or $(DATA),fer2013.csv)

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) --version >/dev/null 2>&1 || { echo "batchemo needs $(PYTHON); install it, or name another: make PYTHON=python3 $(MAKECMDGOALS)" >&2; exit 2; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV) || { echo "Python's venv module is missing; on Debian: sudo apt-get install python3-venv" >&2; exit 2; }
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	@touch $@

clean:
	rm -rf $(VENV) results build *.egg-info
