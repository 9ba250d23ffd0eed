# Each target sets up what it needs in .venv by itself: with uv when it is there, else with pip.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
EXTRAS := .[cluster,instrument,local-lm,papers,plots,polars,stats]
LOCK := requirements.lock
# By file: what the fixtures of a file make is made once, not once per worker. In their order: long files come first.
WORKERS := -n 2 --dist loadfile --no-loadscope-reorder

.DEFAULT_GOAL := help
.PHONY: help demo lab test check fmt build bench eval faults endurance docs lock clean

help:
	@echo "make demo   the main job, headless: chat, trace, read back, analyse"
	@echo "make lab    JupyterLab on the notebooks"
	@echo "make test   everything that CI runs"
	@echo "make check  ruff, mypy, notebook checks"
	@echo "make fmt    format the code"
	@echo "make bench  the benchmarks, as ratios against what a user would use instead"
	@echo "make eval   real questions to the configured language model, and how many answers are right"
	@echo "make faults every fault of server, disk and process, in every variant"
	@echo "make endurance a working day of two kernels in ten minutes"
	@echo "make docs   the documentation, as pages in dist/docs"
	@echo "make lock   newer versions for requirements.lock; needs uv"
	@echo "make build  wheel and sdist, and a test of the installed wheel"

$(READY): pyproject.toml $(LOCK)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "$(PYTHON) is too old: research-kit needs Python 3.11 or later. Use: make PYTHON=python3.12"; exit 1; }
	@begin=$$(date +%s); \
	if command -v uv >/dev/null 2>&1; then \
		test -d $(VENV) || uv venv --quiet --seed --python $(PYTHON) $(VENV); \
		uv pip install --quiet --python $(BIN)/python --constraint $(LOCK) --editable '$(EXTRAS)' --group demo --group docs --group test; \
	else \
		test -d $(VENV) || $(PYTHON) -m venv $(VENV); \
		$(BIN)/python -m pip install --quiet --upgrade 'pip>=25.1'; \
		$(BIN)/python -m pip install --quiet --constraint $(LOCK) --editable '$(EXTRAS)' --group demo --group docs --group test; \
	fi && echo "installed into $(VENV) in $$(($$(date +%s) - begin)) s"
	@touch $(READY)

demo: $(READY)
	@$(BIN)/python notebooks/run_demo.py

lab: $(READY)
	@$(BIN)/jupyter lab $(if $(filter 0,$(shell id -u)),--allow-root) $(LAB_OPTIONS) notebooks

# What one process of a test run has compiled is not compiled by hundreds of others, whatever the environment says.
test: export PYTHONDONTWRITEBYTECODE :=
test: check
	@$(BIN)/pytest $(WORKERS)

check: $(READY)
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy

fmt: $(READY)
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

bench: $(READY)
	@$(BIN)/python -m benchmarks.run

eval: $(READY)
	@$(BIN)/python -m benchmarks.evaluation.run $(EVAL_OPTIONS)

faults: $(READY)
	@$(BIN)/pytest $(WORKERS) tests/faults -m ""

endurance: $(READY)
	@$(BIN)/pytest tests/endurance -m endurance -s

docs: $(READY)
	@$(BIN)/sphinx-build -q -W -b html docs dist/docs
	@echo "dist/docs/index.html"

lock:
	@uv pip compile --quiet --upgrade --universal --python-version 3.11 --all-extras --group demo --group docs --group test \
		--no-annotate --no-emit-index-url --custom-compile-command 'make lock' pyproject.toml --output-file $(LOCK)

build: $(READY)
	@$(BIN)/python -m hatchling build -d dist
	@$(BIN)/pytest -q tests/test_wheel.py

clean:
	rm -rf $(VENV) dist .mypy_cache .pytest_cache .ruff_cache
