"""Convert a tiny raw tree as a user would, and read back what was written."""

import json
from pathlib import Path
from typing import Any

from dataset_scripts import build
from dataset_scripts.schema import Reading, load_readings


def convert(corpus: str, source: Path, output: Path, **options: Any) -> tuple[dict[str, Reading], dict[str, Any]]:
    """All readings by id, and the report; every table of it must add up."""
    build.build(corpus, source, output, **({"image_size": 64, "max_loss": 1} | options))
    report = json.loads((output / "conversion_report.json").read_text())
    for name, tally in report["tables"].items():
        assert tally["rows_in"] == tally["rows_kept"] + tally["rows_dropped"], name
        assert tally["rows_dropped"] == sum(reason["count"] for reason in tally["dropped"].values()), name
    rows = {row["reading_id"]: row for split in report["splits"] for row in load_readings(output, split)}
    return rows, report
