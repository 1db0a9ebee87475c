"""The evidence in small: worlds, arms and evaluations through the programs; lines once, tables of lines alone."""

import json
from pathlib import Path
from typing import Any

import pytest

from egma.study import evidence
from egma.study.evidence import main

TITLES = {"none": "no gaze", "own": "own gaze"}
PRESET = "evaluation_steps: 2\nmax_steps: 2\nheat_map_cases: 0\nreport_to: none\nbatch_size: 8\n"


def line(arm: str, seed: int, auroc: float) -> str:
    values = {"auroc": auroc, "pointing": 0.5, "above_blind": -0.1, "recall": 0.1}
    about = {"world": "real", "seed": seed, "arm": arm, "title": TITLES[arm.partition("-")[0]], "learning_rate": 0.002}
    return json.dumps({**about, **values, "intervals": {"auroc": [auroc - 0.1, 1.0]}})


def test_tables_are_made_of_the_lines_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(evidence, "EVIDENCE", tmp_path)
    values = [("own-0.002", 9, 0.4), ("none", 0, 0.5), ("none", 1, 0.6), ("own", 0, 0.7)]
    (tmp_path / "worth.jsonl").write_text("\n".join(line(*one) for one in values) + "\n")
    assert main(["--tables"]) == 0
    said = capsys.readouterr().out
    assert "| no gaze | 2 | 55.0 ± 7.1 [" in said and "| own gaze | 1 | 70.0 |" in said and "-10.0" in said
    assert "| own gaze less no gaze | +20.0 | +0.0 |" in said
    assert "| own gaze, trial of rate 0.002 | 1 | 40.0 |" in said
    assert (tmp_path / "worth-real.png").stat().st_size > 5000


def test_curves_are_drawn_over_the_points_that_there_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    drawn: list[tuple[Any, ...]] = []
    monkeypatch.setattr(evidence, "EVIDENCE", tmp_path)
    monkeypatch.setattr(evidence, "curves", lambda *given: drawn.append(given))
    other = json.loads(line("own", 0, 0.9)) | {"world": "share0.6"}
    found = [line("none", 0, 0.5), line("none", 1, 0.6), line("own", 0, 0.7), json.dumps(other)]
    (tmp_path / "worth.jsonl").write_text("\n".join(found) + "\n")
    assert main(["--tables"]) == 0
    [(panels, path, _, label, reference)] = drawn
    points = {row: spread.mean for row, spread in panels["AUROC"]["own gaze"].items()}
    assert points == {".3": 0.7, ".6": 0.9} and list(panels["AUROC"]) == ["own gaze"]
    assert reference["AUROC"] == {"no gaze": pytest.approx(0.55)} and path.name == "worth-curves.png" and label


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["worth", "--arms", "nobody"], "arm 'nobody': expected of none, equals, own"),
        (["nowhere"], "study 'nowhere': expected of worth, amount"),
        (["worth", "nowhere"], "study 'nowhere': expected of worth, amount"),
        ([], "no study: expected of worth, amount, towers, elsewhere, or --tables"),
        (["--tables"], "no line of an evaluation; expected STUDY.jsonl, of worth, amount"),
    ],
)
def test_what_is_no_study_is_a_sentence_before_anything_runs(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    message: str,
) -> None:
    monkeypatch.setattr(evidence, "EVIDENCE", tmp_path)
    monkeypatch.setattr(evidence, "run_world", lambda *_: pytest.fail("a world was drawn"))
    assert main(arguments) == 2
    assert message in capsys.readouterr().err


@pytest.mark.timeout(900)
def test_a_world_is_drawn_trained_in_and_written_down_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    preset = tmp_path / "tiny.yaml"
    preset.write_text(PRESET)
    monkeypatch.setattr(evidence, "EVIDENCE", tmp_path / "lines")
    monkeypatch.setattr(evidence, "READINGS", 96)
    monkeypatch.setattr(evidence, "TASKS", ("retrieval",))
    monkeypatch.setattr(evidence, "FIGURES_OF", {"recall": "text_to_image_recall_at_1"})
    presets = lambda arm: [*map(str, (evidence.CONFIGS / "phantom.yaml", preset))]  # noqa: E731
    monkeypatch.setattr(evidence, "_presets", presets)
    command = ["worth", "--seeds", "3", "--arms", "none", "equals", "--output", str(tmp_path / "out")]
    assert main(command) == 0
    found = evidence.lines("worth")
    assert [one["arm"] for one in found] == ["none", "equals"] and found[0]["commit"]
    assert found[0]["config"] != found[1]["config"] and 0 <= found[0]["recall"] <= 1
    capsys.readouterr()
    assert main(command) == 0
    assert capsys.readouterr().out.count("reused") == 5 and evidence.lines("worth") == found


def test_the_models_of_one_world_are_evaluated_in_another_without_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn, evaluated, ran = [], [], []
    monkeypatch.setattr(evidence, "EVIDENCE", tmp_path)
    monkeypatch.setattr(evidence, "_corpus", lambda folder, world, seed: drawn.append((folder.name, world)) or folder)
    monkeypatch.setattr(evidence, "_edited", lambda folder, data, arm: data)
    monkeypatch.setattr(evidence, "corpus_identity", lambda data: "")
    monkeypatch.setattr(evidence, "run_stages", lambda *given, **_: ran.append(given))
    monkeypatch.setattr(evidence, "_evaluated", lambda *given: evaluated.append(given) or {"own": None})
    monkeypatch.setattr(evidence, "_write_line", lambda *_: None)
    assert main(["elsewhere", "--seeds", "3", "--arms", "own", "--output", str(tmp_path)]) == 0
    assert drawn == [("real-3", "real"), ("style_b-3", "style_b")] and ran == []
    other = tmp_path / "style_b-3"
    assert evaluated == [(other, other, [tmp_path / "real-3" / "runs" / "own"])]


def test_a_tower_of_the_study_is_another_preset_over_the_arms_own() -> None:
    names = [Path(preset).stem for preset in evidence._presets(evidence.STUDIES["towers"]["convnext_published"])]
    assert names == ["phantom", "study", "unified", "convnext"]
