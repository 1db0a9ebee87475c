"""One radiologist's gaze on SIIM-ACR images (Saab et al., MICCAI 2021), without a transcript and without the images.

`cxr_gaze_data.json` is a list of `{image_id, gaze_x, gaze_y, time}`. Contrary to its README `gaze_x` is the vertical
and `gaze_y` the horizontal coordinate, both as fractions of the image: on the positives four times as much gaze lies in
the pneumothorax when they are swapped. `time` is how long each fixation lasted (1 to 5, in no order, so no clock), in
60 Hz samples; as the README says that these are not to be read as seconds, lengths compare with each other only. A
fixation starts where the one before ended, as the gaps between them are not there.

`--images` is a folder of the images, at any depth: `<ImageId>.dcm`, `.png` or `.jpg`. Where `train-rle.csv` lies beside
the gaze, it says on which images there is a pneumothorax.
"""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from dataset_scripts.corpora.mimic_tree import PICTURE_SUFFIXES
from dataset_scripts.corpora.rows import Origin, part_or, schema_row, walk_pictures
from dataset_scripts.corpora.siim_acr import SiimRow, read_rows
from dataset_scripts.corpora.splits import GAZE_SHARES, hashed_split
from dataset_scripts.files.json_files import read_json_list
from dataset_scripts.files.paths import inside, table_inside
from dataset_scripts.files.tables import FloatArray
from dataset_scripts.gaze.fixations import valid_fixations
from dataset_scripts.gaze.lost_eye import BoolArray, lost_eye
from dataset_scripts.images.dicom import person_in
from dataset_scripts.images.pictures import encode_image
from dataset_scripts.ledger import Dropped, Ledger
from dataset_scripts.plan import Options, Outcome, Plan, attempt
from dataset_scripts.schema import ABSENT, PRESENT, Finding, Fixations, Reading, Recording, Split, UserError

GAZE_TABLE, FIXATION_TABLE, MASK_TABLE = "cxr_gaze_data.json", "fixations", "train-rle.csv"
SAMPLES_PER_SECOND = 60
NO_MASK = ("", "-1")
TERMS = (
    "Gaze: Saab et al. 2021, Apache-2.0. Images: SIIM-ACR Pneumothorax Segmentation, under the terms of that "
    "competition and of NIH ChestX-ray14, from which they are. Nobody published which images are of one patient: "
    "subject_id is null and the splits are by image. Lengths of fixations compare with each other, not with a clock."
)


class GazeUnit(NamedTuple):
    """One recording, `number` counting from 1, with what is known of its image."""

    number: int
    recording: Any
    is_new: bool
    image: str | None
    findings: list[Finding]


def plan(source: Path, options: Options) -> Plan:
    """One unit a recording.

    Raises:
        UserError: no gaze file or not what it should be, no `--images`, or a train-rle.csv without its columns.
    """
    if options.images is None:
        raise UserError("siim_gaze holds no image: --images with the SIIM-ACR images is needed")
    if not options.images.is_dir():
        raise UserError(f"{options.images}: no such folder; expected the SIIM-ACR images")
    shared = Ledger()
    recordings = read_json_list(table_inside(source, GAZE_TABLE), shared)
    ids = [_image_id(recording) for recording in recordings]
    pictures = walk_pictures(options.images, PICTURE_SUFFIXES, shared)
    images = {image_id: min(pictures[image_id]) for image_id in set(filter(None, ids)) & pictures.keys()}
    findings = _findings(source, set(filter(None, ids)), shared)
    units, seen = [], set[str | None]()
    for index, (image_id, recording) in enumerate(zip(ids, recordings, strict=True), 1):
        known = image_id or ""
        units.append(GazeUnit(index, recording, image_id not in seen, images.get(known), findings.get(known, [])))
        seen.add(image_id)
    return Plan(
        units=units,
        convert=partial(convert_unit, root=options.images, options=options),
        unit_name="recordings",
        reading_tables=(GAZE_TABLE,),
        terms=TERMS,
        shared=shared,
    )


def convert_unit(unit: GazeUnit, root: Path, options: Options) -> list[Outcome]:
    """The outcome of one recording; `root` holds the images."""
    where = f"recording {unit.number} {_image_id(unit.recording) or ''}".strip()
    return [attempt(GAZE_TABLE, where, partial(_reading, unit, root, options))]


def _reading(unit: GazeUnit, root: Path, options: Options, ledger: Ledger) -> tuple[Split, Reading]:
    image_id = _image_id(unit.recording)
    if image_id is None:
        raise Dropped("no_image_id")
    if not unit.is_new:
        raise Dropped("duplicate_reading_id")
    columns = number_columns(unit.recording, ("gaze_x", "gaze_y", "time"))
    if unit.image is None:
        raise Dropped("image_missing", f"no {image_id} with {', '.join(PICTURE_SUFFIXES)}")
    path = inside(root, unit.image)
    image, person = encode_image(path, options.image_size, ledger), person_in(path)
    fixations = _fixations(columns, image_id, ledger)
    if fixations is None:
        raise Dropped("no_gaze_left")
    origin = Origin("siim_gaze", False, image_id, person=person)
    reading = schema_row(origin, image, Recording([], fixations, unit.findings, []), ledger, image_id)
    return hashed_split(image_id, options.seed, *GAZE_SHARES), reading


def _image_id(recording: Any) -> str | None:
    image_id = recording.get("image_id") if isinstance(recording, dict) else None
    return image_id if isinstance(image_id, str) and image_id.isprintable() and image_id else None


def number_columns(recording: dict[str, Any], names: Sequence[str]) -> dict[str, FloatArray]:
    """The lists `names` of a recording, (F,) each; NaN for a null."""
    columns = {}
    for name in names:
        values = recording.get(name)
        if not isinstance(values, list) or any(type(value) not in (int, float, type(None)) for value in values):
            raise Dropped("recording_not_understood", f"{name} is no list of numbers")
        try:
            columns[name] = np.array([np.nan if value is None else float(value) for value in values])
        except OverflowError:
            raise Dropped("recording_not_understood", f"{name} holds a number out of range") from None
    if len({len(values) for values in columns.values()}) > 1:
        raise Dropped("recording_not_understood", f"{', '.join(names)} differ in length")
    return columns


def _fixations(columns: dict[str, FloatArray], image_id: str, ledger: Ledger) -> Fixations | None:
    duration = columns["time"] / SAMPLES_PER_SECOND
    x, y = columns["gaze_y"], columns["gaze_x"]
    lost = lost_eye(x, y, FIXATION_TABLE, image_id, ledger)
    return gapless_fixations(x, y, duration, image_id, ledger, lost)


def gapless_fixations(
    x: FloatArray, y: FloatArray, duration: FloatArray, where: str, ledger: Ledger, lost: BoolArray | None = None
) -> Fixations | None:
    """`valid_fixations` of a source that does not say when one began: where the one before ended."""
    lasting = np.where(np.isfinite(duration) & (duration > 0), duration, 0.0)
    found = {"x": x, "y": y, "start": np.cumsum(lasting) - lasting, "duration": duration}
    return valid_fixations(found, FIXATION_TABLE, where, ledger, lost)


def _findings(source: Path, wanted: set[str], ledger: Ledger) -> dict[str, list[Finding]]:
    """Pneumothorax, present or absent, of the wanted images that train-rle.csv knows."""
    path = table_inside(source, MASK_TABLE)
    rows = part_or(list[SiimRow](), "masks", path, str(path), ledger, read_rows)
    values: dict[str, int] = {}
    for row in rows:
        image_id, is_there = row.image_id, row.mask not in NO_MASK
        ledger.enter(MASK_TABLE, 1)
        if image_id in wanted:
            ledger.keep(MASK_TABLE, 1)
            values[image_id] = PRESENT if is_there or values.get(image_id) == PRESENT else ABSENT
        else:
            ledger.drop(MASK_TABLE, "image_without_gaze", [image_id])
    return {image_id: [Finding(name="Pneumothorax", value=value)] for image_id, value in values.items()}
