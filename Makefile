PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.installed

.PHONY: setup demo test test-extras test-all lint docs bench clean

setup: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	@touch $(STAMP)

demo: setup
	$(BIN)/mezzotint demo

test: setup
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto -m "not slow and not gpu"

EXTRA_TESTS = server openapi editors playground grammar harness benchmarks bench prune inspect docs
EXTRAS = dev,serve,eval,quant,plot,docs,triton,clients

test-extras: setup
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[$(EXTRAS)]'
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto -m "not slow and not gpu" $(EXTRA_TESTS:%=tests/test_%.py)
	TRITON_INTERPRET=1 $(BIN)/python -m pytest tests/test_sparse_attention.py -k triton

test-all: test-extras
	$(BIN)/python -m pytest

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright

docs: setup
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[$(EXTRAS)]'
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict --quiet

RESULT = benchmarks/results/$(shell date +%F)-cpu
PLOT = docs/plots/cpu

bench: setup
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[$(EXTRAS)]'
	mkdir -p docs/plots
	$(BIN)/python benchmarks/pareto.py --out $(RESULT)-pareto.json --plot $(PLOT)-pareto.svg
	$(BIN)/mezzotint bench plain threshold prefix dual threshold+suffix=dpad:window=64 --gen-length 128 --lengths 128 512 1536 \
		--out $(RESULT)-lengths.json --plot $(PLOT)-lengths.svg
	$(BIN)/python benchmarks/tuning.py --out $(RESULT)-tuning.json --plot $(PLOT)-tuning.svg
	$(BIN)/python benchmarks/report.py

clean:
	rm -rf .venv dist build site
