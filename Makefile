# Two commands on a fresh machine: `make demo` and `make test`. Everything lands in .venv.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
ROOMS := core configs reporting graph profiling backends checkpoints adjusters data runtime search training tuning batch cli
READY := $(VENV)/.ready

.PHONY: demo test test-long test-ray check format clean architectures fuzz

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt "setuptools>=77" wheel
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt torch
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[test]"
	touch $(READY)

demo: $(READY)
	$(BIN)/modelspeed demo --out out --force

# One process a core, each computing with one thread.
test: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --dist loadfile

# All of it, with the sweeps and whole runs that `make test` leaves out.
test-long: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --dist loadfile -m "long or not long"

# A batch on a Ray cluster, which `make test` skips: Ray is heavy.
test-ray: $(READY)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[ray]"
	$(BIN)/python -m pytest tests/batch/test_ray.py

check: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	rm -rf $(VENV)/package && mkdir -p $(VENV)/package && ln -s "$(CURDIR)" $(VENV)/package/modelspeed
	cd $(VENV)/package && ../bin/mypy --config-file "$(CURDIR)/pyproject.toml" --cache-dir "$(CURDIR)/.mypy_cache" $(addprefix -p modelspeed.,$(ROOMS))

# Generated nets by the thousand; `make test` runs 500 of them.
fuzz: $(READY)
	MODELSPEED_FUZZ=20000 $(BIN)/python -m pytest tests/graph/test_generated.py

# After the analysis has learnt something: docs/architectures.md as it is now.
architectures: $(READY)
	PYTHONPATH=tests/support $(BIN)/python -W ignore tests/support/architectures.py

format: $(READY)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf $(VENV) out build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis
