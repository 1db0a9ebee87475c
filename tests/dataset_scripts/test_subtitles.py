"""Captions that repeat, highlighted ones and the mark-up of subtitle dialects."""

import re

import pytest

from dataset_scripts.report import Ledger
from dataset_scripts.transcripts import PART_TABLE, read_transcript

YOUTUBE = """WEBVTT
Kind: captions
Language: en

00:00:00.250 --> 00:00:02.500 align:start position:0%
 
the<00:00:00.500><c> heart</c><00:00:01.000><c> is</c>

00:00:02.500 --> 00:00:02.510 align:start position:0%
the heart is
 

00:00:02.510 --> 00:00:04.000 align:start position:0%
the heart is
normal<00:00:02.750><c> size.</c><00:00:03.250><c> No</c>

00:00:04.000 --> 00:00:04.010 align:start position:0%
normal size. No
 

00:00:04.010 --> 00:00:06.000 align:start position:0%
normal size. No
effusion.
"""  # noqa: W293


def srt(*cues):
    clock = "00:00:{:02},{:03}"
    return "\n".join(
        f"{number}\n{clock.format(int(start), round(start % 1 * 1000))} --> "
        f"{clock.format(int(end), round(end % 1 * 1000))}\n{text}\n"
        for number, (start, end, text) in enumerate(cues, 1)
    )


def read(tmp_path, content, name="a.srt"):
    (tmp_path / name).write_text(content)
    ledger = Ledger()
    sentences = read_transcript(tmp_path / name, 0.0, ledger)
    ledger.check()
    return [tuple(sentence.values()) for sentence in sentences], ledger


def highlighted(words, start=0.0, seconds=0.5, tag="u"):
    """One cue a word, as Whisper's `--highlight_words` writes them."""
    for index, word in enumerate(words):
        close = tag.split()[0]
        text = " ".join([*words[:index], f"<{tag}>{word}</{close}>", *words[index + 1 :]])
        yield start + index * seconds, start + (index + 1) * seconds, text


def test_rolling_captions_give_each_word_once_with_its_own_time(tmp_path):
    sentences, ledger = read(tmp_path, YOUTUBE, "a.vtt")
    assert sentences == [("the heart is normal size.", 0.25, 3.25), ("No effusion.", 3.25, 6.0)]
    assert ledger.tables[PART_TABLE].dropped["shown_before"].first == ["a.vtt line 9", "a.vtt line 17"]


def test_rolling_captions_whose_word_times_were_lost(tmp_path):
    sentences, _ = read(tmp_path, re.sub("<[^>]*>", "", YOUTUBE), "a.vtt")
    assert [text for text, _, _ in sentences] == ["the heart is normal size.", "No effusion."]
    assert (sentences[0][1], sentences[1][2]) == (0.25, 6.0)


def test_growing_captions_are_one_sentence_once(tmp_path):
    words = ["The", "heart", "is", "normal", "in", "size."]
    cues = [(index / 2, (index + 1) / 2, " ".join(words[: index + 1])) for index in range(6)]
    assert read(tmp_path, srt(*cues))[0] == [("The heart is normal in size.", 0.0, 3.0)]


@pytest.mark.parametrize("tag", ["u", "b", 'font color="#00ff00"', "c"])
def test_highlighted_words_are_one_sentence_once_and_time_their_words(tmp_path, tag):
    words = ["The", "heart", "is", "normal.", "No", "effusion."]
    silent = (0.0, 1.0, " ".join(words))
    sentences, ledger = read(tmp_path, srt(silent, *highlighted(words, start=1.0, tag=tag)))
    assert sentences == [("The heart is normal.", 1.0, 3.0), ("No effusion.", 3.0, 4.0)]
    assert ledger.tables[PART_TABLE].dropped["shown_before"].count == 6


def test_highlighted_pieces_of_a_word_time_it_together(tmp_path):
    cues = [(0, 1, "<u>Follow</u>-up now."), (1, 2, "Follow<u>-up</u> now."), (2, 3, "Follow-up <u>now.</u>")]
    assert read(tmp_path, srt(*cues))[0] == [("Follow-up now.", 0, 3)]


def test_sentence_that_is_said_twice_stays_twice(tmp_path):
    assert read(tmp_path, srt((0, 1, "No effusion."), (1, 2, "No effusion.")))[0] == [
        ("No effusion.", 0, 1),
        ("No effusion.", 1, 2),
    ]
    twice = [*highlighted(["No", "effusion."]), *highlighted(["No", "effusion."], start=1.0)]
    assert read(tmp_path, srt(*twice))[0] == [("No effusion.", 0, 1), ("No effusion.", 1, 2)]
    assert len(read(tmp_path, srt((0, 1, "No"), (5, 6, "No effusion.")))[0][0][0].split()) == 3


@pytest.mark.parametrize(
    ("marked_up", "text"),
    [
        (r"{\an8}The heart\Nis {\i1}normal{\i0}.", "The heart is normal."),
        ('<font color="#fff">The</font> <b><i>heart</i></b>.', "The heart."),
        ("<v Dr X>The heart</v>", "The heart"),
        ("<v.loud Dr X>The heart", "The heart"),
        ("{y:i}The heart", "The heart"),
        ("The<br>heart<br/>is normal", "The heart is normal"),
        ("L5 &lt; L4 &amp;&nbsp;so", "L5 < L4 & so"),
        ("nodules <5 mm and >3 mm", "nodules <5 mm and >3 mm"),
        ("- The heart\n- is normal", "The heart is normal"),
        ("follow\n-up", "follow -up"),
        ("[SPEAKER_00]: The heart", "The heart"),
        ("SPEAKER_00: The heart [MUSIC]", "The heart"),
        ("The heart (clicking)", "The heart"),
        ("&gt;&gt; The heart", "The heart"),
    ],
)
def test_mark_up_and_labels_are_taken_out(tmp_path, marked_up, text):
    for name, content in (
        ("a.srt", srt((1, 2, marked_up))),
        ("a.vtt", f"WEBVTT\n\n00:01.0 --> 00:02.0\n{marked_up}\n"),
    ):
        assert read(tmp_path, content, name)[0] == [(text, 1, 2)]


def test_position_lines_are_no_text(tmp_path):
    content = "1\n00:00:01,000 --> 00:00:02,000 X1:100 X2:200 Y1:10 Y2:20\nClear.\n"
    assert read(tmp_path, content)[0] == [("Clear.", 1, 2)]
