"""What is kept of the gallery is what would be made anew, or it is made anew."""

import json
import logging
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from dataset_scripts.schema import load_readings
from egma.inference.embeddings import ImageBank, TextBank
from egma.page import corpus as page_corpus
from egma.page.corpus import Corpus, Gallery
from egma.page.index import kept_banks
from egma.page.session import PageModel
from modeling_egma import EgmaModel, EgmaProcessor
from tests.egma.page.serving import page_model

AGAIN = "of another model or corpus, or damaged; it is made again"


@pytest.fixture
def folder(tiny_model: EgmaModel, processor: EgmaProcessor, tmp_path: Path) -> Path:
    for place in (tmp_path / "model", tmp_path / "index"):
        place.mkdir()
    tiny_model.save_pretrained(tmp_path / "model")
    processor.save_pretrained(tmp_path / "model")
    return tmp_path


@pytest.fixture
def open_gallery(
    folder: Path, phantom_data: Path, tiny_model: EgmaModel, processor: EgmaProcessor, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., tuple[Gallery, int]]:
    """A gallery of another start of the page, and how many times something was encoded for it."""

    def opened(corpus: Path = phantom_data, model: Path = folder / "model") -> tuple[Gallery, int]:
        encoded: list[int] = []
        for name in ("encode_images", "encode_texts"):
            counted = getattr(page_corpus, name)
            monkeypatch.setattr(page_corpus, name, lambda *given, of=counted: (encoded.append(1), of(*given))[1])
        shown: PageModel = page_model(tiny_model, processor)
        gallery = Corpus(corpus, partial(kept_banks, folder / "index", str(model))).gallery(shown, untracked)
        monkeypatch.undo()
        return gallery, len(encoded)

    return opened


def untracked(steps: Any, desc: str) -> Any:
    return steps


def same(first: Gallery, second: Gallery) -> bool:
    one, other = (
        (bank.images.pooled, bank.images.patches, bank.texts.embeddings, bank.images.place, bank.texts.place)
        for bank in (first, second)
    )
    return one[3:] == other[3:] and all(torch.equal(a, b) for a, b in zip(one[:3], other[:3], strict=True))


def test_another_start_encodes_nothing_and_finds_the_same(open_gallery: Any, caplog: Any) -> None:
    (made, first), (kept, second) = open_gallery(), open_gallery()
    assert (first, second) == (2, 0) and same(made, kept)
    assert made.images.pooling_scale == kept.images.pooling_scale and AGAIN not in caplog.text


def test_one_of_another_model_is_made_again(open_gallery: Any, folder: Path, caplog: Any) -> None:
    open_gallery()
    config = folder / "model" / "config.json"
    config.write_text(config.read_text() + " ")
    assert open_gallery()[1] == 2 and AGAIN in caplog.text
    assert open_gallery()[1] == 0


def test_one_of_another_content_is_made_again(open_gallery: Any, caplog: Any) -> None:
    open_gallery()
    whole = page_corpus.MAX_GALLERY
    page_corpus.MAX_GALLERY = 1
    try:
        assert open_gallery()[1] == 2 and AGAIN in caplog.text
    finally:
        page_corpus.MAX_GALLERY = whole


def flipped(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        ("gallery.safetensors", flipped),
        ("gallery.safetensors", lambda path: path.write_bytes(path.read_bytes()[:-1])),
        ("gallery.safetensors", lambda path: path.write_bytes(b"")),
        ("gallery.safetensors", Path.unlink),
        ("gallery.json", Path.unlink),
        ("gallery.json", lambda path: path.write_text(path.read_text()[:40])),
        ("gallery.json", lambda path: path.write_text("[]")),
        ("gallery.json", lambda path: path.write_text(json.dumps({"result": {"digest": ""}}))),
    ],
)
def test_a_damaged_one_is_made_again(open_gallery: Any, folder: Path, name: str, damage: Any) -> None:
    made, _ = open_gallery()
    damage(folder / "index" / name)
    again, encoded = open_gallery()
    assert encoded == 2 and same(made, again)
    assert open_gallery()[1] == 0


def test_one_that_cannot_be_written_is_told_and_the_gallery_is_there(
    open_gallery: Any, folder: Path, caplog: Any
) -> None:
    (folder / "index" / "gallery.safetensors").mkdir()
    with caplog.at_level(logging.WARNING):
        gallery, encoded = open_gallery()
    assert encoded == 2 and gallery.readings and "not kept: Is a directory" in caplog.text


def test_whatever_a_bank_holds_comes_back(tmp_path: Path, phantom_data: Path) -> None:
    """A model without patches, and one that pools by a scale."""
    rows = load_readings(phantom_data, "train").select([0])
    for patches, scale in ((None, None), (torch.ones(1, 2, 3), 12.5)):
        banks = ImageBank({"a": 0}, torch.eye(3)[:1], patches, scale), TextBank({'é"\n': 0}, torch.ones(1, 3))
        make = partial(kept_banks, tmp_path / str(scale), str(tmp_path), rows, ['é"\n'])
        (tmp_path / str(scale)).mkdir()
        make(lambda banks=banks: banks)
        images, texts = make(lambda: pytest.fail("encoded again"))
        assert (images.place, texts.place, images.pooling_scale) == (banks[0].place, banks[1].place, scale)
        assert (images.patches is None) == (patches is None) and torch.equal(texts.embeddings, banks[1].embeddings)
