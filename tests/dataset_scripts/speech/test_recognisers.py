"""What programs for speech recognition leave out: the last end, full stops, segments."""

import json

import pytest

from dataset_scripts.ledger import Ledger
from dataset_scripts.speech.transcripts import PART_TABLE, read_transcript

PHRASES = [("the heart is normal", 0.5, 2.0), ("no effusion", 2.0, None)]


def said(tmp_path, value):
    (tmp_path / "a.json").write_text(json.dumps(value))
    ledger = Ledger()
    sentences = read_transcript(tmp_path / "a.json", 0.0, ledger)
    ledger.check()
    return [tuple(sentence.values()) for sentence in sentences], ledger


def chunks(parts):
    return [{"text": f" {text}", "timestamp": [start, end]} for text, start, end in parts]


def test_the_recordings_end_is_that_of_the_last_chunk(tmp_path):
    found, ledger = said(tmp_path, {"chunks": chunks(PHRASES), "duration": 3.5})
    assert found == [("the heart is normal", 0.5, 2.0), ("no effusion", 2.0, 3.5)] and not ledger.notes


def test_without_it_the_last_chunk_lasts_as_the_others_do(tmp_path):
    """1.5 s for four words, so 0.75 s for two: whoever said it, the sentence and its start are not lost."""
    found, ledger = said(tmp_path, {"text": "the heart is normal no effusion", "chunks": chunks(PHRASES)})
    assert found == [("the heart is normal", 0.5, 2.0), ("no effusion", 2.0, pytest.approx(2.75))]
    assert ledger.notes["last_end_is_missing"].first == ["a.json: taken as 2.75 s, by the pace of the others"]


def test_a_last_word_without_end(tmp_path):
    words = [("No", 1.0, 1.4), ("effusion.", 1.5, None)]
    assert said(tmp_path, {"chunks": chunks(words)})[0] == [("No effusion.", 1.0, pytest.approx(1.9))]


def test_a_lone_chunk_without_end_is_left_untimed(tmp_path):
    found, ledger = said(tmp_path, {"chunks": chunks([("No effusion.", 1.0, None)])})
    assert found == [("No effusion.", None, None)] and "transcript_without_times" in ledger.notes


def test_an_end_that_is_missing_on_the_way_is_the_next_start(tmp_path):
    parts = [("No effusion.", 0.0, None), ("Clear.", 1.5, 2.0)]
    assert said(tmp_path, {"chunks": chunks(parts)})[0] == [("No effusion.", 0.0, 1.5), ("Clear.", 1.5, 2.0)]


@pytest.mark.parametrize("shape", ["chunks", "segments"])
def test_phrases_without_any_full_stop_are_the_sentences(tmp_path, shape):
    parts = [("the heart is normal", 0.5, 2.0), ("no effusion", 2.5, 3.5), ("[BLANK_AUDIO]", 4.0, 5.0)]
    segments = [{"text": f" {text}", "start": start, "end": end} for text, start, end in parts]
    found, ledger = said(tmp_path, {shape: chunks(parts) if shape == "chunks" else segments})
    assert found == parts[:2] and ledger.tables[PART_TABLE].dropped["nobody_said_it"].count == 1


def test_words_without_any_full_stop_are_one_sentence(tmp_path):
    words = [("no", 0.5, 0.75), ("effusion", 1.0, 1.5)]
    assert said(tmp_path, {"chunks": chunks(words)})[0] == [("no effusion", 0.5, 1.5)]


WORDS = [("The", 0.5, 0.75), ("heart", 0.75, 1.25), ("is", 1.25, 1.5), ("normal", 1.5, 2.0), ("No", 3.0, 3.25),
         ("effusion", 3.25, 4.0)]  # fmt: skip


def test_words_without_segments_take_the_full_stops_of_the_text(tmp_path):
    """As the API of Whisper has them: the words without marks, the text with them."""
    words = [{"word": word, "start": start, "end": end} for word, start, end in WORDS]
    found, ledger = said(tmp_path, {"task": "transcribe", "text": "The heart is normal. No effusion!", "words": words})
    assert found == [("The heart is normal.", 0.5, 2.0), ("No effusion!", 3.0, 4.0)] and not ledger.notes


def test_a_text_of_other_words_is_noted_and_the_words_are_taken(tmp_path):
    words = [{"word": word, "start": start, "end": end} for word, start, end in WORDS]
    found, ledger = said(tmp_path, {"text": "The heart is large. No effusion!", "words": words})
    assert found == [("The heart is normal No effusion", 0.5, 4.0)]
    assert "text_differs_from_its_timed_words" in ledger.notes


def test_a_list_of_words_alone(tmp_path):
    words = [{"word": f" {word}", "start": start, "end": end} for word, start, end in WORDS]
    words[3]["word"] = " normal."
    assert said(tmp_path, words)[0] == [("The heart is normal.", 0.5, 2.0), ("No effusion", 3.0, 4.0)]
