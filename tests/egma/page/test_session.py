"""Whose turn it is: what a page asks comes one after the other, and no visitor keeps the others from the model."""

import threading
from typing import Any

import gradio as gr
import pytest
import torch

from dataset_scripts.schema import UserError
from egma.page import session as page_session
from egma.page.handlers import Handlers
from egma.page.inputs import Picture
from egma.page.session import SENTENCES_AT_ONCE, PageModel, Turns
from modeling_egma import EgmaModel, EgmaProcessor
from tests.egma.page.hostile import encoded, noise
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
            self.may_go_on.wait(30)
            return encode(model, processor, batch)

        patch.setattr(page_session, "text_embeddings", encode_watched)


def until_waiting(turns: Turns, count: int) -> None:
    for _ in range(3000):
        if len(turns._asked) == count:
            return
        threading.Event().wait(0.01)
    pytest.fail("nobody waits")


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
    until_waiting(handlers.model.turns, 2)
    watched.may_go_on.set()
    for thread in (long, short):
        thread.join(timeout=60)
    assert answered == ["short", "long"]
    assert watched.batches[1] == ["the heart is large"] and len(watched.batches) == 11


def test_what_one_page_asks_comes_one_after_the_other(handlers: Handlers, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between the batches of its first request nothing of its second happens: the picture stays the same."""
    watched = Watched(monkeypatch)
    shown: list[Any] = []
    long = threading.Thread(target=lambda: shown.append(handlers.classify(MANY, asking("long"))))
    long.start()
    watched.begun.wait(30)
    later = threading.Thread(target=lambda: shown.append(handlers.read("no effusion", asking("long"))))
    later.start()
    until_waiting(handlers.sessions.of("long").turns, 2)
    watched.may_go_on.set()
    for thread in (long, later):
        thread.join(timeout=60)
    assert [len(batch) for batch in watched.batches] == [SENTENCES_AT_ONCE] * 10 + [1]
    assert shown[0]["lines"][0]["text"] == "Finding" and shown[1][0]["lines"][0]["text"] == "no effusion"


def test_only_ones_own_time_counts(handlers: Handlers, monkeypatch: pytest.MonkeyPatch) -> None:
    model: PageModel = handlers.model
    session, texts = handlers.sessions.of("long"), [f"number {number}" for number in range(3 * SENTENCES_AT_ONCE)]
    clock = [0.0]
    monkeypatch.setattr(page_session.time, "monotonic", lambda: clock[0])
    monkeypatch.setattr(model.turns, "pass_on", lambda: clock.__setitem__(0, clock[0] + 100))
    assert len(model.text_bank(session, texts).embeddings) == len(texts)

    def slow(model: Any, processor: Any, batch: list[str]) -> torch.Tensor:
        clock[0] += 20
        return torch.zeros(len(batch), 12)

    monkeypatch.setattr(page_session, "text_embeddings", slow)
    with pytest.raises(UserError, match="more than 30 seconds"):
        model.text_bank(session, [f"another {number}" for number in range(3 * SENTENCES_AT_ONCE)])


def test_turns_come_in_the_order_in_which_they_were_asked_for() -> None:
    turns, order = Turns(), []
    threads = []

    def take(number: int) -> None:
        with turns.mine():
            order.append(number)
            turns.pass_on()
            order.append(number)

    with turns.mine():
        for number in range(4):
            threads.append(threading.Thread(target=take, args=(number,)))
            threads[-1].start()
            until_waiting(turns, number + 2)
    for thread in threads:
        thread.join(timeout=10)
    assert order == [0, 1, 2, 3, 0, 1, 2, 3] and not turns._asked
    turns.pass_on()  # of what one does not have, nothing
