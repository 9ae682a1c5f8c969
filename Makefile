# Every target makes .venv itself where it is missing or older than what it depends on.
#   make PYTHON=python3.12 test                                another interpreter (3.10 to 3.12)
#   make PIP_FLAGS="--extra-index-url https://download.pytorch.org/whl/cpu" quickstart    PyTorch without CUDA (smaller)
#   make ARGS="tests/ops -k topk" test                         some of the tests
PYTHON ?= python3
VENV ?= .venv
PIP_FLAGS ?=
WORKERS ?= 2
ARGS ?=

PY := $(VENV)/bin/python
MOBILE := $(VENV)-mobile
MOBILE_TESTS := tests/export/test_executorch.py tests/runtime/test_executorch.py tests/export/quantization/test_pt2e.py \
  tests/export/test_litert.py tests/runtime/test_litert.py tests/export/test_graph_litert.py tests/export/test_exporters.py \
  tests/contracts/test_runtimes.py
NEEDS := setup.py pyproject.toml requirements/constraints.txt
# One thread a test process: torch's own threads and the workers would fight over the cores, and sums stay repeatable.
TEST_ENV := OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1

.DEFAULT_GOAL := help
.PHONY: help quickstart test test-all test-mobile coverage mutants check format docs docs-check clean

help:  ## this list
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /  make \1\t/' | expand -t 20

quickstart: $(VENV)/.run  ## train, test, export and verify a detector on the built-in set; see work_dirs/quickstart
	$(PY) -m efftasks quickstart --out work_dirs/quickstart $(ARGS)

test: $(VENV)/.dev  ## the tests, without the slow ones
	$(TEST_ENV) $(PY) -m pytest -n $(WORKERS) -m "not slow" $(ARGS)

test-all: $(VENV)/.docs  ## all tests, with the notebooks and the documentation site
	$(TEST_ENV) $(PY) -m pytest -n $(WORKERS) $(ARGS)

test-mobile: $(MOBILE)/.dev  ## the tests of ExecuTorch and LiteRT, in an environment of their own (1 GB more)
	$(TEST_ENV) $(MOBILE)/bin/python -m pytest -n $(WORKERS) $(MOBILE_TESTS) $(ARGS)

coverage: $(VENV)/.dev  ## the tests of `make test` with the lines and branches they reach; details in build/coverage
	$(TEST_ENV) $(PY) -m pytest -n $(WORKERS) -m "not slow" --cov --cov-report=term --cov-report=html:build/coverage $(ARGS)

mutants: $(VENV)/.dev  ## break a line at a time and see whether the tests notice; ARGS="NAME ..." for some of them
	$(TEST_ENV) $(PY) tests/mutants/run.py $(ARGS)

check: $(VENV)/.dev  ## formatting, lint, types
	$(PY) -m ruff format --check .
	$(PY) -m ruff check .
	$(PY) -m mypy efftasks tests

format: $(VENV)/.dev  ## rewrite the sources as `make check` wants them
	$(PY) -m ruff check --fix .
	$(PY) -m ruff format .

docs: $(VENV)/.docs  ## build the documentation site into build/site, and check its links
	NO_MKDOCS_2_WARNING=1 $(PY) -m mkdocs build --strict --quiet
	$(PY) -m tools.docs.check_site build/site

docs-check: $(VENV)/.dev  ## check links, command lines, config names and Python snippets of the documentation
	$(TEST_ENV) $(PY) -m pytest -m "not slow" tests/docs tests/contracts/test_docs.py tests/contracts/test_docstrings.py $(ARGS)

clean:  ## remove what the other targets made; work_dirs stays
	rm -rf $(VENV) build dist *.egg-info .coverage .pytest_cache .mypy_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# An interrupted or moved environment has no working pip: it is made anew.
define make_venv
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 12))' || \
	  { echo "error: $(PYTHON) is not Python 3.10 to 3.12; name one with make PYTHON=..." >&2; exit 2; }
	@$(PY) -m pip --version >/dev/null 2>&1 || { echo "making $(VENV)"; $(PYTHON) -m venv --clear $(VENV); }
endef

$(VENV)/.run: $(NEEDS)
	$(make_venv)
	@echo "installing efftasks[train,export] into $(VENV)"
	@$(PY) -m pip install --quiet --disable-pip-version-check $(PIP_FLAGS) -e ".[train,export]" -c requirements/constraints.txt
	@touch $@

$(VENV)/.dev: $(NEEDS)
	$(make_venv)
	@echo "installing efftasks[train,export,compress,ncnn,dev] into $(VENV)"
	@$(PY) -m pip install --quiet --disable-pip-version-check $(PIP_FLAGS) -e ".[train,export,compress,ncnn,dev]" -c requirements/constraints.txt
	@touch $@ $(VENV)/.run

$(VENV)/.docs: $(VENV)/.dev
	@echo "installing efftasks[docs] into $(VENV)"
	@$(PY) -m pip install --quiet --disable-pip-version-check $(PIP_FLAGS) -e ".[docs]" -c requirements/constraints.txt
	@touch $@

# The converter of LiteRT asks for older versions of some packages than the constraints have.
$(MOBILE)/.dev: PY := $(MOBILE)/bin/python
$(MOBILE)/.dev: VENV := $(MOBILE)
$(MOBILE)/.dev: $(NEEDS)
	$(make_venv)
	@echo "installing efftasks[train,export,compress,executorch,litert-export,dev] into $(MOBILE)"
	@grep -vE '^(anyio|pydantic|pydantic-core|typing-extensions|typing-inspection)==' requirements/constraints.txt > $(MOBILE)/constraints.txt
	@$(PY) -m pip install --quiet --disable-pip-version-check $(PIP_FLAGS) \
	  -e ".[train,export,compress,executorch,litert-export,dev]" -c $(MOBILE)/constraints.txt
	@touch $@
