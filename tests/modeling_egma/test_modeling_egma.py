"""EgmaModel and EgmaForImageClassification: interface, invariances, precision, training."""

import math

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.nn import functional as F
from transformers import (
    AutoModel,
    CLIPVisionConfig,
    Dinov2Config,
    Dinov2WithRegistersConfig,
    SwinModel,
    Trainer,
    TrainingArguments,
    ViTConfig,
)

from modeling_egma import EgmaConfig, EgmaForImageClassification, EgmaModel

GRID, WIDTH = 7, 12
SMALL_VIT = {
    "image_size": 112,
    "patch_size": 16,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
}


def make_inputs(counts=(2, 1), side=112, grid=GRID, length=6, gaze=True):
    generator = torch.Generator().manual_seed(0)
    sentences = sum(counts)
    inputs = {
        "pixel_values": torch.randn(len(counts), 3, side, side, generator=generator),
        "input_ids": torch.randint(5, 30, (sentences, length), generator=generator),
        "attention_mask": torch.ones(sentences, length, dtype=torch.long),
        "sentence_to_image": torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts)),
    }
    if gaze:
        inputs["gaze_heatmaps"] = torch.rand(sentences, grid, grid, generator=generator)
        inputs["gaze_mask"] = torch.ones(len(counts), dtype=torch.bool)
    return inputs


def backbones():
    return {
        "vit": ViTConfig(**SMALL_VIT),
        "clip": CLIPVisionConfig(**SMALL_VIT),
        "dinov2": Dinov2Config(**(SMALL_VIT | {"mlp_ratio": 2})),
        "dinov2 with registers": Dinov2WithRegistersConfig(**(SMALL_VIT | {"num_register_tokens": 4})),
    }


def assert_public_shapes(output, images, sentences, patches):
    assert output.logits_per_image.shape == (images, sentences)
    assert torch.equal(output.logits_per_text, output.logits_per_image.T)
    assert output.image_embeds.shape == (images, WIDTH)
    assert output.text_embeds.shape == (sentences, WIDTH)
    assert output.patch_embeds.shape == (images, patches, WIDTH)
    for embeds in (output.image_embeds, output.text_embeds, output.patch_embeds):
        assert torch.allclose(embeds.norm(dim=-1), torch.ones(()), atol=1e-5)


@pytest.mark.parametrize("name", backbones())
def test_any_backbone_gives_the_public_shapes_without_special_tokens(tiny_bert, name):
    config = EgmaConfig(vision_config=backbones()[name], text_config=tiny_bert, projection_dim=WIDTH)
    model = EgmaModel(config).eval()
    output = model(**make_inputs())
    assert config.grid_size == GRID
    assert_public_shapes(output, images=2, sentences=3, patches=GRID * GRID)
    assert torch.isfinite(output.loss)


@pytest.mark.parametrize("name", backbones())
def test_patches_are_the_last_tokens_after_the_final_norm(tiny_bert, name):
    model = EgmaModel(EgmaConfig(vision_config=backbones()[name], text_config=tiny_bert)).eval()
    features = model.get_image_features(make_inputs()["pixel_values"])
    # a fresh layer norm has weight 1 and bias 0
    assert torch.allclose(features.last_hidden_state.mean(dim=-1), torch.zeros(()), atol=1e-4)
    assert torch.allclose(features.last_hidden_state.std(dim=-1, correction=0), torch.ones(()), atol=1e-2)
    pooled = model.visual_projection(features.last_hidden_state.mean(dim=1))
    assert torch.allclose(features.pooler_output, pooled, atol=1e-6)


@pytest.mark.parametrize(("stage", "grid"), [(1, 28), (2, 14), (3, 7), (None, 7)])
def test_every_stage_of_swin_gives_its_grid(tiny_swin, tiny_bert, stage, grid):
    config = EgmaConfig(vision_config=tiny_swin, text_config=tiny_bert, projection_dim=WIDTH, vision_stage=stage)
    model = EgmaModel(config).eval()
    output = model(**make_inputs(grid=grid))
    assert config.grid_size == grid
    assert_public_shapes(output, images=2, sentences=3, patches=grid * grid)


def test_patch_rows_run_from_the_top_left(tiny_bert):
    """Only the patch whose pixels changed changes, in a backbone that does not mix patches."""
    config = ViTConfig(**(SMALL_VIT | {"num_hidden_layers": 1}))
    model = EgmaModel(EgmaConfig(vision_config=config, text_config=tiny_bert, projection_dim=WIDTH)).eval()
    for layer in model.vision_model.layers:
        for name, parameter in layer.named_parameters():
            if "o_proj" in name or "attention.output" in name:
                parameter.data.zero_()
    pixels = make_inputs()["pixel_values"][:1]
    changed = pixels.clone()
    changed[:, :, 2 * 16 : 3 * 16, 5 * 16 : 6 * 16] += 3.0
    moved = (model.encode_images(pixels)[1] - model.encode_images(changed)[1]).abs().amax(dim=-1)[0]
    assert (moved > 1e-4).nonzero().flatten().tolist() == [2 * GRID + 5]


def test_padding_and_batch_mates_do_not_change_an_embedding(tiny_model):
    inputs = make_inputs(counts=(3,))
    ids, mask = inputs["input_ids"], inputs["attention_mask"].clone()
    mask[1, 3:] = 0
    together = tiny_model.encode_text(ids, mask)
    assert torch.allclose(together[1:2], tiny_model.encode_text(ids[1:2, :3], mask[1:2, :3]), atol=1e-6)
    other = ids.clone()
    other[1, 3:] = 7
    assert torch.allclose(together, tiny_model.encode_text(other, mask), atol=1e-6)
    images = make_inputs(counts=(1, 1, 1))["pixel_values"]
    for whole, alone in zip(tiny_model.encode_images(images), tiny_model.encode_images(images[2:]), strict=True):
        assert torch.allclose(whole[2:], alone, atol=1e-5)


def test_text_features_average_the_last_layers_and_never_the_embeddings(tiny_model):
    inputs = make_inputs()
    ids, mask = inputs["input_ids"], inputs["attention_mask"]
    layers = tiny_model.text_model(ids, attention_mask=mask, output_hidden_states=True).hidden_states
    for count, expected in ((1, layers[2]), (2, (layers[1] + layers[2]) / 2), (4, (layers[1] + layers[2]) / 2)):
        tiny_model.config.text_layers = count
        found = tiny_model.get_text_features(ids, mask).last_hidden_state
        assert torch.allclose(found, expected, atol=1e-6)


def test_encoders_have_no_pooler(tiny_model):
    assert not [name for name, _ in tiny_model.named_parameters() if "pooler" in name]


def test_similarity_map_holds_cosines_of_every_pair(tiny_model):
    inputs = make_inputs()
    maps = tiny_model.get_similarity_map(inputs["pixel_values"], inputs["input_ids"], inputs["attention_mask"])
    output = tiny_model(**inputs)
    assert maps.shape == (2, 3, GRID, GRID)
    expected = output.patch_embeds[1, 2 * GRID + 5] @ output.text_embeds[2]
    assert torch.allclose(maps[1, 2, 2, 5], expected, atol=1e-6)


@pytest.mark.parametrize("score", ["pooled", "late_interaction", "cabs"])
def test_zero_shot_score_is_the_one_asked_for(tiny_model, score):
    tiny_model.config.zero_shot_score = score
    output = tiny_model(**make_inputs())
    maps = torch.einsum("bpd,nd->bnp", output.patch_embeds, output.text_embeds)
    weighted = torch.softmax(maps / 0.07, dim=-1) @ output.patch_embeds
    cosines = {
        "cabs": torch.einsum("bnd,nd->bn", F.normalize(weighted, dim=-1), output.text_embeds),
        "pooled": output.image_embeds @ output.text_embeds.T,
        "late_interaction": maps.amax(dim=-1),
    }
    assert torch.allclose(output.logits_per_image, cosines[score] / 0.07, atol=1e-4)


def test_logit_scale_is_capped_at_100(tiny_model):
    tiny_model.logit_scale.data.fill_(9.0)
    output = tiny_model(**make_inputs())
    cosines = output.image_embeds @ output.text_embeds.T
    assert torch.allclose(output.logits_per_image, 100 * cosines, atol=1e-4)


def test_loss_comes_when_asked_for_or_with_image_rows(tiny_model):
    inputs = make_inputs(counts=(1, 1))
    flat = {name: inputs[name] for name in ("pixel_values", "input_ids", "attention_mask")}
    rows = flat | {"sentence_to_image": inputs["sentence_to_image"]}
    assert tiny_model(**flat).loss is None
    assert tiny_model(**rows, return_loss=False).loss is None
    assert torch.equal(tiny_model(**rows).loss, tiny_model(**flat, return_loss=True).loss)
    assert set(tiny_model(**rows).loss_components) == {"contrastive", "gaze", "mapping"}


def test_no_gaze_arguments_mean_that_no_image_has_gaze(tiny_model):
    nobody = make_inputs() | {"gaze_mask": torch.zeros(2, dtype=torch.bool)}
    assert torch.allclose(tiny_model(**nobody).loss, tiny_model(**make_inputs(gaze=False)).loss)


BAD_INPUTS = {
    "no image": (lambda inputs: inputs | {"pixel_values": None}, "needs both pixel_values and input_ids"),
    "no text": (lambda inputs: inputs | {"input_ids": None}, "needs both pixel_values and input_ids"),
    "flat, other number": (
        lambda inputs: inputs | {"sentence_to_image": None, "return_loss": True},
        "got 3 sentences and 2 images",
    ),
    "other grid": (
        lambda inputs: inputs | {"gaze_heatmaps": torch.zeros(3, 14, 14)},
        r"gaze_heatmaps has shape \(3, 14, 14\), expected \(3, 7, 7\)",
    ),
    "maps for an image instead of a sentence": (
        lambda inputs: inputs | {"gaze_heatmaps": torch.zeros(2, 7, 7)},
        r"expected \(3, 7, 7\)",
    ),
    "no mask": (lambda inputs: inputs | {"gaze_mask": None}, "go together"),
    "no maps": (lambda inputs: inputs | {"gaze_heatmaps": None}, "go together"),
    "mask for every sentence": (
        lambda inputs: inputs | {"gaze_mask": torch.ones(3, dtype=torch.bool)},
        r"gaze_mask has shape \(3,\), expected \(2,\)",
    ),
    "row outside": (
        lambda inputs: inputs | {"sentence_to_image": torch.tensor([0, 1, 2])},
        r"outside 0 \.\.\. 1",
    ),
    "rows of another length": (
        lambda inputs: inputs | {"sentence_to_image": torch.tensor([0, 1])},
        r"sentence_to_image has shape \(2,\), expected \(3,\)",
    ),
}


@pytest.mark.parametrize("case", BAD_INPUTS)
def test_inputs_that_do_not_fit_are_refused(tiny_model, case):
    change, message = BAD_INPUTS[case]
    with pytest.raises(ValueError, match=message):
        tiny_model(**change(make_inputs()))


def test_loss_of_a_bfloat16_model_and_under_autocast_is_float32_and_close(tiny_model):
    inputs = make_inputs()
    exact = tiny_model(**inputs).loss
    with torch.autocast("cpu", dtype=torch.bfloat16):
        cast = tiny_model(**inputs).loss
    half = tiny_model.bfloat16()(**inputs).loss
    for loss in (cast, half):
        assert loss.dtype == torch.float32
        assert torch.allclose(loss, exact, rtol=0.05)


def test_autocast_leaves_the_objective_alone(tiny_model):
    patches = F.normalize(torch.randn(2, 49, WIDTH), dim=-1)
    sentences = F.normalize(torch.randn(3, WIDTH), dim=-1)
    rows = torch.tensor([0, 0, 1])
    expected, _ = tiny_model.objective(patches, sentences, rows)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found, _ = tiny_model.objective(patches, sentences, rows)
    assert torch.equal(found, expected)


def gradients_of(model, inputs):
    model.zero_grad()
    model(**inputs).loss.backward()
    return {name: parameter.grad for name, parameter in model.named_parameters()}


def test_every_parameter_gets_a_gradient(tiny_model):
    gradients = gradients_of(tiny_model, make_inputs(counts=(2, 3)))
    dead = [name for name, gradient in gradients.items() if gradient is None or not gradient.any()]
    # adding a constant to every key changes no softmax
    assert not [name for name in dead if not name.endswith(("k_proj.bias", "key.bias"))]


def test_gradient_checkpointing_changes_no_gradient(tiny_model):
    inputs = make_inputs()
    expected = gradients_of(tiny_model, inputs)
    # drop path and dropout are off, so that train mode, which checkpointing needs, computes the same
    for module in tiny_model.modules():
        if isinstance(module, torch.nn.Dropout) or type(module).__name__.endswith("DropPath"):
            module.p = module.drop_prob = 0.0
    tiny_model.train()
    tiny_model.gradient_checkpointing_enable()
    found = gradients_of(tiny_model, inputs)
    for name, gradient in expected.items():
        assert (gradient is None) == (found[name] is None)
        assert gradient is None or torch.allclose(gradient, found[name], atol=1e-6), name


def test_input_gradients_reach_both_encoders_for_adapters(tiny_model):
    tiny_model.requires_grad_(False)
    tiny_model.enable_input_require_grads()
    output = tiny_model(**make_inputs())
    assert output.image_embeds.requires_grad and output.text_embeds.requires_grad


@pytest.fixture
def encoders(tiny_swin, tiny_bert, tmp_path):
    for name, config in (("vision", tiny_swin), ("text", tiny_bert)):
        AutoModel.from_config(config).save_pretrained(tmp_path / name)
    return tmp_path / "vision", tmp_path / "text"


def test_starting_from_two_encoders_takes_their_weights(encoders):
    model = EgmaModel.from_vision_text_pretrained(*encoders, projection_dim=WIDTH, gaze_weight=2.0)
    assert (model.config.projection_dim, model.config.gaze_weight) == (WIDTH, 2.0)
    for tower, folder in zip((model.vision_model, model.text_model), encoders, strict=True):
        original = AutoModel.from_pretrained(folder).state_dict()
        assert all(torch.equal(value, original[name]) for name, value in tower.state_dict().items())
    assert torch.isfinite(model(**make_inputs()).loss)


def test_starting_from_two_encoders_gives_one_mode_and_one_dtype(encoders):
    text = AutoModel.from_pretrained(encoders[1]).half()
    text.save_pretrained(encoders[1])
    model = EgmaModel.from_vision_text_pretrained(*encoders, projection_dim=WIDTH)
    assert {module.training for module in model.modules()} == {False}
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    assert torch.isfinite(model(**make_inputs()).loss)


def test_encoder_configs_saved_in_another_dtype_build_one_dtype(tiny_swin, tiny_bert):
    text_config = tiny_bert.__class__(**(tiny_bert.to_dict() | {"dtype": "float16"}))
    model = EgmaModel(EgmaConfig(vision_config=tiny_swin, text_config=text_config, projection_dim=WIDTH))
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_loading_in_a_dtype_gives_all_weights_that_dtype(tiny_model, tmp_path, dtype):
    tiny_model.save_pretrained(tmp_path)
    model = EgmaModel.from_pretrained(tmp_path, dtype=dtype)
    assert {parameter.dtype for parameter in model.parameters()} == {dtype}
    assert torch.isfinite(model(**make_inputs()).loss)


def test_starting_at_an_earlier_stage_takes_the_weights_of_the_stages_it_has(encoders):
    model = EgmaModel.from_vision_text_pretrained(*encoders, projection_dim=WIDTH, vision_stage=2)
    original = SwinModel.from_pretrained(encoders[0]).state_dict()
    for name, value in model.vision_model.state_dict().items():
        if name.startswith("layernorm"):
            continue
        assert torch.equal(value, original[name]), name
    assert torch.equal(model.vision_model.layernorm.weight, torch.ones(16))
    assert torch.isfinite(model(**make_inputs(grid=14)).loss)


def test_a_model_started_from_encoders_survives_a_round_trip(encoders, tmp_path):
    model = EgmaModel.from_vision_text_pretrained(*encoders, projection_dim=WIDTH, vision_stage=2).eval()
    model.save_pretrained(tmp_path / "egma")
    loaded = EgmaModel.from_pretrained(tmp_path / "egma")
    inputs = make_inputs(grid=14)
    assert torch.equal(loaded(**inputs).logits_per_image, model(**inputs).logits_per_image)


def test_a_checkpoint_without_logit_scale_gets_the_initial_one_and_keeps_the_rest(tiny_model, tmp_path):
    tiny_model.config.logit_scale_init_value = 1.5
    tiny_model.save_pretrained(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    del weights["logit_scale"]
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    loaded = EgmaModel.from_pretrained(tmp_path)
    assert loaded.logit_scale.item() == 1.5
    expected = tiny_model.state_dict()
    assert all(torch.equal(value, expected[name]) for name, value in loaded.state_dict().items() if "scale" not in name)


@pytest.fixture
def classifier(tiny_model, tmp_path):
    tiny_model.save_pretrained(tmp_path / "egma")
    return EgmaForImageClassification.from_pretrained(tmp_path / "egma", num_labels=3)


def test_classifier_takes_the_vision_encoder_of_an_egma_folder(classifier, tiny_model):
    expected = tiny_model.vision_model.state_dict()
    assert all(torch.equal(value, expected[name]) for name, value in classifier.vision_model.state_dict().items())
    pixels = make_inputs()["pixel_values"]
    tokens = tiny_model.get_image_features(pixels).last_hidden_state
    assert torch.allclose(classifier(pixels).logits, classifier.classifier(tokens.mean(dim=1)), atol=1e-5)


@pytest.mark.parametrize("labels", [torch.tensor([0, 2]), torch.tensor([[1.0, 0, 1], [0, 0, 1]])], ids=["one", "many"])
def test_classifier_learns(classifier, labels):
    pixels = make_inputs()["pixel_values"]
    optimizer = torch.optim.Adam(classifier.parameters(), lr=1e-2)
    losses = []
    for _ in range(8):
        loss = classifier(pixel_values=pixels, labels=labels).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < losses[0] / 2


def test_classifier_of_an_earlier_stage_loads_and_runs(tiny_swin, tiny_bert, tmp_path):
    EgmaModel(EgmaConfig(vision_config=tiny_swin, text_config=tiny_bert, vision_stage=2)).save_pretrained(tmp_path)
    model = EgmaForImageClassification.from_pretrained(tmp_path, num_labels=2)
    assert model(make_inputs()["pixel_values"]).logits.shape == (2, 2)


def test_transformers_trainer_trains(tiny_model, tmp_path):
    before = {name: parameter.detach().clone() for name, parameter in tiny_model.named_parameters()}
    batch = make_inputs(counts=(2, 2))
    arguments = TrainingArguments(
        output_dir=tmp_path,
        max_steps=2,
        learning_rate=1e-3,
        per_device_train_batch_size=2,
        report_to=[],
        use_cpu=True,
        save_strategy="no",
        remove_unused_columns=False,
        disable_tqdm=True,
        # tells the evaluation loop that a batch holds what the loss needs
        label_names=["sentence_to_image"],
    )
    trainer = Trainer(
        tiny_model, arguments, train_dataset=[0, 1, 2, 3], eval_dataset=[0, 1], data_collator=lambda rows: dict(batch)
    )
    result = trainer.train()
    assert result.global_step == 2 and math.isfinite(result.training_loss)
    assert not torch.equal(before["visual_projection.weight"], tiny_model.visual_projection.weight)
    assert not torch.equal(before["logit_scale"], tiny_model.logit_scale)
    assert math.isfinite(trainer.evaluate()["eval_loss"])
