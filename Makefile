# Every verb creates .venv and installs what it needs. Two switches, for the first call:
#   GPU=1            GPU nodes: insist on the CUDA build of torch (the plain index's, on Linux)
#   TORCH_INDEX=URL  take torch from this index, e.g. PyTorch's CPU wheels to save gigabytes
PYTHON ?= python3.11
TORCH_INDEX ?=
GPU ?=
VENV := .venv
BIN := $(VENV)/bin
PART ?= all
# CLIP's own, which this package ships (MIT)
VOCABULARY := build/open_clip_torch-3.3.0-py3-none-any.whl

.DEFAULT_GOAL := help
.PHONY: help install demo embedded-model test prometheus browser test-faults lint format bench lock clean

help: ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

install: $(VENV)/.installed ## create .venv with everything, pinned by constraints.txt

$(VENV)/.installed: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade "pip>=25.1" "setuptools>=80"
	$(BIN)/python -m pip install --quiet $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX)) torch==2.13.0
	test -z "$(GPU)" || $(BIN)/python -c "import torch; assert torch.version.cuda, 'GPU=1, but only a CPU build of torch is at hand'"
	URLLIB3_NO_OVERRIDE=1 $(BIN)/python -m pip install -qq --constraint constraints.txt \
	  --no-binary urllib3-future --group dev --editable ".[grafana]"
	touch $@

demo: install ## product photos to MP4 files through a real one-machine cluster
	$(BIN)/shopreel demo

embedded-model: install ## train the small checkpoint that comes with the package; stopped, it goes on
	test -f $(VOCABULARY) || $(BIN)/python -m pip download --quiet --no-deps --dest build open_clip_torch==3.3.0
	$(BIN)/python -m diffusion.training $(VOCABULARY) --curves docs

test: install prometheus browser ## unit tests (no Ray; SQLite and Postgres), integration (real Ray, S3), several nodes
	$(BIN)/python -m pytest tests/unit
	$(BIN)/python -m pytest tests/integration
	$(BIN)/python -m pytest tests/multinode

prometheus: ## Prometheus and promtool for the tests, by apt where they are missing
	@command -v prometheus >/dev/null && command -v promtool >/dev/null \
	  || { apt-get update -qq && apt-get install -qq -y --no-install-recommends prometheus; } \
	  || { echo "put prometheus and promtool of a release of prometheus.io on PATH" >&2; exit 1; }

browser: ## Chromium for the tests of the web page, by apt where it is missing
	@command -v chromium >/dev/null || command -v chromium-browser >/dev/null \
	  || { apt-get update -qq && apt-get install -qq -y --no-install-recommends chromium fonts-noto-cjk; } \
	  || { echo "put a chromium on PATH" >&2; exit 1; }

test-faults: install ## inject faults into a running service; print what was accepted, lost, seen twice
	$(BIN)/python -m pytest tests/faults --fault-table

lint: install ## ruff, mypy --strict, import contracts
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/mypy examples/render_products.py
	$(BIN)/lint-imports

format: install ## let ruff rewrite what it can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: install $(if $(filter all alerts,$(PART)),prometheus) ## measurements as JSON in benchmarks/results (PART=NAME: see benchmarks/parts)
	$(BIN)/python -m benchmarks.run $(PART)

lock: install ## write constraints.txt from what is installed now
	$(BIN)/python -m pip freeze --exclude-editable --exclude torch > constraints.txt

clean: ## remove .venv and everything generated
	rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache .import_linter_cache shopreel-data shopreel-demo *.egg-info
