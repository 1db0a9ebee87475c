"""A step on a device that holds no numbers: whatever would make the host wait for one raises there."""

from contextlib import nullcontext
from typing import Any

import pytest
import torch

from egma.training.data import ReadingCollator
from egma.training.devices import ask_of_no_mask
from egma.training.step import TrainingModule, to_device
from modeling_egma import EgmaConfig, EgmaModel
from modeling_egma.losses_egma import alignment_objective
from tests.egma.training.test_finishing import MOVES, ROWS, settings

NUMBERLESS = torch.device("meta")


@pytest.mark.parametrize("move", ["none", *MOVES])
def test_a_batch_is_finished_without_a_wait(processor: Any, move: str) -> None:
    left = ReadingCollator(processor, settings("unused", **MOVES.get(move, {})))(ROWS["colours"])
    made = to_device(left, NUMBERLESS)
    images, sentences = len(left["geometry"]), len(left["sentence_to_image"])
    assert made["pixel_values"].shape == (images, 3, 112, 112) and made["pixel_values"].device == NUMBERLESS
    assert made["gaze_heatmaps"].shape[0] == sentences and made["gaze_heatmaps"].device == NUMBERLESS
    assert made["sentence_to_image"].device.type == "cpu"


@pytest.fixture
def no_autocast(monkeypatch: pytest.MonkeyPatch) -> None:
    """It does not know this device."""
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: nullcontext())


@pytest.mark.usefixtures("no_autocast")
@pytest.mark.parametrize("unasked", [True, False])
def test_a_whole_step_waits_for_nothing(processor: Any, tiny_swin: Any, tiny_bert: Any, unasked: bool) -> None:
    config = EgmaConfig(vision_config=tiny_swin.to_dict(), text_config=tiny_bert.to_dict(), projection_dim=8)
    batch = to_device(ReadingCollator(processor, settings("unused"))(ROWS["colours"]), NUMBERLESS)
    with NUMBERLESS:
        model = EgmaModel(config)
    if unasked:
        ask_of_no_mask(model.text_model)
        loss, _ = TrainingModule(model)(batch)
        loss.backward()
        assert model.logit_scale.grad is not None and model.logit_scale.grad.device == NUMBERLESS
    else:
        with pytest.raises(RuntimeError, match="meta"):
            TrainingModule(model)(batch)


@pytest.mark.parametrize("lengths", [[7, 4, 2], [7, 7]], ids=["padded", "whole"])
def test_what_is_encoded_does_not_depend_on_whether_the_mask_is_asked(tiny_bert: Any, lengths: list[int]) -> None:
    torch.manual_seed(0)
    model = EgmaModel(EgmaConfig(text_config=tiny_bert.to_dict(), projection_dim=8)).eval()
    mask = (torch.arange(7) < torch.tensor(lengths)[:, None]).long()
    ids = torch.randint(5, tiny_bert.vocab_size, mask.shape) * mask
    asked = model.encode_text(ids, mask)
    ask_of_no_mask(model.text_model)
    assert torch.allclose(model.encode_text(ids, mask), asked, atol=1e-6)
    assert "unasked" not in model.config.to_json_string()


@pytest.mark.usefixtures("no_autocast")
@pytest.mark.parametrize("interaction", ["filip", "cabs"])
@pytest.mark.parametrize("gaze_target", ["labels", "soft"])
@pytest.mark.parametrize("mapping", ["within", "batch"])
def test_the_objective_waits_for_nothing(interaction: str, gaze_target: str, mapping: str) -> None:
    config = EgmaConfig(interaction=interaction, gaze_target=gaze_target, mapping=mapping)
    rows = torch.tensor([0, 0, 0, 2, 2, 3])
    with NUMBERLESS:
        patches, sentences, scale = (torch.empty(shape, requires_grad=True) for shape in ((4, 9, 5), (6, 5), ()))
        gaze = torch.empty(6, 9), torch.empty(4, dtype=torch.bool)
        ids = torch.empty(4, dtype=torch.long), torch.empty(6, dtype=torch.long)
    loss, terms = alignment_objective(config, patches, sentences, rows, *gaze, scale, *ids)
    loss.backward()
    assert set(terms) == {"contrastive", "gaze", "mapping"}
    assert patches.grad is not None and patches.grad.device == NUMBERLESS
    with pytest.raises((RuntimeError, NotImplementedError)):  # where the rows lie there, their counts are asked for
        alignment_objective(config, patches, sentences, rows.to(NUMBERLESS), *gaze, scale, *ids)
