"""Results of finished tasks on the disk, so that an interrupted evaluation does not begin anew."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from egma_evaluation.stages import write_json


class TaskCache:
    """`FOLDER/TASK.json` of one model, data and set of options; what belongs to another is made again.

    Args:
        identity: everything that decides the figures; compared as JSON.
    """

    def __init__(self, folder: Path, identity: Mapping[str, Any]) -> None:
        self.folder = folder
        text = json.dumps(identity, sort_keys=True, ensure_ascii=False, default=str)
        self.key = hashlib.sha256(text.encode()).hexdigest()

    def read(self, task: str) -> dict[str, Any] | None:
        try:
            known = json.loads((self.folder / f"{task}.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        return known["result"] if isinstance(known, dict) and known.get("key") == self.key else None

    def write(self, task: str, result: Mapping[str, Any]) -> None:
        write_json(self.folder / f"{task}.json", {"key": self.key, "result": result})
