"""Evaluate a model on a converted corpus and print the headline table.

    python evaluate_egma.py MODEL --data DIR [--tasks zero_shot retrieval grounding] [--output DIR]
    python evaluate_egma.py RUN RUN RUN --seeds --data DIR [--output DIR]

MODEL is a folder or a Hub id; RUNs are of one setting with other seeds, and become one result.
Tasks: zero_shot, decisions (operating points, calibration, threshold), prompt_sensitivity, retrieval (own pairs),
class_retrieval (P@k), pointing_game, grounding, gaze_agreement; and, only when named, edited_prompts (negation, left
and right), linear_probe and fine_tuning (train on the training split).
--output gets `results.json`, tables as `results.md` and `results.tex`, `figures/`, `model_index.json` for a model card,
and `tasks/`, from which the same command goes on after an interruption.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from datasets import disable_progress_bars
from huggingface_hub.repocard_data import eval_results_to_model_index
from transformers import AutoConfig
from transformers.utils import logging as transformers_logging

import modeling_egma  # noqa: F401  registers the Auto classes
from dataset_scripts.command_line import Parser, program
from dataset_scripts.identity import corpus_identity, model_identity, program_identity
from dataset_scripts.schema import UserError, is_generated
from egma.evaluation.evaluate import evaluate_model
from egma.evaluation.protocols.subgroups import GROUPS
from egma.evaluation.reporting.comparable import seen_by_backbone
from egma.evaluation.reporting.model_index import eval_results
from egma.evaluation.reporting.report import headline_table, write_report
from egma.evaluation.reporting.seeds import over_seeds
from egma.evaluation.task_cache import TaskCache
from egma.evaluation.tasks import TASKS
from egma.inference.models import LOADING_ERRORS, load_model, reason_of, require_model
from egma.inference.peers import load_peer
from egma.inference.prompts import load_prompts
from egma.tools.corpora import corpus_folder
from egma.tools.processes import EVALUATION_SOURCES, write_json

GIVEN = (
    "split",
    "protocol",
    "laterals",
    "classes",
    "prompts_per_class",
    "pooling",
    "batch_size",
    "bootstrap",
    "seed",
    "groups",
)


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = Parser(__doc__)
    parser.add_argument("models", metavar="MODEL", nargs="+", help="folder or Hub id of an EGMA model")
    parser.add_argument("--seeds", action="store_true", help="the models are one, trained with several seeds")
    parser.add_argument(
        "--data", required=True, help="corpus written by python -m dataset_scripts.build: folder or Hub id"
    )
    parser.add_argument(
        "--tasks", nargs="+", metavar="TASK", help=f"of {', '.join(TASKS)}; default: what the data allow"
    )
    parser.add_argument("--split", default="test")
    parser.add_argument("--protocol", metavar="NAME", help="a published way to score, see docs/evaluation.md")
    parser.add_argument("--laterals", action="store_true", help="the probes on CheXpert take laterals too")
    parser.add_argument("--output", type=Path, help="folder for results, tables and figures")
    parser.add_argument(
        "--baseline",
        "--compare",
        dest="others",
        metavar="OTHER",
        action="append",
        default=[],
        help="another model, EGMA or of CLIP's or SigLIP's kind, on the same rows with paired differences; repeatable",
    )
    parser.add_argument(
        "--prompts", metavar="FILE", help="YAML, `classes: {Name: [prompt, ...]}`; default: the protocol's or package's"
    )
    parser.add_argument("--prompts-per-class", type=int, help="draw this many prompts of each class; default: all")
    parser.add_argument("--classes", nargs="+", metavar="NAME", help="findings; default: those that have prompts")
    parser.add_argument("--pooling", choices=("max", "mean"), default="max", help="over the prompts of a class")
    parser.add_argument("--groups", type=lambda names: names.split(","), default=[], help=f"of {','.join(GROUPS)}")
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--bootstrap", type=int, default=1000, help="draws of the 95%% intervals; 0 leaves them out")
    parser.add_argument("--seed", type=int, default=0, help="of the bootstrap and of drawn prompts")
    return parser.parse_args(arguments)


def load_other(name: str) -> tuple[Any, Any]:
    """A model to stand beside: EGMA, or a peer.

    Raises:
        UserError: nothing can be loaded.
    """
    require_model(name)
    try:
        is_egma = AutoConfig.from_pretrained(name).model_type == "egma"
    except LOADING_ERRORS as error:
        raise UserError(f"{name}: no model can be loaded from it ({reason_of(error)})") from error
    if is_egma:
        return load_model(name)
    model, processor = load_peer(name)
    return model.to("cuda" if torch.cuda.is_available() else "cpu"), processor


def _name(source: str) -> str:
    return Path(source).resolve().name if Path(source).is_dir() else source


def _check_names(options: argparse.Namespace) -> None:
    """Raise UserError for models that the options do not allow, or that the tables could not tell apart."""
    if options.seeds != (len(options.models) > 1) or (options.seeds and options.others):
        raise UserError("expected one model, or two runs or more with --seeds and without --compare")
    names = [_name(source) for source in (*options.models, *options.others)]
    if twins := [name for name in names if names.count(name) > 1]:
        raise UserError(f"{twins[0]}: {len(twins)} models have this name; the tables could not tell them apart")


def describe_model(name: str, model: Any) -> dict[str, Any]:
    """Name, size and, so that two results can be told apart, the Hub commit and the identity of what was loaded."""
    return {
        "name": _name(name),
        "commit": getattr(model.config, "_commit_hash", None),
        "identity": model_identity(name),
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
    }


def _caches(options: argparse.Namespace, model: Any, others: dict[str, tuple[Any, Any]]) -> dict[str | None, TaskCache]:
    """What was finished by the same command on the same model and data is not done again."""
    if options.output is None:
        return {}
    shared = {name: getattr(options, name) for name in GIVEN} | {
        "program": program_identity(*EVALUATION_SOURCES),
        "data": corpus_identity(options.data),
        "generated": is_generated(options.data),
        "prompts": None if options.prompts is None else Path(options.prompts).read_text(encoding="utf-8"),
    }
    folder = options.output / "tasks"
    caches: dict[str | None, TaskCache] = {
        name: TaskCache(folder / name, shared | {"model": describe_model(source, others[name][0])})
        for name, source in zip(others, options.others, strict=True)
    }
    return caches | {None: TaskCache(folder, shared | {"model": describe_model(options.models[0], model)})}


@program
def main(arguments: Sequence[str] | None = None) -> None:
    options = parse_arguments(arguments)
    transformers_logging.set_verbosity_error()
    disable_progress_bars()
    if options.output is not None:
        options.output.mkdir(parents=True, exist_ok=True)  # before the work, so that a place that cannot be is named
    options.data = corpus_folder(options.data)
    prompts = None if options.prompts is None else load_prompts(options.prompts)
    _check_names(options)
    model, processor = load_model(options.models[0])
    options.others += options.models[1:]
    others = {_name(source): (load_model if options.seeds else load_other)(source) for source in options.others}
    for name, (run, _) in others.items() if options.seeds else ():
        if run.config.to_dict() | {"_name_or_path": None} != model.config.to_dict() | {"_name_or_path": None}:
            raise UserError(f"{name}: another configuration than the first run's; expected runs of one setting")
    caches = _caches(options, model, others)
    results = evaluate_model(
        model,
        processor,
        options.data,
        options.tasks,
        prompts=prompts,
        **{name: getattr(options, name) for name in GIVEN},
        others=others,
        caches=caches,
        figures=None if options.output is None or options.seeds else options.output / "figures",
    )
    results = {"model": describe_model(options.models[0], model)} | results
    for name, source in zip(others, options.others, strict=True):
        results["baselines"][name]["model"] = describe_model(source, others[name][0])
        results["baselines"][name]["seen"] = seen_by_backbone(source, results["data"]["sources"])
    results["seen"] = seen_by_backbone(options.models[0], results["data"]["sources"])
    if options.seeds:
        results = over_seeds(results)
    print(headline_table(results))
    if options.output is not None:
        write_report(results, options.output)
        if not options.seeds:  # a card is of one model
            entries = eval_results_to_model_index(results["model"]["name"], eval_results(results))
            write_json(options.output / "model_index.json", entries)
        print(f"\nwritten: {options.output / 'results.json'}, {options.output / 'results.md'}")


if __name__ == "__main__":
    sys.exit(main())
