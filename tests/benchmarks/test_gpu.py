"""Everything that is measured on a GPU runs on a CPU at a tiny size, the program by its command line included."""

import json
from pathlib import Path

import pytest
import torch

from benchmarks import gpu


def test_all_tables_are_written_and_printed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "gpu.json"
    assert gpu.main(["--output", str(output)]) == 0
    results = json.loads(output.read_text())
    assert {"ceilings", "towers_and_step", "objective", "grid_limit", "program"} <= results.keys()
    step, program = results["towers_and_step"][0], results["program"][0]
    assert step["pairs_per_second"] == pytest.approx(step["batch"] / step["step_seconds"])
    assert all(results["objective"][0][term]["seconds"] > 0 for term in gpu.TERMS)
    assert program["pairs_per_second"] > 0 and program["whole_seconds"] > program["wait_seconds_a_step"]
    said = capsys.readouterr().out.splitlines()
    assert said[1].startswith("B 4: image ") and said[-1].startswith("program, 0 workers: ")


def test_a_median_is_of_the_calls_after_two_to_warm_up() -> None:
    calls: list[int] = []
    assert gpu.timed(lambda: calls.append(1), 5, torch.device("cpu")).gibibytes == 0
    assert len(calls) == 7


def test_what_is_timed_on_a_gpu_is_the_size_of_the_table() -> None:
    """The towers are those of the table: Swin-Tiny and BERT-base, of 27.5 and 109.5 million parameters."""
    with torch.device("meta"):
        model = gpu.EgmaModel(gpu.EgmaConfig(vision_config=gpu.WHOLE.vision, text_config=gpu.WHOLE.text))
    sizes = [sum(p.numel() for p in tower.parameters()) for tower in (model.vision_model, model.text_model)]
    assert sizes == pytest.approx([27.5e6, 109.5e6], rel=0.01)
    assert gpu.WHOLE.batches == (64, 256) and gpu.WHOLE.objectives[-1] == (256, 1369)
