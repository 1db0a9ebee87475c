"""What trackers' programs export, a row a format, which `tracker_exports` applies; docs/tracker.md lists them.

A column is named by its base: its header in lower case, up to the bracket. The bracket says the unit, and in Tobii's
files whether a position lies on the media or on the screen; of columns of one base the first of `BRACKETS` is read.
Sources: the makers' descriptions of their files, EyeLink's protocol of messages, BIDS 1.11 (eye tracking).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal, NamedTuple

Place = Literal["image", "screen", "scene", "any"]


class Header(NamedTuple):
    """A column's name in the file, its base and what stands in its bracket."""

    name: str
    base: str
    bracket: str


_UNITS = {
    "pixels": "px pixel pixels", "fractions": "normalized fraction fractions", "seconds": "s seconds",
    "milliseconds": "ms milliseconds", "microseconds": "us microseconds", "nanoseconds": "ns nanoseconds",
}  # fmt: skip
# what stands in a bracket -> a unit, and the place that positions refer to, None where it says none
BRACKETS: dict[str, tuple[str, Place | None]] = {
    "mcsnorm": ("fractions", "image"), "mcspx": ("pixels", "image"), "dacspx": ("pixels", "screen"),
    "adcspx": ("pixels", "screen"), **{word: (unit, None) for unit, words in _UNITS.items() for word in words.split()},
}  # fmt: skip


@dataclass(frozen=True, eq=False)
class Format:
    """How to read one kind of export; what a pipe joins are bases of which the first that is there is read.

    Args:
        position: the columns of x and y, `{}` in place of either; of several, one an eye, the mean is read.
        marks: other columns that tell the format from others.
        units: of what no bracket says, by `x` (of both axes), `time`, `start`, `duration`, `end`.
        place: what positions refer to where no bracket says it; `any`: the screen where its edges are given.
        is_upward: y counts from the lower edge.
        valid: columns, and what they hold in a row to be used (`at least 0.6`, a word, "" for 1 or 0); any one
            will do.
        only: a column, and the word that it holds, where it is there, in the rows that are read at all.
        group: the column that numbers fixations which are repeated on every sample.
        is_last: the last of these has the fixation's final position; else it is their mean.
        recording: the columns that together say who read, and in which recording.
        zero: the column with the stimulus's onset, "first row" of the stimulus, or "" where the file's own 0 is it.
        edges: left, top, width and height of the picture on the screen.
    """

    name: str
    position: tuple[str, ...] = ()
    time: str = ""
    start: str = ""
    duration: str = ""
    end: str = ""
    marks: tuple[str, ...] = ()
    units: Mapping[str, str] = field(default_factory=dict)
    place: Place = "screen"
    is_upward: bool = False
    valid: tuple[tuple[str, str], ...] = ()
    only: tuple[str, str] | None = None
    group: str = ""
    is_last: bool = False
    stimulus: str = ""
    recording: tuple[str, ...] = ()
    zero: str = "first row"
    edges: tuple[str, ...] = ()


_PRO_LAB = Format(
    "", units={"x": "pixels"}, stimulus="presented stimulus name|presented media name|recording media name",
    recording=("participant name", "recording name"),
    edges=tuple(f"presented media {edge}" for edge in ("position x", "position y", "width", "height")),
)  # fmt: skip
_TIMES = dict.fromkeys(("time", "start", "duration", "end"), "milliseconds")
_EYELINK = Format("", units={"x": "pixels", **_TIMES})
_ASC = replace(
    _EYELINK, stimulus="asc stimulus", zero="asc onset", edges=("asc left", "asc top", "asc width", "asc height")
)
_REPORT = replace(
    _EYELINK, stimulus="image|picture|stimulus|image_file|trial_label|trial_index",
    recording=("recording_session_label",),
)  # fmt: skip
_IN_SECONDS = {"x": "fractions", "time": "seconds", "start": "seconds"}
_SURFACE = Format("", units=_IN_SECONDS | {"duration": "milliseconds"}, place="image", is_upward=True)
_NEON = Format(
    "", start="start timestamp", duration="duration", place="image", recording=("recording id", "section id")
)
_MAPPED = ("in reference image", "on surface")  # by the reference image mapper, by the marker mapper

FORMATS = (
    replace(_PRO_LAB, name="Tobii Pro Lab fixations", position=("fixation point {}",), start="recording timestamp",
        duration="gaze event duration|eye movement event duration", marks=("eye movement type",),
        only=("eye movement type", "fixation"), group="eye movement type index"),
    replace(_PRO_LAB, name="Tobii Pro Lab samples", position=("gaze point {}",),
        time="recording timestamp|eyetracker timestamp|computer timestamp", only=("sensor", "eye tracker"),
        valid=(("validity left", "valid"), ("validity right", "valid"))),
    replace(_ASC, name="EyeLink ASC fixations", position=("asc {}",), start="asc start", duration="asc duration"),
    replace(_REPORT, name="EyeLink fixation report", position=("current_fix_{}",), start="current_fix_start",
        duration="current_fix_duration", end="current_fix_end", zero=""),
    replace(_REPORT, name="EyeLink sample report", position=("left_gaze_{}", "right_gaze_{}"), time="timestamp"),
    replace(_SURFACE, name="Pupil Core fixations on a surface", position=("norm_pos_{}",),
        start="start_timestamp", duration="duration", marks=("on_surf",), valid=(("on_surf", "true"),),
        group="fixation_id"),
    replace(_SURFACE, name="Pupil Core gaze on a surface", position=("{}_norm",), time="gaze_timestamp",
        marks=("on_surf",), valid=(("confidence", "at least 0.6"),)),
    Format("Pupil Core scene camera", ("norm_pos_{}",), time="gaze_timestamp|start_timestamp", place="scene"),
    *(replace(_NEON, name=f"Pupil Neon fixations {what}", position=("fixation {}",),
        marks=(f"fixation detected {what}",), valid=((f"fixation detected {what}", "true"),)) for what in _MAPPED),
    *(replace(_NEON, name=f"Pupil Neon gaze {what}", position=(f"gaze position {what} {{}}",), time="timestamp",
        start="", duration="", valid=((f"gaze detected {what}", "true"),)) for what in _MAPPED),
    replace(_NEON, name="Pupil Neon scene camera", position=("fixation {}",), place="scene"),
    Format("Pupil Neon scene camera", ("gaze {}",), time="timestamp", place="scene"),
    Format("Gazepoint", ("fpog{}",), start="fpogs", duration="fpogd", units=_IN_SECONDS | {"duration": "seconds"},
        valid=(("fpogv", "at least 1"),), group="fpogid", is_last=True, stimulus="media_name|media_id", zero=""),
    Format("WebGazer in jsPsych", ("webgazer {}",), time="webgazer t", units={"x": "pixels", **_TIMES},
        stimulus="stimulus", zero="", edges=("left", "top", "width", "height")),
    Format("BIDS eye tracking", ("{}_coordinate",), time="timestamp", marks=("bids stimulus",),
        stimulus="bids stimulus"),
)  # fmt: skip


OWN = Format(
    "a table of the lab's own", ("{}",), "time|timestamp", "start", "duration", "end", place="any", zero="",
    valid=(("valid", ""),), stimulus="stimulus", recording=("recording",),
)  # fmt: skip


def header(name: str) -> Header:
    """The base and the bracket of a column's name; a unit after an underscore (`start_ms`) counts as a bracket."""
    base, opened, rest = name.strip().lower().replace("(", "[").partition("[")
    bracket = "".join(rest.partition("]")[0].partition(")")[0].split()).replace("μ", "u").replace("µ", "u")
    stem, _, suffix = base.rpartition("_")
    if not opened and stem and suffix in BRACKETS:
        base, bracket = stem, suffix
    return Header(name.strip(), base.strip(), bracket)
