"""Every task by its name, over one model's embeddings of one corpus."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from dataset_scripts.schema import Reading, Split, UserError
from egma.evaluation.corpus import Corpus
from egma.evaluation.protocols.blind_baselines import MeanMaps, plain_text
from egma.evaluation.protocols.class_retrieval import class_retrieval
from egma.evaluation.protocols.decisions import decisions
from egma.evaluation.protocols.edited_prompts import edited_prompts, edited_sentences
from egma.evaluation.protocols.fine_tuning import fine_tuning
from egma.evaluation.protocols.gaze_agreement import GazeCorpus, gaze_agreement, gaze_corpus, mean_gaze
from egma.evaluation.protocols.grounding import GroundingCorpus, grounding, grounding_corpus, grounding_targets
from egma.evaluation.protocols.linear_probe import SplitLabels, features, frontal, linear_probe, probe_labels
from egma.evaluation.protocols.pointing import pointing_game, pointing_targets
from egma.evaluation.protocols.prompt_sensitivity import prompt_sensitivity
from egma.evaluation.protocols.retrieval import distinct_pairs, report_scores, report_sentences, retrieval
from egma.evaluation.protocols.subgroups import Part, by_group, hits, recalls
from egma.evaluation.protocols.variants import Variant, filled
from egma.evaluation.protocols.zero_shot import Labels, finding_labels, zero_shot, zero_shot_classes
from egma.evaluation.reporting.report import decided
from egma.evaluation.reporting.result_plots import (
    TSNE_SMALLEST,
    confusion_figure,
    reliability_figure,
    retrieval_figure,
    roc_figure,
    tsne_figure,
)
from egma.evaluation.statistics.bootstrap import PatientBootstrap
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
)
from egma.inference.prompts import Prompts
from egma.inference.scores import Pooling, sentence_scores
from egma.tools.arrays import Array
from modeling_egma import EgmaModel
from modeling_egma.processing_egma import GAZE_DEFAULTS

TASKS = (
    *("zero_shot", "decisions", "prompt_sensitivity", "retrieval", "class_retrieval"),
    *("pointing_game", "grounding", "gaze_agreement"),
    *("edited_prompts", "linear_probe", "fine_tuning"),
)
SENTENCE_TASKS = {"retrieval", "grounding", "gaze_agreement"}  # read the reports, not only prompts
# only when asked for by name: training on the training split, and sentences beside the prompts
NAMED_TASKS = {"linear_probe", "fine_tuning", "edited_prompts"}


@dataclass(frozen=True)
class Options:
    """What decides the figures beside model and data; see `evaluate_model`."""

    split: Split
    pooling: Pooling
    batch_size: int
    bootstrap: int
    seed: int
    variant: Variant
    laterals: bool
    groups: tuple[str, ...] = ()


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
    output: Path | None = None

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
            prompts = self.zero_shot_prompts
            labels, scores = self.class_scores(self.corpus.test, self.images)
            plots["roc.png"] = roc_figure(labels, scores, generated)
            if len(labels.single()) and len(prompts) > 1:
                plots["confusion.png"] = confusion_figure(labels, scores, generated)
            if len(self.images.place) >= TSNE_SMALLEST:
                plots["tsne.png"] = tsne_figure(self.images, labels, generated)
        if fits := {title: of["fits"] for title, of in decided(details).items() if of["fits"]}:
            plots["reliability.png"] = reliability_figure(fits, generated)
        if "candidates" in details.get("retrieval", {}):
            pairs = distinct_pairs(self.corpus.test)
            scores = report_scores(pairs, self.images, self.texts)[score]
            plots["retrieval.png"] = retrieval_figure(
                pairs, Images(self.processor, self.corpus.rows), scores, generated
            )
        return plots

    @property
    def names(self) -> Sequence[str]:
        names = self.tasks or [name for name in TASKS if name not in NAMED_TASKS]
        return [*names, *(["subgroups"] if self.options.groups else [])]

    @cached_property
    def images(self) -> ImageBank:
        return encode_images(self.model, self.processor, self.corpus.rows, self.options.batch_size)

    @cached_property
    def texts(self) -> TextBank:
        against = filled(self.options.variant.negative, self.prompts)
        texts = [prompt for used in (*self.prompts.values(), *against.values()) for prompt in used]
        if SENTENCE_TASKS & set(self.names):
            texts += [text for reading in self.corpus.test for text in report_sentences(reading)]
        if "edited_prompts" in self.names:
            twins = edited_sentences(self.prompts).values()
            texts += [sentence for of_kind in twins for both in of_kind.values() for sentence in both]
        if not texts:
            raise UserError(
                "nothing to evaluate: the readings hold no sentence, and none of their findings has prompts"
            )
        return encode_texts(self.model, self.processor, texts, self.options.batch_size)

    @cached_property
    def split_labels(self) -> SplitLabels:
        splits = (self.corpus.training, self.corpus.validation, self.corpus.test)
        return probe_labels(*(splits if self.options.laterals else map(frontal, splits)))

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

    @cached_property
    def zero_shot_prompts(self) -> Prompts:
        known = self.class_prompts
        names = known if self.classes_named else zero_shot_classes(self.corpus.test, known)
        return {name: known[name] for name in sorted(names)}

    def class_scores(self, readings: Sequence[Reading], images: ImageBank) -> tuple[Labels, Array]:
        """By the headline's score."""
        prompts, of = self.zero_shot_prompts, self.options
        scores = of.variant.class_scores(images, self.texts, prompts, of.pooling)[self.model.config.zero_shot_score]
        return finding_labels(readings, list(prompts)), scores[images.places(readings)]

    def zero_shot(self) -> dict[str, Any]:
        prompts, of = self.zero_shot_prompts, self.options
        return zero_shot(self.corpus.test, self.images, self.texts, prompts, self.bootstrap, of.pooling, of.variant)

    def decisions(self) -> dict[str, Any]:
        if self.options.variant.is_standardised:
            raise UserError(
                "decisions: scores that are standardised over the test set take no fit of validation scores"
            )
        corpus, held = self.corpus, self.corpus.undecided
        if held is None:
            rows = corpus.validation_rows or []
            images = encode_images(self.model, self.processor, rows, self.options.batch_size)
        scores = held or self.class_scores(corpus.validation, images)
        return decisions(*self.class_scores(corpus.test, self.images), scores, self.bootstrap)

    def prompt_sensitivity(self) -> dict[str, Any]:
        readings, prompts, score = self.corpus.test, self.zero_shot_prompts, self.model.config.zero_shot_score
        places, of = self.images.places(readings), self.options
        scores = {
            name: sentence_scores(self.images, self.texts, sorted(used))[score][places]
            for name, used in prompts.items()
        }
        return prompt_sensitivity(finding_labels(readings, list(prompts)), scores, self.bootstrap, of.pooling, of.seed)

    def subgroups(self) -> dict[str, Any]:
        """By group the figures of the headline's score that the named tasks and the data allow."""
        readings, score = self.corpus.test, self.model.config.zero_shot_score
        makers: dict[str, Callable[[], Part]] = {
            "zero_shot": lambda: Part(readings, self.class_scores(readings, self.images)[1], [*self.zero_shot_prompts]),
            "pointing_game": lambda: hits(pointing_targets(readings, self.prompts), self.images, self.texts),
            "retrieval": lambda: recalls(readings, self.images, self.texts, score),
        }
        parts = dict[str, Part]()
        for task in (task for task in makers if task in self.names):
            with suppress(UserError):
                parts[task] = makers[task]()
        if not parts:
            raise UserError(f"subgroups: one of {', '.join(makers)} is needed, and none gives a figure here")
        return {"groups": by_group(self.options.groups, readings, parts, self.bootstrap)}

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
        return grounding(found, self.images, self.texts, self.bootstrap, self.options.variant)

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

    def edited_prompts(self) -> dict[str, Any]:
        return edited_prompts(self.corpus.test, self.images, self.texts, self.prompts, self.bootstrap)

    def linear_probe(self) -> dict[str, Any]:
        size = self.options.batch_size
        train, validation, test = (features(self.model, self.processor, rows, size) for rows in self.split_rows)
        return linear_probe(self.split_labels, (train, validation, test), self.bootstrap, self.options.seed)

    def fine_tuning(self) -> dict[str, Any]:
        options = self.options
        return fine_tuning(
            self.model, self.processor, self.split_labels, self.split_rows, self.bootstrap, options.batch_size,
            options.seed, self.output and self.output / "classifier",
        )  # fmt: skip
