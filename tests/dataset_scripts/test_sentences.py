"""Where sentences end, and what time they get."""

import re
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dataset_scripts.sentences import (
    TimedText,
    joined,
    spelled,
    split_sentences,
    timed_sentences,
    with_own_blanks,
    with_times_of_neighbours,
)


@pytest.mark.parametrize(
    ("text", "sentences"),
    [
        ("Clear. No effusion.", ["Clear.", "No effusion."]),
        ("clear. no effusion", ["clear.", "no effusion"]),
        ("A 2.5 cm nodule. Stable.", ["A 2.5 cm nodule.", "Stable."]),
        ("Seen by Dr. Roe. Stable.", ["Seen by Dr. Roe.", "Stable."]),
        ("Opacity, e.g. pneumonia. Stable.", ["Opacity, e.g. pneumonia.", "Stable."]),
        ("1. Edema. 2. Effusion.", ["1. Edema.", "2. Effusion."]),
        ("Fever for 5 days. Cough.", ["Fever for 5 days.", "Cough."]),
        ("Since 2013. Cough.", ["Since 2013.", "Cough."]),
        ("Lungs clear.No effusion.", ["Lungs clear.", "No effusion."]),
        ("Effusion? Perhaps! (Small.) End", ["Effusion?", "Perhaps!", "(Small.)", "End"]),
        ("Lines\n wrap here.\n\nNEXT PARAGRAPH\n\nEnd", ["Lines wrap here.", "NEXT PARAGRAPH", "End"]),
        ("Smith et al. report this.", ["Smith et al. report this."]),
        ("Clear ... . ", ["Clear ..."]),
        ("  \n ", []),
    ],
)
def test_split(text, sentences):
    assert split_sentences(text) == sentences


def test_times_are_those_of_the_first_and_last_word():
    words = [
        TimedText(".", 0.0, 0.1),
        TimedText("clear", 0.5, 0.9),
        TimedText("lungs", 0.9, 1.4),
        TimedText(".", 1.4, 3.0),
    ]
    assert timed_sentences(words) == [{"text": "clear lungs.", "start_seconds": 0.5, "end_seconds": 1.4}]


@pytest.mark.parametrize("times", [(None, 2.0), (1.0, None), (3.0, 2.0)])
def test_sentence_without_usable_times_is_untimed(times):
    (sentence,) = timed_sentences([TimedText("clear.", *times)])
    assert sentence == {"text": "clear.", "start_seconds": None, "end_seconds": None}


def test_zero_length_word_is_legal():
    assert timed_sentences([TimedText("clear", 1.0, 1.0)])[0]["start_seconds"] == 1.0


# --- joining ---


def as_parts(pieces):
    return [TimedText(piece, float(index), index + 1.0) for index, piece in enumerate(pieces)]


@pytest.mark.parametrize(
    ("text", "pieces"),
    [
        ("Follow-up of 2.5 cm.", ["Follow", "-up", "of", "2", ".5", "cm", "."]),
        ("No. 2.5 x-ray at T. 2.", ["No", ".", "2", ".", "5", "x", "-ray", "at", "T", ".", "2", "."]),
        ("there's 5% and/or 5 mm", ["there", "'s", "5", "%", "and", "/", "or", "5 ", "mm"]),
        ("心影正常。无积液", ["心", "影", "正常", "。", "无", "积液"]),
        ("心影 normal 正常", ["心", "影", "nor", "mal", "正常"]),
    ],
)
def test_words_stand_as_in_the_text_that_they_spell(text, pieces):
    assert joined(spelled(text, as_parts(pieces)))[0] == text


@given(st.text("ab.,5-%'é心 ", max_size=30), st.lists(st.integers(0, 30)))
def test_any_pieces_of_a_text_give_back_the_text(text, cuts):
    cuts = sorted({0, len(text), *(min(cut, len(text)) for cut in cuts)})
    pieces = as_parts(text[start:end] for start, end in pairwise(cuts))
    again, places = joined(spelled(text, pieces))
    assert again == re.sub(r" (?=[.,]+( |$))", "", " ".join(text.split())).strip()
    bare = ["".join(again[place].split()) for place in places]
    assert bare == ["".join(piece.text.split()) for piece in pieces]


def test_parts_that_spell_another_text_are_none():
    assert spelled("No effusion.", as_parts(["No", "effusions."])) is None


def test_decimal_point_that_is_a_piece_ends_no_sentence():
    pieces = with_own_blanks(as_parts([" A", " 2", ".", "5", " cm", " nodule", ".", " Stable", "."]))
    assert [sentence["text"] for sentence in timed_sentences(pieces)] == ["A 2.5 cm nodule.", "Stable."]


def test_pieces_without_any_blank_are_words_unless_their_script_has_none():
    assert joined(with_own_blanks(as_parts(["the", "heart", "."])))[0] == "the heart."
    sentences = timed_sentences(as_parts(["心影", "正常", "。", "无", "积液"]))
    assert [tuple(sentence.values()) for sentence in sentences] == [("心影正常。", 0.0, 2.0), ("无积液", 3.0, 5.0)]


def test_untimed_words_take_their_neighbours_times():
    words = [
        ("12", None, None),
        ("of", 1.0, 1.5),
        ("2", None, None),
        ("3", None, 3.0),
        ("x", 4.0, None),
        ("9", None, None),
    ]
    timed = with_times_of_neighbours([TimedText(*word) for word in words], 0.5, 6.0)
    intervals = [(word.start_seconds, word.end_seconds) for word in timed]
    assert intervals == [(0.5, 1.0), (1.0, 1.5), (1.5, 3.0), (1.5, 3.0), (4.0, 6.0), (4.0, 6.0)]
