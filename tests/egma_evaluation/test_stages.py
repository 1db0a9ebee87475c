"""What was made is reused when command, sources, data and model are the same, and made anew when one is not."""

import shutil
from pathlib import Path

import pytest

from egma_evaluation import stages
from egma_evaluation.stages import Stage, evaluation, run_stages, training
from tests.dataset_scripts.test_identity import write_corpus


def counting(folder: Path, *made_of: str) -> Stage:
    """Adds a letter to a file outside of its result."""
    log, result = folder / "log", folder / "result"
    code = f"import pathlib; pathlib.Path({str(result)!r}).mkdir(); open({str(log)!r}, 'a').write('x')"
    return Stage("count", ("-c", code), result, made_of)


def test_a_stage_is_reused_only_for_the_same_inputs(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    for made_of, times in (("a", 1), ("a", 1), ("b", 2), ("b", 2), ("a", 3)):
        run_stages(tmp_path, [counting(tmp_path, made_of)])
        assert (tmp_path / "log").read_text() == times * "x"
    said = capfd.readouterr().out
    assert said.count("count: reused") == 2 and said.count("count: what it is made of has changed ...") == 2


def test_trainings_and_evaluations_are_made_of_preset_corpus_model_and_sources(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, model, preset = write_corpus(tmp_path / "data"), tmp_path / "model", tmp_path / "preset.yaml"
    source = tmp_path / "source.py"
    monkeypatch.setattr(stages, "TRAINING_SOURCES", (source,))
    monkeypatch.setattr(stages, "EVALUATION_SOURCES", (source,))
    model.mkdir()
    for path in (preset, source, model / "config.json", model / "model.safetensors"):
        path.write_text("1")

    def both() -> tuple[tuple[str | None, ...], tuple[str | None, ...]]:
        trained = training(data, tmp_path / "run", [str(preset)], 1.0, 0).made_of
        return trained, evaluation("evaluate", model, data, tmp_path / "out").made_of

    first = both()
    assert both() == first
    preset.write_text("2")
    assert both()[0] != first[0] and both()[1] == first[1]
    preset.write_text("1")
    (model / "config.json").write_text("2")
    assert both()[0] == first[0] and both()[1] != first[1]
    (model / "config.json").write_text("1")
    source.write_text("2")
    assert both()[0] != first[0] and both()[1] != first[1]
    source.write_text("1")
    shutil.rmtree(data)
    write_corpus(data, mirrored=True)
    assert both()[0] != first[0] and both()[1] != first[1]
