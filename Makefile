# make demo    trains, tests and reports a network on handwritten digits (no download of data)
# make test    ruff, mypy and the tests
# make check   ruff and mypy alone
# make bench   all benchmarks, under 20 minutes on two cores, with a table at the end
# make faults  the whole fault suite, under 90 minutes on two cores; its table is results/faults.md
# Each makes the environment that it needs, in .venv, from pyproject.toml and constraints.txt.
# PYTHON=python3.12 make demo chooses another Python; pip's own settings (PIP_INDEX_URL and others) are respected.

PYTHON ?= python3
WORKERS ?= 2
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help demo test check bench faults clean

help:
	@sed -n 's/^# make/make/p' Makefile

demo: $(VENV)/core-is-installed
	$(BIN)/layerwise train resnet20 digits --recipe digits

test: check
	$(BIN)/python -m pytest -q -n $(WORKERS) --durations 40

check: $(VENV)/dev-is-installed
	$(BIN)/ruff check .
	$(BIN)/mypy

bench: $(VENV)/core-is-installed
	$(BIN)/python benchmarks/all.py

faults: $(VENV)/dev-is-installed
	$(BIN)/python faults/all.py

clean:
	rm -rf $(VENV) build *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis

# torch first and pinned: nothing installed later can choose another build of it.
$(VENV)/core-is-installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "make: $(PYTHON) is missing or older than 3.11; name a newer one: make demo PYTHON=python3.12" >&2; exit 3; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); \
	  echo "make: $(PYTHON) -m venv failed; on Debian and Ubuntu: apt-get install python3-venv" >&2; exit 3; }
	@echo "installing the versions of constraints.txt into $(VENV), torch first (some minutes the first time)"
	@$(PIP) $$(grep -m 1 '^torch==' constraints.txt)
	@$(PIP) --editable .
	@touch $@

$(VENV)/dev-is-installed: $(VENV)/core-is-installed
	@$(PIP) --editable '.[dev]'
	@touch $@
