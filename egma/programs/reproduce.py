"""The paper's tables from raw corpora.

    egma reproduce --mimic-eye DIR [--chexpert DIR ...] --output RUN [--dry-run]

Converts what is given, trains on MIMIC-EYE three times with the paper's settings (without gaze, with the objective as
published, with EGMA+), evaluates all three by every protocol whose data are there, and writes `results.json`,
`report.md` (tables with the published figures and whether they are comparable) and `model_card.md`. The same command
goes on after an interruption. docs/evaluation.md says what a laboratory sends back: figures and digests, never data.
"""

import argparse
import json
import os
import platform
import shutil
import sys
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

from dataset_scripts.command_line import Parser, program
from dataset_scripts.identity import corpus_identity, model_identity
from dataset_scripts.output.resume import fingerprint
from dataset_scripts.schema import UserError
from egma.hub.card import model_card
from egma.tools.processes import CONFIGS, Stage, conversion, evaluation, preset_path, run_stages, training, write_json

# the paper's: its text and image encoders start from MedCLIP's, which `egma.hub.convert` makes of the authors' file
VISION_MODEL, TEXT_MODEL = "microsoft/swin-tiny-patch4-window7-224", "emilyalsentzer/Bio_ClinicalBERT"
NEGATIVES = 40  # of the paper's four processes of 10 readings each; on one process the same gradient
MODELS = {"egma": "plus", "published": "unified", "no_gaze": "unified"}  # objective, of `configs/ablations`
CLASSES, PROBE = ("zero_shot", "decisions"), "linear_probe"
LIBRARIES = ("torch", "transformers", "datasets", "accelerate", "numpy")
DRY_READINGS = 256


class Protocol(NamedTuple):
    """A conversion of a raw corpus: the option that names its folder, tasks (none: what the data allow), its readings.

    `readings` is how many the corpus holds as its authors published it, for the forecast of `--dry-run`.
    """

    source: str
    tasks: tuple[str, ...]
    readings: int


PROTOCOLS = {
    "mimic_eye": Protocol("mimic_eye", (), 3_689),
    "chexpert_5x200": Protocol("chexpert", ("zero_shot", "class_retrieval"), 1_000),
    "chexpert_8x200": Protocol("chexpert", ("class_retrieval",), 1_600),
    "chexpert": Protocol("chexpert", (*CLASSES, PROBE), 223_414),
    "rsna": Protocol("rsna", (*CLASSES, PROBE), 26_684),
    "siim_acr": Protocol("siim", (*CLASSES, PROBE), 12_047),
    "mimic_cxr": Protocol("mimic_cxr", ("zero_shot", "retrieval"), 377_110),
}
SAMPLES = ("chexpert_5x200", "chexpert_8x200")  # small already, and sorted by class: no rehearsal shortens them
SOURCES = {
    "mimic_eye": "MIMIC-EYE, which the models learn from",
    "chexpert": "CheXpert-v1.0 or -small: 5x200, 8x200, linear probe",
    "rsna": "RSNA Pneumonia Detection Challenge",
    "siim": "SIIM-ACR Pneumothorax",
    "mimic_cxr": "MIMIC-CXR-JPG: retrieval and findings on its test split",
}


@program
def main(argv: Sequence[str] | None = None) -> None:
    reproduce(parse_arguments(argv))


def parse_arguments(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = Parser(__doc__)
    for name, title in SOURCES.items():
        option = f"--{name.replace('_', '-')}"
        parser.add_argument(option, type=Path, required=name == "mimic_eye", metavar="DIR", help=title)
    parser.add_argument("--output", type=Path, required=True, metavar="RUN", help="folder for all that is made")
    parser.add_argument("--vision-model", default=VISION_MODEL, help=f"folder or Hub id; default: {VISION_MODEL}")
    parser.add_argument("--text-model", default=TEXT_MODEL, help=f"folder or Hub id; default: {TEXT_MODEL}")
    parser.add_argument("--preset", default="configs/mimic_eye_paper.yaml", help="of trainings")
    parser.add_argument("--seed", type=int, default=42, help="of initialisation, order and samples")
    parser.add_argument("--limit", type=int, help="rehearsal: so many readings of a corpus, of all its splits in turn")
    parser.add_argument("--max-steps", type=int, help="rehearsal: so many steps of a training")
    parser.add_argument("--dry-run", action="store_true", help="say what it takes on this machine; train nothing")
    return parser.parse_args(argv)


def reproduce(options: argparse.Namespace) -> None:
    """Everything under `options.output`.

    Raises:
        UserError: a folder that is not there, or a program that failed; its own message stands above.
    """
    sources = {name: path for name in SOURCES if (path := getattr(options, name)) is not None}
    for name, path in sources.items():
        if not path.is_dir():
            raise UserError(f"--{name.replace('_', '-')} {path}: no such folder")
    output = options.output.resolve()
    wanted = {name: protocol for name, protocol in PROTOCOLS.items() if protocol.source in sources}
    if options.dry_run:
        return forecast(options, output / "dry_run", sources, wanted)
    data = {name: output / "data" / name for name in wanted}
    for name, protocol in wanted.items():
        _run(output, _conversion(options, name, sources[protocol.source], data[name], options.limit))
    for name in MODELS:
        _run(output, _training(options, data["mimic_eye"], output / name))
    tested = [name for name in wanted if _readings(data[name]).get("test")]
    for name in tested:
        _run(output, _evaluation(name, wanted[name], data[name], output))
    results = collect(output, data, tested)
    print(write_report(output, results))
    print(f"\nreport   {output / 'report.md'}\nresults  {output / 'results.json'}\nmodel    {output / 'egma'}")


def forecast(options: argparse.Namespace, output: Path, sources: dict[str, Path], wanted: dict[str, Protocol]) -> None:
    """Convert a few readings of each corpus, try one training, and say what the whole would take here."""
    shutil.rmtree(output, ignore_errors=True)
    lines = []
    for name, protocol in wanted.items():
        stage = _conversion(options, name, sources[protocol.source], output / "data" / name, DRY_READINGS)
        _run(output, stage)
        seconds = json.loads((output / "stages.json").read_text(encoding="utf-8"))[stage.title]["seconds"]
        kept = sum(_readings(stage.result).values())
        hours = seconds / kept * protocol.readings / 3600
        lines.append(f"{stage.title}: {seconds:.0f} s for {kept}, at most {hours:.1f} h for {protocol.readings}")
    stage = _training(options, output / "data" / "mimic_eye", output / "egma")
    run_stages(output, [stage._replace(command=(*stage.command, "--dry_run", "True"))])
    free = shutil.disk_usage(output).free / 1e9
    steps = "its epochs x readings / 40" if options.max_steps is None else str(options.max_steps)
    lines.append(
        f"{len(MODELS)} trainings of {steps} steps, each as long as said above; {free:.0f} GB of disk are free"
    )
    print("\n".join(lines))


def _readings(data: Path) -> dict[str, int]:
    """How many a converted corpus has, by split."""
    report = json.loads((data / "conversion_report.json").read_text(encoding="utf-8"))
    return {name: split["readings"] for name, split in report["splits"].items()}


def _run(output: Path, stage: Stage) -> None:
    run_stages(output, [stage])


def _conversion(options: argparse.Namespace, name: str, source: Path, data: Path, limit: int | None) -> Stage:
    given: tuple[object, ...] = ("--num-proc", os.cpu_count() or 1)
    if name in SAMPLES:
        given += ("--seed", options.seed)
    elif limit:
        given += ("--limit", limit)
    source = source.resolve()
    return conversion(f"convert {name}", name, source, fingerprint(source), data, *given)


def _training(options: argparse.Namespace, data: Path, run: Path) -> Stage:
    presets = [str(preset_path(options.preset).resolve()), str(CONFIGS / "ablations" / f"{MODELS[run.name]}.yaml")]
    ratio = 0.0 if run.name == "no_gaze" else 1.0
    stage = training(data, run, presets, ratio, options.seed, options.max_steps)
    towers = ("--vision_model", _from_here(options.vision_model), "--text_model", _from_here(options.text_model))
    return stage._replace(command=(*stage.command, "--batch_size", NEGATIVES, *towers))


def _from_here(model: str) -> str:
    """A folder as seen from where the command was given; the programs run elsewhere."""
    return str(Path(model).resolve()) if Path(model).is_dir() else model


def _evaluation(name: str, protocol: Protocol, data: Path, output: Path) -> Stage:
    model, *others = (output / model for model in MODELS)
    compared = [word for other in others for word in ("--compare", other)]
    tasks = ("--tasks", *protocol.tasks) if protocol.tasks else ()
    return evaluation(f"evaluate on {name}", model, data, output / "evaluations" / name, *compared, *tasks)


def collect(output: Path, data: dict[str, Path], tested: list[str]) -> dict[str, Any]:
    """`results.json`: figures of every corpus, digests of data and models, and versions; no reading's id."""
    found = {name: json.loads((output / "evaluations" / name / "results.json").read_text("utf-8")) for name in tested}
    results = {
        "models": {name: model_identity(output / name) for name in MODELS},
        "data": {name: corpus_identity(folder) for name, folder in data.items()},
        "versions": {name: version(name) for name in LIBRARIES} | {"python": platform.python_version()},
        "without_test_readings": sorted(set(data) - set(tested)),
        "evaluations": found,
    }
    write_json(output / "results.json", results)
    return results


def write_report(output: Path, results: dict[str, Any]) -> str:
    """`report.md` with the tables of every corpus, and the card of the model that saw gaze."""
    tables = [
        f"## {name}\n\n{(output / 'evaluations' / name / 'results.md').read_text(encoding='utf-8').strip()}"
        for name in results["evaluations"]
    ]
    left_out = (
        [f"Not evaluated, as no test reading was converted: {', '.join(names)}."]
        if (names := results["without_test_readings"])
        else []
    )
    report = "\n\n".join([REPORT, *left_out, *tables]) + "\n"
    (output / "report.md").write_text(report, encoding="utf-8")
    model_card(output / "egma", "egma", results["evaluations"]["mimic_eye"], []).save(output / "model_card.md")
    return report


REPORT = """# EGMA reproduced

Three models of the same encoders, readings, order and steps: *egma*, EGMA+ with gaze; *published*, the paper's
objective with gaze; *no_gaze*, the paper's objective without. No setting was chosen by a test split. Beside each figure
stand the published ones, and whether they were made as these were."""


if __name__ == "__main__":
    sys.exit(main())
