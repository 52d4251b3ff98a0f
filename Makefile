# `make demo` trains and evaluates on the phantom, `make test` runs every test; the first of them installs into .venv.
PYTHON ?= python3
VENV ?= .venv

demo: $(VENV)/installed
	$(VENV)/bin/python benchmarks/nih_pancreas.py

test: $(VENV)/installed
	$(VENV)/bin/python -m pytest

# All that continuous integration runs, in an environment of its own.
check:
	bash .ci/run

# pip reads dependency groups from 25.1 on, so the pip that comes with Python is brought up to date first.
$(VENV)/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/pip install -c constraints.txt --upgrade pip
	$(VENV)/bin/pip install -c constraints.txt --build-constraint constraints.txt -e '.[reference]' --group test
	touch $@

.PHONY: demo test check
