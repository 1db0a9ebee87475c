"""Whose turn it is: what a page asks comes one after the other, and no visitor keeps the others from the model."""

import threading
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gradio as gr
import pytest
import torch
from gradio_client import Client, handle_file

from dataset_scripts.schema import UserError
from egma.page import session as page_session
from egma.page.handlers import Handlers
from egma.page.inputs import Picture
from egma.page.session import SENTENCES_AT_ONCE, PageModel
from modeling_egma import EgmaModel, EgmaProcessor
from tests.egma.page.conftest import Served
from tests.egma.page.hostile import encoded, noise, write
from tests.egma.page.serving import page_model

MANY = "Finding: " + " | ".join(f"prompt number {number}" for number in range(10 * SENTENCES_AT_ONCE))


@pytest.fixture
def handlers(tiny_model: EgmaModel, processor: EgmaProcessor) -> Handlers:
    handlers = Handlers(page_model(tiny_model, processor), None)
    for name in ("long", "short"):
        handlers.sessions.of(name).show(Picture(name, encoded(noise(), "PNG"), 64, 48))
    return handlers


def asking(name: str) -> Any:
    request = gr.Request()
    request.session_hash = name
    return request


class Watched:
    """Texts as they are encoded; the first batch waits until it may go on."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.batches: list[list[str]] = []
        self.begun, self.may_go_on = threading.Event(), threading.Event()
        encode = page_session.text_embeddings

        def encode_watched(model: Any, processor: Any, batch: list[str]) -> torch.Tensor:
            self.batches.append(list(batch))
            self.begun.set()
            self.may_go_on.wait(5)
            return encode(model, processor, batch)

        patch.setattr(page_session, "text_embeddings", encode_watched)


def until(true: Callable[[], bool]) -> None:
    for _ in range(3000):
        if true():
            return
        threading.Event().wait(0.01)
    pytest.fail("not in time")


def test_who_asks_for_little_is_answered_before_who_asked_for_much(
    handlers: Handlers, monkeypatch: pytest.MonkeyPatch
) -> None:
    watched, answered = Watched(monkeypatch), []

    def ask(name: str, prompts: str) -> None:
        handlers.classify(prompts, asking(name))
        answered.append(name)

    long = threading.Thread(target=ask, args=("long", MANY))
    long.start()
    watched.begun.wait(30)
    short = threading.Thread(target=ask, args=("short", "Heart: the heart is large"))
    short.start()
    until(lambda: handlers.model._turns._work_queue.qsize() == 1)
    watched.may_go_on.set()
    for thread in (long, short):
        thread.join(timeout=60)
    assert answered == ["short", "long"]
    assert watched.batches.index(["the heart is large"]) < 3 and len(watched.batches) == 11


def test_what_one_page_asks_comes_one_after_the_other(
    page: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the batches of its first request nothing of its second happens: the picture stays the same."""
    client = Client(page.url, verbose=False)
    picture = handle_file(str(write(tmp_path, "picture.png", encoded(noise(), "PNG"))))
    client.predict(picture, "heart", api_name="/align")
    watched = Watched(monkeypatch)
    long = client.submit(MANY, api_name="/classify")
    watched.begun.wait(30)
    later = client.submit("no effusion", api_name="/read")
    threading.Event().wait(1)
    watched.may_go_on.set()
    assert long.result()["lines"][0]["text"] == "Finding" and later.result()[0]["lines"][0]["text"] == "no effusion"
    assert [len(batch) for batch in watched.batches] == [SENTENCES_AT_ONCE] * 10 + [1]


def test_only_ones_own_time_counts(handlers: Handlers, monkeypatch: pytest.MonkeyPatch) -> None:
    model: PageModel = handlers.model
    session, texts = handlers.sessions.of("long"), [f"number {number}" for number in range(3 * SENTENCES_AT_ONCE)]
    clock = [0.0]
    monkeypatch.setattr(
        page_session, "time", SimpleNamespace(monotonic=lambda: clock[0])
    )  # not that of a server's loop
    in_turn = model.in_turn

    def waited(work: Any, *inputs: Any) -> Any:
        clock[0] += 100
        return in_turn(work, *inputs)

    monkeypatch.setattr(model, "in_turn", waited)
    assert len(model.text_bank(session, texts).embeddings) == len(texts)

    def slow(model: Any, processor: Any, batch: list[str]) -> torch.Tensor:
        clock[0] += 20
        return torch.zeros(len(batch), 12)

    monkeypatch.setattr(page_session, "text_embeddings", slow)
    with pytest.raises(UserError, match="more than 30 seconds"):
        model.text_bank(session, [f"another {number}" for number in range(3 * SENTENCES_AT_ONCE)])
