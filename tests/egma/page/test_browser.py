"""Every tab as a person uses it, looked at on the screen."""

import json
import threading
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from transformers import pipeline

from dataset_scripts import build
from dataset_scripts.schema import load_readings
from tests.egma.page.browsing import (
    canvas,
    choose_picture,
    download_recordings,
    go,
    needs_chromium,
    pixels,
    settle,
    upload,
    write_image,
)
from tests.egma.page.conftest import Served

pytestmark = needs_chromium
WIDE, TALL = (320, 160), (160, 320)


def brightest(seen: Any) -> tuple[float, float]:
    """(x, y) fractions of the brightest place, after a light blur over the noise of the screen."""
    seen[:8, :8] = seen[:8, -8:] = seen[-8:, :8] = seen[-8:, -8:] = 0  # the stage has round corners
    seen[:2] = seen[-2:] = seen[:, :2] = seen[:, -2:] = 0  # and lies between the screen's pixels
    grey = Image.fromarray(seen.sum(axis=2).astype(np.float32)).reduce(4)
    row, column = np.unravel_index(int(np.asarray(grey).argmax()), np.asarray(grey).shape)
    return (column + 0.5) / grey.width, (row + 0.5) / grey.height


def test_it_opens_with_the_first_example_and_its_maps(tab: Any, page: Served) -> None:
    sentences = [sentence["text"] for sentence in page.corpus.examples[0]["sentences"]]
    assert tab.locator(".egma-lines .egma-text").all_text_contents() == sentences
    assert tab.locator("#report textarea").input_value() == "\n".join(sentences)
    assert tab.locator(".egma-strip canvas").count() == len(sentences)
    assert pixels(canvas(tab)).std() > 10
    assert "generated data" in tab.locator(".egma-banner").first.inner_text()


def test_what_is_typed_before_the_first_picture_has_come_stays(
    chromium: Any, page: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    example, typed = page.handlers._example, threading.Event()
    monkeypatch.setattr(page.handlers, "_example", lambda *given: typed.wait(30) and example(*given))
    tab = chromium.new_page()
    tab.goto(page.url)
    settle(tab)
    tab.locator("#report textarea").fill("no effusion")
    typed.set()
    tab.locator(".egma-lines button").first.wait_for()
    assert tab.locator("#report textarea").input_value() == "no effusion"
    tab.close()


@pytest.mark.parametrize("size", [WIDE, TALL, (160, 160)], ids=["wide", "tall", "square"])
def test_the_overlay_peaks_where_the_model_does(tab: Any, page: Served, tmp_path: Path, size: tuple[int, int]) -> None:
    path = write_image(tmp_path, "picture.png", *size)
    sentences = ["no pleural effusion", "the heart is normal", "left lower lobe opacity"]
    choose_picture(tab, path, "\n".join(sentences))
    tab.get_by_label("Opacity", exact=True).first.fill("1")
    tab.get_by_label("Spots").first.uncheck()
    tab.get_by_label("Each its own scale").first.check()
    processor = page.model.processor
    ground = pipeline("egma-grounding", model=page.model.model, processor=processor, tokenizer=processor.tokenizer)
    for place, found in enumerate(ground(Image.open(path), sentences)):
        tab.locator(".egma-lines button").nth(place).click()
        tab.mouse.move(5, 5)
        x, y = brightest(pixels(canvas(tab)))
        heat = found["heat_map"]
        row, column = round(y * size[1] - 0.5), round(x * size[0] - 0.5)
        assert heat[row, column] >= heat.min() + 0.97 * np.ptp(heat), (x, y, found["peak"])


def test_hovering_shows_another_map_and_leaving_brings_the_first_back(tab: Any) -> None:
    first = pixels(canvas(tab))
    tab.locator(".egma-lines [aria-pressed=false]").first.hover()
    assert np.abs(pixels(canvas(tab)) - first).max() > 20
    tab.mouse.move(5, 5)
    assert np.abs(pixels(canvas(tab)) - first).max() == 0


def test_controls_change_the_picture(tab: Any) -> None:
    seen = [pixels(canvas(tab))]
    for change in (
        lambda: tab.get_by_label("Spots").first.uncheck(),
        lambda: tab.get_by_label("Each its own scale").first.check(),
        lambda: tab.get_by_label("Outline").first.check(),
        lambda: tab.get_by_label("Outline").first.uncheck(),
        lambda: tab.get_by_label("Only above").first.fill("0.6"),
        lambda: tab.get_by_label("Smooth").first.uncheck(),
        lambda: tab.get_by_label("Colours").first.select_option("viridis"),
        lambda: tab.get_by_label("Only the lungs' frame").first.check(),
        lambda: tab.get_by_label("Opacity").first.fill("0"),
    ):
        change()
        seen.append(pixels(canvas(tab)))
    assert all(np.abs(later - before).max() > 20 for before, later in pairwise(seen))
    red, green, blue = (seen[-1][..., channel] for channel in range(3))
    assert np.abs(red - green).max() == np.abs(green - blue).max() == 0  # no opacity: the grey picture alone


def test_the_lungs_frame_leaves_the_rest_of_the_picture_grey(tab: Any, page: Served) -> None:
    chest = next(box for box in page.corpus.examples[0]["boxes"] if box["label"] == "Chest")
    x_min, y_min, x_max, y_max = (chest[name] for name in ("x_min", "y_min", "x_max", "y_max"))
    tab.get_by_label("Only the lungs' frame").first.check()
    tab.get_by_label("Spots").first.uncheck()
    seen = pixels(canvas(tab))
    rows, columns = (np.arange(n) / n for n in seen.shape[:2])
    outside = (rows[:, None] < y_min - 0.02) | (rows[:, None] > y_max + 0.02)
    outside = outside | (columns < x_min - 0.02) | (columns > x_max + 0.02)
    colour = np.ptp(seen, axis=2)
    assert colour[outside].max() == 0 and colour[~outside].max() > 50


def test_a_frame_of_what_is_seen_and_the_whole_picture_takes_it_back(tab: Any, tmp_path: Path) -> None:
    choose_picture(tab, write_image(tmp_path, "picture.png", *WIDE), "left lower lobe opacity")
    tab.get_by_label("Spots").first.uncheck()
    only, take = (
        tab.get_by_label("Only the lungs' frame").first,
        tab.get_by_role("button", name="Frame what is seen").first,
    )
    assert only.is_disabled()
    before = pixels(canvas(tab))
    canvas(tab).focus()
    for key in ("+", "+", "+"):  # around the middle
        tab.keyboard.press(key)
    take.click()
    assert only.is_checked()
    canvas(tab).focus()
    tab.keyboard.press("0")
    colour = np.ptp(pixels(canvas(tab)), axis=2)
    rows, columns = (np.flatnonzero(colour.max(axis=axis) > 8)[[0, -1]] / colour.shape[1 - axis] for axis in (1, 0))
    edges = 0.5 - 0.5 / 1.25**3, 0.5 + 0.5 / 1.25**3
    assert np.allclose(rows, edges, atol=0.02) and np.allclose(columns, edges, atol=0.02)
    take.click()
    assert only.is_disabled()
    assert np.abs(pixels(canvas(tab)) - before).max() == 0


def test_a_click_on_the_image_orders_the_sentences_by_that_patch(tab: Any, page: Served, tmp_path: Path) -> None:
    sentences = ["no pleural effusion", "the heart is normal", "left lower lobe opacity", "chest x ray"]
    path = write_image(tmp_path, "picture.png", *WIDE)
    choose_picture(tab, path, "\n".join(sentences))
    inputs = page.model.processor(images=[Image.open(path).convert("RGB")], text=sentences)
    maps = page.model.model.get_similarity_map(inputs["pixel_values"], inputs["input_ids"], inputs["attention_mask"])
    grid = maps.shape[-1]
    box = canvas(tab).bounding_box()
    x, y = 0.8, 0.3
    canvas(tab).click(position={"x": x * box["width"], "y": y * box["height"]})
    column, row = int(x * grid), int((y * 0.5 + 0.25) * grid)  # a picture twice as wide as high, padded to a square
    expected = [sentences[place] for place in maps[0, :, row, column].argsort(descending=True)]
    assert tab.locator(".egma-lines .egma-text").all_text_contents() == expected
    assert f"column {column + 1}, row {row + 1}" in tab.locator(".egma-said:visible").inner_text()
    tab.get_by_role("button", name="Back to the first order").click()
    assert tab.locator(".egma-lines .egma-text").all_text_contents() == sentences


def test_align_by_keyboard_alone(tab: Any) -> None:
    before = tab.locator(".egma-lines .egma-text").all_text_contents()
    canvas(tab).focus()
    for key in ("ArrowDown", "ArrowDown", "ArrowRight"):
        tab.keyboard.press(key)
    assert "fits best" in tab.locator(".egma-said:visible").inner_text()
    tab.keyboard.press("Escape")
    assert tab.locator(".egma-lines .egma-text").all_text_contents() == before
    tab.locator(".egma-strip button").nth(1).focus()
    tab.keyboard.press("Enter")
    assert tab.evaluate("document.activeElement.closest('.egma-strip') !== null")  # one can go on from there
    tab.locator(".egma-lines button").nth(2).focus()
    tab.keyboard.press("Enter")
    assert tab.locator(".egma-lines button").nth(2).get_attribute("aria-pressed") == "true"
    assert before[2] in canvas(tab).get_attribute("aria-label")


def test_a_typed_sentence_is_text_and_never_html(tab: Any) -> None:
    hostile = "<img src=x onerror=\"document.title='broken'\"> ${1+1} {{value}} heart"
    tab.locator("#report textarea").fill(hostile)
    tab.get_by_role("button", name="Show where each sentence looks").click()
    tab.wait_for_function("text => document.querySelector('.egma-lines .egma-text')?.textContent === text", arg=hostile)
    assert tab.locator(".egma-lines img").count() == 0 and tab.title() != "broken"


def test_a_fault_is_a_message_and_the_page_goes_on(tab: Any, tmp_path: Path) -> None:
    (tmp_path / "broken.png").write_bytes(b"no picture")
    tab.locator("#radiograph input[type=file]").set_input_files(tmp_path / "broken.png")
    tab.get_by_text("no PNG, JPEG or DICOM").wait_for()
    choose_picture(tab, write_image(tmp_path, "picture.png", *WIDE), "no effusion")
    assert tab.locator(".egma-lines button").count() == 1


def test_examples_are_chosen_by_their_pictures(tab: Any, page: Served) -> None:
    tab.locator(".egma-thumbnails button").nth(1).click()
    expected = [sentence["text"] for sentence in page.corpus.examples[1]["sentences"]]
    assert tab.locator(".egma-thumbnails [aria-current=true]").count() == 1
    tab.wait_for_function(
        "text => document.querySelector('.egma-lines .egma-text')?.textContent === text", arg=expected[0]
    )
    assert tab.locator("#report textarea").input_value() == "\n".join(expected)
    current = tab.locator(".egma-thumbnails button").evaluate_all("all => all.map((one) => one.ariaCurrent)")
    assert current == ["false", "true", *["false"] * (len(current) - 2)]
    assert tab.evaluate("document.activeElement.ariaCurrent") == "true"  # the keyboard goes on from there


# --- gaze ---


def test_a_recording_plays_with_its_sentence_highlighted(tab: Any, page: Served) -> None:
    go(tab, "Gaze")
    sentences = page.corpus.examples[0]["sentences"]
    slider = tab.get_by_label("Time", exact=True)
    middle = (sentences[1]["start_seconds"] + sentences[1]["end_seconds"]) / 2
    slider.fill(f"{middle:.2f}")
    assert sentences[1]["text"] in tab.locator(".egma-spoken").inner_text()
    assert tab.locator(".egma-table tr[data-spoken]").inner_text().startswith(sentences[1]["text"])
    before = pixels(canvas(tab, "player"))
    begun_seconds = time.monotonic()
    tab.get_by_role("button", name="Play", exact=True).click()
    tab.wait_for_timeout(1500)
    tab.get_by_role("button", name="Pause").click()
    lasted_seconds = time.monotonic() - begun_seconds
    assert 0.5 < float(slider.input_value()) - middle < lasted_seconds
    assert np.abs(pixels(canvas(tab, "player")) - before).max() > 20


def test_fixations_are_drawn_where_they_lie(tab: Any, page: Served) -> None:
    go(tab, "Gaze")
    fixations = page.corpus.examples[0]["fixations"]
    place = int(np.argmax(fixations["duration"]))
    moment = fixations["start"][place] + 0.9 * fixations["duration"][place]
    tab.get_by_label("Time", exact=True).fill(f"{moment:.2f}")
    seen = pixels(canvas(tab, "player"))
    height, width = seen.shape[:2]
    row, column = int(fixations["y"][place] * height), int(fixations["x"][place] * width)
    red, green, blue = seen[row - 1 : row + 2, column - 1 : column + 2].reshape(-1, 3).mean(axis=0)
    assert red > green > blue + 40, (red, green, blue)  # the orange of the present fixation


def test_the_table_shows_the_agreement_of_every_timed_sentence(tab: Any, page: Served) -> None:
    go(tab, "Gaze")
    rows = tab.locator(".egma-table tbody tr")
    assert rows.count() == len(page.corpus.examples[0]["sentences"])
    numbers = [float(cell) for cell in rows.first.locator("td").all_text_contents()[1:]]
    assert len(numbers) == 4 and all(np.isfinite(numbers))


def test_a_recording_of_ones_own(tab: Any, tmp_path: Path) -> None:
    choose_picture(tab, write_image(tmp_path, "picture.png", *WIDE), "no effusion")
    lines = ["x_fraction,y_fraction,start_seconds,duration_seconds", "0.2,0.3,0.1,0.5", "0.7,0.6,0.8,0.4", "2,2,1,1"]
    (tmp_path / "gaze.csv").write_text("\n".join(lines))
    (tmp_path / "said.vtt").write_text("WEBVTT\n\n00:00.000 --> 00:00.700\nheart normal.\n")
    go(tab, "Gaze")
    assert "No recording yet" in tab.locator(".egma-player .egma-note:visible").inner_text()
    upload(tab, "recording", tmp_path / "gaze.csv")
    upload(tab, "transcript", tmp_path / "said.vtt")
    tab.get_by_role("button", name="Show this recording").click()
    tab.get_by_text("1 of 3 fixations left out: outside image").wait_for()
    assert tab.locator(".egma-table tbody tr").all_inner_texts()[0].startswith("heart normal.")
    assert tab.locator("#report textarea").input_value() == "heart normal."


def test_a_recording_that_is_refused_leaves_all_as_it_was(tab: Any, tmp_path: Path) -> None:
    (tmp_path / "broken.json").write_text("{")
    tab.locator("#report textarea").fill("no effusion")
    go(tab, "Gaze")
    before = tab.locator(".egma-table tbody tr").count()
    upload(tab, "recording", tmp_path / "broken.json")
    tab.get_by_role("button", name="Show this recording").click()
    tab.get_by_text("broken.json: expected JSON").wait_for()
    tab.locator("#recording input[type=file]").wait_for(state="attached")  # it takes another one
    tab.locator("#report textarea").click()
    assert tab.locator("#report textarea").input_value() == "no effusion"
    assert tab.locator(".egma-table tbody tr").count() == before
    assert tab.locator(".block .error:visible").evaluate_all("all => all.map((one) => one.outerHTML)") == []


# --- record ---


def test_a_mouse_records_a_reading_that_the_tracker_converts(tab: Any, tmp_path: Path) -> None:
    choose_picture(tab, write_image(tmp_path, "my case.png", *WIDE), "no effusion")
    go(tab, "Record")
    stage = canvas(tab, "recorder")
    box = stage.bounding_box()
    tab.get_by_role("button", name="Start").click()
    assert tab.evaluate("document.activeElement.ariaLabel") == "The sentence"  # one types at once
    for (x, y), text in (((0.25, 0.5), "left lower lobe opacity"), ((0.75, 0.25), "")):
        tab.mouse.move(box["x"] + x * box["width"], box["y"] + y * box["height"])
        tab.wait_for_timeout(700)
        tab.keyboard.type(text)
        tab.keyboard.press("Enter")
    tab.get_by_label("Sentence 2").fill("heart size normal")
    tab.get_by_label("Reader (optional)").fill("anna")
    tab.get_by_label("Patient, pseudonymous (optional)").fill("p1")
    tab.keyboard.press("Enter")
    tab.get_by_role("button", name="Finish").click()
    tab.get_by_text("in 2 sentences; see them").wait_for()
    tab.get_by_label("Sentence 2").fill("heart size is normal")
    tab.get_by_text("press Finish again").wait_for()
    tab.get_by_label("Sentence 2").fill("heart size normal")
    tab.get_by_role("button", name="Finish").click()
    folder = tmp_path / "recorded"
    download_recordings(tab, folder)
    assert build.main(["tracker", "--source", str(folder), "--output", str(tmp_path / "data")]) == 0
    (split,) = json.loads((tmp_path / "data" / "conversion_report.json").read_text())["splits"]
    row = load_readings(tmp_path / "data", split)[0]
    names = ("source", "reader_id", "subject_id", "image_id")
    assert [row[name] for name in names] == ["tracker/mouse", "anna", "p1", next(folder.glob("my_case_*.png")).name]
    assert [sentence["text"] for sentence in row["sentences"]] == ["left lower lobe opacity", "heart size normal"]
    x, y, duration = (np.array(row["fixations"][name]) for name in ("x", "y", "duration"))
    longest = duration.argsort()[-2:]
    assert np.allclose(sorted(x[longest]), [0.25, 0.75], atol=0.02)
    assert np.allclose(sorted(y[longest]), [0.25, 0.5], atol=0.03)
    recorded = json.loads(next(folder.glob("*.json")).read_text())
    assert row["fixations"]["start"] == recorded["fixations"]["start"]
    go(tab, "Gaze")
    assert tab.locator(".egma-table tbody tr").count() == 2
    choose_picture(tab, write_image(tmp_path, "another.png", *TALL), "no effusion")
    go(tab, "Record")
    assert tab.get_by_label("Patient, pseudonymous (optional)").input_value() == ""
    assert tab.get_by_label("Reader (optional)").input_value() == "anna"


def test_another_picture_does_not_end_a_recording_unasked(tab: Any, tmp_path: Path) -> None:
    go(tab, "Record")
    tab.get_by_role("button", name="Start").click()
    asked = []
    tab.on("dialog", lambda dialog: (asked.append(dialog.message), dialog.dismiss()))
    tab.locator(".egma-thumbnails button").nth(1).click()
    assert "Discard" in asked[0] and tab.get_by_role("button", name="Finish").is_enabled()
    sent = []
    tab.on("request", lambda request: sent.append(request.url))
    tab.locator("#radiograph input[type=file]").set_input_files(write_image(tmp_path, "picture.png", *WIDE))
    tab.wait_for_timeout(300)
    assert len(asked) == 2 and sent == [] and tab.get_by_role("button", name="Finish").is_enabled()


def test_a_recording_that_was_not_downloaded_is_not_lost_unasked(tab: Any) -> None:
    go(tab, "Record")
    tab.get_by_role("button", name="Start").click()
    over = canvas(tab, "recorder").bounding_box()
    tab.mouse.move(over["x"] + 50, over["y"] + 50)
    tab.wait_for_timeout(200)
    asked: list[str] = []
    tab.on("dialog", lambda dialog: (asked.append(dialog.type), dialog.dismiss()))
    tab.get_by_role("button", name="Discard").click()
    assert asked == ["confirm"] and tab.get_by_role("button", name="Finish").is_enabled()
    tab.evaluate("setTimeout(() => location.reload())")
    tab.wait_for_timeout(500)
    assert asked == ["confirm", "beforeunload"] and tab.get_by_role("button", name="Finish").is_enabled()


def test_a_report_that_came_with_another_picture_goes_with_it(tab: Any, tmp_path: Path) -> None:
    tab.locator("#radiograph input[type=file]").set_input_files(write_image(tmp_path, "picture.png", *WIDE))
    tab.get_by_text("Type a report, one sentence a line.").wait_for()
    assert tab.locator("#report textarea").input_value() == ""
    assert tab.locator(".egma-lines button").count() == 0


def test_what_was_found_for_a_picture_goes_with_it(tab: Any, tmp_path: Path) -> None:
    go(tab, "Retrieve")
    tab.get_by_role("button", name="Find reports that fit the radiograph").click()
    tab.locator(".egma-found li").first.wait_for()
    tab.locator(".egma-thumbnails button").nth(1).click()
    tab.wait_for_function("() => document.querySelectorAll('.egma-found li').length === 0")


# --- the page as a whole ---


@pytest.mark.parametrize("name", ["Align", "Gaze", "Classify", "Retrieve", "Record", "About"])
def test_a_phone_shows_every_tab_without_scrolling_sideways(chromium: Any, page: Served, name: str) -> None:
    phone = chromium.new_page(viewport={"width": 390, "height": 844}, has_touch=True, is_mobile=True)
    phone.goto(page.url)
    phone.wait_for_selector(".egma-lines button")
    if phone.get_by_role("tab", name=name).is_visible():
        go(phone, name)
    else:  # Gradio keeps the tabs that do not fit behind a button
        phone.locator(".overflow-menu button").first.click()
        phone.get_by_role("button", name=name, exact=True).click()
    settle(phone)
    assert phone.evaluate("document.documentElement.scrollWidth") <= 390
    out_of_reach = phone.locator(".egma :visible, [role=tab]:visible, .overflow-menu:visible").evaluate_all(
        """all => all.filter((one) => one.getBoundingClientRect().right > 391
            && !one.closest(".egma-scroll, .egma-strip, .egma-thumbnails")).map((one) => one.outerHTML.slice(0, 120))"""
    )
    assert out_of_reach == []
    phone.close()


def test_dark_and_light_have_enough_contrast(chromium: Any, page: Served) -> None:
    for scheme in ("light", "dark"):
        opened = chromium.new_page(color_scheme=scheme)
        opened.goto(f"{page.url}?__theme={scheme}")
        opened.wait_for_selector(".egma-lines button")
        text, ground = opened.locator(".egma-lines button").first.evaluate(
            "one => [getComputedStyle(one).color, getComputedStyle(one).backgroundColor]"
        )
        assert contrast(text, ground) >= 4.5, (scheme, text, ground)
        opened.close()


def contrast(first: str, second: str) -> float:
    """Contrast ratio of two CSS colours `rgb(r, g, b)` (WCAG 2.1)."""
    luminances = []
    for color in (first, second):
        channels = np.array([float(part) for part in color[color.index("(") + 1 : -1].split(",")[:3]]) / 255
        linear = np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
        luminances.append(float(linear @ [0.2126, 0.7152, 0.0722]))
    return (max(luminances) + 0.05) / (min(luminances) + 0.05)


def test_every_control_has_a_name(tab: Any) -> None:
    for name in ("Align", "Gaze", "Classify", "Retrieve", "Record"):
        go(tab, name)
        nameless = tab.locator(".egma :is(button, input, select, canvas, img):visible").evaluate_all(
            """all => all.filter((one) => one.getAttribute("aria-hidden") !== "true"
                && !(one.ariaLabel || one.alt || one.textContent.trim() || one.labels?.length
                || one.closest("button")?.textContent.trim())).map((one) => one.outerHTML)"""
        )
        assert nameless == []


def test_a_closed_page_is_forgotten(chromium: Any, page: Served) -> None:
    sessions, kept_by_gradio = page.handlers.sessions, page.blocks.state_holder.session_data
    before = set(kept_by_gradio)
    opened = chromium.new_page()
    opened.goto(page.url)
    opened.wait_for_selector(".egma-lines button")
    (name,) = set(kept_by_gradio) - before
    assert name in sessions
    opened.close()
    for _ in range(300):
        if name not in kept_by_gradio and name not in sessions:
            return
        time.sleep(0.1)
    pytest.fail("the session of a closed page is still there")
