"""What breaks elsewhere is a sentence here, soon, and leaves nothing behind."""

import base64
import json
import secrets
import threading
import time
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest
from gradio_client import Client, handle_file
from gradio_client.exceptions import AppError

from egma.page.inputs import MAX_FIXATIONS
from egma.page.page import AT_ONCE, MAX_WAITING
from tests.egma.page.conftest import Served
from tests.egma.page.hostile import dicom, encoded, hostile_pictures, hostile_recordings, noise, polyglots, write

COLUMNS = ("x", "y", "start", "duration")
COUNT = MAX_FIXATIONS + 1
MANY = {"fixations": {name: [0.4] * COUNT for name in COLUMNS} | {"start": [n / 2 for n in range(COUNT)]}}


@pytest.fixture(scope="module")
def client(page: Served) -> Client:
    return Client(page.url, verbose=False)


def left_behind(page: Served) -> list[Path]:
    return [path for path in page.uploads.rglob("*") if path.is_file()]


def refused(client: Client, *inputs: Any, api_name: str) -> str:
    with pytest.raises(AppError) as raised:
        client.predict(*inputs, api_name=api_name)
    return str(raised.value)


@pytest.mark.parametrize(("name", "content", "message"), hostile_pictures(), ids=lambda value: str(value)[:24])
def test_pictures(client: Client, page: Served, tmp_path: Path, name: str, content: bytes, message: str) -> None:
    path = write(tmp_path, name, content)
    assert message in refused(client, handle_file(str(path)), "heart normal", api_name="/align")
    assert left_behind(page) == []


@pytest.mark.parametrize(
    ("report", "message"),
    [
        ("x" * 10_000, "10,000 characters"),
        ("y" * 500, "500 characters"),
        ("a sentence.\n" * 100, "100 sentences"),
        ("", "at least one sentence"),
        (" \n\t ", "at least one sentence"),
    ],
    ids=["10,000 characters", "500 characters", "100 sentences", "empty", "blank"],
)
def test_reports(client: Client, page: Served, tmp_path: Path, report: Any, message: str) -> None:
    client.predict(handle_file(str(write(tmp_path, "a.png", encoded(noise(), "PNG")))), "heart", api_name="/align")
    assert message in refused(client, report, api_name="/read")
    assert left_behind(page) == []


@pytest.mark.parametrize(
    ("prompts", "message"),
    [
        ("\n".join(f"Finding {n}: a | b" for n in range(1000)), "1,000 findings"),
        ("Finding: " + " | ".join(f"prompt {n}" for n in range(1000)), "1,000 prompts"),
        ("Finding: " + "x" * 10_000, "10,000 characters"),
        ("Finding:", "has no prompt"),
        (": a prompt", "has no finding before the colon"),
        ("<img src=x onerror=alert(1)>:", "&lt;img src=x onerror=alert(1)&gt;"),
        ("A: b\nA: c", "is there twice"),
        ("Finding: " + " | ".join(f"{n} " + "x" * 390 for n in range(200)), "characters together; at most 19,200"),
        ("x" * 401 + ": a prompt", "A finding or prompt has 401 characters"),
        ("", "at least one finding"),
    ],
    ids=[
        "1,000 findings",
        "1,000 prompts",
        "10,000 characters",
        "no prompt",
        "no name",
        "HTML",
        "twice",
        "200 long prompts",
        "long name",
        "empty",
    ],
)
def test_prompts(client: Client, page: Served, tmp_path: Path, prompts: str, message: str) -> None:
    client.predict(handle_file(str(write(tmp_path, "a.png", encoded(noise(), "PNG")))), "heart", api_name="/align")
    assert message in refused(client, prompts, api_name="/classify")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("gaze.json", "{", "expected"),
        (
            "gaze.json",
            '{"fixations": {"x": [1e999], "y": [0], "start": [0], "duration": [1]}}',
            "no row has a number as x",
        ),
        ("gaze.json", "[" * 5000, "expected"),
        ("gaze.csv", "x,y\n1,2", "expected the columns"),
        ("gaze.csv", "x,y,start,duration\n", "gaze.csv: no fixation lies on the image"),
        ("gaze.exe", "MZ", "expected gaze that ends in .csv"),
        ("gaze.json", json.dumps(MANY), "5,001 fixations"),
    ],
    ids=["no JSON", "infinite", "nested", "columns", "empty", "executable", "many"],
)
def test_recordings(client: Client, page: Served, tmp_path: Path, name: str, content: str, message: str) -> None:
    client.predict(handle_file(str(write(tmp_path, "a.png", encoded(noise(), "PNG")))), "heart", api_name="/align")
    path = write(tmp_path, name, content.encode())
    assert message in refused(client, handle_file(str(path)), None, "heart", api_name="/gaze")
    assert left_behind(page) == []


@pytest.mark.parametrize(("name", "content", "message"), hostile_recordings(), ids=lambda value: str(value)[:24])
def test_recordings_that_no_tracker_writes(
    client: Client, page: Served, tmp_path: Path, name: str, content: bytes, message: str
) -> None:
    client.predict(handle_file(str(write(tmp_path, "a.png", encoded(noise(), "PNG")))), "heart", api_name="/align")
    began = time.perf_counter()
    assert message in refused(client, handle_file(str(write(tmp_path, name, content))), None, "heart", api_name="/gaze")
    assert time.perf_counter() - began < 5 and left_behind(page) == []


@pytest.mark.parametrize(("name", "content"), polyglots(), ids=lambda value: str(value)[:24])
def test_of_a_polyglot_the_picture_alone_is_shown(
    client: Client, page: Served, tmp_path: Path, name: str, content: bytes
) -> None:
    picture, *_ = client.predict(handle_file(str(write(tmp_path, name, content))), "heart", api_name="/align")
    assert b"SECRET" not in base64.b64decode(picture["src"].partition(",")[2])
    assert left_behind(page) == []


def test_two_who_send_the_same_file_at_once_are_both_answered(page: Served, tmp_path: Path) -> None:
    path = handle_file(str(write(tmp_path, "a.png", encoded(noise(), "PNG"))))
    clients = [Client(page.url, verbose=False) for _ in range(4)]
    jobs = [client.submit(path, "heart", api_name="/align") for client in clients for _ in range(4)]
    assert len({job.result(timeout=60)[0]["id"] for job in jobs}) == 1
    assert left_behind(page) == [] and list(page.uploads.iterdir()) == []


def test_a_picture_is_shown_though_its_report_cannot_be_read(client: Client, page: Served, tmp_path: Path) -> None:
    path = write(tmp_path, "a.png", encoded(noise(96, 40), "PNG"))
    picture, report, lines, *_ = client.predict(handle_file(str(path)), "y" * 500, api_name="/align")
    assert (picture["width"], picture["height"]) == (96, 40) and report == "y" * 500
    assert lines["picture"] == picture["id"] and lines["lines"] == []
    assert left_behind(page) == []


def test_a_file_that_is_refused_is_named(client: Client, tmp_path: Path) -> None:
    client.predict(handle_file(str(write(tmp_path, "a.png", encoded(noise(), "PNG")))), "heart", api_name="/align")
    gaze = write(tmp_path, "gaze.csv", b"x_fraction,y_fraction,start_s,duration_s\n0.2,0.3,0,1\n")
    speech = write(tmp_path, "said.vtt", b"")
    message = refused(client, handle_file(str(gaze)), handle_file(str(speech)), "", api_name="/gaze")
    assert "said.vtt: the file has 0 bytes" in message


def test_without_a_picture_every_view_says_so(page: Served) -> None:
    client = Client(page.url, verbose=False)
    for api_name, inputs in (("/read", ("heart",)), ("/classify", ("A: b",)), ("/find_reports", ())):
        assert "Choose an image first" in refused(client, *inputs, api_name=api_name)


def posted(page: Served, api_name: str, data: list[Any], session: str = "") -> str:
    """What the server says to a request that no client of Gradio would send."""
    session = session or secrets.token_hex(4)
    names = {fn.api_name: number for number, fn in page.blocks.fns.items()}
    call = {"data": data, "fn_index": names[api_name], "session_hash": session}
    joined = httpx.post(f"{page.url}gradio_api/queue/join", json=call, timeout=10)
    if joined.status_code != 200:
        return joined.text
    address, said = f"{page.url}gradio_api/queue/data", ""
    with httpx.stream("GET", address, params={"session_hash": session}, timeout=10) as answer:
        for line in answer.iter_lines():
            said += line
            if "process_completed" in line:
                break
    return said


@pytest.mark.parametrize("path", ["/etc/passwd", "app.py", "../../etc/passwd", "file:///etc/passwd"])
def test_a_path_is_not_opened(page: Served, path: str) -> None:
    said = posted(page, "align", [{"path": path, "meta": {"_type": "gradio.FileData"}}, "heart"])
    assert "was not uploaded" in said and "root:" not in said
    assert left_behind(page) == []
    assert httpx.get(f"{page.url}gradio_api/file={path}").status_code in (403, 404)


@pytest.mark.parametrize("place", [0, 1])
def test_an_address_is_not_fetched(page: Served, monkeypatch: pytest.MonkeyPatch, place: int) -> None:
    asked: list[str] = []
    monkeypatch.setattr("safehttpx.get", lambda url, *_, **__: asked.append(url))
    address = {"path": "http://203.0.113.7/picture.png", "meta": {"_type": "gradio.FileData"}}
    said = posted(page, "align", [address, "heart"] if place == 0 else [None, address])
    assert "addresses are not fetched" in said and asked == []


def test_a_deflated_dicom_of_usual_size_is_shown(client: Client, page: Served, tmp_path: Path) -> None:
    content = dicom(bytes(range(256)) * 16, 64, 64, deflated=True)
    picture, _, lines, *_ = client.predict(
        handle_file(str(write(tmp_path, "a.dcm", content))), "heart normal", api_name="/align"
    )
    assert (picture["width"], picture["height"], len(lines["lines"])) == (64, 64, 1)
    assert "SECRET" not in json.dumps([picture, lines]) and left_behind(page) == []


def test_nothing_that_was_sent_is_logged_but_size_and_hash(
    page: Served, tmp_path: Path, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    client = Client(page.url, verbose=False)
    with caplog.at_level("INFO"):
        path = write(tmp_path, "SECRET_name.dcm", dicom(b"\1\2" * 2048, 64, 64))
        client.predict(handle_file(str(path)), "SECRET words", api_name="/align")
        refused(client, handle_file(str(write(tmp_path, "SECRET.png", b"SECRET"))), "SECRET", api_name="/align")
        refused(client, "SECRET: ", api_name="/classify")
    written = capfd.readouterr()
    assert "SECRET" not in caplog.text + written.out + written.err
    logged = [record.message for record in caplog.records if record.name == "egma.page"]
    assert len(logged) == 2 and all(message.startswith("upload: ") and "sha256" in message for message in logged)
    assert f"upload: {path.stat().st_size} bytes" in logged[0]


@pytest.mark.parametrize(
    "data", [["SECRET"], ["SECRET", "SECRET"], [{"a": "SECRET"}, []], [["SECRET"], {"b": "SECRET"}]]
)
def test_what_gradio_stumbles_over_is_not_logged(
    page: Served, data: list[Any], caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    said = posted(page, "align", data)
    written = capfd.readouterr()
    assert '"success":false' in said
    assert "SECRET" not in caplog.text + written.out + written.err and "Traceback" not in written.err


@pytest.mark.parametrize("route", ["run/read", "api/read"])
def test_nobody_passes_the_queue_by_or_sees_anothers_picture(page: Served, tmp_path: Path, route: str) -> None:
    path = write(tmp_path, "a.png", encoded(noise(), "PNG"))
    with path.open("rb") as file:
        (there,) = httpx.post(f"{page.url}gradio_api/upload", files={"files": file}).json()
    picture = {"path": there, "meta": {"_type": "gradio.FileData"}}
    assert '"success":true' in posted(page, "align", [picture, "heart"])
    assert "Choose an image first" in posted(page, "read", ["heart"])
    answer = httpx.post(f"{page.url}gradio_api/{route}", json={"data": ["heart"]})
    assert answer.status_code == 404 and "no such address" in answer.text


def test_requests_that_wait_are_bounded(page: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    release = threading.Event()
    monkeypatch.setattr(page.handlers.model, "image_bank", lambda session: release.wait(30))
    number = next(number for number, fn in page.blocks.fns.items() if fn.api_name == "read")
    call = {"data": ["heart"], "fn_index": number, "session_hash": "waiting"}
    ask = partial(httpx.post, f"{page.url}gradio_api/queue/join", json=call, timeout=10)
    try:
        answers = [ask() for _ in range(MAX_WAITING + AT_ONCE + 3)]
    finally:
        release.set()
    assert [answer.status_code for answer in answers[: MAX_WAITING - 1]] == [200] * (MAX_WAITING - 1)
    assert answers[-1].status_code == 503 and "full" in answers[-1].text.lower()


def test_every_answer_forbids_other_hosts(page: Served) -> None:
    policy = httpx.get(page.url).headers["content-security-policy"]
    assert "default-src 'self'" in policy and "http" not in policy


@pytest.mark.parametrize("route", ["monitoring/summary", "gradio_api/runs", "gradio_api/mcp/sse"])
def test_nothing_watches(page: Served, route: str) -> None:
    answer = httpx.get(f"{page.url}{route}")
    assert answer.status_code in (401, 403, 404), answer.text[:200]
