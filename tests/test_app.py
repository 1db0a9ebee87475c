"""The page: what it shows and what it refuses."""

import re
import socket
from pathlib import Path

import gradio as gr
import numpy as np
import pytest
from gradio_client import Client, handle_file
from gradio_client.exceptions import AppError
from PIL import Image

import app
from modeling_egma import EgmaModel, EgmaProcessor

WIDE = Image.fromarray(np.random.default_rng(0).integers(0, 255, (60, 100), dtype=np.uint8))


def test_sentences_end_at_lines_and_full_stops() -> None:
    assert app.split_sentences("The heart is large. No effusion\n\nlungs clear.") == [
        "The heart is large.",
        "No effusion",
        "lungs clear.",
    ]


def test_an_overlay_a_sentence_at_image_size(tiny_model: EgmaModel, processor: EgmaProcessor) -> None:
    shown = app.sentence_overlays(tiny_model, processor, WIDE, ["heart normal", "no effusion"])
    assert [image.size for image, _ in shown] == [(100, 60)] * 2
    assert all(re.fullmatch(r".+ \(-?\d\.\d\d\)", caption) for _, caption in shown)


def test_overlay_colours_where_the_map_is_high_and_keeps_the_rest() -> None:
    heat = np.zeros((60, 100))
    heat[20, 30] = 1
    shown, original = np.asarray(app.overlay(WIDE.convert("RGB"), heat)), np.asarray(WIDE.convert("RGB"))
    changed = np.argwhere((shown != original).any(axis=-1))
    assert changed.tolist() == [[20, 30]]


def test_constant_map_is_no_division_by_zero() -> None:
    assert app.overlay(WIDE.convert("RGB"), np.ones((60, 100))).size == (100, 60)


@pytest.mark.parametrize(
    ("image", "sentences", "message"),
    [(None, ["a"], "Choose an image"), (WIDE, [], "at least one sentence"), (WIDE, ["a"] * 25, "at most 24")],
)
def test_faults_are_told_in_words(image: Image.Image | None, sentences: list[str], message: str) -> None:
    with pytest.raises(gr.Error, match=message):
        app.check_input(image, sentences)


def test_without_a_demo_model_it_says_what_to_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(app, "DEMO", tmp_path)
    assert app.main(["--model", str(tmp_path / "egma")]) == 2
    assert "run `make demo` first" in capsys.readouterr().err


def test_page_answers_over_its_api(tiny_model: EgmaModel, processor: EgmaProcessor, tmp_path: Path) -> None:
    WIDE.save(tmp_path / "wide.png")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    page = app.build_page(tiny_model, processor, [])
    page.launch(server_name="127.0.0.1", server_port=port, prevent_thread_lock=True, quiet=True)
    try:
        client = Client(f"http://127.0.0.1:{port}/", verbose=False)
        shown = client.predict(handle_file(str(tmp_path / "wide.png")), "heart normal\nno effusion", api_name="/align")
        assert [item["caption"].rsplit(" ", 1)[0] for item in shown] == ["heart normal", "no effusion"]
        with pytest.raises(AppError, match="Choose an image"):
            client.predict(None, "heart normal", api_name="/align")
    finally:
        page.close()
