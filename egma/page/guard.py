"""What every request passes before Gradio sees it: ASGI middleware that lets through what the page itself asks for."""

import asyncio
import base64
import hmac
import re
import secrets
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.formparsers import MultiPartException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.types import Message, Receive, Scope, Send

from dataset_scripts.files.json_files import parse_json
from dataset_scripts.schema import UserError
from egma.page.safety import SOMETHING_WRONG, log_fault, require_flat
from egma.page.uploads import MAX_UPLOAD_BYTES, Uploads, plain_file_name

API = "/gradio_api"
JOIN, UPLOAD, PROGRESS = f"{API}/queue/join", f"{API}/upload", f"{API}/upload_progress"
ROUTES = {
    "HEAD": re.compile("/"),
    "GET": re.compile(
        r"/|/(assets|static(/[\w-]+)*)/[\w.-]+|/(theme\.css|manifest\.json|favicon\.ico|config)"
        rf"|{API}/(info|queue/data|upload_progress|heartbeat/\w+)"
    ),
    "POST": re.compile(f"{JOIN}|{UPLOAD}"),
}
MAX_JSON_BYTES, MAX_FORM_BYTES = 2 << 20, MAX_UPLOAD_BYTES + (1 << 16)
MAX_JSON_DEPTH, MAX_JSON_LISTS = 12, 5000
MAX_INPUTS, MAX_VALUES = 16, 50_000
BODY_SECONDS, WRONG_PASSWORD_SECONDS = 120, 1
MOST_REQUESTS, REQUESTS_A_SECOND = 300, 20.0  # of an address, of what makes work: docs/page.md has the reasons
COUNTED = ("/", "/config", f"{API}/info")  # and what is posted
SHOWN = "x-egma-shown"  # the page shows a picture (static/connection.js)
NOT_UPLOADED = "The file was not uploaded, or is no longer here; files are uploaded, and addresses are not fetched."
LOCAL_HOSTS = frozenset({"localhost", "127.0.0.1", "::1"})
CHECKED = ("x-forwarded-host", "x-gradio-server", "origin")  # checked here; Gradio would build answers from them
# nothing but this server answers what the page asks; Gradio compiles its components' scripts in the browser
CONTENT_SECURITY_POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; font-src 'self' data:; connect-src 'self'; object-src 'none'; "
    "base-uri 'self'; form-action 'self'; frame-ancestors "
)
HEADERS = ((b"referrer-policy", b"no-referrer"), (b"x-content-type-options", b"nosniff"))


class Refused(Exception):
    """A request that goes no further, and what is answered."""

    def __init__(self, status: int, sentence: str) -> None:
        self.status, self.sentence = status, sentence


@dataclass(frozen=True)
class Door:
    """Whom the page answers.

    Args:
        hosts: names that a request may ask for, lower case, "*" any; another may be a stranger's that leads here.
        frame_ancestors: who may show the page in a frame, as a content security policy has it.
        passwords: by user; none: everybody is let in.
        root_path: under which a proxy has the page.
    """

    hosts: frozenset[str] = LOCAL_HOSTS
    frame_ancestors: str = "'self'"
    passwords: Mapping[str, str] = field(default_factory=dict)
    root_path: str = ""

    def knows(self, host: str) -> bool:
        """Whether `host`, as a header has it, is a name of this page."""
        name = re.sub(r":\d+$", "", host.lower()).strip("[]")
        return name in self.hosts or "*" in self.hosts

    def lets_in(self, authorization: str) -> bool:
        """Whether an Authorization header (basic, RFC 7617) holds a user and the password."""
        if not self.passwords:
            return True
        with suppress(ValueError):
            user, _, password = base64.b64decode(authorization.removeprefix("Basic ")).decode().partition(":")
            return hmac.compare_digest(password.encode(), self.passwords.get(user, secrets.token_hex()).encode())
        return False


class Allowance:
    """A token bucket a visitor, held as the time at which it is full again."""

    def __init__(self) -> None:
        self._full: dict[str, float] = {}

    def take(self, visitor: str) -> bool:
        now = time.monotonic()
        self._full = {one: at for one, at in self._full.items() if at > now}
        full, most = self._full.get(visitor, now) + 1 / REQUESTS_A_SECOND, now + MOST_REQUESTS / REQUESTS_A_SECOND
        self._full[visitor] = min(full, most)
        return full <= most


class Guard:
    """ASGI middleware in front of everything: routes, hosts, origins, passwords, sizes; it takes the uploads itself."""

    def __init__(self, app: Any, door: Door, uploads: Uploads, has_lost: Callable[[str], bool]) -> None:
        self.app, self.door, self.uploads, self.has_lost = app, door, uploads, has_lost
        self.allowance = Allowance()
        self.version = f'"{secrets.token_hex(8)}"'  # of "/", which stays the same while this server runs
        policy = CONTENT_SECURITY_POLICY + door.frame_ancestors
        self.headers = [*HEADERS, (b"content-security-policy", policy.encode())]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        begun = False

        async def answer(message: Message) -> None:
            nonlocal begun
            if message["type"] == "http.response.start":
                begun = True
                kept = [one for one in message.get("headers", ()) if not one[0].startswith(b"access-control-")]
                message["headers"] = kept + self.headers + self._cached(scope["path"], message["status"])
            await send(message)

        try:
            await self._admitted(scope, receive, answer)
        except ClientDisconnect:
            pass
        except Exception as error:
            refused = error if isinstance(error, Refused) else Refused(500, SOMETHING_WRONG)
            if error is not refused:
                log_fault(error)
            if not begun:
                asked = {"www-authenticate": 'Basic realm="EGMA", charset="UTF-8"'} if refused.status == 401 else None
                await JSONResponse({"detail": refused.sentence}, refused.status, asked)(scope, receive, answer)

    def _cached(self, path: str, status: int) -> list[tuple[bytes, bytes]]:
        """What a browser may keep: files with a hash in their names; the page, as long as it is the same."""
        keep = b"max-age=31536000, immutable" if path.startswith("/assets/") and status == 200 else b"no-cache"
        version = [(b"etag", self.version.encode())] if path == "/" and status < 400 else []
        return [*version, (b"cache-control", b"private, " + keep)]

    async def _admitted(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers, path, visitor = Headers(scope=scope), scope["path"], (scope.get("client") or ("",))[0]
        self._require_known(headers, scope["method"], path)
        if (scope["method"] == "POST" or path in COUNTED) and not self.allowance.take(visitor):
            raise Refused(429, "Too many requests came from your address; wait a moment, and try again.")
        if not self.door.lets_in(headers.get("authorization", "")):
            await asyncio.sleep(WRONG_PASSWORD_SECONDS)
            raise Refused(401, "This page asks for a user and a password.")
        forwarded = [one for one in scope["headers"] if one[0].decode("latin-1") not in CHECKED]
        scope = {**scope, "headers": forwarded}
        if path == "/":
            scope["query_string"] = b""  # it names states that Gradio would load
        if path == "/" and self.version in headers.get("if-none-match", ""):
            await Response(status_code=304)(scope, receive, send)
        elif path == PROGRESS:
            await PlainTextResponse('data: {"msg": "done"}\n\n', media_type="text/event-stream")(scope, receive, send)
        elif path == UPLOAD:
            await JSONResponse([await self._upload(scope, receive, visitor)])(scope, receive, send)
        elif path == JOIN:
            body = await _body(receive, MAX_JSON_BYTES)
            self._require_call(body, SHOWN in headers)
            await self.app(scope, _replayed(body, receive), send)
        else:
            await self.app(scope, receive, send)

    def _require_known(self, headers: Headers, method: str, path: str) -> None:
        """Raise Refused for what the page does not ask for, or asks for from somewhere else."""
        asked = [*headers.getlist("host"), *headers.getlist("x-forwarded-host")]
        if not asked or not all(map(self.door.knows, asked)):
            raise Refused(421, "This page does not answer to that name; see --allowed-hosts in docs/page.md.")
        if method not in ROUTES or not ROUTES[method].fullmatch(path):
            raise Refused(404, "There is no such address on this page.")
        origin = urlsplit(headers.get("origin", "")).netloc if "origin" in headers else None
        foreign = headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none")
        if (foreign and path != "/") or (origin is not None and origin not in asked):
            raise Refused(403, "The page answers its own requests, none of another site.")

    def _require_call(self, body: bytes, is_shown: bool) -> None:
        """Raise Refused where a call is none of the page's, names what nobody uploaded, or needs what is gone."""
        text = body.decode(errors="replace")
        try:
            require_flat(text, "The request", MAX_JSON_DEPTH, MAX_JSON_LISTS)
            call = parse_json(text, "The request")
        except UserError as error:
            raise Refused(400, str(error)) from None
        data = call.get("data") if isinstance(call, dict) else None
        if not isinstance(data, list) or len(data) > MAX_INPUTS:
            raise Refused(400, "The request holds no inputs.")
        for count, value in enumerate(_values(data)):
            if count > MAX_VALUES:
                raise Refused(400, f"The request's inputs hold more than {MAX_VALUES:,} values.")
            if isinstance(value, dict) and "path" in value and value["path"] not in self.uploads:
                raise Refused(400, NOT_UPLOADED)
        if is_shown and self.has_lost(str(call.get("session_hash") or "")):
            raise Refused(409, "The server no longer has what this page shows.")

    async def _upload(self, scope: Scope, receive: Receive, visitor: str) -> str:
        """Where the one file of a form waits from now on. Until it is whole, it is a file without a name."""
        request = Request(scope, receive)
        size = int(request.headers.get("content-length", MAX_FORM_BYTES + 1))
        if size > MAX_FORM_BYTES:
            await _body(receive, MAX_UPLOAD_BYTES)
            raise Refused(411, "An upload says how many bytes it has.")
        try:
            with self.uploads.place(visitor, size) as folder:
                async with asyncio.timeout(BODY_SECONDS), request.form(max_files=1, max_fields=0) as form:
                    file: Any = form["files"]
                    path = folder / plain_file_name(file.filename or "")
                    with path.open("wb") as kept:
                        await asyncio.to_thread(shutil.copyfileobj, file.file, kept)
                    return str(path)
        except (MultiPartException, KeyError, AttributeError):
            raise Refused(400, "An upload is a form with one file.") from None
        except UserError as error:
            raise Refused(429, str(error)) from None


def _values(data: Any) -> Iterator[Any]:
    """A value of JSON, and every one in it."""
    waiting = [data]
    while waiting:
        value = waiting.pop()
        yield value
        if isinstance(value, dict | list):
            waiting.extend(value.values() if isinstance(value, dict) else value)


async def _body(receive: Receive, most_bytes: int) -> bytes:
    """The whole body. One that is too long is read to its end, so that whoever sends it hears why it is refused."""
    data, size = bytearray(), 0
    async with asyncio.timeout(BODY_SECONDS):
        async for part in Request({"type": "http"}, receive).stream():
            size += len(part)
            data += part if size <= most_bytes else b""
    if size > most_bytes:
        raise Refused(413, f"The request has {size:,} bytes; at most {most_bytes:,} are read.")
    return bytes(data)


def _replayed(body: bytes, receive: Receive) -> Receive:
    parts = [{"type": "http.request", "body": body, "more_body": False}]

    async def again() -> Message:
        return parts.pop() if parts else await receive()

    return again
