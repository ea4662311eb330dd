# Every target does its own set-up: a virtual environment with pinned dependencies.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.ready

.PHONY: demo test test-all lint check bench clean help

help:  ## this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/'

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "phyla needs Python 3.11 or newer, this is %s" % sys.version)'
	@echo "1/3  making a virtual environment in $(VENV)"
	$(PYTHON) -m venv $(VENV) || { apt-get update -qq && apt-get install -qq -y python3-venv && $(PYTHON) -m venv $(VENV); }
	@echo "2/3  installing torch: the largest package, a minute or two"
	PIP_CONSTRAINT= $(BIN)/python -m pip install --quiet --disable-pip-version-check "torch==$(shell sed -n 's/^torch==//p' constraints.txt)"
	@echo "3/3  installing phyla and what it is developed with"
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[torch,jax,plot,dev]"
	touch $@

demo: $(STAMP)  ## train digits with 16 members, print the schedule, draw the pictures
	@echo "training 16 members on digits for 20 intervals; the record is kept in runs/digits"
	$(BIN)/python examples/digits.py
	@echo "drawing digits.png"
	$(BIN)/phyla plot runs/digits --out digits.png
	@echo "the toy of the paper: four short runs, drawn in toy.png"
	$(BIN)/python examples/toy.py toy.png

test: $(STAMP)  ## the fast tests
	$(BIN)/python -m pytest -n 3

test-all: $(STAMP)  ## all tests, the slow ones too
	$(BIN)/python -m pytest -n 3 -m ""

lint: $(STAMP)  ## style, types, and who may import whom
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: $(STAMP)  ## what phyla costs, against floors
	$(BIN)/python bench/orchestration.py
	$(BIN)/python bench/digits.py
	$(BIN)/python bench/fold.py
	$(BIN)/python bench/cohorts_jax.py
	$(BIN)/python bench/cohorts_torch.py

clean:  ## removes what the other targets made
	rm -rf $(VENV) .pytest_cache .ruff_cache .mypy_cache .hypothesis .import_linter_cache
	rm -rf runs/digits digits.png digits-schedule.json toy.png
	rmdir runs 2>/dev/null || true
