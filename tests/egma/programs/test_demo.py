"""`make demo` in small: every stage through the programs, then nothing done twice."""

import json
import os
import pty
import shutil
import subprocess
import sys
import termios
from pathlib import Path

import pytest

from egma.programs import demo
from egma.tools.processes import ROOT

NOISE = ("Generating", "Loading weights", "Writing model shards", "reading/s", "step/s", "patients/s")
SMALL = ("--readings", "64", "--max_steps", "2")


@pytest.fixture(scope="module")
def output(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("demo") / "run"
    with (folder.parent / "said").open("w") as said:
        command = [sys.executable, ROOT / "demo.py", "--output", folder, *SMALL]
        assert subprocess.run(command, cwd=ROOT, stdout=said, stderr=subprocess.STDOUT).returncode == 0
    return folder


def test_it_says_what_it_takes_and_where_it_stands(output: Path) -> None:
    """In a file plain lines, of its own and of its programs, and no bar."""
    said = (output.parent / "said").read_text()
    assert said.startswith("A corpus of 64 generated readings, 3 trainings") and "minutes on two free cores" in said
    assert [line.split(",")[0] for line in said.splitlines() if line.startswith("== ")] == [
        f"== step {place} of 4" for place in (1, 2, 3, 4)
    ]
    assert "train egma: step 2" in said and not (output / "logs").exists()
    for noise in (*NOISE, "%|", "\r"):
        assert noise not in said


def test_results_name_every_figure_of_both_runs_and_chance(output: Path) -> None:
    results = json.loads((output / "results.json").read_text())
    for column in ("no_gaze", "published", "egma", "chance"):
        for key in ("pointing_game", "recall_at_1"):
            assert 0 <= results[column][key] <= 1, (column, key)
        # a corpus this small has no class with enough positive images, and no table has figures of single labels
        assert results[column].get("zero_shot_auroc") is None and "zero_shot_accuracy" not in results[column]
    assert results["generated"] is True
    assert results["classes_left_out"]["positive_images"]["Pneumothorax"] < 20
    assert results["egma"]["blind"]["pointing_game"]["finding_prior"] >= 0
    assert results["no_gaze"]["image_dependent"]["pointing_game"]["n"] > 0


def test_report_says_generated_and_shows_its_figures(output: Path) -> None:
    report = (output / "report.md").read_text()
    assert "**generated**" in report and "| Pointing game, image-dependent share |" in report
    for name in ("heat_maps_egma.png", "heat_maps_no_gaze.png", "training_curves.png"):
        assert name in report and (output / name).stat().st_size > 5000
    assert {"model.safetensors", "processor_config.json"} <= {path.name for path in (output / "egma").iterdir()}


def test_runs_of_one_objective_start_from_the_same_loss_terms(output: Path) -> None:
    first = [json.loads((output / run / "metrics.jsonl").read_text().splitlines()[0]) for run in demo.RUNS]
    by_run = dict(zip(demo.RUNS, first, strict=True))
    assert by_run["no_gaze"]["contrastive"] == by_run["egma"]["contrastive"]
    assert by_run["no_gaze"]["gaze"] == 0 < by_run["egma"]["gaze"]


def test_a_second_run_reuses_what_is_there(output: Path, capfd: pytest.CaptureFixture[str]) -> None:
    before = (output / "egma" / "model.safetensors").stat().st_mtime_ns
    assert demo.main(["--output", str(output), "--readings", "64", "--max_steps", "2"]) == 0
    assert capfd.readouterr().out.count(": reused") == 6
    assert (output / "egma" / "model.safetensors").stat().st_mtime_ns == before


def test_a_failing_stage_ends_in_one_sentence(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert demo.main(["--output", str(tmp_path / "run"), "--readings", "0"]) == 2
    assert capfd.readouterr().err.strip().splitlines()[-1].startswith("error: 'generate the phantom corpus")


def test_in_a_terminal_one_bar_stands_for_the_whole(output: Path) -> None:
    """Of what is made again here; what the programs say lies in logs."""
    shutil.rmtree(output / "no_gaze")
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (24, 80))
    command = [sys.executable, str(ROOT / "demo.py"), "--output", str(output), *SMALL]
    process = subprocess.Popen(command, cwd=ROOT, stdout=theirs, stderr=theirs)
    os.close(theirs)
    heard = bytearray()
    while True:
        try:
            heard += os.read(ours, 65536)
        except OSError:  # the other side is closed
            break
    os.close(ours)
    said = heard.decode()
    assert process.wait() == 0, said
    assert "minutes on two free cores" in said and "== step 4 of 4" in said and "train no_gaze: " in said
    bars = {line.split("%|")[0] for line in said.replace("\n", "\r").split("\r") if "%|" in line}
    assert bars and all(bar.lstrip("\x1b[A ").startswith("demo ") for bar in bars) and "demo 100 " in bars
    assert not any(noise in said for noise in NOISE)
    assert "step 2" in (output / "logs" / "train-no-gaze.log").read_text()
