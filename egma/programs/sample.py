"""Make again what travels with the package: a small trained model and four generated readings (`make sample`).

EGMA+ as `make demo` trains it, alone, in the world of seed 0, evaluated on that world's test split. The model's folder
gets weights, configuration, processor and tokenizer, its figures and its card; no code, which is the package's own.
"""

import json
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.parquet as pq

from dataset_scripts.command_line import Parser, program
from dataset_scripts.identity import model_identity
from dataset_scripts.schema import ARROW_SCHEMA, load_readings
from egma.evaluation.reporting.report import about, headline_table
from egma.hub.card import GENERATED_NOTICE, SHOWN_SETTINGS
from egma.page.corpus import Corpus
from egma.programs.demo import train_and_evaluate
from egma.tools.processes import ROOT, write_json

FILES = ("config.json", "processor_config.json", "tokenizer_config.json", "tokenizer.json", "model.safetensors")
CODE = ("auto_map", "custom_pipelines")  # where transformers would look for code beside the weights
# of the run's record, nothing of the machine
RECORDED = ("versions", "git_revision", "device", "processes", "precision", "parameters", "total_steps")
RECORDED += ("readings_in_a_contrastive_batch", "data")


@program
def main(argv: Sequence[str] | None = None) -> None:
    parser = Parser(__doc__)
    parser.add_argument("--work", type=Path, default=Path("runs/sample"), help="world and run; default: %(default)s")
    parser.add_argument("--output", type=Path, default=ROOT / "egma" / "sample", help="default: the package's")
    parser.add_argument("--readings", type=int, default=5500, help="size of the generated world")
    parser.add_argument("--max_steps", type=int, help="training steps; default: the preset's")
    options = parser.parse_args(argv)
    work = options.work.resolve()
    data = train_and_evaluate(work, ["egma"], options.readings, options.max_steps, seed=0)
    pack_model(work / "egma", work / "evaluation", options.output / "sample_model")
    pack_readings(data, options.output / "sample_readings")
    print(f"model     {options.output / 'sample_model'}\nreadings  {options.output / 'sample_readings'}")


def pack_model(run: Path, evaluation: Path, output: Path) -> None:
    """What of a finished run and its evaluation travels."""
    shutil.rmtree(output, ignore_errors=True)
    output.mkdir(parents=True)
    for name in FILES:
        shutil.copyfile(run / name, output / name)
        if name.endswith("config.json"):
            write_json(output / name, _without_code(_read(output / name)))
    state, results = _read(run / "training_state.json"), _read(evaluation / "results.json")
    settings = {name: state["settings"][name] for name in SHOWN_SETTINGS}
    write_json(output / "training_state.json", {name: state[name] for name in RECORDED} | {"settings": settings})
    results["model"] |= {"name": output.name, "identity": model_identity(output)}
    write_json(output / "results.json", {name: of for name, of in results.items() if name != "details"})
    text = CARD.format(
        notice=GENERATED_NOTICE,
        name=output.name,
        digest=results["model"]["identity"],
        corpus=results["data"]["identity"],
        results=f"{about(results)}\n\n{headline_table(results)}",
        **state,
    )
    (output / "README.md").write_text(text, encoding="utf-8")


def pack_readings(data: Path, output: Path) -> None:
    """The readings of the test split that the page would show first, as a corpus."""
    chosen = {reading["reading_id"] for reading in Corpus(data).examples}
    rows = load_readings(data, "test").cast_column("image", datasets.Image(decode=False))
    four = [row for row in rows.to_list() if row["reading_id"] in chosen]
    shutil.rmtree(output, ignore_errors=True)
    (output / "data").mkdir(parents=True)
    shard = pa.Table.from_pylist(four, schema=ARROW_SCHEMA)
    pq.write_table(shard, output / "data" / "test-00000-of-00001.parquet")
    write_json(output / "conversion_report.json", {"generated": True})


def _without_code(values: Any) -> Any:
    if not isinstance(values, dict):
        return values
    return {name: _without_code(of) for name, of in values.items() if name not in CODE}


def _read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


CARD = """---
license: apache-2.0
library_name: transformers
pipeline_tag: zero-shot-image-classification
tags: [egma, chest-x-ray, eye-tracking, synthetic]
---

# {name}

{notice}

A small EGMA+ model ({parameters:,} parameters), to try the package with. This folder holds no code: the package has it.
`make sample` (`python -m egma.programs.sample`) made it at commit {git_revision}:
`configs/phantom.yaml` with `configs/ablations/plus.yaml`, in the generated world of seed 0.

* Digest of weights, configuration, processor and tokenizer: `{digest}`.
* Digest of the corpus that it was trained and evaluated on: `{corpus}`.

## Its figures, on the test split of its own world

{results}

**No medical device**: nothing here may be used for a patient.
"""


if __name__ == "__main__":
    sys.exit(main())
