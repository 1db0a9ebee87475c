"""The one schema of every corpus: a row is one reading of one image.

Everything downstream (training, evaluation, the demo page) reads rows of this form and nothing else.
Coordinates are fractions of the image frame (0, 0 top left; 1, 1 bottom right), times are seconds on the
recording's clock. What a corpus does not know is null, never a made-up value.
"""

import hashlib
import io
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, NamedTuple, NotRequired, TypedDict

import pyarrow as pa
import pyarrow.parquet as pq
from datasets import Dataset, Features, Image, List, NamedSplit, Value, config
from PIL import Image as Pillow

from dataset_scripts.identity import stamp

Split = Literal["train", "validation", "test"]
SPLITS: tuple[Split, ...] = ("train", "validation", "test")

PRESENT, ABSENT, UNCERTAIN = 1, 0, -1
SCHEMA_VERSION, VERSION_KEY = 2, b"egma_schema_version"  # the key is of the Parquet files; version 1 has none
NEW_COLUMNS = ("sex", "age_years")  # since version 2; null in a corpus that was written before
# of a picture before it is decoded, at every door; `modeling_egma.pictures_egma` has the same, as it imports nothing
MAX_PIXELS, MAX_PIXEL_BYTES, MAX_SIDE = 32_000_000, 96_000_000, 8192
GENERATED_PREFIX = "phantom/"  # of the source of a reading without a patient


class UserError(ValueError):
    """A mistake in the user's input: a program prints its one sentence and exits with code 2."""


@contextmanager
def naming(what: str) -> Iterator[None]:
    """Where a value is refused, say whose it is."""
    try:
        yield
    except ValueError as error:
        raise UserError(f"{what}: {error}") from None


class Sentence(TypedDict):
    """One spoken or written sentence; the times are null when the text is untimed."""

    text: str
    start_seconds: float | None
    end_seconds: float | None


def sentence_span(sentence: Sentence) -> tuple[float, float] | None:
    """Start and end in seconds; None when the sentence is untimed."""
    start, end = sentence["start_seconds"], sentence["end_seconds"]
    return None if start is None or end is None else (start, end)


class Fixations(TypedDict):
    """Columns of equal length, one entry a fixation; `start` may be negative (eyes recorded before the audio).

    `sigma_x`, `sigma_y` are one degree of visual angle as fractions of the image's width and height;
    `x_min` ... `y_max` is the rectangle of the image that was shown (zoom and pan). Null where the corpus has none.
    """

    x: list[float]
    y: list[float]
    start: list[float]
    duration: list[float]
    sigma_x: NotRequired[list[float] | None]
    sigma_y: NotRequired[list[float] | None]
    x_min: NotRequired[list[float] | None]
    y_min: NotRequired[list[float] | None]
    x_max: NotRequired[list[float] | None]
    y_max: NotRequired[list[float] | None]


class Finding(TypedDict):
    """`value` is 1 present, 0 absent, -1 uncertain; a finding that nobody mentioned is not listed."""

    name: str
    value: int


class Box(TypedDict):
    """A box, or the ellipse inscribed in it; `certainty` is the corpus's own scale, null where it has none."""

    label: str
    shape: Literal["box", "ellipse"]
    x_min: float
    y_min: float
    x_max: float
    y_max: float
    certainty: float | None


class Reading(TypedDict):
    """One row; `image` is null in gaze alone, `sex` F or M, `age_years` that at the time of the image."""

    image: object
    image_id: str
    study_id: str | None
    subject_id: str | None
    reading_id: str
    reader_id: str | None
    source: str
    view: str | None
    sex: str | None
    age_years: float | None
    license: str | None
    width: int
    height: int
    sentences: list[Sentence]
    fixations: Fixations | None
    findings: list[Finding]
    boxes: list[Box]


def oversize(width: int, height: int, channels: int) -> str:
    """What is too large about a picture that is not decoded yet, "" if nothing is."""
    most = min(MAX_PIXELS, MAX_PIXEL_BYTES // channels)
    if width * height <= most and max(width, height) <= MAX_SIDE:
        return ""
    return f"{width:,} x {height:,} pixels of {channels} channels; at most {most:,}, and {MAX_SIDE:,} a side, are read"


class GuardedImage(Image):
    """The pictures of a corpus, refused where they are too large or damaged; to `datasets` its own kind."""

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Image) and (self.mode, self.decode) == (other.mode, other.decode)

    def decode_example(self, value: Any, token_per_repo_id: Any = None) -> Pillow.Image:
        """A row's picture.

        Raises:
            UserError: it is too large, or cannot be decoded.
        """
        try:
            with Pillow.open(io.BytesIO(value["bytes"]) if value["bytes"] else value["path"]) as header:
                said = oversize(*header.size, len(header.getbands()))
            if not said:
                return super().decode_example(value, token_per_repo_id)
        except Exception as error:  # a damaged file makes the decoders fail in any way
            said = f"{type(error).__name__} {error}"[:200]
        raise UserError(f"the picture cannot be read: {said}")


def _features() -> Features:
    string, number = Value("string"), Value("float64")
    return Features(
        {
            "image": GuardedImage(),
            "image_id": string,
            "study_id": string,
            "subject_id": string,
            "reading_id": string,
            "reader_id": string,
            "source": string,
            "view": string,
            "sex": string,
            "age_years": number,
            "license": string,
            "width": Value("int32"),
            "height": Value("int32"),
            "sentences": List({"text": string, "start_seconds": number, "end_seconds": number}),
            "fixations": {
                name: List(number)
                for name in (
                    *("x", "y", "start", "duration", "sigma_x", "sigma_y"),
                    *("x_min", "y_min", "x_max", "y_max"),
                )
            },
            "findings": List({"name": string, "value": Value("int8")}),
            "boxes": List(
                {"label": string, "shape": string}
                | {name: number for name in ("x_min", "y_min", "x_max", "y_max", "certainty")}
            ),
        }
    )


FEATURES = _features()


def _with_plain_lists(described: Any) -> Any:
    """Features as JSON, lists as [item], which every version since 3.0 reads: the type List came with 4.0."""
    if not isinstance(described, dict):
        return described
    if described.get("_type") == "List":
        return [_with_plain_lists(described["feature"])]
    return {name: _with_plain_lists(value) for name, value in described.items()}


_METADATA = json.dumps({"info": {"features": _with_plain_lists(FEATURES.to_dict())}})
ARROW_SCHEMA: pa.Schema = FEATURES.arrow_schema.with_metadata(
    {"huggingface": _METADATA, VERSION_KEY: str(SCHEMA_VERSION)}
)


def split_files(directory: str | Path, split: Split, needs_images: bool = True) -> list[Path]:
    """The shards of one split of a converted corpus: the door through which every program comes to them.

    Raises:
        UserError: the folder or the split is missing, a newer program wrote it, or it has readings without the image
            that the caller needs.
    """
    directory = Path(directory)
    if not directory.is_dir():
        raise UserError(f"{directory}: no such folder; expected a corpus written by `python -m dataset_scripts.build`")
    files = sorted(directory.glob(f"data/{split}-*.parquet"))
    if not files:
        found = sorted({path.name.split("-")[0] for path in directory.glob("data/[!.]*.parquet")})
        raise UserError(
            f"{directory}: no split '{split}' (data/{split}-*.parquet); "
            + (f"it has {', '.join(found)}" if found else "it holds no converted corpus at all")
        )
    for path in files:
        about = pq.read_metadata(path)
        version = int((about.metadata or {}).get(VERSION_KEY, 1))
        if version > SCHEMA_VERSION:
            raise UserError(
                f"{path}: version {version} of the schema; expected {SCHEMA_VERSION} or older: a newer program wrote it"
            )
        if needs_images and (count := _without_image(about)):
            raise UserError(f"{path}: {count} readings have no image; expected a corpus with images, not gaze alone")
    return files


def has_split(directory: str | Path, split: Split) -> bool:
    return any(Path(directory).glob(f"data/{split}-*.parquet"))


def _without_image(about: pq.FileMetaData) -> int:
    """How many rows have neither the bytes nor the path of an image, as the file's statistics say."""
    count = 0
    for group in map(about.row_group, range(about.num_row_groups)):
        columns = [group.column(place) for place in range(group.num_columns)]
        nulls = [
            one.statistics.null_count for one in columns if one.path_in_schema.startswith("image.") and one.statistics
        ]
        count += min(nulls, default=0)
    return count


def load_readings(directory: str | Path, split: Split, needs_images: bool = True) -> Dataset:
    """Open one split of a converted corpus, of this version of the schema or an older one.

    Raises:
        UserError: see `split_files`; or a column is missing, or the split is empty.
    """
    files = split_files(directory, split, needs_images)
    # not load_dataset, which tells the Hub that it was called; its cache knows a file by path and time alone
    stamps = hashlib.sha256(" ".join(map(stamp, files)).encode()).hexdigest()
    cache = Path(config.HF_DATASETS_CACHE) / f"egma-{stamps[:16]}"
    rows = Dataset.from_parquet([str(path) for path in files], split=NamedSplit(split), cache_dir=str(cache))
    assert isinstance(rows, Dataset)
    if "image" in rows.column_names:
        rows = rows.cast_column("image", FEATURES["image"])
    rows = with_new_columns(rows)
    missing = [name for name in FEATURES if name not in rows.column_names]
    if missing:
        raise UserError(f"{directory}: split '{split}' lacks the column(s) {', '.join(missing)} of the schema")
    if len(rows) == 0:
        raise UserError(f"{directory}: split '{split}' is empty; expected at least one reading")
    return rows


def with_new_columns(rows: Dataset) -> Dataset:
    """The same rows, null in the columns that the schema has by now and they have not."""
    for name in NEW_COLUMNS:
        if name not in rows.column_names:
            rows = rows.add_column(name, [None] * len(rows), feature=FEATURES[name])
    return rows.select_columns(sorted(rows.column_names, key=[*FEATURES, *rows.column_names].index))


def is_generated(directory: str | Path) -> bool:
    """Whether the corpus says of itself, in its conversion report, that no patient is behind it."""
    report = Path(directory) / "conversion_report.json"
    return report.is_file() and bool(json.loads(report.read_text(encoding="utf-8")).get("generated", False))


class Recording(NamedTuple):
    """What a reader left on one image, in the units of the schema."""

    sentences: list[Sentence]
    fixations: Fixations | None
    findings: list[Finding]
    boxes: list[Box]
