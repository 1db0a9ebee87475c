"""Text that comes from outside, whatever program wrote it: by its byte order mark, else UTF-8, else Windows' Latin."""

import codecs
import gzip
import io
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

from dataset_scripts.ledger import Ledger
from dataset_scripts.schema import UserError

MAX_BYTES = 1 << 30  # of a file that is read whole: a small packed one can unpack to any size
BLOCK_BYTES = 1 << 18
FALLBACK = "cp1252"
_MARKS = {  # UTF-32 first, whose mark begins as that of UTF-16 does
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}


def read_text(path: Path, name: object, ledger: Ledger, most_bytes: int = MAX_BYTES, newline: str | None = None) -> str:
    """The text of a file; one whose name ends in `.gz` is unpacked. What is read as FALLBACK is noted.

    Args:
        name: of the file, as messages and notes say it.
        newline: "" leaves the ends of lines as they are, None makes them "\\n".

    Raises:
        UserError: it is no text, damaged, or larger than `most_bytes`.
        OSError: it is missing or cannot be read.
    """
    data = bytearray()
    for block in _blocks(path, name):
        data += block
        if len(data) > most_bytes:
            raise UserError(f"{name}: larger than {most_bytes} bytes; expected a smaller file")
    return io.StringIO(data.decode(_encoding(lambda: iter([bytes(data)]), name, ledger)), newline).read()


def encoding_of(path: Path, name: object, ledger: Ledger) -> str:
    """The encoding of a text file of any size; raises as `read_text`."""
    return _encoding(lambda: _blocks(path, name), name, ledger)


def _blocks(path: Path, name: object) -> Iterator[bytes]:
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            while block := file.read(BLOCK_BYTES):
                yield block
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise UserError(f"{name}: expected a file packed with gzip ({error})") from None


def _encoding(blocks: Callable[[], Iterator[bytes]], name: object, ledger: Ledger) -> str:
    first = next(blocks(), b"")
    marked = [encoding for mark, encoding in _MARKS.items() if first.startswith(mark)]
    for encoding in marked[:1] or ("utf-8", FALLBACK):
        decoder = codecs.getincrementaldecoder(encoding)()
        try:
            has_zero = any(["\0" in decoder.decode(block) for block in blocks()])
            decoder.decode(b"", final=True)
        except UnicodeDecodeError:
            continue
        if has_zero:
            raise UserError(f"{name}: holds a zero byte; expected text")
        if encoding == FALLBACK:
            ledger.note("text_read_as_cp1252", str(name))
        return encoding
    raise UserError(f"{name}: expected text in UTF-8, or in the encoding of its byte order mark")
