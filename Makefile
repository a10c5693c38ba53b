# make demo | test | lint | bench | sanitize: each sets up .venv first, once.
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready
KERNEL_SOURCES := $(wildcard ap3d/raster/csrc/*) CMakeLists.txt
DEMO_OUT ?= out/demo
# The gallery opens from there; two workers share the machine.
DEMO = $(BIN)/python -m jobs.generate --prompts jobs/demo_prompts.txt --out $(DEMO_OUT) --preset builtin --executor ray --workers 2

.PHONY: demo test test-slow lint bench sanitize clean
.DELETE_ON_ERROR:

$(READY): pyproject.toml constraints.txt $(KERNEL_SOURCES)
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable ".[dev]"
	touch $@

demo: $(READY)
	$(DEMO)

test: $(READY)
	$(BIN)/python -m pytest -m "not slow" $(ARGS)

test-slow: $(READY)
	$(BIN)/python -m pytest -m slow $(ARGS)

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(READY)
	$(BIN)/python benchmarks/raster.py --figures docs/figures $(ARGS)
	$(BIN)/python benchmarks/binding.py
	$(BIN)/python benchmarks/guidance.py

# The raster tests with the kernels under AddressSanitizer and UBSan; needs g++.
sanitize: $(READY)
	$(BIN)/python -m tests.raster.sanitized $(ARGS)

clean:
	rm -rf .venv build out runs
