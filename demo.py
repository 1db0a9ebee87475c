"""The whole path on generated data: `make demo`.

Generates the phantom corpus, converts it, trains twice from one initialisation with the same losses and steps (without
gaze and with it), evaluates both, and writes `results.json` and `report.md` with figures. What is there is reused.
"""

import argparse
import json
import os
import sys
from pathlib import Path
from typing import Any

from transformers import AutoModel, AutoProcessor

import modeling_egma  # noqa: F401  registers the Auto classes
from dataset_scripts.schema import UserError, load_readings
from egma_evaluation.figures import GalleryRow, heatmap_gallery, training_curves
from egma_evaluation.gallery import gallery_rows
from egma_evaluation.report import FEW_MARK
from egma_evaluation.stages import ROOT, Stage, run_stages, training, write_json

RUNS = {"no_gaze": 0.0, "egma": 1.0}
FIGURES = (
    ("zero_shot_auroc", "Zero-shot AUROC"),
    ("zero_shot_accuracy", "Zero-shot accuracy"),
    ("zero_shot_f1", "Zero-shot macro-F1"),
    ("pointing_game", "Pointing game"),
    ("recall_at_1", "Image-to-text recall@1"),
    ("text_to_image_recall_at_1", "Text-to-image recall@1"),
)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=ROOT / "runs" / "demo")
    parser.add_argument("--readings", type=int, default=2000, help="size of the generated corpus")
    parser.add_argument("--max_steps", type=int, help="training steps; default: the preset's")
    parser.add_argument("--seed", type=int, default=0, help="of corpus, initialisation and order")
    arguments = parser.parse_args(argv)
    try:
        run_demo(arguments.output, arguments.readings, arguments.max_steps, arguments.seed)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted; the same command goes on from here", file=sys.stderr)
        return 130
    return 0


def run_demo(output: Path, readings: int, max_steps: int | None, seed: int) -> None:
    """Everything that `make demo` shows, under `output`.

    Raises:
        UserError: a stage failed; its own message stands above.
    """
    output = output.resolve()
    raw, data = output / "raw", output / "data"
    output.mkdir(parents=True, exist_ok=True)
    cores = str(os.cpu_count() or 1)
    phantom = ("-m", "dataset_scripts.phantom", "--output", raw, "--readings", readings, "--seed", seed)
    generate = Stage("generate the phantom corpus (MIMIC-EYE layout)", (*phantom, "--num-proc", cores), raw)
    build = ("-m", "dataset_scripts.build", "mimic_eye", "--source", raw, "--output", data, "--image-size", 160)
    run_stages(output, [generate])
    run_stages(output, [Stage("convert it", (*build, "--num-proc", cores), data)])
    preset = str(ROOT / "configs" / "phantom.yaml")
    trainings = [
        Stage(f"train {name}", training(data, output / name, preset, gaze_ratio, seed, max_steps), output / name)
        for name, gaze_ratio in RUNS.items()
    ]
    run_stages(output, trainings)
    for name in RUNS:
        evaluate = (ROOT / "evaluate_egma.py", output / name, "--data", data, "--output", output / "evaluation" / name)
        run_stages(output, [Stage(f"evaluate {name}", evaluate, output / "evaluation" / name)])
    results = collect_results(output)
    print(write_report(output, data, results))
    print(f"\nreport   {output / 'report.md'}\nresults  {output / 'results.json'}")
    print(f"models   {output / 'egma'} and {output / 'no_gaze'}")


def collect_results(output: Path) -> dict[str, Any]:
    """The headline figures of both runs and of the baselines, as `results.json` holds them."""
    evaluations = {
        name: json.loads((output / "evaluation" / name / "results.json").read_text(encoding="utf-8")) for name in RUNS
    }
    keys = [key for key, _ in FIGURES]
    results: dict[str, Any] = {"generated": True}
    for name, evaluation in evaluations.items():
        results[name] = {key: evaluation[key] for key in (*keys, "intervals", "few_patients")}
    for baseline in ("chance", "constant_predictor", "box_centre"):
        results[baseline] = evaluations["egma"][baseline]
    results["n"] = evaluations["egma"]["n"]
    results["zero_shot_score"] = evaluations["egma"]["zero_shot_score"]
    write_json(output / "results.json", results)
    return results


def write_report(output: Path, data: Path, results: dict[str, Any]) -> str:
    """Write `report.md` with its figures; returns the table."""
    logs = {name: output / name / "metrics.jsonl" for name in RUNS}
    metrics = ("contrastive", "gaze", "validation_contrastive", "validation_gaze")
    training_curves(logs, metrics, output / "training_curves.png", generated=True)
    heatmap_gallery(_gallery(output / "egma", data), output / "heat_maps_egma.png", generated=True)
    heatmap_gallery(_gallery(output / "no_gaze", data), output / "heat_maps_no_gaze.png", generated=True)
    table = results_table(results)
    (output / "report.md").write_text(REPORT.format(table=table, score=results["zero_shot_score"]), encoding="utf-8")
    return table


def results_table(results: dict[str, Any]) -> str:
    """The Markdown table of `report.md`, in percent with 95 % intervals."""
    columns = ("no_gaze", "egma", "chance", "constant_predictor", "box_centre")
    lines = ["| test set | no gaze | EGMA | chance | constant predictor | box centre |", "|---|---|---|---|---|---|"]
    for key, title in FIGURES:
        cells = [_cell(results[column], key) for column in columns]
        lines.append(f"| {title} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _gallery(model_folder: Path, data: Path) -> list[GalleryRow]:
    model = AutoModel.from_pretrained(model_folder).eval()
    return gallery_rows(model, AutoProcessor.from_pretrained(model_folder), load_readings(data, "test"))


def _cell(values: dict[str, Any], key: str) -> str:
    if values.get(key) is None:
        return ""
    interval = values.get("intervals", {}).get(key)
    spread = f" [{100 * interval[0]:.1f}, {100 * interval[1]:.1f}]" if interval else ""
    mark = f" {FEW_MARK}" if values.get("few_patients", {}).get(key) else ""
    return f"{100 * values[key]:.1f}{spread}{mark}"


REPORT = """# EGMA on generated data

Every picture, report and recording here is **generated** (the phantom corpus); no patient exists, and no figure says
anything about real radiographs. Both models start from the same weights, see the same images and sentences in the same
order and have the same losses; `EGMA` also sees where the (generated) reader looked. Zero-shot figures use the {score}
score. All figures in percent, on patients that no model saw, with 95 % intervals over patients;
(few): fewer than ten of them.

{table}

* *chance*: a random score; for the pointing game the boxes' share of the image.
* *constant predictor*: always the most frequent finding.
* *box centre*: always pointing at the centre of the training boxes.

## Where a sentence looks

With gaze in training:

![heat maps of EGMA beside the reader's gaze](heat_maps_egma.png)

The same sentences without gaze in training:

![heat maps of the model without gaze](heat_maps_no_gaze.png)

## Training

`no_gaze` has no gaze term: its line lies at 0 there.

![losses of both runs](training_curves.png)
"""


if __name__ == "__main__":
    sys.exit(main())
