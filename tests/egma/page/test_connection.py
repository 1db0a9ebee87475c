"""A page outlives what its server holds of it: others took the room, it slept, the line broke, the server ended."""

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from egma.page import session as page_session
from egma.page.corpus import Corpus
from egma.page.handlers import Handlers
from egma.page.session import PageModel, Session
from tests.egma.page.browsing import choose_picture, go, needs_chromium, upload, write_image
from tests.egma.page.conftest import Served
from tests.egma.page.serving import free_port, served

pytestmark = needs_chromium
PICTURE = "an opacity on the left"
GAZE = "x_fraction,y_fraction,start_seconds,duration_seconds\n0.2,0.3,0.1,0.5\n0.7,0.6,0.8,0.4\n"
UNREACHABLE = "The server cannot be reached."


@pytest.fixture
def opened(chromium: Any, page: Served) -> Iterator[Any]:
    """A page of one's own, which hears of no other file's."""
    context = chromium.new_context(viewport={"width": 1280, "height": 900})
    tab = context.new_page()
    tab.goto(page.url)
    tab.wait_for_selector(".egma-lines button")
    yield tab
    context.close()


def only_session(handlers: Handlers) -> Session:
    (session,) = handlers.sessions._sessions.values()
    return session


def record(tab: Any, folder: Path) -> None:
    """A picture of one's own with its recording; what was chosen is gone from the disk afterwards."""
    picture, gaze = write_image(folder, "my case.png", 320, 160), folder / "gaze.csv"
    gaze.write_text(GAZE)
    choose_picture(tab, picture, PICTURE)
    go(tab, "Gaze")
    upload(tab, "recording", gaze)
    tab.get_by_role("button", name="Show this recording").click()
    tab.locator(".egma-table:visible tbody tr").wait_for()
    for path in (picture, gaze):
        path.unlink()


def score(tab: Any) -> None:
    go(tab, "Classify")
    tab.get_by_role("button", name="Score the findings").click()
    tab.locator(".egma-viewer:visible .egma-lines button").first.wait_for()


def forget(handlers: Handlers, how: str) -> None:
    if how == "idle":
        only_session(handlers).last_used_seconds -= 2 * page_session.IDLE_SECONDS
    else:
        for number in range(page_session.MAX_SESSIONS):
            handlers.sessions.of(f"visitor {number}")
    handlers.sessions.of("another visitor")


@pytest.mark.parametrize("how", ["idle", "others"])
def test_a_forgotten_page_simply_goes_on(opened: Any, page: Served, tmp_path: Path, how: str) -> None:
    page.handlers.sessions._sessions.clear()
    opened.reload()
    opened.wait_for_selector(".egma-lines button")
    record(opened, tmp_path)
    before = only_session(page.handlers)
    forget(page.handlers, how)
    assert before not in page.handlers.sessions._sessions.values()
    score(opened)
    *_, after = page.handlers.sessions._sessions.values()
    assert after is not before and after.picture == before.picture and after.report == before.report == [PICTURE]
    assert after.recording == before.recording and after.notes == before.notes
    assert opened.locator(".toast-body, .toast-wrap *").count() == 0
    page.blocks.uploads.sweep(kept_seconds=-1)


def test_a_forgotten_example_is_chosen_again(opened: Any, page: Served) -> None:
    opened.locator(".egma-thumbnails button").nth(1).click()
    report = [sentence["text"] for sentence in page.corpus.examples[1]["sentences"]]
    opened.wait_for_function(
        "text => document.querySelector('.egma-lines .egma-text')?.textContent === text", arg=report[0]
    )
    page.handlers.sessions._sessions.clear()
    go(opened, "Retrieve")
    opened.get_by_role("button", name="Find reports that fit the radiograph").click()
    opened.locator(".egma-found li").first.wait_for()
    session = only_session(page.handlers)
    assert session.report == report and session.picture is not None and session.picture.generated


def test_what_cannot_be_sent_again_is_told(opened: Any, page: Served, tmp_path: Path) -> None:
    choose_picture(opened, write_image(tmp_path, "picture.png", 320, 160), PICTURE)
    opened.route("**/gradio_api/upload*", lambda route: route.fulfill(status=429, json={"detail": "no room"}))
    page.handlers.sessions._sessions.clear()
    opened.locator("#report textarea").fill("the heart is normal")
    opened.get_by_role("button", name="Show where").click()
    opened.get_by_text("The server no longer has your picture: choose it again. Your report is kept.").wait_for()
    assert opened.locator("#report textarea").input_value() == "the heart is normal"
    opened.unroute("**/gradio_api/upload*")
    choose_picture(opened, write_image(tmp_path, "picture.png", 320, 160), "the heart is normal")


def test_without_a_line_it_says_so_and_goes_on_when_it_is_back(opened: Any, tmp_path: Path) -> None:
    choose_picture(opened, write_image(tmp_path, "picture.png", 320, 160), PICTURE)
    opened.context.set_offline(True)
    opened.locator("#report textarea").fill("the heart is normal")
    opened.get_by_role("button", name="Show where").click()
    opened.get_by_text(UNREACHABLE).wait_for()
    assert opened.locator("#report textarea").input_value() == "the heart is normal"
    opened.context.set_offline(False)
    opened.wait_for_function(
        "() => document.querySelector('.egma-lines .egma-text').textContent === 'the heart is normal'"
    )
    opened.get_by_text(UNREACHABLE).wait_for(state="hidden")
    score(opened)


def test_a_server_that_ended_and_began_again_is_no_loss(
    chromium: Any, module_model: PageModel, phantom_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    port, folder, corpus = free_port(), tmp_path / "uploads", Corpus(phantom_data)
    context = chromium.new_context()
    tab = context.new_page()
    with served(held := Handlers(module_model, corpus), folder, monkeypatch, port=port) as page:
        tab.goto(page.local_url)
        tab.wait_for_selector(".egma-lines button")
        record(tab, tmp_path)
        before = only_session(held)
        tab.locator("#report textarea").fill("the heart is normal")
    tab.get_by_role("button", name="Show where").click()
    tab.get_by_text(UNREACHABLE).wait_for()
    with served(held := Handlers(module_model, corpus), folder, monkeypatch, port=port):
        tab.get_by_text(UNREACHABLE).wait_for(state="hidden")
        go(tab, "Align")
        tab.wait_for_function(
            "() => document.querySelector('.egma-lines .egma-text').textContent === 'the heart is normal'"
        )
        after = only_session(held)
        assert (after.picture, after.recording) == (before.picture, before.recording)
        score(tab)
        context.close()


def test_a_page_that_is_closed_after_the_server_began_again_is_forgotten(
    chromium: Any, module_model: PageModel, phantom_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    port, folder, corpus = free_port(), tmp_path / "uploads", Corpus(phantom_data)
    context = chromium.new_context()
    tab = context.new_page()
    with served(Handlers(module_model, corpus), folder, monkeypatch, port=port) as page:
        tab.goto(page.local_url)
        tab.wait_for_selector(".egma-lines button")
    with served(held := Handlers(module_model, corpus), folder, monkeypatch, port=port) as page:
        score(tab)
        assert len(held.sessions._sessions) == len(page.state_holder.session_data) == 1
        context.close()
        end = time.monotonic() + 30
        while held.sessions._sessions and time.monotonic() < end:
            time.sleep(0.1)
        assert not held.sessions._sessions and not page.state_holder.session_data


def test_an_answer_that_the_line_lost_is_told_and_the_page_goes_on(
    chromium: Any, module_model: PageModel, phantom_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    port, folder, corpus = free_port(), tmp_path / "uploads", Corpus(phantom_data)
    encode, begun, end = page_session.text_embeddings, threading.Event(), threading.Event()
    context = chromium.new_context()
    tab = context.new_page()

    def endless(*inputs: Any) -> Any:
        begun.set()
        end.wait(60)
        return encode(*inputs)

    with served(Handlers(module_model, corpus), folder, monkeypatch, port=port) as page:
        tab.goto(page.local_url)
        tab.wait_for_selector(".egma-lines button")
        monkeypatch.setattr(page_session, "text_embeddings", endless)
        tab.locator("#report textarea").fill("the heart is normal")
        tab.get_by_role("button", name="Show where").click()
        begun.wait(30)
        threading.Timer(10, end.set).start()  # long after the line broke
    tab.get_by_text("The connection broke before the answer came.").wait_for()
    with served(Handlers(module_model, corpus), folder, monkeypatch, port=port):
        tab.get_by_role("button", name="Show where").click()
        tab.wait_for_function(
            "() => document.querySelector('.egma-lines .egma-text').textContent === 'the heart is normal'"
        )
        context.close()
