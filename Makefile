# `make demo` and `make test` need Python 3.11+, make and a package index; nothing else.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PYTEST := $(BIN)/python -m pytest -n 2 --dist worksteal

.PHONY: demo example test test-all check docs clean

demo: $(VENV)/base.stamp
	$(BIN)/python -m talkgen run docs/assets/demo/portrait.png docs/assets/demo/speech.wav -o demo.mp4

# The web example, on http://127.0.0.1:8000 unless TALKGEN_WEB_HOST and TALKGEN_WEB_PORT differ.
example: $(VENV)/example.stamp
	cd docs/examples/web && "$(abspath $(BIN))/python" -m studio

test: check docs
	$(PYTEST) -m "not slow and not gpu" --cov --cov-report=term

test-all: check docs
	$(PYTEST) -m "not gpu" --timeout 1200 --cov --cov-report=term

check: $(VENV)/dev.stamp
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

docs: $(VENV)/dev.stamp
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

$(VENV)/base.stamp: pyproject.toml
	test -x "$(BIN)/python" || $(PYTHON) -m venv "$(VENV)"
	"$(BIN)/python" -m pip install --quiet --disable-pip-version-check --editable .
	touch "$@"

$(VENV)/example.stamp: pyproject.toml $(VENV)/base.stamp
	"$(BIN)/python" -m pip install --quiet --disable-pip-version-check --editable ".[example]"
	touch "$@"

$(VENV)/dev.stamp: pyproject.toml $(VENV)/base.stamp
	"$(BIN)/python" -m pip install --quiet --disable-pip-version-check --editable ".[dev]"
	touch "$@"

clean:
	rm -rf "$(VENV)" build dist site demo.mp4 .coverage .mypy_cache .ruff_cache .pytest_cache
