"""Folders of images with texts or labels, good and bad."""

import json

import numpy as np
import pytest
from PIL import Image

from dataset_scripts import build
from dataset_scripts.schema import SPLITS, UserError, load_readings
from tests.dataset_scripts.raw_trees import grey_picture, image_text_folder, write_lines


def convert(source, output, **options):
    report = build.build("image_text", source, output, image_size=64, max_loss=1, **options)
    rows = [(split, row) for split in SPLITS if split in report["splits"] for row in load_readings(output, split)]
    return rows, report


def one_row(source, output):
    rows, _ = convert(source, output)
    assert len(rows) == 1
    return rows[0][1]


def findings(row):
    return {finding["name"]: finding["value"] for finding in row["findings"]}


def test_text_becomes_untimed_sentences(tmp_path):
    source = image_text_folder(
        tmp_path / "raw", ["file_name,text,view,license", 'a.png,"No effusion. Dr. X, 2.5 cm.",PA,CC']
    )
    row = one_row(source, tmp_path / "out")
    assert [sentence["text"] for sentence in row["sentences"]] == ["No effusion.", "Dr. X, 2.5 cm."]
    assert (row["view"], row["license"], row["source"]) == ("PA", "CC", "image_text")
    assert row["fixations"] is None and row["subject_id"] is None
    assert (row["width"], row["height"]) == (40, 30)


def test_grey_values_are_intact_and_nothing_is_enlarged(tmp_path):
    row = one_row(image_text_folder(tmp_path / "raw", ["file_name,text", "a.png,x"]), tmp_path / "out")
    assert row["image"].mode == "L"
    assert np.array_equal(np.asarray(row["image"]), np.asarray(grey_picture(40, 30)))


def test_long_side_is_the_image_size(tmp_path):
    source = image_text_folder(tmp_path / "raw", ["file_name,text", "a.png,x"], {"a.png": grey_picture(128, 256)})
    row = one_row(source, tmp_path / "out")
    assert row["image"].size == (32, 64)
    assert (row["width"], row["height"]) == (128, 256)


def test_labels_are_complete_and_findings_are_not(tmp_path):
    images = {name: grey_picture(8, 8) for name in ("a.png", "b.png", "c.png")}
    lines = ["file_name,labels,text", "a.png,Mass|Edema,x", "b.png,No Finding,x", "c.png,,x"]
    rows, _ = convert(image_text_folder(tmp_path / "labels", lines, images), tmp_path / "out")
    by_name = {row["image_id"]: findings(row) for _, row in rows}
    assert by_name["a.png"] == {"Edema": 1, "Mass": 1, "No Finding": 0}
    assert by_name["b.png"] == {"Edema": 0, "Mass": 0, "No Finding": 1}
    assert by_name["c.png"] == {}
    lines = ["file_name,finding", "a.png,Mass|Edema", "b.png,No Finding"]
    rows, _ = convert(image_text_folder(tmp_path / "finding", lines, images), tmp_path / "out2")
    assert {row["image_id"]: findings(row) for _, row in rows} == {
        "a.png": {"Mass": 1, "Edema": 1},
        "b.png": {"No Finding": 1},
    }


def test_words_that_look_like_nothing_stay_words(tmp_path):
    row = one_row(image_text_folder(tmp_path / "raw", ["file_name,text", "a.png,none"]), tmp_path / "out")
    assert row["sentences"][0]["text"] == "none"


def test_bom_and_crlf(tmp_path):
    source = image_text_folder(tmp_path / "raw", [])
    (source / "metadata.csv").write_bytes("\ufefffile_name,text\r\na.png,Clear.\r\n".encode())
    assert one_row(source, tmp_path / "out")["sentences"][0]["text"] == "Clear."


def test_json_lines(tmp_path):
    source = image_text_folder(tmp_path / "raw", [])
    (source / "metadata.csv").unlink()
    line = {"file_name": "a.png", "text": "Clear.", "labels": ["Mass", "Edema"], "patient_id": 7, "view": None}
    write_lines(source / "metadata.jsonl", [json.dumps(line)])
    row = one_row(source, tmp_path / "out")
    assert row["subject_id"] == "7" and row["view"] is None and findings(row) == {"Mass": 1, "Edema": 1}


def test_hashed_split_keeps_a_patient_together(tmp_path):
    lines = ["file_name,text,patient_id", *(f"{n}.png,x,{n // 3}" for n in range(60))]
    images = {f"{n}.png": grey_picture(4, 4) for n in range(60)}
    rows, report = convert(image_text_folder(tmp_path / "raw", lines, images), tmp_path / "out")
    splits = {}
    for split, row in rows:
        assert splits.setdefault(row["subject_id"], split) == split
    assert set(report["splits"]) == set(SPLITS)
    other, _ = convert(tmp_path / "raw", tmp_path / "out2", seed=1)
    assert {(split, row["image_id"]) for split, row in rows} != {(split, row["image_id"]) for split, row in other}


def test_column_split_decides(tmp_path):
    images = {"a.png": grey_picture(4, 4), "b.png": grey_picture(4, 4)}
    lines = ["file_name,text,split", "a.png,x,val", "b.png,x,test"]
    rows, _ = convert(image_text_folder(tmp_path / "raw", lines, images), tmp_path / "out")
    assert [(split, row["image_id"]) for split, row in rows] == [("validation", "a.png"), ("test", "b.png")]


def test_images_without_patient_are_reported(tmp_path):
    _, report = convert(image_text_folder(tmp_path / "raw", ["file_name,text", "a.png,x"]), tmp_path / "out")
    assert report["notes"]["no_patient_id_split_by_image"]["count"] == 1


GREY = np.arange(64, dtype=np.uint8).reshape(8, 8)
ALPHA = np.where(GREY < 32, 0, 255).astype(np.uint8)


@pytest.mark.parametrize(
    ("image", "mode", "expected"),
    [
        (Image.fromarray(np.stack([GREY, GREY, GREY, np.full_like(GREY, 255)], -1)), "RGB", GREY),
        (Image.fromarray(np.stack([GREY, GREY, GREY, ALPHA], -1)), "RGB", np.where(ALPHA, GREY, 0)),
        (Image.fromarray(np.stack([GREY, ALPHA], -1)), "L", np.where(ALPHA, GREY, 0)),
        (Image.fromarray(GREY).convert("P"), "RGB", GREY),
        (Image.fromarray(GREY >= 32), "L", np.where(GREY >= 32, 255, 0)),
        (Image.fromarray(GREY.astype(np.uint16) * 10 + 1000), "L", np.round(GREY * (255 / 63))),
    ],
    ids=["opaque alpha", "alpha on black", "grey and alpha", "palette", "1 bit", "16 bit"],
)
def test_image_modes(tmp_path, image, mode, expected):
    source = image_text_folder(tmp_path / "raw", ["file_name,text", "a.png,x"], {"a.png": image})
    stored = one_row(source, tmp_path / "out")["image"]
    assert stored.mode == mode
    values = np.asarray(stored)
    assert np.array_equal(values if mode == "L" else values[..., 0], expected)


def test_sixteen_bits_are_noted(tmp_path):
    image = Image.fromarray(GREY.astype(np.uint16) * 10)
    source = image_text_folder(tmp_path / "raw", ["file_name,text", "a.png,x"], {"a.png": image})
    _, report = convert(source, tmp_path / "out")
    assert report["notes"]["image_16_bit_scaled_to_8_bit_by_its_own_range"]["count"] == 1


def bad_images(root):
    grey_picture(40, 30).save(root / "good.png")
    grey_picture(40, 30).save(root / "good.jpg")
    (root / "truncated.png").write_bytes((root / "good.png").read_bytes()[:100])
    (root / "truncated.jpg").write_bytes((root / "good.jpg").read_bytes()[:-5])
    (root / "text.png").write_text("no picture")
    grey_picture(8, 8).save(root / "format.bmp")
    grey_picture(8, 8).convert("CMYK").save(root / "cmyk.jpg")
    grey_picture(8, 8).save(root.parent / "outside.png")
    (root / "link.png").symlink_to(root.parent / "outside.png")


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("truncated.png", "image_not_decodable"),
        ("truncated.jpg", "image_not_decodable"),
        ("text.png", "image_not_decodable"),
        ("format.bmp", "image_not_decodable"),
        ("cmyk.jpg", "unexpected_image_mode"),
        ("missing.png", "image_missing"),
        ("../outside.png", "path_leaves_source"),
        ("link.png", "path_leaves_source"),
        ("/etc/hostname", "path_leaves_source"),
        ("", "no_file_name"),
    ],
)
def test_bad_image_is_dropped_and_named(tmp_path, name, reason):
    source = image_text_folder(tmp_path / "raw", ["file_name,text", "good.png,x", f"{name},x"], {})
    bad_images(source)
    rows, report = convert(source, tmp_path / "out")
    assert [row["image_id"] for _, row in rows] == ["good.png"]
    dropped = report["tables"]["metadata.csv"]["dropped"]
    assert list(dropped) == [reason] and name in dropped[reason]["first"][0]


def test_picture_with_too_many_pixels_is_not_decoded(tmp_path, monkeypatch):
    monkeypatch.setattr("dataset_scripts.schema.MAX_PIXELS", 100)
    source = image_text_folder(tmp_path / "raw", ["file_name,text", "a.png,x"])
    with pytest.raises(UserError, match="image_too_large"):
        convert(source, tmp_path / "out")


def test_row_without_text_and_label_is_dropped(tmp_path):
    images = {"a.png": grey_picture(4, 4), "b.png": grey_picture(4, 4)}
    source = image_text_folder(tmp_path / "raw", ["file_name,text,finding", "a.png,x,", "b.png,,"], images)
    _, report = convert(source, tmp_path / "out")
    assert report["readings"]["dropped"]["neither_text_nor_label"]["first"] == ["row 2 b.png"]


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["file,text", "a.png,x"], "column.* file_name missing"),
        (["file_name,age", "a.png,5"], "at least one of the columns text, labels, finding"),
        (["file_name,text"], "no row"),
        ([], "file_name missing"),
        (["file_name,text", "b.png,x"], "no reading could be kept of 1 .*image_missing: row 1 b.png"),
        (["file_name,text,split", "a.png,x,holdout"], "row 1 has the split 'holdout'"),
        (
            ["file_name,text,split,patient_id", "a.png,x,train,7", "b.png,x,test,7"],
            "patient 7 lies in both train and test",
        ),
        (["file_name,text", "a.png,x,y"], "row 1 has 3 cells; expected 2"),
    ],
)
def test_bad_table_is_one_sentence_and_exit_code_2(tmp_path, capsys, lines, message):
    source = image_text_folder(tmp_path / "raw", lines)
    with pytest.raises(UserError, match=message):
        convert(source, tmp_path / "out")
    assert build.main(["image_text", "--source", str(source), "--output", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert "error: " in error and "Traceback" not in error
    assert {path.name for path in tmp_path.iterdir()} == {"raw"}


@pytest.mark.parametrize(
    ("content", "message"),
    [('{"file_name": "a.png", "text": "x"}\n[1]\n', "line 2 is no JSON object"), ("\xff", "expected UTF-8|no JSON")],
)
def test_bad_json_lines(tmp_path, content, message):
    source = image_text_folder(tmp_path / "raw", [])
    (source / "metadata.csv").unlink()
    (source / "metadata.jsonl").write_bytes(content.encode("latin-1"))
    with pytest.raises(UserError, match=message):
        convert(source, tmp_path / "out")


def test_folder_without_metadata(tmp_path):
    (tmp_path / "raw").mkdir()
    with pytest.raises(UserError, match=r"no metadata\.csv or metadata\.jsonl"):
        convert(tmp_path / "raw", tmp_path / "out")


@pytest.mark.parametrize(("name", "rows", "with_text"), [("notes", 80, 80), ("nih", 120, 0)])
def test_real_folders(tmp_path, real_data, name, rows, with_text):
    converted, report = convert(real_data / name, tmp_path / "out")
    assert report["readings"] == {"rows_in": rows, "rows_kept": rows, "rows_dropped": 0, "dropped": {}}
    assert sum(bool(row["sentences"]) for _, row in converted) == with_text
    assert all(row["findings"] for _, row in converted)
    assert set(report["splits"]) == set(SPLITS)


def test_half_a_surrogate_and_names_that_no_file_can_have(tmp_path):
    source = tmp_path / "raw"
    source.mkdir()
    grey_picture(40, 30).save(source / "a.png")
    (source / "loop.png").symlink_to("loop.png")
    names = ["a.png", "a.png", "n" * 300 + ".png", "loop.png", "b\0.png", "\ud800.png"]
    texts = ["Clear.", "Clear \ud800.", *["Clear."] * 4]
    lines = [json.dumps({"file_name": name, "text": text}) for name, text in zip(names, texts, strict=True)]
    write_lines(source / "metadata.jsonl", lines)
    rows, report = convert(source, tmp_path / "out")
    assert len(rows) == 1
    dropped = {reason: found["count"] for reason, found in report["tables"]["metadata.jsonl"]["dropped"].items()}
    assert dropped == {"text_is_no_unicode": 1, "image_missing": 1, "path_not_understood": 3}
