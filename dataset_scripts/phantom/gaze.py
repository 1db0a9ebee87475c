"""Where the reader looks while speaking: fixations, blinks and raw samples of one recording.

Everything is in pixels of the original picture and seconds on the clock of the sound recording.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dataset_scripts.phantom.geometry import Ellipse, PixelBox, Pose
from dataset_scripts.phantom.report import Spoken, Word
from dataset_scripts.phantom.world import Reader

BAD_RECORDING_SHARE, ZOOM_SHARE = 0.06, 0.06
SCREEN_WIDTH, SCREEN_HEIGHT, SHOWN_LEFT, SHOWN_RIGHT = 3840, 2160, 660, 3180
SCREEN_PIXELS_PER_DEGREE = 66.0
# where the eyes are when they are not on what is said: searching all of the chest, at another sentence's places, or
# at a place that every reader checks
SEARCH = Ellipse(0.0, -0.12, 0.5, 0.44)
CHECKED = (
    Ellipse(0.13, 0.4, 0.39, 0.31), Ellipse(0.02, -0.3, 0.2, 0.35), Ellipse(-0.24, -0.04, 0.13, 0.14),
    Ellipse(0.25, -0.1, 0.13, 0.14), Ellipse(-0.68, 0.6, 0.15, 0.15), Ellipse(0.68, 0.6, 0.15, 0.15),
    Ellipse(-0.35, -0.68, 0.2, 0.18), Ellipse(0.35, -0.68, 0.2, 0.18),
)  # fmt: skip
LOOK_BACK_SHARE, CHECK_SHARE, RUN_FIXATIONS = 0.2, 0.15, 2.0

FloatColumn = NDArray[np.float64]


@dataclass(frozen=True)
class Recording:
    """Columns of equal length, one entry a fixation: x, y in pixels (possibly outside the picture), times in seconds.

    `blink_after` says that the eyes closed between this fixation and the next; `zoom` gives the index into
    `shown` (the rectangles of the picture on the screen, in pixels; the first one is the whole picture).
    """

    x: FloatColumn
    y: FloatColumn
    start_seconds: FloatColumn
    end_seconds: FloatColumn
    blink_after: NDArray[np.bool_]
    pupil: FloatColumn
    zoom: NDArray[np.int64]
    shown: tuple[PixelBox, ...]


@dataclass(frozen=True)
class Attention:
    """What is spoken of until `until_seconds`; no places: nothing is, the eyes search."""

    until_seconds: float
    places: tuple[Ellipse, ...]
    zoom: int


def record(
    sentences: tuple[Spoken, ...],
    words: tuple[tuple[Word, ...], ...],
    reader: Reader,
    pose: Pose,
    start_seconds: float,
    own_share: float,
    rng: np.random.Generator,
) -> Recording:
    """The eye movements of one reading, the first fixation at `start_seconds`.

    Args:
        own_share: of the looks while a sentence is said, those that belong to it.
    """
    shown = [PixelBox(0.0, 0.0, pose.width, pose.height)]
    plan = _attention_plan(sentences, words, reader, pose, shown, rng)
    times, blinks = _rhythm(start_seconds, plan[-1].until_seconds, reader, rng)
    points, zoom = _scanpath(times, plan, own_share, rng)
    pixels = pose.to_pixels(points) + _tracker_error(len(points), reader, pose, rng)
    _look_away(pixels, pose, rng)
    drift = 0.03 * np.sin(times[:, 0] * 0.3 + rng.uniform(0.0, 6.0))
    pupil = rng.uniform(0.85, 1.05) + drift + rng.normal(0.0, 0.01, len(points))
    return Recording(pixels[:, 0], pixels[:, 1], times[:, 0], times[:, 1], blinks, pupil, zoom, tuple(shown))


def _attention_plan(
    sentences: tuple[Spoken, ...],
    words: tuple[tuple[Word, ...], ...],
    reader: Reader,
    pose: Pose,
    shown: list[PixelBox],
    rng: np.random.Generator,
) -> list[Attention]:
    """First a look around, then the places of one sentence after the other, each ahead of its words."""
    lead = reader.lead_seconds * rng.uniform(0.8, 1.2)
    plan = [Attention(words[0][0].start_seconds - lead, (), 0)]
    for index, sentence in enumerate(sentences):
        zoomed = 0
        if sentence.finding and rng.random() < ZOOM_SHARE:
            zoomed = len(shown)
            shown.append(_zoom_box(sentence.places[0], pose))
        plan.append(Attention(words[index][-1].end_seconds - 0.7 * lead, sentence.places, zoomed))
    plan.append(Attention(words[-1][-1].end_seconds + rng.uniform(0.4, 2.0), (), 0))
    return plan


def _zoom_box(place: Ellipse, pose: Pose) -> PixelBox:
    """Half of the picture's width and height, around a place."""
    x, y = pose.to_pixels(np.array([[place.x, place.y]]))[0]
    left = float(np.clip(x - pose.width / 4, 0.0, pose.width / 2))
    top = float(np.clip(y - pose.height / 4, 0.0, pose.height / 2))
    return PixelBox(left, top, left + pose.width / 2, top + pose.height / 2)


def _rhythm(
    start: float, end: float, reader: Reader, rng: np.random.Generator
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Start and end of every fixation (n, 2), and whether a blink follows it."""
    most = int((max(end - start, 1.0)) / 0.1) + 8
    durations = np.clip(rng.lognormal(np.log(reader.fixation_seconds), 0.42, most), 0.08, 1.5)
    blinks = rng.random(most) < reader.blink_share
    gaps = np.where(blinks, rng.uniform(0.15, 0.4, most), rng.uniform(0.02, 0.06, most))
    starts = start + np.concatenate([[0.0], np.cumsum(durations + gaps)[:-1]])
    kept = starts < max(end, start + 1.0)
    return np.round(np.stack([starts, starts + durations], axis=1)[kept], 3), blinks[kept]


def _scanpath(
    times: NDArray[np.float64], plan: list[Attention], own_share: float, rng: np.random.Generator
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Looked-at points in body coordinates (n, 2), and the shown rectangle of every fixation."""
    count = len(times)
    phase = np.searchsorted([step.until_seconds for step in plan[:-1]], times.mean(axis=1))
    spread, overshoots = rng.normal(0.0, 1.0, (count, 2)), rng.random(count) < 0.05
    points = np.empty((count, 2))
    place, left = SEARCH, 0
    for index, position in enumerate(phase):
        if not left or position != phase[index - 1]:
            place, left = _next_place(plan, position, own_share, rng), int(rng.geometric(1 / RUN_FIXATIONS))
        left -= 1
        dx, dy = spread[index] if place is SEARCH else np.clip(0.45 * spread[index], -1.2, 1.2)
        points[index] = place.x + dx * place.x_radius, place.y + dy * place.y_radius
    points[1:] += 0.2 * overshoots[1:, None] * (points[1:] - points[:-1])
    return points, np.array([plan[position].zoom for position in phase], dtype=np.int64)


def _next_place(plan: list[Attention], position: int, own_share: float, rng: np.random.Generator) -> Ellipse:
    """What a few fixations go to: a place of what is said, of another sentence, a checked one, or the whole chest."""
    own, kind = rng.random(), rng.random()
    spoken = [step.places for step in plan[1:-1]]
    if plan[position].places and own < own_share:
        places = plan[position].places
    elif kind < LOOK_BACK_SHARE:
        places = spoken[int(rng.integers(len(spoken)))]
    else:
        places = CHECKED if kind < LOOK_BACK_SHARE + CHECK_SHARE else (SEARCH,)
    return places[int(rng.integers(len(places)))]


def _tracker_error(count: int, reader: Reader, pose: Pose, rng: np.random.Generator) -> NDArray[np.float64]:
    """A constant offset and a jitter in pixels (n, 2); a bad recording is far off."""
    side = max(pose.width, pose.height)
    bad = rng.random() < BAD_RECORDING_SHARE
    offset = rng.normal(0.0, 0.12 if bad else 0.01, 2)
    jitter = rng.normal(0.0, 0.06 if bad else reader.jitter_fraction, (count, 2))
    return side * (offset + jitter)


def _look_away(pixels: NDArray[np.float64], pose: Pose, rng: np.random.Generator) -> None:
    """Now and then the reader looks at the buttons beside the picture."""
    for index in np.flatnonzero(rng.random(len(pixels)) < 0.015):
        beyond = -0.06 if rng.random() < 0.5 else 1.06
        pixels[index] = beyond * pose.width, rng.uniform(-0.05, 1.05) * pose.height


def pixels_per_degree(box: PixelBox) -> float:
    """Pixels of the picture that one degree of visual angle covers while `box` fills the screen."""
    enlargement = min(
        (SHOWN_RIGHT - SHOWN_LEFT) / (box.x_max - box.x_min), SCREEN_HEIGHT / (box.y_max - box.y_min)
    )  # fmt: skip
    return SCREEN_PIXELS_PER_DEGREE / enlargement


def screen_box(box: PixelBox) -> tuple[int, int, int, int]:
    """Where on the screen `box` is shown: x_min, y_min, x_max, y_max in screen pixels."""
    enlargement = SCREEN_PIXELS_PER_DEGREE / pixels_per_degree(box)
    width, height = (box.x_max - box.x_min) * enlargement, (box.y_max - box.y_min) * enlargement
    left, top = (SCREEN_WIDTH - width) / 2, (SCREEN_HEIGHT - height) / 2
    return round(left), round(top), round(left + width), round(top + height)


@dataclass(frozen=True)
class Samples:
    """Raw samples: columns of equal length; x, y are NaN in a blink; `fixation` indexes the last one begun."""

    seconds: FloatColumn
    x: FloatColumn
    y: FloatColumn
    fixation: NDArray[np.int64]


def sample(recording: Recording, rate_hz: int, rng: np.random.Generator) -> Samples:
    """The recording as a tracker of `rate_hz` would have sampled it."""
    first, last = float(recording.start_seconds[0]), float(recording.end_seconds[-1])
    seconds = first + np.arange(int((last - first) * rate_hz)) / rate_hz
    knots = np.stack([recording.start_seconds, recording.end_seconds], axis=1).ravel()
    fixation = np.clip(np.searchsorted(recording.start_seconds, seconds, side="right") - 1, 0, None)
    closed = recording.blink_after[fixation] & (seconds > recording.end_seconds[fixation])
    columns = []
    for centre in (recording.x, recording.y):
        track = np.interp(seconds, knots, np.repeat(centre, 2)) + rng.normal(0.0, 0.7, len(seconds))
        columns.append(np.where(closed, np.nan, track))
    return Samples(seconds, columns[0], columns[1], fixation)
