"""Takes the pictures of docs/page.md again: `python app.py` in one shell, `python docs/screenshots.py` in another.

Of a page with `--compare` it takes that of two models alone.
"""

import sys
from pathlib import Path
from typing import Any

from playwright.sync_api import sync_playwright

IMAGES = Path(__file__).with_name("images")
CHROMIUM = "/usr/bin/chromium"
WIDTH, HEIGHT = 1280, 1240
PHONE = {"viewport": {"width": 390, "height": 844}, "device_scale_factor": 2, "color_scheme": "dark"}


def main(url: str = "http://127.0.0.1:7860/") -> None:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        tab = browser.new_page(viewport={"width": WIDTH, "height": HEIGHT})
        tab.goto(url)
        tab.wait_for_selector(".egma-lines button")
        compared = tab.locator(".egma-two").count() > 0
        for name, prepare in {"compare": align}.items() if compared else VIEWS.items():
            tab.get_by_role("tab", name="Align" if compared else name.capitalize()).click()
            prepare(tab)
            tab.wait_for_timeout(700)
            tab.screenshot(path=IMAGES / f"page_{name}.png")
        if not compared:
            phone(browser, url)
        browser.close()


def phone(browser: Any, url: str) -> None:
    tab = browser.new_page(**PHONE)
    tab.goto(url)
    tab.locator(".egma-lines button").nth(1).click()
    tab.locator(".egma-viewer canvas").first.scroll_into_view_if_needed()
    tab.wait_for_timeout(700)
    tab.screenshot(path=IMAGES / "page_phone.png")


def align(tab: Any) -> None:
    tab.locator(".egma-lines button").nth(1).click()
    tab.mouse.move(5, 5)


def gaze(tab: Any) -> None:
    tab.locator(".egma-table tbody button").nth(1).click()
    tab.get_by_role("button", name="Play", exact=True).click()
    tab.wait_for_timeout(2000)
    tab.get_by_role("button", name="Pause").click()


def classify(tab: Any) -> None:
    tab.get_by_role("button", name="Score the findings").click()
    tab.locator(".egma-viewer:visible .egma-lines button").nth(3).wait_for()
    tab.mouse.wheel(0, 260)


def retrieve(tab: Any) -> None:
    tab.mouse.wheel(0, -1000)
    tab.get_by_role("button", name="Find images that fit the text").click()
    tab.locator(".egma-found li").first.wait_for()


def record(tab: Any) -> None:
    box = tab.locator(".egma-recorder canvas").bounding_box()
    tab.get_by_role("button", name="Start").click()
    for x, y, words in ((0.35, 0.35, "the right lung is clear."), (0.55, 0.7, "there is a hiatal hernia.")):
        for step in range(40):
            tab.mouse.move(box["x"] + (x + 0.001 * step) * box["width"], box["y"] + (y + 0.0008 * step) * box["height"])
            tab.wait_for_timeout(20)
        tab.get_by_label("The sentence").fill(words)
        tab.get_by_label("The sentence").press("Enter")


VIEWS = {"align": align, "gaze": gaze, "classify": classify, "retrieve": retrieve, "record": record}

if __name__ == "__main__":
    main(*sys.argv[1:])
