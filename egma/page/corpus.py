"""What the page takes from a converted corpus: examples, a gallery to search, and the centre bias of its readers."""

import base64
import io
import threading
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, cast

import numpy as np
from PIL import Image

from dataset_scripts.corpora.reflacx_tables import CHEST_LABEL
from dataset_scripts.schema import PRESENT, Reading, Recording, Split, UserError, has_split, is_generated, load_readings
from egma.evaluation.protocols.gaze_agreement import GAZE_CELLS, centre_bias
from egma.evaluation.protocols.retrieval import distinct_pairs, embedding_scores, report_sentences
from egma.inference.embeddings import TextBank, Track, encode_images, encode_texts
from egma.inference.geometry import centred_gaussian
from egma.inference.scores import sentence_scores
from egma.page.index import Banks, Index
from egma.page.inputs import MAX_FIXATIONS, MAX_SENTENCES, picture_of
from egma.page.session import PageModel, Session
from egma.page.views import SCORE_TITLES, Json, ordered_scores, picture_id
from egma.tools.arrays import Array

EXAMPLES, EXAMPLE_CANDIDATES = 4, 64
GALLERY_SPLITS: tuple[Split, ...] = ("validation", "test", "train")
MAX_GALLERY, GALLERY_BATCH, MAX_REFERENCES = 400, 16, 64
MAX_CENTRE_RECORDINGS = 300
THUMBNAIL_SIDE, RESULTS = 160, 12
REPORT_TITLES = SCORE_TITLES | {"late_interaction": "late interaction"}


class Corpus:
    """A folder written by `python -m dataset_scripts.build`; splits are opened when they are asked for.

    `index` keeps the gallery's embeddings: `kept_banks` of a folder and a model.
    """

    def __init__(self, folder: Path, index: Index | None = None) -> None:
        self.folder, self.index = folder, index
        self.generated = is_generated(folder)
        self._lock = threading.Lock()
        self._gallery: Gallery | None = None
        self._centre: tuple[Array, str] | None = None
        self._references: TextBank | None = None

    @cached_property
    def examples(self) -> list[Reading]:
        """The first readings of as many images, by their merits; of the test split, if there is one."""
        rows = load_readings(self.folder, first_split(self.folder, "test", "validation", "train"))
        rows = rows.select(range(min(EXAMPLE_CANDIDATES, len(rows))))
        plain = cast(list[Reading], rows.remove_columns("image").to_list())
        fitting = [place for place, reading in enumerate(plain) if 0 < len(reading["sentences"]) <= MAX_SENTENCES]
        fitting.sort(key=lambda place: _merits(plain[place]), reverse=True)
        first = {plain[place]["image_id"]: place for place in reversed(fitting)}
        chosen = [place for place in fitting if first[plain[place]["image_id"]] == place][:EXAMPLES]
        return cast(list[Reading], [rows[place] for place in chosen])

    def centre(self, sigma: float) -> tuple[Array, str]:
        """The centre-bias baseline of the training readings, read by the first who asks, and what it was made of."""
        with self._lock:
            if self._centre is None:
                self._centre = self._read_centre(sigma)
        return self._centre

    def _read_centre(self, sigma: float) -> tuple[Array, str]:
        if not has_split(self.folder, "train"):
            return centre_of(None, sigma)
        rows = load_readings(self.folder, "train").select_columns(["reading_id", "width", "height", "fixations"])
        return centre_bias(rows.select(range(min(len(rows), MAX_CENTRE_RECORDINGS))).to_list(), sigma)

    def references(self, model: PageModel) -> TextBank:
        """Distinct sentences of the gallery's split, encoded by the first who asks: what a sentence is ranked among."""
        with self._lock:
            if self._references is None:
                split = first_split(self.folder, *GALLERY_SPLITS)
                readings = load_readings(self.folder, split).select_columns(["sentences"]).to_list()
                said = dict.fromkeys(one["text"] for reading in readings for one in reading["sentences"])
                texts = list(said)[:MAX_REFERENCES]
                self._references = encode_texts(model.model, model.processor, texts, GALLERY_BATCH)
        return self._references

    def gallery(self, model: PageModel, track: Track) -> "Gallery":
        """The validation split, if there is one, encoded by the first who asks."""
        with self._lock:
            if self._gallery is None:
                split = first_split(self.folder, *GALLERY_SPLITS)
                self._gallery = Gallery(self.folder, split, model, track, self.index)
        return self._gallery


def first_split(folder: Path, *wanted: Split) -> Split:
    """The first of the splits that the corpus has; where it has none of them, the first, which opening will name."""
    return next((split for split in wanted if has_split(folder, split)), wanted[0])


def _merits(reading: Reading) -> tuple[bool, ...]:
    """What makes a good example: gaze to play back while sentences are said, a finding, a frame of the lungs."""
    present = any(finding["value"] == PRESENT for finding in reading["findings"])
    return _plays(reading), present, any(box["label"] == CHEST_LABEL for box in reading["boxes"])


def _plays(reading: Reading) -> bool:
    fixations = reading["fixations"]
    timed = any(sentence["start_seconds"] is not None for sentence in reading["sentences"])
    return timed and fixations is not None and 0 < len(fixations["x"] or ()) <= MAX_FIXATIONS


def example_recording(reading: Reading) -> Recording | None:
    """The gaze and the timed sentences of an example, None where it has no gaze."""
    fixations = reading["fixations"]
    if not fixations or not fixations["x"]:
        return None
    return Recording(reading["sentences"], fixations, reading["findings"], reading["boxes"])


def centre_of(corpus: Corpus | None, sigma: float) -> tuple[Array, str]:
    """The centre-bias baseline of a corpus, or of none, and what it was made of."""
    if corpus is None:
        return centred_gaussian(GAZE_CELLS), "centred Gaussian"
    return corpus.centre(sigma)


class Gallery:
    """Pictures and reports of a split, one reading an image and a text, encoded once; the first MAX_GALLERY."""

    def __init__(self, folder: Path, split: Split, model: PageModel, track: Track, index: Index | None = None) -> None:
        rows = load_readings(folder, split)
        plain = cast(list[Reading], rows.remove_columns("image").to_list())
        places = {reading["reading_id"]: place for place, reading in enumerate(plain)}
        pairs = distinct_pairs(plain)
        self.readings = pairs[:MAX_GALLERY]
        if not self.readings:
            raise UserError(f"The {split} split has no reading with an image and a report to search.")
        self.left_out = len(pairs) - len(self.readings)
        self.split = split
        self.rows, self.places = rows, [places[reading["reading_id"]] for reading in self.readings]
        self.generated = is_generated(folder)
        sentences = {text for reading in self.readings for text in report_sentences(reading)}
        pictures, using = rows.select(self.places), (model.model, model.processor)

        def encode() -> Banks:
            images = encode_images(*using, pictures, GALLERY_BATCH, track)
            return images, encode_texts(*using, sentences, GALLERY_BATCH, track)

        self.images, self.texts = index(pictures, sentences, encode) if index else encode()

    def find_images(self, model: PageModel, session: Session, sentences: Sequence[str]) -> Json:
        """The pictures that fit a text best, best first; of several sentences the mean counts."""
        scores = sentence_scores(self.images, model.text_bank(session, sentences), sentences)
        places = self.images.places(self.readings)
        means = {kind: values[places].mean(axis=1) for kind, values in scores.items()}
        return self._results(model, means, SCORE_TITLES) | {"query": "\n".join(sentences)}

    def find_reports(self, model: PageModel, session: Session) -> Json:
        """The reports that fit the session's picture best, best first."""
        reports = [self.texts.of(report_sentences(reading)) for reading in self.readings]
        image = model.image_bank(session)
        scores = embedding_scores(image.pooled, image.patches, reports)
        found = self._results(model, {kind: values[0] for kind, values in scores.items()}, REPORT_TITLES)
        return found | {"picture": picture_id(session.picture)}

    def reading(self, place: object) -> Reading:
        """The reading of a result by its `place`, with its image; raises UserError where there is none."""
        if type(place) is not int or not 0 <= place < len(self.places):
            raise UserError("There is no such result.")
        return cast(Reading, self.rows[self.places[place]])

    def _results(self, model: PageModel, scores: dict[str, Array], titles: dict[str, str]) -> Json:
        order = np.argsort(-scores[model.score], kind="stable")[:RESULTS]
        count = len(self.readings)
        counted = f"the first {count} of {count + self.left_out}" if self.left_out else f"all {count}"
        note = f"Among {counted} readings of the {self.split} split"
        note += ", generated: no patient exists" if self.generated else ""
        items = [
            self._item(int(place)) | {"scores": ordered_scores(model, {k: v[place] for k, v in scores.items()}, titles)}
            for place in order
        ]
        return {"items": items, "note": note}

    def _item(self, place: int) -> Json:
        reading = self.readings[place]
        return {
            "place": place,
            "src": thumbnail(self.rows[self.places[place]]["image"]),
            "report": " ".join(report_sentences(reading)),
            "findings": [finding["name"] for finding in reading["findings"] if finding["value"] == PRESENT],
        }


def thumbnail(image: Image.Image) -> str:
    """A small copy as a data address."""
    small = image.convert("L")
    small.thumbnail((THUMBNAIL_SIDE, THUMBNAIL_SIDE))
    buffer = io.BytesIO()
    small.save(buffer, "JPEG", quality=85)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def examples_view(readings: Sequence[Reading]) -> Json:
    """Thumbnails of the examples, with the findings of each in words."""
    return {
        "items": [
            {
                "src": thumbnail(cast(Any, reading["image"])),
                "text": _caption(reading),
                "picture": picture_id(picture_of(reading)),
            }
            for reading in readings
        ]
    }


def _caption(reading: Reading) -> str:
    present = [finding["name"] for finding in reading["findings"] if finding["value"] == PRESENT]
    return ", ".join(present) or "no finding marked"
