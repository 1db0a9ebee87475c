"""A recording that was not downloaded is offered again by the browser that made it."""

from typing import Any

from tests.egma.page.browsing import canvas, go, needs_chromium
from tests.egma.page.conftest import Served

pytestmark = needs_chromium
NOT_DOWNLOADED = "was not downloaded"


def record(tab: Any, words: str = "left lower lobe opacity") -> None:
    go(tab, "Record")
    tab.get_by_role("button", name="Start").click()
    over = canvas(tab, "recorder").bounding_box()
    tab.mouse.move(over["x"] + 50, over["y"] + 50)
    tab.wait_for_timeout(700)
    tab.keyboard.type(words)
    tab.keyboard.press("Enter")


def reload(tab: Any) -> None:
    tab.reload()
    tab.wait_for_selector(".egma-lines button")
    go(tab, "Record")


def test_after_a_reload_it_is_restored_over_its_own_picture_and_gone_when_downloaded(tab: Any, page: Served) -> None:
    tab.on("dialog", lambda dialog: dialog.accept())
    record(tab)
    tab.get_by_label("Reader (optional)").fill("anna")
    tab.get_by_label("Sentence 1").fill("left lower lobe opacity, large")
    reload(tab)
    restore = tab.get_by_role("button", name="Restore")
    assert NOT_DOWNLOADED in tab.locator(".egma-recorder").inner_text() and restore.is_enabled()
    tab.locator(".egma-thumbnails button").nth(1).click()
    tab.get_by_text("over its own picture").wait_for()
    assert restore.is_disabled()
    tab.locator(".egma-thumbnails button").nth(0).click()
    tab.get_by_text("over its own picture").wait_for(state="detached")
    restore.click()
    assert tab.get_by_label("Sentence 1").input_value() == "left lower lobe opacity, large"
    assert tab.get_by_label("Reader (optional)").input_value() == "anna"
    assert restore.count() == 0
    tab.get_by_role("button", name="Finish").click()
    tab.get_by_text("in 1 sentences; see them").wait_for()
    assert tab.evaluate("Object.keys(localStorage).filter((key) => key.startsWith('egma')).length") == 1
    with tab.expect_download():
        tab.click(".egma-download >> nth=0")
    reload(tab)
    assert NOT_DOWNLOADED not in tab.locator(".egma-recorder").inner_text()


def test_it_is_discarded_by_a_person_alone(tab: Any, page: Served) -> None:
    tab.on("dialog", lambda dialog: dialog.accept())
    record(tab)
    reload(tab)
    record(tab, "another one")  # does not take the place of the first
    reload(tab)
    discard = tab.get_by_role("button", name="Discard it")
    assert discard.count() == 2
    discard.first.click()
    reload(tab)
    assert discard.count() == 1
    tab.get_by_role("button", name="Restore").click()
    tab.get_by_role("button", name="Discard", exact=True).click()
    reload(tab)
    assert discard.count() == 0
