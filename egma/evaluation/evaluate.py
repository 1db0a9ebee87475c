"""`evaluate_model`: all protocols on one split of a converted corpus, every image and sentence encoded once."""

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from dataset_scripts.identity import corpus_identity
from dataset_scripts.schema import PRESENT, Reading, Split, UserError, is_generated, load_readings
from egma.evaluation.protocols.blind_baselines import MeanMaps, mean_boxes, plain_text
from egma.evaluation.protocols.class_retrieval import class_retrieval
from egma.evaluation.protocols.fine_tuning import fine_tuning
from egma.evaluation.protocols.gaze_agreement import GazeCorpus, gaze_agreement, gaze_corpus, mean_gaze
from egma.evaluation.protocols.grounding import GroundingCorpus, grounding, grounding_corpus, grounding_targets
from egma.evaluation.protocols.linear_probe import SplitLabels, features, linear_probe, probe_labels
from egma.evaluation.protocols.pointing import pointing_game, pointing_targets
from egma.evaluation.protocols.published import CorpusProtocol, few_positives, protocol_of, published_figures
from egma.evaluation.protocols.retrieval import distinct_pairs, report_scores, report_sentences, retrieval
from egma.evaluation.protocols.zero_shot import finding_labels, zero_shot, zero_shot_classes
from egma.evaluation.reporting.report import HEADLINE_LABELS, headline, headline_figures
from egma.evaluation.reporting.result_plots import (
    TSNE_SMALLEST,
    confusion_figure,
    retrieval_figure,
    roc_figure,
    tsne_figure,
)
from egma.evaluation.statistics.bootstrap import PatientBootstrap, patient, without_draws
from egma.evaluation.statistics.pairs import holm
from egma.evaluation.statistics.proportions import CONFIDENCE
from egma.evaluation.task_cache import TaskCache
from egma.figures.example_sentences import gallery_rows
from egma.figures.finish import DOTS_PER_INCH
from egma.figures.heat_maps import heatmap_gallery
from egma.inference.embeddings import (
    ImageBank,
    Images,
    ImageTextModel,
    NotFinite,
    Processor,
    Readings,
    TextBank,
    encode_images,
    encode_texts,
    records,
)
from egma.inference.prompts import Prompts, draw_prompts, load_prompts
from egma.inference.scores import Pooling, class_scores
from modeling_egma import EgmaModel
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
        training_rows, validation_rows: rows for the blind baselines and the TRAINED_TASKS when `data` is rows; a
            corpus brings its own.
        prompts: by class name, whose case does not matter; None takes the file of the corpus' protocol if it has one
            (`published`), else the prompt files of the package.
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
    named = classes if classes is not None else protocol.classes
    chosen = _prompts_of(corpus, prompts, named, prompts_per_class, seed)
    least = 0 if named is not None else protocol.distinct.least_positives
    few = few_positives(corpus.test, list(chosen), least)
    resampling = PatientBootstrap(corpus.test, bootstrap, seed)

    def programs(model: ImageTextModel, processor: Processor) -> Tasks:
        return Tasks(model, processor, corpus, chosen, named is not None, few, options, resampling, tasks)

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
        "classes_left_out": {"least_positives": least, "positive_images": few},
        "data": describe_data(data, corpus.test, split),
        "published": published_figures(corpus.test),
    }
    for name, (other, other_processor) in (others or {}).items():
        found = programs(other, other_processor).run(caches.get(name), asked=False)
        beside = _beside(details, score, found, other.config.zero_shot_score, resampling)
        results.setdefault("baselines", {})[name] = beside
    correct_for_many(results.get("baselines", {}))
    return results | {"details": without_draws(details)}


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


@dataclass(frozen=True)
class Corpus:
    """The rows with images and, sorted and without them, the readings of the three splits."""

    rows: Readings
    test: Sequence[Reading]
    training_rows: Readings | None
    validation_rows: Readings | None
    made: dict[Hashable, Any] = field(default_factory=dict, repr=False)

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
    def boxes(self) -> MeanMaps:
        return mean_boxes(self.training)

    def once(self, name: Hashable, make: Callable[[], Any]) -> Any:
        """What no model changes, from the first model that asks for it."""
        if name not in self.made:
            self.made[name] = make()
        return self.made[name]

    @cached_property
    def validation(self) -> Sequence[Reading]:
        return [] if self.validation_rows is None else _labelled(self.validation_rows)


def _optional_split(data: str | Path, split: Split) -> Readings | None:
    return load_readings(data, split) if any(Path(data).glob(f"data/{split}-*.parquet")) else None


def _labelled(rows: Readings) -> list[Reading]:
    readings = records(rows)
    return protocol_of(readings).apply(readings)


@dataclass(frozen=True)
class Tasks:
    """Each task by its name, over one model's embeddings, which are made when the first task asks for them.

    `classes_named` is whether the user or the protocol chose the classes; `few` are those that too few images show for
    classification, with their number.
    """

    model: ImageTextModel
    processor: Processor
    corpus: Corpus
    prompts: Prompts
    classes_named: bool
    few: Mapping[str, int]
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
        folder.mkdir(parents=True, exist_ok=True)
        drawn = self._plots(details, generated)
        for name, figure in drawn.items():
            figure.savefig(folder / name, dpi=DOTS_PER_INCH)
        files = list(drawn)
        if isinstance(self.model, EgmaModel) and (rows := gallery_rows(self.model, self.processor, self.corpus.rows)):
            heatmap_gallery(rows, folder / "heat_maps.png", generated)
            files.append("heat_maps.png")
        if cache is not None:
            cache.write("figures", {"files": files})

    def _plots(self, details: Mapping[str, Any], generated: bool) -> dict[str, Figure]:
        """What the finished tasks allow, by the files' names."""
        score, plots = self.model.config.zero_shot_score, dict[str, Figure]()
        if "classes" in details.get("zero_shot", {}):
            prompts = {name: self.prompts[name] for name in details["zero_shot"]["classes"]}
            labels = finding_labels(self.corpus.test, list(prompts))
            scores = class_scores(self.images, self.texts, prompts, self.options.pooling)[score]
            scores = scores[self.images.places(self.corpus.test)]
            plots["roc.png"] = roc_figure(labels, scores, generated)
            if len(labels.single()) and len(prompts) > 1:
                plots["confusion.png"] = confusion_figure(labels, scores, generated)
            if len(self.images.place) >= TSNE_SMALLEST:
                plots["tsne.png"] = tsne_figure(self.images, labels, generated)
        if "candidates" in details.get("retrieval", {}):
            pairs = distinct_pairs(self.corpus.test)
            scores = report_scores(pairs, self.images, self.texts)[score]
            plots["retrieval.png"] = retrieval_figure(
                pairs, Images(self.processor, self.corpus.rows), scores, generated
            )
        return plots

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

    @property
    def class_prompts(self) -> Prompts:
        """Prompts of the classes that enough images show."""
        if self.few and len(self.few) == len(self.prompts):
            counts = ", ".join(f"{name} {count}" for name, count in self.few.items())
            raise UserError(f"no class has as many positive images as the corpus' protocol asks for; they are {counts}")
        return {name: prompts for name, prompts in self.prompts.items() if name not in self.few}

    def zero_shot(self) -> dict[str, Any]:
        readings, known = self.corpus.test, self.class_prompts
        names = list(known) if self.classes_named else zero_shot_classes(readings, known)
        prompts = {name: known[name] for name in names}
        return zero_shot(readings, self.images, self.texts, prompts, self.bootstrap, self.options.pooling)

    def retrieval(self) -> dict[str, Any]:
        return retrieval(self.corpus.test, self.images, self.texts, self.bootstrap)

    def class_retrieval(self) -> dict[str, Any]:
        corpus = self.corpus
        return class_retrieval(
            corpus.test, self.images, self.texts, self.class_prompts, self.bootstrap, corpus.training
        )

    def pointing_game(self) -> dict[str, Any]:
        targets = pointing_targets(self.corpus.test, self.prompts)
        return pointing_game(targets, self.images, self.texts, self.corpus.boxes, self.bootstrap)

    def grounding(self) -> dict[str, Any]:
        corpus = self.corpus

        def blind() -> GroundingCorpus:
            return grounding_corpus(grounding_targets(corpus.test, self.prompts), corpus.boxes, self.mean_gaze)

        found: GroundingCorpus = corpus.once(("grounding", *self.gaze_settings), blind)
        return grounding(found, self.images, self.texts, self.bootstrap)

    def gaze_agreement(self) -> dict[str, Any]:
        corpus, settings = self.corpus, self.gaze_settings

        def blind() -> GazeCorpus:
            return gaze_corpus(corpus.test, corpus.training, corpus.boxes, self.mean_gaze, *settings)

        found: GazeCorpus = corpus.once(("gaze_agreement", *settings), blind)
        return gaze_agreement(found, self.images, self.texts, self.bootstrap)

    @property
    def mean_gaze(self) -> MeanMaps:
        """Of the training split, and of every text that a map is asked for."""
        texts = [prompt for used in self.prompts.values() for prompt in used]
        texts += [text for reading in self.corpus.test for text in report_sentences(reading)]

        def blind() -> MeanMaps:
            return mean_gaze(self.corpus.training, *self.gaze_settings, set(map(plain_text, texts)))

        found: MeanMaps = self.corpus.once(("mean_gaze", *self.gaze_settings), blind)
        return found

    @property
    def gaze_settings(self) -> tuple[float, float]:
        """Width and lead; a processor that draws no gaze leaves them to the project's defaults."""
        settings = getattr(self.processor, "gaze_kwargs", GAZE_DEFAULTS)
        return settings["sigma"], settings["lead"]

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
