# Two commands on a fresh machine: `make demo` and `make test`. Each makes the virtual environment it needs.
PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
DEMO ?= runs/demo
JOBS ?= 2
PYDOCS = "$$($(BIN)/kontrast data path pydocs)/pydocs.parquet"

.PHONY: demo test test-all lint docs benchmarks results results-reduced clean

$(VENV)/.all: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "kontrast needs Python 3.11 or newer; try: make $(MAKECMDGOALS) PYTHON=python3.11"; exit 2; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet -c constraints.txt -e ".[all]"
	@touch $@

$(VENV)/.dev: $(VENV)/.all
	$(BIN)/python -m pip install --quiet -c constraints.txt -e ".[all,dev,docs,benchmarks]"
	@touch $@

# The demo's data describe this environment, so they are kept beside it.
demo results results-reduced: export KONTRAST_CACHE = $(abspath $(VENV))/cache

## demo: learn to find functions by their description, from the documentation of the packages installed here
demo: $(VENV)/.all
	$(BIN)/kontrast data fetch pydocs
	$(BIN)/kontrast train pairs --data $(PYDOCS) --config examples/demo.yaml --out $(DEMO) --overwrite
	@echo && echo "Three questions, answered from the functions of all those packages:"
	$(BIN)/kontrast predict $(DEMO) --data examples/questions.txt --corpus $(PYDOCS) --top-k 5
	@echo && echo "Open $(DEMO)/report.html in a browser."

## test: the quick suite (under ten minutes on two cores)
test: $(VENV)/.dev
	$(BIN)/python -m pytest -n $(JOBS) -m "not slow and not learning"

## test-all: everything, also the slow tests and those that train on real data
test-all: $(VENV)/.dev
	$(BIN)/python -m pytest -n $(JOBS)

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

docs: $(VENV)/.dev
	$(BIN)/mkdocs build --strict

## benchmarks: the loss engine beside its peers, as ratios from one run
benchmarks: $(VENV)/.dev
	$(BIN)/python benchmarks/loss_engine.py

## results: RESULTS.md anew, five seeds and three arms a row (hours on two cores; finished runs are not repeated)
results: $(VENV)/.all
	$(BIN)/kontrast results --plan examples/results.yaml

## results-reduced: the same way with two seeds and tiny trainings, into a file beside the runs
results-reduced: $(VENV)/.all
	$(BIN)/kontrast results --plan examples/results.yaml --reduced runs/results-reduced --output runs/results-reduced/RESULTS.md

clean:
	rm -rf build dist site .pytest_cache .mypy_cache .ruff_cache .hypothesis
