"""What the page asks for in a browser is what the guard lets through, and nothing of it is refused."""

from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

from egma.page import guard
from egma.page.guard import API, ROUTES, Door
from egma.page.handlers import Handlers
from egma.page.session import PageModel
from tests.egma.page.browsing import needs_chromium, write_image
from tests.egma.page.conftest import Served
from tests.egma.page.serving import served
from tests.egma.page.test_browser import choose_picture, go

pytestmark = needs_chromium
# asked for by a browser or by `gradio_client`, not by the page
OF_OTHERS = {
    *(("HEAD", "/"), ("GET", "/config"), ("GET", f"{API}/info")),
    *(("GET", "/favicon.ico"), ("GET", "/manifest.json")),
}
ASKED_BY_NAME = {
    *OF_OTHERS,
    *(("GET", f"{API}/queue/data"), ("GET", f"{API}/upload_progress"), ("POST", f"{API}/queue/join")),
    *(("POST", f"{API}/upload"), ("GET", "/"), ("GET", "/theme.css")),
}


def test_the_guard_lets_through_what_the_page_asks_for(chromium: Any, page: Served, tmp_path: Path) -> None:
    asked: list[tuple[str, str]] = []
    refused: list[str] = []
    tab = chromium.new_page()
    tab.on("request", lambda request: asked.append((request.method, request.url)))
    tab.on("response", lambda answer: refused.append(answer.url) if answer.status >= 400 else None)
    tab.goto(page.url)
    tab.wait_for_selector(".egma-lines button")
    choose_picture(tab, write_image(tmp_path, "picture.png", 320, 160), "no effusion")
    for name in ("Gaze", "Classify", "Retrieve", "Record", "About"):
        go(tab, name)
    tab.close()
    own = {(method, urlsplit(url).path) for method, url in asked if url.startswith(page.url)}
    assert refused == [] and all(ROUTES[method].fullmatch(path) for method, path in own)
    families = ("/assets/", "/static/", f"{API}/heartbeat/")
    assert all(any(path.startswith(family) for _, path in own) for family in families)
    assert {one for one in own if not one[1].startswith(families)} | OF_OTHERS == ASKED_BY_NAME


def test_a_refusal_is_read_on_the_page(chromium: Any, page: Served) -> None:
    tab = chromium.new_page()
    tab.goto(page.url)
    tab.wait_for_selector(".egma-lines button")
    tab.locator("#report textarea").evaluate("(one) => { one.value = 'x'.repeat(2_200_000); }")
    tab.locator("#report textarea").dispatch_event("input")
    tab.get_by_role("button", name="Show where").click()
    tab.get_by_text("at most 2,097,152 are read").first.wait_for()
    tab.close()


def test_who_asks_too_often_reads_it_on_the_page_and_goes_on(
    chromium: Any, page: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tab = chromium.new_page()
    tab.goto(page.url)
    tab.wait_for_selector(".egma-lines button")
    told = tab.get_by_text("Too many requests came from your address; wait a moment, and try again.").first
    with monkeypatch.context() as patch:
        patch.setattr(guard, "MOST_REQUESTS", 0)
        tab.get_by_role("button", name="Show where").click()
        told.wait_for()
        tab.reload()
        tab.get_by_text("Too many requests").wait_for()
    tab.reload()
    tab.wait_for_selector(".egma-lines button")
    with monkeypatch.context() as patch:
        patch.setattr(guard, "MOST_REQUESTS", 0)
        tab.locator("#radiograph input[type=file]").set_input_files(write_image(tmp_path, "picture.png", 320, 160))
        told.wait_for()
    choose_picture(tab, write_image(tmp_path, "picture.png", 320, 160), "no effusion")
    tab.close()


def test_behind_a_password_the_page_is_whole(chromium: Any, module_model: PageModel, tmp_path: Path) -> None:
    door, handlers = Door(passwords={"anna": "secret"}), Handlers(module_model, None)
    with pytest.MonkeyPatch.context() as patch, served(handlers, tmp_path / "up", patch, door) as page:
        context = chromium.new_context(http_credentials={"username": "anna", "password": "secret"})
        tab = context.new_page()
        tab.set_default_timeout(60_000)
        tab.goto(page.local_url)
        choose_picture(tab, write_image(tmp_path, "picture.png", 320, 160), "no effusion")
        context.close()


def test_behind_a_proxy_the_page_knows_where_it_is(module_model: PageModel, tmp_path: Path) -> None:
    door, handlers = Door(frozenset({"page.example"}), root_path="/egma"), Handlers(module_model, None)
    with pytest.MonkeyPatch.context() as patch, served(handlers, tmp_path / "up", patch, door) as page:
        headers = {"host": "page.example", "x-forwarded-proto": "https"}
        assert httpx.get(f"{page.local_url}config", headers=headers).json()["root"] == "https://page.example/egma"
        stranger = headers | {"x-forwarded-host": "evil.example"}
        assert httpx.get(f"{page.local_url}config", headers=stranger).status_code == 421
