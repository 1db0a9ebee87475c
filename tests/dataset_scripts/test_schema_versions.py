"""Corpora that were written before the schema had a version, and by a program that knows a later one."""

import json
import shutil
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dataset_scripts.schema import (
    ARROW_SCHEMA,
    FEATURES,
    NEW_COLUMNS,
    SCHEMA_VERSION,
    VERSION_KEY,
    UserError,
    load_readings,
    split_files,
)
from egma.evaluation.corpus import Corpus as EvaluatedCorpus
from egma.page.corpus import Corpus
from egma.study.corpora import edited_copy
from egma.training.arguments import TrainingSettings
from egma.training.streaming import StreamedReadings


def rewritten(source: Path, output: Path, change: Any) -> Path:
    """The corpus with `change` made to the table of every shard."""
    shutil.copytree(source, output)
    for path in output.glob("data/*.parquet"):
        pq.write_table(change(pq.read_table(path)), path)
    return output


@pytest.fixture(scope="module")
def old(phantom_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As it was written before: without the columns, and without a version in the files' metadata."""

    def change(table: Any) -> Any:
        table = table.drop_columns(list(NEW_COLUMNS))
        described = json.loads(table.schema.metadata[b"huggingface"])
        for name in NEW_COLUMNS:
            del described["info"]["features"][name]
        return table.replace_schema_metadata({"huggingface": json.dumps(described)})

    return rewritten(phantom_data, tmp_path_factory.mktemp("old") / "data", change)


@pytest.fixture(scope="module")
def newer(phantom_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    def change(table: Any) -> Any:
        return table.replace_schema_metadata({**table.schema.metadata, VERSION_KEY: str(SCHEMA_VERSION + 1)})

    return rewritten(phantom_data, tmp_path_factory.mktemp("newer") / "data", change)


def test_files_and_card_say_the_version(phantom_data: Path) -> None:
    assert all(int(pq.read_schema(path).metadata[VERSION_KEY]) == 2 for path in split_files(phantom_data, "train"))
    assert "Version 2 of the schema" in (phantom_data / "README.md").read_text(encoding="utf-8")
    assert json.loads((phantom_data / "conversion_report.json").read_text())["schema_version"] == 2


def test_an_old_corpus_opens_with_nulls_and_all_else_as_it_was(old: Path, phantom_data: Path) -> None:
    before, now = load_readings(old, "train"), load_readings(phantom_data, "train")
    assert before.features == now.features == FEATURES and before.column_names == now.column_names
    assert before["sex"] == before["age_years"] == [None] * len(now)
    rest = [name for name in FEATURES if name not in (*NEW_COLUMNS, "image")]
    assert before.select_columns(rest).to_list() == now.select_columns(rest).to_list()
    assert np.array_equal(before[0]["image"], now[0]["image"])
    both = datasets.concatenate_datasets([before, now])
    assert len(both) == 2 * len(now) and set(both["sex"]) == {None, "F", "M"}


def test_old_and_new_corpora_come_through_every_door(old: Path, phantom_data: Path, tmp_path: Path) -> None:
    assert all(reading["sex"] is None for reading in Corpus(old).examples)
    evaluated = EvaluatedCorpus.read(old, "test", None, None)
    assert {reading["age_years"] for reading in [*evaluated.test, *evaluated.training]} == {None}
    settings = TrainingSettings(data=str(old), output_dir=str(tmp_path), model="unread", batch_size=2)
    streamed = StreamedReadings(settings, [old, phantom_data], None, 0, 1)
    _, rows = next(streamed.batches(0))
    assert len(rows) == 2 and all(streamed[int(row)]["reading_id"] for row in rows)
    copy = edited_copy(old, tmp_path / "copy", {"train": lambda row, _: row}, "as it is")
    assert load_readings(copy, "train").features == FEATURES


def test_a_newer_corpus_is_one_sentence_at_every_door(newer: Path, tmp_path: Path) -> None:
    settings = TrainingSettings(data=str(newer), output_dir=str(tmp_path), model="unread", batch_size=2)
    doors = (
        lambda: load_readings(newer, "train"),
        lambda: StreamedReadings(settings, [newer], None, 0, 1),
        lambda: Corpus(newer).examples,
        lambda: EvaluatedCorpus.read(newer, "test", None, None),
        lambda: edited_copy(newer, tmp_path / "copy", {"train": lambda row, _: row}, "as it is"),
    )
    for door in doors:
        with pytest.raises(UserError, match=r"parquet: version 3 of the schema; expected 2 or older"):
            door()


def test_a_column_that_was_always_there_is_still_missed(phantom_data: Path, tmp_path: Path) -> None:
    broken = rewritten(phantom_data, tmp_path / "data", lambda table: table.drop_columns(["findings"]))
    for path in broken.glob("data/*.parquet"):
        pq.write_table(pq.read_table(path).replace_schema_metadata(None), path)
    with pytest.raises(UserError, match=r"lacks the column\(s\) findings"):
        load_readings(broken, "train")


def test_rows_without_an_image_are_for_those_who_need_none(phantom_data: Path, tmp_path: Path) -> None:
    def blind(table: Any) -> Any:
        nothing = pa.nulls(len(table), ARROW_SCHEMA.field("image").type)
        return table.set_column(table.column_names.index("image"), ARROW_SCHEMA.field("image"), nothing)

    folder = rewritten(phantom_data, tmp_path / "data", blind)
    assert load_readings(folder, "train", needs_images=False)[0]["image"] is None
    with pytest.raises(UserError, match="readings have no image; expected a corpus with images"):
        load_readings(folder, "train")
