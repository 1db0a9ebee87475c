"""How soon the page answers, with a model of usual size: `python -m benchmarks.page`. See benchmarks/README.md."""

import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from gradio_client import Client, handle_file
from PIL import Image
from transformers import BertConfig, BertTokenizer, SwinConfig

from benchmarks.parts import ROOT, run_parts
from dataset_scripts import build
from dataset_scripts.phantom import write_phantom
from modeling_egma import EgmaConfig, EgmaModel, EgmaProcessor

READINGS, REPEATS, CROWDS = 60, 10, (16, 24)
FRAMES_SECONDS, PAUSE_SECONDS = 5, 0.3
SENTENCES = ("There is a left pleural effusion.", "The heart is enlarged.", "No pneumothorax is seen.")
COUNT_FRAMES = """
window.drawnFrames = 0;
let last = null;
const drawn = CanvasRenderingContext2D.prototype.drawImage;
CanvasRenderingContext2D.prototype.drawImage = function (image, ...place) {
  const frame = document.timeline.currentTime; // the same for all that is drawn of one
  if (frame !== last && this.canvas.closest(".egma-player")) window.drawnFrames += 1;
  last = frame;
  return drawn.call(this, image, ...place);
};
"""

ANOTHER_LINE = """
() => new Promise((resolve) => {
  const list = document.querySelector(".egma-lines");
  const [lines, begun] = [list.children.length, performance.now()];
  const look = () => (list.children.length > lines ? resolve(performance.now() - begun) : requestAnimationFrame(look));
  [...document.querySelectorAll("button")].find((one) => one.textContent.includes("Show where")).click();
  look();
})
"""
CHOSEN_LINE = """
(place) => new Promise((resolve) => {
  const begun = performance.now();
  document.querySelectorAll(".egma-lines button")[place].click();
  requestAnimationFrame(() => setTimeout(() => resolve(performance.now() - begun)));
})
"""
WORDS = "there is a an the in of no left right pleural effusion heart enlarged pneumothorax seen opacity lung number"


def page(folder: Path) -> None:
    """Start-up, first map, another sentence, playback, many visitors at once."""
    corpus, model = _corpus(folder), _model(folder)
    picture = folder / "radiograph.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (3056, 2544), dtype=np.uint8)).save(picture)
    with _started(model, corpus) as (url, startup):
        print(f"start-up, until the page is answered: {startup:.1f} s")
        client = Client(url, verbose=False)
        first = _seconds(lambda: client.predict(handle_file(str(picture)), "\n".join(SENTENCES), api_name="/align"))
        print(f"first maps: picture of 2544 x 3056 pixels, {len(SENTENCES)} sentences: {first:.2f} s")
        _browse(url)
        # as a radiograph is kept: noise would fill the quota of the one address that they all come from
        smooth = folder / "radiograph.jpg"
        Image.open(picture).resize((318, 382)).resize((2544, 3056)).save(smooth)
        for visitors in CROWDS:
            _crowd(url, smooth, visitors)


def _crowd(url: str, picture: Path, visitors: int) -> None:
    clients = [Client(url, verbose=False) for _ in range(visitors)]
    inputs = (handle_file(str(picture)), "\n".join(SENTENCES))
    with ThreadPoolExecutor(visitors) as pool:
        took = list(pool.map(lambda one: _seconds(lambda: one.predict(*inputs, api_name="/align")), clients))
    print(f"{visitors} align at once, no error: median {statistics.median(took):.1f} s, {max(took):.1f} s at most")


def _browse(url: str) -> None:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path="/usr/bin/chromium", args=["--no-sandbox", "--disable-gpu"]
        )
        tab = browser.new_page(viewport={"width": 1280, "height": 900})
        tab.add_init_script(COUNT_FRAMES)
        opened = _seconds(lambda: (tab.goto(url), tab.wait_for_selector(".egma-lines button")))
        print(f"in the browser, until the first example shows its maps: {opened:.2f} s")
        chosen = [float(tab.evaluate(CHOSEN_LINE, number % len(SENTENCES))) for number in range(1, 1 + REPEATS)]
        print(f"a sentence of the report is chosen, until its map is on the screen: {statistics.median(chosen):.0f} ms")
        others = [_another(tab, number) for number in range(REPEATS)]
        print(f"a sentence more, from the click until its line is there: {statistics.median(others):.0f} ms")
        tab.get_by_role("tab", name="Gaze").click()
        tab.get_by_role("button", name="Play", exact=True).click()
        before = tab.evaluate("window.drawnFrames")
        tab.wait_for_timeout(1000 * FRAMES_SECONDS)
        shown = (tab.evaluate("window.drawnFrames") - before) / FRAMES_SECONDS
        print(f"playback: {shown:.0f} frames a second")
        browser.close()


def _another(tab: Any, number: int) -> float:
    report = tab.locator("#report textarea")
    report.fill(f"{report.input_value()}\nThere is an opacity in the lung, number {number}.")
    tab.wait_for_timeout(1000 * PAUSE_SECONDS)
    return float(tab.evaluate(ANOTHER_LINE))


@contextmanager
def _started(model: Path, corpus: Path) -> Iterator[tuple[str, float]]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    url, begun = f"http://127.0.0.1:{port}/", time.perf_counter()
    command = [sys.executable, str(ROOT / "app.py"), "--model", str(model), "--data", str(corpus), "--port", str(port)]
    with tempfile.TemporaryFile() as said, subprocess.Popen(command, stdout=said, stderr=said) as process:
        try:
            while not _answers(url):
                if process.poll() is not None:
                    said.seek(0)
                    raise SystemExit(said.read().decode())
                time.sleep(0.05)
            yield url, time.perf_counter() - begun
        finally:
            process.terminate()


def _answers(url: str) -> bool:
    try:
        return httpx.get(url, timeout=2).status_code == 200
    except httpx.HTTPError:
        return False


def _model(folder: Path) -> Path:
    """Swin-Tiny and a text encoder of BERT-base's shape, with random weights."""
    target = folder / "page_model"
    if not target.is_dir():
        words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS.split()]
        tokenizer = BertTokenizer(vocab={word: place for place, word in enumerate(words)}, model_max_length=512)
        config = EgmaConfig(vision_config=SwinConfig().to_dict(), text_config=BertConfig().to_dict())
        EgmaModel(config).save_pretrained(target)
        EgmaProcessor.for_model(config, tokenizer).save_pretrained(target)
    return target


def _corpus(folder: Path) -> Path:
    target = folder / "page_data"
    if not target.is_dir():
        write_phantom(folder / "page_raw", readings=READINGS, seed=0)
        build.main(["mimic_eye", "--source", str(folder / "page_raw"), "--output", str(target)])
    return target


def _seconds(work: Callable[[], Any]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


if __name__ == "__main__":
    run_parts(__doc__, {"page": page})
