"""Pieces of JSON transcripts: what stands between them, when they were said, and what nobody said."""

import json

import pytest

from dataset_scripts.report import Ledger
from dataset_scripts.transcripts import PART_TABLE, read_transcript

WORDS = [(" Follow", 0.0, 0.5), ("-up", 0.5, 0.75), (" 2", 1.0, 1.25), (".5", 1.25, 1.5), (" cm", 1.5, 1.75),
         (" x", 2.0, 2.25), ("-ray", 2.25, 2.5), (",", 2.5, 2.5), (" isn", 3.0, 3.25), ("'t", 3.25, 3.5),
         (" 5", 4.0, 4.25), ("%", 4.25, 4.5), (".", 4.5, 4.75), (" Next", 5.0, 5.5), (".", 5.5, 5.75)]  # fmt: skip
SAID = "".join(word for word, _, _ in WORDS)
SENTENCES = [("Follow-up 2.5 cm x-ray, isn't 5%.", 0.0, 4.5), ("Next.", 5.0, 5.5)]


def whisper_words(words, key="word"):
    return [{key: word, "start": start, "end": end} for word, start, end in words]


def chunks(words):
    return [{"text": word, "timestamp": [start, end]} for word, start, end in words]


def offsets(words):
    return [{"text": text, "offsets": {"from": start * 1000, "to": end * 1000}} for text, start, end in words]


def read(tmp_path, content, name="a.json"):
    path = tmp_path / name
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    ledger = Ledger()
    sentences = read_transcript(path, 0.0, ledger)
    ledger.check()
    return [tuple(sentence.values()) for sentence in sentences], ledger


FILES = {
    "words": {"segments": [{"start": 0, "end": 6, "text": SAID, "words": whisper_words(WORDS)}]},
    "words_without_segment_text": {"segments": [{"start": 0, "end": 6, "words": whisper_words(WORDS)}]},
    "stripped_words": {
        "segments": [{"text": SAID, "words": whisper_words([(w.strip(), s, e) for w, s, e in WORDS])}], "text": SAID,
    },
    "word_chunks": {"text": SAID, "chunks": chunks(WORDS)},
    "word_chunks_without_text": {"chunks": chunks(WORDS)},
    "stripped_word_chunks": {"text": SAID, "chunks": chunks([(w.strip(), s, e) for w, s, e in WORDS])},
    "pieces_of_whisper_cpp": {"transcription": offsets(WORDS)},
    "tokens_of_whisper_cpp": {
        "transcription": [{"text": SAID, "offsets": {"from": 0, "to": 6000}, "tokens": offsets(
            [("[_BEG_]", 0, 0), *WORDS, ("[_TT_300]", 6, 6)])}],
    },
    "characters": {"text": SAID, "chunks": chunks([(c, s, e) for w, s, e in WORDS for c in w])},
}  # fmt: skip


@pytest.mark.parametrize("name", FILES)
def test_pieces_of_words_stand_as_in_the_text(tmp_path, name):
    sentences, ledger = read(tmp_path, FILES[name])
    assert sentences == SENTENCES and not ledger.notes


def test_corrected_segment_text_wins_and_is_noted(tmp_path):
    segments = [{"start": 0.5, "end": 6, "text": " Corrected. Next.", "words": whisper_words(WORDS)},
                {"start": 7, "end": 9, "text": " Fine.", "words": whisper_words([(" Fine.", 7.5, 8.0)])}]  # fmt: skip
    sentences, ledger = read(tmp_path, {"segments": segments})
    assert sentences == [("Corrected.", 0.5, 6.0), ("Next.", 0.5, 6.0), ("Fine.", 7.5, 8.0)]
    assert ledger.notes["text_differs_from_its_timed_words"].first == ["a.json: Corrected. Next."]


def test_other_whole_text_is_noted_and_the_parts_are_taken(tmp_path):
    sentences, ledger = read(tmp_path, {"text": "Something else.", "chunks": chunks(WORDS)})
    assert sentences == SENTENCES and ledger.notes["text_differs_from_its_timed_words"].count == 1


def test_numbers_that_whisperx_does_not_time_take_their_neighbours_times(tmp_path):
    words = [("Nodules", 1, 2), ("2.5", None, None), ("cm.", 3, 3.5), ("There", 4, 4.5), ("are", 4.5, 5),
             ("3.", None, None), ("6", None, None), ("months.", 7, 8)]  # fmt: skip
    text = " ".join(word for word, _, _ in words)
    sentences, ledger = read(
        tmp_path, {"segments": [{"start": 0, "end": 9, "text": text, "words": whisper_words(words)}]}
    )
    assert sentences == [("Nodules 2.5 cm.", 1, 3.5), ("There are 3.", 4, 7), ("6 months.", 5, 8)]
    assert not ledger.notes


def test_chunk_without_its_end_ends_where_the_next_begins(tmp_path):
    content = {"chunks": [{"text": " Clear.", "timestamp": [0, None]}, {"text": " Fine.", "timestamp": [2, 3]}]}
    assert read(tmp_path, content)[0] == [("Clear.", 0, 2), ("Fine.", 2, 3)]


@pytest.mark.parametrize(
    "unsaid",
    ["[BLANK_AUDIO]", "(clicking)", "[MUSIC]", "♪", "♪♪♪", "♪ music playing ♪", "[ Silence ]", "*coughs*", "[cough]",
     "(clears throat)", "(breathing, sighs)", "(keyboard clicking)", "[SPEAKER_00]:", "[SPEAKER_00]", "SPEAKER_01:",
     "Speaker 2:", "(speaker 1)", "<|nospeech|>", "[_TT_50]", ">>", "[no speech]"],
)  # fmt: skip
@pytest.mark.parametrize("form", ["own_segment", "inside", "tokens", "plain_text"])
def test_what_nobody_said_is_taken_out_and_counted(tmp_path, unsaid, form):
    around = f"{unsaid} The lungs {unsaid} are clear."
    pieces = [unsaid, "The", "lungs", *unsaid.replace("_", " _").split(), "are", "clear."]
    segments = [{"text": text, "start": 0, "end": 1} for text in (unsaid, "The lungs", "are clear.")]
    content, name = {
        "own_segment": ({"segments": segments}, "a.json"),
        "inside": ({"segments": [{"text": around, "start": 0, "end": 1}]}, "a.json"),
        "tokens": ({"segments": [{"text": around, "start": 0, "end": 1, "words": whisper_words(
            [(piece, 0, 1) for piece in pieces])}]}, "a.json"),
        "plain_text": (around, "a.txt"),
    }[form]  # fmt: skip
    sentences, ledger = read(tmp_path, content, name)
    assert [text for text, _, _ in sentences] == ["The lungs are clear."]
    assert ledger.notes["text_that_nobody_said_taken_out"].count >= 1
    if form == "own_segment":
        assert ledger.tables[PART_TABLE].dropped["nobody_said_it"].first == [f"a.json: {unsaid}"]


@pytest.mark.parametrize(
    "said",
    ["(approximately 2 cm)", "[please see above]", "(heart)", "(no)", "[no]", "(unchanged)", "(cough)", "(clear)",
     "[___]", "(in the end)", "[in]", "2 * 3 * 4", "(air)", "motion (breathing)", "L5 <2 mm", "the speaker:",
     "(2)", "()"],
)  # fmt: skip
def test_brackets_of_a_report_stay(tmp_path, said):
    sentences, ledger = read(tmp_path, {"segments": [{"text": f" Nodule {said} seen.", "start": 0, "end": 1}]})
    assert sentences == [(f"Nodule {said} seen.", 0, 1)] and not ledger.notes


def test_schema_sentences_keep_what_their_author_wrote(tmp_path):
    content = {"sentences": [{"text": "[MUSIC] Clear.", "start_seconds": 0, "end_seconds": 1}]}
    assert read(tmp_path, content)[0] == [("[MUSIC] Clear.", 0, 1)]
