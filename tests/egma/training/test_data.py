"""Batches of a run, from one corpus or several, indexed or streamed, whole or from the middle on."""

import itertools
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
import torch
from PIL import ImageOps

from dataset_scripts.schema import UserError, load_readings
from egma.training.arguments import TrainingSettings
from egma.training.data import ReadingCollator, TrainingData, text_ids
from egma.training.step import to_device

BOTH = pytest.mark.parametrize("streaming", [False, True])


def settings(data: Any, **changes: Any) -> TrainingSettings:
    return TrainingSettings(**{"data": str(data), "output_dir": "unused", "model": "unused", "batch_size": 4} | changes)


def stream(one: TrainingSettings, processor: Any, first: int = 0, rank: int = 0, world: int = 1):
    """Finished batches."""
    batches = TrainingData(one, rank, world).batches(ReadingCollator(processor, one), first)
    return (to_device(batch, torch.device("cpu")) for batch in batches)


def ids_of(batches: Any, count: int) -> list[list[str]]:
    return [batch["reading_ids"] for batch in itertools.islice(batches, count)]


@pytest.fixture(scope="module")
def image_of(phantom_data: Path) -> dict[str, str]:
    rows = load_readings(phantom_data, "train")
    return dict(zip(rows["reading_id"], rows["image_id"], strict=True))


@pytest.fixture(scope="module")
def image_of_validation(phantom_data: Path) -> dict[str, str]:
    rows = load_readings(phantom_data, "validation")
    return dict(zip(rows["reading_id"], rows["image_id"], strict=True))


@BOTH
@pytest.mark.parametrize("workers", [0, 2])
def test_batches_from_the_middle_are_those_of_the_whole_run(
    phantom_data: Path, processor: Any, streaming: bool, workers: int
) -> None:
    moving = settings(phantom_data, rotation_degrees=10, crop_fraction=0.2, brightness=0.2, streaming=streaming)
    per_epoch = TrainingData(moving, 0, 1).batches_per_epoch
    whole = list(itertools.islice(stream(moving, processor), per_epoch + 3))
    moving.num_workers = workers
    for first in (2, per_epoch - 1, per_epoch + 1):
        again = next(stream(moving, processor, first))
        assert again["reading_ids"] == whole[first]["reading_ids"]
        assert torch.equal(again["pixel_values"], whole[first]["pixel_values"])
        assert torch.equal(again["gaze_heatmaps"], whole[first]["gaze_heatmaps"])
    assert whole[0]["reading_ids"] != whole[per_epoch]["reading_ids"]


@BOTH
def test_processes_share_one_batch_without_an_image_twice(
    phantom_data: Path, processor: Any, image_of: dict[str, str], streaming: bool
) -> None:
    one = settings(phantom_data, streaming=streaming)
    per_epoch = TrainingData(one, 0, 2).batches_per_epoch
    own = [ids_of(stream(one, processor, rank=rank, world=2), per_epoch) for rank in (0, 1)]
    if not streaming:
        joined = settings(phantom_data, batch_size=8)
        assert ids_of(stream(joined, processor), per_epoch) == [a + b for a, b in zip(*own, strict=True)]
    for batch in map(list.__add__, *own):
        assert len({image_of[name] for name in batch}) == 8
    if not streaming:
        seen = [name for batches in own for batch in batches for name in batch]
        assert len(seen) == len(set(seen))


@BOTH
def test_corpora_are_mixed_by_weight(phantom_data: Path, processor: Any, streaming: bool, tmp_path: Path) -> None:
    other = without_gaze(phantom_data, tmp_path / "other")
    mixed = settings(f"{phantom_data},{other}", data_weights="3,1", streaming=streaming, shuffle_buffer=8)
    data = TrainingData(mixed, 0, 1)
    assert data.has_gaze
    batches = list(itertools.islice(stream(mixed, processor), data.batches_per_epoch))
    names = [name for batch in batches for name in batch["reading_ids"]]
    share = np.mean([name.startswith("other") for name in names])
    assert abs(share - 0.25) < 0.12
    assert any(0 < int(batch["gaze_mask"].sum()) < len(batch["gaze_mask"]) for batch in batches)
    description = data.describe()
    assert description["data"]["weight"] == 3 and description["other"]["weight"] == 1
    assert description["data"]["fingerprint"] != description["other"]["fingerprint"]


def without_gaze(data: Path, folder: Path) -> Path:
    """A copy whose readings and images have other names and no recording."""
    for split in ("train", "validation"):
        rows = load_readings(data, split)
        rows = rows.map(
            lambda row: {
                "reading_id": f"other {row['reading_id']}", "image_id": f"other {row['image_id']}", "fixations": None
            },
            features=rows.features,
        )  # fmt: skip
        (folder / "data").mkdir(parents=True, exist_ok=True)
        rows.to_parquet(folder / "data" / f"{split}-00000-of-00001.parquet")
    return folder


@BOTH
def test_training_sees_the_colours_that_evaluation_sees(
    phantom_data: Path, processor: Any, streaming: bool, tmp_path: Path
) -> None:
    for path in phantom_data.glob("data/*.parquet"):
        rows = datasets.Dataset.from_parquet(str(path), cache_dir=str(tmp_path / "cache"))
        red = rows.map(lambda row: {"image": ImageOps.colorize(row["image"], "black", "red")})
        (tmp_path / "data").mkdir(exist_ok=True)
        red.to_parquet(str(tmp_path / "data" / path.name))
    batch = next(stream(settings(tmp_path, streaming=streaming), processor))
    pictures = {row["reading_id"]: row["image"] for row in load_readings(tmp_path, "train")}
    seen = processor(images=[pictures[name] for name in batch["reading_ids"]])["pixel_values"]
    assert torch.equal(batch["pixel_values"], seen) and not torch.equal(seen[:, 0], seen[:, 1])


@BOTH
def test_a_corpus_without_gaze_has_none(phantom_data: Path, tmp_path: Path, streaming: bool) -> None:
    assert not TrainingData(settings(without_gaze(phantom_data, tmp_path), streaming=streaming), 0, 1).has_gaze


def test_streamed_gaze_ratio_keeps_about_that_share_of_the_gaze(phantom_data: Path, processor: Any) -> None:
    half = settings(phantom_data, streaming=True, gaze_ratio=0.5)
    data = TrainingData(half, 0, 1)
    batches = list(itertools.islice(stream(half, processor), data.batches_per_epoch))
    share = torch.cat([batch["gaze_mask"] for batch in batches]).float().mean()
    assert 0.25 < share < 0.75
    again = stream(half, processor)
    assert [batch["gaze_mask"].tolist() for batch in itertools.islice(again, 2)] == [
        batch["gaze_mask"].tolist() for batch in batches[:2]
    ]


def validation_shares(one: TrainingSettings, processor: Any, world: int) -> list[list[Any]]:
    collator = ReadingCollator(processor)
    return [list(TrainingData(one, rank, world).validation_batches(collator)) for rank in range(world)]


@pytest.mark.parametrize("workers", [0, 2])
def test_validation_batches_are_those_of_one_process_on_any_number(
    phantom_data: Path, processor: Any, image_of_validation: dict[str, str], workers: int
) -> None:
    whole = [batch["reading_ids"] for batch in validation_shares(settings(phantom_data), processor, 1)[0]]
    assert sorted(itertools.chain(*whole)) == sorted(load_readings(phantom_data, "validation")["reading_id"])
    assert all(len({image_of_validation[name] for name in names}) == len(names) for names in whole)
    assert max(map(len, whole)) <= 4 and max(map(len, whole)) - min(map(len, whole)) <= 1
    for world in (2, 4):
        shares = validation_shares(settings(phantom_data, batch_size=4 // world, num_workers=workers), processor, world)
        joint = [[name for part in parts for name in part["reading_ids"]] for parts in zip(*shares, strict=True)]
        assert joint == whole
        assert [batch["weight"] for batch in shares[-1]] == [len(names) for names in whole]


def test_a_validation_batch_smaller_than_the_processes_is_whole_on_each(phantom_data: Path, processor: Any) -> None:
    count = len(load_readings(phantom_data, "validation"))
    world = count + 1
    data = TrainingData(settings(phantom_data, batch_size=1), world - 1, world)
    batches = list(data.validation_batches(ReadingCollator(processor)))
    assert all(batch["weight"] == len(batch["reading_ids"]) for batch in batches)
    assert sum(batch["weight"] for batch in batches) == count


def test_heat_map_cases_are_the_same_each_time_and_have_gaze(phantom_data: Path) -> None:
    data = TrainingData(settings(phantom_data), 0, 1)
    cases = data.fixed_cases(3)
    assert [case["reading_id"] for case in cases] == [case["reading_id"] for case in data.fixed_cases(3)]
    assert all(case["fixations"] and case["sentences"] for case in cases) and len(cases) == 3


def test_texts_are_equal_but_for_case_and_spaces() -> None:
    ids = text_ids([["No effusion.", "Clear lungs."], ["no  effusion.", "Clear lungs. "], [], ["Clear lungs."]])
    assert ids["report_ids"][0] == ids["report_ids"][1] != ids["report_ids"][3]
    sentences = ids["sentence_ids"].tolist()
    assert sentences[0] == sentences[2] and sentences[1] == sentences[3] == sentences[4]
    assert len({*sentences, *ids["report_ids"].tolist()}) >= 4 and ids["report_ids"].min() >= 0


def test_text_match_gives_the_objective_its_numbers(phantom_data: Path, processor: Any) -> None:
    batch = next(stream(settings(phantom_data, positives="text_match"), processor))
    assert len(batch["report_ids"]) == 4 and len(batch["sentence_ids"]) == len(batch["sentence_index"])
    assert "report_ids" not in next(stream(settings(phantom_data), processor))


def test_cut_sentences_are_counted_in_workers_too(phantom_data: Path, processor: Any) -> None:
    counts = []
    processor.tokenizer.model_max_length = 5
    for workers in (0, 2):
        one = settings(phantom_data, num_workers=workers)
        data = TrainingData(one, 0, 1)
        list(itertools.islice(data.batches(ReadingCollator(processor, one), 0), data.batches_per_epoch))
        counts.append(data.truncated_sentences)
    assert counts[0] == counts[1] > 0


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"data": "nowhere"}, "nowhere: no such folder"),
        ({"data_weights": "1,2"}, "a number above 0 for each of 1 corpora"),
        ({"data_weights": "much"}, "expected numbers as 2,1"),
        ({"batch_size": 44}, "lower --batch_size"),
        ({"batch_size": 4000, "streaming": True}, "fewer than one batch of 4000"),
    ],
)
def test_mistakes_are_named(phantom_data: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        TrainingData(settings(**{"data": phantom_data} | changes), 0, 1)


def test_streaming_too_few_images_for_a_batch_ends(phantom_data: Path, processor: Any) -> None:
    with pytest.raises(UserError, match="fewer than 44 different images"):
        next(stream(settings(phantom_data, streaming=True, batch_size=44), processor))
