"""GazeSearch (Pham et al., WACV 2025): how radiologists of EGD and REFLACX search for a named finding; gaze alone.

`finding_visual_search_coco_format*.json` is a list of scanpaths, at most six fixations each: `name` of the MIMIC-CXR
image, `task` the finding, `condition`, `X`, `Y` in pixels of 224 x 224, `T` in seconds; a copy `scanpaths.json.gz` has
`image`, `finding`, `x_fraction`, `y_fraction`, `duration_seconds`. A reading is one scanpath; it has no image and no
text, so it serves location priors only (`gaze_quality`). Splits are by a hash of the image: those of the file put
scanpaths of one image on both sides, and name no patient. A fixation begins, as the file does not say, where the one
before ended.
"""

from collections import Counter
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from dataset_scripts.corpora.rows import Origin, schema_row
from dataset_scripts.corpora.siim_gaze import gapless_fixations, number_columns
from dataset_scripts.corpora.splits import GAZE_SHARES, hashed_split
from dataset_scripts.files.json_files import read_json_list
from dataset_scripts.files.paths import first_table
from dataset_scripts.ledger import Dropped, Ledger
from dataset_scripts.plan import Options, Outcome, Plan, attempt
from dataset_scripts.schema import ABSENT, PRESENT, Finding, Reading, Recording, Split

TABLE, SIDE, PUBLISHED = "scanpaths", 224, "finding_visual_search_coco_format"
COLUMNS = {"X": "x_fraction", "Y": "y_fraction", "T": "duration_seconds"}
TERMS = (
    "GazeSearch is under the MIT licence in its repository; for the recordings of EGD and REFLACX that it is made of, "
    "the PhysioNet licences of these hold. It holds no image and no text."
)


class Scanpath(NamedTuple):
    """The `place`-th of its image, both counted from 1."""

    number: int
    image_id: str
    place: int
    path: Any


def plan(source: Path, options: Options) -> Plan:
    """One unit a scanpath; raises UserError where there is no file, or it is no list."""
    published = sorted(path.name for path in source.glob(f"{PUBLISHED}*.json")) or [f"{PUBLISHED}.json"]
    places, units, shared = Counter[str](), list[Scanpath](), Ledger()
    table = first_table(source, (published[0], "scanpaths.json.gz"))
    for number, path in enumerate(read_json_list(table, shared), 1):
        image_id = _text(path, "name", "image").removesuffix(".jpg")
        places[image_id] += 1
        units.append(Scanpath(number, image_id, places[image_id], path))
    return Plan(units, partial(convert_unit, options=options), "scanpaths", (TABLE,), TERMS, shared=shared)


def convert_unit(unit: Scanpath, options: Options) -> list[Outcome]:
    """The reading of one scanpath."""
    return [attempt(TABLE, f"scanpath {unit.number} {unit.image_id}", partial(_reading, unit, options))]


def _reading(unit: Scanpath, options: Options, ledger: Ledger) -> tuple[Split, Reading]:
    finding, reading_id = _text(unit.path, "task", "finding"), f"{unit.image_id}#{unit.place}"
    if not unit.image_id or not finding:
        raise Dropped("no_image_or_finding")
    is_published = "X" in unit.path
    columns = number_columns(unit.path, list(COLUMNS if is_published else COLUMNS.values()))
    x, y, duration = columns.values()
    scale = SIDE if is_published else 1
    fixations = gapless_fixations(x / scale, y / scale, duration, reading_id, ledger)
    if fixations is None:
        raise Dropped("no_gaze_left")
    value = ABSENT if unit.path.get("condition") == "absent" else PRESENT
    origin = Origin("gazesearch", options.generated, unit.image_id, reading_id, frame=(SIDE, SIDE))
    recording = Recording([], fixations, [Finding(name=finding, value=value)], [])
    return hashed_split(unit.image_id, options.seed, *GAZE_SHARES), schema_row(origin, None, recording, ledger)


def _text(path: Any, *names: str) -> str:
    found = [path[name] for name in names if name in path] if isinstance(path, dict) else []
    return found[0].strip() if found and isinstance(found[0], str) else ""
