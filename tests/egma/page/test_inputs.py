"""What the page takes from a person: within limits, and nothing of it changed on the way."""

import io
import json
import logging
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from dataset_scripts.ledger import Dropped
from dataset_scripts.schema import UserError, load_readings
from egma.page.inputs import (
    MAX_FINDINGS,
    MAX_PROMPTS,
    MAX_SENTENCE_CHARACTERS,
    MAX_SENTENCES,
    SHOWN_SIDE,
    Picture,
    open_picture,
    open_recording,
    picture_of,
    typed_prompts,
    typed_sentences,
)
from egma.page.safety import SILENT, silence_readers
from tests.egma.page.hostile import dicom, encoded, noise, write

DICOM = dicom(bytes(range(256)) * 16, 64, 64)
WIDE = Picture("wide", encoded(noise(200, 100), "PNG"), 200, 100)


def test_sentences_end_at_lines_and_full_stops() -> None:
    assert typed_sentences("The heart is large. No effusion\n\nlungs clear at 3.5 cm.\n --- ") == [
        "The heart is large.",
        "No effusion",
        "lungs clear at 3.5 cm.",
    ]


@given(st.text(max_size=2000))
def test_any_text_is_sentences_within_the_limits_or_refused(text: str) -> None:
    try:
        sentences = typed_sentences(text)
    except UserError:
        return
    assert 0 < len(sentences) <= MAX_SENTENCES
    assert all(0 < len(sentence) <= MAX_SENTENCE_CHARACTERS for sentence in sentences)
    assert all(character in text for sentence in sentences for character in sentence if not character.isspace())


def test_a_picture_of_16_bits_keeps_them_beside_the_8_that_are_shown(tmp_path: Path) -> None:
    values = np.random.default_rng(0).integers(0, 65536, (50, 70)).astype(np.uint16)
    values[0, :2] = 0, 65535
    path = write(tmp_path, "deep.png", encoded(Image.fromarray(values), "PNG"))
    depth = open_picture(path).depth
    assert depth is not None and (depth.low, depth.high) == (0, 255)
    halves = np.asarray(Image.open(io.BytesIO(depth.png))).astype(int)
    assert (256 * halves[..., 0] + halves[..., 1] == values).all()
    assert open_picture(write(tmp_path, "flat.png", encoded(noise(70, 50), "PNG"))).depth is None


def test_prompts_of_a_finding_a_line() -> None:
    text = "Pneumothorax: There is a pneumothorax. | a left one: apical \n\nNo effusion\n"
    assert typed_prompts(text) == {
        "Pneumothorax": ["There is a pneumothorax.", "a left one: apical"],
        "No effusion": ["No effusion"],
    }


@given(st.text(max_size=1000))
def test_any_text_is_prompts_within_the_limits_or_refused(text: str) -> None:
    try:
        prompts = typed_prompts(text)
    except UserError:
        return
    parts = [prompt for of_finding in prompts.values() for prompt in of_finding]
    assert 0 < len(prompts) <= MAX_FINDINGS and len(prompts) <= len(parts) <= MAX_PROMPTS
    assert all(0 < len(prompt) <= MAX_SENTENCE_CHARACTERS for prompt in parts)


@pytest.mark.parametrize("given", [{"path": "/etc/passwd"}, 3, ["a"]])
def test_text_is_text(given: Any) -> None:
    for read in (typed_sentences, typed_prompts):
        with pytest.raises(UserError, match="Expected text"):
            read(given)


# --- pictures ---


@pytest.mark.parametrize(("kind", "name"), [("PNG", "a.png"), ("JPEG", "a.jpg"), ("PNG", "a.dcm"), ("JPEG", "a")])
def test_a_picture_is_known_by_its_bytes(tmp_path: Path, kind: str, name: str) -> None:
    picture = open_picture(write(tmp_path, name, encoded(noise(90, 60), kind)))
    assert (picture.width, picture.height, picture.image.size, picture.image.mode) == (90, 60, (90, 60), "L")


def test_a_large_picture_is_shown_smaller_and_keeps_the_size_of_its_source(tmp_path: Path) -> None:
    picture = open_picture(write(tmp_path, "a.png", encoded(noise(3 * SHOWN_SIDE, 30), "PNG")))
    assert (picture.width, picture.height) == (3 * SHOWN_SIDE, 30)
    assert picture.image.size == (SHOWN_SIDE, 10)


def test_nothing_but_the_grey_values_of_a_dicom_file_is_kept(tmp_path: Path) -> None:
    picture = open_picture(write(tmp_path, "a.dcm", DICOM))
    assert np.asarray(picture.image).ravel().tolist() == list(range(256)) * 16
    assert b"SECRET" not in picture.png and picture.image.info == {}


def test_without_pydicom_it_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pydicom", None)
    with pytest.raises(UserError, match="pip install") as raised:
        open_picture(write(tmp_path, "a.dcm", DICOM))
    assert str(tmp_path) not in str(raised.value)


def test_what_a_picture_says_beside_its_pixels_is_gone(tmp_path: Path) -> None:
    image = noise()
    exif = image.getexif()
    exif[0x010E] = "SECRET"
    picture = open_picture(write(tmp_path, "a.jpg", encoded(image, "JPEG", exif=exif)))
    assert b"SECRET" not in picture.png


@pytest.mark.parametrize(
    ("name", "stem"), [("Case 7, left.png", "Case_7_left"), ("...png", "radiograph"), ("ÄÖ<b>.jpg", "b")]
)
def test_names_for_a_download_are_plain(tmp_path: Path, name: str, stem: str) -> None:
    assert open_picture(write(tmp_path, name, encoded(noise(), "PNG"))).name == stem


def test_real_pictures(real_data: Path) -> None:
    for path in (*sorted((real_data / "nih" / "images").iterdir())[:3], *sorted((real_data / "dicom").iterdir())):
        picture = open_picture(path)
        assert max(picture.image.size) <= SHOWN_SIDE and np.asarray(picture.image).std() > 10, path.name


def test_an_example_brings_the_frame_of_its_lungs(phantom_data: Path) -> None:
    for reading in load_readings(phantom_data, "train").select(range(10)):
        picture = picture_of(reading)
        chest = [box for box in reading["boxes"] if box["label"] == "Chest"]
        assert (picture.chest is not None) == bool(chest)
        assert np.array_equal(np.asarray(picture.image), np.asarray(reading["image"]))


# --- recordings ---


def recording(folder: Path, gaze: str, content: str, speech: str | None = None, said: str = "") -> Any:
    path = write(folder, gaze, content.encode())
    return open_recording(path, write(folder, speech, said.encode()) if speech else None, WIDE)


def test_a_reading_of_the_schema_as_json(tmp_path: Path, phantom_data: Path) -> None:
    row = next(row for row in load_readings(phantom_data, "train") if row["fixations"] and row["fixations"]["x"])
    content = {name: row[name] for name in ("fixations", "sentences")}
    found, notes, by_mouse = recording(tmp_path, "gaze.json", json.dumps(content))
    assert found.sentences == row["sentences"]
    assert found.fixations == row["fixations"]
    assert notes == [] and not by_mouse


def test_a_trackers_table_in_pixels_with_a_transcript(tmp_path: Path) -> None:
    table = "x_pixels,y_pixels,start_ms,duration_ms\n50,25,100,200\n300,25,400,200\n150,75,700,300\n"
    said = "WEBVTT\n\n00:00.000 --> 00:00.900\nThe heart is normal.\n"
    found, notes, _ = recording(tmp_path, "gaze.csv", table, "said.vtt", said)
    assert (found.fixations["x"], found.fixations["y"]) == ([0.25, 0.75], [0.25, 0.75])
    assert np.allclose(found.fixations["start"], [0.1, 0.7])
    assert found.sentences == [{"text": "The heart is normal.", "start_seconds": 0.0, "end_seconds": 0.9}]
    assert "1 of 3 fixations left out: outside image" in notes


def test_a_table_without_words_has_none(tmp_path: Path) -> None:
    found, *_ = recording(tmp_path, "gaze.csv", "x_fraction,y_fraction,start_s,duration_s\n0.2,0.3,0,1\n")
    assert found.sentences == []


GAZE = {"fixations": {"x": [0.5], "y": [0.5], "start": [0.0], "duration": [1.0]}}


@pytest.mark.parametrize("source", ["tracker/mouse", "phantom/tracker/mouse", "tracker/eyelink", None])
def test_a_recording_says_whether_a_mouse_made_it(tmp_path: Path, source: str | None) -> None:
    opened = recording(tmp_path, "gaze.json", json.dumps(GAZE | {"source": source}))
    assert opened.by_mouse == str(source).endswith("mouse")


@pytest.mark.parametrize("image_id", ["wide.dcm", "another picture", None, 3])
def test_a_recording_of_another_picture_is_noted(tmp_path: Path, image_id: Any) -> None:
    opened = recording(tmp_path, "gaze.json", json.dumps(GAZE | {"image_id": image_id}))
    said = [note for note in opened.notes if "another picture" in note]
    assert said == (
        ["the file says that it was recorded on another picture, another picture"]
        if image_id == "another picture"
        else []
    )


def test_columns_that_are_not_read_are_named(tmp_path: Path) -> None:
    table = "x_fraction,y_fraction,start_s,duration_s,pupil\n0.2,0.3,0,1,4\n"
    assert "gaze columns not read: pupil" in recording(tmp_path, "gaze.csv", table).notes


@pytest.mark.parametrize("said", ["WEBVTT\n\n00:xx --> 00:01\nhello\n", "WEBVTT\n\n00:00.000 --> 00:01.000\n...\n"])
def test_a_transcript_without_a_sentence_is_refused(tmp_path: Path, said: str) -> None:
    with pytest.raises(UserError, match=r"said\.vtt: no sentence can be read from it"):
        recording(tmp_path, "gaze.json", json.dumps(GAZE), "said.vtt", said)


def test_nothing_that_reads_a_picture_tells_the_log(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, recwarn: pytest.WarningsRecorder
) -> None:
    try:
        silence_readers()
        for content in (DICOM[:-2000], DICOM.replace(b"SECRET", b"SEC\\RET")[:-100]):
            with suppress(Dropped, UserError):
                open_picture(write(tmp_path, "SECRET.dcm", content))
        assert caplog.records == [] and list(recwarn) == []
    finally:
        logging.captureWarnings(False)
        for name in SILENT:
            logging.getLogger(name).propagate = True


@pytest.mark.parametrize("width", [{"sigma_x": [0.1]}, {"sigma_x": [0.0], "sigma_y": [0.1]}, {"x_min": [0.0]}])
def test_optional_columns_come_whole_or_not_at_all(tmp_path: Path, width: dict[str, list[float]]) -> None:
    columns = {"x": [0.5], "y": [0.5], "start": [0.0], "duration": [1.0]} | width
    with pytest.raises(UserError, match=r"expected all of|above 0"):
        recording(tmp_path, "gaze.json", json.dumps({"fixations": columns}))


BAD_FIXATIONS = json.dumps({"fixations": {"x": ["a"], "y": [0.5], "start": [0.0], "duration": [1.0]}})
BAD_SENTENCE = json.dumps(
    {"fixations": {"x": [0.5], "y": [0.5], "start": [0], "duration": [1]}, "sentences": [{"text": "a"}, {"text": 3}]}
)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("gaze.json", "", "gaze.json: expected JSON; it breaks at line 1, column 1"),
        ("gaze.json", '{"fixations":\n {"x": ', "gaze.json: expected JSON; it breaks at line 2, column 8"),
        ("gaze.json", "[" * 100_000, "gaze.json: expected JSON; it is nested 100,000 deep"),
        ("gaze.json", f"[{'1' * 5000}]", "gaze.json: expected JSON; a number has too many digits"),
        ("gaze.json", "[]", "gaze.json: it has no fixations; expected"),
        ("gaze.json", '{"fixations": {}}', "gaze.json: x is no list of numbers; expected"),
        ("gaze.json", f'{{"fixations": {{"x": [{"9" * 400}]}}}}', "gaze.json: x is no list of numbers; expected"),
        ("gaze.json", BAD_FIXATIONS, "gaze.json: x is no list of numbers; expected"),
        ("gaze.json", BAD_SENTENCE, "gaze.json: sentences is not as expected in entry 2; expected text"),
        ("gaze.csv", 'x,y,start,duration\n"1,2,3,4\n', "gaze.csv: expected a CSV table"),
        ("gaze.csv", "x,y,start,duration\n\0", "gaze.csv: holds a zero byte"),
    ],
)
def test_a_damaged_recording_is_told_in_words(tmp_path: Path, name: str, content: str, message: str) -> None:
    with pytest.raises(UserError) as raised:
        recording(tmp_path, name, content)
    said = str(raised.value)
    assert said.startswith(message)
    assert str(tmp_path) not in said and "Error" not in said and "NoneType" not in said


def test_a_picture_of_several_pages_is_refused_before_it_is_decoded(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    noise().save(buffer, "PNG", save_all=True, append_images=[noise()])
    with Image.open(buffer) as whole:
        assert whole.n_frames == 2
    cut = buffer.getvalue()[:200]  # nothing that could be decoded is left
    with pytest.raises(UserError, match="2 pages"):
        open_picture(write(tmp_path, "a.png", cut))


def test_text_that_is_not_utf_8_is_told(tmp_path: Path) -> None:
    content = json.dumps(GAZE | {"image_id": "Größe"}, ensure_ascii=False).encode("cp1252")
    (tmp_path / "gaze.json").write_bytes(content)
    opened = open_recording(tmp_path / "gaze.json", None, WIDE)
    assert "text read as cp1252" in opened.notes


def test_a_sentence_from_before_the_clock_is_named(tmp_path: Path) -> None:
    said = {"text": "heart", "start_seconds": -5.0, "end_seconds": -2.5}
    (tmp_path / "gaze.json").write_text(json.dumps(GAZE | {"sentences": [said]}))
    with pytest.raises(UserError, match="sentence 1 is said from -5 to"):
        open_recording(tmp_path / "gaze.json", None, WIDE)
