"""One page on generated data, served for all tests of a file."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from transformers import BertTokenizer

from egma.page.corpus import Corpus
from egma.page.handlers import Handlers
from egma.page.session import PageModel
from modeling_egma import EgmaConfig, EgmaModel, EgmaProcessor
from tests.egma.page.browsing import browser
from tests.egma.page.serving import served


class Served(NamedTuple):
    """The page and its address, the folder of its uploads, and what answers."""

    url: str
    uploads: Path
    handlers: Handlers
    corpus: Corpus
    blocks: Any

    @property
    def model(self) -> PageModel:
        return self.handlers.model


@pytest.fixture(scope="module")
def module_model(tiny_swin, tiny_bert, tokenizer: BertTokenizer) -> PageModel:
    torch.manual_seed(0)
    config = EgmaConfig(vision_config=tiny_swin.to_dict(), text_config=tiny_bert.to_dict(), projection_dim=12)
    return PageModel(EgmaModel(config).eval(), EgmaProcessor.for_model(config, tokenizer), "tiny", "untrained")


@pytest.fixture(scope="module")
def page(module_model: PageModel, phantom_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    uploads, corpus = tmp_path_factory.mktemp("uploads"), Corpus(phantom_data)
    handlers = Handlers(module_model, corpus)
    with pytest.MonkeyPatch.context() as patch, served(handlers, uploads, patch) as page:
        yield Served(page.local_url, uploads, handlers, corpus, page)


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    with browser() as started:
        yield started


@pytest.fixture
def tab(chromium: Any, page: Served) -> Iterator[Any]:
    """The page, opened anew; afterwards nothing went wrong in the browser and nothing was asked of any other host."""
    opened = chromium.new_page(viewport={"width": 1280, "height": 900})
    faults, asked = [], []
    opened.on("pageerror", lambda error: faults.append(str(error)))
    opened.on("console", lambda message: faults.append(message.text) if message.type == "error" else None)
    opened.on("request", lambda request: asked.append(request.url))
    opened.goto(page.url)
    opened.wait_for_selector(".egma-lines button")
    yield opened
    opened.close()
    assert faults == []
    assert [url for url in asked if not url.startswith((page.url, "data:", "blob:"))] == []
