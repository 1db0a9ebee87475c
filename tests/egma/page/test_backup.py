"""A recording that was not downloaded is offered again by the browser that made it."""

import json
from pathlib import Path
from typing import Any

from dataset_scripts import build
from tests.egma.page.browsing import canvas, choose_picture, download_recordings, go, needs_chromium, write_image
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


def test_after_a_reload_it_is_restored_over_its_own_picture_and_gone_when_downloaded(tab: Any, tmp_path: Path) -> None:
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
    download_recordings(tab, tmp_path)
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


def test_what_is_typed_but_not_yet_a_sentence_is_restored_as_one(tab: Any, page: Served) -> None:
    tab.on("dialog", lambda dialog: dialog.accept())
    record(tab)
    tab.keyboard.type("the heart is nor")
    reload(tab)
    tab.get_by_role("button", name="Restore").click()
    assert tab.get_by_label("Sentence 1").input_value() == "left lower lobe opacity"
    assert tab.get_by_label("Sentence 2").input_value() == "the heart is nor"
    tab.get_by_role("button", name="Discard", exact=True).click()


# --- all in one file ---


def finish(tab: Any, words: str) -> None:
    record(tab, words)
    tab.get_by_role("button", name="Finish").click()
    tab.get_by_text("in 1 sentences; see them").wait_for()


def test_all_recordings_come_in_one_file_and_nothing_is_asked_or_kept_then(tab: Any, tmp_path: Path) -> None:
    asked: list[str] = []
    tab.on("dialog", lambda dialog: (asked.append(dialog.type), dialog.accept()))
    everything = tab.get_by_role("button", name="Download all recordings")
    said = ["first", "second", "third"]
    for number, size in enumerate([(320, 160), (320, 160), (160, 320)]):  # two of one picture, a third of the same name
        (tmp_path / str(number)).mkdir()
        choose_picture(tab, write_image(tmp_path / str(number), "case.png", *size), f"picture {number}")
        if number == 0:
            go(tab, "Record")
            assert not everything.is_visible()
        finish(tab, said[number])
        assert everything.inner_text() == f"Download all recordings ({number + 1}) in one ZIP"
    assert asked == []  # what is finished is not lost by another picture, or another recording
    assert tab.evaluate("Object.keys(localStorage).length") == 3
    assert NOT_DOWNLOADED not in tab.locator(".egma-recorder").inner_text()
    download_recordings(tab, tmp_path / "raw")
    names = sorted(path.name for path in (tmp_path / "raw").iterdir())
    readings = [json.loads((tmp_path / "raw" / name).read_text()) for name in names if name.endswith(".json")]
    pictures = [name for name in names if name.endswith(".png")]
    assert len(readings) == 3 and len(pictures) == 2
    by_words = {reading["sentences"][0]["text"]: reading for reading in readings}
    assert [by_words[words]["image"] == by_words["first"]["image"] for words in said] == [True, True, False]
    assert all(reading["image"] == f"{reading['image_id']}.png" in pictures for reading in readings)
    assert build.main(["tracker", "--source", str(tmp_path / "raw"), "--output", str(tmp_path / "data")]) == 0
    splits = json.loads((tmp_path / "data" / "conversion_report.json").read_text())["splits"]
    assert sum(split["readings"] for split in splits.values()) == 3
    assert tab.evaluate("Object.keys(localStorage).length") == 0
    reload(tab)
    assert asked == [] and NOT_DOWNLOADED not in tab.locator(".egma-recorder").inner_text()


def test_a_finished_recording_that_is_not_downloaded_is_asked_for_and_offered_again(tab: Any, page: Served) -> None:
    asked: list[str] = []
    tab.on("dialog", lambda dialog: (asked.append(dialog.type), dialog.accept()))
    everything = tab.get_by_role("button", name="Download all recordings")
    go(tab, "Record")
    finish(tab, "an opacity")
    tab.get_by_label("Sentence 1").fill("an effusion")  # the files are no longer what is written
    assert not everything.is_visible()
    tab.get_by_role("button", name="Finish").click()
    tab.get_by_text("in 1 sentences; see them").wait_for()
    tab.get_by_role("button", name="Start").click()
    assert asked == [] and everything.is_visible()
    tab.get_by_role("button", name="Discard", exact=True).click()  # the new one, which has nothing yet
    tab.evaluate("setTimeout(() => location.reload())")
    tab.wait_for_timeout(500)
    assert asked[-1] == "beforeunload"
    tab.wait_for_selector(".egma-lines button")
    go(tab, "Record")
    tab.get_by_role("button", name="Restore").click()
    assert tab.get_by_label("Sentence 1").input_value() == "an effusion"
    tab.get_by_role("button", name="Discard", exact=True).click()
