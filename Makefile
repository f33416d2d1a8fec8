# `make book` and `make test` do all set-up themselves; `make help` lists the rest.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.complete
JOBS ?= 2
NOTEBOOKS := $(wildcard book/[0-9]*.ipynb)

# Each of the JOBS processes keeps its libraries to one thread, so that two cores are not shared by eight threads.
LIBRARIES := OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 TF_CPP_MIN_LOG_LEVEL=3 TF_ENABLE_ONEDNN_OPTS=0 TQDM_DISABLE=1 KERAS_BACKEND=tensorflow
# Files are made for one processor wherever they are made: the book's numbers do not depend on the machine.
LIBRARIES += EIGHTBIT_PROCESSOR=x86-vnni
PYTEST := $(LIBRARIES) $(BIN)/python -m pytest -n $(JOBS) --dist loadscope

.PHONY: help env data book site pdf test unit lint format bench execute lock serve clean

help: ## what each target does
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

$(STAMP): requirements.lock pyproject.toml scripts/environment.sh
	scripts/environment.sh
	@touch $@

env: $(STAMP) ## the environment in .venv: the locked versions and the package, editable

data: $(STAMP) ## the data sets and weights that the chapters use, into the cache
	$(BIN)/python -c "from eightbit.course.datasets import fashion_mnist; fashion_mnist()"

book: data site ## everything a reader needs: environment, data, the site in _build/html
	@echo "The book is in _build/html; to read it: make serve"

site: $(STAMP)
	rm -rf _build/html _build/.doctrees
	$(BIN)/jupyter-book build . -n -W --keep-going -q

pdf: data site ## the book without its reference pages, printed to one PDF (Chromium or Chrome)
	$(BIN)/python scripts/pdf.py _build/eight_bits_is_enough.pdf

serve: ## shows the built book at http://localhost:8000
	$(BIN)/python -m http.server --bind localhost --directory _build/html 8000

test: data site ## the whole test: package, chapters (each printed number), site
	scripts/compilers.sh
	EIGHTBIT_BROWSER="$$(scripts/browser.sh)" EIGHTBIT_EMULATOR="$$(scripts/emulator.sh)" EIGHTBIT_AARCH64="$$(scripts/aarch64.sh)" $(PYTEST) tests src $(if $(NOTEBOOKS),--nbval $(NOTEBOOKS))

unit: $(STAMP) ## the quick part of the package's tests, under two minutes
	$(PYTEST) -q -m "not slow and not site" tests src

lint: $(STAMP) ## ruff and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(STAMP) ## lets ruff rewrite what it can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(STAMP) ## each measured figure of the book, in one table and in benchmarks/results.md
	$(BIN)/python -m benchmarks.run

execute: data ## runs the chapters and stores their outputs (for authors)
	$(LIBRARIES) $(BIN)/jupyter nbconvert --to notebook --execute --ExecutePreprocessor.record_timing=False --inplace $(NOTEBOOKS)

lock: ## writes requirements.lock from .venv (for maintainers, after trying new versions)
	{ sed '/^[^#]/,$$d' requirements.lock; $(BIN)/pip freeze --exclude-editable | sed 's/+cpu$$//; s/^tflite.micro==.*/&; python_version < "3.12"/'; } > requirements.lock.new
	mv requirements.lock.new requirements.lock

clean: ## removes what make made, the environment included
	rm -rf _build $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis src/*.egg-info
