"""Splits of small sets of patients."""

from hypothesis import given
from hypothesis import strategies as st

from dataset_scripts.corpora.splits import hashed_split, hashed_splits

PATIENTS = st.sets(st.text(min_size=1, max_size=8), min_size=1, max_size=60)


@given(PATIENTS, st.integers(0, 99))
def test_a_small_set_has_every_split_that_it_can_have(patients: set[str], seed: int) -> None:
    splits = hashed_splits(patients, seed, 0.8, 0.1)
    assert splits.keys() == patients
    alone = {patient: hashed_split(patient, seed, 0.8, 0.1) for patient in patients}
    moved = {patient for patient in patients if splits[patient] != alone[patient]}
    assert len(moved) <= 2 and all(alone[patient] == "train" for patient in moved)
    if "train" in alone.values():
        assert "train" in splits.values()
    if list(alone.values()).count("train") > 2:
        assert set(splits.values()) == {"train", "validation", "test"}


@given(PATIENTS)
def test_a_set_with_every_split_is_split_as_ever(patients: set[str]) -> None:
    alone = {patient: hashed_split(patient, 0, 0.8, 0.1) for patient in patients}
    if len(set(alone.values())) == 3:
        assert hashed_splits(patients, 0, 0.8, 0.1) == alone
