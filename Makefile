# Everything runs in .venv, which is made on first use.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
# Python compiles what it imports anyway; compiling all of it beforehand would make the install longer.
unexport PYTHONDONTWRITEBYTECODE
# From LeNet to EfficientNet.
STORY := lenet5,lenet_relu,alexnet,squeezenet1_1,resnet20,efficientnet_b0
INSTALL := $(BIN)/python -m pip install --quiet --no-compile --constraint constraints.txt

# A process for each processor; threads of torch within them would only get into each other's way.
TOGETHER := OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses auto --dist worksteal

.PHONY: demo test test-slow test-all test-full lint format bench bench-models bench-training bench-defaults bench-evaluation bench-data bench-exports bench-compress bench-labels readme docs pictures clean

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/installed: pyproject.toml constraints.txt | $(BIN)/python
	$(INSTALL) --editable .
	touch $@

$(VENV)/installed-dev: pyproject.toml constraints.txt | $(BIN)/python
	$(INSTALL) --editable '.[dev]'
	touch $@ $(VENV)/installed

$(VENV)/installed-docs: pyproject.toml constraints.txt | $(BIN)/python
	$(INSTALL) --editable '.[docs]'
	touch $@ $(VENV)/installed

demo: $(VENV)/installed  ## train two networks on the embedded digits and report
	$(BIN)/falconet demo

test: $(VENV)/installed-dev  ## the tests that take seconds; COVERAGE=--cov holds what they cover against the bound
	$(TOGETHER) -m "not slow and not timed" $(COVERAGE)

test-slow: $(VENV)/installed-dev  ## those that take longer, and one by one those that compare seconds
	# As users run it, without coverage and without checks of shapes and types at run time: both would make them take half as long
	# again, and the quick tests have both.
	$(TOGETHER) --jaxtyping-packages= -m "slow and not full and not timed"
	$(BIN)/python -m pytest --jaxtyping-packages= -m "timed and not full" $(shell grep -rl --include='*.py' 'mark\.timed' tests)

test-all:  ## both, each test once; the quick ones cover at least 90 % of the code
	$(MAKE) test COVERAGE=--cov
	$(MAKE) test-slow

test-full: $(VENV)/installed-dev  ## large kin of what is tested, and more of the same: minutes each
	$(TOGETHER) -m full

lint: $(VENV)/installed-dev  ## style, types, and who imports whom
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(VENV)/installed-dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(VENV)/installed-dev  ## measure again what the README claims; DATA=folder that holds MNIST/
	$(BIN)/python benchmarks/startup.py
	$(BIN)/python benchmarks/digits.py
	$(BIN)/python benchmarks/mnist_lenet5.py $(if $(DATA),--data-root $(DATA))
	$(MAKE) readme

bench-models: $(VENV)/installed-dev  ## every family on known sets; DATA=folder that holds them, WEIGHTS=EfficientNet-Lite0's
	$(BIN)/python benchmarks/mnist_story.py --data-root $(DATA)
	$(BIN)/python benchmarks/sequences.py --data-root $(DATA)
	$(BIN)/python benchmarks/finetuning.py --data-root $(DATA) --weights $(WEIGHTS)
	$(MAKE) readme

bench-training: $(VENV)/installed-dev  ## training against peers; DATA=folder that holds MNIST/ and CIFAR-10
	$(BIN)/python benchmarks/training.py --data-root $(DATA)
	$(BIN)/python benchmarks/accuracy.py --data-root $(DATA)
	$(BIN)/python benchmarks/doctor.py --data-root $(DATA)
	$(MAKE) readme

bench-defaults: $(VENV)/installed-dev  ## `train` alone against models by hand; DATA=folder of the data, ROWS="some rows", TASKS="some data"
	$(BIN)/python benchmarks/defaults.py --data-root $(DATA) $(if $(ROWS),--rows $(ROWS)) $(if $(TASKS),--tasks $(TASKS))
	$(MAKE) readme

bench-evaluation: $(VENV)/installed-dev  ## evaluation against onnxruntime, the story's networks compared; DATA=folder that holds MNIST/
	$(BIN)/python benchmarks/evaluation.py --data-root $(DATA)
	$(BIN)/falconet compare mnist --models $(STORY) --epochs 1 --data-root $(DATA) --out runs/compared
	cp $(addprefix runs/compared/,comparison.md comparison.csv comparison.json accuracy-*.png) docs/comparison
	$(MAKE) readme

bench-data: $(VENV)/installed-dev  ## feed rates against peers, memory, known sets; DATA=folder that holds them
	$(BIN)/python benchmarks/data.py --data-root $(DATA)
	$(MAKE) readme

bench-exports: $(VENV)/installed-dev  ## exported networks: latency and throughput of each runtime
	$(BIN)/python benchmarks/exports.py
	$(MAKE) readme

bench-compress: $(VENV)/installed-dev  ## bytes and what they cost; DATA=folder of the data, ROWS="some rows", SQUEEZENET=folder of its files, PHOTOS=of ImageNet's classes
	$(BIN)/python benchmarks/compression.py --data-root $(DATA) $(if $(ROWS),--rows $(ROWS))
	$(if $(SQUEEZENET),$(BIN)/python benchmarks/codec.py --squeezenet $(SQUEEZENET)/squeezenet_v1.0_decoded.npz)
	$(if $(SQUEEZENET),$(BIN)/python benchmarks/squeezenet_file.py --weights $(SQUEEZENET)/compressed_SqueezeNet.net --photos $(DATA)/sign-digits --evaluated $(PHOTOS))
	$(if $(PHOTOS),$(BIN)/python benchmarks/embedded_backbone.py --photos $(PHOTOS))
	$(MAKE) readme

bench-labels: $(VENV)/installed-dev  ## label errors beside cleanlab, labels that active learning needs; DATA=folder of the data, CLEANLAB=a Python that has it
	$(BIN)/python benchmarks/active_learning.py --data-root $(DATA)
	$(if $(CLEANLAB),$(BIN)/python benchmarks/label_errors.py --data-root $(DATA) --cleanlab $(CLEANLAB))
	$(MAKE) readme

readme: $(VENV)/installed-dev  ## write the tables of both READMEs and of the book from benchmarks/results
	$(BIN)/python benchmarks/tables.py

docs: $(VENV)/installed-docs  ## build the book into site/, and fail on any link, name or page that is not there
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

pictures: $(VENV)/installed-dev  ## draw those pictures of the book that need no trained network
	$(BIN)/python docs/pictures.py

clean:
	rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache .coverage dist site
