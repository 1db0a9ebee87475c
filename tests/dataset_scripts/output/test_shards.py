"""Ranges of units: the same corpus whoever converted them, in whatever order, how often, and on how many machines."""

import json
import multiprocessing
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dataset_scripts import build
from dataset_scripts.corpora import image_text
from dataset_scripts.output import writer
from dataset_scripts.output.processes import ordered_map
from dataset_scripts.plan import Options, Plan
from dataset_scripts.schema import UserError, load_readings
from tests.dataset_scripts.raw_trees import grey_picture, image_text_folder
from tests.dataset_scripts.test_build import files

ROWS, LOST = 23, (3, 4, 5, 20)  # 3 to 5 are a range
RANGES = 8


@pytest.fixture(autouse=True)
def small_ranges(monkeypatch):
    for name, value in {"ROWS_PER_GROUP": 2, "ROWS_PER_SHARD": 5, "FEWEST_UNITS": 3}.items():
        monkeypatch.setattr(writer, name, value)


@pytest.fixture
def source(tmp_path):
    lines = ["file_name,text,patient_id", *(f"{n}.png,Clear {n}.,{n // 2}" for n in range(ROWS))]
    pictures = {f"{n}.png": grey_picture(20, 10) for n in range(ROWS) if n not in LOST}
    return image_text_folder(tmp_path / "raw", lines, pictures)


@pytest.fixture
def whole(source, tmp_path):
    assert run(source, tmp_path / "whole") == 0
    return files(tmp_path / "whole")


def run(source, output, *more):
    return build.main(["image_text", "--source", str(source), "--output", str(output), "--image-size", "16", *more])


def test_rows_come_in_the_order_of_the_units(source, tmp_path, whole):
    plan = image_text.plan(source, Options(image_size=16, seed=0, generated=False))
    expected: dict[str, list[str]] = {}
    for outcome in (outcome for unit in plan.units for outcome in plan.convert(unit)):
        if outcome.reading is not None:
            expected.setdefault(outcome.reading[0], []).append(outcome.reading[1]["reading_id"])
    assert sum(map(len, expected.values())) == ROWS - len(LOST) and len(expected) == 3
    for split, ids in expected.items():
        assert load_readings(tmp_path / "whole", split)["reading_id"][:] == ids


@pytest.mark.parametrize("order", [[(1, 1)], [(3, 3), (1, 3), (2, 3)], [(n, 11) for n in range(11, 0, -1)]])
def test_merged_shards_are_the_bytes_of_one_conversion(source, tmp_path, whole, order, capsys):
    for number, count in order:
        assert run(source, tmp_path / "out", "--shard", f"{number}/{count}") == 0
        assert f"ranges of shard {number}/{count} are there" in capsys.readouterr().out
        assert not (tmp_path / "out").exists()
    assert run(source, tmp_path / "out", "--merge") == 0
    assert files(tmp_path / "out") == whole
    assert not (tmp_path / ".out.partial").exists()


def test_shards_and_a_whole_conversion_go_on_with_each_other(source, tmp_path, whole, capsys):
    assert run(source, tmp_path / "out", "--shard", "1/4") == 0
    assert run(source, tmp_path / "out", "--shard", "1/4") == 0
    assert "going on: 2 of 2 ranges" in capsys.readouterr().err
    assert run(source, tmp_path / "out", "--num-proc", "2") == 0
    assert f"going on: 2 of {RANGES} ranges" in capsys.readouterr().err
    assert files(tmp_path / "out") == whole


def test_merge_names_the_shards_that_are_missing(source, tmp_path, whole, capsys):
    assert run(source, tmp_path / "out", "--merge") == 2
    assert f"{RANGES} of {RANGES} ranges are missing, which are in shard 1 of 1" in capsys.readouterr().err
    assert not (tmp_path / ".out.partial").exists()
    for shard in ("2/4", "1/3"):  # ranges 1 and 5; 0, 3 and 6
        assert run(source, tmp_path / "out", "--shard", shard) == 0
    assert run(source, tmp_path / "out", "--merge") == 2
    wanted = f"{tmp_path / 'out'}: 3 of {RANGES} ranges are missing, which are in shard 2, 3 of 3 or 1, 3, 4 of 4"
    assert wanted in capsys.readouterr().err
    for number in (2, 3):
        assert run(source, tmp_path / "out", "--shard", f"{number}/3") == 0
    assert run(source, tmp_path / "out", "--merge") == 0
    assert files(tmp_path / "out") == whole


def test_loss_is_counted_over_the_whole_at_the_merge(source, tmp_path, whole, capsys):
    for number in range(1, RANGES + 1):  # the second loses all
        assert run(source, tmp_path / "out", "--shard", f"{number}/{RANGES}", "--max-loss", "0") == 0
    assert run(source, tmp_path / "out", "--merge", "--max-loss", "0.1") == 2
    said = capsys.readouterr()
    kept = tmp_path / ".out.partial" / "output" / "conversion_report.json"
    assert f"4 of {ROWS} readings are lost" in said.err and str(kept) in said.err
    assert "4 image_missing, first" in said.out
    assert json.loads(kept.read_text()) == json.loads(whole[Path("conversion_report.json")])
    assert run(source, tmp_path / "out", "--merge") == 0
    assert files(tmp_path / "out") == whole


@pytest.mark.parametrize("pattern", ["*/conversion.json", "*/.out.partial/00004.*"])
def test_two_starts_of_one_shard_are_harmless(source, tmp_path, whole, monkeypatch, pattern):
    real, starts = writer._to_disk, []

    def second_start(path):
        if not starts and path.match(pattern):  # the first is about to put this into its place
            starts.append(path)
            assert run(source, tmp_path / "out", "--shard", "1/2") == 0
        real(path)

    monkeypatch.setattr(writer, "_to_disk", second_start)
    assert run(source, tmp_path / "out", "--shard", "1/2") == 0
    left = {path.name for path in (tmp_path / ".out.partial").iterdir()}
    assert len(starts) == 1 and left == {"conversion.json", "shards-of-2", "00000", "00002", "00004", "00006"}
    assert run(source, tmp_path / "out", "--shard", "2/2") == 0
    assert run(source, tmp_path / "out", "--merge") == 0
    assert files(tmp_path / "out") == whole


def test_shards_of_another_conversion_are_refused(source, tmp_path, capsys):
    assert run(source, tmp_path / "out", "--shard", "1/2") == 0
    assert run(source, tmp_path / "out", "--shard", "2/2", "--seed", "1") == 2
    assert "an interrupted conversion with another seed" in capsys.readouterr().err
    deep = source / "a" / "b" / "c" / "d"
    deep.mkdir(parents=True)
    (deep / "new.txt").write_text("")
    for shard in ("1/2", "2/2"):
        assert run(source, tmp_path / "out", "--shard", shard) == 0
    assert run(source, tmp_path / "out", "--merge") == 2
    assert "new.txt: written after the conversion began" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("more", "message"),
    [
        *((["--shard", text], f"--shard: expected I/N with I from 1 to N, got {text}") for text in ("0/3", "4/3", "2")),
        *(
            (["--shard", text], f"--shard: expected I/N with I from 1 to N, got {text}")
            for text in ("1/0", "a/b", "1/")
        ),
        (["--shard", "1/2", "--merge"], "--merge: not allowed with argument --shard"),
        (["--shard", "1/2", "--limit", "3"], "--limit and --push-to-hub are for a whole conversion"),
        (["--shard", "1/2", "--push-to-hub", "a/b"], "--limit and --push-to-hub are for a whole conversion"),
    ],
)
def test_wrong_shards_are_refused_in_a_sentence(source, tmp_path, capsys, more, message):
    assert run(source, tmp_path / "out", *more) == 2
    assert message in capsys.readouterr().err and [path.name for path in tmp_path.iterdir()] == ["raw"]


@given(st.integers(0, 3_000))
def test_ranges_are_the_units_cut_at_places_that_only_their_number_decides(count):
    plan = Plan(range(count), lambda unit: [], "units", (), "")
    jobs = [writer.range_job(plan, Path("nowhere"), place, None) for place in writer.places(plan)]
    assert [unit for job in jobs for unit in job.units] == list(range(count))
    assert all(job.units for job in jobs) and len({job.folder for job in jobs}) == len(jobs)


def test_large_corpora_have_larger_ranges(monkeypatch):
    monkeypatch.setattr(writer, "FEWEST_UNITS", 8)
    assert [writer.units_per_range(units) for units in (0, 600, 4_115, 377_110)] == [8, 8, 16, 128]


def test_a_range_that_is_there_is_left_alone(tmp_path):
    for text in ("first", "second"):
        with writer.in_place(tmp_path / "00000") as new:
            (new / "text").write_text(text)
    assert (tmp_path / "00000" / "text").read_text() == "first"
    assert [path.name for path in tmp_path.iterdir()] == ["00000"]
    assert writer.write_range(writer.RangeJob(tmp_path / "00000", _breaks, [1], None)) == tmp_path / "00000"
    with pytest.raises(UserError, match=r"ledger\.json: missing or damaged"):
        writer.read_range(tmp_path / "00000")


def _breaks(unit):
    raise AssertionError(unit)


def _name(number):
    time.sleep(0.02)
    return number, multiprocessing.current_process().name


def test_every_process_has_its_part_and_the_order_stays():
    numbers, names = zip(*ordered_map(_name, range(400), 3), strict=True)
    assert list(numbers) == list(range(400))
    assert len(set(names)) == 3 and multiprocessing.current_process().name in names


def _stuck_in_another_process(number):
    if multiprocessing.parent_process() is not None:
        time.sleep(300)
    raise RuntimeError(number)


def test_processes_that_nobody_waits_for_are_stopped():
    begin = time.monotonic()
    with pytest.raises(RuntimeError, match="2"):
        list(ordered_map(_stuck_in_another_process, range(5), 2))
    assert time.monotonic() - begin < 100
