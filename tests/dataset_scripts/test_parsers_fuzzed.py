"""Whatever a file holds, a parser gives a result, a UserError or Dropped, and what it counted adds up."""

import contextlib
import csv
import io
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from dataset_scripts.corpora import egd_tables, reflacx_tables
from dataset_scripts.corpora.egd_fixations import KnownIds, read_fixations
from dataset_scripts.corpora.mimic_tree import image_row, study_ids
from dataset_scripts.files.paths import plain_name
from dataset_scripts.ledger import Dropped, Ledger
from dataset_scripts.schema import Fixations, UserError
from dataset_scripts.speech.clinical_reports import description
from dataset_scripts.speech.sentences import split_sentences, untimed_sentences
from tests.dataset_scripts import raw_trees as raw

CASES = settings(max_examples=150)
ODD_CELLS = (
    *("", " ", "0", "1", "-1", "True", "nan", "inf", "-inf", "1e999", "1e308", "-1e308", "1,5", "0x10", "1_0", "٣"),
    *("a\nb", '"', "../..", "x" * 300, "é" * 100, "/", ".", "\ufeff", "\u2028"),
)
cells = st.one_of(
    st.sampled_from(ODD_CELLS),
    st.integers(-500, 500).map(str),
    st.floats(-10, 500).map(str),
    st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"), max_size=8),
)
contents = st.one_of(st.binary(max_size=60), st.text(max_size=60).map(lambda text: text.encode(errors="replace")))


def table(columns: str) -> st.SearchStrategy[bytes]:
    """A table with these columns, rows of odd cells, some too short or too long, written as CSV."""
    names = columns.split(",")
    rows = st.lists(st.lists(cells, min_size=len(names) - 1, max_size=len(names) + 1), max_size=6)
    good = st.lists(st.lists(cells, min_size=len(names), max_size=len(names)), max_size=6)
    return st.builds(_as_csv, st.just(names), st.one_of(good, good, rows), st.sampled_from(["\n", "\r\n"]))


def _as_csv(names: list[str], rows: list[list[str]], line_end: str) -> bytes:
    buffer = io.StringIO()
    csv.writer(buffer, lineterminator=line_end).writerows([names, *rows])
    return buffer.getvalue().encode()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("fuzzed")


def parsed(parse: Callable[[Ledger], object]) -> None:
    """Parse; a ledger that was not thrown away with its reading must add up."""
    ledger = Ledger()
    try:
        parse(ledger)
    except (UserError, Dropped):
        return
    ledger.check()


def check_fixations(fixations: Fixations | None) -> None:
    if fixations is not None:
        x, y, start, duration = (np.array(fixations[name]) for name in ("x", "y", "start", "duration"))
        assert np.isfinite([x, y, start, duration]).all() and (duration > 0).all() and (np.diff(start) >= 0).all()
        assert ((x >= 0) & (x < 1) & (y >= 0) & (y < 1)).all()


# --- EGD ---


@CASES
@given(st.one_of(contents, table(raw.MASTER_HEADER)))
def test_master_sheet(folder, content):
    (folder / "master_sheet.csv").write_bytes(content)
    raw.write_lines(folder / "fixations.csv", [raw.EGD_FIXATION_HEADER])
    raw.write_lines(folder / "bounding_boxes.csv", ["dicom_id,bbox_name,x1,x2,y1,y2"])
    (folder / "eye_gaze.csv").unlink(missing_ok=True)

    def parse(ledger: Ledger) -> None:
        tables = egd_tables.read_tables(folder, egd_tables.read_master(folder, ledger), ledger)
        for row in egd_tables.source_rows(tables):
            study_ids(row.cells)
            outcome = egd_tables.convert_row(row, lambda inner, row=row: _fail_after_reading(row, folder, inner))
            ledger.merge(outcome.ledger)

    parsed(parse)


def _fail_after_reading(row: egd_tables.EgdRow, folder: Path, ledger: Ledger):
    check_fixations(egd_tables.read_recording(row, folder, (200, 400), ledger).fixations)
    ledger.check()
    raise Dropped("only_parsed")


egd_ids = st.sampled_from([raw.EGD_IMAGE, raw.EGD_IMAGE.upper(), raw.CALIBRATION_ID, ""])
egd_rows = st.lists(st.tuples(egd_ids, *[cells] * 10))


@CASES
@given(st.one_of(contents, table(raw.EGD_FIXATION_HEADER), egd_rows), st.booleans())
def test_egd_fixations_and_samples(folder, content, are_samples):
    if isinstance(content, list):
        content = _as_csv(raw.EGD_FIXATION_HEADER.split(","), [list(row) for row in content], "\n")
    for name in ("fixations.csv", "eye_gaze.csv"):
        (folder / name).unlink(missing_ok=True)
    (folder / ("eye_gaze.csv" if are_samples else "fixations.csv")).write_bytes(content)
    raw.write_lines(folder / "master_sheet.csv", ["dicom_id", raw.EGD_IMAGE])
    raw.write_lines(folder / "bounding_boxes.csv", ["dicom_id,bbox_name,x1,x2,y1,y2"])

    def parse(ledger: Ledger) -> None:
        tables = egd_tables.read_tables(folder, egd_tables.read_master(folder, ledger), ledger)
        (row,) = egd_tables.source_rows(tables)
        check_fixations(egd_tables.read_recording(row, folder, (200, 400), ledger).fixations)

    parsed(parse)


@CASES
@given(st.one_of(contents, table("dicom_id,bbox_name,x1,x2,y1,y2")))
def test_bounding_boxes(folder, content):
    raw.write_lines(folder / "master_sheet.csv", ["dicom_id", "1", "True"])
    raw.write_lines(folder / "fixations.csv", [raw.EGD_FIXATION_HEADER])
    (folder / "bounding_boxes.csv").write_bytes(content)

    def parse(ledger: Ledger) -> None:
        tables = egd_tables.read_tables(folder, egd_tables.read_master(folder, ledger), ledger)
        for row in egd_tables.source_rows(tables):
            for box in egd_tables.read_recording(row, folder, (200, 400), ledger).boxes:
                assert 0 <= box["x_min"] < box["x_max"] <= 1 and 0 <= box["y_min"] < box["y_max"] <= 1

    parsed(parse)


json_values = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=12)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.dictionaries(st.sampled_from(["phrase", "begin_time", "end_time", "other"]), inner, max_size=4),
    ),
    max_leaves=12,
)
transcripts = st.one_of(
    contents,
    st.builds(lambda value: json.dumps(value).encode(), json_values),
    st.builds(
        lambda text, phrases: json.dumps({"full_text": text, "time_stamped_text": phrases}).encode(),
        json_values,
        st.one_of(json_values, st.lists(json_values)),
    ),
)


@CASES
@given(transcripts)
@example(b"[" * 100_000)
@example(b'{"time_stamped_text": [{"phrase": "a.", "begin_time": 1e999, "end_time": NaN}]}')
def test_transcript(folder, content):
    path = folder / "audio_segmentation_transcripts" / raw.EGD_IMAGE / "transcript.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    row = egd_tables.EgdRow(1, raw.EGD_IMAGE, True, {"dicom_id": raw.EGD_IMAGE}, "fixations", None, [])

    def parse(ledger: Ledger) -> None:
        for sentence in egd_tables.read_recording(row, folder, (200, 400), ledger).sentences:
            times = sentence["start_seconds"], sentence["end_seconds"]
            assert times == (None, None) or times[0] <= times[1]

    parsed(parse)


# --- REFLACX ---


REFLACX_FILES = {
    "fixations.csv": raw.FIXATION_HEADER,
    "timestamps_transcription.csv": "word,timestamp_start_word,timestamp_end_word",
    "anomaly_location_ellipses.csv": raw.ELLIPSE_HEADER,
    "chest_bounding_box.csv": "xmin,ymin,xmax,ymax",
}


@pytest.mark.parametrize("name", sorted(REFLACX_FILES))
@CASES
@given(data=st.data())
def test_reflacx_files(folder, name, data):
    content = data.draw(st.one_of(contents, table(REFLACX_FILES[name])))
    reading = folder / "reading"
    reading.mkdir(exist_ok=True)
    for other in REFLACX_FILES:
        (reading / other).unlink(missing_ok=True)
    (reading / name).write_bytes(content)
    row = {"id": "reading", "image_size_x": "200", "image_size_y": "400"}

    def parse(ledger: Ledger) -> None:
        recording = reflacx_tables.read_recording(reading, row, ledger)
        check_fixations(recording.fixations)
        assert all(box["x_min"] < box["x_max"] for box in recording.boxes)

    parsed(parse)


@CASES
@given(st.one_of(contents, table(raw.REFLACX_HEADER)))
def test_reflacx_metadata(folder, content):
    (folder / "metadata.csv").write_bytes(content)
    (folder / "empty").mkdir(exist_ok=True)
    try:
        rows = reflacx_tables.read_metadata(folder / "metadata.csv", Ledger(), "metadata")
    except UserError:
        return
    for row in rows:
        parsed(lambda ledger, row=row: reflacx_tables.reading_folder(folder, row))
        parsed(lambda ledger, row=row: reflacx_tables.read_recording(folder / "empty", row, ledger))
        study_ids(row)


# --- MIMIC-CXR ---


@CASES
@given(st.lists(cells, min_size=4, max_size=4), cells)
def test_metadata_cells(values, name):
    row = dict(zip(("subject_id", "study_id", "Rows", "Columns"), values, strict=True)) | {"ViewPosition": name}
    found = image_row(row)
    assert all(side is None or 1 <= side <= 100_000 for side in (found.width, found.height))
    with contextlib.suppress(Dropped):
        assert (Path("folder") / plain_name(name)).name not in ("", "folder")


report_parts = st.sampled_from(
    [
        " FINDINGS:",
        " IMPRESSION:\n",
        "\n",
        "\n\n",
        " ______________\n",
        "___",
        " A. b",
        " COMPARISON: x",
        "\r\n",
        " ADDENDUM",
    ]
)


@CASES
@given(st.one_of(st.text(max_size=200), st.lists(report_parts, max_size=12).map("".join)))
def test_report_sections(report):
    found = description(report)
    assert bool(found.text) == (found.section != "nothing")
    plain = "".join(report.split())
    for sentence in untimed_sentences(found.text):
        assert "".join(sentence["text"].split()) in plain


@CASES
@given(st.text(max_size=120))
def test_splitting_loses_no_word(text):
    words = [word for word in text.split() if any(character.isalnum() for character in word)]
    kept = " ".join(split_sentences(text))
    assert all(word in "".join(kept.split()) for word in ("".join(word.split()) for word in words))


def test_truncated_ids_by_a_plain_search():
    """Against counting prefixes one by one."""
    ids = {"a" * 43 + str(digit) for digit in range(3)} | {"b" * 44}
    known = KnownIds(ids)
    for image_id in ("a" * 39, "a" * 43 + "1", "b" * 39, "c", "", "b" * 45, "b"):
        begun = sum(name.startswith(image_id) for name in ids)
        names = {0: "id_not_in_master_sheet", 1: "truncated_id"}
        expected = names.get(begun, "ambiguous_truncated_id") if 0 < len(image_id) < 44 else names[0]
        assert known.problem(image_id) == (None if image_id in ids else expected)
    with pytest.raises(UserError):
        read_fixations(Path("no-such-folder"), known, Ledger())
