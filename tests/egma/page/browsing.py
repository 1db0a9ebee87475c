"""A real browser: Debian's Chromium, driven by playwright."""

import io
import shutil
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
FLAGS = [
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync"),
]
needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium: apt-get install chromium")


@contextmanager
def browser() -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        try:
            yield started
        finally:
            started.close()


def pixels(locator: Any) -> NDArray[np.float64]:
    """What the screen shows of an element, (height, width, 3)."""
    return np.asarray(Image.open(io.BytesIO(locator.screenshot())).convert("RGB"), dtype=np.float64)


def write_image(folder: Path, name: str, width: int, height: int) -> Path:
    """A dark picture of noise, so that every patch differs and a bright overlay stands out."""
    values = np.random.default_rng(width).integers(0, 60, (height // 8, width // 8), dtype=np.uint8)
    path = folder / name
    Image.fromarray(values).resize((width, height), Image.Resampling.BICUBIC).save(path)
    return path


def go(tab: Any, name: str) -> None:
    tab.get_by_role("tab", name=name).click()
    settle(tab)


def settle(tab: Any) -> None:
    """Wait until a view that was opened is there to stay.

    Gradio gives its components their first values one frame after it has shown them, over what was typed until then.
    """
    tab.locator("[role=tabpanel]:visible").locator(".block, .prose").first.wait_for()
    tab.evaluate("() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")


def upload(tab: Any, where: str, path: Path) -> None:
    """Give a file and wait until the component has it: a button that is pressed before does nothing."""
    tab.locator(f"#{where} input[type=file]").set_input_files(path)
    tab.locator(f"#{where} .file-preview").wait_for()


def axe_faults(tab: Any) -> list[tuple[str, list[str]]]:
    """What axe-core finds against WCAG 2.1 AA, with the elements."""
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="needs axe-playwright-python").Axe()
    levels = {"runOnly": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa"], "resultTypes": ["violations"]}
    found = axe.run(tab, options=levels).response["violations"]
    return [(fault["id"], [node["html"][:150] for node in fault["nodes"]]) for fault in found]


def canvas(tab: Any, kind: str = "viewer", place: int = 0) -> Any:
    return tab.locator(f".egma-{kind}:visible .egma-stage canvas").nth(place)


def choose_picture(tab: Any, path: Path, report: str) -> None:
    settle(tab)
    tab.locator("#report textarea").fill(report)
    tab.locator("#radiograph input[type=file]").set_input_files(path)
    tab.wait_for_function("() => document.querySelectorAll('.egma-lines button').length > 0")
    tab.wait_for_function(
        "text => document.querySelector('.egma-lines .egma-text')?.textContent === text", arg=report.splitlines()[0]
    )


def download_recordings(tab: Any, folder: Path) -> None:
    with tab.expect_download() as download:
        tab.get_by_role("button", name="Download all recordings").click()
    assert download.value.suggested_filename == "egma_recordings.zip"
    with zipfile.ZipFile(download.value.path()) as opened:
        assert opened.testzip() is None
        opened.extractall(folder)
