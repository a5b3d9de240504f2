# Two commands matter: `make demo` and `make test`. Each does all set-up on a fresh machine.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
PIP := $(BIN)/python -m pip install --disable-pip-version-check --quiet -c constraints.txt

.PHONY: demo test lint format sanitize bench clean help

help:
	@echo "make demo      INT8 engine, segmented video and accuracy report, in demo/"
	@echo "make test      all tests"
	@echo "make lint      ruff, mypy --strict, formatting"
	@echo "make sanitize  C kernels under the address, undefined-behaviour and thread sanitizers"
	@echo "make bench     kernels against NumPy and OpenCV"
	@echo "make clean     remove what the targets above made, but for $(VENV)"

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(PIP) torch==2.13.0
	$(PIP) -e ".[build,report,train,dev,tensorrt-rtx,cuda]"
	@touch $@

# On rendered streets whatever CITYSCAPES_DATASET says, so that the demo is the same everywhere.
# Exit code 1 of the report is its verdict, which is shown and not make's business.
demo: export CITYSCAPES_DATASET =
demo: $(READY)
	$(BIN)/python scripts/build_engine.py --precision int8 --output demo/engines
	$(BIN)/python scripts/run_video.py streets --engine demo/engines/edge-m-int8-512x1024.xml \
	    --headless --max-frames 150 --output demo/street.mp4
	$(BIN)/python scripts/accuracy_report.py --dataset demo/engines/.store/streets \
	    --engines demo/engines --output demo/report || test $$? -eq 1
	@echo
	@echo "engine   demo/engines/edge-m-int8-512x1024.xml (manifest beside it)"
	@echo "video    demo/street.mp4"
	@echo "report   demo/report/report.html"
	@echo "next     $(BIN)/python scripts/run_video.py cam0 --engine demo/engines/edge-m-int8-512x1024.xml"
	@echo "         CITYSCAPES_DATASET=... $(BIN)/python scripts/build_engine.py --checkpoint FILE"

test: $(READY)
	$(BIN)/python -m pytest -n logical --maxprocesses 4 --dist loadfile

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(READY)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

sanitize:
	bash tests/pipeline/kernels/sanitize.sh

bench: $(READY)
	$(BIN)/python tests/benchmarks/bench_kernels.py

clean:
	rm -rf demo .pytest_cache .mypy_cache .ruff_cache .hypothesis *.egg-info
