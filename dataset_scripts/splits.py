"""Splits by patient: the corpus's own, or a hash that anyone can repeat."""

import hashlib

from dataset_scripts.schema import Split

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
    digest = hashlib.sha256(f"{seed}:{patient}".encode()).digest()
    position = int.from_bytes(digest[:8], "big") / 2**64
    if position < train:
        return "train"
    return "validation" if position < train + validation else "test"
