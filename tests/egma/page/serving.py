"""A page that answers while a test runs."""

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from egma.page.guard import Door
from egma.page.handlers import Handlers
from egma.page.page import build_page
from egma.page.server import answering
from egma.page.session import PageModel
from modeling_egma import EgmaModel, EgmaProcessor


def page_model(model: EgmaModel, processor: EgmaProcessor) -> PageModel:
    return PageModel(model, processor, "tiny", "untrained")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def served(
    handlers: Handlers,
    uploads: Path,
    patch: pytest.MonkeyPatch,
    door: Door = Door(),  # noqa: B008
    port: int | None = None,
) -> Iterator[Any]:
    """The page with its address as `local_url`; what is uploaded goes to the folder `uploads`, and is `uploads`."""
    patch.setenv("GRADIO_TEMP_DIR", str(uploads))
    port = port or free_port()
    page = build_page(handlers, "About this page")
    with answering(page, "127.0.0.1", port, door, uploads) as page.uploads:
        page.local_url = f"http://127.0.0.1:{port}/"
        yield page
