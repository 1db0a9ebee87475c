"""Splits by patient: the corpus's own, or a hash that anyone can repeat."""

import hashlib
from collections.abc import Iterable

from dataset_scripts.schema import Split, UserError

SPLIT_NAMES: dict[str, Split] = {
    "train": "train",
    "validate": "validation",
    "validation": "validation",
    "valid": "validation",
    "val": "validation",
    "dev": "validation",
    "test": "test",
}


def hashed_split(patient: str, seed: int, train: float, validation: float) -> Split:
    """The split of a patient: the same for everyone who uses the same seed and fractions, in any order of patients."""
    digest = hashlib.sha256(f"{seed}:{patient}".encode(errors="backslashreplace")).digest()
    position = int.from_bytes(digest[:8], "big") / 2**64
    if position < train:
        return "train"
    return "validation" if position < train + validation else "test"


def splits_of_patients(patients: Iterable[tuple[str | None, Split | None]]) -> dict[str, Split]:
    """A corpus's own splits by patient; images whose patient or split nobody knows are passed over.

    Raises:
        UserError: a patient lies in two splits.
    """
    splits: dict[str, Split] = {}
    for patient, split in patients:
        if patient is not None and split is not None and splits.setdefault(patient, split) != split:
            raise UserError(f"patient {patient} lies in both {splits[patient]} and {split}; expected each in one split")
    return splits
