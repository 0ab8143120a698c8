# `make train` and `make test` set everything up by themselves, and find it again the next time.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
EXTENSION := binaural/kernels/_C.abi3.so
# A change of any of these builds the extension again.
SOURCES := setup.py $(shell find csrc -type f)
# A target whose recipe fails does not count as made.
.DELETE_ON_ERROR:
# ninja comes from the virtual environment.
export PATH := $(CURDIR)/$(BIN):$(PATH)

.PHONY: help setup train test gradcheck gpu lint format clean

help:
	@echo "make train   set up, simulate rooms, train a network on their echoes, show metrics and pictures"
	@echo "make test    set up and run the tests"
	@echo "make gradcheck  the gradient checks and operator checks alone"
	@echo "make gpu     on a machine with a GPU: checks, benchmarks and tests in one report; ARGS=\"--minutes 9 --out DIR\""
	@echo "make setup   virtual environment, dependencies, compiled extension"
	@echo "make lint    ruff, mypy, import-linter, clang-format (make format mends what can be mended)"
	@echo "make clean   remove the extension and what was built on the way (not .venv, data/ or runs/)"

setup: $(INSTALLED) $(EXTENSION)

train: setup
	$(BIN)/python train.py $(ARGS)

# One thread in each worker: more would wait for each other.
test: setup
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses auto --dist loadfile $(ARGS)

gradcheck: setup
	$(BIN)/python -m pytest tests/kernels -k "gradcheck or opcheck" $(ARGS)

# First of all, as setting up takes minutes: is there a GPU? Where $(PYTHON) has torch and Triton it is used as it
# is, without a virtual environment and without a network. ARGS="--minutes 9 --out DIR" limits the time.
gpu:
	@nvidia-smi --list-gpus 2>/dev/null | grep -q GPU || { echo "make gpu: no NVIDIA GPU is visible" >&2; exit 1; }
	@if [ ! -x $(BIN)/python ] && $(PYTHON) -c 'import torch, triton' 2>/dev/null; then \
		$(PYTHON) -m benchmarks.gpu $(ARGS); \
	else \
		$(MAKE) --no-print-directory setup && $(BIN)/python -m benchmarks.gpu $(ARGS); \
	fi

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo --no-cache
	$(BIN)/clang-format --dry-run --Werror $$(git ls-files '*.cpp' '*.h' '*.cu' '*.cuh')

format: setup
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/clang-format -i $$(git ls-files '*.cpp' '*.h' '*.cu' '*.cuh')

clean:
	rm -rf build $(EXTENSION) *.egg-info

# The build needs torch, so torch is installed first. pip builds the extension without output, so setup.py
# prints its line about CUDA before.
$(INSTALLED): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("Python 3.11 or later is needed, this is " \
		+ sys.version.split()[0] + "; make PYTHON=... takes another")'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt torch numpy setuptools wheel ninja
	@$(BIN)/python setup.py --quiet --version | sed -n 1p
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt --no-build-isolation -e '.[dev]'
	@touch $@

$(EXTENSION): $(SOURCES) | $(INSTALLED)
	$(BIN)/python setup.py --quiet build_ext --inplace
	@touch $@
