"""Where a corpus lies: in a folder, or on the Hub."""

import re
from pathlib import Path

from huggingface_hub import snapshot_download

from dataset_scripts.schema import UserError

HUB = re.compile(r"(?P<scheme>hf://datasets/)?(?P<name>[\w.-]+/[\w.-]+?)(@(?P<revision>[^@]+))?/?")
CACHED = re.compile(r"datasets--(?P<user>[^/]+?)--(?P<name>[^/]+)/snapshots/(?P<revision>[0-9a-f]{40})")
FILES = ["data/*.parquet", "conversion_report.json", "README.md"]


def corpus_folder(data: str | Path) -> Path:
    """Folder of a converted corpus.

    Args:
        data: a folder, or a dataset of the Hub: `hf://datasets/USER/NAME` or, where nothing of this machine is meant,
            `USER/NAME`, either with `@REVISION`. What is there now, or at the revision, lies in the Hub's cache under
            its commit.

    Raises:
        UserError: the dataset cannot be had.
    """
    found = HUB.fullmatch(str(data))
    if found is None or (not found["scheme"] and (Path(data).exists() or Path(data).parent.is_dir())):
        return Path(data)
    try:
        return Path(
            snapshot_download(found["name"], repo_type="dataset", revision=found["revision"], allow_patterns=FILES)
        )
    except (OSError, ValueError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise UserError(f"{data}: no such folder, and no dataset of the Hub that can be had ({reason})") from error


def hub_source(folder: Path) -> dict[str, str] | None:
    """`id` and `revision` (a commit) of a corpus that lies in the Hub's cache; None of any other folder."""
    found = CACHED.fullmatch("/".join(folder.resolve().parts[-3:]))
    return found and {"id": f"{found['user']}/{found['name']}", "revision": found["revision"]}
