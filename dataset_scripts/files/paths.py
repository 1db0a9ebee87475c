"""Paths of untrusted sources: names in a table must not lead out of the folder."""

from collections.abc import Sequence
from pathlib import Path

from dataset_scripts.ledger import Dropped
from dataset_scripts.schema import UserError

LONGEST_NAME_BYTES = 128


def inside(root: Path, relative: str) -> Path:
    """The path of `relative` under `root`; names in a table must not lead out of the source, nor a symlink."""
    path = root / relative
    if Path(relative).is_absolute() or ".." in Path(relative).parts:
        raise Dropped("path_leaves_source", relative)
    try:
        is_inside = path.resolve().is_relative_to(root.resolve())
    except (OSError, RuntimeError, ValueError):  # links in a circle, a zero byte
        raise Dropped("path_not_understood", ascii(relative[:80])) from None
    if not is_inside:
        raise Dropped("path_leaves_source", f"{relative}, a symbolic link")
    return path


def table_inside(root: Path, relative: str) -> Path:
    """The path of a table that many readings need.

    Raises:
        UserError: it is a symbolic link that leads out of `root`.
    """
    try:
        return inside(root, relative)
    except Dropped:
        raise UserError(f"{root / relative}: a symbolic link out of {root}; expected the table itself") from None


def first_table(root: Path, names: Sequence[str]) -> Path:
    """The path of the first of the tables that is in `root`; raises UserError where none is, or as `table_inside`."""
    for name in names:
        if (root / name).is_file():
            return table_inside(root, name)
    raise UserError(f"{root}: no {' or '.join(names)}; expected one of them in the folder")


def plain_name(name: str) -> str:
    """An id as part of a path.

    Raises:
        Dropped: no file can have this name.
    """
    too_long = len(name.encode(errors="replace")) > LONGEST_NAME_BYTES
    if too_long or not name.isprintable() or not Path(name).name:
        raise Dropped("id_is_no_file_name", ascii(name[:40]))
    return name
