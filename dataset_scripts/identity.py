"""What decides a figure, told apart by content: a corpus, a model, and the program with its libraries."""

import hashlib
import importlib.metadata
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path

from huggingface_hub import try_to_load_from_cache

# weights, configurations of model, processor and tokenizer, and every file that a tokenizer of transformers reads
MODEL_FILES = ("*.safetensors*", "*config.json", "*token*", "*vocab*", "*.model", "*.codes", "merges.txt", "dict.txt")
SOURCE_FILES = ("*.py", "*.yaml")
LIBRARIES = ("torch", "transformers", "tokenizers", "numpy", "scipy", "scikit-learn", "pillow", "pydicom")


def corpus_identity(folder: str | Path) -> str:
    """Of a converted corpus: all that its shards hold, and in which split."""
    return _digest(Path(folder), Path(folder).glob("data/*.parquet"))


def model_identity(name: str | Path) -> str | None:
    """Of a model's folder, or of the files that were loaded of a Hub id: weights, processor and tokenizer.

    Returns:
        None where there are no weights.
    """
    folder = _folder_of(name)
    if folder is None or not any(folder.glob("*.safetensors")):
        return None
    return _digest(folder, (path for pattern in MODEL_FILES for path in folder.glob(pattern) if path.is_file()))


def program_identity(*roots: Path) -> str:
    """Of the sources and the packaged YAML under `roots`, folders or files, and of the libraries that compute."""
    digest = hashlib.sha256(str([version(name) for name in LIBRARIES]).encode())
    for root in roots:
        files = [root] if root.is_file() else [path for kind in SOURCE_FILES for path in root.rglob(kind)]
        digest.update(f"{root.name} {_digest(root, files)}\n".encode())
    return digest.hexdigest()[:16]


def version(name: str) -> str | None:
    """Of an installed package."""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def stamp(path: Path) -> str:
    """Changes with every write to a file, also where its size and its time of modification are put back."""
    known = path.stat(follow_symlinks=False)
    return f"{known.st_size} {known.st_mtime_ns} {known.st_ctime_ns}"


def _folder_of(name: str | Path) -> Path | None:
    if Path(name).is_dir():
        return Path(name)
    config = try_to_load_from_cache(str(name), "config.json")
    return Path(config).parent if isinstance(config, str) else None


def _digest(root: Path, files: Iterable[Path]) -> str:
    """Of names, relative to `root`, and contents."""
    named = sorted({path.relative_to(root).as_posix(): path.resolve() for path in files}.items())
    with ThreadPoolExecutor() as pool:
        contents = list(pool.map(lambda item: _content(item[1], stamp(item[1])), named))
    lines = [f"{name} {content}\n" for (name, _), content in zip(named, contents, strict=True)]
    return hashlib.sha256("".join(lines).encode()).hexdigest()[:16]


@cache
def _content(path: Path, _: str) -> str:
    """Digest of a file, which is read once while its stamp stays."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
