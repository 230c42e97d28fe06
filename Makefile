# Two commands on a fresh machine: `make demo` and `make test`. Everything lands in .venv.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
ROOMS := core configs reporting graph profiling backends checkpoints adjusters data runtime search training tuning batch cli
READY := $(VENV)/.ready

PIP := $(BIN)/python -m pip install --disable-pip-version-check -c constraints.txt
STEP := .ci/step

.PHONY: demo test test-fast test-long test-ray test-torch211 lint check schema format clean architectures fuzz

$(READY): pyproject.toml constraints.txt
	@$(STEP) "making $(VENV)" $(PYTHON) -m venv $(VENV)
	@$(STEP) "installing build tools" $(PIP) "setuptools>=77" wheel
	@$(STEP) "installing torch" $(PIP) torch
	@$(STEP) "installing modelspeed and what its tests need" $(PIP) -e ".[test]"
	@touch $(READY)

demo: $(READY)
	$(BIN)/modelspeed demo --out out --force

# One process a core, each computing with one thread.
test: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --dist loadfile

# All of it, with the sweeps and whole runs that `make test` leaves out.
test-long: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --dist loadfile -m "long or not long"

# While writing, under a minute on two cores: no whole run, and nets are the smallest there are.
FAST := tests/core tests/configs tests/reporting tests/search $(addprefix tests/graph/test_,\
	direct_call.py equalizing.py integer_weights.py literals.py lowering.py pruning.py replay.py shapes.py) \
	--ignore tests/search/test_layer_options.py
test-fast: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --dist loadfile $(FAST)

# A batch on a Ray cluster and a ladder on Ray Serve, which `make test` skips: Ray is heavy.
test-ray: $(READY)
	@$(STEP) "installing Ray" $(PIP) -e ".[ray,serve]"
	$(BIN)/python -m pytest -m "long or not long" tests/batch/test_ray.py tests/runtime/test_serving.py

# On the torch of the GPU machine, in an environment of its own. Where the package index has no build
# for CPUs, that is the one with CUDA: gigabytes, which run on a CPU as well.
VENV211 ?= .venv-torch211
READY211 := $(VENV211)/.ready
TESTS211 ?= tests
$(READY211): pyproject.toml constraints-torch211.txt
	@$(STEP) "making $(VENV211)" $(PYTHON) -m venv $(VENV211)
	@$(STEP) "installing torch 2.11" $(VENV211)/bin/python -m pip install --disable-pip-version-check \
		-c constraints-torch211.txt "setuptools>=77" wheel torch
	@$(STEP) "installing modelspeed and what its tests need" $(VENV211)/bin/python -m pip install \
		--disable-pip-version-check -c constraints-torch211.txt -e ".[test]"
	@touch $(READY211)

test-torch211: $(READY211)
	OMP_NUM_THREADS=1 $(VENV211)/bin/python -m pytest -n auto --dist loadfile $(TESTS211)

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	rm -rf $(VENV)/package && mkdir -p $(VENV)/package && ln -s "$(CURDIR)" $(VENV)/package/modelspeed
	cd $(VENV)/package && ../bin/mypy --config-file "$(CURDIR)/pyproject.toml" --cache-dir "$(CURDIR)/.mypy_cache" $(addprefix -p modelspeed.,$(ROOMS))

check: lint

# After a setting has changed: the recipe's JSON Schema, for editors.
schema: $(READY)
	$(BIN)/python -c 'import json; from pathlib import Path; \
	from modelspeed.configs.schema import json_schema; \
	Path("docs/recipe.schema.json").write_text(json.dumps(json_schema(), indent=2) + "\n")'

# Generated nets by the thousand; `make test` runs 150 of them.
fuzz: $(READY)
	MODELSPEED_FUZZ=20000 $(BIN)/python -m pytest tests/graph/test_generated.py

# After the analysis has learned something: docs/architectures.md as it is now.
architectures: $(READY)
	PYTHONPATH=tests/support $(BIN)/python -W ignore tests/support/architectures.py

format: $(READY)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf $(VENV) $(VENV211) out build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis
