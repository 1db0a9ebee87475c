"""JSON that comes from outside; what is wrong with it is told in words."""

import json
from pathlib import Path
from typing import Any

from dataset_scripts.files.texts import read_text
from dataset_scripts.ledger import Ledger
from dataset_scripts.schema import UserError

MAX_BYTES = 1 << 28


def read_json(path: Path, name: object, ledger: Ledger) -> Any:
    """The value of a JSON file; a name that ends in `.gz` is unpacked.

    Args:
        name: of the file, as messages and notes say it.

    Raises:
        UserError: it is none.
        OSError: it is missing or cannot be read.
    """
    return parse_json(read_text(path, name, ledger, MAX_BYTES), name)


def read_json_list(path: Path, ledger: Ledger) -> list[Any]:
    """The items of a JSON file that holds a list with something in it; raises UserError where it does not."""
    if not path.is_file():
        raise UserError(f"{path}: no such file; expected a JSON list of objects (a pickle is never read)")
    items = read_json(path, path, ledger)
    if not isinstance(items, list) or not items:
        raise UserError(f"{path}: expected a list of objects, and one at least")
    return items


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
