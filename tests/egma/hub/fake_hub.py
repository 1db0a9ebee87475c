"""A Hub on loopback: repositories in memory, files as they were committed. Nothing of it ships."""

import base64
import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit


@dataclass
class Repository:
    private: bool
    files: dict[str, bytes] = field(default_factory=dict)

    @property
    def sha(self) -> str:
        content = b"".join(name.encode() + data for name, data in sorted(self.files.items()))
        return hashlib.sha1(content).hexdigest()


class FakeHub(ThreadingHTTPServer):
    """`repositories` by kind and id, such as ("models", "lab/egma")."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.repositories: dict[tuple[str, str], Repository] = {}

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


@contextmanager
def fake_hub() -> Iterator[FakeHub]:
    with FakeHub() as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield server
        finally:
            server.shutdown()


class _Handler(BaseHTTPRequestHandler):
    server: FakeHub
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: Any) -> None:
        pass

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        path = unquote(urlsplit(self.path).path)
        if path == "/api/repos/create":
            asked = json.loads(body)
            kind = {"dataset": "datasets", None: "models", "model": "models"}[asked.get("type")]
            name = f"{asked['organization']}/{asked['name']}" if asked.get("organization") else f"me/{asked['name']}"
            url = f"{self.server.address}/{'datasets/' if kind == 'datasets' else ''}{name}"
            if (kind, name) in self.server.repositories:
                return self._json({"error": "exists", "url": url}, 409)
            self.server.repositories[kind, name] = Repository(
                asked.get("private") is True or asked.get("visibility") == "private"
            )
            return self._json({"url": url, "name": name, "id": name})
        if path == "/api/validate-yaml":
            return self._json({"errors": [], "warnings": []})
        found = re.fullmatch(r"/api/(models|datasets)/([^/]+/[^/]+)/(preupload|commit|paths-info)/(.+)", path)
        if found is None:
            return self._json({"error": path}, 404)
        kind, name, action, _ = found.groups()
        repository = self.server.repositories[kind, name]
        if action == "preupload":
            files = [
                {"path": one["path"], "uploadMode": "regular", "shouldIgnore": False}
                for one in json.loads(body)["files"]
            ]
            return self._json({"files": files})
        if action == "paths-info":
            asked_paths = json.loads(body)["paths"] if body.startswith(b"{") else parse_qs(body.decode())["paths"]
            known = [_entry(repository, one.strip("/")) for one in asked_paths]
            return self._json([entry for entry in known if entry is not None])
        for line in body.splitlines():
            operation = json.loads(line)
            if operation["key"] == "file":
                content = base64.b64decode(operation["value"]["content"])
                repository.files[operation["value"]["path"]] = content
        return self._json(
            {"success": True, "commitOid": repository.sha, "commitUrl": f"{self.server.address}/{name}/commit/x"}
        )

    def do_HEAD(self) -> None:
        self._read(with_body=False)

    def do_GET(self) -> None:
        self._read(with_body=True)

    def _read(self, with_body: bool) -> None:
        path = unquote(urlsplit(self.path).path)
        if path == "/api/whoami-v2":
            return self._json({"name": "me", "type": "user", "orgs": []})
        api = re.fullmatch(r"/api/(models|datasets)/([^/]+/[^/]+?)(?:/(revision|tree|refs)(?:/([^/]+)(/.*)?)?)?", path)
        if api is not None:
            return self._describe(*api.groups())
        file = re.fullmatch(r"/(datasets/)?([^/]+/[^/]+)/resolve/[^/]+/(.+)", path)
        if file is None:
            return self._json({"error": path}, 404)
        kind = "datasets" if file[1] else "models"
        repository = self.server.repositories.get((kind, file[2]))
        if repository is None or file[3] not in repository.files:
            code = "RepoNotFound" if repository is None else "EntryNotFound"
            return self._json(
                {"error": code}, 404, {"X-Error-Code": code, "X-Repo-Commit": getattr(repository, "sha", "")}
            )
        data, status = repository.files[file[3]], 200
        headers = {
            "ETag": f'"{hashlib.sha1(data).hexdigest()}"',
            "X-Repo-Commit": repository.sha,
            "Accept-Ranges": "bytes",
        }
        span = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if span is not None and with_body:
            start, end = int(span[1]), min(int(span[2] or len(data) - 1), len(data) - 1)
            headers["Content-Range"] = f"bytes {start}-{end}/{len(data)}"
            data, status = data[start : end + 1], 206
        self._send(data, status, headers | {"Content-Type": "application/octet-stream"}, with_body)

    def _describe(self, kind: str, name: str, action: str | None, _: str | None, below: str | None) -> None:
        repository = self.server.repositories.get((kind, name))
        if repository is None:
            return self._json({"error": "no such repository"}, 404, {"X-Error-Code": "RepoNotFound"})
        if action == "tree":
            prefix = (below or "").strip("/")
            inside = [one for one in sorted(repository.files) if not prefix or one.startswith(f"{prefix}/")]
            depth = prefix.count("/") + 1 if prefix else 0
            # folders come as entries of their own; without `recursive` only what lies directly below
            paths = {"/".join(one.split("/")[:n]) for one in inside for n in range(depth + 1, one.count("/") + 2)}
            if "recursive=true" not in urlsplit(self.path).query.lower():
                paths = {one for one in paths if one.count("/") == depth}
            return self._json([_entry(repository, one) for one in sorted(paths)])
        if action == "refs":
            return self._json(
                {
                    "branches": [{"name": "main", "ref": "refs/heads/main", "targetCommit": repository.sha}],
                    "tags": [],
                    "converts": [],
                }
            )
        siblings = [{"rfilename": one} for one in sorted(repository.files)]
        tag = {"pipeline_tag": "zero-shot-image-classification"} if kind == "models" else {}
        self._json(
            {"id": name, "sha": repository.sha, "private": repository.private, "siblings": siblings, "tags": [], **tag}
        )

    def _json(self, value: Any, status: int = 200, headers: dict[str, str] | None = None) -> None:
        content = {"Content-Type": "application/json", **(headers or {})}
        self._send(json.dumps(value).encode(), status, content, self.command != "HEAD")

    def _send(self, data: bytes, status: int, headers: dict[str, str], with_body: bool) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if with_body:
            self.wfile.write(data)


def _entry(repository: Repository, path: str) -> dict[str, Any] | None:
    data = repository.files.get(path)
    if data is not None:
        return {"type": "file", "path": path, "size": len(data), "oid": hashlib.sha1(data).hexdigest()}
    if any(one.startswith(f"{path}/") for one in repository.files):
        return {"type": "directory", "path": path, "oid": hashlib.sha1(path.encode()).hexdigest()}
    return None
