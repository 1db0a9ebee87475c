"""Where sentences end, and what time they get."""

import pytest

from dataset_scripts.sentences import TimedText, split_sentences, timed_sentences


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
