"""A number that is none reaches no figure: it is refused where images and texts are encoded, by their name."""

import math
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from dataset_scripts.schema import Reading, UserError
from egma.evaluation.evaluate import evaluate_model
from egma.evaluation.protocols.fine_tuning import fine_tuning
from egma.evaluation.protocols.linear_probe import features, probe_labels
from egma.evaluation.statistics.bootstrap import PatientBootstrap
from egma.evaluation.tasks import NAMED_TASKS, TASKS
from egma.inference.embeddings import NotFinite, encode_images, encode_texts, finite, pooling_scale, rounded
from egma.page.inputs import picture_of
from egma.page.session import PageModel, Session
from egma.programs import evaluate as evaluate_egma
from modeling_egma import EgmaModel, EgmaProcessor
from tests.dataset_scripts.test_identity import write_corpus
from tests.egma.evaluation.fakes import PROMPTS, Lookup, corpus, oracle, processor, reading

BROKEN = (math.nan, math.inf, -math.inf)


class Breaking(Lookup):
    """The oracle, with one number of one image's last patch, or of one text, that is none."""

    def __init__(self, rows: list[Reading], value: float, image: int | None = None, text: str | None = None) -> None:
        good = oracle(rows)
        super().__init__(good.patches, good.texts)
        if image is not None:
            self.patches[image, -1, 0] = value
        if text is not None:
            self.texts[text] = self.texts[text] * value


@given(st.sampled_from(BROKEN), st.integers(0, 11), st.integers(1, 12))
def test_the_first_broken_image_is_named_whatever_the_batch(value: float, number: int, batch_size: int) -> None:
    rows = corpus(12)
    with pytest.raises(NotFinite, match=rf"image 'image {number:03}': what the model makes of it is not finite \(so"):
        encode_images(Breaking(rows, value, image=number), processor, rows, batch_size)


@given(st.sampled_from(BROKEN), st.sampled_from(["Report 3.", "Atelectasis is seen."]), st.integers(1, 12))
def test_the_first_broken_text_is_named_whatever_the_batch(value: float, text: str, batch_size: int) -> None:
    rows = corpus(12)
    model = Breaking(rows, value, text=text)
    with pytest.raises(NotFinite, match=f"text '{text}': what the model makes of it is not finite"):
        encode_texts(model, processor, model.texts, batch_size)


def test_how_many_are_broken_is_said() -> None:
    values = torch.ones(5, 2, 3)
    values[1, 1, 2], values[4, 0, 0] = math.nan, math.inf
    with pytest.raises(NotFinite, match=r"image 'b': .* \(so are 2 of the 5 images encoded together\)"):
        finite("image", "abcde", values)
    assert finite("image", "a", values[:1]).equal(values[:1])


@pytest.mark.parametrize("task", [None, *(task for task in TASKS if task not in NAMED_TASKS)])
def test_no_task_makes_a_figure_of_it(task: str | None) -> None:
    """Also where nobody asked for a task by name, and one that is impossible only gives its reason."""
    fixations = {"x": [0.5], "y": [0.5], "start": [0.0], "duration": [1.0]}
    rows: list[Any] = [
        row | {"fixations": fixations, "sentences": [row["sentences"][0] | {"start_seconds": 0.0, "end_seconds": 1.0}]}
        for row in corpus(9)
    ]
    for where, named in (({"image": 4}, "image 'image 004'"), ({"text": PROMPTS["Atelectasis"][0]}, "text 'There is")):
        model: Any = Breaking(rows, math.nan, **where)  # type: ignore[arg-type]
        with pytest.raises(NotFinite, match=named):
            evaluate_model(model, processor, rows, task and [task], prompts=PROMPTS, bootstrap=0)
        with pytest.raises(NotFinite, match=named):
            others: Any = {"other": (model, processor)}
            evaluate_model(oracle(rows), processor, rows, task and [task], prompts=PROMPTS, bootstrap=0, others=others)


def test_scores_that_are_no_numbers_are_not_ranked() -> None:
    with pytest.raises(NotFinite, match="1 of 4 scores are not finite"):
        rounded(torch.tensor([[1.0, 0.5], [0.25, math.nan]]))


def test_the_scale_of_a_model_that_pools_by_sentence_is_read_without_a_warning(tiny_model: EgmaModel) -> None:
    tiny_model.config.zero_shot_score = "cabs"
    torch.set_warn_always(True)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert pooling_scale(tiny_model) == pytest.approx(1 / 0.07)
    finally:
        torch.set_warn_always(False)


def broken(model: EgmaModel, name: str) -> EgmaModel:
    dict(model.named_parameters())[name].data.view(-1)[0] = math.nan
    return model


@pytest.mark.parametrize(
    ("weight", "named"), [("visual_projection.weight", "image 'image 000'"), ("text_projection.weight", "text '")]
)
def test_the_program_ends_in_a_sentence_and_without_figures(
    weight: str,
    named: str,
    tiny_model: EgmaModel,
    processor: EgmaProcessor,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    broken(tiny_model, weight).save_pretrained(tmp_path / "model")
    processor.save_pretrained(tmp_path / "model")
    data, output = write_corpus(tmp_path / "data"), tmp_path / "out"
    for tasks in ([], ["--tasks", "retrieval"]):
        assert evaluate_egma.main([str(tmp_path / "model"), "--data", str(data), "--output", str(output), *tasks]) == 2
        said = capsys.readouterr().err.strip().splitlines()[-1]
        assert said.startswith(f"error: {named}") and "is not finite" in said
    assert not list(output.rglob("*.json"))


def test_grey_values_that_the_processor_breaks_are_refused_too(tiny_model: EgmaModel, processor: EgmaProcessor) -> None:
    processor.image_processor.image_std = [0.0, 0.0, 0.0]
    with pytest.raises(NotFinite, match="image 'image 000'"):
        encode_images(tiny_model, processor, corpus(3), 2)


def test_probe_and_fine_tuning_read_no_broken_feature(tiny_model: EgmaModel, processor: EgmaProcessor) -> None:
    rows = [reading(n, findings={"Edema": n % 2}) for n in range(12)]
    splits = rows[:6], rows[6:9], rows[9:]
    name = next(name for name, _ in tiny_model.named_parameters() if name.startswith("vision_model"))
    model = broken(tiny_model, name)
    with pytest.raises(NotFinite, match="image 'image 000'"):
        features(model, processor, rows, 5)
    with pytest.raises(NotFinite, match="image 'image 006'"):
        fine_tuning(model, processor, probe_labels(*splits), splits, PatientBootstrap(rows, 0), 4, seed=0)


def test_the_page_shows_no_map_of_it(tiny_model: EgmaModel, processor: EgmaProcessor) -> None:
    model = PageModel(broken(tiny_model, "visual_projection.weight"), processor, "tiny", "untrained")
    session = Session(picture=picture_of(reading(3)))
    with pytest.raises(UserError, match="image 'picture': what the model makes of it is not finite"):
        model.maps(session, ["lungs are clear"])
    assert session.image is None
    text_only = PageModel(broken(tiny_model, "text_projection.weight"), processor, "tiny", "untrained")
    with pytest.raises(UserError, match="text 'lungs are clear'"):
        text_only.text_bank(session, ["lungs are clear"])
    assert not session.sentences
