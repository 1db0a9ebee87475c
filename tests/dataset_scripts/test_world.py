"""A generated world is as informative as it is said to be, and another seed is another world."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from dataset_scripts.gaze_quality import Look, Quality, measure
from dataset_scripts.phantom.anatomy import noise_field
from dataset_scripts.phantom.session import Patient, generate_patient, plan_patients
from dataset_scripts.phantom.world import World

READINGS = 1600


def _patients(**world: Any) -> list[Patient]:
    return [generate_patient(plan, World(3, **world)) for plan in plan_patients(READINGS, 3)]


@pytest.fixture(scope="module")
def real() -> list[Patient]:
    return _patients()


def _quality(patients: Sequence[Patient]) -> Quality:
    looks: dict[str, list[Look]] = {"train": [], "test": [], "validate": []}
    pooled = []
    for patient in patients:
        for study in patient.studies:
            for shown in study.radiographs:
                width, height = shown.pose.width, shown.pose.height
                for reading in shown.readings:
                    gaze = reading.recording
                    if gaze is None:
                        continue
                    seconds = gaze.end_seconds - gaze.start_seconds
                    pooled.append(np.stack([gaze.x / width, gaze.y / height, seconds]))
                    for sentence, words in zip(reading.sentences, reading.words, strict=True):
                        if sentence.finding is None:
                            continue
                        lead = reading.reader.lead_seconds
                        begin, end = words[0].start_seconds - lead, words[-1].end_seconds - lead
                        on = np.flatnonzero((gaze.end_seconds > begin) & (gaze.start_seconds < end))[-6:]
                        marks = [mark.box for mark in reading.marks if mark.finding is sentence.finding]
                        boxes: Any = tuple(
                            {
                                "x_min": box.x_min / width, "x_max": box.x_max / width,
                                "y_min": box.y_min / height, "y_max": box.y_max / height,
                            }
                            for box in marks
                        )  # fmt: skip
                        x, y = gaze.x[on] / width, gaze.y[on] / height
                        look = Look(str(patient.subject_id), sentence.finding.label, x, y, seconds[on], boxes)
                        looks[patient.split].append(look)
    every = [look for found in looks.values() for look in found]
    test = looks["test"] + looks["validate"]
    return measure(every, looks["train"], test, np.concatenate(pooled, axis=1), np.random.default_rng(0))


def test_real_gaze_is_as_informative_as_recordings_are(real: list[Patient]) -> None:
    found = _quality(real)
    assert found.own_over_pooled == pytest.approx(3.3, abs=0.5)
    assert found.nss_of_all == pytest.approx(1.10, abs=0.2) and found.nss_of_one == pytest.approx(0.45, abs=0.15)
    assert found.gain is not None and found.gain[1] < 0.106 and found.gain[2] > 0.048, found.gain
    assert found.fixation_seconds[0] == pytest.approx(0.32, abs=0.03)


def test_clear_gaze_at_fixed_places_is_nearly_the_label() -> None:
    found = _quality(_patients(gaze="clear", places="fixed"))
    assert found.own_over_pooled is not None and found.own_over_pooled > 5
    assert found.gain is not None and found.gain[1] > 0.5, found.gain


def test_where_places_are_uniform_a_prior_tells_nothing() -> None:
    found = _quality(_patients(places="uniform"))
    assert found.gain is not None and found.gain[1] < 0.03, found.gain


def test_no_share_of_the_looks_is_no_information() -> None:
    found = _quality(_patients(gaze=0.0))
    assert found.own_over_pooled is not None and found.own_over_pooled < 1.4


def _texts(patients: Sequence[Patient], split: str) -> list[str]:
    return [
        sentence.text
        for patient in patients
        if patient.split == split
        for study in patient.studies
        for shown in study.radiographs
        for reading in shown.readings
        for sentence in reading.sentences
    ]


def test_a_third_of_the_test_sentences_is_new(real: list[Patient]) -> None:
    known = set(_texts(real, "train"))
    assert 0.28 < np.mean([text not in known for text in _texts(real, "test")]) < 0.45
    fixed = _patients(wording="fixed")
    known = set(_texts(fixed, "train"))
    assert np.mean([text not in known for text in _texts(fixed, "test")]) < 0.08


def test_short_sentences_name_no_place(real: list[Patient]) -> None:
    texts = _texts(real, "train")
    assert 5 < sum("there is opacity" in text for text in texts) < 0.02 * len(texts)


def test_another_seed_has_other_readers_and_textures() -> None:
    leads = [{reader.lead_seconds for reader in World(seed).readers()} for seed in (0, 1)]
    assert leads[0].isdisjoint(leads[1])
    assert all(0.4 <= lead <= 2.2 for lead in leads[0] | leads[1])
    assert abs(np.corrcoef(noise_field(0, 2.0).ravel(), noise_field(1, 2.0).ravel())[0, 1]) < 0.05


def test_style_b_has_other_bodies_and_words(real: list[Patient]) -> None:
    other = _patients(style="b")
    hearts = [np.mean([patient.body.heart_scale for patient in found]) for found in (real, other)]
    assert hearts[1] < hearts[0] - 0.04
    assert not any("compared with the prior" in text for text in _texts(other, "train"))
