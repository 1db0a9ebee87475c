"""Files that were uploaded and wait to be read: a folder each, within quotas, and not for long."""

import re
import secrets
import shutil
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

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
        self._lock = threading.Lock()

    @contextmanager
    def place(self, visitor: str, size_bytes: int) -> Iterator[Path]:
        """A folder that nobody can guess, for a file that arrives; gone again unless it did.

        Raises:
            UserError: the quota of the visitor, or of all of them, is used up.
        """
        folder = self.folder / secrets.token_hex(16)
        with self._lock:
            there = [one for other, one in self._waiting.items() if other.exists()]
            own = [one for one in there if one.visitor == visitor]
            for most, files in ((MAX_BYTES_A_VISITOR, own), (MAX_BYTES, there)):
                if sum(one.size_bytes for one in files) + size_bytes > most:
                    raise UserError(f"Too many files wait to be read; try again in {KEPT_SECONDS // 60} minutes.")
            folder.mkdir(mode=0o700)
            self._waiting[folder] = _File(visitor, size_bytes, time.monotonic())
        try:
            yield folder
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise

    def __contains__(self, path: object) -> bool:
        return isinstance(path, str) and Path(path).parent in self._waiting and Path(path).name != ".."

    def sweep(self, kept_seconds: float = KEPT_SECONDS) -> None:
        """Remove what has waited for too long, and forget what was read."""
        now = time.monotonic()
        with self._lock:
            for folder, file in list(self._waiting.items()):
                if now - file.since_seconds > kept_seconds:
                    shutil.rmtree(folder, ignore_errors=True)
                if not folder.exists():
                    del self._waiting[folder]


def plain_file_name(name: str) -> str:
    """What a visitor calls a file, as a name without a place."""
    return re.sub(r"[^\w. ()-]", "_", name)[-NAME_CHARACTERS:].lstrip(".") or "file"
