"""`evaluate_model`: all protocols on one split of a converted corpus, every image and sentence encoded once."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from dataset_scripts.identity import corpus_identity
from dataset_scripts.schema import PRESENT, Reading, Split, UserError, is_generated, load_readings
from egma_evaluation.bootstrap import PatientBootstrap, patient, without_draws
from egma_evaluation.class_retrieval import class_retrieval
from egma_evaluation.corpus_protocols import CorpusProtocol, protocol_of, published_figures, with_no_finding
from egma_evaluation.embeddings import (
    ImageBank,
    ImageTextModel,
    NotFinite,
    Processor,
    Readings,
    TextBank,
    encode_images,
    encode_texts,
    records,
)
from egma_evaluation.fine_tuning import fine_tuning
from egma_evaluation.gaze_agreement import gaze_agreement
from egma_evaluation.grounding import grounding, grounding_targets
from egma_evaluation.linear_probe import SplitLabels, features, linear_probe, probe_labels
from egma_evaluation.pointing import mean_box_centre, pointing_game, pointing_targets
from egma_evaluation.prompts import Prompts, draw_prompts, load_prompts
from egma_evaluation.report import HEADLINE_LABELS, headline, headline_figures
from egma_evaluation.result_figures import draw_figures
from egma_evaluation.retrieval import report_sentences, retrieval
from egma_evaluation.statistics.pairs import holm
from egma_evaluation.statistics.proportions import CONFIDENCE
from egma_evaluation.task_cache import TaskCache
from egma_evaluation.zero_shot import Pooling, zero_shot, zero_shot_classes
from modeling_egma.processing_egma import GAZE_DEFAULTS

PROTOCOL_VERSION = "3"
TASKS = (
    *("zero_shot", "retrieval", "class_retrieval", "pointing_game", "grounding", "gaze_agreement"),
    *("linear_probe", "fine_tuning"),
)
SENTENCE_TASKS = {"retrieval", "grounding", "gaze_agreement"}  # read the reports, not only prompts
TRAINED_TASKS = {"linear_probe", "fine_tuning"}  # train a head on the training split: only when asked for by name


@dataclass(frozen=True)
class Options:
    """What decides the figures beside model and data; see `evaluate_model`."""

    split: Split
    pooling: Pooling
    batch_size: int
    bootstrap: int
    seed: int


def evaluate_model(
    model: ImageTextModel,
    processor: Processor,
    data: str | Path | Readings,
    tasks: Sequence[str] | None = None,
    *,
    split: Split = "test",
    training_rows: Readings | None = None,
    validation_rows: Readings | None = None,
    prompts: Mapping[str, Sequence[str]] | None = None,
    classes: Sequence[str] | None = None,
    prompts_per_class: int | None = None,
    pooling: Pooling = "max",
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
        tasks: of TASKS; None takes all but TRAINED_TASKS and notes the ones that the data do not allow.
        training_rows, validation_rows: rows for the centre-bias baselines and the TRAINED_TASKS when `data` is rows; a
            corpus brings its own.
        prompts: by class name, whose case does not matter; None takes the file of the corpus' protocol if it has one
            (`corpus_protocols`), else the prompt files of the package.
        classes: findings to evaluate; None takes those of the corpus' protocol, else those that have prompts.
        prompts_per_class: draw this many by class name and `seed`; None takes all, or as many as the protocol says.
        bootstrap: draws of the intervals; 0 leaves them out.
        others: further models by name, evaluated on the same rows and compared with the first.
        caches: results of finished tasks, of the model under None and of the others by name.
        figures: folder for the figures of the model.

    Raises:
        UserError: what was asked for and the data or the prompts do not hold.
    """
    _check_numbers(tasks, batch_size, bootstrap)
    options = Options(split, pooling, batch_size, bootstrap, seed)
    corpus = Corpus.read(data, split, training_rows, validation_rows)
    protocol = corpus.protocol
    file = protocol.prompt_file() if prompts is None else None
    candidates = prompts if prompts is not None else (file.classes if file is not None else load_prompts())
    per_class = file.per_class if prompts_per_class is None and file is not None else prompts_per_class
    named = classes if classes is not None else protocol.classes
    chosen = _choose_prompts(corpus.test, candidates, named)
    if per_class is not None:
        chosen = draw_prompts(chosen, per_class, seed)
    resampling = PatientBootstrap(corpus.test, bootstrap, seed)

    def programs(model: ImageTextModel, processor: Processor) -> Tasks:
        return Tasks(model, processor, corpus, chosen, named is not None, options, resampling, tasks)

    caches = caches or {}
    generated = is_generated(data) if isinstance(data, str | Path) else None
    own = programs(model, processor)
    details = own.run(caches.get(None), asked=tasks is not None)
    if figures is not None:
        own.draw(details, figures, caches.get(None), bool(generated))
    score = model.config.zero_shot_score
    results = {
        "protocol_version": PROTOCOL_VERSION,
        "generated": generated,
        **headline(details, score),
        "zero_shot_score": score,
        "bootstrap": {"draws": bootstrap, "seed": seed, "confidence": CONFIDENCE, "unit": "patient"},
        "prompts": "given" if prompts is not None else (protocol.prompts or "the package's"),
        "prompts_per_class": {name: len(used) for name, used in sorted(chosen.items())},
        "data": describe_data(data, corpus.test, split),
        "published": published_figures(corpus.test),
    }
    for name, (other, other_processor) in (others or {}).items():
        found = programs(other, other_processor).run(caches.get(name), asked=False)
        beside = _beside(details, score, found, other.config.zero_shot_score, resampling)
        results.setdefault("baselines", {})[name] = beside
    correct_for_many(results.get("baselines", {}))
    return results | {"details": without_draws(details)}


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


@dataclass(frozen=True)
class Corpus:
    """The rows with images and, sorted and without them, the readings of the three splits."""

    rows: Readings
    test: Sequence[Reading]
    training_rows: Readings | None
    validation_rows: Readings | None

    @classmethod
    def read(
        cls, data: str | Path | Readings, split: Split, training: Readings | None, validation: Readings | None
    ) -> "Corpus":
        if isinstance(data, str | Path):
            rows = load_readings(data, split)
            training, validation = _optional_split(data, "train"), _optional_split(data, "validation")
            data = rows
        return cls(data, _labelled(data), training, validation)

    @property
    def protocol(self) -> CorpusProtocol:
        return protocol_of(self.test)

    @cached_property
    def training(self) -> Sequence[Reading]:
        return [] if self.training_rows is None else _labelled(self.training_rows)

    @cached_property
    def validation(self) -> Sequence[Reading]:
        return [] if self.validation_rows is None else _labelled(self.validation_rows)


def _optional_split(data: str | Path, split: Split) -> Readings | None:
    return load_readings(data, split) if any(Path(data).glob(f"data/{split}-*.parquet")) else None


def _labelled(rows: Readings) -> list[Reading]:
    readings = records(rows)
    target = protocol_of(readings).target
    return readings if target is None else with_no_finding(readings, target)


@dataclass(frozen=True)
class Tasks:
    """Each task by its name, over one model's embeddings, which are made when the first task asks for them.

    `classes_named` is whether the user or the protocol chose the classes.
    """

    model: ImageTextModel
    processor: Processor
    corpus: Corpus
    prompts: Prompts
    classes_named: bool
    options: Options
    bootstrap: PatientBootstrap
    tasks: Sequence[str] | None

    def run(self, cache: TaskCache | None, asked: bool) -> dict[str, Any]:
        """Figures by task; a task that nobody asked for by name may be impossible, and then gives its reason."""
        details: dict[str, Any] = {}
        for name in self.names:
            known = None if cache is None else cache.read(name)
            if known is not None:
                details[name] = known
                continue
            try:
                details[name] = getattr(self, name)()
            except UserError as error:
                if asked or isinstance(error, NotFinite):
                    raise
                details[name] = {"reason": str(error)}
            if cache is not None:
                cache.write(name, details[name])
        if all("reason" in result for result in details.values()):
            raise UserError("; ".join(result["reason"] for result in details.values()))
        return details

    def draw(self, details: Mapping[str, Any], folder: Path, cache: TaskCache | None, generated: bool) -> None:
        """The figures, unless those of a finished run are there."""
        known = None if cache is None else cache.read("figures")
        if known is not None and all((folder / name).is_file() for name in known["files"]):
            return
        files = draw_figures(self, details, folder, generated)
        if cache is not None:
            cache.write("figures", {"files": files})

    @property
    def names(self) -> Sequence[str]:
        return self.tasks or [name for name in TASKS if name not in TRAINED_TASKS]

    @cached_property
    def images(self) -> ImageBank:
        return encode_images(self.model, self.processor, self.corpus.rows, self.options.batch_size)

    @cached_property
    def texts(self) -> TextBank:
        texts = [prompt for used in self.prompts.values() for prompt in used]
        if SENTENCE_TASKS & set(self.names):
            texts += [text for reading in self.corpus.test for text in report_sentences(reading)]
        if not texts:
            raise UserError(
                "nothing to evaluate: the readings hold no sentence, and none of their findings has prompts"
            )
        return encode_texts(self.model, self.processor, texts, self.options.batch_size)

    @cached_property
    def split_labels(self) -> SplitLabels:
        return probe_labels(self.corpus.training, self.corpus.validation, self.corpus.test)

    @property
    def split_rows(self) -> tuple[Readings, Readings, Readings]:
        assert self.split_labels and self.corpus.training_rows is not None and self.corpus.validation_rows is not None
        return self.corpus.training_rows, self.corpus.validation_rows, self.corpus.rows

    def zero_shot(self) -> dict[str, Any]:
        readings = self.corpus.test
        names = list(self.prompts) if self.classes_named else zero_shot_classes(readings, self.prompts)
        prompts = {name: self.prompts[name] for name in names}
        return zero_shot(readings, self.images, self.texts, prompts, self.bootstrap, self.options.pooling)

    def retrieval(self) -> dict[str, Any]:
        return retrieval(self.corpus.test, self.images, self.texts, self.bootstrap)

    def class_retrieval(self) -> dict[str, Any]:
        return class_retrieval(self.corpus.test, self.images, self.texts, self.prompts, self.bootstrap)

    def pointing_game(self) -> dict[str, Any]:
        targets, centre = pointing_targets(self.corpus.test, self.prompts), mean_box_centre(self.corpus.training)
        return pointing_game(targets, self.images, self.texts, centre, self.bootstrap)

    def grounding(self) -> dict[str, Any]:
        targets = grounding_targets(self.corpus.test, self.prompts)
        return grounding(targets, self.images, self.texts, self.corpus.training, self.bootstrap)

    def gaze_agreement(self) -> dict[str, Any]:
        # a processor that draws no gaze leaves the width and the lead to the project's defaults; the result names them
        settings = getattr(self.processor, "gaze_kwargs", GAZE_DEFAULTS)
        training = self.corpus.training
        return gaze_agreement(self.corpus.test, self.images, self.texts, training, **settings, bootstrap=self.bootstrap)

    def linear_probe(self) -> dict[str, Any]:
        size = self.options.batch_size
        train, validation, test = (features(self.model, self.processor, rows, size) for rows in self.split_rows)
        return linear_probe(self.split_labels, (train, validation, test), self.bootstrap, self.options.seed)

    def fine_tuning(self) -> dict[str, Any]:
        options = self.options
        return fine_tuning(
            self.model, self.processor, self.split_labels, self.split_rows, self.bootstrap, options.batch_size,
            options.seed,
        )  # fmt: skip


def describe_data(data: str | Path | Readings, readings: Sequence[Reading], split: Split) -> dict[str, Any]:
    """What was evaluated: counts, and the identity of the corpus, None of rows, by which two runs can be compared."""
    folder = Path(data).resolve() if isinstance(data, str | Path) else None
    return {
        "name": None if folder is None else folder.name,
        "identity": None if folder is None else corpus_identity(folder),
        "split": split,
        "sources": sorted({reading["source"] for reading in readings}),
        "readings": len(readings),
        "images": len({reading["image_id"] for reading in readings}),
        "patients": len({patient(reading) for reading in readings}),
    }


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
