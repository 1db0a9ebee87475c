"""Which published figures may stand beside ours: those of `protocols/papers` that were made as ours were."""

import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from huggingface_hub.repocard import metadata_load

from dataset_scripts.schema import Reading
from egma.evaluation.protocols.published import few_positives
from egma.evaluation.protocols.variants import PAPERS
from egma.evaluation.statistics.proportions import wilson

COLUMNS = ("seen by the backbone", "comparable with the published figure", "published")
# sources whose images are of one collection, and how cards name it
FAMILIES = {
    r"nih|rsna|siim|chestx": r"\bnih\b|chestx?-?ray-?14|cxr-?14|\brsna|\bsiim",
    r"mimic|ms_cxr|reflacx|egd": r"mimic|ms.?cxr|reflacx|\begd\b",
    r"chexpert": r"chexpert",
}


def published_figures(results: Mapping[str, Any], readings: Sequence[Reading]) -> dict[str, Any]:
    """By headline key `because`, why no published figure is comparable, the `figures` that are, and their `targets`."""
    tables = [table for paper in PAPERS.values() for table in paper.get("tables", ())]
    every: dict[Any, Any] = {(table["source"], key): table for table in tables for key in table["figures"]}
    found = {}
    for key in (key for key in results["n"] if results[key] is not None):
        table = every.get((", ".join(results["data"]["sources"]), key), {"run": {}})
        because = (
            _reasons(results, readings, key, table) if table["run"] else ["no such figure on these data is known here"]
        )
        figures = {} if because else {name: value / 100 for name, value in table["figures"][key].items()}
        found[key] = {"because": because, "figures": figures, "targets": table["run"].get("targets")}
    return found


def _reasons(results: Mapping[str, Any], readings: Sequence[Reading], key: str, table: Mapping[str, Any]) -> list[str]:
    detail = results["details"][next((task for task in results["details"] if key.startswith(task)), "class_retrieval")]
    classes = detail.get("classes") or list(detail["per_finding"])
    shown = sorted(set(few_positives(readings, classes, len(readings) + 1).values()))
    run = results["data"] | {
        **dict.fromkeys(("readings", "targets"), results["n"][key]),
        "images of a class": ", ".join(map(str, shown)),
        "classes": ", ".join(sorted(name.casefold() for name in classes)),
        "prompts": results["prompts"],
        "prompts in all": sum(results["prompts_per_class"].values()),
        "score": results["zero_shot_score"],
        "pooling": detail.get("pooling"),
        "protocol": results["protocol"] or "none",
    }
    wanted = {"protocol": "none"} | table["run"]
    reasons = [f"{name}: {run[name]}, not {value}" for name, value in wanted.items() if str(run[name]) != str(value)]
    return reasons + ([f"it is not known {table['unknown']}"] if "unknown" in table else [])


def cells(results: Mapping[str, Any], key: str, text: Callable[..., str]) -> list[str]:
    """The COLUMNS; a published share of so many targets has Wilson's interval."""
    found, models = results["published"][key], {"": results} | results.get("baselines", {})
    seen = [f"{name}: {of.get('seen', 'unknown')}".removeprefix(": ") for name, of in models.items()]
    verdict = f"no, because {'; '.join(found['because'])}" if found["because"] else "yes"
    ranked, ones = sorted(found["figures"].items(), key=lambda item: -item[1]), np.ones(found["targets"] or 0)
    hits = [np.cumsum(ones) <= round(share * len(ones)) for _, share in ranked]
    figures = [
        f"{name} {text(share, wilson(hit * ones, ones))}" for (name, share), hit in zip(ranked, hits, strict=True)
    ]
    return ["; ".join(seen), verdict, "; ".join(figures)]


def seen_by_backbone(model: str | Path, sources: Sequence[str]) -> str:
    """Whether a model was trained on the collection that the images are of, by the metadata of its folder's README.md.

    "yes" where `datasets` (the Hub's field) or `pretraining_datasets` names it, "no" where the latter, which is the
    whole list, is there and does not, "unknown" otherwise; which images of a collection no card says.
    """
    metadata: Mapping[str, Any] = {}
    with suppress(OSError, ValueError, yaml.YAMLError):
        metadata = metadata_load(Path(model) / "README.md") or {}
    listed = [metadata.get(field) for field in ("datasets", "pretraining_datasets")]
    names = [name for start, name in FAMILIES.items() if any(re.match(start, source) for source in sources)]
    if any(re.search(name, str(listed), re.IGNORECASE) for name in names):
        return "yes"
    return "no" if names and listed[1] is not None else "unknown"
