# `make demo` and `make test` are all that a newcomer needs; `make help` lists the rest.

PYTHON ?= python3
VENV ?= .venv
LOWEST ?= .venv-lowest
WORK ?= featreg-work
PIP = $(VENV)/bin/python -m pip --quiet --disable-pip-version-check

.PHONY: help demo reproduce-demo study test lint types test-slow test-lowest coverage mutants docs dist \
        image-check bench clean

help:
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/'

# torch comes first: what follows then finds it there and fetches no other build of it.
$(VENV)/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(PIP) install --constraint constraints.txt torch==2.13.0
	$(PIP) install --constraint constraints.txt --editable '.[test,docs]'
	@touch $@

.PHONY: installed
installed: $(VENV)/installed

demo: installed ## extract, align, train a plain and a regularized model on the demo clips, compare
	$(VENV)/bin/prep extract --work $(WORK) --dataset demo --features musicnn
	$(VENV)/bin/prep align --work $(WORK) --dataset demo --resolution 0.1
	$(VENV)/bin/train run --work $(WORK) --dataset demo --reg none
	$(VENV)/bin/train run --work $(WORK) --dataset demo --reg conreg
	$(VENV)/bin/train compare --work $(WORK)

# One small recipe for all, so that the table and the figure share their runs. Alpha is chosen
# on the validation split; the paper's are 5 (Con-Reg) and 1 (Dis-Reg). Two runs of one thread
# take as long as one of two after the other, and less where the machine does other work too.
JOBS ?= 2
SMALL = --dataset demo --preset demo-small --seeds 3 --jobs $(JOBS)

reproduce-demo: installed ## Tables I and II, Figure 2 and the report, on the demo clips
	$(VENV)/bin/prep extract --work $(WORK) --dataset demo --features musicnn
	$(VENV)/bin/prep align --work $(WORK) --dataset demo --resolution 0.1
	$(VENV)/bin/train table1 --work $(WORK) $(SMALL) --alphas 1,5
	$(VENV)/bin/train ablate --work $(WORK) $(SMALL) --alphas 1,5 \
	    --fractions 10,30,50,70,90,100
	$(VENV)/bin/train params --work $(WORK) --save
	$(VENV)/bin/train compare --work $(WORK) --dataset demo

# On your own copy of UrbanSound8K, or another list of clips with a column for the recording.
CLIPS ?= urbansound8k
study: installed ## methods for few labels on UrbanSound8K: the table and figure in docs/few-labels.md
	$(VENV)/bin/prep extract --work $(WORK) --dataset $(CLIPS) --task single-label \
	    --features efficientat,musicnn --set efficientat.model=mn04
	$(VENV)/bin/prep align --work $(WORK) --resolution 0.1
	$(VENV)/bin/train study --work $(WORK) benchmarks/few-labels.yaml --jobs $(JOBS)

test: installed lint types ## lint, types and every test but the slow ones
	$(VENV)/bin/python -m pytest --numprocesses auto

lint: installed ## style and formatting
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .

types: installed ## static types of the three packages
	$(VENV)/bin/mypy

test-slow: installed ## the tests that take minutes
	$(VENV)/bin/python -m pytest -m slow

$(LOWEST)/installed: pyproject.toml constraints-lowest.txt
	$(PYTHON) -m venv $(LOWEST)
	$(LOWEST)/bin/python -m pip --quiet --disable-pip-version-check install \
	    --constraint constraints-lowest.txt --editable '.[test]'
	@touch $@

test-lowest: $(LOWEST)/installed ## every test but the slow ones, on the lowest versions declared
	$(LOWEST)/bin/python -m pytest --numprocesses auto

coverage: installed ## which lines and branches `make test` runs; htmlcov/index.html shows them
	$(VENV)/bin/python -m pytest --numprocesses auto --cov --cov-report=term:skip-covered \
	    --cov-report=html

mutants: installed ## one change at a time in the code that decides: which ones no test notices
	$(VENV)/bin/python tools/mutants.py

docs: installed ## these pages and the API reference as HTML, in site/
	$(VENV)/bin/mkdocs build --strict

# The wheel is installed as users do it, into a new environment, and tested from another folder,
# so that no file of the repository can stand in for one that the wheel lacks.
DIST = $(CURDIR)/dist
dist: ## build the sdist and the wheel in dist/, and run the demo with the installed wheel
	rm -rf $(DIST)
	$(PYTHON) -m venv $(DIST)/tools
	$(DIST)/tools/bin/pip --quiet install build twine
	$(DIST)/tools/bin/python -m build --outdir $(DIST) .
	$(DIST)/tools/bin/twine check --strict $(DIST)/*.tar.gz $(DIST)/*.whl
	$(PYTHON) -m venv $(DIST)/venv
	$(DIST)/venv/bin/pip --quiet install --constraint constraints.txt torch==2.13.0
	$(DIST)/venv/bin/pip --quiet install --constraint constraints.txt $(DIST)/*.whl
	cd $(DIST) && export PATH=$(DIST)/venv/bin:$$PATH FEATREG_WORK=$(DIST)/work && \
	    prep extract --dataset demo --features musicnn --limit 24 && \
	    prep align --resolution 0.1 && \
	    train run --reg conreg --epochs 1 && \
	    train predict $(CURDIR)/datasets/collections/demo_clips/s000-fluid-r3.ogg
	rm -rf $(DIST)/tools $(DIST)/venv $(DIST)/work

image-check: installed ## build the image without Docker and use it: root on Debian, takes minutes
	$(VENV)/bin/python tools/image_check.py

bench: installed ## every benchmark, with the machine described, into BENCHMARKS.md
	$(VENV)/bin/python benchmarks/run_all.py --output BENCHMARKS.md

clean: ## remove the environments and what tools left; WORK stays
	rm -rf $(VENV) $(LOWEST) build site htmlcov .coverage *.egg-info \
	    .mypy_cache .pytest_cache .ruff_cache
