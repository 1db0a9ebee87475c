"""What the page shows of a session, as the JSON that `static/` draws; every map is on the patch grid of the frame."""

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dataset_scripts.schema import ABSENT, PRESENT, UNCERTAIN, Fixations, Reading, Sentence, sentence_span
from egma.evaluation.protocols.gaze_agreement import (
    GAZE_CELLS,
    Columns,
    Truth,
    agreement,
    counted,
    drawn,
    during,
    recording_of,
)
from egma.inference.embeddings import TextBank
from egma.inference.geometry import image_maps
from egma.inference.scores import sentence_scores
from egma.page.inputs import Picture, png_address
from egma.page.session import PageModel, Session, reading_of
from egma.tools.arrays import Array
from modeling_egma.gaze_egma import gaze_matrix, sentence_windows, square_frame, transform_fixations

MAP_DECIMALS, SCORE_DECIMALS = 4, 3
SCORE_TITLES = {"pooled": "whole image", "late_interaction": "best patch", "cabs": "patches that the sentence weighs"}
MARKED: dict[int | None, str] = {PRESENT: "present", ABSENT: "absent", UNCERTAIN: "uncertain"}
SHOWN_METRICS = ("nss", "cc")

Json = dict[str, Any]


def picture_view(picture: Picture | None) -> Json | None:
    """The picture itself, which the other views name by its `id`."""
    if picture is None:
        return None
    return {
        "id": picture_id(picture),
        "src": png_address(picture.png),
        "depth": picture.depth and picture.depth._asdict() | {"png": png_address(picture.depth.png)},
        "width": picture.width,
        "height": picture.height,
        "chest": picture.chest,
    }


def picture_id(picture: Picture | None) -> str | None:
    """The same for the same picture."""
    return None if picture is None else hashlib.sha256(picture.png).hexdigest()[:16]


def align_view(model: PageModel, session: Session, references: TextBank | None = None) -> Json:
    """Every sentence of the report with its scores and its map.

    Args:
        references: sentences of a corpus, among which each of the report is ranked on this picture.

    Returns:
        `picture`, `model`, `grid`, `note`, and `lines`: `text`, `scores` (by `SCORE_TITLES`, the model's own first),
        `map`, and with references `rank`: its `place`, from 1, by the model's own score, `of` as many sentences.
    """
    lines = _lines(model, session, session.report, references)
    cut = [str(place) for place, is_cut in enumerate(model.cut(session.report), 1) if is_cut]
    note = f"Longer than the model reads, and cut: sentence {', '.join(cut)}." if cut else ""
    return _shown(model, session) | {"lines": lines, "note": note}


def _shown(model: PageModel, session: Session) -> Json:
    return {"picture": picture_id(session.picture), "model": model.name, "grid": model.grid}


def _rank(own: float, text: str, others: dict[str, float]) -> Json:
    """The place of a sentence's score among those of other sentences and its own."""
    higher = [score > own for other, score in others.items() if other != text]
    return {"place": 1 + int(sum(higher)), "of": 1 + len(higher)}


def classify_view(
    model: PageModel, session: Session, prompts: dict[str, list[str]], references: TextBank | None = None
) -> Json:
    """Every finding with the score of its best prompt, of either kind, best finding first.

    A line's `text` is the finding, `detail` the prompt that won by the model's own score, `map` that prompt's, `marked`
    what the corpus' labels say of it on this picture, `bar` what `bar_shares` makes of the model's own score.

    Args:
        references: sentences of a corpus, whose scores on this picture are the bars' reference; None: the findings'.
    """
    texts = list(dict.fromkeys(prompt for of_finding in prompts.values() for prompt in of_finding))
    images, bank = model.image_bank(session), model.text_bank(session, texts)
    scores = {kind: dict(zip(texts, row[0], strict=True)) for kind, row in sentence_scores(images, bank, texts).items()}
    best = {name: max(of_finding, key=scores[model.score].__getitem__) for name, of_finding in prompts.items()}
    maps = dict(zip(best, model.maps(session, list(best.values())), strict=True))
    own = np.array([scores[model.score][prompt] for prompt in best.values()])
    others = sentence_scores(images, references, list(references.place))[model.score][0] if references else own
    said = {} if session.picture is None else {one["name"].lower(): one["value"] for one in session.picture.findings}
    lines: list[Json] = [
        {
            "text": name,
            "detail": f"{best[name]} (won of {len(of_finding)})" if len(of_finding) > 1 else best[name],
            "marked": MARKED.get(said.get(name.lower())),
            "scores": ordered_scores(
                model, {kind: max(map(values.__getitem__, of_finding)) for kind, values in scores.items()}
            ),
            "bar": round(float(bar), SCORE_DECIMALS),
            "map": rounded_map(maps[name]),
        }
        for (name, of_finding), bar in zip(prompts.items(), bar_shares(own, others), strict=True)
    ]
    lines.sort(key=lambda line: -line["scores"][0]["value"])
    among = "these findings" if references is None else f"{len(references.place)} sentences of the corpus"
    note = f"A bar begins at the median score of {among} on this image; what scores less has none."
    if len({len(of_finding) for of_finding in prompts.values()}) > 1:
        note += " Findings with more prompts have more chances: a class scores as its best prompt does."
    return _shown(model, session) | {"lines": lines, "note": note}


def bar_shares(values: Array, references: Array) -> Array:
    """How far each value lies above the median of `references`, 0 to 1: of the way to the highest of both."""
    start, end = np.median(references), max(references.max(), values.max())
    return np.asarray(np.clip((values - start) / (end - start if end > start else 1), 0, 1))


def _lines(
    model: PageModel, session: Session, sentences: Sequence[str], references: TextBank | None = None
) -> list[Json]:
    images = model.image_bank(session)
    if not sentences:
        return []
    scores = sentence_scores(images, model.text_bank(session, sentences), sentences)
    maps = model.maps(session, sentences)
    texts = list(references.place) if references else []
    others = (
        dict(zip(texts, sentence_scores(images, references, texts)[model.score][0], strict=True)) if references else {}
    )
    return [
        {
            "text": text,
            "scores": ordered_scores(model, {kind: values[0, place] for kind, values in scores.items()}),
            "map": rounded_map(maps[place]),
        }
        | ({"rank": _rank(scores[model.score][0, place], text, others)} if others else {})
        for place, text in enumerate(sentences)
    ]


def ordered_scores(model: PageModel, values: dict[str, Any], titles: dict[str, str] = SCORE_TITLES) -> list[Json]:
    """The model's own score first."""
    kinds = sorted(values, key=lambda kind: kind != model.score)
    return [{"title": titles[kind], "value": round(float(values[kind]), SCORE_DECIMALS)} for kind in kinds]


def rounded_map(values: Tensor | Array) -> list[float]:
    """(G, G) row by row."""
    return [round(float(value), MAP_DECIMALS) for value in np.asarray(values).ravel()]


def gaze_view(model: PageModel, session: Session, centre: Array, centre_source: str) -> Json:
    """A recording to play back, and beside it the model's map and their agreement, sentence by sentence.

    The agreement is that of `egma.evaluation.protocols.gaze_agreement`, of the fixations in the sentence's window.

    Args:
        centre: (GAZE_CELLS, GAZE_CELLS) the centre-bias baseline, and what it was made of.

    Returns:
        `fixations` (the schema's columns), `sentences` with `start`, `end`, `window` (start and end in seconds of what
        counts, or None), `map`, `gaze_map`, `agreement` of `model` and `centre` by metric, or the `reason` why there is
        none.
    """
    recording = session.recording
    shown = _shown(model, session) | {"sentences": [], "fixations": None}
    if session.picture is None or recording is None or recording.fixations is None:
        return shown | {"note": "No recording yet: choose an example, upload one, or make one under Record."}
    spoken = recording.sentences or [Sentence(text=t, start_seconds=None, end_seconds=None) for t in session.report]
    reading = reading_of(session, spoken)
    columns = recording_of(reading, model.sigma)
    maps = model.maps(session, [sentence["text"] for sentence in spoken]) if spoken else torch.zeros(0)
    fixations: Json = dict(recording.fixations)
    lead_seconds = 0.0 if session.by_mouse else model.lead_seconds
    looked = gaze_grids(model, recording.fixations, spoken, reading, lead_seconds)
    return shown | {
        "fixations": {name: [round(value, 4) for value in fixations[name]] for name in ("x", "y", "start", "duration")},
        "sentences": [
            _spoken_view(sentence, np.asarray(own), window(sentence, columns, lead_seconds), reading, centre, seen)
            | {"window": _window_seconds(sentence, lead_seconds)}
            for sentence, own, seen in zip(spoken, maps, looked, strict=True)
        ],
        "centre_source": centre_source,
        "lead_seconds": lead_seconds,
        "note": "; ".join(session.notes),
    }


def window(sentence: Sentence, recording: Columns | None, lead_seconds: float) -> Columns | str:
    """The fixations of the time in which a sentence was said, earlier by the lead; or why there are none."""
    if recording is None:
        return "no fixation lies on the image"
    seconds = _window_seconds(sentence, lead_seconds)
    if seconds is None:
        return "the sentence is untimed"
    part = during(recording, np.array(seconds))
    return part if len(part["x"]) else "no fixation in its window"


def _window_seconds(sentence: Sentence, lead_seconds: float) -> list[float] | None:
    seconds = sentence_windows([sentence_span(sentence)], lead_seconds)[0]
    return None if seconds.isnan().any() else [float(moment) for moment in seconds]


def _spoken_view(
    sentence: Sentence, own_map: Array, looked_at: Columns | str, reading: Reading, centre: Array, gaze_map: Tensor
) -> Json:
    times = {"start": sentence["start_seconds"], "end": sentence["end_seconds"]}
    shown: Json = {"text": sentence["text"], "map": rounded_map(own_map), **times}
    if isinstance(looked_at, str):
        return shown | {"reason": looked_at}
    truth = Truth(drawn([looked_at]), counted([looked_at]), None)
    predictions = {"model": image_maps(own_map[None], [reading], GAZE_CELLS), "centre": centre[None]}
    values = {name: agreement(prediction, truth) for name, prediction in predictions.items()}
    return shown | {
        "agreement": {
            name: {metric: round(float(of_one[metric][0]), 2) for metric in SHOWN_METRICS}
            for name, of_one in values.items()
        },
        "gaze_map": rounded_map(gaze_map),
    }


def gaze_grids(
    model: PageModel, fixations: Fixations, sentences: Sequence[Sentence], reading: Reading, lead_seconds: float
) -> Tensor:
    """(m, G, G) the gaze matrix of a recording on the model's frame, as training has it."""
    moved = transform_fixations(fixations, square_frame(reading["width"], reading["height"]))
    spans = [sentence_span(sentence) for sentence in sentences]
    return gaze_matrix(moved, spans, model.grid, model.sigma, lead_seconds)
