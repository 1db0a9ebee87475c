"""Pictures to PNG at the working size: every mode, damaged and hostile files."""

import contextlib
import io
import struct
import warnings
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageFilter

from dataset_scripts.files.paths import inside
from dataset_scripts.images import pictures as images
from dataset_scripts.images.pictures import encode_image
from dataset_scripts.ledger import Dropped, Ledger

GREY = (np.arange(20 * 30) % 256).astype(np.uint8).reshape(20, 30)
COLOURS = np.stack([GREY, GREY[::-1], 255 - GREY], axis=2)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("images")


def saved(folder, image, name="a.png", **options):
    image.save(folder / name, **options)
    return folder / name


def decoded(path, long_side=4096, ledger=None):
    encoded = encode_image(path, long_side, ledger or Ledger())
    return Image.open(io.BytesIO(encoded.png))


def smooth(width, height):
    """What a radiograph is like: soft shapes and the noise of a detector."""
    random = np.random.default_rng(0)
    coarse = Image.fromarray(random.integers(0, 256, (16, 12), dtype=np.uint8)).resize((width, height), Image.BICUBIC)
    return Image.fromarray(np.clip(np.asarray(coarse) + random.normal(0, 3, (height, width)), 0, 255).astype(np.uint8))


@pytest.mark.parametrize(
    ("image", "expected"),
    [
        (Image.fromarray(GREY), GREY),
        (Image.fromarray(COLOURS), COLOURS),
        (Image.fromarray(GREY > 99), np.where(GREY > 99, 255, 0)),
        (Image.merge("LA", [Image.fromarray(GREY), Image.new("L", (30, 20), 255)]), GREY),
        (Image.merge("LA", [Image.fromarray(GREY), Image.fromarray((GREY > 99) * np.uint8(255))]), GREY * (GREY > 99)),
        (Image.fromarray(np.dstack([COLOURS, np.full_like(GREY, 255)])), COLOURS),
        (Image.fromarray(GREY.astype(np.uint16) * 200), np.round(GREY.astype(float) * 255 / GREY.max())),
    ],
    ids=["L", "RGB", "1", "LA", "LA partly transparent", "RGBA", "16 bit"],
)
def test_grey_values_stay_intact(folder, image, expected):
    np.testing.assert_array_equal(np.asarray(decoded(saved(folder, image))), expected)


def test_palette_becomes_colours(folder):
    palette = Image.fromarray(GREY // 64).convert("P")
    palette.putpalette([10, 20, 30, 40, 50, 60, 70, 80, 90, 100, 110, 120])
    expected = np.array([[10, 20, 30], [40, 50, 60], [70, 80, 90], [100, 110, 120]])
    index = np.asarray(palette)
    np.testing.assert_array_equal(np.asarray(decoded(saved(folder, palette))), expected[index])
    shown = np.asarray(decoded(saved(folder, palette, transparency=0)))
    np.testing.assert_array_equal(shown, np.where((index == 0)[..., None], 0, expected[index]))


def test_sixteen_bits_are_noted(folder):
    ledger = Ledger()
    decoded(saved(folder, Image.fromarray(GREY.astype(np.uint16) + 777), "deep.png"), ledger=ledger)
    assert ledger.notes["image_16_bit_scaled_to_8_bit_by_its_own_range"].first == ["deep.png"]


@pytest.mark.parametrize(
    "image",
    [
        Image.new("L", (30, 20), 7),
        Image.new("RGB", (30, 20), (7, 8, 9)),
        Image.fromarray(np.full((4, 4), 777, np.uint16)),
        Image.merge("LA", [Image.fromarray(GREY), Image.new("L", (30, 20), 0)]),
        Image.new("L", (1, 1), 7),
    ],
    ids=["grey", "colour", "16 bit", "wholly transparent", "one pixel"],
)
def test_one_grey_level_is_no_picture(folder, image):
    with pytest.raises(Dropped, match="image_of_one_grey_level"):
        decoded(saved(folder, image))


def test_other_modes_are_refused(folder):
    with pytest.raises(Dropped, match="unexpected_image_mode"):
        decoded(saved(folder, Image.new("CMYK", (5, 5)), "cmyk.jpg"))


def test_metadata_stay_behind(folder):
    path = saved(folder, Image.fromarray(GREY), "tagged.png", icc_profile=b"a name", transparency=3)
    assert decoded(path).info == {}


@given(st.integers(1, 9), st.integers(1, 9), st.sampled_from(["L", "RGB"]), st.randoms(use_true_random=False))
def test_every_pixel_is_read_again(width, height, mode, random):
    image = Image.frombytes(mode, (width, height), random.randbytes(width * height * len(mode)))
    written = images._encoded(image)
    found = Image.open(io.BytesIO(written))
    assert (found.format, found.mode, found.size) == ("PNG", mode, image.size) and found.info == {}
    assert found.tobytes() == image.tobytes()


def test_what_is_written_is_quick_to_read_and_hardly_larger():
    """One filter, without Paeth's choice a pixel; of noise alone, where its guess is best, 4 % larger."""
    image = smooth(200, 160)
    written, own = images._encoded(image), io.BytesIO()
    image.save(own, "PNG", compress_level=3)
    start = written.index(b"IDAT") + 4
    rows = np.frombuffer(zlib.decompress(written[start : written.index(b"IEND") - 8]), np.uint8).reshape(160, 201)
    assert (rows[:, 0] == 2).all() and len(written) < 1.1 * len(own.getvalue())


@pytest.mark.parametrize("orientation", [1, 3, 6])
@pytest.mark.parametrize("long_side", [30, 200])
def test_turned_photographs_are_upright_and_so_is_the_frame(folder, orientation, long_side):
    image = smooth(200, 160)
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = saved(folder, image, "turned.jpg", exif=exif, quality=100)
    turned = {1: image, 3: image.rotate(180), 6: image.rotate(270, expand=True)}[orientation]
    encoded = encode_image(path, long_side, Ledger())
    assert (encoded.width, encoded.height) == turned.size
    expected = turned.resize(
        (round(turned.width * long_side / 200), round(turned.height * long_side / 200)), Image.LANCZOS
    )
    found = Image.open(io.BytesIO(encoded.png))
    assert found.size == expected.size
    assert np.abs(np.asarray(found, dtype=int) - np.asarray(expected)).mean() < 1.5


@pytest.mark.parametrize("size", [(1272, 1528), (1100, 900), (1024, 1024)])
@pytest.mark.parametrize("long_side", [256, 64])
def test_large_jpegs_decoded_smaller_are_as_if_decoded_whole(folder, monkeypatch, size, long_side):
    path = saved(folder, smooth(*size), "large.jpg", quality=95)
    fast = encode_image(path, long_side, Ledger())
    monkeypatch.setattr(images, "DECODED_SIDES", 1000)
    whole = encode_image(path, long_side, Ledger())
    assert (fast.width, fast.height) == (whole.width, whole.height) == size
    one, two = (np.asarray(Image.open(io.BytesIO(each.png)), dtype=int) for each in (fast, whole))
    assert one.shape == two.shape and np.abs(one - two).max() <= 2
    assert np.abs(one - two).mean() < 0.35 and abs((one - two).mean()) < 0.15


def test_never_decoded_below_twice_the_final_size(folder, monkeypatch):
    path = saved(folder, smooth(1000, 1200), "large.jpg")
    sizes = []
    monkeypatch.setattr(images, "_png", lambda picture, side: sizes.append(picture.image.size) or b"")
    for long_side in (100, 299, 301, 640, 2000):
        encode_image(path, long_side, Ledger())
    assert sizes == [(250, 300), (500, 600), (1000, 1200), (1000, 1200), (1000, 1200)]


def test_small_pictures_are_not_enlarged_and_narrow_ones_keep_a_pixel(folder):
    assert decoded(saved(folder, Image.fromarray(GREY)), 64).size == (30, 20)
    assert decoded(saved(folder, Image.fromarray(np.arange(1000).astype(np.uint8)[None])), 10).size == (10, 1)


def png_without_pixels(width, height):
    body = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    header = struct.pack(">I", 13) + body + struct.pack(">I", zlib.crc32(body))
    return b"\x89PNG\r\n\x1a\n" + header + struct.pack(">I", 100) + b"IDAT"


@pytest.mark.parametrize("side", [8_001, 60_000])
def test_bombs_are_refused_by_their_header(folder, side):
    (folder / "bomb.png").write_bytes(png_without_pixels(side, side))
    with warnings.catch_warnings(), pytest.raises(Dropped, match=r"image_too_large|DecompressionBombError"):
        warnings.simplefilter("ignore")
        encode_image(folder / "bomb.png", 64, Ledger())


def test_no_picture_at_all(folder):
    (folder / "page.jpg").write_text("<html>")
    (folder / "empty.png").write_bytes(b"")
    saved(folder, Image.fromarray(GREY), "other.bmp")
    for name, reason in (
        ("none.png", "missing"),
        ("page.jpg", "not_decodable"),
        ("empty.png", "not_decodable"),
        ("other.bmp", "not_decodable"),
        ("", "missing"),
    ):
        with pytest.raises(Dropped, match=f"image_{reason}"):
            encode_image(folder / name, 64, Ledger())


@settings(max_examples=200, deadline=None)
@given(
    st.sampled_from(["JPEG", "PNG"]),
    st.floats(0, 0.999),
    st.lists(st.tuples(st.floats(0, 1), st.integers(0, 7)), max_size=6),
    st.booleans(),
)
def test_damaged_files_are_dropped_or_shown(folder, kind, cut, flips, truncate):
    buffer = io.BytesIO()
    Image.fromarray(GREY).save(buffer, kind)
    content = bytearray(buffer.getvalue())
    for place, bit in flips:
        content[int(place * (len(content) - 1))] ^= 1 << bit
    (folder / "damaged").write_bytes(content[: int(cut * len(content))] if truncate else content)
    with warnings.catch_warnings(), contextlib.suppress(Dropped):
        warnings.simplefilter("ignore")
        encode_image(folder / "damaged", 8, Ledger())


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_truncated_files_are_dropped(folder, kind):
    path = saved(folder, smooth(300, 200).filter(ImageFilter.SHARPEN), f"whole.{kind.lower()}")
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(Dropped, match="image_not_decodable"):
        encode_image(path, 64, Ledger())


def test_names_do_not_lead_out_of_the_source(tmp_path):
    root = tmp_path / "root"
    (root / "sub").mkdir(parents=True)
    saved(tmp_path, Image.fromarray(GREY), "secret.png")
    (root / "link.png").symlink_to(tmp_path / "secret.png")
    (root / "sub" / "folder").symlink_to(tmp_path)
    saved(root, Image.fromarray(GREY), "sub/own.png")
    (root / "within.png").symlink_to(root / "sub" / "own.png")
    assert inside(root, "within.png").is_file() and inside(root, "sub/own.png").is_file()
    for name in (
        "../secret.png",
        "sub/../../secret.png",
        str(tmp_path / "secret.png"),
        "link.png",
        "sub/folder/secret.png",
    ):
        with pytest.raises(Dropped, match="path_leaves_source"):
            inside(root, name)
