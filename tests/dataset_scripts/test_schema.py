"""Opening a converted corpus."""

from pathlib import Path
from typing import Any

import pytest

from dataset_scripts import build
from dataset_scripts.phantom import write_phantom
from dataset_scripts.schema import SPLITS, load_readings
from egma_training.streaming import _stream


def test_opening_a_corpus_asks_no_other_host(phantom_data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("datasets.load.get_session", lambda: asked.append("session"))
    monkeypatch.setattr("socket.getaddrinfo", lambda *address, **_: asked.append(address))
    for split in SPLITS:
        assert len(load_readings(phantom_data, split)) > 0
    assert next(iter(_stream([str(path) for path in phantom_data.glob("data/train-*.parquet")])))["reading_id"]
    assert asked == []


def test_a_corpus_that_was_written_anew_is_read_anew(tmp_path: Path) -> None:
    seen = []
    for seed in (1, 2):
        source, output = tmp_path / f"raw{seed}", tmp_path / "data"
        write_phantom(source, readings=20, seed=seed)
        assert build.main(["mimic_eye", "--source", str(source), "--output", str(output), "--image-size", "32"]) == 0
        seen.append([row["reading_id"] for row in load_readings(output, "train")])
        output.rename(tmp_path / f"old{seed}")
    assert seen[0] and seen[1] and seen[0] != seen[1]
