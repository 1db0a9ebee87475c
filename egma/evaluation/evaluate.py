"""`evaluate_model`: all protocols on one split of a converted corpus, every image and sentence encoded once."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from dataset_scripts.schema import PRESENT, Reading, Split, UserError, is_generated
from egma.evaluation.corpus import Corpus, describe_data
from egma.evaluation.protocols.published import few_positives
from egma.evaluation.protocols.subgroups import check_groups
from egma.evaluation.protocols.variants import PROJECT, VARIANTS, Variant, filled
from egma.evaluation.reporting.comparable import published_figures
from egma.evaluation.reporting.report import HEADLINE_LABELS, headline, headline_figures
from egma.evaluation.statistics.bootstrap import PatientBootstrap, without_draws
from egma.evaluation.statistics.pairs import holm
from egma.evaluation.statistics.proportions import CONFIDENCE
from egma.evaluation.task_cache import TaskCache
from egma.evaluation.tasks import TASKS, Options, Tasks
from egma.inference.embeddings import ImageTextModel, Processor, Readings
from egma.inference.prompts import Prompts, draw_prompts, load_prompts
from egma.inference.scores import Pooling

PROTOCOL_VERSION = "4"


def evaluate_model(
    model: ImageTextModel,
    processor: Processor,
    data: str | Path | Readings,
    tasks: Sequence[str] | None = None,
    *,
    split: Split = "test",
    training_rows: Readings | None = None,
    validation_rows: Readings | None = None,
    protocol: str | None = None,
    laterals: bool = False,
    prompts: Mapping[str, Sequence[str]] | None = None,
    classes: Sequence[str] | None = None,
    prompts_per_class: int | None = None,
    pooling: Pooling = "max",
    groups: Sequence[str] = (),
    batch_size: int = 64,
    bootstrap: int = 1000,
    seed: int = 0,
    others: Mapping[str, tuple[ImageTextModel, Processor]] | None = None,
    caches: Mapping[str | None, TaskCache] | None = None,
    figures: Path | None = None,
) -> dict[str, Any]:
    """Evaluate a model; the result is what `results.json` holds.

    Args:
        data: a converted corpus (its `split` is read), or its rows.
        tasks: of TASKS; None takes all but NAMED_TASKS and notes the ones that the data do not allow.
        training_rows, validation_rows: rows for the blind baselines and those that train when `data` is rows; a
            corpus brings its own.
        protocol: a published way to score, of `protocols/papers`; None: the project's own.
        laterals: the probes on CheXpert take its lateral images too.
        prompts: by class name, whose case does not matter; None takes the file of the corpus' protocol if it has one
            (`published`), else the prompt files of the package.
        classes: findings to evaluate; None takes those of the corpus' protocol, else those that have prompts.
        prompts_per_class: draw this many by class name and `seed`; None takes all, or as many as the protocol says.
        groups: of `subgroups.GROUPS`, by which the headline figures are told apart as well.
        bootstrap: draws of the intervals; 0 leaves them out.
        others: further models by name, evaluated on the same rows and compared with the first.
        caches: results of finished tasks, of the model under None and of the others by name.
        figures: folder for the figures of the model; `fine_tuning` leaves its `classifier` beside it.

    Raises:
        UserError: what was asked for and the data or the prompts do not hold.
    """
    _check_numbers(tasks, batch_size, bootstrap)
    variant = _variant(protocol, prompts)
    options = Options(split, pooling, batch_size, bootstrap, seed, variant, laterals, tuple(groups))
    corpus = Corpus.read(data, split, training_rows, validation_rows)
    check_groups(groups, corpus.test)
    fixed = corpus.protocol
    named = classes if classes is not None else fixed.classes
    chosen = _prompts_of(corpus, prompts, named, prompts_per_class, seed)
    chosen = filled(variant.positive, chosen) or chosen
    least = 0 if named is not None else fixed.distinct.least_positives
    few = few_positives(corpus.test, list(chosen), least)
    resampling = PatientBootstrap(corpus.test, bootstrap, seed)

    def programs(model: ImageTextModel, processor: Processor) -> Tasks:
        return Tasks(model, processor, corpus, chosen, named is not None, few, options, resampling, tasks)

    caches, generated = caches or {}, is_generated(data) if isinstance(data, str | Path) else None
    own = replace(programs(model, processor), output=figures and figures.parent)
    details = own.run(caches.get(None), asked=tasks is not None)
    if figures is not None:
        own.draw(details, figures, caches.get(None), bool(generated))
    score = model.config.zero_shot_score
    results = {
        "protocol_version": PROTOCOL_VERSION,
        "protocol": protocol,
        "generated": generated,
        **headline(details, score),
        "zero_shot_score": score,
        "bootstrap": {"draws": bootstrap, "seed": seed, "confidence": CONFIDENCE, "unit": "patient"},
        "prompts": (protocol if variant.positive else fixed.prompts or "the package's") if prompts is None else "given",
        "prompts_per_class": {name: len(used) for name, used in sorted(chosen.items())},
        "classes_left_out": {"least_positives": least, "positive_images": few},
        "data": describe_data(data, corpus.test, split),
    }
    results["published"] = published_figures(results | {"details": details}, corpus.test)
    beside = {}
    for name, (other, other_processor) in (others or {}).items():
        found = programs(other, other_processor).run(caches.get(name), asked=False)
        beside[name] = _beside(details, score, found, other.config.zero_shot_score, resampling)
    correct_for_many(beside)
    return results | ({"baselines": beside} if beside else {}) | {"details": without_draws(details)}


def _variant(protocol: str | None, prompts: Mapping[str, Sequence[str]] | None) -> Variant:
    if protocol is None:
        return PROJECT
    if protocol not in VARIANTS:
        raise UserError(f"unknown protocol '{protocol}'; expected {', '.join(VARIANTS)}")
    if prompts is not None and VARIANTS[protocol].positive is not None:
        raise UserError(f"protocol '{protocol}' makes its own prompts; expected none beside it")
    return VARIANTS[protocol]


def _prompts_of(
    corpus: "Corpus",
    given: Mapping[str, Sequence[str]] | None,
    classes: Sequence[str] | None,
    per_class: int | None,
    seed: int,
) -> Prompts:
    """The prompts given, or else of the corpus' protocol, or the package's; drawn where there shall be fewer."""
    file = corpus.protocol.prompt_file() if given is None else None
    candidates = given if given is not None else (file.classes if file is not None else load_prompts())
    per_class = file.per_class if per_class is None and file is not None else per_class
    chosen = _choose_prompts(corpus.test, candidates, classes)
    return chosen if per_class is None else draw_prompts(chosen, per_class, seed)


def _beside(
    details: Mapping[str, Any], score: str, found: Mapping[str, Any], found_score: str, bootstrap: PatientBootstrap
) -> dict[str, Any]:
    """What `results.json` holds of another model."""
    return {
        **headline(found, found_score),
        "zero_shot_score": found_score,
        "differences": differences(details, score, found, found_score, bootstrap),
        "details": without_draws(found),
    }


def differences(
    details: Mapping[str, Any], score: str, others: Mapping[str, Any], other_score: str, bootstrap: PatientBootstrap
) -> dict[str, dict[str, Any]]:
    """The first model's headline figures less the second's, by key, where both have one over the same entries."""
    first, second = headline_figures(details, score), headline_figures(others, other_score)
    found = {}
    for key in HEADLINE_LABELS:
        one, other = first.get(key), second.get(key)
        if one is None or other is None or one["value"] is None or other["value"] is None or one["n"] != other["n"]:
            continue
        found[key] = asdict(bootstrap.difference(one, other))
    return found


def correct_for_many(others: Mapping[str, Mapping[str, Any]]) -> None:
    """Add `p_holm` to the differences of all headline figures from all other models, which are one family."""
    family = [of for other in others.values() for of in other["differences"].values() if of["p_value"] is not None]
    for difference, p_value in zip(family, holm([of["p_value"] for of in family]), strict=True):
        difference["p_holm"] = p_value


def _check_numbers(tasks: Sequence[str] | None, batch_size: int, bootstrap: int) -> None:
    for task in tasks or ():
        if task not in TASKS:
            raise UserError(f"unknown task '{task}'; expected {', '.join(TASKS)}")
    if batch_size < 1:
        raise UserError(f"batch size: expected at least 1, got {batch_size}")
    if bootstrap < 0:
        raise UserError(f"bootstrap: expected 0 draws or more, got {bootstrap}")


def _choose_prompts(
    readings: Sequence[Reading], prompts: Mapping[str, Sequence[str]], classes: Sequence[str] | None
) -> Prompts:
    """Prompts of the findings that the readings list, or of `classes`, each of which must have what it takes.

    Corpora write the same name in other cases; the result has the readings' names.
    """
    values: dict[str, set[int]] = {}
    for finding in (finding for reading in readings for finding in reading["findings"]):
        values.setdefault(finding["name"], set()).add(finding["value"])
    plain = {name.casefold(): list(of_class) for name, of_class in prompts.items()} | {
        name: list(of_class) for name, of_class in prompts.items()
    }
    found = {name: plain.get(name, plain.get(name.casefold(), [])) for name in values}
    if classes is None:
        return {name: found[name] for name in sorted(found) if found[name]}
    spelled = {name.casefold(): name for name in values} | {name: name for name in values}
    wanted = []
    for given in classes:
        name = spelled.get(given, spelled.get(given.casefold()))
        if name is None:
            known = ", ".join(sorted(values)) or "none"
            raise UserError(f"class '{given}' is not in these readings; they list {known}")
        if not found[name]:
            raise UserError(f"class '{given}' has no prompts; there are prompts for {', '.join(sorted(prompts))}")
        if PRESENT not in values[name]:
            raise UserError(f"class '{given}' is present in none of these readings")
        wanted.append(name)
    return {name: found[name] for name in sorted(wanted)}
