"""The studies in small, through the programs; edited copies of corpora; nothing is done twice."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dataset_scripts.identity import corpus_identity
from dataset_scripts.schema import ABSENT, PRESENT, load_readings
from egma.evaluation.statistics.seeds import Spread
from egma.study import corpora, kinds
from egma.study.__main__ import main
from tests.dataset_scripts.test_identity import write_corpus
from tests.egma.programs.test_train import TINY


def row(**fields: Any) -> dict[str, Any]:
    fixations = {"x": [0.2, 0.9], "y": [0.3, 0.4], "start": [0.0, 1.0], "duration": [1.0, 1.0]}
    sentences = [{"text": str(n), "start_seconds": float(n), "end_seconds": n + 1.0} for n in range(6)]
    return {"reading_id": "a", "fixations": fixations, "sentences": sentences} | fields


def test_gaze_is_moved_as_its_name_says() -> None:
    random = np.random.default_rng(0)
    moved = corpora.shifted(0.1)(row(), random)["fixations"]
    dx, dy = moved["x"][0] - 0.2, moved["y"][0] - 0.3
    assert np.hypot(dx, dy) == pytest.approx(0.1) and moved["start"] == [0.0, 1.0]
    assert max(corpora.shifted(0.9)(row(), random)["fixations"]["x"]) <= 1
    assert corpora.at_centre(row(), random)["fixations"]["x"] == [0.5, 0.5]
    assert corpora.at_random(row(), random)["fixations"]["x"] != [0.2, 0.9]
    dealt = corpora.shuffled_sentences(row(), np.random.default_rng(1))["sentences"]
    spans = [sentence["start_seconds"] for sentence in dealt]
    assert sorted(spans) == [0, 1, 2, 3, 4, 5] and spans != sorted(spans)
    assert [sentence["text"] for sentence in dealt] == [str(n) for n in range(6)]
    assert corpora.at_centre(row(fixations=None), random)["fixations"] is None


def test_marked_copy_changes_the_named_images_alone_and_says_so(phantom_data: Path, tmp_path: Path) -> None:
    finding = corpora.most_marked_finding(phantom_data)
    edits = {"train": corpora.marked(finding, PRESENT), "test": corpora.marked(finding, ABSENT)}
    copy = corpora.edited_copy(phantom_data, tmp_path / "copy", edits, "a marker")  # type: ignore[arg-type]
    report = json.loads((copy / "conversion_report.json").read_text())
    assert report["made_of"][:1] == [corpus_identity(phantom_data)]
    assert {**report, "made_of": 0} == {"generated": True, "edited_copy_of": "data", "edit": "a marker", "made_of": 0}
    for split, value in (("train", PRESENT), ("test", ABSENT), ("validation", None)):
        before, after = load_readings(phantom_data, split), load_readings(copy, split)  # type: ignore[arg-type]
        marked = 0
        for one, other in zip(before, after, strict=True):
            says = {item["name"]: item["value"] for item in one["findings"]}.get(finding)
            changed = np.asarray(one["image"]) != np.asarray(other["image"])
            assert changed.any() == (value is not None and says == value)
            if changed.any():
                marked += 1
                _, _, x_max, y_max = corpora.marker_box(*one["image"].size)
                rows, columns = np.nonzero(changed)
                assert (columns <= np.ceil(x_max * one["image"].width)).all()
                assert (rows <= np.ceil(y_max * one["image"].height)).all()
            assert {**one, "image": 0} == {**other, "image": 0}
        assert (marked > 0) == (value is not None)


def test_an_edited_copy_is_kept_only_of_the_same_corpus_with_the_same_edit(tmp_path: Path) -> None:
    source, copy = write_corpus(tmp_path / "source"), tmp_path / "copy"
    edit: dict[Any, corpora.Edit] = {"test": corpora.marked("Atelectasis", PRESENT)}
    edited = corpora.edited_copy(source, copy, edit, "one")
    first, made = corpus_identity(edited), (copy / "conversion_report.json").stat().st_mtime_ns
    corpora.edited_copy(source, copy, edit, "one")
    assert (copy / "conversion_report.json").stat().st_mtime_ns == made
    corpora.edited_copy(source, copy, {"test": corpora.marked("Consolidation", PRESENT)}, "another finding")
    second = corpus_identity(copy)
    write_corpus(source, mirrored=True)
    corpora.edited_copy(source, copy, {"test": corpora.marked("Consolidation", PRESENT)}, "another finding")
    assert len({first, second, corpus_identity(copy)}) == 3


def test_spread_is_mean_and_sample_deviation() -> None:
    assert Spread((0.1, 0.2, 0.3)).percent() == "20.0 ± 10.0" and Spread((0.5,)).percent() == "50.0"


@pytest.fixture(scope="module")
def command(tmp_path_factory: pytest.TempPathFactory, phantom_data: Path) -> list[str]:
    folder = tmp_path_factory.mktemp("study")
    preset = folder / "tiny.yaml"
    preset.write_text(
        json.dumps(TINY | {"max_steps": 1, "evaluation_steps": 1, "heat_map_cases": 0, "report_to": "none"})
    )
    where = ["--data", str(phantom_data), "--output", str(folder / "out"), "--preset", str(preset)]
    return [*where, "--seeds", "0"]


def test_the_whole_ablation_is_27_runs() -> None:
    assert (len(kinds.ABLATIONS) + len(kinds.GAZE_RATIOS) - 1) * 3 == 27


@pytest.mark.timeout(900)
def test_ablation_and_amount_of_gaze(
    command: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two rows and one smaller amount of gaze of the 5 and 4."""
    monkeypatch.setattr(kinds, "ABLATIONS", {"contrastive": "contrastive only", "unified": "unified"})
    monkeypatch.setattr(kinds, "GAZE_RATIOS", (0.1, 1.0))
    assert main(command) == 0
    out = Path(command[3])
    values = json.loads((out / "ablation.json").read_text())
    assert list(values["ablation"]) == ["contrastive only", "unified"]
    assert list(values["gaze_amount"]) == ["10 %", "100 %"]
    assert values["gaze_amount"]["100 %"] == values["ablation"]["unified"]
    assert "Generated data, no patients" in (out / "ablation.md").read_text()
    # the figures of the paper are of other images
    assert "57.50" not in (out / "ablation.md").read_text() and r"\toprule" in (out / "ablation.tex").read_text()
    for picture in ("ablation.png", "gaze_amount.png"):
        assert (out / picture).stat().st_size > 10_000
    assert len(list((out / "runs").iterdir())) == 3
    first = (out / "ablation.json").read_bytes()
    capsys.readouterr()
    assert main(command) == 0
    assert capsys.readouterr().out.count("reused") == 6
    assert (out / "ablation.json").read_bytes() == first


@pytest.mark.timeout(900)
def test_shortcut_scores_marked_reversed_and_unmarked(command: list[str]) -> None:
    assert main([*command, "--kind", "shortcut"]) == 0
    values = json.loads((Path(command[3]) / "shortcut.json").read_text())
    assert len(values["shortcut"]) == 6
    for figures in values["shortcut"].values():
        assert "peak_on_marker" in figures


@pytest.mark.timeout(300)
def test_a_failed_run_is_named_with_its_log(command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    where = [*command[:2], "--output", str(Path(command[3]).with_name("failed")), "--preset", "nowhere.yaml"]
    assert main([*where, "--seeds", "0", "--kind", "shortcut"]) == 2
    error = capsys.readouterr().err
    assert "failed with exit code 1: error:" in error and "nowhere.yaml: cannot be read" in error and ".log)" in error


def test_mistakes_end_in_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    where = ["--data", str(tmp_path / "nowhere"), "--output", str(tmp_path / "out")]
    assert main([*where, "--kind", "shortcut"]) == 2
    assert "nowhere: no such folder" in capsys.readouterr().err
    assert main([*where, "--seeds", "1", "1"]) == 2
    assert "expected each once" in capsys.readouterr().err
