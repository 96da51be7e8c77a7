# Everything a fresh machine needs: Python 3.11 to 3.13, git, make.
PYTHON ?= python3
VENV ?= .venv
LOWEST ?= .venv-lowest
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
LOWEST_STAMP := $(LOWEST)/.installed
DATA ?= data
# What the lowest versions are tried on: what calls a package that has a lowest version of its own. torch has none (its lowest
# version is that of constraints.txt), so losses and samplers, which call torch alone, are tried with the few files that call
# numpy, scipy or diffusers too. No tests that start programs and wait for them.
FAST := tests/sde tests/models tests/data tests/metrics tests/laws tests/restoration tests/losses/test_learned_weights.py \
	tests/losses/test_speckle_split.py tests/losses/test_speckle_correlation.py $(addprefix tests/samplers/test_,ddim.py despeckle.py exponential.py \
	scheduler.py sampler_as_scheduler.py scheduler_pipelines.py) $(addprefix tests/smoothing/test_,bounds.py enumeration.py) \
	tests/training/test_loggers.py tests/jobs/test_job.py tests/jobs/test_overrides.py \
	$(filter-out $(patsubst %,tests/test_%.py,faults lock queues readme notebooks benchmark_page troubleshooting), \
	$(wildcard tests/test_*.py))
# The tests start some seventy processes; each would compile the package anew where byte code is not kept
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help env env-lowest demo test test-lowest lint docs bench faults clean

help: ## this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

env: $(STAMP) ## .venv with the package and its development tools, under constraints.txt

env-lowest: $(LOWEST_STAMP) ## .venv-lowest with the lowest versions that pyproject.toml allows

# $(call install,FOLDER,CONSTRAINTS,EXTRA): the package in an environment of its own
define install
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 14))' || \
		{ echo "Python 3.11 to 3.13 is needed, '$(PYTHON)' is $$($(PYTHON) --version); use make PYTHON=python3.12"; exit 1; }
	test -x $(1)/bin/python || $(PYTHON) -m venv $(1)
	$(1)/bin/python -m pip install --quiet --no-compile --constraint $(2) --editable '.[$(3)]'
	@touch $@
endef

$(STAMP): pyproject.toml constraints.txt
	$(call install,$(VENV),constraints.txt,dev)

$(LOWEST_STAMP): pyproject.toml constraints-lowest.txt
	$(call install,$(LOWEST),constraints-lowest.txt,test)

demo: $(STAMP) ## trains on real digits, samples, writes outputs/demo/report.html (3 to 8 minutes on 2 cores)
	$(BIN)/python train.py +experiment=demo
	@echo "pictures: outputs/demo/samples.png real.png trajectory.png loss.png"
	@echo "report:   outputs/demo/report.html"

test: $(STAMP) ## the tests, which are the specification
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n 2 --dist loadfile

test-lowest: $(LOWEST_STAMP) ## the fast tests with the lowest versions that pyproject.toml allows, in .venv-lowest
	OMP_NUM_THREADS=1 $(LOWEST)/bin/python -m pytest -q -n 2 --dist loadfile -m 'not slow' -k 'not two_processes' $(FAST)

lint: $(STAMP) ## format, lint, types, import contracts, lengths of sentences, names in the guides
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy scoregen
	$(BIN)/lint-imports
	$(BIN)/python docs/english.py
	$(BIN)/python docs/names.py

docs: $(STAMP) ## the site of the documentation, docs/_build/index.html; every link inside it is checked
	$(BIN)/python docs/generate.py
	$(BIN)/sphinx-build -q -W --keep-going docs docs/_build

bench: $(STAMP) ## a page of speed and quality beside peers; with DATA=FOLDER (of MNIST) also certification
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[bench]'
	$(BIN)/python benchmarks/bench.py $(if $(wildcard $(DATA)),--data "$(DATA)")

faults: $(STAMP) ## kills, doubles, fills and damages jobs; prints what was lost (under 30 minutes on 2 cores)
	$(BIN)/python benchmarks/faults.py

clean: ## removes the environments
	rm -rf $(VENV) $(LOWEST)
