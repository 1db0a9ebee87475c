"""Who and what gets past the guard: alone, with an application behind it that says what reached it."""

import asyncio
import base64
import json
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.requests import Request
from starlette.responses import JSONResponse

from dataset_scripts.schema import UserError
from egma.page import guard, uploads
from egma.page.guard import JOIN, MAX_FORM_BYTES, MAX_JSON_BYTES, UPLOAD, Door, Guard
from egma.page.safety import require_flat
from egma.page.uploads import MAX_BYTES, MAX_BYTES_A_VISITOR, MAX_UPLOAD_BYTES, Uploads

HERE = "http://page.example:7860"
DOOR = Door(frozenset({"page.example"}))


async def behind(scope: Any, receive: Any, send: Any) -> None:
    """Says what it was asked, and lets any origin read it."""
    request = Request(scope, receive)
    if scope["path"] == "/config":
        raise ValueError("SECRET")
    said = {"body": (await request.body()).decode(), "query": request.url.query, "headers": dict(request.headers)}
    await JSONResponse(said, headers={"access-control-allow-origin": "https://evil.example"})(scope, receive, send)


def asked(method: str, path: str, door: Door = DOOR, waiting: Uploads | None = None, **request: Any) -> httpx.Response:
    async def ask() -> httpx.Response:
        uploads = waiting or Uploads(Path(tempfile.gettempdir()))
        transport = httpx.ASGITransport(Guard(behind, door, uploads, {"slept"}.__contains__))
        async with httpx.AsyncClient(transport=transport, base_url=HERE) as client:
            return await client.request(method, path, **request)

    return asyncio.run(ask())


def answers(
    guarded: Guard, *requests: tuple[str, str, dict[str, str]], address: str = "192.0.2.1"
) -> list[httpx.Response]:
    """One request after the other to the same guard."""

    async def ask() -> list[httpx.Response]:
        transport = httpx.ASGITransport(guarded, client=(address, 1))
        async with httpx.AsyncClient(transport=transport, base_url=HERE) as client:
            return [await client.request(method, path, headers=headers) for method, path, headers in requests]

    return asyncio.run(ask())


@pytest.fixture
def waiting(tmp_path: Path) -> Iterator[Uploads]:
    return Uploads(tmp_path)


@pytest.mark.parametrize(
    "path",
    [
        "/gradio_api/file=http://203.0.113.7/x",
        "/gradio_api/file=/etc/passwd",
        "/gradio_api/file/x",
        "/gradio_api/proxy=http://203.0.113.7/x",
        "/gradio_api/deep_link?session_hash=a",
        "/gradio_api/dev/reload",
        "/gradio_api/vibe-code/",
        "/gradio_api/vibe-edit",
        "/gradio_api/process_recording",
        "/gradio_api/component_server",
        "/gradio_api/run/read",
        "/gradio_api/call/read",
        "/gradio_api/cancel",
        "/gradio_api/stream/a/1/2/playlist.m3u8",
        "/gradio_api/app_id",
        "/gradio_api/token",
        "/gradio_api/startup-events",
        "/gradio_api/openapi.json",
        "/gradio_api/runs",
        "/gradio_api/mcp/sse",
        "/monitoring",
        "/svelte/x",
        "/login",
        "/docs",
        "/%2f",
        "/assets/..%2fconfig",
        "/assets/%2e%2e/%2e%2e/etc/passwd",
        "/gradio_api/queue/join/",
    ],
)
@pytest.mark.parametrize("method", ["GET", "POST", "HEAD", "PUT", "OPTIONS"])
def test_what_the_page_does_not_ask_for_is_not_there(method: str, path: str) -> None:
    answer = asked(method, path)
    assert answer.status_code == 404 and "access-control-allow-origin" not in answer.headers


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "DELETE", "OPTIONS", "TRACE"])
@pytest.mark.parametrize("path", ["/gradio_api/queue/join", "/", "/gradio_api/upload", "/config"])
def test_a_route_has_its_methods_only(method: str, path: str) -> None:
    is_post = path in (JOIN, UPLOAD)
    if (method == "POST") != is_post or method not in ("GET", "POST"):
        assert asked(method, path).status_code == (404 if method != "GET" or is_post else 200 if path == "/" else 500)


@pytest.mark.parametrize("host", ["evil.example", "page.example.evil.example", "203.0.113.7", "", "localhost"])
def test_another_name_of_the_server_is_not_answered(host: str) -> None:
    assert asked("GET", "/", headers={"host": host}).status_code == 421
    assert asked("GET", "/", headers={"x-forwarded-host": host}).status_code == 421


@pytest.mark.parametrize("host", ["page.example", "PAGE.example:7860", "page.example:443"])
def test_its_own_name_is_answered(host: str) -> None:
    assert asked("GET", "/", headers={"host": host}).status_code == 200


def test_any_name_is_answered_where_somebody_says_so() -> None:
    assert asked("GET", "/", headers={"host": "evil.example"}, door=Door(frozenset("*"))).status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "https://evil.example"},
        {"origin": "null"},
        {"origin": "http://page.example:9999"},
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},
    ],
)
@pytest.mark.parametrize("path", [JOIN, UPLOAD])
def test_another_site_changes_nothing(path: str, headers: dict[str, str]) -> None:
    assert asked("POST", path, headers=headers, json={"data": []}).status_code == 403


def test_another_site_reads_nothing_but_links_here() -> None:
    foreign = {"sec-fetch-site": "cross-site"}
    assert asked("GET", "/gradio_api/queue/data?session_hash=a", headers=foreign).status_code == 403
    assert asked("GET", "/", headers=foreign).status_code == 200
    assert "access-control-allow-origin" not in asked("GET", "/").headers


def test_the_page_changes_what_it_wants() -> None:
    own = {"origin": HERE, "sec-fetch-site": "same-origin"}
    answer = asked("POST", JOIN, headers=own, json={"data": ["heart"]})
    assert json.loads(answer.json()["body"]) == {"data": ["heart"]}
    assert "origin" not in answer.json()["headers"]  # Gradio would build an answer from it


@pytest.mark.parametrize("path", ["/", "/nowhere", "/config"])
def test_every_answer_has_the_headers(path: str) -> None:
    headers = asked("GET", path, door=Door(DOOR.hosts, frame_ancestors="'self' https://huggingface.co")).headers
    assert headers["content-security-policy"].endswith("frame-ancestors 'self' https://huggingface.co")
    assert headers["x-content-type-options"] == "nosniff" and "referrer-policy" in headers


def test_a_query_that_names_a_state_is_not_passed_on() -> None:
    assert asked("GET", "/?deep_link=../../etc").json()["query"] == ""


def test_a_fault_is_logged_without_what_it_says(caplog: pytest.LogCaptureFixture) -> None:
    answer = asked("GET", "/config")
    assert answer.status_code == 500 and "SECRET" not in answer.text + caplog.text
    assert "ValueError in test_guard.py:" in caplog.text


def basic(user: str, password: str) -> dict[str, str]:
    return {"authorization": "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()}


@pytest.mark.parametrize("path", ["/", "/config", "/assets/a.js", "/gradio_api/queue/data"])
def test_without_the_password_nothing_is_answered(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guard, "WRONG_PASSWORD_SECONDS", 0)
    door = Door(DOOR.hosts, passwords={"anna": "a:ü"})
    wrong = [{}, basic("anna", "b"), basic("otto", "a:ü"), basic("", ""), {"authorization": "Basic !"}]
    wrong += [{"authorization": "Bearer a"}]
    for headers in wrong:
        answer = asked("GET", path, door=door, headers=headers)
        assert answer.status_code == 401 and answer.headers["www-authenticate"].startswith("Basic")
    assert asked("GET", "/", door=door, headers=basic("anna", "a:ü")).status_code == 200


@pytest.mark.parametrize(
    ("body", "status", "said"),
    [
        (b"{", 400, "expected JSON"),
        (b"[]", 400, "no inputs"),
        (b'{"data": 1}', 400, "no inputs"),
        (b'{"data": [' + b",".join([b"0"] * 17) + b"]}", 400, "no inputs"),
        (b'{"data": [' + b"[" * 500_000 + b"]" * 500_000 + b"]}", 400, "nested 500,002 deep"),
        (b'{"data": [' + b",".join([b"[]"] * 300_000) + b"]}", 400, "300,002 lists"),
        (b'{"data": [[' + b",".join([b"0"] * 900_000) + b"]]}", 400, "more than 50,000 values"),
        (b'{"data": ["' + b"x" * MAX_JSON_BYTES + b'"]}', 413, "at most 2,097,152"),
        (b'{"data": [{"path": "http://203.0.113.7/"}]}', 400, "addresses are not fetched"),
        (b'{"data": [[{"a": {"path": ["/etc/passwd"]}}]]}', 400, "not uploaded"),
        (b"\xff\xfe", 400, "expected JSON"),
        (b'{"data": ["' + b'\\"' * 900_000, 400, "expected JSON"),
    ],
    ids=["cut", "list", "number", "inputs", "deep", "wide", "long", "large", "address", "path", "bytes", "endless"],
)
def test_a_call_that_is_none_of_the_page_gets_no_further(body: bytes, status: int, said: str) -> None:
    began = time.perf_counter()
    answer = asked("POST", JOIN, content=body)
    assert (answer.status_code, said in answer.json()["detail"]) == (status, True), answer.text[:300]
    assert time.perf_counter() - began < 2


@pytest.mark.parametrize(
    ("name", "is_shown", "status"), [("slept", True, 409), ("slept", False, 200), ("awake", True, 200), ([], True, 200)]
)
def test_a_page_that_shows_what_is_not_held_is_asked_for_it(name: object, is_shown: bool, status: int) -> None:
    call = {"data": [], "session_hash": name}
    assert asked("POST", JOIN, json=call, headers={"x-egma-shown": "yes"} if is_shown else {}).status_code == status


@given(
    st.recursive(
        st.text() | st.integers() | st.none(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)
    )
)
def test_nesting_is_counted_as_a_parser_sees_it(value: Any) -> None:
    def depth(value: Any) -> int:
        inner = value.values() if isinstance(value, dict) else value
        return 1 + max(map(depth, inner), default=0) if isinstance(value, list | dict) else 0

    def count(value: Any) -> int:
        inner = value.values() if isinstance(value, dict) else value
        return 1 + sum(map(count, inner)) if isinstance(value, list | dict) else 0

    text = json.dumps(value, ensure_ascii=False)
    require_flat(text, "it", depth(value), count(value))
    if depth(value):
        with pytest.raises(UserError, match="deep"):
            require_flat(text, "it", depth(value) - 1, count(value))
        with pytest.raises(UserError, match="lists and objects"):
            require_flat(text, "it", depth(value), count(value) - 1)


# --- uploads ---


def sent(name: str, content: bytes, waiting: Uploads, **request: Any) -> httpx.Response:
    return asked("POST", UPLOAD, waiting=waiting, files={"files": (name, content)}, **request)


def test_two_who_upload_the_same_file_have_one_each(waiting: Uploads) -> None:
    first, second = (Path(sent("a.png", b"same", waiting).json()[0]) for _ in range(2))
    assert first != second and first.name == second.name == "a.png"
    first.unlink()
    assert second.read_bytes() == b"same"
    assert str(second) in waiting and f"{second.parent}/../x" not in waiting and f"{second.parent}/.." not in waiting


@pytest.mark.parametrize("name", ["../../x.png", "/etc/passwd", ".bashrc", "..", "<b>.png", "ä" * 300 + ".png", "a\nb"])
def test_a_name_is_no_path(name: str, waiting: Uploads) -> None:
    there = Path(sent(name, b"1", waiting).json()[0])
    assert there.parent.parent == waiting.folder and not there.name.startswith(".") and there.read_bytes() == b"1"


def test_a_form_with_two_files_or_none_is_refused(waiting: Uploads) -> None:
    two = [("files", ("a", b"1")), ("files", ("b", b"2"))]
    assert asked("POST", UPLOAD, waiting=waiting, files=two).status_code == 400
    assert asked("POST", UPLOAD, waiting=waiting, files={"other": ("a", b"1")}).status_code == 400
    assert asked("POST", UPLOAD, waiting=waiting, content=b"no form").status_code == 400
    assert list(waiting.folder.iterdir()) == []


def test_a_file_that_is_too_large_is_told_so_and_not_kept(waiting: Uploads) -> None:
    answer = asked("POST", UPLOAD, waiting=waiting, files={"files": ("a", b"0" * (MAX_FORM_BYTES + 1))})
    assert answer.status_code == 413 and f"{MAX_UPLOAD_BYTES:,}" in answer.json()["detail"]
    assert list(waiting.folder.iterdir()) == []


@pytest.mark.parametrize(("most", "visitor"), [(MAX_BYTES_A_VISITOR, "same"), (MAX_BYTES, None)])
def test_quotas_count_what_waits_and_what_arrives(waiting: Uploads, most: int, visitor: str | None) -> None:
    folders = []
    for place in range(most // MAX_UPLOAD_BYTES):
        with waiting.place(visitor or str(place), MAX_UPLOAD_BYTES) as folder:
            folders.append(folder)
    with pytest.raises(UserError, match="Too many files wait"), waiting.place(visitor or "another", 1):
        pass
    folders[0].rmdir()  # as whoever read the file does
    with waiting.place(visitor or "another", 1):
        pass


def test_a_visitor_whose_quota_is_used_up_is_told_so(waiting: Uploads, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(uploads, "MAX_BYTES_A_VISITOR", 2000)
    (there,) = sent("a", b"0" * 1500, waiting).json()
    assert sent("b", b"0" * 1500, waiting).status_code == 429
    shutil.rmtree(Path(there).parent)  # it was read
    assert sent("b", b"0" * 1500, waiting).status_code == 200


def test_what_nobody_came_for_is_swept_with_its_folder(waiting: Uploads) -> None:
    (there,) = sent("a", b"1", waiting).json()
    waiting.sweep()
    assert Path(there).is_file()
    waiting.sweep(kept_seconds=-1)
    assert list(waiting.folder.iterdir()) == [] and there not in waiting


def test_an_upload_that_breaks_off_leaves_no_name(waiting: Uploads) -> None:
    head = b'--b\r\nContent-Disposition: form-data; name="files"; filename="a.png"\r\n\r\n'
    messages = [
        {"type": "http.request", "body": head + b"0" * (1 << 21), "more_body": True},
        {"type": "http.disconnect"},
    ]
    headers = [(b"host", b"page.example"), (b"content-type", b"multipart/form-data; boundary=b")]
    headers.append((b"content-length", b"9000000"))
    scope = {"type": "http", "method": "POST", "path": UPLOAD, "headers": headers, "query_string": b""}
    answers: list[Any] = []

    async def receive() -> Any:
        return messages.pop(0)

    async def send(message: Any) -> None:
        answers.append(message)

    asyncio.run(Guard(behind, DOOR, waiting, bool)(scope, receive, send))
    assert answers == [] and list(waiting.folder.iterdir()) == []
    with waiting.place("", MAX_BYTES_A_VISITOR):  # and holds no room
        pass


# --- how often ---


def guarded(folder: Path, door: Door = DOOR) -> Guard:
    return Guard(behind, door, Uploads(folder), {"slept"}.__contains__)


@pytest.mark.parametrize("request_", [("GET", "/"), ("GET", "/gradio_api/info"), ("POST", JOIN), ("POST", UPLOAD)])
def test_who_asks_too_often_is_told_to_wait_and_nobody_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request_: tuple[str, str]
) -> None:
    clock = [100.0]
    monkeypatch.setattr(guard.time, "monotonic", lambda: clock[0])
    door, often = guarded(tmp_path), (*request_, {})
    statuses = [answer.status_code for answer in answers(door, *[often] * (guard.MOST_REQUESTS + 30))]
    assert 429 not in statuses[: guard.MOST_REQUESTS] and set(statuses[guard.MOST_REQUESTS :]) == {429}
    (refused,) = answers(door, often)
    assert refused.json()["detail"].startswith("Too many requests came from your address; wait a moment")
    assert answers(door, often, address="192.0.2.2")[0].status_code != 429
    assert answers(door, ("GET", "/assets/a.js", {}))[0].status_code == 200  # files are not counted
    clock[0] += 1  # what was refused does not count
    allowed = [answer.status_code != 429 for answer in answers(door, *[often] * 60)]
    assert allowed.index(False) == sum(allowed) == pytest.approx(guard.REQUESTS_A_SECOND, abs=1)


@given(st.lists(st.floats(0, 3), min_size=1, max_size=200))
def test_an_allowance_is_a_bucket_of_tokens(pauses: list[float]) -> None:
    most, rate, now, tokens = 3, 2.0, 0.0, 3.0
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(guard, "MOST_REQUESTS", most)
        patch.setattr(guard, "REQUESTS_A_SECOND", rate)
        patch.setattr(guard.time, "monotonic", lambda: now)
        allowance = guard.Allowance()
        for pause in pauses:
            now += pause
            tokens = min(most, tokens + rate * pause)
            if abs(tokens - 1) < 1e-6:
                return  # either is right
            assert allowance.take("a") == (tokens >= 1)
            tokens -= tokens >= 1
        assert len(allowance._full) == 1


def test_visitors_who_are_gone_are_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    monkeypatch.setattr(guard.time, "monotonic", lambda: clock[0])
    allowance = guard.Allowance()
    for number in range(50):
        clock[0] += 1
        assert allowance.take(str(number))
    assert len(allowance._full) == 1


# --- what a browser keeps ---


def test_the_page_is_not_sent_again_while_the_server_runs(tmp_path: Path) -> None:
    door = guarded(tmp_path)
    (first,) = answers(door, ("GET", "/", {}))
    assert first.headers["cache-control"] == "private, no-cache"
    known = {"if-none-match": f'"other", W/{first.headers["etag"]}'}
    again, changed = answers(door, ("GET", "/", known), ("GET", "/", {"if-none-match": '"other"'}))
    assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", first.headers["etag"])
    assert "content-security-policy" in again.headers and changed.status_code == 200
    (restarted,) = answers(guarded(tmp_path), ("GET", "/", known))
    assert restarted.status_code == 200 and restarted.headers["etag"] != first.headers["etag"]


def test_what_was_kept_is_no_way_around_the_password(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guard, "WRONG_PASSWORD_SECONDS", 0)
    door = guarded(tmp_path, Door(frozenset({"page.example"}), passwords={"anna": "secret"}))
    (answer,) = answers(door, ("GET", "/", {"if-none-match": door.version}))
    assert answer.status_code == 401 and "etag" not in answer.headers


@pytest.mark.parametrize(
    ("path", "kept"), [("/assets/a-1b2c.js", True), ("/static/js/a.js", False), ("/theme.css", False)]
)
def test_only_names_that_hold_a_hash_are_kept_unasked(tmp_path: Path, path: str, kept: bool) -> None:
    (answer,) = answers(guarded(tmp_path), ("GET", path, {}))
    assert ("immutable" in answer.headers["cache-control"]) == kept and "etag" not in answer.headers
