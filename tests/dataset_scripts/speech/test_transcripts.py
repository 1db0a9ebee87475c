"""Every format of a transcript gives the same sentences; damaged ones are refused or counted."""

import json

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from dataset_scripts.ledger import Ledger
from dataset_scripts.schema import UserError
from dataset_scripts.speech.transcripts import PART_TABLE, read_transcript

WORDS = [("The", 0.5, 0.75), ("heart", 0.75, 1.25), ("is", 1.25, 1.5), ("normal.", 1.5, 2.0), ("No", 3.0, 3.25),
         ("effusion.", 3.25, 4.0)]  # fmt: skip
SAID = " The heart is normal. No effusion."
SENTENCES = [("The heart is normal.", 0.5, 2.0), ("No effusion.", 3.0, 4.0)]
WHISPER_WORDS = [{"word": f" {word}", "start": start, "end": end, "probability": 0.9} for word, start, end in WORDS]
VTT = "WEBVTT - made by hand\n\nNOTE by nobody\n\n1\n00:00.500 --> 00:02.000 align:start\n<v Dr X>The heart\nis normal."
VTT += "</v>\n\n00:00:03.000 --> 00:00:04.000\nNo <i>effusion</i>.\n"
SRT = "1\n00:00:00,500 --> 00:00:02,000\nThe heart is\nnormal.\n\n2\n00:00:03,000 --> 00:00:04,000\nNo effusion.\n"


def as_json(**value):
    return json.dumps(value)


def phrases(values):
    return [{"phrase": text, "begin_time": start, "end_time": end} for text, start, end in values]


FILES = {
    "egd.json": as_json(full_text=" The heart is  normal. No effusion. ", time_stamped_text=phrases(SENTENCES)),
    "sentences.json": as_json(
        sentences=[{"text": text, "start_seconds": start, "end_seconds": end} for text, start, end in SENTENCES]
    ),
    "whisper_words.json": as_json(
        text=SAID,
        segments=[
            {"start": 0.5, "end": 2.5, "text": " The heart is normal. No", "words": WHISPER_WORDS[:5]},
            {"start": 3.25, "end": 4.0, "text": " effusion.", "words": WHISPER_WORDS[5:]},
        ],
    ),
    "whisper_segments.json": as_json(
        segments=[{"start": start, "end": end, "text": f" {text}"} for text, start, end in SENTENCES]
    ),
    "pipeline.json": as_json(
        text=SAID, chunks=[{"text": f" {word}", "timestamp": [start, end]} for word, start, end in WORDS]
    ),
    "whisper_cpp.json": as_json(
        transcription=[{"text": f" {t}", "offsets": {"from": s * 1000, "to": e * 1000}} for t, s, e in SENTENCES]
    ),
    "cues.vtt": VTT,
    "cues.srt": SRT,
    "CRLF.SRT": SRT.replace("\n", "\r\n"),
    "bom.srt": "\ufeff" + SRT,
    "bom.vtt": "\ufeff" + VTT.replace("\n", "\r"),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("transcripts")


def read(folder, name, content, offset=0.0):
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    ledger = Ledger()
    sentences = read_transcript(path, offset, ledger)
    ledger.check()
    return [tuple(sentence.values()) for sentence in sentences], ledger


@pytest.mark.parametrize("name", sorted(FILES))
def test_all_formats_say_the_same(folder, name):
    sentences, ledger = read(folder, name, FILES[name])
    assert sentences == SENTENCES
    assert not ledger.notes and ledger.tables[PART_TABLE].rows_dropped == 0


@pytest.mark.parametrize("name", sorted(FILES))
def test_clock_offset_moves_every_time(folder, name):
    sentences, _ = read(folder, name, FILES[name], offset=-10.25)
    assert sentences == [(text, start - 10.25, end - 10.25) for text, start, end in SENTENCES]


def test_plain_text_has_no_times(folder):
    sentences, ledger = read(folder, "said.txt", "The heart is normal. No effusion, Dr. X says\n", offset=5.0)
    assert sentences == [("The heart is normal.", None, None), ("No effusion, Dr. X says", None, None)]
    assert list(ledger.notes) == ["transcript_without_times"]


def test_schema_sentences_are_not_cut_again(folder):
    values = [("First. Second.", 1.0, 2.0), ("half", 3.0, 2.5), ("untimed", None, None), (" ", 4.0, 5.0)]
    content = as_json(sentences=[{"text": t, "start_seconds": s, "end_seconds": e} for t, s, e in values])
    sentences, ledger = read(folder, "a.json", content)
    assert sentences == [("First. Second.", 1.0, 2.0), ("half", None, None), ("untimed", None, None)]
    assert ledger.notes["some_sentences_without_time"].first == ["a.json: 2 of 3"]
    assert ledger.tables[PART_TABLE].dropped["no_text"].count == 1


def test_digits_that_whisperx_does_not_time(folder):
    words = [{"word": "12"}, {"word": "nodules", "start": 1.5, "end": 2.0}, {"word": "of"}, {"word": "5."}]
    content = as_json(
        segments=[{"start": 1.0, "end": 3.0, "text": "12 nodules of 5.", "words": words}], word_segments=words
    )
    assert read(folder, "x.json", content)[0] == [("12 nodules of 5.", 1.0, 3.0)]


def test_cue_keeps_a_number_in_its_last_line(folder):
    lines = "00:01.000 --> 00:02.000\nnodules, in all\n12\n\n00:03.000 --> 00:04.000\nof 5 mm."
    assert read(folder, "a.vtt", f"WEBVTT\n\n{lines}")[0] == [("nodules, in all 12 of 5 mm.", 1.0, 4.0)]


def test_cues_without_a_blank_line_between(folder):
    content = "1\n00:00:01,000 --> 00:00:02,000\nClear.\n2\n00:00:03,000 --> 00:00:04,000\nNormal.\n"
    assert read(folder, "a.srt", content)[0] == [("Clear.", 1.0, 2.0), ("Normal.", 3.0, 4.0)]


def test_hours_entities_and_other_fractions(folder):
    content = "WEBVTT\n\n01:02:03.5 --> 01:02:04.25\nL5 &lt; L4 &amp; <c.red>so</c> 3 < 4.\n"
    assert read(folder, "a.vtt", content)[0] == [("L5 < L4 & so 3 < 4.", 3723.5, 3724.25)]


def test_damaged_cues_are_counted_by_line(folder):
    content = "1\n00:00:01,000 --> 00:00:02\nlost\n\nstray words\n\n2\n00:00:03,000 --> 00:00:04,000\n\n" + (
        "3\n00:00:05,000 --> 00:00:06,000\nKept.\n"
    )
    sentences, ledger = read(folder, "a.srt", content)
    assert sentences == [("Kept.", 5.0, 6.0)]
    tally = ledger.tables[PART_TABLE]
    assert (tally.rows_in, tally.rows_kept) == (4, 1)
    assert {reason: found.first for reason, found in tally.dropped.items()} == {
        "cue_time_not_understood": ["a.srt line 2"],
        "text_outside_cue": ["a.srt line 5"],
        "no_text": ["a.srt"],
    }


def test_times_that_run_backwards_are_noted(folder):
    content = as_json(
        time_stamped_text=phrases(
            [("Later.", 5.0, 6.0), ("Before.", 1.0, 2.0), ("Last,", 9.0, 9.0), ("too.", 7.0, 8.0)]
        )
    )
    sentences, ledger = read(folder, "a.json", content)
    assert sentences == [("Later.", 5.0, 6.0), ("Before.", 1.0, 2.0), ("Last, too.", None, None)]
    assert set(ledger.notes) == {"transcript_times_run_backwards", "some_sentences_without_time"}


@pytest.mark.parametrize(
    ("name", "content"),
    [("a.json", as_json(time_stamped_text=[], full_text=" ")), ("a.txt", ""), ("a.vtt", "WEBVTT"), ("a.srt", " \n"),
     ("a.json", as_json(segments=[]))],
)  # fmt: skip
def test_nothing_said_is_no_sentence(folder, name, content):
    sentences, ledger = read(folder, name, content)
    assert sentences == [] and not ledger.notes


def test_text_without_time_stamps_is_untimed(folder):
    sentences, ledger = read(folder, "a.json", as_json(time_stamped_text=[], full_text=" All clear. "))
    assert sentences == [("All clear.", None, None)] and "transcript_without_times" in ledger.notes


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.doc", "x", r"a\.doc: expected a transcript that ends in \.json, \.vtt, \.srt, \.txt"),
        ("a.json", "{", "expected JSON"),
        ("a.json", "[" * 100_000, "expected JSON"),
        ("a.json", "[]", "expected a JSON object with a list time_stamped_text or"),
        ("a.json", as_json(segments={}), "expected a JSON object with a list"),
        ("a.json", as_json(segments=["x"]), "segments is not as expected"),
        ("a.json", as_json(segments=[{"text": 5}]), "segments is not as expected"),
        ("a.json", as_json(chunks=[{"text": "x", "timestamp": [1]}]), "chunks is not as expected"),
        ("a.json", as_json(sentences=[{"text": "\ud800"}]), "sentences is not as expected"),
        ("a.json", as_json(time_stamped_text=[], full_text=["x"]), "full_text is not as expected"),
        ("a.json", as_json(time_stamped_text=[], full_text="\ud800"), "full_text is not as expected"),
        ("a.txt", b"\xff\xfea", "expected text in UTF-8"),
        ("a.vtt", SRT, "expected the first line WEBVTT"),
    ],
)
def test_other_content_is_refused(folder, name, content, message):
    with pytest.raises(UserError, match=message):
        read(folder, name, content)


def test_large_file_is_refused(folder, monkeypatch):
    monkeypatch.setattr("dataset_scripts.speech.transcripts.MAX_BYTES", 10)
    with pytest.raises(UserError, match="larger than 10 bytes"):
        read(folder, "a.txt", "12345678901")


json_values = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=6), st.just("\ud800")),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(
            st.sampled_from(
                ["text", "word", "words", "phrase", "start", "end", "timestamp", "offsets", "from", "to", "begin_time"]
            ),
            inner,
            max_size=4,
        ),
    ),
    max_leaves=12,
)
shapes = ["time_stamped_text", "sentences", "segments", "chunks", "transcription", "full_text"]
documents = st.dictionaries(st.sampled_from(shapes), st.one_of(json_values, st.lists(json_values, max_size=3)))
pieces = st.lists(
    st.sampled_from(
        ["WEBVTT", "\n", "\n\n", "1", "00:00:01,000 --> 00:00:02,000", "00:01.0 --> 99:99.999", "-->", "a --> b", "No.",
         "<b>", "&#0;", "&#xD800;", "NOTE", "\r\n", "x" * 200, "9999:59:59.999 --> 0:0:0.0", "٣", "\u2028"]
    )
).map("".join)  # fmt: skip


@settings(max_examples=300)
@given(
    st.sampled_from(["a.json", "a.vtt", "a.srt", "a.txt"]),
    st.one_of(
        st.binary(max_size=60),
        pieces.map(str.encode),
        pieces.map(lambda text: f"WEBVTT\n\n{text}".encode()),
        documents.map(lambda value: json.dumps(value).encode()),
    ),
    st.floats(-1e6, 1e6),
)
@example("a.json", b'{"time_stamped_text": [{"phrase": "a.", "begin_time": 1e999, "end_time": NaN}]}', 0.0)
@example("a.json", b'{"sentences": [{"text": "a", "start_seconds": 1e308, "end_seconds": 1e308}]}', 1e6)
def test_any_content_is_read_or_refused(folder, name, content, offset):
    try:
        sentences, _ = read(folder, name, content, offset)
    except UserError:
        return
    for text, start, end in sentences:
        assert text.strip() and text.encode()
        assert (start is None and end is None) or -1e13 < start <= end < 1e13
