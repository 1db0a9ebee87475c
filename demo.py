"""The whole path on generated data: `make demo`.

Generates the phantom corpus, converts it, trains twice from one initialisation with the same losses and steps (without
gaze and with it), evaluates both, and writes `results.json` and `report.md` with figures. What is there is reused.
"""

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any, NamedTuple

import torch
from transformers import AutoModel, AutoProcessor

import modeling_egma  # noqa: F401  registers the Auto classes
from dataset_scripts.schema import UserError, load_readings
from egma_evaluation.figures import GalleryRow, heatmap_gallery, training_curves

ROOT = Path(__file__).resolve().parent
RUNS = {"no_gaze": 0.0, "egma": 1.0}
FIGURES = (
    ("zero_shot_auroc", "Zero-shot AUROC"),
    ("zero_shot_accuracy", "Zero-shot accuracy"),
    ("zero_shot_f1", "Zero-shot macro-F1"),
    ("pointing_game", "Pointing game"),
    ("recall_at_1", "Image-to-text recall@1"),
    ("text_to_image_recall_at_1", "Text-to-image recall@1"),
)
GALLERY_ROWS = 6


class Stage(NamedTuple):
    """One program of the demo: what it is called, its command line, and the folder that it makes."""

    title: str
    command: list[object]
    result: Path

    @property
    def words(self) -> list[str]:
        return [str(word) for word in self.command]


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
    phantom = ["-m", "dataset_scripts.phantom", "--output", raw, "--readings", readings, "--seed", seed]
    generate = Stage("generate the phantom corpus (MIMIC-EYE layout)", [*phantom, "--num-proc", cores], raw)
    build = ["-m", "dataset_scripts.build", "mimic_eye", "--source", raw, "--output", data, "--image-size", 160]
    _run_stages(output, [generate])
    _run_stages(output, [Stage("convert it", [*build, "--num-proc", cores], data)])
    trainings = [
        Stage(f"train {name}", _training(data, output / name, gaze_ratio, max_steps, seed), output / name)
        for name, gaze_ratio in RUNS.items()
    ]
    _run_stages(output, trainings)
    for name in RUNS:
        evaluate = [ROOT / "evaluate_egma.py", output / name, "--data", data, "--output", output / "evaluation" / name]
        _run_stages(output, [Stage(f"evaluate {name}", evaluate, output / "evaluation" / name)])
    results = collect_results(output)
    print(write_report(output, data, results))
    print(f"\nreport   {output / 'report.md'}\nresults  {output / 'results.json'}")
    print(f"models   {output / 'egma'} and {output / 'no_gaze'}")


def _training(data: Path, run: Path, gaze_ratio: float, max_steps: int | None, seed: int) -> list[object]:
    launch = ["-m", "accelerate.commands.launch", "--quiet", "--num_processes", 1, "--num_machines", 1]
    launch += ["--mixed_precision", "no", "--dynamo_backend", "no"]
    options = ["--config", ROOT / "configs" / "phantom.yaml", "--data", data, "--output_dir", run]
    options += ["--gaze_ratio", gaze_ratio, "--seed", seed]
    if max_steps is not None:
        options += ["--max_steps", max_steps]
    return [*launch, ROOT / "train_egma.py", *options]


def _run_stages(output: Path, stages: list[Stage]) -> None:
    """Run programs side by side, each on its share of the cores; those whose result the same command made are reused.

    `stages.json` holds, by title, every command that was begun and the seconds of those that came to their end. A
    training that was interrupted goes on from its checkpoint.

    Raises:
        UserError: a program failed; its own message stands above.
    """
    record = output / "stages.json"
    before = json.loads(record.read_text(encoding="utf-8")) if record.exists() else {}
    done = [stage for stage in stages if _is_done(stage, before.get(stage.title, {}))]
    for stage in done:
        print(f"{stage.title}: reused")
    fresh = [stage for stage in stages if stage not in done]
    threads = max(1, (os.cpu_count() or 1) // max(1, len(fresh)))
    environment = os.environ | {"OMP_NUM_THREADS": str(threads)}
    started = time.monotonic()
    processes = [_start(stage, before.get(stage.title), environment, alone=len(fresh) == 1) for stage in fresh]
    record_values = before | {stage.title: {"command": stage.words} for stage in fresh}
    _write_json(record, record_values)
    for stage, process in zip(fresh, processes, strict=True):
        if process.wait() != 0:
            for other in processes:
                other.terminate()
            raise UserError(f"'{stage.title}' failed with exit code {process.returncode}")
        record_values[stage.title]["seconds"] = round(time.monotonic() - started, 1)
        _write_json(record, record_values)
        print(f"{stage.title}: {record_values[stage.title]['seconds']:.0f} s", flush=True)


def _is_done(stage: Stage, begun: dict[str, Any]) -> bool:
    return begun.get("command") == stage.words and "seconds" in begun and stage.result.exists()


def _start(
    stage: Stage, begun: dict[str, Any] | None, environment: dict[str, str], alone: bool
) -> subprocess.Popen[str]:
    resume = begun is not None and begun["command"] == stage.words and any(stage.result.glob("checkpoint-*"))
    if not resume:
        shutil.rmtree(stage.result, ignore_errors=True)
    command = [sys.executable, *stage.words, *(["--resume", "auto"] if resume else [])]
    print(f"{stage.title} ...", flush=True)
    if alone:
        return subprocess.Popen(command, cwd=ROOT, env=environment, text=True)
    process = subprocess.Popen(
        command, cwd=ROOT, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    threading.Thread(target=_relay, args=(process, stage.title), daemon=True).start()
    return process


def _relay(process: subprocess.Popen[str], title: str) -> None:
    assert process.stdout is not None
    for line in process.stdout:
        print(f"{title}: {line.rstrip()}", flush=True)


def collect_results(output: Path) -> dict[str, Any]:
    """The headline figures of both runs and of the baselines, as `results.json` holds them."""
    evaluations = {
        name: json.loads((output / "evaluation" / name / "results.json").read_text(encoding="utf-8")) for name in RUNS
    }
    keys = [key for key, _ in FIGURES]
    results: dict[str, Any] = {"generated": True}
    for name, evaluation in evaluations.items():
        results[name] = {key: evaluation[key] for key in keys} | {"intervals": evaluation["intervals"]}
    for baseline in ("chance", "constant_predictor", "box_centre"):
        results[baseline] = evaluations["egma"][baseline]
    results["n"] = evaluations["egma"]["n"]
    results["zero_shot_score"] = evaluations["egma"]["zero_shot_score"]
    _write_json(output / "results.json", results)
    return results


def write_report(output: Path, data: Path, results: dict[str, Any]) -> str:
    """Write `report.md` with its figures; returns the table."""
    logs = {name: output / name / "metrics.jsonl" for name in RUNS}
    metrics = ("contrastive", "gaze", "validation_contrastive", "validation_gaze")
    training_curves(logs, metrics, output / "training_curves.png", generated=True)
    heatmap_gallery(gallery_rows(output / "egma", data), output / "heat_maps_egma.png", generated=True)
    heatmap_gallery(gallery_rows(output / "no_gaze", data), output / "heat_maps_no_gaze.png", generated=True)
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


def gallery_rows(model_folder: Path, data: Path) -> list[GalleryRow]:
    """The same sentences for every model: of the first test images with gaze, one that names a boxed finding."""
    model = AutoModel.from_pretrained(model_folder).eval()
    processor = AutoProcessor.from_pretrained(model_folder)
    rows: list[GalleryRow] = []
    shown: set[str] = set()
    for reading in load_readings(data, "test"):
        sentence = next((s for s in reading["sentences"] if _is_of_a_box(s["text"], reading["boxes"])), None)
        fixations = reading["fixations"]
        if sentence is None or reading["image_id"] in shown or not (fixations and fixations["x"]):
            continue
        shown.add(reading["image_id"])
        span = (sentence["start_seconds"], sentence["end_seconds"])
        batch = processor(images=[reading["image"]], text=[[sentence["text"]]], gaze=[fixations], spans=[[span]])
        with torch.no_grad():
            similarity = model.get_similarity_map(batch["pixel_values"], batch["input_ids"], batch["attention_mask"])
        rows.append(GalleryRow(reading["image"], sentence["text"], similarity[0, 0], batch["gaze_heatmaps"][0]))
        if len(rows) == GALLERY_ROWS:
            break
    return rows


def _is_of_a_box(text: str, boxes: list[dict[str, Any]]) -> bool:
    """A sentence that names a finding that has a box, and does not deny it."""
    words = set(re.findall(r"[a-z]+", text.lower()))
    named = any(set(re.findall(r"[a-z]{6,}", box["label"].lower())) & words for box in boxes)
    return named and not words & {"no", "not", "without"}


def _cell(values: dict[str, Any], key: str) -> str:
    if values.get(key) is None:
        return ""
    interval = values.get("intervals", {}).get(key)
    spread = f" [{100 * interval[0]:.1f}, {100 * interval[1]:.1f}]" if interval else ""
    return f"{100 * values[key]:.1f}{spread}"


def _write_json(path: Path, values: dict[str, Any]) -> None:
    partial = path.with_name(f".{path.name}")
    partial.write_text(json.dumps(values, indent=1) + "\n", encoding="utf-8")
    partial.replace(path)


REPORT = """# EGMA on generated data

Every picture, report and recording here is **generated** (the phantom corpus); no patient exists, and no figure says
anything about real radiographs. Both models start from the same weights, see the same images and sentences in the same
order and have the same losses; `EGMA` also sees where the (generated) reader looked. Zero-shot figures use the {score}
score. All figures in percent, on patients that no model saw, with bootstrap 95 % intervals over patients.

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
