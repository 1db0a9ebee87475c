"""The one door for pictures: what it says when it refuses, addresses, and frames that follow an upright picture."""

import base64
import io
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image
from transformers import BatchFeature, pipeline

from modeling_egma.gaze_egma import gaze_matrix
from modeling_egma.pictures_egma import as_picture
from modeling_egma.pipeline_egma import STOCK_TASKS

GREY = np.arange(30 * 40, dtype=np.uint8).reshape(30, 40)
LOOK = {"x": [0.1], "y": [0.8], "start": [0.0], "duration": [1.0]}


def png(image=None, **options):
    buffer = io.BytesIO()
    (image or Image.fromarray(GREY)).save(buffer, "PNG", **options)
    return buffer.getvalue()


def lying():
    exif = Image.Exif()
    exif[0x0112] = 6
    return Image.open(io.BytesIO(png(exif=exif)))


@given(arrays(np.uint8, st.tuples(st.integers(1, 6), st.integers(5, 9), st.sampled_from([1, 3]))))
def test_any_eight_bit_picture_is_itself_as_floats_channels_first_and_pil(values):
    height, width, channels = values.shape
    picture = np.asarray(as_picture(values, "channels_last")).reshape(values.shape)
    np.testing.assert_array_equal(picture, values)
    first = torch.from_numpy(values).movedim(2, 0) / 255
    np.testing.assert_array_equal(np.asarray(as_picture(first, "channels_first")).reshape(values.shape), values)
    again = as_picture(as_picture(values, "channels_last"))
    assert (again.size, again.mode) == ((width, height), {1: "L", 3: "RGB"}[channels])
    np.testing.assert_array_equal(np.asarray(again).reshape(values.shape), values)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (np.zeros((3, 40, 3), np.uint8), r"shape \(3, 40, 3\) fits both|fits channels first and channels last"),
        (np.zeros((5, 40, 30), np.uint8), "has not 1 to 4 channels"),
        (np.zeros((0, 4), np.uint8), r"shape \(0, 4\) is no picture"),
        (GREY.astype(np.uint16), "uint16 has no fixed white"),
        (GREY.astype(np.float64), "floats from 0 to 255 are no picture; expected 0 to 1"),
        (Image.new("I;16", (4, 4)), "mode I;16 is not supported"),
        (None, "expected a picture .*, got NoneType"),
        ("no such file.png", "no such file.png.*; expected a picture"),
        ("data:image/png;base64,AAAA", "expected a picture"),
    ],
)
def test_what_is_no_picture_is_told_in_words(given, message):
    with pytest.raises(ValueError, match=message):
        as_picture(given)


def test_a_shape_that_fits_both_orders_is_read_as_asked(processor):
    values = np.arange(3 * 40 * 3, dtype=np.uint8).reshape(3, 40, 3)
    assert as_picture(values, "channels_last").size == (40, 3)
    assert as_picture(values, "channels_first").size == (3, 40)
    by_hand = processor(images=[as_picture(values, "channels_first")])["pixel_values"]
    assert torch.equal(processor(images=values, input_data_format="channels_first")["pixel_values"], by_hand)


def test_floats_are_scaled_once_so_do_rescale_false_is_refused(processor):
    for call in (processor, processor.image_processor):
        with pytest.raises(ValueError, match="leave out do_rescale=False"):
            call(images=GREY / 255, do_rescale=False)
        unscaled = call(images=GREY, do_rescale=False, do_normalize=False, return_tensors="pt")["pixel_values"]
        assert unscaled.max() > 200


def test_one_pixel_is_a_picture():
    assert np.asarray(as_picture(np.array([[7]], np.uint8))).tolist() == [[7]]
    assert as_picture(Image.new("RGB", (1, 1), (1, 2, 3))).getpixel((0, 0)) == (1, 2, 3)


def test_addresses_and_data_strings_come_in_as_files_do():
    content = png(Image.merge("LA", [Image.fromarray(GREY), Image.fromarray(255 - GREY)]))
    expected = np.asarray(as_picture(Image.open(io.BytesIO(content))))

    class Answer(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200 if self.path == "/a.png" else 404)
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_):
            pass

    with HTTPServer(("127.0.0.1", 0), Answer) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_port}"
        for source in (f"{address}/a.png", f"data:image/png;base64,{base64.b64encode(content).decode()}"):
            np.testing.assert_array_equal(np.asarray(as_picture(source)), expected)
        with pytest.raises(ValueError, match="404"):
            as_picture(f"{address}/b.png")
        server.shutdown()


def test_gaze_and_heat_maps_follow_the_upright_picture(processor, tiny_model):
    upright = Image.fromarray(np.rot90(GREY, -1))
    call = {"text": [["clear"]], "gaze": [LOOK], "spans": [[(0, 1)]]}
    expected, found = (processor(images=[image], **call) for image in (upright, lying()))
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    assert not torch.equal(found["gaze_heatmaps"], gaze_matrix(LOOK, [(0, 1)], 7))
    ground = pipeline("egma-grounding", model=tiny_model, processor=processor, tokenizer=processor.tokenizer)
    assert ground(lying(), "clear")[0]["heat_map"].shape == (40, 30)


def test_stock_pipelines_of_other_models_are_as_they_were(processor, tiny_model, monkeypatch):
    called = []
    monkeypatch.setattr("modeling_egma.pipeline_egma.as_picture", lambda image: called.append(image))
    other = pipeline(
        "zero-shot-image-classification",
        model=tiny_model,
        image_processor=_OtherProcessor(),
        tokenizer=processor.tokenizer,
    )
    other.preprocess(Image.fromarray(GREY), candidate_labels=["clear"])
    assert type(other) is STOCK_TASKS["zero-shot-image-classification"] and called == []


class _OtherProcessor:
    """What a stock pipeline asks of an image processor."""

    def __call__(self, images, return_tensors):
        assert [image.mode for image in images] == ["RGB"]
        return BatchFeature({"pixel_values": torch.zeros(1, 3, 8, 8)})
