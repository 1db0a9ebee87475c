"""Classify and Retrieve as a person uses them, looked at on the screen."""

from typing import Any

import numpy as np

from dataset_scripts.schema import load_readings
from egma.page.inputs import picture_of
from egma.page.session import Session
from egma.page.views import picture_id
from tests.egma.page.browsing import canvas, go, needs_chromium, pixels
from tests.egma.page.conftest import Served

pytestmark = needs_chromium


def test_findings_with_prompts_that_the_user_edits(tab: Any) -> None:
    go(tab, "Classify")
    tab.get_by_label("Finding: prompt | prompt").fill("Effusion: pleural effusion is seen | effusion\nClear lungs")
    tab.get_by_role("button", name="Score the findings").click()
    tab.locator(".egma-viewer:visible .egma-lines button").nth(1).wait_for()
    lines = tab.locator(".egma-viewer:visible .egma-lines button")
    assert sorted(lines.locator(".egma-text").all_text_contents()) == ["Clear lungs", "Effusion"]
    assert lines.locator(".egma-bar").count() == 2
    assert "won of 2" in " ".join(lines.locator(".egma-detail").all_text_contents())
    own = [float(text.split(" · ")[0].split()[-1]) for text in lines.locator(".egma-scores").all_text_contents()]
    assert own == sorted(own, reverse=True)


def test_bars_are_as_long_as_they_say_and_labels_are_ticked(tab: Any, page: Served) -> None:
    go(tab, "Classify")
    tab.get_by_role("button", name="Score the findings").click()
    lines = tab.locator(".egma-viewer:visible .egma-lines button")
    lines.nth(1).wait_for()
    labels = {one["name"]: one["value"] for one in page.corpus.examples[0]["findings"]}
    for text in lines.all_inner_texts():
        name, said = text.splitlines()[:2]
        if name in labels:
            assert said == ["✗ marked absent", "✓ marked present", "? marked uncertain"][labels[name]], text
    shares = []
    for line in range(lines.count()):
        bar = lines.nth(line).locator(".egma-bar span")
        shares.append(bar.evaluate("one => one.clientWidth / one.parentElement.clientWidth"))
    assert shares == sorted(shares, reverse=True) and shares[0] > 0.1  # as the scores are
    assert bar.evaluate("one => one.parentElement.clientWidth") > 100


def test_what_is_refused_leaves_nothing_of_before(tab: Any) -> None:
    go(tab, "Classify")
    tab.get_by_role("button", name="Score the findings").click()
    tab.locator(".egma-viewer:visible .egma-lines button").nth(1).wait_for()
    tab.get_by_label("Finding: prompt | prompt").fill("Effusion:")
    tab.get_by_role("button", name="Score the findings").click()
    tab.get_by_text("has no prompt").wait_for()
    tab.get_by_text("Press the button to score them.").wait_for()
    assert tab.locator(".egma-bar:visible").count() == 0
    assert tab.locator(".block .error:visible").evaluate_all("all => all.map((one) => one.outerHTML)") == []


def test_images_for_a_text_and_reports_for_the_image(tab: Any, page: Served) -> None:
    go(tab, "Retrieve")
    tab.locator("#query textarea, #query input").fill("there is a pneumothorax.")
    tab.get_by_role("button", name="Find images that fit the text").click()
    tab.locator(".egma-found li").first.wait_for()
    validation = len(load_readings(page.corpus.folder, "validation"))
    assert 0 < tab.locator(".egma-found li").count() <= min(12, validation)
    assert all(tab.locator(".egma-found img").evaluate_all("all => all.map((one) => one.naturalWidth > 20)"))
    assert "generated: no patient exists" in tab.locator(".egma-results").inner_text()
    tab.get_by_role("button", name="Find reports that fit the radiograph").click()
    tab.get_by_text("late interaction").first.wait_for()


def test_a_result_opens_in_align_with_what_it_was_found_for(tab: Any, page: Served) -> None:
    go(tab, "Retrieve")
    tab.locator("#query textarea, #query input").fill("there is a pneumothorax.")
    tab.get_by_role("button", name="Find images that fit the text").click()
    result = tab.locator(".egma-found button")
    result.nth(1).focus()
    tab.keyboard.press("Enter")
    tab.wait_for_function("() => document.querySelectorAll('.egma-lines button').length === 1")
    assert tab.get_by_role("tab", name="Align").get_attribute("aria-selected") == "true"
    assert tab.locator("#report textarea").input_value() == "there is a pneumothorax."
    found = page.corpus.gallery(page.model, lambda batches, desc: batches).find_images(
        page.model, Session(), ["there is a pneumothorax."]
    )
    shown = picture_of(page.corpus.gallery(page.model, lambda *_: []).reading(found["items"][1]["place"]))
    assert tab.evaluate("id => egma.isShown(id)", arg=picture_id(shown))
    tab.wait_for_function("() => document.activeElement.matches('.egma-probed')")
    assert np.ptp(pixels(canvas(tab)), axis=2)[8:-8, 8:-8].max() > 50  # its map in colour
    go(tab, "Retrieve")
    tab.get_by_role("button", name="Find reports that fit the radiograph").click()
    tab.get_by_text("late interaction").first.wait_for()
    report = result.nth(0).locator("span > span").last.inner_text()
    result.nth(0).click()
    tab.wait_for_function("() => document.querySelector('#report textarea').value !== 'there is a pneumothorax.'")
    assert " ".join(tab.locator("#report textarea").input_value().splitlines()) == report
    assert tab.evaluate("id => egma.isShown(id)", arg=picture_id(shown))
