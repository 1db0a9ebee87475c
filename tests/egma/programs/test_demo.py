"""`make demo` in small: every stage through the programs, then nothing done twice."""

import contextlib
import json
from pathlib import Path

import pytest

from egma.programs import demo


@pytest.fixture(scope="module")
def output(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("demo") / "run"
    with (folder.parent / "said").open("w") as said, contextlib.redirect_stdout(said):
        assert demo.main(["--output", str(folder), "--readings", "64", "--max_steps", "2"]) == 0
    return folder


def test_it_says_what_it_takes_and_where_it_stands(output: Path) -> None:
    said = (output.parent / "said").read_text()
    assert said.startswith("A corpus of 64 generated readings, 3 trainings") and "minutes on two free cores" in said
    assert [line.split(",")[0] for line in said.splitlines() if line.startswith("== ")] == [
        f"== step {place} of 4" for place in (1, 2, 3, 4)
    ]
    for noise in ("Generating", "Loading weights", "Writing model shards", "%|"):
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
