"""What is sent is compressed and kept by the browser, and the benchmark measures what it says."""

from pathlib import Path

import httpx
import pytest

from benchmarks import page as benchmark
from tests.egma.page.browsing import browser, needs_chromium, write_image
from tests.egma.page.conftest import Served


def test_the_page_travels_compressed(page: Served) -> None:
    whole = httpx.get(page.url, headers={"accept-encoding": "identity"})
    with httpx.stream("GET", page.url, headers={"accept-encoding": "gzip, br"}) as answer:
        sent = sum(map(len, answer.iter_raw()))
        assert answer.headers["content-encoding"] == "gzip" and answer.headers["vary"] == "Accept-Encoding"
    print(f"{len(whole.content)} bytes, {sent} as they travel")
    assert sent < len(whole.content) / 3


@needs_chromium
def test_a_browser_that_comes_again_is_sent_no_page_and_no_script(page: Served) -> None:
    sizes = """() => performance.getEntries().filter((one) => !one.name.includes("gradio_api"))
        .map((one) => one.transferSize ?? 0)"""
    sent = []
    with browser() as chromium:
        tab = chromium.new_context().new_page()
        for _ in range(2):
            tab.goto(page.url)
            tab.wait_for_selector(".egma-lines button")
            tab.wait_for_function("() => performance.getEntriesByType('navigation')[0].loadEventEnd > 0")
            sent.append(sum(tab.evaluate(sizes)))
    whole = httpx.get(page.url).content
    assert whole == httpx.get(page.url).content  # the same, whatever people did
    print(f"{sent[0]} bytes at the first visit, {sent[1]} at the second")
    assert sent[0] > 200_000 and sent[1] < 20_000


def test_more_visitors_than_are_served_at_once_wait_and_are_not_refused(
    page: Served, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    benchmark._crowd(page.url, write_image(tmp_path, "picture.png", 64, 48), 24)
    assert "24 align at once, no error: median" in capsys.readouterr().out


@needs_chromium
def test_the_benchmark_measures_in_a_browser(
    page: Served, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(benchmark, "REPEATS", 2)
    monkeypatch.setattr(benchmark, "FRAMES_SECONDS", 1)
    benchmark._browse(page.url)
    said = capsys.readouterr().out
    assert all(part in said for part in ("until the first example", "a sentence more", "frames a second"))
