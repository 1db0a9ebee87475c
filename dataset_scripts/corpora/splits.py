"""Splits by patient: the corpus's own, or a hash that anyone can repeat."""

import hashlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TypeVar

from dataset_scripts.files.tables import Row
from dataset_scripts.schema import Split, UserError

Named = TypeVar("Named", bound=str)
_SPLIT_NAMES: dict[str, Split] = {
    "train": "train",
    "validate": "validation",
    "validation": "validation",
    "valid": "validation",
    "val": "validation",
    "dev": "validation",
    "test": "test",
}


def split_named(cell: str) -> Split | None:
    """The split that a cell names in any of the usual words, None where it names none."""
    return _SPLIT_NAMES.get(cell.lower())


# of the patients, for training and validation, where a source has no splits
GAZE_SHARES, LABELLED_SHARES = (0.8, 0.1), (0.7, 0.15)


def hashed_split(patient: str, seed: int, train: float, validation: float) -> Split:
    """The split of a patient: the same for everyone who uses the same seed and fractions, in any order of patients."""
    position = _position(patient, seed)
    if position < train:
        return "train"
    return "validation" if position < train + validation else "test"


def hashed_splits(patients: Iterable[str], seed: int, train: float, validation: float) -> dict[str, Split]:
    """`hashed_split` of each patient, for a set that may be small.

    Where nobody falls into validation, the last training patient by the hash does, so that the set can be trained on;
    and so for test, while training keeps one.
    """
    splits = {patient: hashed_split(patient, seed, train, validation) for patient in patients}
    for wanted in ("validation", "test"):
        training = [patient for patient, split in splits.items() if split == "train"]
        if wanted not in splits.values() and len(training) > 1:
            splits[max(training, key=lambda patient: _position(patient, seed))] = wanted
    return splits


def _position(patient: str, seed: int) -> float:
    digest = hashlib.sha256(f"{seed}:{patient}".encode(errors="backslashreplace")).digest()
    return int.from_bytes(digest[:8], "big") / 2**64


def splits_of_patients(patients: Iterable[tuple[str | None, Named | None]], where: object) -> dict[str, Named]:
    """A corpus's own splits by patient; images whose patient or split nobody knows are passed over.

    Args:
        where: the tables that say them.

    Raises:
        UserError: a patient lies in two splits.
    """
    splits: dict[str, Named] = {}
    for patient, split in patients:
        if patient and split and splits.setdefault(patient, split) != split:
            both = f"{splits[patient]} and {split}"
            raise UserError(f"{where}: patient {patient} lies in both {both}; expected each in one split")
    return splits


def named_splits(rows: Sequence[Row], patients: Sequence[str], path: Path) -> list[Split]:
    """The column `split` of a table with a patient a row; empty where no row has one.

    Raises:
        UserError: a row has none although others do, or one that is none, or a patient lies in two splits.
    """
    named: list[Split] = []
    for number, row in enumerate(rows, 1) if any(row.get("split") for row in rows) else ():
        split = split_named(row.get("split", ""))
        if split is None:
            found = row.get("split", "")
            raise UserError(f"{path}: row {number} has the split {found!r}; expected train, validation or test")
        named.append(split)
    splits_of_patients(zip(patients, named, strict=False), path)
    return named
