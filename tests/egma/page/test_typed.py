"""What a person typed is still there after a reload, and nobody else's."""

from collections.abc import Iterator
from typing import Any

import pytest

from egma.page.page import SAMPLE_QUERY
from tests.egma.page.browsing import go, needs_chromium, settle
from tests.egma.page.conftest import Served

pytestmark = needs_chromium
REPORT, QUERY, PROMPTS = "a large opacity\nno effusion", "heart enlarged", "Mass: a mass"
LEAVING_SECONDS = 1.2  # until what comes in place of the kept counts


@pytest.fixture
def own(chromium: Any, page: Served) -> Iterator[Any]:
    """A tab of a browser of one's own."""
    context = chromium.new_context(viewport={"width": 1280, "height": 900})
    tab = context.new_page()
    open_page(tab, page)
    settle(tab)
    tab.wait_for_timeout(1000 * LEAVING_SECONDS)
    yield tab
    context.close()


def open_page(tab: Any, page: Served) -> None:
    tab.goto(page.url)
    tab.wait_for_selector(".egma-lines button")


def holds(tab: Any, name: str, text: str) -> None:
    field = f"document.querySelector('#{name} :is(textarea, input)')"
    tab.wait_for_function(f"text => {field}?.value === text", arg=text)


def type_all(tab: Any) -> None:
    for where, name, text in ((None, "report", REPORT), ("Classify", "prompts", PROMPTS), ("Retrieve", "query", QUERY)):
        if where:
            go(tab, where)
        tab.locator(f"#{name} :is(textarea, input)").fill(text)


def first_report(page: Served) -> str:
    return "\n".join(sentence["text"] for sentence in page.corpus.examples[0]["sentences"])


def reload(tab: Any) -> None:
    tab.reload()
    tab.wait_for_selector(".egma-lines button")


def test_it_survives_reloads_until_it_is_cleared(own: Any, page: Served) -> None:
    type_all(own)
    for _ in range(2):  # also one that comes before the fields have their texts
        own.reload()
    own.wait_for_selector(".egma-lines button")
    holds(own, "report", REPORT)
    go(own, "Classify")
    holds(own, "prompts", PROMPTS)
    go(own, "Retrieve")
    holds(own, "query", QUERY)
    own.get_by_role("button", name="Show where").click()  # what is seen is what is sent
    go(own, "Align")
    own.wait_for_function("() => document.querySelector('.egma-lines .egma-text').textContent === 'a large opacity'")
    own.locator("#report textarea").fill("")
    reload(own)
    holds(own, "report", first_report(page))
    go(own, "Retrieve")
    holds(own, "query", QUERY)


def test_what_came_in_its_place_stays_in_its_place(own: Any, page: Served) -> None:
    own.locator("#report textarea").fill(REPORT)
    own.locator(".egma-thumbnails button").nth(1).click()
    second = "\n".join(sentence["text"] for sentence in page.corpus.examples[1]["sentences"])
    holds(own, "report", second)
    reload(own)
    holds(own, "report", first_report(page))
    own.wait_for_timeout(500)
    holds(own, "report", first_report(page))


def test_another_visit_and_another_tab_begin_anew(own: Any, page: Served) -> None:
    type_all(own)
    other = own.context.new_page()
    open_page(other, page)
    own.goto("about:blank")
    open_page(own, page)
    for tab in (other, own):
        tab.wait_for_timeout(500)
        holds(tab, "report", first_report(page))
        go(tab, "Retrieve")
        holds(tab, "query", SAMPLE_QUERY)


def test_a_browser_that_keeps_nothing_shows_the_page(chromium: Any, page: Served) -> None:
    context = chromium.new_context()
    context.add_init_script("""for (const kind of ["localStorage", "sessionStorage"]) {
        Object.defineProperty(window, kind, { get() { throw new DOMException("refused", "SecurityError"); } });
    }""")
    tab = context.new_page()
    faults: list[str] = []
    tab.on("pageerror", lambda error: faults.append(str(error)))
    open_page(tab, page)
    tab.locator("#report textarea").fill(REPORT)
    go(tab, "Record")
    tab.get_by_role("button", name="Start").click()
    tab.keyboard.type("no effusion")
    tab.keyboard.press("Enter")
    tab.get_by_text("no room for a backup of the recording").wait_for()
    context.close()
    assert faults == []
