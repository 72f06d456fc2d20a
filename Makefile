# Two commands for a fresh machine: `make demo` and `make test`. Each sets up what it needs, in .venv.
# The small CPU build of PyTorch: see docs/install.md.

PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
PYTEST = OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n $(JOBS) --dist worksteal --max-worker-restart 0
TORCH_INDEX ?=
JOBS ?= 2

# OpenMP threads that wait by spinning make small networks up to 25 times slower when something else wants a core.
export OMP_WAIT_POLICY ?= PASSIVE

.PHONY: demo test test-long lint format architecture docs wheel clean

demo: $(VENV)/.base
	$(BIN)/fbnetv3 demo

test: $(VENV)/.dev
	$(PYTEST) -m "not long" $(PYTEST_ARGS)

test-long: $(VENV)/.dev
	$(PYTEST) -m long $(PYTEST_ARGS)

lint: $(VENV)/.dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	rm -rf build/typing && mkdir -p build/typing/fbnetv3_zoo
	ln -s $(CURDIR)/fbnetv3_zoo/* $(CURDIR)/search $(CURDIR)/detection $(CURDIR)/export build/typing/fbnetv3_zoo/
	cd build/typing && $(CURDIR)/$(BIN)/mypy --config-file $(CURDIR)/pyproject.toml -p fbnetv3_zoo

format: $(VENV)/.dev
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

architecture: $(VENV)/.dev
	$(BIN)/python docs/architecture.py

# the site, in build/site; without Material's notice about its successor
docs: $(VENV)/.docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

wheel: $(VENV)/.dev
	rm -rf build/lib build/bdist.*
	$(BIN)/python -m build --wheel --no-isolation

clean:
	rm -rf $(VENV) build dist demo *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis

$(VENV)/.base: pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	test -z "$(TORCH_INDEX)" || $(BIN)/python -m pip install --quiet torch torchvision --index-url "$(TORCH_INDEX)"
	$(BIN)/python -m pip install --quiet --editable ".[web]"
	touch $@

$(VENV)/.dev: $(VENV)/.base
	$(BIN)/python -m pip install --quiet --editable ".[dev]"
	$(BIN)/python tests/helpers/detectron2_tree.py
	touch $@

$(VENV)/.docs: $(VENV)/.base
	$(BIN)/python -m pip install --quiet --editable ".[docs]"
	touch $@
