"""What the page shows is what the package says, by another way."""

import json
import shutil
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import pipeline

from dataset_scripts.schema import Recording, UserError, load_readings
from egma.evaluation.protocols.blind_baselines import mean_boxes
from egma.evaluation.protocols.gaze_agreement import gaze_agreement, gaze_corpus, mean_gaze
from egma.evaluation.protocols.retrieval import distinct_pairs, report_scores
from egma.evaluation.statistics.bootstrap import PatientBootstrap
from egma.inference.embeddings import encode_images, encode_texts, records
from egma.page.corpus import Corpus, Gallery, centre_of, example_recording
from egma.page.inputs import Picture, picture_of
from egma.page.session import PageModel, Session, Sessions
from egma.page.views import SCORE_TITLES, align_view, bar_shares, classify_view, gaze_view, picture_view
from modeling_egma import EgmaModel, EgmaProcessor
from tests.egma.page.hostile import encoded, noise
from tests.egma.page.serving import page_model


def untracked(steps: Iterable[Any], desc: str) -> Iterable[Any]:
    return steps


SENTENCES = ["no pleural effusion", "the heart is normal", "left lower lobe opacity"]


@pytest.fixture
def model(tiny_model: EgmaModel, processor: EgmaProcessor) -> PageModel:
    return page_model(tiny_model, processor)


@pytest.fixture
def session() -> Session:
    session = Session(report=SENTENCES)
    session.show(Picture("wide", encoded(noise(90, 60), "PNG"), 90, 60))
    return session


def test_lines_have_the_scores_and_maps_of_the_grounding_pipeline(model: PageModel, session: Session) -> None:
    shown = align_view(model, session)
    ground = pipeline(
        "egma-grounding", model=model.model, processor=model.processor, tokenizer=model.processor.tokenizer
    )
    assert session.picture is not None
    found = ground(session.picture.image, SENTENCES)
    maps = torch.tensor([line["map"] for line in shown["lines"]]).view(1, len(SENTENCES), shown["grid"], shown["grid"])
    sized = model.processor.post_process_similarity_map(maps, [(60, 90)])[0].numpy()
    for line, expected, heat in zip(shown["lines"], found, sized, strict=True):
        assert line["text"] == expected["sentence"]
        assert line["scores"][0]["value"] == pytest.approx(expected["score"], abs=1e-3)
        assert np.allclose(heat, expected["heat_map"], atol=1e-3)


@pytest.mark.parametrize("score", ["pooled", "late_interaction", "cabs"])
def test_the_models_own_score_comes_first(
    tiny_model: EgmaModel, processor: EgmaProcessor, session: Session, score: str
) -> None:
    tiny_model.config.zero_shot_score = score
    lines = align_view(page_model(tiny_model, processor), session)["lines"]
    titles = [one["title"] for one in lines[0]["scores"]]
    others = [title for one, title in SCORE_TITLES.items() if one != score and (one != "cabs" or score == "cabs")]
    assert titles == [SCORE_TITLES[score], *others]


def test_what_was_encoded_is_not_encoded_again(
    model: PageModel, session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[int] = []
    encode_text, encode_image = model.model.encode_text, model.model.encode_images
    monkeypatch.setattr(
        model.model, "encode_text", lambda **inputs: calls.append(len(inputs["input_ids"])) or encode_text(**inputs)
    )
    monkeypatch.setattr(model.model, "encode_images", lambda pixels: calls.append(-1) or encode_image(pixels))
    first = align_view(model, session)
    assert calls == [-1, len(SENTENCES)]
    session.report = [*SENTENCES, "chest x ray"]
    later = align_view(model, session)
    assert calls == [-1, len(SENTENCES), 1]
    assert later["lines"][:-1] == first["lines"]


def test_another_picture_forgets_the_one_before(model: PageModel, session: Session) -> None:
    before = align_view(model, session)
    session.show(Picture("tall", encoded(noise(60, 90), "PNG"), 60, 90))
    after = align_view(model, session)
    assert after["picture"] != before["picture"]
    assert [line["map"] for line in after["lines"]] != [line["map"] for line in before["lines"]]
    assert (shown := picture_view(session.picture)) is not None and shown["id"] == after["picture"]


def test_a_sentence_has_its_rank_among_the_others_of_the_corpus(
    model: PageModel, session: Session, phantom_data: Path
) -> None:
    references = Corpus(phantom_data).references(model)
    texts = list(references.place)
    said = {one["text"] for row in load_readings(phantom_data, "validation") for one in row["sentences"]}
    assert len(texts) == len(set(texts)) == min(64, len(said)) and set(texts) <= said
    report = session.report = [*SENTENCES, texts[3]]
    shown = json.loads(json.dumps(align_view(model, session, references)))  # plain numbers alone
    ranks = [line["rank"] for line in shown["lines"]]
    session.report = list(dict.fromkeys([*texts, *report]))
    alone = align_view(model, session)["lines"]
    score = {line["text"]: line["scores"][0]["value"] for line in alone}
    assert all("rank" not in line for line in alone)
    for sentence, rank in zip(report, ranks, strict=True):
        others = [score[text] for text in texts if text != sentence]
        above, level = (
            sum(sign(one - score[sentence]) for one in others)
            for sign in (lambda d: d > 1e-3, lambda d: abs(d) <= 1e-3)
        )
        assert rank["of"] == 1 + len(others) and 1 + above <= rank["place"] <= 1 + above + level  # scores are rounded


def test_sentences_that_the_model_cuts_are_counted(model: PageModel, session: Session) -> None:
    session.report = ["no effusion", "heart " * 40]
    assert align_view(model, session)["note"] == "Longer than the model reads, and cut: sentence 2."


def test_a_picture_without_a_report_has_no_lines(model: PageModel, session: Session) -> None:
    session.report = []
    assert align_view(model, session)["lines"] == []


def test_encoding_ends_when_it_takes_too_long(
    model: PageModel, session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("egma.page.session.MAX_SECONDS", -1)
    with pytest.raises(UserError, match="took more than"):
        align_view(model, session)


def test_a_finding_has_the_score_of_its_best_prompt(model: PageModel, session: Session) -> None:
    prompts = {"Effusion": SENTENCES[:1], "Heart": SENTENCES[1:], "Chest": ["chest x ray", "x ray of a chest"]}
    session.report = [prompt for of_finding in prompts.values() for prompt in of_finding]
    alone = {line["text"]: line for line in align_view(model, session)["lines"]}
    shown = classify_view(model, session, prompts)
    own = [line["scores"][0]["value"] for line in shown["lines"]]
    assert own == sorted(own, reverse=True) and {line["text"] for line in shown["lines"]} == prompts.keys()
    for line in shown["lines"]:
        candidates = [alone[prompt] for prompt in prompts[line["text"]]]
        winner = max(candidates, key=lambda one: one["scores"][0]["value"])
        # rounded to four digits, of sentences that were encoded with others
        assert line["detail"].startswith(winner["text"]) and line["map"] == pytest.approx(winner["map"], abs=1.5e-4)
        for kind in range(2):
            assert line["scores"][kind]["value"] == max(one["scores"][kind]["value"] for one in candidates)


@pytest.mark.parametrize("with_corpus", [True, False])
def test_bars_begin_at_the_median_of_the_reference(
    model: PageModel, session: Session, phantom_data: Path, with_corpus: bool
) -> None:
    references = Corpus(phantom_data).references(model) if with_corpus else None
    prompts = {"Effusion": SENTENCES[:1], "Heart": SENTENCES[1:2], "Opacity": SENTENCES[2:]}
    shown = classify_view(model, session, prompts, references)
    session.report = [*SENTENCES, *(references.place if references else ())]
    scores = [line["scores"][0]["value"] for line in align_view(model, session)["lines"]]
    reference = sorted(scores[3:] or scores)
    start = (reference[(len(reference) - 1) // 2] + reference[len(reference) // 2]) / 2
    for line in shown["lines"]:
        expected = max(0.0, line["scores"][0]["value"] - start) / (max(scores) - start)
        assert line["bar"] == pytest.approx(expected, abs=2e-3 / (max(scores) - start))  # scores are rounded
    assert f"median score of {len(references.place) if references else 'these'}" in shown["note"]


@pytest.mark.parametrize(
    ("values", "references", "expected"),
    [
        ([-0.9, 0.1, 0.3], [-0.2, 0.1, 0.2], [0, 0, 1]),  # far below is no long bar
        ([0.1, 0.2], [0.0, 0.0, 0.4], [0.25, 0.5]),  # the highest is a sentence of the reference
        ([0.2, 0.2], [0.2], [0, 0]),
    ],
)
def test_bars_are_what_passes_the_reference(
    values: list[float], references: list[float], expected: list[float]
) -> None:
    assert bar_shares(np.array(values), np.array(references)) == pytest.approx(expected)


def test_what_the_labels_of_an_example_say_is_marked(model: PageModel, phantom_data: Path) -> None:
    reading = Corpus(phantom_data).examples[0]
    session = Session()
    session.show(picture_of(reading))
    labels = {finding["name"].lower(): finding["value"] for finding in reading["findings"]}
    prompts = {name: [f"there is {name}"] for name in [*map(str.upper, labels), "Nothing"]}
    marked = {line["text"]: line["marked"] for line in classify_view(model, session, prompts)["lines"]}
    words = {1: "present", 0: "absent", -1: "uncertain", None: None}
    assert marked == {name: words[labels.get(name.lower())] for name in prompts}
    assert {"present", "absent", None} <= set(marked.values())
    session.show(Picture("wide", encoded(noise(90, 60), "PNG"), 90, 60))
    assert {line["marked"] for line in classify_view(model, session, prompts)["lines"]} == {None}


# --- gaze ---


def test_agreement_is_that_of_the_evaluation(model: PageModel, phantom_data: Path) -> None:
    corpus = Corpus(phantom_data)
    centre, source = centre_of(corpus, model.sigma)
    rows = load_readings(phantom_data, "test")
    training = records(load_readings(phantom_data, "train"))
    place = next(place for place, row in enumerate(rows) if row["fixations"]["x"] and row["sentences"])
    row = rows[place]
    session = Session(report=[])
    session.show(picture_of(row), example_recording(row))
    shown = gaze_view(model, session, centre, source)
    one = records(rows.select([place]))
    texts = [sentence["text"] for sentence in row["sentences"]]
    settings = model.sigma, model.lead_seconds
    expected = gaze_agreement(
        gaze_corpus(one, training, mean_boxes(training), mean_gaze(training, *settings, set()), *settings),
        encode_images(model.model, model.processor, rows.select([place]), 8),
        encode_texts(model.model, model.processor, texts, 8),
        PatientBootstrap(one, 0),
    )
    agreed = [sentence["agreement"] for sentence in shown["sentences"] if "agreement" in sentence]
    assert len(agreed) == expected["sentences"] > 2
    for metric in ("nss", "cc"):
        for name, other in (("model", "model"), ("centre", "mean_gaze")):
            mean = np.mean([values[name][metric] for values in agreed])
            assert mean == pytest.approx(expected[other][metric]["value"], abs=0.01), (name, metric)


def test_a_mouse_is_where_the_words_are_whatever_lead_the_model_was_trained_with(
    model: PageModel, phantom_data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    row = next(row for row in load_readings(phantom_data, "train") if row["fixations"]["x"])
    session = Session(report=[])
    session.show(picture_of(row))
    centre = centre_of(None, 0.05)
    monkeypatch.setattr(model, "lead_seconds", 0.0)
    session.record(example_recording(row))
    without = gaze_view(model, session, *centre)
    monkeypatch.setattr(model, "lead_seconds", 1.0)
    assert gaze_view(model, session, *centre)["sentences"] != without["sentences"]
    session.record(example_recording(row), by_mouse=True)
    assert gaze_view(model, session, *centre) == without


def test_readers_heat_map_is_that_of_training(model: PageModel, phantom_data: Path) -> None:
    row = next(row for row in load_readings(phantom_data, "train") if row["fixations"]["x"])
    session = Session(report=[])
    session.show(picture_of(row), example_recording(row))
    shown = gaze_view(model, session, *centre_of(None, 0.05))["sentences"]
    spans = [(sentence["start_seconds"], sentence["end_seconds"]) for sentence in row["sentences"]]
    texts = [[sentence["text"] for sentence in row["sentences"]]]
    batch = model.processor(images=[row["image"]], text=texts, gaze=[row["fixations"]], spans=[spans])
    compared = 0
    for sentence, expected in zip(shown, batch["gaze_heatmaps"], strict=True):
        if "gaze_map" in sentence:
            # the stored picture is the source's, its sides rounded to whole pixels
            assert np.allclose(sentence["gaze_map"], expected.numpy().ravel(), atol=0.03)
            compared += 1
    assert compared > 1


def test_a_sentence_without_gaze_of_its_own_says_why(model: PageModel, session: Session) -> None:
    fixations: Any = {"x": [0.5], "y": [0.5], "start": [0.0], "duration": [1.0]}
    spoken: Any = [
        {"text": "no effusion", "start_seconds": 0.0, "end_seconds": 1.0},
        {"text": "heart normal", "start_seconds": 5.0, "end_seconds": 6.0},
        {"text": "lungs clear", "start_seconds": None, "end_seconds": None},
    ]
    session.recording = Recording(spoken, fixations, [], [])
    shown = gaze_view(model, session, *centre_of(None, 0.05))["sentences"]
    assert [one.get("reason") for one in shown] == [None, "no fixation in its window", "the sentence is untimed"]
    lead = model.lead_seconds
    assert [one["window"] for one in shown] == [[-lead, 1 - lead], [5 - lead, 6 - lead], None]


def test_a_recording_without_words_plays_with_the_typed_report(model: PageModel, session: Session) -> None:
    fixations: Any = {"x": [0.5], "y": [0.5], "start": [0.0], "duration": [1.0]}
    session.recording = Recording([], fixations, [], [])
    shown = gaze_view(model, session, *centre_of(None, 0.05))
    assert [one["text"] for one in shown["sentences"]] == SENTENCES


# --- the gallery ---


def test_reports_are_ranked_as_in_the_evaluation(model: PageModel, phantom_data: Path) -> None:
    gallery = Gallery(phantom_data, "train", model, untracked)
    rows = load_readings(phantom_data, "train")
    pairs = distinct_pairs(records(rows))
    scores = report_scores(pairs, gallery.images, gallery.texts)[model.score]
    assert [reading["reading_id"] for reading in gallery.readings] == [pair["reading_id"] for pair in pairs]
    for place in (0, 3):
        session = Session()
        session.show(picture_of(rows[gallery.places[place]]))
        shown = gallery.find_reports(model, session)["items"]
        expected = np.sort(scores[place])[::-1][: len(shown)]
        assert [one["scores"][0]["value"] for one in shown] == pytest.approx(expected.tolist(), abs=2e-3)


def test_images_for_a_text_come_by_their_score(model: PageModel, phantom_data: Path) -> None:
    gallery = Gallery(phantom_data, "validation", model, untracked)
    shown = gallery.find_images(model, Session(), ["no pleural effusion"])["items"]
    values = [one["scores"][0]["value"] for one in shown]
    assert values == sorted(values, reverse=True) and len(shown) == min(12, len(gallery.readings))
    assert all(one["src"].startswith("data:image/jpeg;base64,") for one in shown)


@pytest.mark.parametrize("place", [-1, 10**9, True, "0", None, 0.0])
def test_a_result_that_is_none_is_refused(model: PageModel, phantom_data: Path, place: object) -> None:
    gallery = Gallery(phantom_data, "validation", model, untracked)
    with pytest.raises(UserError, match="no such result"):
        gallery.reading(place)
    assert gallery.reading(0)["reading_id"] == gallery.readings[0]["reading_id"]


def test_progress_of_the_index_goes_from_nothing_to_all(model: PageModel, phantom_data: Path) -> None:
    steps: dict[str, list[int]] = {}

    def track(batches: Sequence[Any], desc: str) -> Iterator[Any]:
        steps[desc] = [0, len(batches)]
        for batch in batches:
            steps[desc][0] += 1
            yield batch

    Corpus(phantom_data).gallery(model, track)
    assert steps.keys() == {"images", "sentences"}
    assert all(done == total > 0 for done, total in steps.values())


def test_examples_are_of_different_images_and_play(phantom_data: Path) -> None:
    examples = Corpus(phantom_data).examples
    assert len({reading["image_id"] for reading in examples}) == len(examples) > 1
    assert example_recording(examples[0]) is not None


@pytest.mark.parametrize("kept", ["test", "validation", "train"])
def test_a_corpus_of_one_split_has_examples_and_a_gallery(
    model: PageModel, phantom_data: Path, tmp_path: Path, kept: str
) -> None:
    shutil.copytree(
        phantom_data, tmp_path / "data", ignore=lambda _, names: [n for n in names if "parquet" in n and kept not in n]
    )
    corpus = Corpus(tmp_path / "data")
    assert corpus.examples and corpus.gallery(model, untracked).split == kept
    assert corpus.centre(0.05)[1].startswith("mean of" if kept == "train" else "centred Gaussian")


# --- sessions ---


def test_sessions_are_apart_and_the_oldest_make_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("egma.page.session.MAX_SESSIONS", 2)
    sessions = Sessions()
    first = sessions.of("a")
    assert sessions.of("b") is not first and sessions.of("a") is first
    sessions.of("c")
    assert "b" not in sessions and "a" in sessions
    sessions.forget("a")
    assert sessions.of("a") is not first


def test_a_page_whose_picture_is_gone_is_told_so_and_not_that_it_chose_none(session: Session, model: PageModel) -> None:
    sessions = Sessions()
    with pytest.raises(UserError, match="Choose an image first"):
        model.image_bank(sessions.of("a"))
    assert sessions.has_lost("a") and sessions.has_lost("")
    with pytest.raises(UserError, match=r"no longer has your picture.*is kept"):
        model.image_bank(sessions.of("a"))
    assert session.picture is not None
    sessions.of("a").show(session.picture)
    assert not sessions.has_lost("a")
    sessions.of("a").last_used_seconds -= 4000
    assert sessions.has_lost("a")


@pytest.mark.parametrize("name", [None, ""])
def test_requests_without_a_name_share_nothing(name: str | None) -> None:
    sessions = Sessions()
    assert sessions.of(name) is not sessions.of(name)


def test_an_idle_session_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    sessions = Sessions()
    first = sessions.of("a")
    first.last_used_seconds -= 4000
    sessions.of("b")
    assert "a" not in sessions
