# Every target makes the virtual environment itself when it is missing or older than the requirements.
PYTHON ?= python3
VENV ?= .venv
# PyTorch's index: the CPU build. For CUDA: make install TORCH_INDEX=https://download.pytorch.org/whl/cu130
TORCH_INDEX ?= https://download.pytorch.org/whl/cpu

bin := $(VENV)/bin
torch := $(shell sed -n '/^torch==/p' constraints.txt)
export PIP_DISABLE_PIP_VERSION_CHECK := 1
export GRADIO_ANALYTICS_ENABLED := False

.PHONY: install demo sample figures test test-slow test-lowest lint app licences audit release clean
install: $(VENV)/installed

demo: $(VENV)/installed
	$(bin)/python demo.py

# the model and the readings that travel with the package, and the pictures of the docs, anew
sample: $(VENV)/installed-app
	$(bin)/python -m egma.programs.sample

figures: $(VENV)/installed-dev
	$(bin)/python docs/figures.py

test: lint
	$(bin)/python -m pytest -n 2 --dist loadfile -m "not slow"

test-slow: $(VENV)/installed-dev
	$(bin)/python -m pytest -n 2 --dist loadfile -m slow

# what everything rests on, with the lowest versions that setup.cfg allows, torch excepted
test-lowest:
	$(MAKE) VENV=$(VENV)-lowest $(VENV)-lowest/torch
	$(VENV)-lowest/bin/pip freeze | grep '^torch==' > $(VENV)-lowest/torch
	$(VENV)-lowest/bin/pip install -q uv
	$(VENV)-lowest/bin/uv pip install -q -p $(VENV)-lowest --resolution lowest-direct -c $(VENV)-lowest/torch -e '.[all,dev]'
	$(VENV)-lowest/bin/python -m pytest -m "not slow" tests/test_*.py tests/modeling_egma/test_gaze_egma.py tests/egma/evaluation/metrics

lint: $(VENV)/installed-dev
	$(bin)/ruff check .
	$(bin)/ruff format --check .
	$(bin)/mypy

app: $(VENV)/installed-app
	$(bin)/python app.py

licences: $(VENV)/installed-dev
	$(bin)/python -m benchmarks.licences

audit:
	$(PYTHON) -m venv $(VENV)-audit
	$(VENV)-audit/bin/pip install -q pip-audit
	$(VENV)-audit/bin/pip-audit --no-deps --disable-pip -r constraints.txt

# what a tag publishes (CONTRIBUTING.md)
release: test test-slow licences
	rm -rf dist
	$(bin)/pip install -q build
	$(bin)/python -m build --outdir dist .

clean:
	rm -rf $(VENV) $(VENV)-audit $(VENV)-lowest runs

$(VENV)/torch: constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(call install_torch)
	touch $@

$(VENV)/installed: $(VENV)/torch setup.cfg
	$(bin)/pip install -q -c constraints.txt -e '.[train,eval]'
	touch $@

$(VENV)/installed-dev: $(VENV)/installed
	$(bin)/pip install -q -c constraints.txt -e '.[all,dev]'
	touch $@

$(VENV)/installed-app: $(VENV)/installed
	$(bin)/pip install -q -c constraints.txt -e '.[train,eval,app,dicom]'
	touch $@

# a wheel of the CPU build that pip already knows of (PIP_FIND_LINKS, a mirror) comes before PyTorch's index
ifeq ($(origin TORCH_INDEX),file)
define install_torch
$(bin)/pip install -q '$(torch)+cpu' 2>/dev/null || $(bin)/pip install -q '$(torch)' --index-url $(TORCH_INDEX)
endef
else
define install_torch
$(bin)/pip install -q '$(torch)' --index-url $(TORCH_INDEX)
endef
endif
