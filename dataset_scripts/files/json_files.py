"""JSON that comes from outside; what is wrong with it is told in words."""

import json
from pathlib import Path
from typing import Any

from dataset_scripts.schema import UserError


def read_json(path: Path, name: object) -> Any:
    """The value of a JSON file in UTF-8, with or without a byte order mark.

    Args:
        name: of the file, as the message says it.

    Raises:
        UserError: it is none.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"{name}: expected JSON in UTF-8; byte {error.start + 1} is none of it") from None
    return parse_json(text, name)


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
