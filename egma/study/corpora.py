"""Edited copies of a converted corpus: a marker in the images, or gaze that says less and less.

A copy says in its conversion report what was done to it.
"""

import io
import json
import shutil
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image, ImageDraw

from dataset_scripts.identity import corpus_identity, program_identity
from dataset_scripts.schema import ABSENT, ARROW_SCHEMA, PRESENT, SPLITS, Split, UserError, load_readings, split_files

Row = dict[str, Any]
Edit = Callable[[Row, np.random.Generator], Row]

MARKER_FRACTION = 0.08  # of the shorter side; a bright square in the top left corner, as a lead marker lies
MARKER_INSET = 0.02


def edited_copy(source: Path, output: Path, edits: Mapping[Split, Edit], note: str, seed: int = 0) -> Path:
    """Write the splits named in `edits`, changed, and the others as they are; a complete copy of the same is kept.

    Args:
        edits: a row, as the schema has it with the image's bytes, and a generator that depends on seed, split and
            reading -> the row.
        note: what was done, for `conversion_report.json`.
    """
    report = output / "conversion_report.json"
    made_of = [corpus_identity(source), program_identity(Path(__file__)), note, seed]
    if report.is_file() and json.loads(report.read_text(encoding="utf-8")).get("made_of") == made_of:
        return output
    partial = output.with_name(f".partial-{output.name}")
    shutil.rmtree(partial, ignore_errors=True)
    (partial / "data").mkdir(parents=True)
    for split in SPLITS:
        if not any(source.glob(f"data/{split}-*.parquet")):
            continue
        if split in edits:
            _write_edited(source, partial, split, edits[split], seed)
        else:
            for path in split_files(source, split):
                shutil.copy(path, partial / "data" / path.name)
    original = source / "conversion_report.json"
    known = json.loads(original.read_text(encoding="utf-8")) if original.is_file() else {}
    values = {
        "generated": bool(known.get("generated", False)),
        "edited_copy_of": source.name,
        "edit": note,
        "made_of": made_of,
    }
    (partial / report.name).write_text(json.dumps(values, indent=1) + "\n", encoding="utf-8")
    shutil.rmtree(output, ignore_errors=True)
    partial.rename(output)
    return output


def _write_edited(source: Path, partial: Path, split: Split, edit: Edit, seed: int) -> None:
    rows = load_readings(source, split).cast_column("image", datasets.Image(decode=False))

    def edited() -> Any:
        for place in range(len(rows)):
            row = rows[place]
            name = [seed, SPLITS.index(split), *row["reading_id"].encode()]
            yield edit(row, np.random.default_rng(name))

    shard = pa.Table.from_pylist(list(edited()), schema=ARROW_SCHEMA)
    pq.write_table(shard, partial / "data" / f"{split}-00000-of-00001.parquet")


def marked(finding: str, value: int | None) -> Edit:
    """A marker in the images that say `value` of the finding; None: in no image."""

    def edit(row: Row, _: np.random.Generator) -> Row:
        values = {item["name"]: item["value"] for item in row["findings"]}
        return row if value is None or values.get(finding) != value else row | {"image": _with_marker(row["image"])}

    return edit


def marker_box(width: int, height: int) -> tuple[float, float, float, float]:
    """x_min, y_min, x_max, y_max of the marker, fractions of the image."""
    side, inset = (fraction * min(width, height) for fraction in (MARKER_FRACTION, MARKER_INSET))
    return inset / width, inset / height, (inset + side) / width, (inset + side) / height


def _with_marker(image: Mapping[str, Any]) -> dict[str, Any]:
    with Image.open(io.BytesIO(image["bytes"])) as opened:
        grey = opened.convert("L")
    x_min, y_min, x_max, y_max = marker_box(*grey.size)
    corners = (x_min * grey.width, y_min * grey.height, x_max * grey.width, y_max * grey.height)
    ImageDraw.Draw(grey).rectangle([round(corner) for corner in corners], fill=255)
    buffer = io.BytesIO()
    grey.save(buffer, "PNG")
    return {"bytes": buffer.getvalue(), "path": image["path"]}


def shifted(fraction: float) -> Edit:
    """The whole recording moved by a fraction of the image in a direction of its own, kept inside."""

    def edit(row: Row, random: np.random.Generator) -> Row:
        angle = random.uniform(0, 2 * np.pi)
        return _moved(row, lambda x, y: (x + fraction * np.cos(angle), y + fraction * np.sin(angle)))

    return edit


def at_centre(row: Row, _: np.random.Generator) -> Row:
    """Every fixation in the middle of the image."""
    return _moved(row, lambda x, y: (np.full_like(x, 0.5), np.full_like(y, 0.5)))


def at_random(row: Row, random: np.random.Generator) -> Row:
    """Every fixation anywhere: useless."""
    return _moved(row, lambda x, y: (random.random(len(x)), random.random(len(y))))


def shuffled_sentences(row: Row, random: np.random.Generator) -> Row:
    """The sentences' times dealt out anew inside of the reading: what was looked at goes with other words."""
    spans = [(sentence["start_seconds"], sentence["end_seconds"]) for sentence in row["sentences"]]
    order = random.permutation(len(spans))
    sentences = [
        sentence | {"start_seconds": spans[place][0], "end_seconds": spans[place][1]}
        for sentence, place in zip(row["sentences"], order, strict=True)
    ]
    return row | {"sentences": sentences}


def _moved(row: Row, move: Callable[[np.ndarray, np.ndarray], tuple[Any, Any]]) -> Row:
    fixations = row["fixations"]
    if not fixations or not fixations["x"]:
        return row
    x, y = move(np.asarray(fixations["x"]), np.asarray(fixations["y"]))
    return row | {"fixations": fixations | {"x": np.clip(x, 0, 1).tolist(), "y": np.clip(y, 0, 1).tolist()}}


def most_marked_finding(data: Path) -> str:
    """The finding that most training readings call present and mark with a box, and that others call absent.

    Raises:
        UserError: there is none.
    """
    present: Counter[str] = Counter()
    absent: set[str] = set()
    for row in load_readings(data, "train").select_columns(["findings", "boxes"]):
        labels = {box["label"] for box in row["boxes"]}
        for item in row["findings"]:
            present[item["name"]] += item["value"] == PRESENT and item["name"] in labels
            absent |= {item["name"]} if item["value"] == ABSENT else set()
    usable = [(count, name) for name, count in present.items() if count and name in absent]
    if not usable:
        raise UserError(f"{data}: no finding is present with a box in some training readings and absent in others")
    return max(usable)[1]
