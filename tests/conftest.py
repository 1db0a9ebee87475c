"""Environment and tiny models shared by all tests."""

import atexit
import os
import shutil
import tempfile
from pathlib import Path

# read by the Hugging Face libraries when they are first imported
HF_HOME = tempfile.mkdtemp(prefix="egma-tests-")
atexit.register(shutil.rmtree, HF_HOME, ignore_errors=True)
os.environ |= {
    "HF_HUB_OFFLINE": "1",
    "HF_HOME": HF_HOME,
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "GRADIO_ANALYTICS_ENABLED": "False",
    "TOKENIZERS_PARALLELISM": "false",
}

import pytest  # noqa: E402
import torch  # noqa: E402
from hypothesis import HealthCheck, settings  # noqa: E402
from transformers import BertConfig, BertTokenizer, SwinConfig  # noqa: E402
from transformers.utils import logging  # noqa: E402

from dataset_scripts import build  # noqa: E402
from dataset_scripts.phantom import write_phantom  # noqa: E402
from modeling_egma import EgmaConfig, EgmaModel, EgmaProcessor  # noqa: E402

torch.set_num_threads(1)
settings.register_profile(
    "egma",
    deadline=None,
    max_examples=25,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.differing_executors],
)
settings.load_profile("egma")

WORDS = (
    "no pleural effusion pneumothorax is seen the heart size normal there lungs are clear mild left right lower upper "
    "lobe opacity consistent with pneumonia chest x ray of a finding . ,"
)
MAX_LENGTH = 16
FRAME = 112
GRID = 7

# a browser, several processes, kills, whole programs, other people's tests: `make test-slow`
SLOW = (
    *("egma/hub/test_push.py", "egma/hub/test_export.py", "egma/page/test_browser.py", "egma/page/test_hostile.py"),
    *("egma/page/test_findings.py", "egma/page/test_compare.py"),
    *("egma/page/test_recorder.py", "egma/page/test_requests.py", "egma/programs", "egma/study"),
    *("egma/hub/test_space.py", "egma/page/test_crowd.py", "egma/training/test_checkpoint_kills.py"),
    *("egma/page/test_backup.py", "egma/page/test_connection.py", "egma/page/test_speed.py"),
    *("egma/training/test_compile.py", "egma/training/test_data.py", "egma/training/test_frozen.py"),
    *("egma/training/test_gather.py", "egma/training/test_sharding.py", "dataset_scripts/output/test_resume.py"),
    *("dataset_scripts/test_phantom.py", "modeling_egma/test_transformers_mixins.py", "modeling_egma/test_trainer.py"),
    *("test_examples.py", "test_real_input.py", "test_wheel.py", "test_docs.py"),
)

worst_differences: dict[str, float] = {}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    slow = tuple(Path(__file__).parent / place for place in SLOW)
    for item in items:
        if any(item.path.is_relative_to(place) for place in slow):
            item.add_marker("slow")


def pytest_terminal_summary(terminalreporter):
    for name, value in sorted(worst_differences.items()):
        terminalreporter.write_line(f"worst difference, {name}: {value:.3g}")


@pytest.fixture(scope="session")
def record_difference():
    """Keep the largest difference seen under a name; printed when the session ends."""

    def record(name: str, difference: float) -> None:
        worst_differences[name] = max(worst_differences.get(name, 0.0), difference)

    return record


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


@pytest.fixture
def library_warnings(caplog):
    """Text of what transformers' loggers said so far (they do not propagate by default)."""
    logging.enable_propagation()
    # what another test made them say once is said again
    logging.warning_once.cache_clear()
    yield lambda: caplog.text
    logging.disable_propagation()


@pytest.fixture
def real_data() -> Path:
    folder = os.environ.get("EGMA_REAL_DATA")
    if not folder:
        pytest.skip("needs real pictures: set EGMA_REAL_DATA to the folder that holds notes and nih")
    return Path(folder)


@pytest.fixture(scope="session")
def tokenizer() -> BertTokenizer:
    vocabulary = {
        word: index for index, word in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS.split()])
    }
    return BertTokenizer(vocab=vocabulary, model_max_length=MAX_LENGTH)


@pytest.fixture(scope="session")
def tiny_swin() -> SwinConfig:
    """Stages of 28x28, 14x14 and 7x7 tokens."""
    return SwinConfig(
        image_size=FRAME, patch_size=4, embed_dim=8, depths=[1, 1, 2], num_heads=[1, 2, 2], window_size=7, mlp_ratio=2.0
    )


@pytest.fixture(scope="session")
def tiny_bert() -> BertConfig:
    return BertConfig(
        vocab_size=64,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=32,
    )


@pytest.fixture
def tiny_config(tiny_swin, tiny_bert) -> EgmaConfig:
    return EgmaConfig(vision_config=tiny_swin.to_dict(), text_config=tiny_bert.to_dict(), projection_dim=12)


@pytest.fixture
def tiny_model(tiny_config) -> EgmaModel:
    return EgmaModel(tiny_config).eval()


@pytest.fixture
def processor(tiny_config, tokenizer) -> EgmaProcessor:
    return EgmaProcessor.for_model(tiny_config, tokenizer)


@pytest.fixture(scope="session")
def phantom_data(tmp_path_factory) -> Path:
    """A small generated corpus, converted as a user would."""
    folder = tmp_path_factory.mktemp("phantom")
    write_phantom(folder / "raw", readings=72, seed=3)
    source, output = str(folder / "raw"), str(folder / "data")
    assert build.main(["mimic_eye", "--source", source, "--output", output, "--image-size", "112"]) == 0
    return folder / "data"
