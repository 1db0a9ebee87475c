"""JSON that comes from outside; what is wrong with it is told in words."""

import gzip
import io
import json
import zlib
from pathlib import Path
from typing import Any, TextIO

from dataset_scripts.schema import UserError

MAX_CHARACTERS = 1 << 28  # a small packed file can unpack to any size


def read_json(path: Path, name: object) -> Any:
    """The value of a JSON file in UTF-8, with or without a byte order mark; a name that ends in `.gz` is unpacked.

    Args:
        name: of the file, as the message says it.

    Raises:
        UserError: it is none.
    """
    try:
        with _opened(path) as file:
            text = file.read(MAX_CHARACTERS)
    except UnicodeDecodeError as error:
        raise UserError(f"{name}: expected JSON in UTF-8; byte {error.start + 1} is none of it") from None
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise UserError(f"{name}: expected JSON packed with gzip ({error})") from None
    if len(text) == MAX_CHARACTERS:
        raise UserError(f"{name}: longer than {MAX_CHARACTERS} characters; expected a smaller file")
    return parse_json(text, name)


def read_json_list(path: Path) -> list[Any]:
    """The items of a JSON file that holds a list with something in it; raises UserError where it does not."""
    if not path.is_file():
        raise UserError(f"{path}: no such file; expected a JSON list of objects (a pickle is never read)")
    items = read_json(path, path)
    if not isinstance(items, list) or not items:
        raise UserError(f"{path}: expected a list of objects, and one at least")
    return items


def _opened(path: Path) -> TextIO:
    if path.suffix == ".gz":
        return io.TextIOWrapper(gzip.GzipFile(path), encoding="utf-8-sig")
    return path.open(encoding="utf-8-sig")


def parse_json(text: str, name: object) -> Any:
    """The value of JSON text; raises UserError, beginning with `name`, where it is none."""
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        where = f"line {error.lineno}, column {error.colno}"
        raise UserError(f"{name}: expected JSON; it breaks at {where} ({error.msg})") from None
    except RecursionError:
        raise UserError(f"{name}: expected JSON; it is nested too deep") from None
    except ValueError:  # the only other: a whole number of thousands of digits
        raise UserError(f"{name}: expected JSON; a number has too many digits") from None
