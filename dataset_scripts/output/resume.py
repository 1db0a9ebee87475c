"""The hidden folder beside the output, in which a conversion is made, goes on after an interruption, or is shared."""

import hashlib
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from dataset_scripts.identity import program_identity, stamp
from dataset_scripts.output.writer import in_place, read_json, write_json
from dataset_scripts.schema import UserError

PROGRAM = Path(__file__).parents[1]  # all of dataset_scripts: every converter decides what is written
CONVERSION, LOCK, RANGES, LISTED_DEPTH = "conversion.json", "lock", "[0-9]*", 3


def require_free(output: Path) -> None:
    """Raise UserError unless `output` can be written without touching anything that exists."""
    if output.is_dir() and not any(output.iterdir()):
        return
    if output.exists() or output.is_symlink():
        raise UserError(f"{output}: exists already; expected a new or empty output folder")


def partial_folder(output: Path, conversion: dict[str, Any]) -> Path:
    """The folder `.NAME.partial` for this conversion, new or from before, which several processes may share.

    Args:
        output: what the subfolder `output` becomes in the end, whole.
        conversion: JSON that says all that the result depends on; another conversion's folder is not gone on with.

    Raises:
        UserError: `output` exists, or the partial folder is another conversion's.
    """
    require_free(output)
    output = output.resolve()
    folder = output.parent / f".{output.name}.partial"
    if folder.is_symlink():
        raise UserError(f"{folder}: a symbolic link; expected a folder of an interrupted conversion, or none")
    if not folder.exists():
        output.parent.mkdir(parents=True, exist_ok=True)
        with in_place(folder) as new:
            write_json(new / CONVERSION, conversion)
    begun = read_json(folder / CONVERSION)
    if begun != conversion:
        others = sorted(name for name in begun.keys() | conversion.keys() if begun.get(name) != conversion.get(name))
        raise UserError(
            f"{folder}: an interrupted conversion with another {', '.join(others)}; go on with the command that began "
            "it, or delete that folder to start afresh"
        )
    return folder


@contextmanager
def becoming(output: Path, folder: Path, source: Path) -> Iterator[None]:
    """Hold the partial folder alone; its subfolder `output` becomes `output` when the block ends well.

    When it does not, the partial folder stays, if it holds a range.

    Raises:
        UserError: another process holds it, or a file of the source was written since its first range was begun.
    """
    lock = FileLock(folder / LOCK, blocking=False)
    try:
        lock.acquire()
    except Timeout:
        raise UserError(f"{output}: another process is writing it; expected one conversion an output") from None
    try:
        if any(folder.glob(RANGES)) and (changed := _written_after(folder / CONVERSION, source)):
            raise UserError(f"{changed}: written after the conversion began; delete {folder} to start afresh")
        shutil.rmtree(folder / "output", ignore_errors=True)
        yield
        require_free(output)
        (folder / "output").replace(output.resolve())
        shutil.rmtree(folder, ignore_errors=True)
    finally:
        lock.release()
        if folder.is_dir() and not any(path.name not in (CONVERSION, LOCK) for path in folder.iterdir()):
            shutil.rmtree(folder, ignore_errors=True)


def fingerprint(*roots: Path) -> str:
    """A digest of this program and of the names and stamps of files: of tables surely, of deep images not."""
    digest = hashlib.sha256(program_identity(PROGRAM).encode())
    for root in roots:
        for line in _listing(root.resolve(), LISTED_DEPTH) if root.is_dir() else [f"{root} {stamp(root)}"]:
            digest.update(line.encode(errors="surrogateescape") + b"\n")
    return digest.hexdigest()


def _listing(folder: Path, depth: int) -> Iterator[str]:
    try:
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except PermissionError:
        return  # what cannot be read is no part of the output
    for entry in entries:
        if entry.name.startswith(".") or entry.name in ("Thumbs.db", "desktop.ini"):
            continue  # of the system that looked at the folder
        if not entry.is_dir(follow_symlinks=False):
            yield f"{entry.path} {stamp(Path(entry.path))}"
        elif depth > 1:
            yield from _listing(Path(entry.path), depth - 1)


def _written_after(mark: Path, root: Path) -> Path | None:
    """A file of the source, however deep, that is younger than `mark`; what was made of an older one would stay."""
    begun = mark.stat().st_ctime_ns
    files = (Path(folder, name) for folder, _, names in os.walk(root) for name in names)
    return next((path for path in files if path.stat(follow_symlinks=False).st_ctime_ns > begun), None)
