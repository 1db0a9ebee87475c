"""Images, reports and gaze through EgmaProcessor: what comes out, and what is refused."""

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoProcessor, ViTImageProcessor

from modeling_egma import EgmaProcessor
from modeling_egma.gaze_egma import frame_affine, gaze_matrix, square_frame, transform_fixations

FRAME, GRID = 112, 7
LOOK = {"x": [0.2, 0.8], "y": [0.3, 0.6], "start": [0.0, 1.0], "duration": [1.0, 2.0]}
REPORTS = [["the heart size is normal .", "no pleural effusion is seen ."], ["lungs are clear ."]]
SPANS = [[(0, 1), None], [(1, 2)]]


def grey(width=60, height=40, value=200):
    return Image.new("L", (width, height), value)


def brightness(processor, pixel_values):
    """Normalised (..., 3, H, W) -> grey values in [0, 1]."""
    mean, std = (torch.tensor(values)[:, None, None] for values in (
        processor.image_processor.image_mean, processor.image_processor.image_std
    ))  # fmt: skip
    return pixel_values * std + mean


def test_reports_with_gaze_give_every_input_of_the_model(processor):
    batch = processor(images=[grey(), grey(40, 60)], text=REPORTS, gaze=[LOOK, None], spans=SPANS)
    shapes = {name: tuple(value.shape) for name, value in batch.items()}
    length = batch["input_ids"].shape[1]
    assert shapes == {
        "pixel_values": (2, 3, FRAME, FRAME),
        "input_ids": (3, length),
        "attention_mask": (3, length),
        "token_type_ids": (3, length),
        "sentence_to_image": (3,),
        "gaze_heatmaps": (3, GRID, GRID),
        "gaze_mask": (2,),
    }
    assert batch["sentence_to_image"].tolist() == [0, 0, 1]
    assert batch["gaze_mask"].tolist() == [True, False]
    assert not batch["gaze_heatmaps"][2].any()


def test_heat_maps_are_the_gaze_matrix_in_the_square_frame(tiny_config, tokenizer):
    processor = EgmaProcessor.for_model(tiny_config, tokenizer, gaze_kwargs={"sigma": 0.08, "lead": 0.5})
    batch = processor(images=[grey(80, 40)], text=REPORTS[:1], gaze=[LOOK], spans=SPANS[:1])
    expected = gaze_matrix(transform_fixations(LOOK, square_frame(80, 40)), SPANS[0], GRID, 0.08, 0.5)
    assert torch.equal(batch["gaze_heatmaps"], expected)


def test_flat_prompts_have_no_image_rows(processor):
    batch = processor(images=[grey()], text=["no pneumonia", "pneumonia"])
    assert set(batch) == {"pixel_values", "input_ids", "attention_mask", "token_type_ids"}
    assert batch["input_ids"].shape[0] == 2


@pytest.mark.parametrize(
    ("given", "keys"), [({"text": "pneumonia"}, "input_ids"), ({"images": grey()}, "pixel_values")]
)
def test_one_modality_alone_works(processor, given, keys):
    batch = processor(**given)
    assert len(batch[keys]) == 1


def test_reports_without_gaze_have_no_heat_maps(processor):
    batch = processor(images=[grey(), grey()], text=REPORTS)
    assert batch["sentence_to_image"].tolist() == [0, 0, 1]
    assert "gaze_heatmaps" not in batch and "gaze_mask" not in batch


def test_an_empty_report_takes_no_sentence_and_has_no_gaze(processor):
    batch = processor(images=[grey(), grey()], text=[[], REPORTS[1]], gaze=[LOOK, LOOK], spans=[[], SPANS[1]])
    assert batch["sentence_to_image"].tolist() == [1]
    assert batch["gaze_mask"].tolist() == [False, True]


def test_a_batch_of_empty_reports_reaches_the_loss(processor, tiny_model):
    batch = processor(images=[grey(), grey()], text=[[], []], gaze=[LOOK, LOOK], spans=[[], []])
    assert batch["input_ids"].shape[0] == 0
    assert batch["gaze_heatmaps"].shape == (0, GRID, GRID)
    assert tiny_model(**batch).loss == 0


def test_a_fixation_outside_the_image_leaves_no_gaze(processor):
    outside = LOOK | {"x": [1.5, -0.5]}
    batch = processor(images=[grey()], text=REPORTS[:1], gaze=[outside], spans=SPANS[:1])
    assert batch["gaze_mask"].tolist() == [False]


TWO = [grey(), grey()]
BAD_CALLS = {
    "nothing": ({}, "needs images, text or both"),
    "reports without images": ({"text": REPORTS}, "need images"),
    "other number of reports": ({"images": TWO[:1], "text": REPORTS}, "1 images but 2 reports"),
    "half nested": ({"images": TWO, "text": [["a"], "b"]}, "text 1 is 'b'"),
    "sentence that is no string": ({"images": TWO, "text": [["a"], [None]]}, "text 1 is"),
    "gaze without spans": ({"images": TWO, "text": REPORTS, "gaze": [LOOK, LOOK]}, "gaze needs spans"),
    "gaze with flat text": (
        {"images": TWO, "text": ["a", "b"], "gaze": [LOOK, LOOK], "spans": SPANS},
        "gaze needs images and their reports",
    ),
    "other number of recordings": (
        {"images": TWO, "text": REPORTS, "gaze": [LOOK], "spans": SPANS},
        "2 images but gaze for 1",
    ),
    "other number of span lists": (
        {"images": TWO, "text": REPORTS, "gaze": [LOOK, LOOK], "spans": SPANS[:1]},
        "2 images but spans for 1",
    ),
    "other number of spans": (
        {"images": TWO, "text": REPORTS, "gaze": [LOOK, LOOK], "spans": [[None], [None]]},
        "report 0 has 2 sentences but 1 spans",
    ),
    "spans backwards": (
        {"images": TWO, "text": REPORTS, "gaze": [LOOK, LOOK], "spans": [[(0, 1), None], [(3, 2)]]},
        "gaze of image 1: span 0 runs backwards",
    ),
    "NaN fixation": (
        {"images": TWO, "text": REPORTS, "gaze": [LOOK, LOOK | {"x": [0.1, float("nan")]}], "spans": SPANS},
        "gaze of image 1: fixation 1 has x = nan",
    ),
    "augmentation without images": ({"text": ["a"], "frame_affines": [frame_affine()]}, "0 images but 1 frame_affines"),
    "other number of augmentations": (
        {"images": TWO, "frame_affines": [frame_affine()]},
        "2 images but 1 frame_affines",
    ),
    "gaze under a centre crop": (
        {"images": TWO, "text": REPORTS, "gaze": [LOOK, LOOK], "spans": SPANS, "do_center_crop": True,
         "crop_size": {"height": 96, "width": 96}},
        "cannot follow do_center_crop",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD_CALLS)
def test_inputs_that_do_not_fit_are_refused(processor, case):
    arguments, message = BAD_CALLS[case]
    with pytest.raises(ValueError, match=message):
        processor(**arguments)


@pytest.mark.parametrize("mode", ["I;16", "I", "F", "CMYK", "YCbCr", "HSV", "LAB"])
def test_image_modes_without_fixed_grey_values_are_refused(processor, mode):
    with pytest.raises(ValueError, match=f"image mode {mode} is not supported"):
        processor(images=[Image.new(mode, (32, 32))])


def test_gaze_with_an_image_processor_that_hides_its_geometry_is_refused(tokenizer):
    processor = EgmaProcessor(ViTImageProcessor(size={"height": FRAME, "width": FRAME}, do_convert_rgb=True), tokenizer)
    with pytest.raises(ValueError, match="does not say how it places an image"):
        processor(images=[grey()], text=REPORTS[:1], gaze=[LOOK], spans=SPANS[:1])


def test_unknown_gaze_settings_are_refused(tokenizer):
    with pytest.raises(ValueError, match="gaze_kwargs has no sigmaa; expected sigma, lead"):
        EgmaProcessor(None, tokenizer, gaze_kwargs={"sigmaa": 0.1})


@pytest.mark.parametrize("call", [{"do_pad_square": False}, {"images_kwargs": {"do_pad_square": False}}])
def test_gaze_follows_an_image_that_is_stretched_instead_of_padded(processor, call):
    batch = processor(images=[grey(80, 40)], text=REPORTS[:1], gaze=[LOOK], spans=SPANS[:1], **call)
    assert torch.equal(batch["gaze_heatmaps"], gaze_matrix(LOOK, SPANS[0], GRID))


TRANSPARENT = {
    "RGBA": Image.new("RGBA", (20, 20), (255, 255, 255, 0)),
    "LA": Image.new("LA", (20, 20), (255, 0)),
    "P": Image.new("RGBA", (20, 20), (255, 255, 255, 0)).convert("P"),
}
TRANSPARENT["P"].info["transparency"] = TRANSPARENT["P"].getpixel((0, 0))


@pytest.mark.parametrize("mode", TRANSPARENT)
def test_transparent_pictures_are_laid_on_black(processor, mode):
    pixels = brightness(processor, processor(images=[TRANSPARENT[mode]])["pixel_values"])
    assert pixels.abs().max() < 1e-6


@pytest.mark.parametrize("mode", ["L", "1", "P", "RGB", "RGBA", "LA"])
def test_opaque_white_stays_white_in_every_mode(processor, mode):
    white = Image.new("L", (20, 20), 255).convert(mode)
    pixels = brightness(processor, processor(images=[white])["pixel_values"])
    assert (pixels - 1).abs().max() < 1e-6


@pytest.mark.parametrize(("size", "axis"), [((80, 40), 1), ((40, 80), 2)])
def test_padding_is_black_before_normalisation_and_centred(processor, size, axis):
    pixels = brightness(processor, processor(images=[grey(*size, 255)])["pixel_values"])[0]
    strip = pixels.movedim(axis, 0)
    quarter = FRAME // 4
    border = torch.cat([strip[: quarter - 2], strip[-quarter + 2 :]])
    assert border.abs().max() < 1e-6
    assert (strip[quarter + 2 : -quarter - 2] - 1).abs().max() < 1e-6


def test_what_an_augmentation_brings_in_is_black(processor):
    white = grey(50, 50, 255)
    (pixels,) = brightness(
        processor, processor(images=[white], frame_affines=[frame_affine(scale=0.5)])["pixel_values"]
    )
    assert pixels[:, :24].abs().max() < 1e-5
    assert (pixels[:, 40:70, 40:70] - 1).abs().max() < 1e-5


def test_augmentation_without_normalisation_is_black_too(processor):
    batch = processor(images=[grey(50, 50, 255)], frame_affines=[frame_affine(scale=0.5)], do_normalize=False)
    assert batch["pixel_values"][0, :, :24].abs().max() < 1e-6


def test_arrays_and_pictures_give_the_same(processor):
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 255, (40, 60, 3), dtype=np.uint8))
    array = np.asarray(picture)
    expected = processor(images=[picture])["pixel_values"]
    assert torch.equal(processor(images=[array])["pixel_values"], expected)
    assert torch.equal(processor(images=array[None])["pixel_values"], expected)


def test_a_picture_of_the_frames_size_is_only_normalised(processor):
    values = np.random.default_rng(0).integers(0, 255, (FRAME, FRAME), dtype=np.uint8)
    pixels = brightness(processor, processor(images=[Image.fromarray(values)])["pixel_values"])
    assert torch.allclose(pixels[0, 0], torch.from_numpy(values) / 255, rtol=0, atol=1e-6)


def test_what_max_length_cuts_is_counted(processor, library_warnings):
    long = "no " * 40
    batch = processor(images=[grey(), grey()], text=[[long, "clear ."], [long]])
    assert batch["input_ids"].shape[1] == 16
    assert processor.truncated_sentences == 2
    said = "sentences of more than 16 tokens are cut; `truncated_sentences` counts them"
    assert library_warnings().count(said) == 1
    processor(text=[long])
    assert processor.truncated_sentences == 3 and library_warnings().count(said) == 1
    processor(text=["a of a of", "a"], max_length=4)
    assert processor.truncated_sentences == 4


@pytest.mark.parametrize(("words", "counted"), [(14, 0), (15, 1)])
def test_a_sentence_that_just_fits_is_not_counted_and_one_word_more_is(processor, words, counted):
    batch = processor(text=["no " * words])
    assert batch["input_ids"].shape[1] == 16
    assert processor.truncated_sentences == counted


def test_saved_processor_keeps_grid_and_gaze_settings(tmp_path, tiny_config, tokenizer):
    tiny_config.vision_stage = 2
    processor = EgmaProcessor.for_model(tiny_config, tokenizer, gaze_kwargs={"sigma": 0.07, "lead": 0.3})
    processor.save_pretrained(tmp_path)
    for loaded in (EgmaProcessor.from_pretrained(tmp_path), AutoProcessor.from_pretrained(tmp_path)):
        assert loaded.grid_size == 14
        assert loaded.gaze_kwargs == {"sigma": 0.07, "lead": 0.3}
        assert loaded.truncated_sentences == 0
        arguments = {"images": [grey()], "text": REPORTS[:1], "gaze": [LOOK], "spans": SPANS[:1]}
        expected = processor(**arguments)
        assert all(torch.equal(value, expected[name]) for name, value in loaded(**arguments).items())


def test_default_gaze_settings_are_filled_in(tiny_config, tokenizer):
    processor = EgmaProcessor.for_model(tiny_config, tokenizer, gaze_kwargs={"lead": 1.0})
    assert processor.gaze_kwargs == {"sigma": 0.05, "lead": 1.0}


def test_maps_for_another_number_of_images_are_refused(processor):
    with pytest.raises(ValueError, match="each of the 2 images, got 1"):
        processor.post_process_similarity_map(torch.zeros(2, 1, GRID, GRID), [(10, 10)])
