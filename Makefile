PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
DOCS_VENV := .venv-docs
DOCS_STAMP := $(DOCS_VENV)/.installed
DEMO_STAMP := $(VENV)/.installed-for-demo

# Further arguments for pytest, e.g. make test PYTEST_ARGS="tests/core/timing/test_timing.py -x"
PYTEST_ARGS ?=
# Which of the tests that take turns run, and the seed of random examples; both come from the commit if they are not given.
TURN ?=
SEED ?=
# How long `make fuzz` goes on, and on which tests.
FUZZ_MINUTES ?= 10
FUZZ_TESTS ?= tests
# Further arguments for the suite of benchmarks: python -m benchmarks.suite --help
BENCH_ARGS ?=
# Further arguments for the gallery: python -m gallery --help
GALLERY_ARGS ?=
# Two workers on two cores: one thread each, unless the caller says otherwise.
OMP_NUM_THREADS ?= 1

.DEFAULT_GOAL := help
.PHONY: help demo test test-all costs fuzz lint format bench gallery docs pictures triton-venv clean

help: ## Show this list
	@awk -F ':.*## ' '/^[.a-zA-Z_-]+:.*## / { printf "  make %-11s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.venv: $(STAMP) ## Create the virtual environment with everything for development

# The stamp is written last, so an interrupted installation is taken up again.
$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@ $(DEMO_STAMP)

# The demonstration needs torch and a few small packages. What `make test` has installed contains them.
$(DEMO_STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --disable-pip-version-check -c constraints.txt -e '.[cli]'
	@touch $@

demo: $(DEMO_STAMP) ## Install what the demonstration needs, and run it
	$(BIN)/continual demo

# A file of tests stays in one process: networks, compiled programs and exported files are made once for all of its tests.
PYTEST = OMP_NUM_THREADS=$(OMP_NUM_THREADS) CONTINUAL_TURN=$(TURN) CONTINUAL_SEED=$(SEED) \
	$(BIN)/python -m pytest -n 2 --dist loadfile --benchmark-disable

test: $(STAMP) ## Run the tests and the docstrings' examples, in about 5 minutes (PYTEST_ARGS=…, TURN=…, SEED=…)
	$(PYTEST) --by-cost $(PYTEST_ARGS)

costs: $(STAMP) ## Measure again what each test costs, for tests/costs.csv
	$(PYTEST) -p tests.cpu_times --write-costs $(PYTEST_ARGS)

test-all: $(STAMP) ## Run everything, also what takes long and what takes turns: hours
	CONTINUAL_LONG=1 $(PYTEST) $(PYTEST_ARGS)

fuzz: $(STAMP) ## Look for counter-examples with fresh seeds (FUZZ_MINUTES=10, FUZZ_TESTS=tests/convert)
	OMP_NUM_THREADS=$(OMP_NUM_THREADS) $(BIN)/python -m tests.fuzz --minutes $(FUZZ_MINUTES) $(FUZZ_TESTS)

lint: $(STAMP) ## Check style, formatting, types and the direction of imports
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

format: $(STAMP) ## Sort imports, apply safe fixes and format
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(STAMP) ## Measure everything and write docs/performance.md, in about 45 minutes (BENCH_ARGS="--quick --only conv" for less)
	$(BIN)/python -m benchmarks.suite --markdown docs/performance.md $(BENCH_ARGS)
	$(BIN)/python -m benchmarks.quantised --markdown docs/performance.md
	$(BIN)/python -m benchmarks.growth --markdown docs/performance.md
	$(BIN)/python -m benchmarks --memory --markdown docs/performance.md
	$(BIN)/python -m benchmarks.linear_recurrent --markdown docs/performance.md

gallery: $(STAMP) ## Convert and check the networks of the gallery, and write docs/gallery.md (GALLERY_ARGS="--only video --jobs 2")
	$(BIN)/python -m gallery --markdown docs/gallery.md $(GALLERY_ARGS)

$(DOCS_STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(DOCS_VENV)
	$(DOCS_VENV)/bin/python -m pip install -q --disable-pip-version-check -c constraints.txt -e '.[docs]'
	@touch $@

# Warnings are errors, also links inside that lead nowhere. Every page is written each time (-a): the search index of a build of some pages
# lacks the words of the others.
docs: $(DOCS_STAMP) ## Build the documentation site into docs/_build/html, in its own environment
	OMP_NUM_THREADS=$(OMP_NUM_THREADS) $(DOCS_VENV)/bin/python -m sphinx -q -a -W --keep-going -b html docs docs/_build/html
	@echo "docs/_build/html/index.html"

pictures: $(STAMP) ## Draw the pictures of the pages again, but for those of measured times
	$(BIN)/python -m benchmarks.strips docs
	OMP_NUM_THREADS=$(OMP_NUM_THREADS) $(BIN)/python -m benchmarks.pictures docs

# The Python of the server has other versions than constraints.txt: its stub needs numpy 1.
triton-venv: ## Set up .venv-triton with Triton's server, for tests/triton
	$(PYTHON) -m venv .venv-triton
	.venv-triton/bin/python -m pip install -q --disable-pip-version-check 'nvidia-pytriton==0.7.0' 'numpy<2' 'onnxruntime>=1.20'

clean: ## Remove the virtual environments, caches and build products
	rm -rf $(VENV) $(DOCS_VENV) .venv-triton docs/_build docs/_pages docs/reference/generated build dist .pytest_cache .ruff_cache .mypy_cache .hypothesis .benchmarks
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
