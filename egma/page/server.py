"""The page behind its guard, answering from a thread."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import gradio as gr
import uvicorn
from fastapi import FastAPI
from starlette.middleware.gzip import GZipMiddleware

from dataset_scripts.schema import UserError
from egma.page.guard import Door, Guard
from egma.page.page import Page, launch_options
from egma.page.session import MAX_SESSIONS
from egma.page.uploads import SWEPT_EVERY_SECONDS, Uploads

OPTIONS: dict[str, Any] = {"log_config": None, "access_log": False, "server_header": False, "ws": "none"}
OPTIONS |= {"lifespan": "on", "timeout_graceful_shutdown": 2}


@contextmanager
def answering(page: Page, host: str, port: int, door: Door, folder: Path) -> Iterator[Uploads]:
    """Answer while the block runs.

    Args:
        folder: of what is uploaded; made where it is missing.

    Raises:
        UserError: it cannot answer on that address.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    uploads, ended = Uploads(folder), threading.Event()
    # Gradio's `launch` puts its own middleware, which answers any origin, in front of all others
    page.state_session_capacity = MAX_SESSIONS  # Gradio's own copies of what the components show
    app = gr.mount_gradio_app(
        FastAPI(openapi_url=None), page, "/", root_path=door.root_path or None, **launch_options()
    )
    page.is_running = page.has_launched = True
    guard = Guard(GZipMiddleware(app), door, uploads, page.sessions.has_lost)
    server = uvicorn.Server(uvicorn.Config(guard, host, port, **OPTIONS))
    threads = [threading.Thread(target=server.run), threading.Thread(target=_sweep, args=(uploads, ended))]
    for thread in threads:
        thread.start()
    try:
        while not server.started:
            if not threads[0].is_alive():
                raise UserError(f"{host}:{port}: the page could not be started there")
            time.sleep(0.01)
        yield uploads
    finally:
        server.should_exit, page.is_running = True, False
        ended.set()
        for thread in threads:
            thread.join()
        uploads.sweep(-1)


def _sweep(uploads: Uploads, ended: threading.Event) -> None:
    while not ended.wait(SWEPT_EVERY_SECONDS):
        uploads.sweep()
