"""The three studies: what they run, and the tables and plots that they write."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dataset_scripts.schema import ABSENT, PRESENT, UserError, is_generated
from egma.evaluation.reporting.report import PERCENT_LABELS
from egma.evaluation.reporting.tables import latex_table, markdown_table
from egma.evaluation.statistics.seeds import Spread
from egma.study import corpora
from egma.study.plots import bars, curves
from egma.study.runs import Setting, Study
from egma.study.shortcut import finding_figures
from egma.tools.processes import write_json

FIGURES = {key: PERCENT_LABELS[key] for key in ("zero_shot_auroc", "zero_shot_accuracy", "pointing_game")}
ABLATIONS = {
    "contrastive": "contrastive only",
    "gaze": "gaze term only",
    "egf": "EGF",
    "egm": "EGM",
    "unified": "unified",
}
GAZE_RATIOS = (0.01, 0.05, 0.1, 0.5, 1.0)
SHIFTS = (0.05, 0.1, 0.2, 0.4)
SHORTCUT_TESTS = {"as_trained": PRESENT, "no_marker": None, "reversed": ABSENT}


def ablation(study: Study, data: Path) -> str:
    """Rows of the objective, and shares of the readings with gaze; both share the unified runs with all gaze."""
    rows = {name: Setting(name, data, ablation=name) for name in ABLATIONS}
    ratios = {r: Setting(f"gaze_ratio_{r:g}", data, r) for r in GAZE_RATIOS if r < 1} | {1.0: rows["unified"]}
    settings = [*rows.values(), *(setting for ratio, setting in ratios.items() if ratio < 1)]
    study.run(settings, {"test": data})
    by_row = {ABLATIONS[name]: study.figures(setting, "test", [*FIGURES]) for name, setting in rows.items()}
    by_ratio = {f"{100 * ratio:g} %": study.figures(setting, "test", [*FIGURES]) for ratio, setting in ratios.items()}
    baselines, note = study.baselines(rows["unified"], "test"), _note(study, data)
    bars(_panels(by_row), study.output / "ablation.png", note)
    chance = {FIGURES[key]: {"chance": value} for key, value in baselines["chance"].items() if key in FIGURES and value}
    curves(_series(by_ratio), study.output / "gaze_amount.png", note, "readings with gaze", chance)
    return _report(
        study,
        "ablation",
        note,
        {
            "Ablation": (_table("objective", by_row, baselines), "ablation.png"),
            "Amount of gaze": (_table("readings with gaze", by_ratio, baselines), "gaze_amount.png"),
        },
        {"ablation": _plain(by_row), "gaze_amount": _plain(by_ratio), "baselines": baselines},
    )


def noise(study: Study, data: Path) -> str:
    """Gaze in training that says less and less; the test set is untouched."""
    edits: dict[str, corpora.Edit] = {f"shifted by {shift:g}": corpora.shifted(shift) for shift in SHIFTS}
    edits |= {
        "other sentences": corpora.shuffled_sentences,
        "centre": corpora.at_centre,
        "anywhere": corpora.at_random,
    }
    settings = {"as recorded": Setting("unified", data)}
    for name, edit in edits.items():
        folder = study.output / "corpora" / name.replace(" ", "_")
        corpora.edited_copy(data, folder, {"train": edit, "validation": edit}, f"gaze of training: {name}")
        settings[name] = Setting(f"gaze_{folder.name}", folder)
    without = Setting("no_gaze", data, 0.0)
    study.run([*settings.values(), without], {"test": data})
    rows = {name: study.figures(setting, "test", [*FIGURES]) for name, setting in settings.items()}
    nothing = study.figures(without, "test", [*FIGURES])
    baselines, note = study.baselines(without, "test"), _note(study, data)
    lines = {FIGURES[key]: {"no gaze": spread.mean} for key, spread in nothing.items()}
    curves(_series(rows), study.output / "noise.png", note, "gaze in training", lines)
    every = rows | {"no gaze": nothing}
    return _report(
        study,
        "noise",
        note,
        {"Noise in the gaze": (_table("gaze in training", every, baselines), "noise.png")},
        {"noise": _plain(every), "baselines": baselines},
    )


def shortcut(study: Study, data: Path, finding: str | None = None) -> str:
    """A marker that goes with one finding in training: does gaze keep the model on the anatomy?"""
    finding = finding or corpora.most_marked_finding(data)
    folder = study.output / "corpora" / "marked"
    trained = corpora.marked(finding, PRESENT)
    tests: dict[str, Path] = {}
    for name, value in SHORTCUT_TESTS.items():
        edits = {"train": trained, "validation": trained, "test": corpora.marked(finding, value)}
        note = f"a marker in training images with {finding}; in the test images: {name.replace('_', ' ')}"
        tests[name] = corpora.edited_copy(data, folder / name, edits, note)  # type: ignore[arg-type]
    settings = {
        "no gaze": Setting("marked_no_gaze", tests["as_trained"], 0.0),
        "EGMA": Setting("marked_egma", tests["as_trained"]),
    }
    study.run([*settings.values()], {})
    rows: dict[str, dict[str, Spread]] = {}
    for label, setting in settings.items():
        for name, path in tests.items():
            found = [finding_figures(study.model(setting, seed), path, finding) for seed in study.seeds]
            if not all(one.keys() == found[0].keys() for one in found):
                raise UserError(f"{path}: the figures of '{finding}' differ between seeds")
            key = f"{label}, {name.replace('_', ' ')}"
            rows[key] = {figure: Spread(tuple(one[figure] for one in found)) for figure in found[0]}
    titles = {"auroc": "AUROC", "pointing_game": "Pointing game", "peak_on_marker": "Map peaks on the marker"}
    note = _note(study, data)
    panels = {title: {name: row[key] for name, row in rows.items() if key in row} for key, title in titles.items()}
    bars(panels, study.output / "shortcut.png", note)
    header = ["model, marker in the test images", *titles.values()]
    cells = [[name, *(row[key].percent() if key in row else "" for key in titles)] for name, row in rows.items()]
    return _report(
        study,
        "shortcut",
        f"{note} Finding: {finding}.",
        {"Shortcut": ((header, cells), "shortcut.png")},
        {"finding": finding, "shortcut": _plain(rows)},
    )


Table = tuple[list[str], list[list[str]]]


def _table(
    first: str, rows: Mapping[str, Mapping[str, Spread]], baselines: Mapping[str, Mapping[str, float | None]]
) -> Table:
    keys = [key for key in FIGURES if any(key in row for row in rows.values())]
    header = [first, *(FIGURES[key] for key in keys)]
    cells = [[name, *(row[key].percent() if key in row else "" for key in keys)] for name, row in rows.items()]
    for name, values in baselines.items():
        shown = ["" if (value := values.get(key)) is None else f"{100 * value:.1f}" for key in keys]
        cells.append([name.replace("_", " "), *shown])
    return header, cells


def _panels(rows: Mapping[str, Mapping[str, Spread]]) -> dict[str, dict[str, Spread]]:
    found = {title: {name: row[key] for name, row in rows.items() if key in row} for key, title in FIGURES.items()}
    return {title: of_rows for title, of_rows in found.items() if of_rows}


def _series(rows: Mapping[str, Mapping[str, Spread]]) -> dict[str, dict[str, dict[str, Spread]]]:
    return {title: {"EGMA": of_rows} for title, of_rows in _panels(rows).items()}


def _plain(rows: Mapping[str, Mapping[str, Spread]]) -> dict[str, Any]:
    return {name: {key: spread.to_json() for key, spread in row.items()} for name, row in rows.items()}


def _note(study: Study, data: Path) -> str:
    kind = "Generated data, no patients. " if is_generated(data) else ""
    seeds: Sequence[int] = study.seeds
    spread = "mean ± standard deviation [95 % interval over seeds and patients]"
    return f"{kind}{data.name}, {len(seeds)} seed(s): {', '.join(map(str, seeds))}; percent, {spread}."


def _report(study: Study, name: str, note: str, tables: Mapping[str, tuple[Table, str]], values: dict[str, Any]) -> str:
    """`NAME.json`, `NAME.md` and `NAME.tex`; returns the Markdown."""
    parts = [f"# {name.capitalize()}", note]
    for title, ((header, rows), picture) in tables.items():
        parts += [f"## {title}", markdown_table(header, rows), f"![{title}]({picture})"]
    text = "\n\n".join(parts) + "\n"
    latex = "\n\n".join(latex_table(header, rows, f"{title}. {note}") for title, ((header, rows), _) in tables.items())
    (study.output / f"{name}.md").write_text(text, encoding="utf-8")
    (study.output / f"{name}.tex").write_text(latex + "\n", encoding="utf-8")
    write_json(study.output / f"{name}.json", {"note": note, "seeds": list(study.seeds)} | values)
    return text
