# stemdisp: set-up, runs and checks. `make` alone lists the targets.
#
# Only Python 3.11 or newer (with its venv module) and make are needed; the first target that needs
# them installs the pinned packages into .venv. Thread variables (OPENBLAS_NUM_THREADS,
# OMP_NUM_THREADS, ...) need not be set: results do not depend on them.

PYTHON ?= python3
CONFIG ?= pipelines/lao_kto_111.toml
INPUT ?=
OUTPUT ?= results/$(basename $(notdir $(CONFIG)))
ARGS ?=
# Whole files of tests on two processes: the tests of one file share what they have set up.
SPREAD := -n 2 --dist loadfile

VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt
SET_UP := $(VENV)/.stamp
SET_UP_TEST := $(VENV)/.stamp-test
SET_UP_ALL := $(VENV)/.stamp-all
SET_UP_DOCS := $(VENV)/.stamp-docs

.PHONY: help pipeline test test-all lint format bench bench-check calibrate docs sample-data clean
.DEFAULT_GOAL := help

help: ## list the targets
	@echo "make TARGET, where TARGET is"
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  \1\t\2/p' Makefile | expand -t 16
	@echo "Variables of pipeline: CONFIG=file.toml INPUT='data files, or a pattern' OUTPUT=directory"

# set -f: a pattern in INPUT is for stemdisp (every file a field), not for the shell (frames).
pipeline: $(SET_UP) ## run the analysis of CONFIG (default: the sample data) and write OUTPUT
	@set -f; $(BIN)/stemdisp run "$(CONFIG)" $(if $(strip $(INPUT)),--input $(INPUT)) --output "$(OUTPUT)"

test: lint ## check the style and run the fast tests (ARGS: further options of pytest)
	@$(BIN)/python -m pytest -q $(SPREAD) $(ARGS)

test-all: lint $(SET_UP_ALL) ## as test, with the slow tests and multislice
	@$(BIN)/python -m pytest -q $(SPREAD) -m "slow or not slow" $(ARGS)

lint: $(SET_UP_TEST) ## check the style and the types
	@$(BIN)/ruff check --quiet .
	@$(BIN)/ruff format --check --quiet . || { echo "Not formatted: run 'make format'." >&2; exit 1; }
	@$(BIN)/python -m mypy --no-error-summary

format: $(SET_UP_TEST) ## put the code in the common format
	@$(BIN)/ruff check --fix --quiet .
	@$(BIN)/ruff format --quiet .

bench: $(SET_UP_TEST) ## measure stemdisp and others on the same images, write docs/benchmarks.md
	@$(BIN)/python -m benchmarks $(ARGS)

bench-check: $(SET_UP_TEST) ## fail where stemdisp has become more than 20 % slower, larger or worse
	@$(BIN)/python -m benchmarks.check $(ARGS)

calibrate: $(SET_UP_TEST) ## count how often intervals hold the truth, write docs/calibration.md
	@$(BIN)/python -m benchmarks.calibrate --write $(ARGS)

docs: $(SET_UP_DOCS) ## build the documentation into docs/_build/html
	@$(BIN)/python -m sphinx -W --keep-going -q -b html docs docs/_build/html
	@echo "docs/_build/html/index.html"

sample-data: $(SET_UP) ## make the sample data again
	@mkdir -p sample_data
	@$(BIN)/stemdisp simulate sample_data/lao_kto_111.hspy --preset lao-kto-111 --seed 2

clean: ## delete what was made, except results
	@rm -rf $(VENV) .venv-bench build docs/_build docs/_generated
	@rm -rf .pytest_cache .ruff_cache .mypy_cache *.egg-info
	@find stemdisp tests docs benchmarks -name __pycache__ -prune -exec rm -rf {} + 2>/dev/null || true

$(SET_UP): pyproject.toml constraints.txt
	@command -v "$(PYTHON)" >/dev/null 2>&1 || { \
	  echo "$(PYTHON) is not there: install Python 3.11 or newer, or set PYTHON=path." >&2; exit 1; }
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "Python 3.11 or newer is needed, $(PYTHON) is older: set PYTHON=path." >&2; exit 1; }
	@if ! $(BIN)/python -m pip --version >/dev/null 2>&1; then \
	  echo "Setting up $(VENV) (once; this takes some minutes)"; \
	  "$(PYTHON)" -m venv --clear $(VENV) || { rm -rf $(VENV); \
	    echo "'$(PYTHON) -m venv' failed: install it (on Debian or Ubuntu: the package python3-venv)." >&2; \
	    exit 1; }; \
	fi
	@$(PIP) -e '.[atomap]'
	@touch $@

$(SET_UP_TEST): $(SET_UP)
	@$(PIP) -e '.[atomap,test,lint]'
	@touch $@

$(SET_UP_DOCS): $(SET_UP)
	@$(PIP) -e '.[atomap,docs]'
	@touch $@

$(SET_UP_ALL): $(SET_UP_TEST)
	@$(PIP) -e '.[atomap,test,lint,simulate]'
	@touch $@
