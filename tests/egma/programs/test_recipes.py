"""The recipes on tiny stand-ins of the models that they name: everything checked, one batch."""

from pathlib import Path
from typing import Any

import pytest
from transformers import BitImageProcessor, Dinov2Config, Dinov2Model, MPNetConfig, MPNetModel

from egma.programs import train as train_egma
from egma.tools.processes import ROOT
from tests.modeling_egma.whole_models import TOWER, save_whole

BLOCKS = TOWER | {"num_hidden_layers": 5}


def dry_run(recipe: str, data: Path, folder: Path, *start: str) -> int:
    configs = ",".join(str(ROOT / "configs" / name) for name in (recipe, "ablations/plus.yaml"))
    places = ["--config", configs, "--data", str(data), "--output_dir", str(folder / "run")]
    small = ["--batch_size", "4", "--micro_batch_size", "2", "--num_workers", "0"]
    return train_egma.main([*places, *start, *small, "--report_to", "none", "--dry_run", "True"])


def test_large_on_a_dinov2_of_its_own_size(
    phantom_data: Path, tmp_path: Path, tokenizer: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    Dinov2Model(Dinov2Config(**BLOCKS | {"num_hidden_layers": 10}, image_size=518, patch_size=14)).save_pretrained(
        tmp_path / "vision"
    )
    BitImageProcessor(image_mean=[0.53] * 3, image_std=[0.26] * 3).save_pretrained(tmp_path / "vision")
    MPNetModel(MPNetConfig(**BLOCKS, vocab_size=64, max_position_embeddings=40)).save_pretrained(tmp_path / "text")
    tokenizer.save_pretrained(tmp_path / "text")
    stand_ins = ["--vision_model", str(tmp_path / "vision"), "--text_model", str(tmp_path / "text")]
    assert dry_run("recipe_large.yaml", phantom_data, tmp_path, *stand_ins) == 0
    said = capsys.readouterr().out
    assert "images of 518 x 518 px" in said and "adapters of rank 16 beside" in said


@pytest.mark.parametrize("kind", ["clip", "siglip"])
def test_gaze_tune_from_a_whole_model(
    phantom_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], kind: str
) -> None:
    save_whole(tmp_path / "whole", kind)
    start = ["--start_from", str(tmp_path / "whole")]
    assert dry_run("recipe_gaze_tune.yaml", phantom_data, tmp_path, *start) == 0
    said = capsys.readouterr().out
    assert "adapters of rank 16 beside 24 linear layers" in said and "gaze" in said.split("loss ")[1]


def test_the_last_blocks_in_the_place_of_adapters(
    phantom_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What the recipe's head says for those without peft."""
    save_whole(tmp_path / "whole", "clip")
    text = (ROOT / "configs" / "recipe_gaze_tune.yaml").read_text()
    assert "`trained_blocks: 4`" in text
    (tmp_path / "blocks.yaml").write_text(text.replace("lora_rank: 16", "trained_blocks: 4"))
    start = ["--start_from", str(tmp_path / "whole")]
    assert dry_run(str(tmp_path / "blocks.yaml"), phantom_data, tmp_path, *start) == 2
    assert "trained_blocks is 4, expected at most the vision encoder's 2" in capsys.readouterr().err
    assert dry_run(str(tmp_path / "blocks.yaml"), phantom_data, tmp_path, *start, "--trained_blocks", "2") == 0
    assert "the last 2 blocks of each encoder" in capsys.readouterr().out
