# make help lists what there is. Python 3.10 or newer and make are all that a machine must have.
PYTHON ?= python3
BIN := .venv/bin
NOTEBOOKS := $(sort $(wildcard book/*.ipynb))
SOURCES := $(wildcard snnparams/*.py snnparams/*/*.py snnparams/*.mplstyle book/results/*.json book/results/*/*.json* \
    tests/benchmarks/benefit_*.py)

# of make check: what neurons, parameters and layers are, and how the package is built; without the many random problems
CHECKED := $(addprefix tests/test_,names.py imports.py sizes.py signatures.py declarations.py surrogate.py dynamics.py \
    constraints.py groups.py checkpoints.py)

# those that read a data set; the others must run as well without
WITH_DATA := $(shell grep -l 'load_mnist' $(NOTEBOOKS))

# a cell may take half an hour on a slow machine; the limit behind it is for a kernel that does not answer at all
NBVAL := --dist loadfile --no-loadscope-reorder --nbval --nbval-current-env --nbval-cell-timeout=1800 --timeout=2000

# Tests in several processes. One that waits for its threads by turning round, as OpenMP does, takes the processor from
# those beside it.
PYTEST = OMP_WAIT_POLICY=PASSIVE $(BIN)/pytest -n auto --maxprocesses

# Notebooks run two at a time: on two cores, threads of each would take the processor from the other.
ONE_THREAD := OMP_NUM_THREADS=1

# without data sets and without a network; what was compiled for this processor is kept
WITHOUT_DATA = export NUMBA_CACHE_DIR="$${NUMBA_CACHE_DIR:-$${XDG_CACHE_HOME:-$$HOME/.cache}/snnparams/compiled}" && \
    cache=$$(mktemp -d) && trap 'rm -r "$$cache"' EXIT && \
    env -u SNNPARAMS_DATA SNNPARAMS_OFFLINE=1 XDG_CACHE_HOME="$$cache"

# what is done side by side is told one after the other, where make can do that
AS_A_WHOLE := $(if $(filter output-sync,$(.FEATURES)),--output-sync)

# what notebooks show when they are tested is what the book is built from
KEPT := PYTHONPATH=tests

# progress bars are for people at a screen, not for stored pages
export TQDM_DISABLE := 1
# frozen-module notices of the debugger have no place in a notebook
export PYDEVD_DISABLE_FILE_VALIDATION := 1

# the checks of JavaScript come as a wheel for Linux on x86-64 alone; elsewhere they are left out, with a word
BIOME = biome() { if [ -x $(BIN)/biome ]; then $(BIN)/biome "$$@"; else echo "biome is not installed: JavaScript is not checked"; fi; }; biome

.DEFAULT_GOAL := help
.PHONY: help venv book check test test-all test-processors test-browser test-offline stills pdf notebooks derive address format clean

help: ## list the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 16

venv: .venv/installed ## set up .venv with everything from requirements.txt

.venv/installed: requirements.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || \
	    { echo "Python 3.10 or newer is needed, $(PYTHON) is $$($(PYTHON) --version). Try: make PYTHON=python3.12"; exit 1; }
	@$(PYTHON) -c 'import ensurepip' 2>/dev/null || $(MAKE) --no-print-directory python-venv
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check --requirement requirements.txt
	@touch $@

# Debian and Ubuntu split venv off from Python. Root, in a container say, gets it installed; others are told how.
.PHONY: python-venv
python-venv:
	@package=$$($(PYTHON) -c 'import sys; print("python%d.%d-venv" % sys.version_info[:2])'); \
	echo "$(PYTHON) comes without venv, which Debian and Ubuntu ship as the package $$package."; \
	if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	    echo "Installing it: apt-get install $$package" && apt-get update -qq && apt-get install -qq -y $$package; \
	else echo "Install it, then run make again: sudo apt-get install $$package"; exit 1; fi

# Jupyter Book and its cache know a notebook by its cells: they cannot see an edit in snnparams or other data.
_build/executed-with: venv FORCE
	@mkdir -p _build
	@$(BIN)/python -c 'import snnparams; print("data:", snnparams.load_mnist().name)' | tee _build/data
	@{ cat $(SOURCES); $(BIN)/pip freeze --exclude-editable; tail -n 1 _build/data; } | cksum > $@.new
	@if ! cmp -s $@.new $@; then rm -rf _build/.jupyter_cache _build/.doctrees _build/executed; mv $@.new $@; else rm $@.new; fi
FORCE:

book: _build/executed-with ## execute all notebooks and build the HTML, warnings are errors
	OMP_WAIT_POLICY=PASSIVE $(ONE_THREAD) $(BIN)/python tests/notebooks.py cache $(NOTEBOOKS)
	$(BIN)/jupyter-book build . -n -W --keep-going
	@echo "Open _build/html/index.html"

check: venv ## ruff, types and the tests that matter most, in about a minute
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy snnparams
	$(BIN)/pytest -q -x $(CHECKED)

test: _build/executed-with ## everything that must pass: ruff, mypy, unit tests, notebook hygiene, all notebooks
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIOME) ci --error-on-warnings
	$(BIN)/mypy snnparams
	$(PYTEST) 4 --dist worksteal --ignore tests/test_browser.py -m "not slow"
	+$(MAKE) --jobs 2 $(AS_A_WHOLE) notebooks-with-data notebooks-without-data

# side by side, as one long notebook among those with data would keep only one of two cores busy
.PHONY: notebooks-with-data notebooks-without-data
notebooks-with-data:
	$(KEPT) $(ONE_THREAD) $(PYTEST) 2 -p kept_outputs $(NBVAL) $(WITH_DATA)
notebooks-without-data:
	$(WITHOUT_DATA) $(KEPT) $(ONE_THREAD) $(PYTEST) 2 -p kept_outputs $(NBVAL) $(filter-out $(WITH_DATA),$(NOTEBOOKS))

test-all: test test-slow test-processors test-offline ## test, and what takes longer: the others below
	$(MAKE) test-browser

test-slow: venv ## tests that start compilers, other processes or a browser; kernels as far as can be told for arm64
	$(PYTEST) 4 --dist worksteal --ignore tests/test_browser.py -m slow

test-processors: venv ## kernels as on other processors
	$(BIN)/python tests/processors.py

test-browser: book ## the built book in headless Chromium; without one the tests are skipped
	$(PYTEST) 2 --dist worksteal tests/test_browser.py

test-offline: venv ## what reads a data set, without data sets and without a network; test has all else
	$(WITHOUT_DATA) $(BIN)/pytest tests/test_data.py
	$(WITHOUT_DATA) $(ONE_THREAD) $(PYTEST) 2 $(NBVAL) $(WITH_DATA)

stills: venv ## draw the pictures of the first page, and those that stand in for figures that compute
	$(BIN)/python tests/live_figures.py
	$(BIN)/python tests/first_page.py
	$(BIN)/python tests/benchmarks/benefit_front.py

pdf: book ## the book as _build/book.pdf, printed by Chromium
	$(BIN)/jupyter-book build . -n -W --keep-going --builder singlehtml
	$(BIN)/python tests/pdf.py

notebooks: venv ## run all notebooks and store what they show, after a change to them or to snnparams
	$(BIN)/python tests/notebooks.py run $(NOTEBOOKS)

derive: venv ## write the backward passes of all neurons to snnparams/kernels/derived, after a change to a neuron
	$(BIN)/python -m snnparams.kernels.derive

address: venv ## set the public address everywhere: make address URL=https://github.com/owner/name
	@[ "$(origin URL)" = "command line" ] || { echo "Give an address, or an empty one: make address URL="; exit 1; }
	$(BIN)/python tests/address.py '$(URL)'

format: venv ## format code and notebooks
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIOME) check --write

clean: ## remove what was built; .venv stays
	rm -rf _build build dist *.egg-info
