"""The whole path on generated data: `make demo`.

Generates the phantom corpus, converts it, trains three times from one initialisation for the same steps (without gaze,
with the objective as published, with EGMA+), evaluates all, and writes `results.json` and `report.md` with figures.
What is there is reused.
"""

import contextlib
import functools
import json
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import datasets
import yaml
from tqdm import tqdm
from tqdm.contrib import DummyTqdmFile
from transformers.utils import logging

import modeling_egma  # noqa: F401  registers the Auto classes
from dataset_scripts.command_line import Parser, program
from dataset_scripts.identity import program_identity
from dataset_scripts.output.resume import fingerprint
from dataset_scripts.schema import load_readings
from egma.evaluation.reporting.report import FEW_MARK, blind_cell, percent, share_cell
from egma.evaluation.reporting.tables import markdown_table
from egma.figures.example_sentences import gallery_rows
from egma.figures.heat_maps import GalleryRow, heatmap_gallery
from egma.figures.training_curves import training_curves
from egma.inference.models import load_whole_model
from egma.tools.processes import CONFIGS, ROOT, Stage, conversion, evaluation, run_stages, training, write_json
from egma.training.watching import METRICS_FILE


class Run(NamedTuple):
    """A training: its name in tables, its objective in `configs/ablations`, the share of readings with gaze, its rate.

    Rates are those of docs/evidence.md, best of three for each.
    """

    title: str
    objective: str
    gaze_ratio: float
    learning_rate: float = 1e-3


RUNS = {
    "no_gaze": Run("no gaze", "plus", 0.0),
    "published": Run("EGMA as published", "unified", 1.0, 5e-4),
    "egma": Run("EGMA+", "plus", 1.0),
}
PLAN = """A corpus of {readings} generated readings, {models} trainings, one evaluation, into {output}.
At the default size some 8 minutes on two free cores, no GPU and 1 GB of disk. Ctrl-C is harmless: the same
command goes on from there, and what is finished is reused."""
TRAINING_PERCENT, EVALUATION_PERCENT = 20, 90  # of the work, before either
FIGURES = (
    ("zero_shot_auroc", "Zero-shot AUROC"),
    ("pointing_game", "Pointing game"),
    ("recall_at_1", "Image-to-text recall@1"),
    ("text_to_image_recall_at_1", "Text-to-image recall@1"),
)


@program
def main(argv: Sequence[str] | None = None) -> None:
    parser = Parser(__doc__)
    parser.add_argument("--output", type=Path, default=Path("runs/demo"), help="default: %(default)s")
    parser.add_argument("--readings", type=int, default=5500, help="size of the generated corpus")
    parser.add_argument("--max_steps", type=int, help="training steps; default: the preset's")
    parser.add_argument("--seed", type=int, default=0, help="of initialisation and order")
    parser.add_argument("--corpus-seed", type=int, help="of the generated world; default: --seed")
    arguments = parser.parse_args(argv)
    run_demo(arguments.output, arguments.readings, arguments.max_steps, arguments.seed, arguments.corpus_seed)


def run_demo(output: Path, readings: int, max_steps: int | None, seed: int, corpus_seed: int | None = None) -> None:
    """Everything that `make demo` shows, under `output`.

    Raises:
        UserError: a stage failed; its own message stands above, or in its log.
    """
    output = output.resolve()
    datasets.disable_progress_bars()
    logging.disable_progress_bar()
    print(PLAN.format(readings=readings, models=len(RUNS), output=output), flush=True)
    data = train_and_evaluate(output, list(RUNS), readings, max_steps, seed, corpus_seed)
    results = collect_results(output)
    print(write_report(output, data, results))
    print(f"\nreport   {output / 'report.md'}\nresults  {output / 'results.json'}")
    print(f"models   {', '.join(str(output / name) for name in RUNS)}")


def train_and_evaluate(
    output: Path, names: Sequence[str], readings: int, max_steps: int | None, seed: int, corpus_seed: int | None = None
) -> Path:
    """Draw and convert a world, train the RUNS of these names in it, evaluate the last beside the others.

    Returns:
        The folder of the converted corpus.
    """
    raw, data = output / "raw", output / "data"
    output.mkdir(parents=True, exist_ok=True)
    cores = str(os.cpu_count() or 1)
    world = seed if corpus_seed is None else corpus_seed
    phantom = ("-m", "dataset_scripts.phantom", "--output", raw, "--readings", readings, "--seed", world)
    generator = program_identity(ROOT / "dataset_scripts")
    title = "generate the phantom corpus (MIMIC-EYE layout)"
    options = ("--image-size", 128, "--num-proc", cores)
    model = output / names[-1]
    others = [word for name in names[:-1] for word in ("--compare", output / name)]
    steps: dict[int, Callable[[], list[Stage]]] = {  # by the share of the work that is done before, percent
        0: lambda: [Stage(title, (*phantom, "--num-proc", cores), raw, (generator,))],
        15: lambda: [conversion("convert it", "mimic_eye", raw, fingerprint(raw), data, *options)],
        TRAINING_PERCENT: lambda: [_training(output, data, name, seed, max_steps) for name in names],
        EVALUATION_PERCENT: lambda: [evaluation("evaluate them", model, data, output / "evaluation", *others)],
    }
    total = max_steps or yaml.safe_load((CONFIGS / "phantom.yaml").read_text(encoding="utf-8"))["max_steps"]
    logs = output / "logs" if sys.stdout.isatty() else None
    with _one_bar() as bar:
        for place, (percent_done, stages) in enumerate(steps.items(), 1):
            print(f"== step {place} of {len(steps)}, about {percent_done} % of the work is done", flush=True)
            stand = functools.partial(
                _stand, bar, percent_done, [output / name / METRICS_FILE for name in names], total
            )
            run_stages(output, stages(), logs=logs, meanwhile=stand)
        _stand(bar, 100)
    return data


@contextlib.contextmanager
def _one_bar() -> Iterator["tqdm[Any]"]:
    """A bar for the whole, below what is printed; without a terminal none."""
    form, plain = "{desc} {percentage:3.0f} %|{bar}| {elapsed}", sys.stdout
    with tqdm(total=100, desc="demo", bar_format=form, file=plain, disable=not plain.isatty()) as bar:
        above: Any = plain if bar.disable else DummyTqdmFile(plain)
        with contextlib.redirect_stdout(above):
            yield bar


def _stand(bar: "tqdm[Any]", percent: float, metrics: Sequence[Path] = (), steps: int = 1) -> None:
    """Where the bar stands; during the trainings also by the lines that they leave, one a step."""
    if percent == TRAINING_PERCENT:
        lines = [min(steps, path.read_bytes().count(b"\n")) for path in metrics if path.exists()]
        percent += (EVALUATION_PERCENT - TRAINING_PERCENT) * sum(lines) / (steps * len(metrics))
    bar.n = percent
    bar.refresh()


def _training(output: Path, data: Path, name: str, seed: int, max_steps: int | None) -> Stage:
    run = RUNS[name]
    presets = [str(CONFIGS / f"{preset}.yaml") for preset in ("phantom", f"ablations/{run.objective}")]
    stage = training(data, output / name, presets, run.gaze_ratio, seed, max_steps)
    return stage._replace(command=(*stage.command, "--learning_rate", run.learning_rate))


def collect_results(output: Path) -> dict[str, Any]:
    """The headline figures of all runs and of the baselines, as `results.json` holds them."""
    found = json.loads((output / "evaluation" / "results.json").read_text(encoding="utf-8"))
    evaluations = {name: found if name == "egma" else found["baselines"][name] for name in RUNS}
    keys = [key for key, _ in FIGURES]
    results: dict[str, Any] = {"generated": True}
    for name, found in evaluations.items():
        kept = ("intervals", "few_patients", "blind", "image_dependent")
        results[name] = {key: found[key] for key in keys} | {part: found[part] for part in kept}
    results["chance"] = evaluations["egma"]["chance"]
    results["classes_left_out"] = evaluations["egma"]["classes_left_out"]
    results["n"] = evaluations["egma"]["n"]
    results["zero_shot_score"] = evaluations["egma"]["zero_shot_score"]
    write_json(output / "results.json", results)
    return results


def write_report(output: Path, data: Path, results: dict[str, Any]) -> str:
    """Write `report.md` with its figures; returns the table."""
    logs = {name: output / name / METRICS_FILE for name in RUNS}
    metrics = ("contrastive", "gaze", "validation_contrastive", "validation_gaze")
    training_curves(logs, metrics, output / "training_curves.png", generated=True)
    heatmap_gallery(_gallery(output / "egma", data), output / "heat_maps_egma.png", generated=True)
    heatmap_gallery(_gallery(output / "no_gaze", data), output / "heat_maps_no_gaze.png", generated=True)
    table = results_table(results)
    (output / "report.md").write_text(REPORT.format(table=table, score=results["zero_shot_score"]), encoding="utf-8")
    return table


def results_table(results: dict[str, Any]) -> str:
    """The Markdown table of `report.md`, in percent with 95 % intervals."""
    header, rows = ["test set", *(run.title for run in RUNS.values()), "chance", "blind baselines"], []
    runs = [results[name] for name in RUNS]
    for key, title in FIGURES:
        cells = [_cell(values, key) for values in (*runs, results["chance"])]
        rows.append([title, *cells, blind_cell(results["egma"], key, percent)])
        if any(key in run["image_dependent"] for run in runs):
            rows.append([f"{title}, image-dependent share", *(share_cell(run, key, percent) for run in runs), "", ""])
    return markdown_table(header, rows)


def _gallery(model_folder: Path, data: Path) -> list[GalleryRow]:
    return gallery_rows(*load_whole_model(model_folder), load_readings(data, "test"))


def _cell(values: dict[str, Any], key: str) -> str:
    mark = f" {FEW_MARK}" if values.get("few_patients", {}).get(key) else ""
    return percent(values.get(key), values.get("intervals", {}).get(key)) + mark


REPORT = """# EGMA on generated data

Every picture, report and recording here is **generated** (the phantom corpus); no patient exists, and no figure says
anything about real radiographs. Gaze and places of findings are drawn to come near real ones (docs/corpora.md). The
models start from the same weights and see the same images and sentences in the same order. *no gaze* and *EGMA+* have
the same objective, but that EGMA+ also sees where the (generated) reader looked; *EGMA as published* sees it too, with
the paper's. Zero-shot figures use each model's own score (EGMA+: {score}). All figures in percent, on patients that no
model saw, with 95 % intervals over patients; (few): fewer than ten of them.

{table}

* *chance*: a random score; for the pointing game the boxes' share of the image.
* *blind baselines* never see the image: the peak of the finding's mean training box, EGMA+'s own map of the same
  finding in another patient, the centre; for retrieval any ranking of the reports that is the same for all images.
* *image-dependent share*: the model's hits less those of the best of them.

## Where a sentence looks

With gaze in training:

![heat maps of EGMA beside the reader's gaze](heat_maps_egma.png)

The same sentences without gaze in training:

![heat maps of the model without gaze](heat_maps_no_gaze.png)

## Training

Losses of different objectives are not comparable; without gaze there is no gaze term.

![losses of the runs](training_curves.png)
"""


if __name__ == "__main__":
    sys.exit(main())
