"""The command line and the output folder, for any corpus."""

import json
import multiprocessing
import os
import signal
import time

import pyarrow.parquet as pq
import pytest
from datasets import load_dataset
from huggingface_hub import DatasetCard

from dataset_scripts import build
from dataset_scripts.corpora.splits import hashed_split
from dataset_scripts.ledger import Dropped, Impossible, Ledger
from dataset_scripts.output.processes import ordered_map
from dataset_scripts.phantom import write_phantom
from dataset_scripts.plan import attempt
from dataset_scripts.schema import FEATURES, UserError
from tests.dataset_scripts.raw_trees import grey_picture, image_text_folder, mimic_eye_tree


def arguments(corpus, source, output, *more):
    return [corpus, "--source", str(source), "--output", str(output), "--image-size", "64", *more]


def files(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def pairs(tmp_path):
    names = [f"{n}.png" for n in range(12)]
    lines = ["file_name,text,patient_id", *(f"{name},Clear {name}.,{name}" for name in names)]
    return image_text_folder(tmp_path / "raw", lines, {name: grey_picture(90, 70) for name in names})


def test_plain_load_dataset_opens_it(tmp_path):
    source, output = mimic_eye_tree(tmp_path / "raw"), tmp_path / "out"
    assert build.main(arguments("mimic_eye", source, output, "--max-loss", "1")) == 0
    rows = load_dataset(str(output))
    assert set(rows) == {"validation"} and rows["validation"].features == FEATURES
    assert rows["validation"][0]["image"].size == (32, 64)
    streamed = load_dataset(str(output), split="validation", streaming=True)
    assert next(iter(streamed))["reading_id"] == rows["validation"][0]["reading_id"]


def test_number_of_processes_changes_no_byte(tmp_path):
    source = mimic_eye_tree(tmp_path / "raw")
    for num_proc in ("1", "2"):
        assert (
            build.main(arguments("mimic_eye", source, tmp_path / num_proc, "--num-proc", num_proc, "--max-loss", "1"))
            == 0
        )
    assert files(tmp_path / "1") == files(tmp_path / "2")


def test_source_is_only_read(pairs, tmp_path):
    before = files(pairs)
    assert build.main(arguments("image_text", pairs, tmp_path / "out")) == 0
    assert files(pairs) == before


def test_shards_are_numbered_and_hold_every_row(pairs, tmp_path, monkeypatch):
    monkeypatch.setattr("dataset_scripts.output.writer.ROWS_PER_GROUP", 1)
    monkeypatch.setattr("dataset_scripts.output.writer.ROWS_PER_SHARD", 2)
    assert build.main(arguments("image_text", pairs, tmp_path / "out")) == 0
    report = json.loads((tmp_path / "out" / "conversion_report.json").read_text())
    for split, counts in report["splits"].items():
        shards = sorted((tmp_path / "out" / "data").glob(f"{split}-*.parquet"))
        count = (counts["readings"] + 1) // 2
        assert [path.name for path in shards] == [f"{split}-{n:05d}-of-{count:05d}.parquet" for n in range(count)]
        assert sum(pq.read_metadata(path).num_rows for path in shards) == counts["readings"]


def test_limit_stops_after_so_many_readings(pairs, tmp_path):
    assert build.main(arguments("image_text", pairs, tmp_path / "out", "--limit", "5")) == 0
    report = json.loads((tmp_path / "out" / "conversion_report.json").read_text())
    assert report["readings"]["rows_kept"] == 5 == sum(counts["readings"] for counts in report["splits"].values())
    assert report["limit"] == 5


def test_a_limit_takes_all_splits_in_turn(tmp_path):
    """The test readings come last in the table, as a public corpus has them."""
    lines = ["file_name,text,split", *(f"{n}.png,x,{'train' if n < 20 else 'test'}" for n in range(22))]
    source = image_text_folder(tmp_path / "raw", lines, {f"{n}.png": grey_picture(4, 4) for n in range(22)})
    for limit, counts in ((4, {"train": 2, "test": 2}), (8, {"train": 6, "test": 2}), (30, {"train": 20, "test": 2})):
        output = tmp_path / f"out-{limit}"
        assert build.main(arguments("image_text", source, output, "--limit", str(limit))) == 0
        report = json.loads((output / "conversion_report.json").read_text())
        assert {split: found["readings"] for split, found in report["splits"].items()} == counts
    whole = tmp_path / "whole"
    assert build.main(arguments("image_text", source, whole)) == 0
    assert {path.name for path in (whole / "data").iterdir()} >= {path.name for path in (output / "data").iterdir()}


def test_existing_output_is_not_touched(pairs, tmp_path, capsys):
    (tmp_path / "out").mkdir()
    assert build.main(arguments("image_text", pairs, tmp_path / "out")) == 0  # empty: fine
    before = files(tmp_path / "out")
    assert build.main(arguments("image_text", pairs, tmp_path / "out")) == 2
    assert "exists already" in capsys.readouterr().err
    assert files(tmp_path / "out") == before


def test_nothing_appears_when_the_conversion_breaks(pairs, tmp_path, monkeypatch):
    def broken(*_):
        raise RuntimeError("power cut")

    monkeypatch.setattr(build, "dataset_card", broken)
    with pytest.raises(RuntimeError, match="power cut"):
        build.main(arguments("image_text", pairs, tmp_path / "out"))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({0: "nonsense"}, "unknown corpus 'nonsense'; expected one of "),
        ({0: "phantom"}, "python -m dataset_scripts.phantom"),
        ({2: "no/such/folder"}, "no such folder"),
        ({6: "0"}, "at least 1"),
        ({6: "big"}, "--image-size: expected a whole number of at least 1, got big"),
        ({5: "--max-loss", 6: "2"}, "--max-loss: expected a share from 0 to 1, got 2"),
        ({5: "--max-loss", 6: "nan"}, "--max-loss: expected a share from 0 to 1, got nan"),
        ({5: "--size"}, "unrecognized arguments"),
    ],
)
def test_wrong_arguments_exit_with_2(pairs, tmp_path, capsys, change, message):
    argv = arguments("image_text", pairs, tmp_path / "out")
    for position, value in change.items():
        argv[position] = value
    assert build.main(argv) == 2
    assert message in capsys.readouterr().err


def test_output_inside_the_source_is_refused(pairs, capsys):
    assert build.main(arguments("image_text", pairs, pairs / "out")) == 2
    assert "lies in the source folder" in capsys.readouterr().err
    assert not (pairs / "out").exists()


def test_card_says_what_is_true(pairs, tmp_path):
    assert build.main(arguments("image_text", pairs, tmp_path / "out")) == 0
    data = DatasetCard.load(tmp_path / "out" / "README.md").data
    assert data.pretty_name == "image_text, converted for EGMA"
    assert data.task_categories == ["image-to-text"] and data.size_categories == "n<1K"
    assert data.tags == ["medical", "radiology", "chest-x-ray"]  # no gaze, not generated
    report = json.loads((tmp_path / "out" / "conversion_report.json").read_text())
    assert [file["split"] for file in data.configs[0]["data_files"]] == list(report["splits"])


def test_images_and_patients_are_counted_once(tmp_path):
    lines = [
        "file_name,text,patient_id,split",
        *(f"{n[0]}.png,Clear.,{n[1:]},train" for n in ("aA", "aA", "bA", "c", "dB")),
    ]
    source = image_text_folder(tmp_path / "raw", lines, {f"{name}.png": grey_picture(9, 9) for name in "abcd"})
    report = build.build("image_text", source, tmp_path / "out", image_size=64)
    assert (report["splits"]["train"]["images"], report["splits"]["train"]["patients"]) == (4, 3)


def _killed_from_three_on(number):
    if number >= 3 and multiprocessing.parent_process() is not None:
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(0.05)
    return 10 * number


def test_process_that_is_killed_stops_the_conversion_and_does_not_hang_it():
    results = ordered_map(_killed_from_three_on, range(1_000), 2)
    with pytest.raises(UserError, match="was killed"):
        list(results)


def test_missing_package_stops_the_conversion_not_the_row():
    def fails(ledger):
        raise Impossible("install it")

    with pytest.raises(Impossible, match="install it"):
        attempt("table", "row 1", fails)


def test_ledger_survives_json():
    ledger = Ledger()
    ledger.enter("table", 5)
    ledger.keep("table", 2)
    ledger.drop("table", "reason", ["a", "b", "c"])
    ledger.note("seen", "here")
    again = Ledger.from_dict(json.loads(json.dumps(ledger.as_dict())))
    assert again == ledger
    again.check()


def test_ledger_refuses_rows_that_are_unaccounted_for():
    ledger = Ledger()
    ledger.enter("table", 2)
    ledger.keep("table", 1)
    with pytest.raises(RuntimeError, match="2 rows in, 1 kept"):
        ledger.check()


def test_first_five_offenders_are_named():
    ledger = Ledger()
    for number in range(7):
        ledger.drop("table", "reason", [str(number)])
    assert ledger.as_dict()["tables"]["table"]["dropped"]["reason"] == {"count": 7, "first": ["0", "1", "2", "3", "4"]}


def test_dropped_row_forgets_what_was_counted_on_the_way():
    def fails(ledger):
        ledger.enter("other", 3)
        raise Dropped("reason", "detail")

    tables = attempt("table", "row 1", fails).ledger.as_dict()["tables"]
    assert set(tables) == {"table"} and tables["table"]["dropped"]["reason"]["first"] == ["row 1 (detail)"]


def test_hashed_split_is_fixed_and_near_its_fractions():
    splits = [hashed_split(str(patient), 0, 0.8, 0.1) for patient in range(2000)]
    assert splits == [hashed_split(str(patient), 0, 0.8, 0.1) for patient in range(2000)]
    assert abs(splits.count("train") / 2000 - 0.8) < 0.03 and abs(splits.count("test") / 2000 - 0.1) < 0.02


def test_the_one_version_folder_that_would_do_is_named(pairs, tmp_path, capsys):
    inner = tmp_path / "physionet" / "2.0.0"
    inner.parent.mkdir()
    pairs.rename(inner)
    assert build.main(arguments("image_text", inner.parent, tmp_path / "out")) == 2
    assert f"; you mean --source {inner}\n" in capsys.readouterr().err
    assert build.main(arguments("image_text", inner, tmp_path / "out")) == 0
    capsys.readouterr()
    (inner.parent / "1.0.0").mkdir()  # now it may be either
    assert build.main(arguments("image_text", inner.parent, tmp_path / "out2")) == 2
    assert "you mean" not in capsys.readouterr().err
    (inner.parent / "1.0.0").rmdir()
    assert build.main(arguments("nih", inner.parent, tmp_path / "out2")) == 2  # nor does it hold this corpus
    assert "you mean" not in capsys.readouterr().err


def test_the_version_folders_of_source_and_images_are_named(tmp_path, capsys):
    raw = write_phantom(tmp_path / "raw", 12, 0, layout="all")
    source, images = raw / "egd-cxr", raw / "mimic-cxr-jpg"
    argv = arguments("egd", source, tmp_path / "out", "--images", str(images))
    assert build.main(argv) == 2
    assert f"; you mean --source {source}/1.0.0 --images {images}/2.0.0\n" in capsys.readouterr().err
    assert build.main(arguments("egd", source / "1.0.0", tmp_path / "out", "--images", str(images))) == 2
    assert f"; you mean --images {images}/2.0.0\n" in capsys.readouterr().err
