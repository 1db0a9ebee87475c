"""What stands between the page and its input: uploads that do not stay, and faults that are told in words."""

import functools
import hashlib
import html
import logging
import re
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Never, ParamSpec, TypeVar

import gradio as gr
import numpy as np
from gradio.data_classes import FileData

from dataset_scripts.ledger import Dropped
from dataset_scripts.schema import UserError
from egma.page.uploads import MAX_UPLOAD_BYTES

logger = logging.getLogger("egma.page")

DIGEST_CHARACTERS = 16
MESSAGE_SECONDS = 12.0
SILENT = ("pydicom", "PIL", "py.warnings", "asyncio", "uvicorn.error")
SOMETHING_WRONG = "Something went wrong here; the input was not kept. Try again, or another input."
_STRING = re.compile(r'"[^"\\]*+(?:\\.[^"\\]*+)*+"?', re.DOTALL)  # one that does not end, too: a parser stops there
_OPENING = b"[{"
_NO_BRACKETS = bytes(set(range(256)) - set(b"[{]}"))
Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")


def upload(label: str, file_types: list[str], name: str) -> gr.File:
    """A file whose handler gets the path where it waits; `taken` reads it and removes it."""
    component = gr.File(label=label, file_types=file_types, height=140, elem_id=name)
    # Gradio's own makes a second file that stays, and refuses by name; Gradio has checked that it is an upload.
    # Set here, as Gradio writes a .pyi file beside the module of every subclass.
    setattr(component, "preprocess", lambda payload: payload.path if isinstance(payload, FileData) else None)  # noqa: B010
    return component


@contextmanager
def taken(waiting: str) -> Iterator[Path]:
    """An uploaded file while it is read; afterwards it is gone. Logged are its size and hash.

    Raises:
        UserError: it is gone already, empty or too large.
    """
    path = Path(waiting)
    try:
        if not path.is_file():
            raise UserError(f"{path.name}: the file is no longer here; choose it again.")
        size = path.stat().st_size
        if not 0 < size <= MAX_UPLOAD_BYTES:
            raise UserError(f"{path.name}: the file has {size:,} bytes; expected 1 to {MAX_UPLOAD_BYTES:,}.")
        logger.info("upload: %d bytes, sha256 %s", size, _digest(path))
        yield path
    finally:
        path.unlink(missing_ok=True)
        with suppress(OSError):  # another upload lies there too
            path.parent.rmdir()


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:DIGEST_CHARACTERS]


def silence_readers() -> None:
    """Keep what reads pictures from telling the log of what it stumbles over: file names, and values of DICOM tags."""
    logging.captureWarnings(True)
    for name in SILENT:
        reader = logging.getLogger(name)
        reader.addHandler(logging.NullHandler())
        reader.propagate = False


def friendly_process(process: Callable[Parameters, Awaitable[Result]]) -> Callable[Parameters, Awaitable[Result]]:
    """All that Gradio does with an event, with every fault a sentence on the page; what a person typed or sent never
    reaches the log, and Gradio's own faults hold it."""

    @functools.wraps(process)
    async def handled(*args: Parameters.args, **kwargs: Parameters.kwargs) -> Result:
        with _told():
            return await process(*args, **kwargs)

    return handled


@contextmanager
def _told() -> Iterator[None]:
    try:
        yield
    except gr.Error as error:
        error.print_exception = False
        raise
    except Dropped as error:
        _refuse(REASONS.get(error.reason, error.reason.replace("_", " ").capitalize() + "."))
    except UserError as error:
        _refuse(str(error))
    except Exception as error:
        log_fault(error)
        _refuse(SOMETHING_WRONG)


def log_fault(error: Exception) -> None:
    """Log what kind of fault it was and where, and nothing of what it says."""
    where = error.__traceback__
    while where and where.tb_next:
        where = where.tb_next
    place = f"{Path(where.tb_frame.f_code.co_filename).name}:{where.tb_lineno}" if where else ""
    logger.error("%s in %s", type(error).__name__, place)


def _refuse(message: str) -> Never:
    raise gr.Error(_shown(message), print_exception=False, duration=MESSAGE_SECONDS)


def warn(message: str) -> None:
    """Tell the person something, and go on."""
    gr.Warning(_shown(message), duration=MESSAGE_SECONDS)


def _shown(message: str) -> str:
    # messages are shown as HTML, and may hold what a person typed
    return html.escape(message[:1000])


REASONS = {
    "image_not_decodable": "The picture cannot be read: it is damaged, or no PNG, JPEG or DICOM.",
    "image_too_large": "The picture has too many pixels.",
    "image_of_one_grey_level": "The picture is a single grey value or colour; expected a radiograph.",
    "image_16_bits_of_several_channels": "The picture has colours or alpha of 16 bits; expected 8, or grey alone.",
    "unexpected_image_mode": "The picture is of a kind that cannot be shown; expected grey values or RGB.",
    "dicom_several_frames": "The DICOM file holds several frames; expected one picture.",
    "dicom_without_picture": "The DICOM file holds no picture, or is cut off before it.",
    "dicom_with_too_many_items": "The DICOM file holds too many items beside the picture; expected a radiograph's few.",
    "times_run_backwards": "The times of the samples run backwards; expected them in order.",
    "samples_too_far_apart": "The samples are too far apart to find fixations in them; expected 20 a second or more.",
}


def plain(text: str) -> str:
    """A name in which nothing is Markdown or HTML."""
    return "".join(character if character.isalnum() or character in "-_./ " else "_" for character in text)


def require_flat(text: str, name: str, deepest: int, most: int) -> None:
    """Raise UserError where JSON is nested deeper than `deepest`, or holds more than `most` lists and objects.

    Looked at before it is parsed, as a parser makes an object of each, and whoever walks them keeps others waiting.
    """
    outside = _STRING.sub("", text).encode("ascii", "ignore")
    brackets = np.frombuffer(outside.translate(None, _NO_BRACKETS), np.uint8)
    opening = np.isin(brackets, list(_OPENING))
    depth = int(np.where(opening, 1, -1).cumsum().max(initial=0))
    if depth > deepest:
        raise UserError(f"{name}: expected JSON; it is nested {depth:,} deep, and at most {deepest} are read.")
    if opening.sum() > most:
        count = int(opening.sum())
        raise UserError(f"{name}: expected JSON; it holds {count:,} lists and objects, and at most {most:,} are read.")
