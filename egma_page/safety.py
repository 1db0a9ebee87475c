"""What stands between the page and the world: uploads that do not stay, faults told in words, no address fetched."""

import functools
import hashlib
import html
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Never, ParamSpec, TypeVar

import gradio as gr
from gradio import processing_utils
from gradio.data_classes import FileData

from dataset_scripts.conversion import Dropped
from dataset_scripts.schema import UserError

logger = logging.getLogger("egma_page")

MAX_UPLOAD_BYTES = 1 << 25
UPLOADS_CHECKED_EVERY_SECONDS, UPLOADS_KEPT_SECONDS = 30, 120  # for those that no event came for
DIGEST_CHARACTERS = 16
MESSAGE_SECONDS = 12.0
SILENT = ("pydicom", "PIL", "py.warnings")
# nothing but this server answers what the page asks; Gradio compiles its components' scripts in the browser
CONTENT_SECURITY_POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; font-src 'self' data:; connect-src 'self'; object-src 'none'; "
    "base-uri 'self'; form-action 'self'; frame-ancestors 'self'"
)
HEADERS = {
    "content-security-policy": CONTENT_SECURITY_POLICY,
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
}
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


def friendly(handler: Callable[Parameters, Result]) -> Callable[Parameters, Result]:
    """A handler whose every fault is a sentence on the page; what a person typed or sent never reaches the log."""

    @functools.wraps(handler)
    def handled(*args: Parameters.args, **kwargs: Parameters.kwargs) -> Result:
        try:
            return handler(*args, **kwargs)
        except Dropped as error:
            _refuse(REASONS.get(error.reason, error.reason.replace("_", " ").capitalize() + "."))
        except UserError as error:
            _refuse(str(error))
        except Exception as error:
            where = error.__traceback__
            while where and where.tb_next:
                where = where.tb_next
            place = f"{Path(where.tb_frame.f_code.co_filename).name}:{where.tb_lineno}" if where else ""
            logger.error("%s in %s", type(error).__name__, place)
            _refuse("Something went wrong here; the input was not kept. Try again, or another input.")

    return handled


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
    "times_run_backwards": "The times of the samples run backwards; expected them in order.",
    "samples_too_far_apart": "The samples are too far apart to find fixations in them; expected 20 a second or more.",
}


def refuse_addresses() -> None:
    """Keep Gradio from fetching an address that a client sends in place of an uploaded file."""
    processing_utils.async_ssrf_protected_download = _no_address


async def _no_address(url: str, cache_dir: str) -> Never:
    raise gr.Error("Files are uploaded; addresses are not fetched.", print_exception=False)


class SecurityHeaders:
    """ASGI middleware: `HEADERS` on every answer."""

    def __init__(self, app: Any) -> None:
        self.app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        async def send_with_headers(message: Any) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], *((k.encode(), v.encode()) for k, v in HEADERS.items())]
            await send(message)

        await self.app(scope, receive, send_with_headers)
