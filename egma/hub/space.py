"""A Space of Hugging Face that shows a model's page: this package's code, what it needs, and how it is started."""

import shutil
from importlib.metadata import requires, version
from pathlib import Path

from packaging.requirements import Requirement

from dataset_scripts.schema import UserError
from egma.tools.processes import ROOT

PACKAGES, EXTRAS = ("modeling_egma", "dataset_scripts", "egma"), ("", "train", "eval", "app", "dicom")
README = """---
title: EGMA
emoji: \N{EYE}
sdk: gradio
sdk_version: {gradio}
app_file: app.py
models:
- {model}
---

Research software, no medical device: upload no picture of a patient. docs/page.md of the project says what is kept.
"""
APP = """import os

os.environ["FORWARDED_ALLOW_IPS"] = "*"  # before a Space stands a proxy, which says whose request it is

from egma.programs.app import main

OPEN = ["--host", "0.0.0.0", "--allowed-hosts", "*", "--i-know-it-is-open"]
raise SystemExit(main(["--model", {model!r}, *OPEN, "--frame-ancestors", "https://huggingface.co"]))
"""


def write_space(repo_id: str, folder: Path) -> Path:
    """Write the Space of a model that is on the Hub; raises UserError where the folder is there."""
    if folder.exists():
        raise UserError(f"{folder}: exists already; expected a new folder")
    folder.mkdir(parents=True)
    for name in PACKAGES:
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    needed = [Requirement(one) for one in requires("egma") or ()]
    needed = [one for one in needed if not one.marker or any(one.marker.evaluate({"extra": e}) for e in EXTRAS)]
    lines = sorted({f"{one.name}{one.specifier}" for one in needed})
    (folder / "requirements.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    (folder / "README.md").write_text(README.format(gradio=version("gradio"), model=repo_id), encoding="utf-8")
    (folder / "app.py").write_text(APP.format(model=repo_id), encoding="utf-8")
    return folder
