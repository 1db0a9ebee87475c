"""Opening a converted corpus."""

import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from dataset_scripts import build
from dataset_scripts.output.card import DATASETS_VERSIONS
from dataset_scripts.phantom import write_phantom
from dataset_scripts.schema import ARROW_SCHEMA, FEATURES, SPLITS, load_readings
from egma.training.arguments import TrainingSettings
from egma.training.streaming import StreamedReadings


def test_opening_a_corpus_asks_no_other_host(phantom_data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("datasets.load.get_session", lambda: asked.append("session"))
    monkeypatch.setattr("socket.getaddrinfo", lambda *address, **_: asked.append(address))
    for split in SPLITS:
        assert len(load_readings(phantom_data, split)) > 0
    settings = TrainingSettings(data=str(phantom_data), output_dir="unused", model="unread", batch_size=2)
    assert StreamedReadings(settings, [phantom_data], None, 0, 1)[0]["reading_id"]
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


def kinds(described: object) -> set[object]:
    if isinstance(described, list):
        return {list}.union(*map(kinds, described))
    if not isinstance(described, dict):
        return set()
    return {described.get("_type")}.union(*(kinds(value) for value in described.values()))


def test_lists_are_spelt_in_the_files_as_datasets_3_reads_them(phantom_data: Path) -> None:
    """`Feature type 'List' not found` is what 3.6 said of the spelling that 5 writes by itself."""
    for path in phantom_data.glob("data/*.parquet"):
        described = json.loads(pq.read_schema(path).metadata[b"huggingface"])["info"]["features"]
        assert kinds(described) == {None, list, "Image", "Value"}
        assert all(isinstance(described[name], list) for name in ("sentences", "findings", "boxes"))
    assert load_readings(phantom_data, "train").features == FEATURES
    assert ARROW_SCHEMA.equals(FEATURES.arrow_schema)


def test_card_names_the_versions_of_datasets_that_open_it(phantom_data: Path) -> None:
    assert f"`datasets` {DATASETS_VERSIONS}" in (phantom_data / "README.md").read_text(encoding="utf-8")
