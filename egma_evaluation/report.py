"""From the tasks' figures to the headline, `results.json` and the table of `results.md`."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

PERCENT_LABELS = {
    "zero_shot_auroc": "Zero-shot AUROC",
    "zero_shot_accuracy": "Zero-shot accuracy",
    "zero_shot_f1": "Zero-shot macro-F1",
    "recall_at_1": "Image-to-text recall@1",
    "text_to_image_recall_at_1": "Text-to-image recall@1",
    "pointing_game": "Pointing game",
}
ZERO_SHOT_KEYS = {"zero_shot_auroc": "auroc", "zero_shot_accuracy": "accuracy", "zero_shot_f1": "macro_f1"}
RETRIEVAL_KEYS = {"recall_at_1": "image_to_text", "text_to_image_recall_at_1": "text_to_image"}
BASELINES = ("chance", "constant_predictor", "box_centre")
MAP_TASKS = {
    "grounding": ("Grounding", ("model", "centre_map", "other_image", "whole_image")),
    "gaze_agreement": ("Agreement with gaze, by sentence", ("model", "centre_bias", "whole_recording", "uniform")),
}
READER_COLUMNS = ("model", "other_readers")


def headline(details: Mapping[str, Any], score: str) -> dict[str, Any]:
    """The figures of the score that the model's configuration names, at the top level, and their baselines.

    Returns:
        each key of PERCENT_LABELS with its value (None where the task gave none), then `intervals`, `n` and the
        BASELINES, each by the same keys.
    """
    figures: dict[str, Mapping[str, Any]] = {}
    baselines: dict[str, dict[str, float | None]] = {name: {} for name in BASELINES}
    if score in (result := details.get("zero_shot", {})):
        figures |= {key: result[score][name] for key, name in ZERO_SHOT_KEYS.items()}
        for baseline in ("chance", "constant_predictor"):
            baselines[baseline] |= {key: result[baseline][name] for key, name in ZERO_SHOT_KEYS.items()}
    if score in (result := details.get("retrieval", {})):
        figures |= {key: result[score][name]["recall_at_1"] for key, name in RETRIEVAL_KEYS.items()}
        baselines["chance"] |= {key: result["chance"]["recall_at_1"] for key in RETRIEVAL_KEYS}
    if "pointing_game" in (result := details.get("pointing_game", {})):
        figures["pointing_game"] = result["pointing_game"]
        for baseline in ("chance", "box_centre"):
            baselines[baseline]["pointing_game"] = result.get(baseline, {}).get("value")
    return {
        **{key: figures[key]["value"] if key in figures else None for key in PERCENT_LABELS},
        "intervals": {key: figure["interval"] for key, figure in figures.items()},
        "n": {key: figure["n"] for key, figure in figures.items()},
        **baselines,
    }


def markdown_report(results: Mapping[str, Any]) -> str:
    """The headline as a table in percent, the two scores and the findings below it."""
    data, draws = results["data"], results["bootstrap"]
    title = f"# Evaluation of {results.get('model', {}).get('name', 'the model')}"
    about = (
        f"{'**Generated data, no patients.** ' if results['generated'] else ''}"
        f"{data['name'] or 'Rows'}, split {data['split']}: {data['readings']} readings of {data['images']} images of "
        f"{data['patients']} patients. Percent, with {draws['confidence']:.0%} intervals from {draws['draws']} "
        f"bootstrap draws over patients, seed {draws['seed']}. Headline score: {results['zero_shot_score']}; "
        f"protocol {results['protocol_version']}."
    )
    parts = [title, about, headline_table(results)]
    per_class = _findings_table(results)
    if per_class:
        parts += ["## By finding", per_class]
    for task, (title, columns) in MAP_TASKS.items():
        if "model" in (result := results["details"].get(task, {})):
            parts += [f"## {title}", figures_table(result, columns)]
            if "model" in (readers := result.get("readers", {})):
                parts += ["### Whole recordings, one reader against the others", figures_table(readers, READER_COLUMNS)]
    parts += [f"{name}: {result['reason']}." for name, result in results["details"].items() if "reason" in result]
    return "\n\n".join(parts) + "\n"


def headline_table(results: Mapping[str, Any]) -> str:
    """One row a headline figure that there is."""
    lines = ["| figure | model | chance | constant predictor | box centre | n |", "|---|---|---|---|---|---|"]
    for key, label in PERCENT_LABELS.items():
        if results[key] is None:
            continue
        value = _percent(results[key], results["intervals"][key])
        others = [_percent(results[baseline].get(key)) for baseline in BASELINES]
        lines.append(f"| {label} | {value} | {' | '.join(others)} | {results['n'][key]} |")
    return "\n".join(lines)


def figures_table(result: Mapping[str, Any], columns: Sequence[str]) -> str:
    """One row a metric of the model, one column for it and for each baseline that there is; as they are, no percent."""
    shown = [column for column in columns if column in result]
    lines = [
        f"| metric | {' | '.join(name.replace('_', ' ') for name in shown)} | n |",
        "|---" * (len(shown) + 2) + "|",
    ]
    for metric, figure in result["model"].items():
        cells = [_plain(result[column].get(metric)) for column in shown]
        lines.append(f"| {metric.replace('_', ' ')} | {' | '.join(cells)} | {figure['n']} |")
    return "\n".join(lines)


def write_report(results: Mapping[str, Any], directory: str | Path) -> None:
    """Write `results.json` and `results.md`."""
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    text = json.dumps(results, indent=2, ensure_ascii=False, allow_nan=False)
    (directory / "results.json").write_text(text + "\n", encoding="utf-8")
    (directory / "results.md").write_text(markdown_report(results), encoding="utf-8")


def _percent(value: float | None, interval: tuple[float, float] | None = None) -> str:
    if value is None:
        return ""
    text = f"{100 * value:.1f}"
    return text if interval is None else f"{text} [{100 * interval[0]:.1f}, {100 * interval[1]:.1f}]"


def _plain(figure: Mapping[str, Any] | None) -> str:
    if figure is None or figure["value"] is None:
        return "" if figure is None else str(figure["reason"])
    interval = figure["interval"]
    return f"{figure['value']:.3f}" + ("" if interval is None else f" [{interval[0]:.3f}, {interval[1]:.3f}]")


def _findings_table(results: Mapping[str, Any]) -> str:
    details = results["details"]
    zero_shot, pointing = details.get("zero_shot", {}), details.get("pointing_game", {})
    columns = {
        f"AUROC, {score}": zero_shot[score]["auroc_per_class"]
        for score in ("pooled", "late_interaction")
        if score in zero_shot
    }
    columns |= {
        label: {name: figures[kind] for name, figures in pointing["per_finding"].items() if kind in figures}
        for label, kind in (("pointing game", "pointing_game"), ("its chance", "chance"), ("box centre", "box_centre"))
        if "per_finding" in pointing
    }
    names = sorted({name for column in columns.values() for name in column})
    if not names:
        return ""
    lines = [f"| finding | prompts | {' | '.join(columns)} |", "|---" * (len(columns) + 2) + "|"]
    for name in names:
        cells = [_cell(column.get(name)) for column in columns.values()]
        lines.append(f"| {name} | {results['prompts_per_class'][name]} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _cell(figure: Mapping[str, Any] | None) -> str:
    return "" if figure is None else _percent(figure["value"], figure["interval"]) or figure.get("reason", "")
