"""The headline as `model-index` entries, which a model card on the Hub shows beside the model."""

from collections.abc import Mapping
from typing import Any

from huggingface_hub import EvalResult, EvalResultEntry, eval_result_entries_to_yaml

from egma.evaluation.reporting.report import HEADLINE_LABELS

METRIC_TYPES = {
    "zero_shot_auroc": "roc_auc",
    "zero_shot_accuracy": "accuracy",
    "zero_shot_f1": "f1",
    "recall_at_1": "recall",
    "text_to_image_recall_at_1": "recall",
    "class_precision_at_1": "precision",
    "text_to_image_class_precision_at_1": "precision",
    "pointing_game": "pointing_game",
    "negation": "accuracy",
    "laterality": "accuracy",
    "linear_probe_auroc": "roc_auc",
    "fine_tuning_auroc": "roc_auc",
    "grounding_cnr": "cnr",
    "gaze_nss": "nss",
}
TASK_TYPES = {"zero_shot": "zero-shot-image-classification", "linear_probe": "image-classification"}
OTHER_TASK = "image-feature-extraction"


def eval_results(results: Mapping[str, Any]) -> list[EvalResult]:
    """One entry a headline figure of `results.json`, with its interval; generated data is named so."""
    data = results["data"]
    name = data["name"] or ", ".join(data["sources"])
    named = f"{name} (generated data, no patients)" if results["generated"] else name
    return [
        EvalResult(
            task_type=next((kind for task, kind in TASK_TYPES.items() if key.startswith(task)), OTHER_TASK),
            dataset_type="-".join(data["sources"]).replace("/", "-"),
            dataset_name=named,
            dataset_split=data["split"],
            metric_type=METRIC_TYPES[key],
            metric_name=label,
            metric_value=results[key],
            metric_args=_arguments(results, key),
        )
        for key, label in HEADLINE_LABELS.items()
        if results.get(key) is not None
    ]


def benchmark_results(results: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The headline as the Hub's `.eval_results/*.yaml` has it, which knows data sets of the Hub alone.

    Source: https://huggingface.co/docs/hub/eval-results. A figure's key is the `task_id`.
    """
    hub = results["data"].get("hub")
    if hub is None:
        return []
    keys = [key for key in HEADLINE_LABELS if results.get(key) is not None]
    notes = {key: ", ".join(f"{name} {value}" for name, value in _arguments(results, key).items()) for key in keys}
    made = "generated data, no patients; " if results["generated"] else ""
    return eval_result_entries_to_yaml(
        [
            EvalResultEntry(hub["id"], key, results[key], dataset_revision=hub["revision"], notes=made + notes[key])
            for key in keys
        ]
    )


def _arguments(results: Mapping[str, Any], key: str) -> dict[str, Any]:
    interval = results["intervals"][key]
    return {
        "confidence_interval": None if interval is None else list(interval),
        "n": results["n"][key],
        "seed": results["bootstrap"]["seed"],
        "protocol_version": results["protocol_version"],
    }
