"""A first `readings.csv` for a folder of exports and images, for a person to check and to fill in."""

import csv
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from dataset_scripts.corpora.tracker import SCREEN_EDGES, TABLE
from dataset_scripts.files.paths import table_inside
from dataset_scripts.files.tables import Row
from dataset_scripts.gaze.tracker_exports import named_columns, read_table, stem_of
from dataset_scripts.gaze.tracker_files import SUFFIXES
from dataset_scripts.ledger import Ledger
from dataset_scripts.schema import UserError

PICTURES = (".png", ".jpg", ".jpeg", ".dcm", ".dicom", ".tif", ".tiff")
TRANSCRIPTS = (".vtt", ".srt", ".txt", ".json")
COLUMNS = ("reading_id", "image", "gaze", "stimulus", "recording", "transcript", "audio_start_seconds", "subject_id",
           "reader_id", *SCREEN_EDGES)  # fmt: skip


def propose(source: Path, columns: Sequence[str] | None) -> str:
    """Write the table, a row for every picture that a reader saw in an export, and say what is to be looked at.

    Raises:
        UserError: there is such a table already, or no export is understood.
    """
    path = table_inside(source, TABLE)
    if path.exists():
        raise UserError(f"{path}: is there already; expected no such table, or no --propose")
    files = [file for file in sorted(source.rglob("[!.]*")) if file.is_file()]
    images, said = (
        {stem_of(file.name): file.relative_to(source).as_posix() for file in files if file.suffix.lower() in suffixes}
        for suffixes in (PICTURES, TRANSCRIPTS)
    )
    rows, notes, ids = list[Row](), list[str](), Counter[str]()
    for file in (file for file in files if file.suffix.lower() in SUFFIXES):
        try:
            rows += _rows(file, source, images, named_columns(columns) if columns else ())
        except UserError as error:
            notes.append(f"passed over {error}")
    if not rows:
        raise UserError(f"{source}: no export of a tracker that is understood; {'; '.join(notes) or 'none is there'}")
    for row in rows:
        name = "_".join(filter(None, [stem_of(row["image"] or row["gaze"]), row["reader_id"]]))
        ids[name] += 1
        spoken = said.get(name.lower()) or said.get(stem_of(row["gaze"]), "")
        row |= {"reading_id": name + f"_{ids[name]}" * (ids[name] > 1), "transcript": spoken * (spoken != row["gaze"])}
    with path.open("x", encoding="utf-8", newline="") as table:
        writer = csv.DictWriter(table, COLUMNS, restval="")
        writer.writeheader()
        writer.writerows(rows)
    blank = sum(not row["image"] for row in rows)
    return "\n".join([*notes, f"{path}: {len(rows)} readings, {blank} of them without an image: check every row"])


def _rows(file: Path, source: Path, images: Row, named: tuple[tuple[str, str], ...]) -> Iterator[Row]:
    """A row a picture and recording; a stimulus that is named as no picture is (a calibration) has none."""
    table = read_table(file, Ledger(), named)
    if table is None:
        return
    shown = set(filter(None, table.cells["stimulus"]))
    if shown and not {stem_of(stimulus) for stimulus in shown} & images.keys():
        raise UserError(f"{file.name}: no picture is named as its stimuli ({', '.join(sorted(shown)[:5])})")
    gaze = file.relative_to(source).as_posix()
    in_name = max((stem for stem in images if _is_in(stem, gaze)), key=len, default="")
    for stimulus, recording in dict.fromkeys(zip(table.cells["stimulus"], table.cells["recording"], strict=True)):
        image = images.get(stem_of(stimulus) if shown else in_name, "")
        if image or not shown:
            yield {
                **{"image": image, "gaze": gaze, "stimulus": stimulus},
                **{"recording": recording, "reader_id": recording.partition(", ")[0]},
            }


def _is_in(stem: str, path: str) -> bool:
    return re.search(rf"(?<![a-z0-9]){re.escape(stem)}(?![a-z0-9])", path.lower()) is not None
