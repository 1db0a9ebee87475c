"""The Space that is written holds all that its page needs to start."""

import ast
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from egma.programs import push


@pytest.fixture(scope="module")
def space(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("space") / "out"
    assert push.main(["nothing", "lab/egma", "--space", str(out)]) == 0
    return out


def test_its_front_matter_and_requirements(space: Path) -> None:
    front = yaml.safe_load((space / "README.md").read_text(encoding="utf-8").split("---")[1])
    assert (front["sdk"], front["app_file"], front["models"]) == ("gradio", "app.py", ["lab/egma"])
    names = {re.split("[<>=]", line)[0] for line in (space / "requirements.txt").read_text().splitlines()}
    assert {"gradio", "torch", "transformers", "datasets", "pydicom"} <= names and "pytest" not in names
    ast.parse((space / "app.py").read_text())
    assert not list(space.rglob("__pycache__"))


def test_it_runs_from_its_own_folder_and_says_what_it_lacks(space: Path, tmp_path: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    environment |= {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path)}
    asked = "import egma.page.page, egma; print(egma.__file__)"
    done = subprocess.run([sys.executable, "-c", asked], cwd=space, env=environment, capture_output=True, text=True)
    assert done.stdout.startswith(str(space)), done.stderr
    done = subprocess.run([sys.executable, "app.py"], cwd=space, env=environment, capture_output=True, text=True)
    assert "lab/egma" in done.stderr and "--auth" not in done.stderr and "Traceback" not in done.stderr


def test_a_folder_that_is_there_is_left_alone(space: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert push.main(["nothing", "lab/egma", "--space", str(space)]) == 2
    assert "exists already" in capsys.readouterr().err
