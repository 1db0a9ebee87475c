"""Makes the pictures of README and docs again: `make figures`, or `python docs/figures.py [heat_maps growth ...]`.

Each is drawn by the program that has it; `images/README.md` says which, when, and at which commit.
"""

import re
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from subprocess import PIPE
from typing import NamedTuple

import screenshots

from dataset_scripts.schema import load_readings
from egma import SAMPLE_MODEL, SAMPLE_READINGS
from egma.figures.example_sentences import gallery_rows
from egma.figures.heat_maps import heatmap_gallery
from egma.inference.models import load_whole_model
from egma.tools.processes import ROOT
from egma.training.provenance import git_revision

IMAGES = ROOT / "docs" / "images"
HEAD = """# Pictures

`make figures` makes them again; all are of generated data, no patient exists. Heat maps and pages show the
[model and the readings that come with the package](../../egma/sample/sample_model/README.md).

| pictures | made by | on | at commit |
|---|---|---|---|
"""
PORT = "7863"


class Figure(NamedTuple):
    """Files, relative to `docs`, and what makes them, in words and in deed; `needs` has to be there."""

    files: tuple[str, ...]
    by: str
    make: Callable[[], None]
    needs: Path = ROOT


def run(*words: str) -> None:
    subprocess.run([sys.executable, *words], cwd=ROOT, check=True)


def heat_maps() -> None:
    rows = gallery_rows(*load_whole_model(SAMPLE_MODEL), load_readings(SAMPLE_READINGS, "test"))
    heatmap_gallery(rows, IMAGES / "heat_maps.png", generated=True)


def pages(*words: str) -> None:
    """Screenshots of `egma app` with these words."""
    command = [sys.executable, "-m", "egma", "app", *words, "--port", PORT]
    with subprocess.Popen(command, cwd=ROOT, stdout=PIPE, text=True) as running:
        assert any("answers on" in line for line in iter(running.stdout.readline, ""))
        screenshots.main(f"http://127.0.0.1:{PORT}/")
        running.terminate()


FIGURES = {
    "heat_maps": Figure(("images/heat_maps.png",), "`egma.figures.heat_maps`", heat_maps),
    "growth": Figure(("images/growth.png",), "`python -m benchmarks.growth`", lambda: run("-m", "benchmarks.growth")),
    "evidence": Figure(
        tuple(f"evidence/{path.name}" for path in sorted((ROOT / "docs" / "evidence").glob("*.png"))),
        "`python -m egma.study.evidence --tables`",
        lambda: run("-m", "egma.study.evidence", "--tables"),
    ),
    "pages": Figure(
        tuple(f"images/page_{name}.png" for name in (*screenshots.VIEWS, "phone")),
        "`docs/screenshots.py`, on `egma app`",
        lambda: pages("--model", SAMPLE_MODEL, "--data", SAMPLE_READINGS),
        Path(screenshots.CHROMIUM),
    ),
    "compared": Figure(
        ("images/page_compare.png",),
        "`docs/screenshots.py`, on `egma app --compare runs/demo/no_gaze`",
        lambda: pages("--compare", "runs/demo/no_gaze"),
        ROOT / "runs" / "demo" / "no_gaze",
    ),
}


def stamp(figure: Figure, is_new: bool) -> tuple[str, str]:
    """Day and commit: of now, or of the commit that holds the first of the files."""
    if is_new:
        return f"{datetime.now(UTC):%Y-%m-%d}", (git_revision(ROOT) or "unknown")[:7]
    last = ("git", "log", "-1", "--format=%cs %h", "--", f"docs/{figure.files[0]}")
    day, _, commit = subprocess.run(last, cwd=ROOT, capture_output=True, text=True, check=True).stdout.partition(" ")
    return day, commit.strip()


def write_index(made: set[str], path: Path) -> None:
    """The rows of what was made now, the others as they stand."""
    known = dict(re.findall(r"^(\| .*? \| .*? \|)( .* \| .* \|)$", path.read_text(), re.M)) if path.exists() else {}
    rows = []
    for name, figure in FIGURES.items():
        what = f"| {', '.join(Path(file).name for file in figure.files)} | {figure.by} |"
        day, commit = stamp(figure, name in made)
        rows.append(what + (f" {day} | {commit} |" if name in made or what not in known else known[what]))
    path.write_text(HEAD + "\n".join(rows) + "\n", encoding="utf-8")


def main(*names: str) -> None:
    if unknown := set(names) - FIGURES.keys():
        sys.exit(f"error: no figure {', '.join(unknown)}; expected of {', '.join(FIGURES)}")
    made = set()
    for name, figure in FIGURES.items():
        if name in (names or FIGURES):
            if not figure.needs.exists():
                print(f"{name}: left as it is, without {figure.needs}")
                continue
            figure.make()
            made.add(name)
    write_index(made, IMAGES / "README.md")


if __name__ == "__main__":
    main(*sys.argv[1:])
