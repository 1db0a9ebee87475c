"""The wheel in an environment of its own, away from the clone: everything that the README shows is there.

The other packages are those of this environment; with EGMA_FULL_INSTALL=1 they are installed anew, from the index.
"""

import os
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest
from PIL import Image

from egma.tools.processes import ROOT

SOURCES = ("modeling_egma", "dataset_scripts", "egma", "setup.cfg", "pyproject.toml", "README.md", "LICENSE")
FULL = bool(os.environ.get("EGMA_FULL_INSTALL"))


def run(*words: object, folder: Path, code: int = 0) -> str:
    own = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"} | {"OMP_NUM_THREADS": "1"}
    command = list(map(str, words))
    done = subprocess.run(command, cwd=folder, env=own, capture_output=True, text=True, timeout=1800)
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    for name in SOURCES:
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, folder / name)
    pip = (sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "-w", "dist", ".")
    run(*pip, folder=folder)
    return next((folder / "dist").glob("egma-*.whl"))


@pytest.fixture(scope="module")
def programs(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`bin` of an environment with the wheel and no clone."""
    folder = tmp_path_factory.mktemp("environment")
    run(sys.executable, "-m", "venv", "--without-pip", folder, folder=folder)
    python, asked = folder / "bin" / "python", [f"{wheel}[all]"] if FULL else ["--no-deps", wheel]
    run(sys.executable, "-m", "pip", "--python", python, "install", "-q", *asked, folder=folder)
    if not FULL:  # a path of its own, by which no editable install is found
        site = Path(run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", folder=folder).strip())
        (site / "others.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return folder / "bin"


def test_the_wheel_holds_all_that_is_no_python_too(wheel: Path) -> None:
    packed = set(zipfile.ZipFile(wheel).namelist())
    for top in ("modeling_egma", "dataset_scripts", "egma"):
        there = {str(path.relative_to(ROOT)) for path in (ROOT / top).rglob("*") if path.is_file()}
        assert {name for name in there if "__pycache__" not in name} <= packed
    assert not any(name.startswith(("tests", "configs", "benchmarks")) for name in packed)


def test_everything_comes_from_the_wheel(programs: Path, tmp_path: Path) -> None:
    code = "import egma, modeling_egma, dataset_scripts; print(egma.__file__, modeling_egma.__file__, egma.EgmaModel)"
    said = run(programs / "python", "-c", code, folder=tmp_path)
    assert said.count(str(programs.parent)) == 2 and "EgmaModel" in said
    assert "evaluate" in run(programs / "egma", folder=tmp_path)
    assert "did you mean 'train'" in run(programs / "egma", "trian", folder=tmp_path, code=2)
    code = "import importlib, egma.__main__ as e; [importlib.import_module(m).main for m, _ in e.COMMANDS.values()]"
    run(programs / "python", "-c", code, folder=tmp_path)
    assert "usage: egma build" in run(programs / "egma", "build", "--help", folder=tmp_path)


def test_from_nothing_to_a_map_without_the_clone(programs: Path, tmp_path: Path) -> None:
    run(programs / "python", "-m", "dataset_scripts.phantom", "--output", "raw", "--readings", 48, folder=tmp_path)
    run(programs / "egma", "build", "mimic_eye", "--source", "raw", "--output", "data", folder=tmp_path)
    train = ("train", "--config", "configs/phantom.yaml,configs/ablations/plus.yaml", "--data", "data")
    train += ("--output_dir", "run", "--batch-size", 8, "--max_steps", 2, "--report_to", "none", "--num_workers", 0)
    assert "parameters" in run(programs / "egma", *train, "--dry_run", folder=tmp_path)
    assert not (tmp_path / "run" / "model.safetensors").exists()
    run(programs / "egma", *train, folder=tmp_path)
    evaluate = ("evaluate", "run", "--data", "data", "--output", "results", "--tasks", "retrieval", "--bootstrap", 20)
    assert "results.json" in run(programs / "egma", *evaluate, "--batch_size", 8, folder=tmp_path)
    run(programs / "egma", "embed", "run", "--data", "data", "--output", "embeddings", folder=tmp_path)
    run(programs / "egma", "push", "run", "lab/egma", "--dry_run", "staged", "--results", "results", folder=tmp_path)
    assert (tmp_path / "staged" / "modeling_egma.py").is_file()
    Image.linear_gradient("L").save(tmp_path / "radiograph.png")
    readme = (ROOT / "README.md").read_text(encoding="utf-8").partition("## Use a model")[2].partition("\n## ")[0]
    blocks = [block.partition("\n```")[0] for block in readme.split("```python\n")[1:]]
    code = "\n".join(blocks).replace("runs/demo/egma", "run")
    run(programs / "python", "-c", code, folder=tmp_path)


def test_the_demo_runs_without_the_clone(programs: Path, tmp_path: Path) -> None:
    said = run(programs / "egma", "demo", "--readings", 64, "--max-steps", 2, folder=tmp_path)
    assert (tmp_path / "runs" / "demo" / "report.md").is_file() and "Traceback" not in said
