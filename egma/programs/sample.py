"""Make again what travels with the package, a small trained model and four generated readings: `make sample`.

EGMA+ as `make demo` trains it, alone, in the world of seed 0. The model's folder has no code, which is the package's.
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
from egma.hub.card import SHOWN_SETTINGS, model_card
from egma.page.corpus import Corpus
from egma.programs.demo import train_and_evaluate
from egma.tools.processes import ROOT, write_json

FILES = ("config.json", "processor_config.json", "tokenizer_config.json", "tokenizer.json", "model.safetensors")
CODE = ("auto_map", "custom_pipelines")  # where transformers would look for code beside the weights
MADE = """`make sample` (`python -m egma.programs.sample`) made this model at commit {git_revision}, with
`configs/phantom.yaml` and `configs/ablations/plus.yaml`. Digest of weights, configuration, processor and tokenizer:
`{identity}`. The package, which has the code, loads it: `from egma import SAMPLE_MODEL`.

## Use
"""


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


def pack_model(run: Path, evaluation: Path, output: Path) -> None:
    """What of a finished run and its evaluation travels: nothing that names the machine, no code, no checkpoint."""
    shutil.rmtree(output, ignore_errors=True)
    output.mkdir(parents=True)
    for name in FILES:
        shutil.copyfile(run / name, output / name)
        if name.endswith("config.json"):
            write_json(output / name, _without_code(_read(output / name)))
    state, results = _read(run / "training_state.json"), _read(evaluation / "results.json")
    del state["config"], results["details"]
    state["settings"] = {name: state["settings"][name] for name in SHOWN_SETTINGS}
    results["model"] |= {"name": output.name, "identity": model_identity(output)}
    write_json(output / "training_state.json", state)
    write_json(output / "results.json", results)
    card = str(model_card(output, output.name, results, []))
    card = card.replace("## Use\n", MADE.format(**state | results["model"]))
    card = card.replace(f'"{output.name}", trust_remote_code=True', "SAMPLE_MODEL")
    (output / "README.md").write_text(card, encoding="utf-8")


def pack_readings(data: Path, output: Path) -> None:
    """The readings of the test split that the page would show first, as a corpus."""
    chosen = {reading["reading_id"] for reading in Corpus(data).examples}
    rows = load_readings(data, "test").cast_column("image", datasets.Image(decode=False)).to_list()
    shutil.rmtree(output, ignore_errors=True)
    (output / "data").mkdir(parents=True)
    shard = pa.Table.from_pylist([row for row in rows if row["reading_id"] in chosen], schema=ARROW_SCHEMA)
    pq.write_table(shard, output / "data" / "test-00000-of-00001.parquet")
    write_json(output / "conversion_report.json", {"generated": True})


def _without_code(values: Any) -> Any:
    if not isinstance(values, dict):
        return values
    return {name: _without_code(of) for name, of in values.items() if name not in CODE}


def _read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


if __name__ == "__main__":
    sys.exit(main())
