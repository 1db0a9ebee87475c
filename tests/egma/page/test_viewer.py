"""The picture under the hand and the eye: zoom, greys, overlay, guidance, files, keys, access."""

import csv
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image, ImageOps

from egma.page.session import Session
from egma.page.views import align_view
from tests.egma.page.browsing import axe_faults, canvas, choose_picture, go, needs_chromium, pixels, settle, write_image
from tests.egma.page.conftest import Served

pytestmark = needs_chromium
WIDE = (320, 160)


def over(tab: Any, x: float, y: float, kind: str = "viewer") -> None:
    """Bring the mouse to a place of the picture's canvas."""
    box = canvas(tab, kind).bounding_box()
    tab.mouse.move(box["x"] + x * box["width"], box["y"] + y * box["height"])


def bare(tab: Any) -> None:
    """The picture alone."""
    canvas(tab).focus()
    tab.keyboard.press("o")


def view(tab: Any) -> dict[str, float]:
    seen: dict[str, float] = tab.evaluate("egma.display.view")
    return seen


def brightness(tab: Any) -> float:
    return float(pixels(canvas(tab))[8:-8, 8:-8].mean())


# --- zoom ---


def test_the_wheel_zooms_around_the_pointer_and_a_double_click_shows_the_whole(tab: Any) -> None:
    bare(tab)
    whole = pixels(canvas(tab))
    asked = tab.locator(".egma-said:visible")
    over(tab, 0.75, 0.25)
    tab.mouse.down()
    tab.mouse.up()
    place = asked.inner_text()
    for _ in range(3):
        tab.mouse.wheel(0, -200)
    tab.wait_for_function("egma.display.view.scale > 2")
    assert np.abs(pixels(canvas(tab)) - whole).max() > 20
    seen = view(tab)
    assert seen["x"] + 0.75 / seen["scale"] == pytest.approx(0.75, abs=0.01)
    tab.wait_for_timeout(600)  # no double click with the one before
    over(tab, 0.75, 0.25)
    tab.mouse.down()
    tab.mouse.up()
    assert asked.inner_text() == place  # what lies under the pointer is what one asks for
    canvas(tab).dblclick()
    assert view(tab) == {"scale": 1, "x": 0, "y": 0}
    assert not tab.get_by_role("button", name="Back to the first order").first.is_visible()


def test_an_enlarged_picture_is_dragged_and_no_place_is_asked_for(tab: Any) -> None:
    canvas(tab).focus()
    for _ in range(4):
        tab.keyboard.press("+")
    before = view(tab)
    over(tab, 0.5, 0.5)
    tab.mouse.down()
    over(tab, 0.6, 0.4)
    tab.mouse.up()
    after = view(tab)
    assert after["x"] < before["x"] and after["y"] > before["y"]
    assert not tab.get_by_role("button", name="Back to the first order").first.is_visible()
    tab.keyboard.press("Shift+ArrowRight")
    assert view(tab)["x"] > after["x"]
    tab.keyboard.press("0")
    assert view(tab)["scale"] == 1


def test_a_picture_comes_whole_and_with_its_own_greys(tab: Any, tmp_path: Path) -> None:
    canvas(tab).focus()
    for key in ("+", "i", "3"):
        tab.keyboard.press(key)
    choose_picture(tab, write_image(tmp_path, "picture.png", *WIDE), "no effusion")
    assert view(tab)["scale"] == 1
    assert tab.evaluate("egma.display.level") == {"low": 0, "high": 255, "inverted": False}


def test_two_fingers_zoom(chromium: Any, page: Served) -> None:
    phone = chromium.new_page(viewport={"width": 390, "height": 844}, has_touch=True, is_mobile=True)
    phone.goto(page.url)
    phone.wait_for_selector(".egma-lines button")
    canvas(phone).scroll_into_view_if_needed()
    box = canvas(phone).bounding_box()
    touch = phone.context.new_cdp_session(phone)
    for kind, apart in (("touchStart", 0.1), ("touchMove", 0.2), ("touchMove", 0.3), ("touchEnd", None)):
        places = () if apart is None else (0.5 - apart, 0.5 + apart)
        points = [{"x": box["x"] + x * box["width"], "y": box["y"] + 0.5 * box["height"]} for x in places]
        touch.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})
    assert view(phone)["scale"] == pytest.approx(3, rel=0.1)
    assert phone.evaluate("visualViewport.scale") == 1  # the page itself stays as it is
    phone.close()


# --- greys ---


def test_greys_by_key_drag_and_preset(tab: Any) -> None:
    bare(tab)
    plain = pixels(canvas(tab))
    tab.keyboard.press("i")
    inverted = pixels(canvas(tab))
    assert np.abs(plain + inverted - 255)[8:-8, 8:-8].max() <= 2
    tab.keyboard.press("i")
    first = brightness(tab)
    over(tab, 0.5, 0.4)
    tab.mouse.down(button="right")
    over(tab, 0.5, 0.6)
    tab.mouse.up(button="right")
    assert brightness(tab) > first + 20  # downwards: the middle of the window falls
    tab.get_by_role("button", name="Reset").first.click()
    assert np.abs(pixels(canvas(tab)) - plain).max() == 0
    tab.get_by_label("Greys").first.select_option("dark")
    assert brightness(tab) > first + 20
    canvas(tab).focus()
    tab.keyboard.press("4")
    assert brightness(tab) < first - 20
    tab.keyboard.press("0")
    for key, low, high in (("[", 25.5, 229.5), ("]", 0, 255), (",", 25.5, 280.5), (".", 0, 255)):
        tab.keyboard.press(key)
        assert tab.evaluate("[egma.display.level.low, egma.display.level.high]") == pytest.approx([low, high])


def test_a_narrow_window_tells_apart_what_8_bits_do_not(tab: Any, tmp_path: Path) -> None:
    values = np.full((160, 320), 30000, dtype=np.uint16)
    values[:, 160:] = 30040
    values[0, 0], values[0, 1] = 0, 65535
    Image.fromarray(values).save(tmp_path / "deep.png")
    choose_picture(tab, tmp_path / "deep.png", "no effusion")
    bare(tab)

    def halves() -> tuple[float, float]:
        seen = pixels(canvas(tab))[20:-20]
        return seen[:, 20 : seen.shape[1] // 2 - 20].mean(), seen[:, seen.shape[1] // 2 + 20 : -20].mean()

    assert halves() == (117, 117)
    assert tab.get_by_label("Greys").first.input_value() == "given"
    tab.get_by_label("Greys").first.select_option("contrast")
    assert halves() == (0, 255)
    tab.get_by_role("button", name="Invert").first.click()
    assert halves() == (255, 0)
    tab.get_by_role("button", name="Reset").first.click()
    assert halves() == (117, 117)
    over(tab, 0.5, 0.5)
    tab.mouse.down(button="right")
    over(tab, 0.45, 0.5)
    tab.mouse.up(button="right")
    assert halves()[0] == halves()[1]  # 95 % of the range is no narrow window


def test_a_picture_that_looks_inverted_has_a_hint(tab: Any, page: Served, tmp_path: Path) -> None:
    hint = tab.locator(".egma-hint").first
    assert not hint.is_visible()
    radiograph = page.corpus.examples[0]["image"]
    ImageOps.invert(radiograph.convert("L")).save(tmp_path / "inverted.png")  # type: ignore[attr-defined]
    choose_picture(tab, tmp_path / "inverted.png", "no effusion")
    assert hint.is_visible()


# --- the overlay, and guidance that waits ---


def test_holding_a_key_hides_the_maps(tab: Any) -> None:
    canvas(tab).focus()
    before = pixels(canvas(tab))
    tab.keyboard.down("h")
    assert np.ptp(pixels(canvas(tab)), axis=2)[8:-8, 8:-8].max() == 0
    tab.keyboard.up("h")
    assert np.abs(pixels(canvas(tab)) - before).max() == 0


def test_who_looks_first_asks_for_the_maps(chromium: Any, page: Served) -> None:
    context = chromium.new_context(viewport={"width": 1280, "height": 900})
    for visit in range(2):
        tab = context.new_page()
        tab.goto(page.url)
        tab.wait_for_selector(".egma-lines button")
        settle(tab)
        if visit == 0:
            tab.get_by_label("I look first").first.check()
        assert np.ptp(pixels(canvas(tab)), axis=2)[8:-8, 8:-8].max() == 0
        assert not tab.locator(".egma-strip").first.is_visible() and not tab.locator(".egma-scores").first.is_visible()
        tab.get_by_role("button", name="Show the maps").first.click()
        assert np.ptp(pixels(canvas(tab)), axis=2)[8:-8, 8:-8].max() > 50
        assert tab.locator(".egma-strip").first.is_visible()
        tab.close()
    context.close()


def test_one_scale_for_all_sentences(tab: Any, page: Served, tmp_path: Path) -> None:
    sentences = ["no pleural effusion", "the heart is normal", "left lower lobe opacity"]
    path = write_image(tmp_path, "picture.png", 160, 160)
    choose_picture(tab, path, "\n".join(sentences))
    maps = [line["map"] for line in _lines(page, path, sentences)]
    legend = tab.locator(".egma-legend:visible span")
    for place in range(3):
        tab.locator(".egma-lines button").nth(place).click()
        assert legend.all_inner_texts()[1:] == [f"{np.min(maps):.2f}", f"{np.max(maps):.2f}"]
    tab.get_by_label("Each its own scale").first.check()
    assert legend.all_inner_texts()[1:] == [f"{np.min(maps[2]):.2f}", f"{np.max(maps[2]):.2f}"]


def _lines(page: Served, path: Path, sentences: list[str]) -> list[dict[str, Any]]:
    from egma.page.inputs import open_picture

    session = Session(report=sentences)
    session.show(open_picture(path))
    lines: list[dict[str, Any]] = align_view(page.model, session, page.corpus.references(page.model))["lines"]
    return lines


def test_what_is_denied_is_marked_and_the_first_that_is_not_is_shown(tab: Any, tmp_path: Path) -> None:
    sentences = ["no pleural effusion", "the heart is normal", "left lower lobe opacity"]
    choose_picture(tab, write_image(tmp_path, "picture.png", *WIDE), "\n".join(sentences))
    marks = tab.locator(".egma-lines button").evaluate_all(
        "all => all.map((one) => one.querySelector('.egma-absent')?.textContent ?? '')"
    )
    assert marks == ["negated", "normal", ""]
    assert tab.locator(".egma-lines [aria-pressed=true] .egma-text").inner_text() == sentences[2]
    assert tab.locator(".egma-rank").count() == 3 and "of " in tab.locator(".egma-rank").first.inner_text()


# --- files ---


@pytest.fixture
def saved(tab: Any, tmp_path: Path) -> Iterator[Any]:
    def save(name: str) -> bytes:
        with tab.expect_download() as download:
            tab.get_by_role("button", name=f"Save as {name}").first.click()
        download.value.save_as(tmp_path / name)
        assert download.value.suggested_filename == f"egma.{name.lower()}"
        return (tmp_path / name).read_bytes()

    yield save


def test_the_picture_is_saved_with_its_legend_and_a_warning(tab: Any, saved: Any, tmp_path: Path) -> None:
    hostile = 'opacity <script>alert(1)</script> & "quoted"'
    choose_picture(tab, write_image(tmp_path, "picture.png", *WIDE), hostile)
    svg = saved("SVG").decode()
    tree = ElementTree.fromstring(svg)
    words = [node.text or "" for node in tree.iter("{http://www.w3.org/2000/svg}text")]
    assert words[0] == f"“{hostile}”" and words[1].startswith("cosine ")
    assert words[2] == "Model: tiny" and words[3].startswith("Not for diagnosis")
    assert {node.tag.rpartition("}")[2] for node in tree.iter()} == {"svg", "rect", "image", "text"}
    image = Image.open(io.BytesIO(saved("PNG"))).convert("RGB")
    assert image.width == 1024 and image.height > 512
    seen = np.asarray(image, dtype=np.float64)
    assert np.ptp(seen[:512], axis=2).max() > 50  # the map in colour
    assert seen[512:].min() < 60 and np.median(seen[512:]) == 255  # words on white


def test_numbers_are_saved_as_they_are_shown(tab: Any, page: Served, saved: Any, tmp_path: Path) -> None:
    sentences = ["no pleural effusion, seen", "=1+1 opacity"]
    path = write_image(tmp_path, "picture.png", *WIDE)
    choose_picture(tab, path, "\n".join(sentences))
    expected = _lines(page, path, sentences)
    stored = json.loads(saved("JSON"))
    assert stored["model"] == "tiny" and stored["notice"] == "not for diagnosis"
    for line, other in zip(stored["lines"], expected, strict=True):
        assert line["map"] == pytest.approx(other["map"], abs=2e-4) and line["text"] == other["text"]
    rows = list(csv.reader(io.StringIO(saved("CSV").decode())))
    assert [row[0] for row in rows] == ["text", sentences[0], f"'{sentences[1]}"]
    assert [float(value) for value in rows[1][-len(expected[0]["map"]) :]] == stored["lines"][0]["map"]


# --- keys and access ---


def test_keys_are_listed(tab: Any) -> None:
    canvas(tab).focus()
    tab.keyboard.press("?")
    listed = tab.locator("dialog[open] kbd").all_inner_texts()
    assert {"+", "-", "0", "i", "1", "[", "]", ",", ".", "h", "o", "b", "c", "m", "?"} <= set(listed)
    tab.keyboard.press("Escape")
    assert tab.locator("dialog[open]").count() == 0
    tab.locator("#report textarea").focus()
    tab.keyboard.type("i?")  # where one types, keys are letters
    assert tab.locator("dialog[open]").count() == 0 and not tab.evaluate("egma.display.level.inverted")


def test_lines_and_maps_are_one_stop_for_the_tab_key(tab: Any) -> None:
    stops = ".egma-viewer:visible :is(.egma-lines, .egma-strip) button"
    assert tab.locator(stops).evaluate_all("all => all.filter((one) => one.tabIndex === 0).length") == 1
    lines = tab.locator(".egma-lines button")
    lines.nth(0).focus()
    tab.keyboard.press("ArrowDown")
    assert lines.nth(1).evaluate("one => one === document.activeElement")
    tab.keyboard.press("ArrowDown")
    tab.keyboard.press("Enter")
    assert lines.nth(2).get_attribute("aria-pressed") == "true"


def test_a_line_and_its_map_lead_to_each_other(tab: Any) -> None:
    lines, maps = (tab.locator(f".egma-viewer:visible .egma-{group} button") for group in ("lines", "strip"))

    def focused(group: Any, place: int) -> bool:
        return bool(group.nth(place).evaluate("one => one === document.activeElement"))

    lines.nth(1).focus()
    tab.keyboard.press("ArrowRight")
    assert focused(maps, 1)
    for key in ("ArrowRight", "Enter"):
        tab.keyboard.press(key)
    assert focused(maps, 2) and lines.nth(2).get_attribute("aria-pressed") == "true"
    for key in ("ArrowUp", "ArrowUp"):
        tab.keyboard.press(key)
    assert focused(lines, 1)
    tab.keyboard.press("Enter")
    assert maps.nth(1).get_attribute("aria-pressed") == "true"
    lines.nth(3).hover()
    tab.mouse.move(5, 5)
    maps.nth(3).hover()
    shown = tab.locator(".egma-viewer:visible [data-shown]").evaluate_all("all => all.map((one) => one.dataset.place)")
    assert shown == ["3", "3"]


def test_the_image_takes_most_of_a_wide_screen(chromium: Any, page: Served) -> None:
    tab = chromium.new_page(viewport={"width": 1440, "height": 900})
    tab.goto(page.url)
    tab.wait_for_selector(".egma-lines button")
    settle(tab)
    shares = [canvas(tab).bounding_box()["width"] / 1440]
    tab.get_by_role("button", name="Left column").first.click()
    assert not tab.locator("#report").is_visible()
    assert shares[0] > 0.5 and canvas(tab).bounding_box()["width"] >= shares[0] * 1440
    tab.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_no_fault(chromium: Any, page: Served, scheme: str) -> None:
    tab = chromium.new_page(viewport={"width": 1280, "height": 900}, color_scheme=scheme, reduced_motion="reduce")
    tab.goto(f"{page.url}?__theme={scheme}")
    tab.wait_for_selector(".egma-lines button")
    found = []
    for name in ("Align", "Gaze", "Classify", "Retrieve", "Record", "About"):
        go(tab, name)
        if name == "Classify":
            tab.get_by_role("button", name="Score the findings").click()
            tab.locator(".egma-viewer:visible .egma-lines button").nth(3).wait_for()
        if name == "Retrieve":
            tab.get_by_role("button", name="Find images that fit the text").click()
            tab.locator(".egma-found li").first.wait_for()
        tab.wait_for_timeout(500)  # what is being computed is pale until it is done
        found += [(name, *fault) for fault in axe_faults(tab)]
    tab.close()
    assert found == []


# --- gaze ---


def test_time_starts_at_0_and_keys_move_it(tab: Any) -> None:
    go(tab, "Gaze")
    clock, slider = tab.locator(".egma-player .egma-clock"), tab.get_by_label("Time", exact=True)
    assert clock.inner_text().startswith("0.0 s of")
    canvas(tab, "player").focus()
    for key, shown in (("ArrowRight", "1.0 s"), ("ArrowRight", "2.0 s"), ("ArrowLeft", "1.0 s")):
        tab.keyboard.press(key)
        assert clock.inner_text().startswith(shown)
    slider.focus()
    tab.keyboard.press("ArrowRight")
    assert clock.inner_text().startswith("2.0 s") and slider.get_attribute("aria-valuetext").startswith("2.0 s")
    tab.keyboard.press(" ")
    tab.get_by_role("button", name="Pause").wait_for()
    tab.keyboard.press(" ")
    tab.get_by_role("button", name="Play", exact=True).wait_for()


def test_seeking_back_shows_the_sentence_of_that_moment_and_its_window(tab: Any, page: Served) -> None:
    go(tab, "Gaze")
    reading = page.corpus.examples[0]
    sentences, fixations = reading["sentences"], reading["fixations"]
    assert fixations is not None
    first = min(fixations["start"][0], *(one["start_seconds"] for one in sentences))
    slider, spoken = tab.get_by_label("Time", exact=True), tab.locator(".egma-spoken")
    slider.fill(f"{sentences[-1]['end_seconds'] - 0.1:.2f}")
    assert sentences[-1]["text"] in spoken.inner_text()
    gap = (sentences[0]["end_seconds"] + sentences[1]["start_seconds"]) / 2
    slider.fill(f"{gap:.2f}")
    assert sentences[0]["text"] in spoken.inner_text()
    slider.fill(f"{first:.2f}")
    assert sentences[0]["text"] in spoken.inner_text()
    left, width = tab.locator(".egma-track-scored").evaluate("one => [one.style.left, one.style.width].map(parseFloat)")
    last = max(fixations["start"][-1] + fixations["duration"][-1], *(one["end_seconds"] for one in sentences))
    lead = page.model.lead_seconds
    start, end = (max(sentences[0][f"{side}_seconds"] - lead - first, 0) for side in ("start", "end"))
    assert (left, left + width) == pytest.approx((100 * start / (last - first), 100 * end / (last - first)), abs=0.1)


def test_gaze_lies_on_the_models_map_too(tab: Any) -> None:
    go(tab, "Gaze")
    slider = tab.get_by_label("Time", exact=True)
    slider.fill(str(float(slider.get_attribute("min")) + 5))
    before = pixels(canvas(tab, "player", 1))
    tab.get_by_label("Gaze on the model's map, too").check()
    assert np.abs(pixels(canvas(tab, "player", 1)) - before).max() > 50
