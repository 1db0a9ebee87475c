"""From the tasks' figures to the headline, `results.json` and the table of `results.md`."""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from egma.evaluation.reporting import comparable
from egma.evaluation.reporting.tables import Table, markdown_table
from egma.evaluation.statistics.bootstrap import FEW_PATIENTS

PERCENT_LABELS = {
    "zero_shot_auroc": "Zero-shot AUROC",
    "zero_shot_accuracy": "Zero-shot accuracy",
    "zero_shot_f1": "Zero-shot macro-F1",
    "recall_at_1": "Image-to-text recall@1",
    "text_to_image_recall_at_1": "Text-to-image recall@1",
    "class_precision_at_1": "Image-to-text P@1 by class",
    "text_to_image_class_precision_at_1": "Text-to-image P@1 by class",
    "pointing_game": "Pointing game",
    "negation": "Negation, accuracy",
    "laterality": "Left and right, accuracy",
    "linear_probe_auroc": "Linear probe AUROC, 100 %",
    "fine_tuning_auroc": "Fine-tuning AUROC, 100 %",
}
PLAIN_LABELS = {"grounding_cnr": "Grounding CNR", "gaze_nss": "Agreement with gaze, NSS"}
HEADLINE_LABELS = PERCENT_LABELS | PLAIN_LABELS
ZERO_SHOT_KEYS = {"zero_shot_auroc": "auroc", "zero_shot_accuracy": "accuracy", "zero_shot_f1": "macro_f1"}
RETRIEVAL_KEYS = {"recall_at_1": "image_to_text", "text_to_image_recall_at_1": "text_to_image"}
CLASS_RETRIEVAL_KEYS = {
    "class_precision_at_1": "image_to_text",
    "text_to_image_class_precision_at_1": "text_to_image",
}
EDITED_KEYS = ("negation", "laterality")
PROBE_KEYS = {"linear_probe_auroc": "linear_probe", "fine_tuning_auroc": "fine_tuning"}
MAP_KEYS = {"grounding_cnr": ("grounding", "cnr"), "gaze_nss": ("gaze_agreement", "nss")}
WHOLE = "100 %"
PROBE_TITLES = {"linear_probe": "Linear probe", "fine_tuning": "Fine-tuning"}
SCORES = ("pooled", "late_interaction", "cabs")
BASELINES = ("chance", "constant_predictor")
# made of the training split, or of another patient's image: blind to the image that is scored
POINTING_BLIND = ("finding_prior", "other_image", "centre_gaussian")
POINTING_COLUMNS = tuple((name.replace("_", " "), name) for name in POINTING_BLIND)
GAZE_BLIND = ("mean_gaze", "text_gaze", "location_prior")
GROUNDING_BLIND = ("centre_map", "location_prior", "mean_gaze", "text_gaze", "other_image")
BLIND = {
    "pointing_game": ("pointing_game", None, POINTING_BLIND),
    "grounding_cnr": ("grounding", "cnr", GROUNDING_BLIND),
    "gaze_nss": ("gaze_agreement", "nss", GAZE_BLIND),
}
MAP_TASKS = {
    "grounding": ("Grounding", ("model", *GROUNDING_BLIND, "whole_image")),
    "gaze_agreement": ("Agreement with gaze, by sentence", ("model", *GAZE_BLIND, "whole_recording", "uniform")),
}
Text = Callable[..., str]  # a value, and its interval where there is one, as it stands in a cell
READERS_TITLE = "Agreement with gaze, whole recordings, one reader against the others"
SPREAD = "{mean} ± {deviation}, {lowest} to {highest}"
READER_COLUMNS = ("model", "other_readers")
FEW_MARK = "(few)"
GROUP_KEYS = {"zero_shot": "zero_shot_auroc", "pointing_game": "pointing_game", "retrieval": "recall_at_1"}


def headline_figures(details: Mapping[str, Any], score: str) -> dict[str, Mapping[str, Any]]:
    """The figures of the score that the model's configuration names, by the keys of HEADLINE_LABELS that there are."""
    figures: dict[str, Mapping[str, Any]] = {}
    if score in (result := details.get("zero_shot", {})):
        figures |= {key: result[score][name] for key, name in ZERO_SHOT_KEYS.items()}
    if score in (result := details.get("retrieval", {})):
        figures |= {key: result[score][name]["recall_at_1"] for key, name in RETRIEVAL_KEYS.items()}
    if score in (result := details.get("class_retrieval", {})):
        figures |= {key: result[score][name]["precision_at_1"] for key, name in CLASS_RETRIEVAL_KEYS.items()}
    if "pointing_game" in (result := details.get("pointing_game", {})):
        figures["pointing_game"] = result["pointing_game"]
    edited = details.get("edited_prompts", {})
    figures |= {kind: edited[kind][score] for kind in EDITED_KEYS if score in edited.get(kind, {})}
    for key, task in PROBE_KEYS.items():
        if "fractions" in (result := details.get(task, {})):
            figures[key] = result["fractions"][WHOLE]["auroc"]
    for key, (task, metric) in MAP_KEYS.items():
        if "model" in (result := details.get(task, {})):
            figures[key] = result["model"][metric]
    return figures


def headline(details: Mapping[str, Any], score: str) -> dict[str, Any]:
    """The headline figures at the top level, and their baselines.

    Returns:
        each key of HEADLINE_LABELS with its value (None where the task gave none), then `intervals`,
        `interval_methods`, `few_patients`, `n` and the BASELINES, each by the same keys.
    """
    figures = headline_figures(details, score)
    baselines: dict[str, dict[str, float | None]] = {name: {} for name in BASELINES}
    if score in (result := details.get("zero_shot", {})):
        for baseline in ("chance", "constant_predictor"):
            baselines[baseline] |= {key: result[baseline][name] for key, name in ZERO_SHOT_KEYS.items()}
    if score in (result := details.get("retrieval", {})):
        baselines["chance"] |= {key: result["chance"]["recall_at_1"] for key in RETRIEVAL_KEYS}
    if score in (result := details.get("class_retrieval", {})):
        baselines["chance"] |= {key: result["chance"][name] for key, name in CLASS_RETRIEVAL_KEYS.items()}
    if "pointing_game" in (result := details.get("pointing_game", {})):
        baselines["chance"]["pointing_game"] = result["chance"]["value"]
    baselines["chance"] |= {key: details["edited_prompts"]["chance"] for key in EDITED_KEYS if key in figures}
    baselines["chance"] |= {key: details[task]["chance"]["auroc"] for key, task in PROBE_KEYS.items() if key in figures}
    return {
        **{key: figures[key]["value"] if key in figures else None for key in HEADLINE_LABELS},
        "intervals": {key: figure["interval"] for key, figure in figures.items()},
        "interval_methods": {key: figure.get("method") for key, figure in figures.items()},
        "few_patients": {key: figure.get("few_patients", False) for key, figure in figures.items()},
        "n": {key: figure["n"] for key, figure in figures.items()},
        **baselines,
        **blind_figures(details, score),
    }


def blind_figures(details: Mapping[str, Any], score: str) -> dict[str, dict[str, Any]]:
    """By headline key: `blind`, what each blind baseline earns; `image_dependent`, the model less the best of them."""
    blind: dict[str, Any] = {}
    dependent: dict[str, Any] = {}
    for key, (task, metric, names) in BLIND.items():
        result = details.get(task, {})
        if "image_dependent" in result:
            figures = {name: result[name] if metric is None else result[name][metric] for name in names}
            blind[key] = {name: figure["value"] for name, figure in figures.items() if figure["value"] is not None}
            dependent[key] = result["image_dependent"][metric or key]
    if score in (result := details.get("retrieval", {})):
        # of one-to-one pairs, whatever the order
        blind |= {key: {"text_prior": result["chance"]["recall_at_1"]} for key in RETRIEVAL_KEYS}
    if score in (result := details.get("class_retrieval", {})):
        blind["class_precision_at_1"] = {"text_prior": result["text_prior"]["precision_at_1"]["value"]}
    return {"blind": blind, "image_dependent": dependent}


def tables(results: Mapping[str, Any]) -> list[Table]:
    """Every table below the headline, which Markdown and LaTeX both show."""
    details = results["details"]
    found = [finding_table(results)]
    if "groups" in details.get("subgroups", {}):
        found.append(Table("By group", *group_rows(details["subgroups"]["groups"])))
    found += [probe_table(title, details[task]) for task, title in PROBE_TITLES.items() if task in details]
    found += [decision_table(title, of) for title, of in decided(details).items()]
    if "single" in (result := details.get("prompt_sensitivity", {})):
        found.append(prompt_table(result))
    if "classes" in details.get("class_retrieval", {}):
        found.append(Table("Retrieval by class", *class_retrieval_rows(details["class_retrieval"])))
    for task, (title, columns) in MAP_TASKS.items():
        if "model" in (result := details.get(task, {})):
            found.append(Table(title, *figure_rows(result, columns)))
            if "model" in (readers := result.get("readers", {})):
                found.append(Table(READERS_TITLE, *figure_rows(readers, READER_COLUMNS)))
    return [table for table in found if table.rows]


def markdown_report(results: Mapping[str, Any], pictures: Sequence[str] = ()) -> str:
    """The headline as a table in percent, `tables` below it, and why a task has none.

    Args:
        pictures: files of figures, relative to the report.
    """
    parts = [f"# Evaluation of {_model_name(results)}", about(results), headline_table(results)]
    parts += [table.markdown() for table in tables(results)]
    parts += [f"{name}: {result['reason']}." for name, result in results["details"].items() if "reason" in result]
    parts += [f"![{Path(picture).stem.replace('_', ' ')}]({picture})" for picture in pictures]
    return "\n\n".join(parts) + "\n"


def latex_report(results: Mapping[str, Any]) -> str:
    """The same tables for a paper."""
    title = f"{_model_name(results)}. {about(results)}".replace("**", "")
    return "\n\n".join(table.latex() for table in (Table(title, *headline_rows(results)), *tables(results))) + "\n"


def _model_name(results: Mapping[str, Any]) -> str:
    return str(results.get("model", {}).get("name", "the model"))


def about(results: Mapping[str, Any]) -> str:
    """What was evaluated and how, in a paragraph."""
    data, draws = results["data"], results["bootstrap"]
    units = "seeds and patients" if "runs" in results else "patients"
    return (
        f"{'**Generated data, no patients.** ' if results['generated'] else ''}"
        f"{data['name'] or 'Rows'}, split {data['split']}: {data['readings']} readings of {data['images']} images of "
        f"{data['patients']} patients. Percent, with {draws['confidence']:.0%} intervals over {units}, closed or from "
        f"{draws['draws']} bootstrap draws, seed {draws['seed']}; {FEW_MARK}: fewer than {FEW_PATIENTS} patients (for "
        f"AUROC positive or negative ones). Headline score: {results['zero_shot_score']}; "
        f"protocol {results['protocol_version']}, {results['protocol'] or 'no variant'}."
        f"{_left_out(results['classes_left_out'])}"
    )


def _left_out(classes: Mapping[str, Any]) -> str:
    few: Mapping[str, int] = classes["positive_images"]
    if not few:
        return ""
    counts = ", ".join(f"{name} {count}" for name, count in few.items())
    return f" Not classified, with fewer than {classes['least_positives']} positive images: {counts}."


def headline_rows(results: Mapping[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Header, and a row a headline figure that there is: the model, others and its distance from them, baselines.

    Below a figure that has one stands its image-dependent share.
    """
    others: Mapping[str, Any] = results.get("baselines", {})
    runs: Mapping[str, Any] = results.get("runs", {})
    seeds = ["mean of the seeds", "± deviation", *runs] if runs else ["model"]
    header = ["figure", *seeds, *(column for name in others for column in (name, f"model - {name}"))]
    rows = []
    for key, label in HEADLINE_LABELS.items():
        if results.get(key) is None:
            continue
        text = percent if key in PERCENT_LABELS else _decimals
        cells = [text(results[key], results["intervals"][key]) + _mark(results["few_patients"][key])]
        cells += [text(results["deviations"][key])] if runs else []
        cells += [text(run[key]) for run in runs.values()]
        for other in others.values():
            difference = other["differences"].get(key)
            cells.append(text(other.get(key), other["intervals"].get(key)) + _mark(other["few_patients"].get(key)))
            cells.append("" if difference is None else _difference(difference, text))
        cells += [text(results[baseline].get(key)) for baseline in BASELINES]
        cells += [blind_cell(results, key, text), str(results["n"][key]), *comparable.cells(results, key, text)]
        rows.append([label, *cells])
        if key in results["image_dependent"]:
            shares = [share_cell(one, key, text) for one in (results, *others.values())]
            cells = [shares[0], *(cell for share in shares[1:] for cell in (share, ""))]
            cells[1:1] = [""] * (len(seeds) - 1)
            empty = [""] * (len(BASELINES) + 1)
            count = str(results["image_dependent"][key]["n"])
            rows.append([f"{label}, image-dependent share", *cells, *empty, count, "", "", ""])
    return [*header, *(name.replace("_", " ") for name in BASELINES), "blind baselines", "n", *comparable.COLUMNS], rows


def blind_cell(results: Mapping[str, Any], key: str, text: Text) -> str:
    """The blind baselines of a headline figure, the best first."""
    found: Mapping[str, float] = results["blind"].get(key, {})
    ranked = sorted(found, key=lambda name: (-found[name], name))
    return "; ".join(f"{name.replace('_', ' ')} {text(found[name])}" for name in ranked)


def share_cell(results: Mapping[str, Any], key: str, text: Text) -> str:
    """The image-dependent share of a headline figure, and what it is the distance from."""
    share = results["image_dependent"].get(key)
    return "" if share is None else f"{_difference(share, text)}, over {share['against'].replace('_', ' ')}"


def headline_table(results: Mapping[str, Any]) -> str:
    return markdown_table(*headline_rows(results))


def probe_table(title: str, result: Mapping[str, Any]) -> Table:
    """AUROC by share of the training patients, the mean and every class."""
    shares = {f"{share} ({of['patients']} patients)": _aurocs(of) for share, of in result.get("fractions", {}).items()}
    return Table.by_name(title, "AUROC", shares)


def decided(details: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """The `decisions` that there are, by what decides; a head is one of all training patients."""
    found = {"Zero-shot": details.get("decisions", {})} | {
        title: details.get(task, {}).get("fractions", {}).get(WHOLE, {}).get("decisions", {})
        for task, title in PROBE_TITLES.items()
    }
    return {title: of for title, of in found.items() if "figures" in of}


def decision_table(title: str, result: Mapping[str, Any]) -> Table:
    columns = {
        name.replace("_", " "): _cells(of, _plain if name.endswith(("brier", "ece")) else _cell)
        for name, of in result["figures"].items()
    }
    return Table.by_name(f"{title}, operating points and calibration", "finding", columns)


def prompt_table(result: Mapping[str, Any]) -> Table:
    columns = {"all prompts": _aurocs(result)}
    for label, kind in (("single prompts", "single"), ("random halves", "half")):
        spreads = {name: {end: percent(value) for end, value in of.items()} for name, of in result[kind].items()}
        columns[label] = {name: SPREAD.format(**ends) for name, ends in spreads.items()}
    return Table.by_name("AUROC by the choice of prompts", "finding", columns)


def group_rows(groups: Mapping[str, Any]) -> tuple[list[str], list[list[str]]]:
    """One row a value of each group, each figure with the count of its entries."""
    rows, tasks = [], list[str]()
    for group, values in groups.items():
        for value, of in values.items():
            tasks = [task for task in GROUP_KEYS if task in of]
            cells = [f"{_cell(of[task])}, n = {of[task]['n']}" for task in tasks]
            classes = str(of["zero_shot"]["classes"]) if "zero_shot" in of else ""
            rows.append([f"{group}: {value}", str(of["readings"]), str(of["patients"]), *cells, classes])
    labels = (HEADLINE_LABELS[GROUP_KEYS[task]] for task in tasks)
    return ["group", "readings", "patients", *labels, "classes of the AUROC"], rows


def class_retrieval_rows(result: Mapping[str, Any]) -> tuple[list[str], list[list[str]]]:
    """P@k both ways, both scores, and chance."""
    rows, cutoffs = [], []
    for score in (name for name in SCORES if name in result):
        for way, figures in result[score].items():
            cutoffs = list(figures)
            cells = [_cell(figure) for figure in figures.values()]
            rows.append([f"{way.replace('_', '-')}, {score.replace('_', ' ')}", *cells, percent(result["chance"][way])])
    return ["query", *(f"P@{name.rpartition('_')[2]}" for name in cutoffs), "chance"], rows


def figure_rows(result: Mapping[str, Any], columns: Sequence[str]) -> tuple[list[str], list[list[str]]]:
    """One row a metric of the model, one column for it and for each baseline that there is; as they are, no percent."""
    shown = [column for column in columns if column in result]
    rows = [
        [metric.replace("_", " "), *(_plain(result[column].get(metric)) for column in shown), str(figure["n"])]
        for metric, figure in result["model"].items()
    ]
    return ["metric", *(name.replace("_", " ") for name in shown), "n"], rows


def write_report(results: Mapping[str, Any], directory: str | Path) -> None:
    """Write `results.json`, `results.md` and `results.tex`; the pictures under `figures` are shown in the second."""
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    text = json.dumps(results, indent=2, ensure_ascii=False, allow_nan=False)
    (directory / "results.json").write_text(text + "\n", encoding="utf-8")
    pictures = [f"figures/{path.name}" for path in sorted(directory.glob("figures/*.png"))]
    (directory / "results.md").write_text(markdown_report(results, pictures), encoding="utf-8")
    (directory / "results.tex").write_text(latex_report(results), encoding="utf-8")


def percent(value: float | None, interval: tuple[float, float] | None = None) -> str:
    if value is None:
        return ""
    text = f"{100 * value:.1f}"
    return text if interval is None else f"{text} [{100 * interval[0]:.1f}, {100 * interval[1]:.1f}]"


def _decimals(value: float | None, interval: tuple[float, float] | None = None) -> str:
    if value is None:
        return ""
    return f"{value:.3f}" if interval is None else f"{value:.3f} [{interval[0]:.3f}, {interval[1]:.3f}]"


def _difference(difference: Mapping[str, Any], text: Text) -> str:
    p_value = difference["p_value"]
    value = text(difference["value"], difference["interval"])
    if p_value is None:
        return str(value)
    corrected = f", by Holm {difference['p_holm']:.3f}" if "p_holm" in difference else ""
    return f"{value}, p = {p_value:.3f}{corrected}{_mark(difference['few_patients'])}"


def _plain(figure: Mapping[str, Any] | None) -> str:
    if figure is None or figure["value"] is None:
        return "" if figure is None else str(figure["reason"])
    return _decimals(figure["value"], figure["interval"]) + _mark(figure.get("few_patients"))


def finding_table(results: Mapping[str, Any]) -> Table:
    """AUROC by both scores and the pointing game of every finding; no row where no task gives one."""
    details = results["details"]
    zero_shot, pointing = details.get("zero_shot", {}), details.get("pointing_game", {})
    columns = {f"AUROC, {score}": _cells(zero_shot[score]["auroc_per_class"]) for score in SCORES if score in zero_shot}
    columns |= {
        label: {name: _cell(figures[kind]) for name, figures in pointing["per_finding"].items() if kind in figures}
        for label, kind in (("pointing game", "pointing_game"), ("its chance", "chance"), *POINTING_COLUMNS)
        if "per_finding" in pointing
    }
    names = sorted({name for column in columns.values() for name in column})
    counts = {name: str(results["prompts_per_class"][name]) for name in names}
    return Table.by_name("By finding", "finding", {"prompts": counts} | columns)


def _aurocs(result: Mapping[str, Any]) -> dict[str, str]:
    return _cells({"mean": result["auroc"]} | result["auroc_per_class"])


def _cells(figures: Mapping[str, Any], text: Callable[[Any], str] | None = None) -> dict[str, str]:
    return {name: (text or _cell)(figure) for name, figure in figures.items()}


def _cell(figure: Mapping[str, Any] | None) -> str:
    if figure is None or figure["value"] is None:
        return "" if figure is None else str(figure.get("reason", ""))
    return percent(figure["value"], figure["interval"]) + _mark(figure.get("few_patients"))


def _mark(few_patients: bool | None) -> str:
    return f" {FEW_MARK}" if few_patients else ""
