"""What gaze buys, under which gaze and where findings vary how much: the runs behind docs/evidence.md.

    python -m egma.study.evidence worth [--seeds 0 1 2] [--worlds real] [--output runs/evidence]
    python -m egma.study.evidence --tables

A seed is a world, an initialisation and an order. Every evaluation is a line of docs/evidence/STUDY.jsonl as it comes;
tables and figures are made of these lines alone. The same command goes on after an interruption.
"""

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from dataset_scripts.command_line import Parser, program
from dataset_scripts.identity import corpus_identity, program_identity
from dataset_scripts.schema import UserError
from egma.evaluation.reporting.tables import markdown_table
from egma.evaluation.statistics.seeds import Spread
from egma.study.corpora import edited_copy, shuffled_sentences
from egma.study.plots import bars, curves
from egma.study.pooled_gaze import PooledGaze
from egma.study.runs import BOOTSTRAP_DRAWS
from egma.tools.processes import CONFIGS, ROOT, TRAINING_SOURCES, Stage, evaluation, run_stages

EVIDENCE = ROOT / "docs" / "evidence"
READINGS, IMAGE_SIZE = 5500, 128
CONFIRMING, DEVELOPMENT = (0, 1, 2), (100,)  # seeds
# gaze, places and style of `dataset_scripts.phantom`
WORLDS = {
    "real": ("real", "real", "a"),
    "clear": ("clear", "fixed", "a"),
    "uniform": ("real", "uniform", "a"),
    "share0.15": ("0.15", "real", "a"),
    "share0.6": ("0.6", "real", "a"),
    "style_b": ("real", "real", "b"),
}
FIGURES = {
    "auroc": "AUROC",
    "pointing": "Pointing game",
    "above_blind": "Pointing less the best blind",
    "recall": "Recall@1",
}
# what the curves go over: label, and series -> the arm and the world of each of its points
CURVES: dict[str, tuple[str, dict[str, dict[str, tuple[str, str]]]]] = {
    "worth": (
        "share of the looks that belong to what is said",
        {
            title: {share: (arm, world) for share, world in ((".15", "share0.15"), (".3", "real"), (".6", "share0.6"))}
            for title, arm in (("own gaze", "own"), ("gaze of other readings", "equals"))
        },
    ),
    "amount": (
        "readings with gaze",
        {
            title: {
                f"{share} %": (f"{arm}{suffix}", "real")
                for share, suffix in ((1, "_1"), (5, "_5"), (10, ""), (50, "_50"))
            }
            for title, arm in (("alone", "withheld"), ("lent to the others", "lent"))
        },
    ),
}
# of a line, as results.json calls them
FIGURES_OF = {"auroc": "zero_shot_auroc", "pointing": "pointing_game", "recall": "text_to_image_recall_at_1"}
TASKS = ("zero_shot", "pointing_game", "retrieval")


class Arm(NamedTuple):
    """What a model learns from: presets of `configs/ablations`, an edit of the training gaze, and its rate."""

    title: str
    objective: str = "plus"
    gaze: str = "own"
    gaze_ratio: float = 1.0
    learning_rate: float = 1e-3
    kept: float = 1.0


MAIN = {
    "none": Arm("no gaze", gaze_ratio=0.0),
    "equals": Arm("gaze of other readings", gaze="of_equals"),
    "own": Arm("own gaze"),
    "published": Arm("own gaze, objective as published", "unified", learning_rate=5e-4),
}
STUDIES: dict[str, dict[str, Arm]] = {
    "worth": {
        **MAIN,
        "denoised": Arm("own gaze, denoised", gaze="denoised"),
        "dealt": Arm("own gaze, dealt to other sentences", gaze="dealt"),
        "boxes": Arm("boxes in the place of gaze", gaze="in_boxes"),
        "published_none": Arm("no gaze, objective as published", "unified", gaze_ratio=0.0, learning_rate=5e-4),
    },
    "amount": {
        name: Arm(title, gaze=name.partition("_")[0], kept=kept)
        for name, title, kept in (
            ("withheld_1", "gaze of 1 % of the readings", 0.01),
            ("lent_1", "gaze of 1 %, lent to the others", 0.01),
            ("withheld_5", "gaze of 5 % of the readings", 0.05),
            ("lent_5", "gaze of 5 %, lent to the others", 0.05),
            ("withheld", "gaze of a tenth of the readings", 0.1),
            ("lent", "the same, lent to the others", 0.1),
            ("withheld_50", "gaze of half of the readings", 0.5),
            ("lent_50", "gaze of half, lent to the others", 0.5),
        )
    },
    "towers": {f"convnext_{name}": arm._replace(objective=f"{arm.objective},convnext") for name, arm in MAIN.items()},
    "elsewhere": MAIN,  # the models of `worth`, evaluated on another world
}
ELSEWHERE = "style_b"
# an arm less another
_DIFFERENCES = [("own", "equals"), ("equals", "none"), ("own", "none"), ("own", "published")]
DIFFERENCES = {
    "worth": [*_DIFFERENCES, ("denoised", "own"), ("own", "dealt"), ("boxes", "own")],
    "towers": [(f"convnext_{one}", f"convnext_{other}") for one, other in _DIFFERENCES],
    "elsewhere": _DIFFERENCES,
    "amount": [(f"lent{name}", f"withheld{name}") for name in ("_1", "_5", "", "_50")],
}


@program
def main(argv: Sequence[str] | None = None) -> None:
    parser = Parser(__doc__)
    parser.add_argument("studies", nargs="*", metavar="STUDY", help=f"of {', '.join(STUDIES)}")
    parser.add_argument("--seeds", nargs="+", type=int, help="default: 0 1 2; of trials: 100")
    parser.add_argument("--worlds", nargs="+", choices=tuple(WORLDS), default=["real"])
    parser.add_argument("--arms", nargs="+", help="of the study; default: all")
    parser.add_argument("--learning-rates", nargs="+", type=float, help="trials on a development world")
    parser.add_argument("--output", type=Path, default=ROOT / "runs" / "evidence")
    parser.add_argument("--tables", action="store_true", help="make tables and figures of the lines that there are")
    options = parser.parse_args(argv)
    if not options.studies and not options.tables:
        raise UserError(f"no study: expected of {', '.join(STUDIES)}, or --tables")
    for study, arms in {study: _chosen(study, options.arms) for study in options.studies}.items():
        for seed in options.seeds or (CONFIRMING if options.learning_rates is None else DEVELOPMENT):
            for world in options.worlds:
                run_world(options.output.resolve(), study, world, seed, arms, options.learning_rates)
    if options.tables:
        found = [*filter(None, map(tables, STUDIES))]
        if not found:
            raise UserError(f"{EVIDENCE}: no line of an evaluation; expected STUDY.jsonl, of {', '.join(STUDIES)}")
        print("\n\n".join(found))


def run_world(
    output: Path, study: str, world: str, seed: int, arms: dict[str, Arm], rates: Sequence[float] | None
) -> None:
    """Draw a world, train every arm in it, and write down every evaluation.

    Raises:
        UserError: a program failed.
    """
    folder = output / f"{world}-{seed}"
    data = _corpus(folder, world, seed)
    chosen = {
        name if rates is None else f"{name}-{rate:g}": arm._replace(learning_rate=rate)
        for name, arm in arms.items()
        for rate in rates or [arm.learning_rate]
    }
    runs = folder / "runs"
    corpora = {name: _edited(folder, data, arm) for name, arm in chosen.items()}
    stages = {name: _training(folder, corpora[name], runs / name, arm, seed) for name, arm in chosen.items()}
    if study == "elsewhere":
        folder = output / f"{ELSEWHERE}-{seed}"
        data = _corpus(folder, ELSEWHERE, seed)
    else:
        run_stages(folder, [*stages.values()], workers=os.cpu_count() or 1, logs=folder / "logs")
    found = _evaluated(folder, data, [runs / name for name in chosen])
    for name, arm in chosen.items():
        _write_line(study, {"world": world, "seed": seed, "arm": name, **arm._asdict()}, stages[name], found[name])


def _evaluated(folder: Path, data: Path, models: list[Path]) -> dict[str, Any]:
    """Results of the models, one program for all of them."""
    output = folder / "evaluations" / "-".join(model.name for model in models)
    others = [word for model in models[1:] for word in ("--compare", model)]
    options = (*others, "--tasks", *TASKS, "--bootstrap", BOOTSTRAP_DRAWS)
    run_stages(folder, [evaluation(f"evaluate {output.name}", models[0], data, output, *options)], logs=folder / "logs")
    results = json.loads((output / "results.json").read_text(encoding="utf-8"))
    return {results["model"]["name"]: results, **results.get("baselines", {})}


def _corpus(folder: Path, world: str, seed: int) -> Path:
    raw, data = folder / "raw", folder / "data"
    gaze, places, style = WORLDS[world]
    cores = str(os.cpu_count() or 1)
    phantom: tuple[object, ...] = ("-m", "dataset_scripts.phantom", "--output", raw, "--seed", seed)
    phantom += ("--readings", READINGS, "--gaze", gaze, "--places", places, "--style", style)
    phantom += ("--num-proc", cores)
    made_of = (program_identity(ROOT / "dataset_scripts" / "phantom"),)
    run_stages(folder, [Stage("generate", phantom, raw, made_of)], logs=folder / "logs")
    build: tuple[object, ...] = ("-m", "dataset_scripts.build", "mimic_eye", "--source", raw, "--output", data)
    build += ("--image-size", IMAGE_SIZE, "--num-proc", cores)
    run_stages(folder, [Stage("convert", build, data, made_of)], logs=folder / "logs")
    return data


def _edited(folder: Path, data: Path, arm: Arm) -> Path:
    if arm.gaze == "own":
        return data
    name = f"{arm.gaze}-{arm.kept:g}"
    edit = shuffled_sentences if arm.gaze == "dealt" else getattr(PooledGaze(data, arm.kept), arm.gaze)
    return edited_copy(data, folder / "edited" / name, {"train": edit}, f"gaze of training: {name}")


def _training(folder: Path, data: Path, run: Path, arm: Arm, seed: int) -> Stage:
    presets = _presets(arm)
    command: tuple[object, ...] = (ROOT / "train_egma.py", "--config", ",".join(presets))
    command += ("--data", data, "--output_dir", run)
    command += ("--gaze_ratio", arm.gaze_ratio, "--seed", seed, "--learning_rate", arm.learning_rate)
    made_of = program_identity(*TRAINING_SOURCES, *map(Path, presets)), corpus_identity(data)
    # other frames than these have another folder
    command += ("--prepared", folder / "prepared" / f"{made_of[1]}-{program_identity(*TRAINING_SOURCES)}")
    return Stage(f"train {run.name}", command, run, made_of)


def _presets(arm: Arm) -> list[str]:
    names = ("phantom", "study", *(f"ablations/{name}" for name in arm.objective.split(",")))
    return [str(CONFIGS / f"{name}.yaml") for name in names]


def _write_line(study: str, about: dict[str, Any], stage: Stage, results: dict[str, Any]) -> None:
    """Add an evaluation to the study's lines, once."""
    found = {name: results[key] for name, key in FIGURES_OF.items()}
    intervals = {name: results["intervals"][key] for name, key in FIGURES_OF.items()}
    if blind := results["blind"].get("pointing_game"):
        found["above_blind"] = found["pointing"] - max(blind.values())
    config = json.dumps([word for word in stage.words if "/" not in word])
    digest = hashlib.sha256(config.encode()).hexdigest()[:12]
    line = about | found | {"intervals": intervals, "config": digest, "commit": _commit()}
    path = EVIDENCE / f"{study}.jsonl"
    known = lines(study)
    if line not in [one | {"commit": line["commit"]} for one in known]:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(line) + "\n")
    print(", ".join(f"{line[name]}" for name in ("world", "seed", "arm", *found)), flush=True)


def lines(study: str) -> list[dict[str, Any]]:
    path = EVIDENCE / f"{study}.jsonl"
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []


def tables(study: str) -> str:
    """Markdown of the study's lines, a table a world, and `docs/evidence/STUDY-WORLD.png`."""
    parts = []
    for world in WORLDS:
        found = [line for line in lines(study) if line["world"] == world]
        if not found:
            continue
        rows: dict[str, list[dict[str, Any]]] = {}
        for line in sorted(found, key=lambda line: list(STUDIES[study]).index(line["arm"].partition("-")[0])):
            trial = "" if line["arm"] in STUDIES[study] else f", trial of rate {line['learning_rate']:g}"
            rows.setdefault(line["title"] + trial, []).append(line)
        spreads = {title: {key: _spread(of_arm, key) for key in FIGURES} for title, of_arm in rows.items()}
        cells = [
            [title, str(len(rows[title])), *(of_arm[key].percent() for key in FIGURES)]
            for title, of_arm in spreads.items()
        ]
        confirmed = {title: spreads[title] for title in spreads if rows[title][0]["arm"] in STUDIES[study]} or spreads
        panels = {
            FIGURES[key]: {title: of_arm[key] for title, of_arm in confirmed.items()}
            for key in ("auroc", "above_blind")
        }
        bars(panels, EVIDENCE / f"{study}-{world}.png", f"Generated data, no patients. World: {world}.")
        parts += [f"`{study}`, world `{world}`", markdown_table(["trained on", "seeds", *FIGURES.values()], cells)]
        parts.append(markdown_table(["seed by seed", "AUROC", "Pointing game"], _differences(study, found)))
    if study in CURVES and parts:
        _curves(study)
    return "\n\n".join(parts)


def _curves(study: str) -> None:
    """`docs/evidence/STUDY-curves.png`: of each series the points that there are, and no gaze in the `real` world."""
    label, series = CURVES[study]
    found: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for line in (line for name in STUDIES for line in lines(name) if name in CURVES):
        found.setdefault((line["arm"], line["world"]), []).append(line)
    points = {name: {row: found[at] for row, at in rows.items() if at in found} for name, rows in series.items()}
    points = {name: rows for name, rows in points.items() if len(rows) > 1}
    if points:
        panels = {
            FIGURES[key]: {
                name: {row: _spread(of_row, key) for row, of_row in rows.items()} for name, rows in points.items()
            }
            for key in ("auroc", "pointing")
        }
        none = found.get(("none", "real"), [])
        without = {FIGURES[key]: {"no gaze": _spread(none, key).mean} for key in ("auroc", "pointing") if none}
        curves(panels, EVIDENCE / f"{study}-curves.png", "Generated data, no patients.", label, without)


def _differences(study: str, found: Sequence[dict[str, Any]]) -> list[list[str]]:
    """Rows of the differences of arms in the same world, a number a seed in percent."""
    by_arm = {(line["arm"], line["seed"]): line for line in found}
    rows = []
    for one, other in DIFFERENCES[study]:
        seeds = sorted(seed for arm, seed in by_arm if arm == one and (other, seed) in by_arm)
        if seeds:
            cells = [
                ", ".join(f"{100 * (by_arm[one, seed][key] - by_arm[other, seed][key]):+.1f}" for seed in seeds)
                for key in ("auroc", "pointing")
            ]
            rows.append([f"{STUDIES[study][one].title} less {STUDIES[study][other].title}", *cells])
    return rows


def _spread(of_arm: Sequence[dict[str, Any]], key: str) -> Spread:
    values, intervals = [line[key] for line in of_arm], [line["intervals"].get(key) for line in of_arm]
    return Spread(tuple(values), tuple(intervals), (-1.0 if key == "above_blind" else 0.0, 1.0))


def _chosen(study: str, names: Sequence[str] | None) -> dict[str, Arm]:
    if study not in STUDIES:
        raise UserError(f"study '{study}': expected of {', '.join(STUDIES)}")
    arms = STUDIES[study]
    for name in names or ():
        if name not in arms:
            raise UserError(f"arm '{name}': expected of {', '.join(arms)}")
    return {name: arm for name, arm in arms.items() if names is None or name in names}


def _commit() -> str:
    done = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True)
    return done.stdout.strip()


if __name__ == "__main__":
    sys.exit(main())
