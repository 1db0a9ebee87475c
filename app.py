"""A page that shows where every sentence of a report looks: `make app`, or `python app.py --model DIR_or_ID`."""

import argparse
import os
import re
import sys
from pathlib import Path
from typing import Any

os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")

import gradio as gr
import matplotlib
import numpy as np
import torch
from PIL import Image
from transformers import AutoModel, AutoProcessor

import modeling_egma  # noqa: F401  registers the Auto classes
from dataset_scripts.schema import UserError, load_readings

DEMO = Path(__file__).resolve().parent / "runs" / "demo"
MAX_SENTENCES = 24
MAX_PIXELS = 32_000_000
OPACITY = 0.6
ABOUT = """Where each sentence of a report looks in a chest radiograph, by an EGMA model. **No medical device**: not for
diagnosis. The model of `make demo` is trained on generated pictures only and knows nothing of real ones."""


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default=str(DEMO / "egma"), help="folder or Hub id; default: the demo's")
    parser.add_argument("--data", type=Path, default=DEMO / "data", help="corpus whose test split gives the examples")
    parser.add_argument("--port", type=int, default=7860)
    arguments = parser.parse_args(argv)
    try:
        page = build_page(*load_model(arguments.model), examples(arguments.data))
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    page.launch(server_name="127.0.0.1", server_port=arguments.port, share=False)
    return 0


def load_model(name: str) -> tuple[Any, Any]:
    """Model and processor.

    Raises:
        UserError: there is none; says what to run.
    """
    if name == str(DEMO / "egma") and not Path(name).is_dir():
        raise UserError("there is no demo model yet; run `make demo` first, or name a model with --model")
    try:
        return AutoModel.from_pretrained(name, use_safetensors=True).eval(), AutoProcessor.from_pretrained(name)
    except (OSError, ValueError) as error:
        raise UserError(f"{name}: no model can be loaded from it ({str(error).splitlines()[0]})") from None


def examples(data: Path, count: int = 4) -> list[list[Any]]:
    """Image and report of the first test readings; none when there is no such corpus."""
    if not data.is_dir():
        return []
    rows = load_readings(data, "test")
    rows = rows.select(range(min(count, len(rows))))
    return [[row["image"], "\n".join(sentence["text"] for sentence in row["sentences"])] for row in rows]


def build_page(model: Any, processor: Any, page_examples: list[list[Any]]) -> gr.Blocks:
    """One page: an image and a report in, a heat map a sentence out."""

    def align(image: Image.Image | None, report: str) -> list[tuple[Image.Image, str]]:
        sentences = split_sentences(report)
        check_input(image, sentences)
        assert image is not None
        return sentence_overlays(model, processor, image, sentences)

    with gr.Blocks(title="EGMA", analytics_enabled=False, delete_cache=(600, 600)) as page:
        gr.Markdown(f"# EGMA\n{ABOUT}")
        with gr.Row():
            with gr.Column():
                image = gr.Image(type="pil", label="Chest radiograph", sources=["upload"])
                report = gr.Textbox(label="Report, one sentence a line", lines=6)
                button = gr.Button("Show where each sentence looks", variant="primary")
            gallery = gr.Gallery(label="Sentences with their scores", columns=2, object_fit="contain")
        if page_examples:
            gr.Examples(page_examples, [image, report])
        button.click(align, [image, report], gallery, api_name="align")
    return page


def split_sentences(report: str) -> list[str]:
    """Sentences of a typed report: a line or a full stop ends one."""
    return [part.strip() for part in re.split(r"\n|(?<=[.!?])\s+", report or "") if part.strip()]


def check_input(image: Image.Image | None, sentences: list[str]) -> None:
    """Refuse, in words for the page, what cannot be shown."""
    if image is None:
        raise gr.Error("Choose an image first.")
    if image.width * image.height > MAX_PIXELS:
        raise gr.Error(f"The image has {image.width} x {image.height} pixels; at most {MAX_PIXELS} are shown.")
    if not sentences:
        raise gr.Error("Type at least one sentence.")
    if len(sentences) > MAX_SENTENCES:
        raise gr.Error(f"The report has {len(sentences)} sentences; at most {MAX_SENTENCES} are shown.")


@torch.no_grad()
def sentence_overlays(
    model: Any, processor: Any, image: Image.Image, sentences: list[str]
) -> list[tuple[Image.Image, str]]:
    """For every sentence the image under its heat map, with the best patch's cosine as caption."""
    image = image.convert("RGB")
    batch = processor(images=[image], text=sentences)
    maps = model.get_similarity_map(batch["pixel_values"], batch["input_ids"], batch["attention_mask"])
    sized = processor.post_process_similarity_map(maps, [(image.height, image.width)])[0].numpy()
    scores = maps[0].amax(dim=(1, 2)).tolist()
    return [
        (overlay(image, heat), f"{sentence} ({score:.2f})")
        for heat, sentence, score in zip(sized, sentences, scores, strict=True)
    ]


def overlay(image: Image.Image, heat: np.ndarray) -> Image.Image:
    """Lay a map (H, W), scaled to its own range, over an image of that size; opaque where it is high."""
    strength = (heat - heat.min()) / max(float(np.ptp(heat)), 1e-9)
    color = matplotlib.colormaps["magma"](strength)[..., :3]
    opacity = OPACITY * strength[..., None]
    mixed = np.asarray(image) / 255 * (1 - opacity) + color * opacity
    return Image.fromarray((mixed * 255).astype(np.uint8))


if __name__ == "__main__":
    sys.exit(main())
