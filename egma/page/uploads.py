"""Files that were uploaded and wait to be read: a folder each, within quotas, and not for long."""

import re
import secrets
import shutil
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, NamedTuple

from dataset_scripts.schema import UserError

MAX_UPLOAD_BYTES = 1 << 25
MAX_BYTES_A_VISITOR, MAX_BYTES = 4 * MAX_UPLOAD_BYTES, 32 * MAX_UPLOAD_BYTES
SWEPT_EVERY_SECONDS, KEPT_SECONDS = 30, 120  # for those that no event came for
NAME_CHARACTERS = 60


class _File(NamedTuple):
    visitor: str
    size_bytes: int
    since_seconds: float


class Uploads:
    """What waits in a folder until an event reads it, which removes it, or until its time is up."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder.resolve()
        self._waiting: dict[Path, _File] = {}
        self._arriving: list[_File] = []
        self._lock = threading.Lock()

    @contextmanager
    def room(self, visitor: str, size_bytes: int) -> Iterator[None]:
        """Room for a file while it arrives.

        Raises:
            UserError: the quota of the visitor, or of all of them, is used up.
        """
        file = _File(visitor, size_bytes, time.monotonic())
        with self._lock:
            there = [*self._arriving, *(one for path, one in self._waiting.items() if path.exists())]
            own = sum(one.size_bytes for one in there if one.visitor == visitor)
            if own + size_bytes > MAX_BYTES_A_VISITOR or sum(one.size_bytes for one in there) + size_bytes > MAX_BYTES:
                raise UserError(f"Too many files wait to be read; try again in {KEPT_SECONDS // 60} minutes.")
            self._arriving.append(file)
        try:
            yield
        finally:
            with self._lock:
                self._arriving.remove(file)

    def add(self, visitor: str, name: str, content: BinaryIO) -> str:
        """Where the file waits from now on: under a plain form of its name, in a folder that nobody can guess."""
        plain = re.sub(r"[^\w. ()-]", "_", name)[-NAME_CHARACTERS:].lstrip(".") or "file"
        path = self.folder / secrets.token_hex(16) / plain
        path.parent.mkdir(mode=0o700)
        with path.open("wb") as file:
            shutil.copyfileobj(content, file)
            size_bytes = file.tell()
        with self._lock:
            self._waiting[path] = _File(visitor, size_bytes, time.monotonic())
        return str(path)

    def __contains__(self, path: object) -> bool:
        return isinstance(path, str) and Path(path) in self._waiting

    def sweep(self, kept_seconds: float = KEPT_SECONDS) -> None:
        """Remove what has waited for too long, and forget what was read."""
        now = time.monotonic()
        with self._lock:
            for path, file in list(self._waiting.items()):
                if now - file.since_seconds > kept_seconds:
                    shutil.rmtree(path.parent, ignore_errors=True)
                if not path.exists():
                    del self._waiting[path]
