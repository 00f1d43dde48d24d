# `make demo` and `make test` need Python (>= 3.11) and make, nothing else.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
WORKERS ?= 2

# Threads that spin for work make two busy processes on two cores much slower.
export OMP_WAIT_POLICY = PASSIVE

.PHONY: demo test lint format docs dist clean

demo: $(VENV)/.package
	$(BIN)/historyad demo

test: lint
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(WORKERS) --dist worksteal --cov --cov-report=term --cov-fail-under=90 $(ARGS)

lint: $(VENV)/.installed
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

format: $(VENV)/.installed
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

docs: $(VENV)/.installed
	$(BIN)/mkdocs build --strict --site-dir site

# Wheel and sdist, in an environment of their own: both hold every file of the package.
dist: $(VENV)/.package
	rm -rf dist .build
	$(PYTHON) -m venv .build
	.build/bin/python -m pip install --quiet --disable-pip-version-check 'hatchling>=1.24'
	.build/bin/hatchling build
	.build/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --target .build/wheel dist/*.whl
	mkdir .build/sdist && tar xf dist/*.tar.gz -C .build/sdist --strip-components 1
	git ls-files historyad | LC_ALL=C sort > .build/files
	for made in wheel sdist; do \
	  (cd .build/$$made && find historyad -type f ! -name '*.pyc' | LC_ALL=C sort) | diff .build/files - || exit 1; \
	done
	cd .build/sdist && ls README.md LICENSE CHANGELOG.md pyproject.toml tests docs > /dev/null
	cd .build && PYTHONPATH=wheel $(abspath $(BIN))/python -m historyad --version

INSTALL = $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable

# The package and what it needs.
$(VENV)/.package: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(INSTALL) .
	touch $@

# And what tests, checks and the site need.
$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(INSTALL) '.[dev]'
	touch $(VENV)/.package $@

clean:
	rm -rf $(VENV) .build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .coverage* htmlcov site
