"""Two models side by side on one picture, whatever the grid of either."""

import csv
import io
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import BertTokenizer, SwinConfig, pipeline

from dataset_scripts.schema import UserError
from egma.page.corpus import Corpus
from egma.page.handlers import Handlers
from egma.page.inputs import Picture
from egma.page.page import _banner
from egma.page.session import PageModel, Session
from egma.page.views import align_view
from egma.programs import app
from modeling_egma import EgmaConfig, EgmaModel, EgmaProcessor
from tests.egma.page.browsing import axe_faults, canvas, choose_picture, go, needs_chromium, pixels, settle, write_image
from tests.egma.page.hostile import encoded, noise
from tests.egma.page.serving import page_model, served
from tests.egma.page.test_browser import WIDE, brightest

SENTENCES = ["no pleural effusion", "the heart is normal", "left lower lobe opacity"]


@pytest.fixture(scope="module")
def second(tiny_swin: SwinConfig, tiny_bert: Any, tokenizer: BertTokenizer) -> PageModel:
    """A model of another seed, depth and grid."""
    torch.manual_seed(1)
    vision = SwinConfig(
        image_size=tiny_swin.image_size, patch_size=4, embed_dim=8, depths=[1, 1], num_heads=[1, 2], window_size=7
    )
    config = EgmaConfig(vision_config=vision.to_dict(), text_config=tiny_bert.to_dict(), projection_dim=8)
    return PageModel(EgmaModel(config).eval(), EgmaProcessor.for_model(config, tokenizer), "other", "untrained, too")


def test_every_line_has_the_map_of_either_model_on_its_own_grid(module_model: PageModel, second: PageModel) -> None:
    assert module_model.grid != second.grid
    handlers, session = Handlers(module_model, None, second), Session(report=SENTENCES)
    for picture in (
        Picture("a", encoded(noise(90, 60), "PNG"), 90, 60),
        Picture("b", encoded(noise(60, 90), "PNG"), 60, 90),
    ):
        session.show(picture)
        shown = handlers._lines(session)
        for model, lines in ((module_model, shown), (second, shown["second"])):
            alone = Session(report=SENTENCES)
            alone.show(picture)
            expected = align_view(model, alone)
            assert lines["lines"] == expected["lines"] and lines["model"] == model.name
            assert len(lines["lines"][0]["map"]) == model.grid**2 == lines["grid"] ** 2
    assert "second" not in Handlers(module_model, None)._lines(session)


@needs_chromium
def test_both_maps_of_the_chosen_sentence_are_seen(
    chromium: Any, module_model: PageModel, second: PageModel, phantom_data: Path, tmp_path: Path
) -> None:
    handlers = Handlers(module_model, Corpus(phantom_data), second)
    with pytest.MonkeyPatch.context() as patch, served(handlers, tmp_path / "up", patch) as page:
        tab = chromium.new_page(viewport={"width": 1280, "height": 900})
        faults: list[str] = []
        tab.on("pageerror", lambda error: faults.append(str(error)))
        tab.goto(page.local_url)
        tab.wait_for_selector(".egma-lines button")
        settle(tab)
        assert tab.locator(".egma-models .egma-note:visible").all_inner_texts() == ["tiny", "other"]
        path = write_image(tmp_path, "picture.png", *WIDE)
        choose_picture(tab, path, "\n".join(SENTENCES))
        tab.get_by_label("Opacity", exact=True).first.fill("1")
        tab.get_by_label("Spots").first.uncheck()
        tab.get_by_label("Each its own scale").first.check()
        for place, sentence in enumerate(SENTENCES):
            tab.locator(".egma-lines button").nth(place).click()
            tab.mouse.move(5, 5)
            for side, model in enumerate((module_model, second)):
                on = canvas(tab, place=side)
                assert f'"{sentence}" by {model.name}' in on.get_attribute("aria-label")
                assert at_the_peak(model, path, sentence, brightest(pixels(on)))
        boxes = [canvas(tab, place=side).bounding_box() for side in (0, 1)]
        assert boxes[0]["y"] == boxes[1]["y"] and boxes[0]["x"] + boxes[0]["width"] <= boxes[1]["x"]
        canvas(tab, place=1).click(position={"x": 30, "y": 30})
        assert "fits best" in tab.locator(".egma-said:visible").inner_text()  # the second is asked, too
        go(tab, "Classify")
        tab.get_by_role("button", name="Score the findings").click()
        tab.locator(".egma-viewer:visible .egma-lines button").nth(3).wait_for()
        assert tab.locator(".egma-viewer:visible .egma-stage:visible").count() == 1
        go(tab, "Align")
        tab.set_viewport_size({"width": 390, "height": 844})
        assert tab.evaluate("document.documentElement.scrollWidth") <= 390
        assert tab.locator(".egma-viewer:visible .egma-stage:visible").count() == 2
        tab.close()
        for scheme in ("light", "dark"):
            tab = chromium.new_page(color_scheme=scheme, reduced_motion="reduce")
            tab.goto(f"{page.local_url}?__theme={scheme}")
            tab.wait_for_selector(".egma-lines button")
            tab.wait_for_timeout(500)
            assert axe_faults(tab) == []
            tab.close()
    assert faults == []


@needs_chromium
def test_what_is_saved_holds_both_models_and_two_fingers_zoom_on_either(
    chromium: Any, module_model: PageModel, second: PageModel, phantom_data: Path, tmp_path: Path
) -> None:
    handlers = Handlers(module_model, Corpus(phantom_data), second)
    with pytest.MonkeyPatch.context() as patch, served(handlers, tmp_path / "up", patch) as page:
        tab = chromium.new_page(viewport={"width": 1280, "height": 900}, has_touch=True)
        tab.goto(page.local_url)
        tab.wait_for_selector(".egma-lines button")
        choose_picture(tab, write_image(tmp_path, "picture.png", *WIDE), "\n".join(SENTENCES))
        tab.get_by_label("Opacity", exact=True).first.fill("1")
        tab.get_by_label("Spots").first.uncheck()
        tab.locator(".egma-lines button").nth(2).click()
        tab.mouse.move(5, 5)
        stored = {}
        for kind in ("JSON", "CSV", "SVG", "PNG"):
            with tab.expect_download() as download:
                tab.get_by_role("button", name=f"Save as {kind}").first.click()
            stored[kind] = Path(download.value.path()).read_bytes()
        numbers = json.loads(stored["JSON"])
        assert (numbers["model"], numbers["second"]["model"]) == ("tiny", "other")
        titles, *rows = csv.reader(io.StringIO(stored["CSV"].decode()))
        for model, lines in (("tiny", numbers), ("other", numbers["second"])):
            places = [place for place, title in enumerate(titles) if title.startswith(f"{model}: row ")]
            for row, line in zip(rows, lines["lines"], strict=True):
                assert row[0] == line["text"] and [float(row[place]) for place in places] == line["map"]
        words = [node.text for node in ElementTree.fromstring(stored["SVG"]).iter("{http://www.w3.org/2000/svg}text")]
        assert words[2::4] == ["Model: tiny", "Model: other"] and set(words[0::4]) == {f"“{SENTENCES[2]}”"}
        assert sum(word.startswith("Not for diagnosis") for word in words) == 2
        whole = np.asarray(Image.open(io.BytesIO(stored["PNG"])).convert("RGB"), dtype=np.float64)
        assert whole.shape[1] == 2 * 1024
        for side in (0, 1):  # each is what its side of the screen shows
            saved = whole[:512, 1024 * side : 1024 * (side + 1)]
            seen = pixels(canvas(tab, place=side))
            small = np.asarray(Image.fromarray(saved.astype(np.uint8)).resize(seen.shape[1::-1]), dtype=np.float64)
            assert np.abs(small - seen).mean() < 8 < np.abs(small - pixels(canvas(tab, place=1 - side))).mean()
        touch = tab.context.new_cdp_session(tab)
        for side in (1, 0):
            box = canvas(tab, place=side).bounding_box()
            before = tab.evaluate("egma.display.view.scale")
            for kind, apart in (("touchStart", 0.1), ("touchMove", 0.15), ("touchMove", 0.2), ("touchEnd", None)):
                across = () if apart is None else (0.5 - apart, 0.5 + apart)
                points = [{"x": box["x"] + x * box["width"], "y": box["y"] + 0.5 * box["height"]} for x in across]
                touch.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})
            assert tab.evaluate("egma.display.view.scale") == pytest.approx(2 * before, rel=0.1)
        tab.close()


def at_the_peak(model: PageModel, path: Path, sentence: str, place: tuple[float, float]) -> bool:
    processor = model.processor
    ground = pipeline("egma-grounding", model=model.model, processor=processor, tokenizer=processor.tokenizer)
    heat = ground(str(path), [sentence])[0]["heat_map"]
    row, column = round(place[1] * WIDE[1] - 0.5), round(place[0] * WIDE[0] - 0.5)
    return bool(heat[row, column] >= heat.min() + 0.9 * np.ptp(heat))


def test_models_of_the_same_name_are_told_apart(
    tiny_model: EgmaModel, processor: EgmaProcessor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("ours", "theirs"):
        tiny_model.save_pretrained(tmp_path / name / "egma")
        processor.save_pretrained(tmp_path / name / "egma")
    made: list[Handlers] = []
    monkeypatch.setattr(app, "build_page", lambda handlers, about: made.append(handlers))
    monkeypatch.setattr(app, "DEMO", tmp_path / "none")
    app.make_page(str(tmp_path / "ours/egma"), None, str(tmp_path / "theirs/egma"))
    (handlers,) = made
    assert handlers.second is not None
    assert (handlers.model.name, handlers.second.name) == ("ours/egma", "theirs/egma")
    with pytest.raises(UserError, match="no such folder"):
        app.make_page(str(tmp_path / "ours/egma"), None, str(tmp_path / "nobodys"))


def test_the_banner_names_both(tiny_model: EgmaModel, processor: EgmaProcessor) -> None:
    model = page_model(tiny_model, processor)
    hostile: Any = SimpleNamespace(name="<b>other", trained_on="trained on nothing")
    said = _banner(model, None, hostile)
    assert "Model: tiny, untrained; beside it in Align: _b_other, trained on nothing." in said
