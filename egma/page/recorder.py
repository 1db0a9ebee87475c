"""A mouse as an eye tracker: the trace that the page recorded -> a reading of the schema that `build.py tracker` takes.

The pointer's places on the picture are samples, from which fixations are found as in a lab's own samples
(`dataset_scripts.gaze.tracker_gaze`). A sentence lasts from the end of the one before, or the start, to its own end.
"""

import secrets
from collections.abc import Mapping
from typing import Any, cast

import numpy as np

from dataset_scripts.files.tables import FloatArray
from dataset_scripts.gaze.fixations import valid_fixations
from dataset_scripts.gaze.tracker_columns import Frame
from dataset_scripts.gaze.tracker_gaze import DETECTED_TABLE, fixations_in_samples
from dataset_scripts.ledger import Ledger
from dataset_scripts.schema import GENERATED_PREFIX, Fixations, Sentence, UserError
from egma.page.inputs import MOUSE_SOURCE, Picture, check_sentences

MAX_SAMPLES = 100_000  # half an hour at 60 Hz
MAX_NAME_CHARACTERS = 60
LARGEST = 1e9

Json = dict[str, Any]


def reading_of_trace(trace: Mapping[str, Any], picture: Picture) -> Json:
    """The reading as JSON: every column of the schema, `image` being the name of the picture's file beside it,
    `width` and `height` that file's.

    Args:
        trace: `samples` with `x`, `y` (fractions of the image) and `time` (seconds); `sentences` with `text`,
            `start_seconds`, `end_seconds`; `subject_id` and `reader_id`, blank where the person gave none.

    Raises:
        UserError: a trace of another form, without a sentence, or in which the pointer rested nowhere.
    """
    sentences = _sentences(trace.get("sentences"))
    fixations = _fixations(trace.get("samples"), picture)
    width, height = picture.image.size
    return {
        "reading_id": f"mouse_{picture.name}_{secrets.token_hex(4)}",
        "image": f"{picture.name}.png",
        "image_id": picture.name,
        "study_id": None,
        "subject_id": _name(trace.get("subject_id"), "patient"),
        "reader_id": _name(trace.get("reader_id"), "reader"),
        "source": f"{GENERATED_PREFIX if picture.generated else ''}{MOUSE_SOURCE}",
        "view": None,
        "sex": None,
        "age_years": None,
        "license": None,
        "width": width,
        "height": height,
        "sentences": sentences,
        "fixations": fixations,
        "findings": [],
        "boxes": [],
    }


def _sentences(given: object) -> list[Sentence]:
    if not isinstance(given, list) or not all(isinstance(one, dict) for one in given):
        raise UserError("The trace has no sentences.")
    sentences = []
    for one in given:
        text, start, end = (one.get(name) for name in Sentence.__annotations__)
        if not isinstance(text, str) or not (_is_number(start) and _is_number(end) and 0 <= start <= end):
            raise UserError("A sentence of the trace is not as expected: text, start_seconds and end_seconds.")
        if text.strip():
            sentences.append(Sentence(text=text.strip(), start_seconds=float(start), end_seconds=float(end)))
    if not sentences:
        raise UserError("Write what was said: no sentence has a word yet.")
    check_sentences([sentence["text"] for sentence in sentences])
    return sentences


def _fixations(samples: object, picture: Picture) -> Fixations:
    if not isinstance(samples, dict):
        raise UserError("The trace has no samples.")
    x, y, time = (_column(samples.get(name)) for name in ("x", "y", "time"))
    if not len(x) == len(y) == len(time) <= MAX_SAMPLES:
        raise UserError(f"The trace's samples differ in length, or are more than {MAX_SAMPLES:,}.")
    kept = np.diff(time, prepend=-np.inf) > 0
    frame = Frame(picture.width, picture.height, screen=(), width_degrees=None)
    found = fixations_in_samples(x[kept], y[kept], time[kept], frame)
    fixations = valid_fixations(found, DETECTED_TABLE, "trace", Ledger())
    if fixations is None:
        raise UserError("The pointer rested nowhere on the picture; let it stay where you look.")
    return fixations


def _column(values: object) -> FloatArray:
    if not isinstance(values, list) or not all(map(_is_number, values)):
        raise UserError("The trace's samples are no lists of numbers.")
    return np.array(values, dtype=np.float64)


def _is_number(value: object) -> bool:
    """Whether JSON gave a number (no boolean, no NaN) that a clock or a picture can show."""
    return type(value) in (int, float) and abs(cast(float, value)) <= LARGEST


def _name(given: object, what: str) -> str | None:
    if given is None or given == "":
        return None
    if not isinstance(given, str) or len(given) > MAX_NAME_CHARACTERS:
        raise UserError(f"The {what} is no text of at most {MAX_NAME_CHARACTERS} characters.")
    return given.strip() or None
