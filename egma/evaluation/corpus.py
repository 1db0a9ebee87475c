"""The readings that a model is evaluated on, and what of them no model changes."""

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from dataset_scripts.identity import corpus_identity
from dataset_scripts.schema import Reading, Split, has_split, load_readings
from egma.evaluation.protocols.blind_baselines import MeanMaps, mean_boxes
from egma.evaluation.protocols.published import CorpusProtocol, protocol_of
from egma.evaluation.statistics.bootstrap import patient
from egma.inference.embeddings import Readings, records
from egma.tools.corpora import hub_source


@dataclass(frozen=True)
class Corpus:
    """The rows with images and, sorted and without them, the readings of the three splits."""

    rows: Readings
    test: Sequence[Reading]
    training_rows: Readings | None
    validation_rows: Readings | None
    made: dict[Hashable, Any] = field(default_factory=dict, repr=False)

    @classmethod
    def read(
        cls, data: str | Path | Readings, split: Split, training: Readings | None, validation: Readings | None
    ) -> "Corpus":
        if isinstance(data, str | Path):
            rows = load_readings(data, split)
            training, validation = _optional_split(data, "train"), _optional_split(data, "validation")
            data = rows
        return cls(data, _labelled(data), training, validation)

    @property
    def protocol(self) -> CorpusProtocol:
        return protocol_of(self.test)

    @cached_property
    def training(self) -> Sequence[Reading]:
        return [] if self.training_rows is None else _labelled(self.training_rows)

    @cached_property
    def boxes(self) -> MeanMaps:
        return mean_boxes(self.training)

    def once(self, name: Hashable, make: Callable[[], Any]) -> Any:
        """What no model changes, from the first model that asks for it."""
        if name not in self.made:
            self.made[name] = make()
        return self.made[name]

    @cached_property
    def validation(self) -> Sequence[Reading]:
        return [] if self.validation_rows is None else _labelled(self.validation_rows)

    @cached_property
    def undecided(self) -> str | None:
        """Why the validation split may decide nothing, if it may not."""
        shared = {patient(reading) for reading in self.validation} & {patient(reading) for reading in self.test}
        if shared:
            return f"{min(shared)} lies in the validation split and in what is evaluated"
        return None if self.validation else "no validation split"


def _optional_split(data: str | Path, split: Split) -> Readings | None:
    return load_readings(data, split) if has_split(data, split) else None


def _labelled(rows: Readings) -> list[Reading]:
    readings = records(rows)
    return protocol_of(readings).apply(readings)


def describe_data(data: str | Path | Readings, readings: Sequence[Reading], split: Split) -> dict[str, Any]:
    """What was evaluated: counts, and the identity of the corpus, None of rows, by which two runs can be compared."""
    folder = Path(data).resolve() if isinstance(data, str | Path) else None
    hub = None if folder is None else hub_source(folder)
    return {
        "name": None if folder is None else hub["id"] if hub else folder.name,
        **({"hub": hub} if hub else {}),
        "identity": None if folder is None else corpus_identity(folder),
        "split": split,
        "sources": sorted({reading["source"] for reading in readings}),
        "readings": len(readings),
        "images": len({reading["image_id"] for reading in readings}),
        "patients": len({patient(reading) for reading in readings}),
    }
