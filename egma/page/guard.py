"""What every request passes before Gradio sees it: ASGI middleware that lets through what the page itself asks for."""

import asyncio
import base64
import hmac
import ipaddress
import re
import secrets
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from starlette.datastructures import Headers, UploadFile
from starlette.formparsers import MultiPartException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, PlainTextResponse
from starlette.types import Message, Receive, Scope, Send

from dataset_scripts.files.json_files import parse_json
from dataset_scripts.schema import UserError
from egma.page.safety import SOMETHING_WRONG, log_fault, require_flat
from egma.page.uploads import MAX_UPLOAD_BYTES, Uploads

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
NOT_UPLOADED = "The file was not uploaded, or is no longer here; files are uploaded, and addresses are not fetched."
LOCAL_HOSTS = frozenset({"localhost", "127.0.0.1", "::1"})
CHECKED = ("x-forwarded-host", "x-gradio-server", "origin")  # checked here; Gradio would build answers from them
# nothing but this server answers what the page asks; Gradio compiles its components' scripts in the browser
CONTENT_SECURITY_POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; font-src 'self' data:; connect-src 'self'; object-src 'none'; "
    "base-uri 'self'; form-action 'self'; frame-ancestors "
)
HEADERS = {
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=()",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
}


class Refused(Exception):
    """A request that goes no further, and what is answered."""

    def __init__(self, status: int, sentence: str) -> None:
        self.status, self.sentence = status, sentence


@dataclass(frozen=True)
class Door:
    """Whom the page answers.

    Args:
        hosts: names that a request may ask for, lower case; another is a name of somebody else that leads here.
        any_address: a numeric address, too, which no name server can point elsewhere.
        frame_ancestors: who may show the page in a frame, as a content security policy has it.
        passwords: by user; none: everybody is let in.
        root_path: under which a proxy has the page.
    """

    hosts: frozenset[str] = LOCAL_HOSTS
    any_address: bool = False
    frame_ancestors: str = "'self'"
    passwords: Mapping[str, str] = field(default_factory=dict)
    root_path: str = ""

    def knows(self, host: str) -> bool:
        """Whether `host`, as a header has it, is a name of this page."""
        name = re.sub(r":\d+$", "", host.lower()).strip("[]")
        return name in self.hosts or (self.any_address and _is_address(name))

    def lets_in(self, authorization: str) -> bool:
        """Whether an Authorization header (basic, RFC 7617) holds a user and the password."""
        if not self.passwords:
            return True
        scheme, _, encoded = authorization.partition(" ")
        if scheme.lower() != "basic":
            return False
        try:
            user, _, password = base64.b64decode(encoded).decode().partition(":")
        except ValueError:
            return False
        expected = self.passwords.get(user, secrets.token_hex())
        return hmac.compare_digest(password.encode(), expected.encode())


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


class Guard:
    """ASGI middleware in front of everything: routes, hosts, origins, passwords, sizes; it takes the uploads itself."""

    def __init__(self, app: Any, door: Door, uploads: Uploads) -> None:
        self.app, self.door, self.uploads = app, door, uploads
        policy = CONTENT_SECURITY_POLICY + door.frame_ancestors
        headers = HEADERS | {"content-security-policy": policy}
        self.headers = [(name.encode(), value.encode()) for name, value in headers.items()]

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
                message["headers"] = kept + self.headers
            await send(message)

        try:
            await self._admitted(scope, receive, answer)
        except ClientDisconnect:
            pass
        except Exception as error:
            if not isinstance(error, Refused):
                log_fault(error)
            if not begun:
                await _refusal(error)(scope, receive, answer)

    async def _admitted(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers, path = Headers(scope=scope), scope["path"]
        self._require_known(headers, scope["method"], path)
        if not self.door.lets_in(headers.get("authorization", "")):
            await asyncio.sleep(WRONG_PASSWORD_SECONDS)
            raise Refused(401, "This page asks for a user and a password.")
        forwarded = [one for one in scope["headers"] if one[0].decode("latin-1") not in CHECKED]
        scope = {**scope, "headers": forwarded}
        if path == "/":
            scope["query_string"] = b""  # it names states that Gradio would load
        if path == PROGRESS:
            await PlainTextResponse('data: {"msg": "done"}\n\n', media_type="text/event-stream")(scope, receive, send)
        elif path == UPLOAD:
            await JSONResponse([await self._upload(scope, receive)])(scope, receive, send)
        elif path == JOIN:
            body = await _body(receive, MAX_JSON_BYTES)
            self._require_call(body)
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

    def _require_call(self, body: bytes) -> None:
        """Raise Refused where a call is no JSON of the page's, or names a file that was not uploaded."""
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

    async def _upload(self, scope: Scope, receive: Receive) -> str:
        """Where the one file of a form waits from now on. Until it is whole, it is a file without a name."""
        visitor = (scope.get("client") or ("",))[0]
        size = Headers(scope=scope).get("content-length", "")
        if not size.isdecimal():
            raise Refused(411, "An upload says how many bytes it has.")
        request = Request(scope, receive)
        try:
            async with asyncio.timeout(BODY_SECONDS):
                if int(size) > MAX_FORM_BYTES:
                    async for _ in request.stream():  # so that whoever sends it hears why it is refused
                        pass
                    raise Refused(413, f"The file has {int(size):,} bytes; at most {MAX_UPLOAD_BYTES:,} are read.")
                with self.uploads.room(visitor, int(size)):
                    async with request.form(max_files=1, max_fields=0) as form:
                        file = form.get("files")
                        if not isinstance(file, UploadFile):
                            raise Refused(400, "The form holds no file.")
                        return await asyncio.to_thread(self.uploads.add, visitor, file.filename or "", file.file)
        except MultiPartException:
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
    data, size, more = bytearray(), 0, True
    async with asyncio.timeout(BODY_SECONDS):
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise ClientDisconnect
            part = message.get("body", b"")
            size, more = size + len(part), message.get("more_body", False)
            if size <= most_bytes:
                data += part
    if size > most_bytes:
        raise Refused(413, f"The request has {size:,} bytes; at most {most_bytes:,} are read.")
    return bytes(data)


def _replayed(body: bytes, receive: Receive) -> Receive:
    parts = [{"type": "http.request", "body": body, "more_body": False}]

    async def again() -> Message:
        return parts.pop() if parts else await receive()

    return again


def _refusal(error: Exception) -> JSONResponse:
    if isinstance(error, TimeoutError):
        error = Refused(408, f"The request took more than {BODY_SECONDS} seconds to arrive.")
    if not isinstance(error, Refused):
        error = Refused(500, SOMETHING_WRONG)
    asked = {"www-authenticate": 'Basic realm="EGMA", charset="UTF-8"'} if error.status == 401 else None
    return JSONResponse({"detail": error.sentence}, error.status, asked)
