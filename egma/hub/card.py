"""The model card of a trained folder: everything that was recorded, and "not recorded" where nothing was."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from huggingface_hub import ModelCard, ModelCardData

from dataset_scripts.identity import model_identity
from dataset_scripts.schema import UserError
from egma.evaluation.evaluate import PROTOCOL_VERSION
from egma.evaluation.reporting.model_index import eval_results
from egma.evaluation.reporting.report import about, headline_table

TEMPLATE = Path(__file__).with_name("card_template.md")
GENERATED_NOTICE = (
    "**Trained on GENERATED data: no patient exists behind it, and no figure says anything about real radiographs.**"
)
NOT_RECORDED = "not recorded"
SHOWN_SETTINGS = (
    *("max_steps", "epochs", "batch_size", "micro_batch_size", "gradient_accumulation_steps", "learning_rate"),
    *(
        "weight_decay",
        "warmup_fraction",
        "learning_rate_schedule",
        "ema_decay",
        "gaze_ratio",
        "positives",
        "gaze_sigma",
        "gaze_lead_seconds",
        "max_length",
        "seed",
    ),
)


def model_card(folder: Path, repo_id: str, results: Mapping[str, Any] | None, pictures: list[str]) -> ModelCard:
    """The card of the model in `folder`.

    Args:
        results: what `evaluate_egma.py` wrote to `results.json`, of this very model.
        pictures: figures that go up with it, relative to the card.

    Raises:
        UserError: `results` are of another model than the folder's.
    """
    config = _read(folder / "config.json")
    state = _read(folder / "training_state.json")
    if results is not None:
        check_results(folder, results)
    generated = _is_generated(state, results)
    sources = {source.replace("/", "-") for of in _corpora(state).values() for source in of.get("sources", ())}
    data = ModelCardData(
        model_name=repo_id.rpartition("/")[2],
        license="other" if not generated else "apache-2.0",
        language="en",
        library_name="transformers",
        pipeline_tag="zero-shot-image-classification",
        tags=["egma", "medical", "radiology", "chest-x-ray", "eye-tracking", *(["synthetic"] if generated else [])],
        datasets=sorted(sources) or None,
        eval_results=eval_results(results) if results is not None else None,
    )
    text = TEMPLATE.read_text(encoding="utf-8").format(
        notice=f"{GENERATED_NOTICE}\n\n" if generated else "",
        name=repo_id.rpartition("/")[2],
        repo_id=repo_id,
        towers=f"{_tower(config, 'vision_config')} and {_tower(config, 'text_config')}",
        parameters=f"{state['parameters']:,}" if state else NOT_RECORDED,
        score=config.get("zero_shot_score", "pooled"),
        data=_data(state),
        settings=_settings(state),
        compute=_compute(state),
        results=_results(results, pictures),
    )
    return ModelCard(f"---\n{data.to_yaml()}\n---\n\n{text}")


def check_results(folder: Path, results: Mapping[str, Any]) -> None:
    """Figures of other weights, another configuration, processor or tokenizer must not stand in this card."""
    measured, here = results.get("model", {}).get("identity"), model_identity(folder)
    if here is None or measured != here:
        raise UserError(f"{folder}: the results were measured on the model {measured}, and this one is {here}")
    if (version := results.get("protocol_version")) != PROTOCOL_VERSION:
        raise UserError(
            f"{folder}: the results are of protocol {version}, and this program's is {PROTOCOL_VERSION}; evaluate again"
        )


def _read(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def _corpora(state: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    return {name: of for name, of in state.get("data", {}).items() if isinstance(of, Mapping)}


def _is_generated(state: Mapping[str, Any], results: Mapping[str, Any] | None) -> bool:
    corpora = _corpora(state)
    return any(of.get("generated") for of in corpora.values()) if corpora else bool(results and results["generated"])


def _tower(config: Mapping[str, Any], name: str) -> str:
    return str((config.get(name) or {}).get("model_type", NOT_RECORDED))


def _data(state: Mapping[str, Any]) -> str:
    corpora = _corpora(state)
    if not corpora:
        return f"The training data are {NOT_RECORDED}."
    lines = ["| corpus | generated | licence or terms | fingerprint |", "|---|---|---|---|"]
    for name, of in corpora.items():
        terms = "; ".join(of.get("licenses") or []) or NOT_RECORDED
        lines.append(f"| {name} | {'yes' if of.get('generated') else 'no'} | {terms} | {of.get('fingerprint')} |")
    return "\n".join([*lines, "", f"{state['data'].get('training', NOT_RECORDED)}."])


def _settings(state: Mapping[str, Any]) -> str:
    if not state:
        return f"The settings are {NOT_RECORDED}."
    settings = state["settings"]
    rows = [f"| {name} | {settings[name]} |" for name in SHOWN_SETTINGS if settings.get(name) is not None]
    total = f"| steps in all | {state['total_steps']} |"
    pairs = f"| readings in a contrastive batch | {state['readings_in_a_contrastive_batch']} |"
    return "\n".join(["| setting | value |", "|---|---|", *rows, total, pairs])


def _compute(state: Mapping[str, Any]) -> str:
    if not state:
        return NOT_RECORDED
    versions = ", ".join(f"{name} {version}" for name, version in state["versions"].items() if version)
    return f"{state['processes']} process(es) on {state['device']}, precision {state['precision']}; {versions}"


def _results(results: Mapping[str, Any] | None, pictures: list[str]) -> str:
    if results is None:
        return "This model was not evaluated."
    shown = [f"![{Path(name).stem.replace('_', ' ')}]({name})" for name in pictures]
    return "\n\n".join([about(results), headline_table(results), *shown])
