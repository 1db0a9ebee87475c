"""A page that answers while a test runs."""

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from egma.page.handlers import Handlers
from egma.page.page import build_page, launch_options
from egma.page.session import PageModel
from modeling_egma import EgmaModel, EgmaProcessor


def page_model(model: EgmaModel, processor: EgmaProcessor) -> PageModel:
    return PageModel(model, processor, "tiny", "untrained")


@contextmanager
def served(handlers: Handlers, uploads: Path, patch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The page with its address as `local_url`; what is uploaded goes to the folder `uploads`."""
    uploads.mkdir(parents=True, exist_ok=True)
    patch.setenv("GRADIO_TEMP_DIR", str(uploads))
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    page = build_page(handlers, "About this page")
    page.launch(server_name="127.0.0.1", server_port=port, prevent_thread_lock=True, quiet=True, **launch_options())
    try:
        yield page
    finally:
        page.close()
