"""Evaluate a model on a converted corpus: zero-shot classification, retrieval and the pointing game.

    python evaluate_egma.py MODEL --data DIR [--tasks zero_shot retrieval pointing_game] [--output DIR]

MODEL is a folder or a Hub id. Writes `results.json` and `results.md` to --output and prints the headline table.
"""

import argparse
import hashlib
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from datasets import disable_progress_bars
from transformers import AutoConfig, AutoModel, AutoProcessor
from transformers.utils import logging as transformers_logging

import modeling_egma  # noqa: F401  registers the Auto classes
from dataset_scripts.schema import UserError
from egma_evaluation.prompts import load_prompts
from egma_evaluation.protocol import TASKS, evaluate_model
from egma_evaluation.report import headline_table, write_report


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", metavar="MODEL", help="folder or Hub id of an EGMA model with its processor")
    parser.add_argument("--data", required=True, help="corpus written by python -m dataset_scripts.build")
    parser.add_argument(
        "--tasks", nargs="+", metavar="TASK", help=f"of {', '.join(TASKS)}; default: what the data allow"
    )
    parser.add_argument("--split", default="test")
    parser.add_argument("--output", type=Path, help="folder for results.json and results.md")
    parser.add_argument(
        "--prompts", metavar="FILE", help="YAML, `classes: {Name: [prompt, ...]}`; default: the package's"
    )
    parser.add_argument("--prompts-per-class", type=int, help="draw this many prompts of each class; default: all")
    parser.add_argument("--classes", nargs="+", metavar="NAME", help="findings; default: those that have prompts")
    parser.add_argument("--pooling", choices=("max", "mean"), default="max", help="over the prompts of a class")
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--bootstrap", type=int, default=1000, help="draws of the 95%% intervals; 0 leaves them out")
    parser.add_argument("--seed", type=int, default=0, help="of the bootstrap and of drawn prompts")
    return parser.parse_args(arguments)


def load_model(name: str) -> tuple[Any, Any]:
    """The model, on a GPU if there is one, and its processor.

    Raises:
        UserError: nothing to load, another kind of model, or weights that do not fill it.
    """
    try:
        config = AutoConfig.from_pretrained(name)
        if config.model_type != "egma":
            raise UserError(f"{name}: a model of type '{config.model_type}'; expected an EGMA model")
        model, loading = AutoModel.from_pretrained(name, output_loading_info=True)
        processor = AutoProcessor.from_pretrained(name)
    except (OSError, ValueError) as error:
        if isinstance(error, UserError):
            raise
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise UserError(f"{name}: no EGMA model can be loaded from it ({reason})") from error
    if loading["missing_keys"]:
        missing = ", ".join(sorted(loading["missing_keys"])[:3])
        raise UserError(
            f"{name}: the weights lack {len(loading['missing_keys'])} tensors of the model, such as {missing}"
        )
    return model.to("cuda" if torch.cuda.is_available() else "cpu"), processor


def describe_model(name: str, model: Any) -> dict[str, Any]:
    """Name, size and, so that two results can be told apart, the Hub commit or the digest of the weight files."""
    digest = hashlib.sha256()
    files = sorted(Path(name).glob("*.safetensors"))
    for file in files:
        with file.open("rb") as stream:
            digest.update(hashlib.file_digest(stream, "sha256").digest())
    return {
        "name": Path(name).resolve().name if files else name,
        "commit": getattr(model.config, "_commit_hash", None),
        "weights_digest": digest.hexdigest()[:16] if files else None,
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
    }


def main(arguments: Sequence[str] | None = None) -> int:
    options = parse_arguments(arguments)
    transformers_logging.set_verbosity_error()
    disable_progress_bars()
    try:
        prompts = load_prompts(options.prompts)
        model, processor = load_model(options.model)
        results = evaluate_model(
            model,
            processor,
            options.data,
            options.tasks,
            split=options.split,
            prompts=prompts,
            classes=options.classes,
            prompts_per_class=options.prompts_per_class,
            pooling=options.pooling,
            batch_size=options.batch_size,
            bootstrap=options.bootstrap,
            seed=options.seed,
        )
    except UserError as error:
        print(f"evaluate_egma: {error}", file=sys.stderr)
        return 2
    results = {"model": describe_model(options.model, model)} | results
    print(headline_table(results))
    if options.output is not None:
        write_report(results, options.output)
        print(f"\nwritten: {options.output / 'results.json'}, {options.output / 'results.md'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
