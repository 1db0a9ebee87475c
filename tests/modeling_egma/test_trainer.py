"""transformers' Trainer and a PEFT adapter on the model; configurations that were tampered with."""

import copy
import json
import random
import socket
from dataclasses import replace

import pytest
import torch
from huggingface_hub.errors import StrictDataclassError
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoConfig, AutoModel, Trainer, TrainerCallback, TrainingArguments

from modeling_egma import EgmaConfig, EgmaModel

MUTATED = 10_000


class Pairs(torch.utils.data.Dataset):
    def __init__(self):
        self.pixels, self.ids = torch.randn(8, 3, 112, 112), torch.randint(5, 60, (8, 6))

    def __len__(self):
        return 8

    def __getitem__(self, place):
        return {
            "pixel_values": self.pixels[place],
            "input_ids": self.ids[place],
            "attention_mask": torch.ones(6).long(),
        }


def collate(rows):
    batch = {name: torch.stack([row[name] for row in rows]) for name in rows[0]}
    return batch | {"sentence_to_image": torch.arange(len(rows))}


def arguments(folder):
    return TrainingArguments(
        output_dir=str(folder), max_steps=2, per_device_train_batch_size=4, learning_rate=1e-2, report_to="none",
        use_cpu=True, remove_unused_columns=False, save_strategy="no", disable_tqdm=True, label_names=[],
    )  # fmt: skip


def test_trainer_trains_saves_and_loads(tiny_model, tmp_path):
    before = copy.deepcopy(tiny_model.state_dict())
    trainer = Trainer(tiny_model, arguments(tmp_path / "run"), data_collator=collate, train_dataset=Pairs())
    trainer.train()
    assert any(not torch.equal(value.cpu(), before[name]) for name, value in tiny_model.state_dict().items())
    trainer.save_model(tmp_path / "saved")
    again = AutoModel.from_pretrained(tmp_path / "saved")
    inputs = collate([Pairs()[n] for n in range(3)])
    tiny_model.eval()
    assert torch.equal(again(**inputs).logits_per_image, tiny_model(**inputs).logits_per_image)


class PulledScale(EgmaModel):
    """Its loss asks for a larger scale in the first half of the steps and for a smaller one then."""

    def forward(self, **inputs):
        output = super().forward(**inputs)
        self.calls = getattr(self, "calls", 0) + 1
        output.loss = output.logits_per_image.sum() * 0 + self._scale() * (-1 if self.calls <= 10 else 1)
        return output


def test_a_logit_scale_at_its_cap_comes_back_under_the_trainer(tiny_config, tmp_path):
    model = PulledScale(tiny_config)
    model.logit_scale.data.fill_(4.59)
    settings = replace(arguments(tmp_path), max_steps=20, lr_scheduler_type="constant")
    scales = []

    class Read(TrainerCallback):
        def on_step_end(self, *_arguments, **_known):
            scales.append(float(model._scale().detach()))

    Trainer(model, settings, data_collator=collate, train_dataset=Pairs(), callbacks=[Read()]).train()
    assert max(scales) == scales[9] == pytest.approx(100, rel=1e-6)
    # momentum takes it beyond; what pushes on adds nothing
    assert scales[-1] < 99


def test_a_lora_adapter_trains_alone_saves_and_loads(tiny_model, tmp_path):
    base, plain = copy.deepcopy(tiny_model), copy.deepcopy(tiny_model)
    adapted = get_peft_model(tiny_model, LoraConfig(r=2, target_modules=["visual_projection", "text_projection"]))
    frozen = {name: value.clone() for name, value in adapted.named_parameters() if not value.requires_grad}
    Trainer(adapted, arguments(tmp_path / "run"), data_collator=collate, train_dataset=Pairs()).train()
    assert all(torch.equal(value, frozen[name]) for name, value in adapted.named_parameters() if name in frozen)
    adapted.save_pretrained(tmp_path / "adapter")
    assert not list((tmp_path / "adapter").glob("*.bin"))
    again = PeftModel.from_pretrained(base, tmp_path / "adapter").eval()
    inputs = collate([Pairs()[n] for n in range(3)])
    adapted.eval()
    found, expected = again(**inputs).logits_per_image, adapted(**inputs).logits_per_image
    torch.testing.assert_close(found, expected)
    assert not torch.allclose(found, plain(**inputs).logits_per_image)


def mutated(config, random_):
    """One field somewhere is dropped, renamed, or given a value of another kind."""
    changed = copy.deepcopy(config)
    holder = random_.choice([changed, changed["vision_config"], changed["text_config"]])
    name = random_.choice(list(holder))
    strange = [
        None,
        -1,
        0,
        10**6,
        "../../etc/passwd",
        "os.system",
        [],
        {},
        1.5,
        float("nan"),
        True,
        "eager",
        "flash_attention_9",
    ]
    action = random_.random()
    if action < 0.15:
        del holder[name]
    elif action < 0.3:
        holder[f"{name}x"] = holder.pop(name)
    else:
        holder[name] = random_.choice(strange)
    return changed


def test_a_config_that_was_tampered_with_is_an_error_or_a_config_and_no_import_or_download(
    tiny_config, tmp_path, monkeypatch
):
    def no_network(*_args, **_kwargs):
        raise AssertionError("a configuration opened a connection")

    monkeypatch.setattr(socket.socket, "connect", no_network)
    EgmaModel(tiny_config).save_pretrained(tmp_path / "model")
    original = json.loads((tmp_path / "model" / "config.json").read_text())
    random_ = random.Random(0)
    valid = 0
    for _ in range(MUTATED):
        changed = mutated(original, random_)
        (tmp_path / "model" / "config.json").write_text(json.dumps(changed))
        try:
            config = AutoConfig.from_pretrained(tmp_path / "model")
        except (ValueError, TypeError, KeyError, OSError, StrictDataclassError, ImportError):
            continue
        valid += isinstance(config, EgmaConfig)
    assert 0 < valid < MUTATED


@pytest.mark.parametrize("attention", ["flash_attention_9", "os.system"])
def test_an_attention_that_does_not_exist_is_named(tiny_config, tmp_path, attention):
    EgmaModel(tiny_config).save_pretrained(tmp_path)
    with pytest.raises((ValueError, ImportError, KeyError), match=attention.split(".")[0]):
        AutoModel.from_pretrained(tmp_path, attn_implementation=attention)


@pytest.mark.parametrize("stated", [{"label_names": []}, {}])
def test_trainer_reports_the_loss_of_the_evaluation_rows(tiny_model, tmp_path, stated):
    given = arguments(tmp_path)
    given.label_names, given.per_device_eval_batch_size = stated.get("label_names"), 4
    rows = Pairs()
    trainer = Trainer(tiny_model, given, data_collator=collate, eval_dataset=rows)
    tiny_model.eval()
    halves = [tiny_model(**collate([rows[n] for n in part])).loss for part in (range(4), range(4, 8))]
    assert trainer.evaluate()["eval_loss"] == pytest.approx(float(torch.stack(halves).mean()), rel=1e-5)
    found = trainer.predict(rows)
    assert found.predictions[0].shape == (8, 4)


def test_trainer_gathers_predictions_for_metrics(tiny_model, tmp_path):
    seen = []

    def metrics(found):
        seen.extend(part.shape for part in found.predictions)
        return {"accuracy": 1.0}

    given = arguments(tmp_path)
    given.per_device_eval_batch_size = 4
    trainer = Trainer(tiny_model, given, data_collator=collate, eval_dataset=Pairs(), compute_metrics=metrics)
    assert {"eval_loss", "eval_accuracy"} <= set(trainer.evaluate())
    assert seen[:2] == [(8, 4), (8, 4)]
