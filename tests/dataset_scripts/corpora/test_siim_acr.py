"""SIIM-ACR: relative run lengths in every form of the table, regions to boxes, pictures anywhere under the source."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from dataset_scripts.corpora import siim_acr
from dataset_scripts.corpora.siim_acr import read_rows, region_boxes
from dataset_scripts.corpora.splits import hashed_split
from dataset_scripts.images import rle
from dataset_scripts.ledger import Ledger
from dataset_scripts.plan import Options
from dataset_scripts.schema import UserError
from tests.dataset_scripts.converting import convert
from tests.dataset_scripts.raw_trees import grey_picture, write_lines

FIRST, SECOND, THIRD = "1.2.276.1", "1.2.276.2", "1.2.276.3"
HEADER = "ImageId, EncodedPixels"
TABLE, IMAGES = "train-rle.csv", "images of train-rle.csv"
SIDE = 1024
OPTIONS = Options(image_size=32, seed=0, generated=False)


def run_lengths(*rectangles):
    """The cell of (left, top, right, bottom) rectangles in pixels, written as a plain walk down the columns."""
    numbers, end = [], 0
    for left, top, right, bottom in rectangles:
        for column in range(left, right):
            start = column * SIDE + top
            numbers += [start - end, bottom - top]
            end = start + bottom - top
    return " ".join(map(str, numbers))


def tree(root, lines, images=(FIRST, SECOND), line_end="\n", name=TABLE):
    write_lines(root / name, lines, line_end)
    for image_id in images:
        path = root / "dicom-images-train" / f"study {image_id}" / "series" / f"{image_id}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        grey_picture(32, 32).save(path)
    return root


def converted(folder, lines, images=(FIRST, SECOND), **options):
    return convert("siim_acr", tree(folder / "raw", lines, images), folder / "out", **options)


def dropped(report, table):
    return {reason: found["count"] for reason, found in report["tables"][table]["dropped"].items()}


def pixels(row):
    """(left, top, right, bottom) of the boxes in pixels of the frame."""
    return [tuple(SIDE * box[name] for name in ("x_min", "y_min", "x_max", "y_max")) for box in row["boxes"]]


def values(row):
    return {finding["name"]: finding["value"] for finding in row["findings"]}


def test_masks_become_boxes_and_minus_one_none(tmp_path):
    lines = [HEADER, f"{FIRST}, {run_lengths((100, 200, 104, 260))}", f"{SECOND}, -1"]
    rows, report = converted(tmp_path, lines, num_proc=2)
    first, second = rows[FIRST], rows[SECOND]
    assert pixels(first) == [(100, 200, 104, 260)] and values(first) == {"Pneumothorax": 1}
    assert second["boxes"] == [] and values(second) == {"Pneumothorax": 0}
    assert (first["source"], first["width"], first["height"], first["subject_id"]) == ("siim_acr", SIDE, SIDE, None)
    assert {box["label"] for box in first["boxes"]} == {"Pneumothorax"}
    assert first["image"].size == (32, 32)
    assert report["tables"][TABLE]["rows_kept"] == report["tables"][IMAGES]["rows_kept"] == 2
    assert report["notes"]["no_patient_id_split_by_image"]["count"] == 2


def test_rows_of_an_image_are_joined(tmp_path):
    halves = [run_lengths((10, 10, 20, 30)), run_lengths((15, 10, 40, 30), (200, 5, 201, 6))]
    rows, report = converted(tmp_path, [HEADER, *(f"{FIRST},{cell}" for cell in halves)])
    assert sorted(pixels(rows[FIRST])) == [(10, 10, 40, 30), (200, 5, 201, 6)]
    assert report["readings"]["rows_in"] == 1 and report["tables"][TABLE]["rows_kept"] == 2


@pytest.mark.parametrize(
    "header", [HEADER, "ImageId,EncodedPixels", "EncodedPixels,ImageId", '"ImageId"," EncodedPixels"']
)
@pytest.mark.parametrize("blank", ["", " "])
def test_header_and_blanks_of_any_copy(tmp_path, header, blank):
    cells = [(FIRST, blank + run_lengths((3, 4, 5, 9))), (SECOND, f"{blank}-1")]
    if header.startswith("Enc"):
        cells = [(mask, name) for name, mask in cells]
    path = write_lines(tmp_path / TABLE, [header, *map(",".join, cells)])
    assert [(row.number, row.image_id, row.mask) for row in read_rows(path, Ledger())] == [
        (1, FIRST, run_lengths((3, 4, 5, 9))),
        (2, SECOND, "-1"),
    ]


def test_sample_without_header_with_a_bom_and_two_line_ends(tmp_path):
    raw = tree(tmp_path / "raw", [], name="train-rle-sample.csv")
    (raw / "train-rle-sample.csv").write_bytes(
        b"\xef\xbb\xbf" + f"{FIRST}, {run_lengths((7, 8, 9, 10))}\r\n{SECOND}, -1\n{THIRD},-1\r\n".encode()
    )
    rows, report = convert("siim_acr", raw, tmp_path / "out")
    assert pixels(rows[FIRST]) == [(7, 8, 9, 10)] and rows[SECOND]["boxes"] == []
    assert report["tables"]["train-rle-sample.csv"]["rows_in"] == 3
    assert dropped(report, "images of train-rle-sample.csv") == {"image_missing": 1}


def test_bad_masks_are_counted_and_never_make_an_image_negative(tmp_path):
    good = run_lengths((3, 4, 5, 9))
    lines = [
        HEADER,
        *(f"{FIRST},{cell}" for cell in (good, "5 x", "-1", "7 0")),
        *(f"{SECOND},{cell}" for cell in ("-1", "-1")),
        f"{THIRD},{SIDE * SIDE} 1",
        "1.4,",
        *("1.5,-1", "1.5,3"),
        ",-1",
    ]
    rows, report = converted(tmp_path, lines, images=(FIRST, SECOND, THIRD, "1.4", "1.5"))
    assert set(rows) == {FIRST, SECOND} and values(rows[FIRST]) == {"Pneumothorax": 1}
    assert dropped(report, IMAGES) == {"no_mask_understood": 3, "no_image_id": 1}
    assert dropped(report, TABLE) == {
        "mask_not_understood": 1,
        "mask_without_area": 1,
        "no_mask_beside_a_mask": 1,
        "duplicate_row": 1,
        "reading_dropped": 5,
    }
    assert "row 2" in report["tables"][TABLE]["dropped"]["mask_not_understood"]["first"][0]


def test_pictures_must_lie_in_the_source_and_be_whole(tmp_path):
    raw = tree(
        tmp_path / "raw", [HEADER, *(f"{name},-1" for name in (FIRST, SECOND, THIRD, "1.4", "1.5"))], [FIRST, SECOND]
    )
    grey_picture(8, 8).save(tmp_path / f"{THIRD}.png")
    (raw / f"{THIRD}.png").symlink_to(tmp_path / f"{THIRD}.png")
    (tmp_path / "elsewhere").mkdir()
    grey_picture(8, 8).save(tmp_path / "elsewhere" / "1.4.png")
    (raw / "linked").symlink_to(tmp_path / "elsewhere")
    truncated = next(raw.rglob(f"{SECOND}.png"))
    truncated.write_bytes(truncated.read_bytes()[:50])
    grey_picture(8, 8).save(raw / f"{FIRST}.png")
    rows, report = convert("siim_acr", raw, tmp_path / "out")
    assert set(rows) == {FIRST}
    assert dropped(report, IMAGES) == {"image_not_decodable": 1, "path_leaves_source": 1, "image_missing": 2}
    assert report["notes"]["image_has_several_files"]["first"] == [f"{FIRST}.png is taken of 2"]


def test_patients_of_the_dicom_headers_lie_in_one_split(tmp_path):
    pytest.importorskip("pydicom")
    from tests.dataset_scripts.images.test_dicom import picture, saved

    names = [f"1.9.{number}" for number in range(12)]
    raw = tree(tmp_path / "raw", [HEADER, *(f"{name},-1" for name in names)], images=())
    for number, name in enumerate(names):
        patient = {"PatientID": f"patient {number // 4}"} if number < 8 else {}
        saved(raw, picture(np.eye(4, dtype=np.uint8), SOPInstanceUID=name, **patient), f"{name}.dcm")
    rows, report = convert("siim_acr", raw, tmp_path / "out")
    assert [rows[name]["subject_id"] for name in names] == ["patient 0"] * 4 + ["patient 1"] * 4 + [None] * 4
    assert report["notes"]["no_patient_id_split_by_image"]["count"] == 4
    expected = [hashed_split(f"patient {number // 4}", 0, 0.7, 0.15) for number in range(8)]
    expected += [hashed_split(f"image {name}", 0, 0.7, 0.15) for name in names[8:]]
    counts = {split: found["readings"] for split, found in report["splits"].items()}
    assert counts == {split: expected.count(split) for split in set(expected)}


def test_real_dicom_is_read_with_its_patient(real_data, tmp_path):
    pytest.importorskip("pydicom")
    raw = tree(tmp_path / "raw", [HEADER, "chest,-1"], images=())
    (raw / "chest.dcm").write_bytes((real_data / "dicom" / "chest.dcm").read_bytes())
    rows, report = convert("siim_acr", raw, tmp_path / "out")
    assert set(rows) == {"chest"}
    assert (rows["chest"]["subject_id"] is None) == ("no_patient_id_split_by_image" in report["notes"])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "begins with"),
        (f"{HEADER}\n".encode(), "has no row"),
        (b"ImageId;EncodedPixels\n1;-1\n", "expected the columns ImageId,EncodedPixels"),
        (b"1.2;-1\n", "expected the columns ImageId,EncodedPixels"),
        (b"ImageId,Mask\n1,-1\n", "expected the columns ImageId,EncodedPixels"),
        (f"{HEADER}\n1.2\n".encode(), "has no row, but 1 of another length"),
        ("ImageId,é\n".encode("latin-1"), "expected the columns ImageId,EncodedPixels"),
    ],
)
def test_tables_that_are_none_are_refused(tmp_path, content, message):
    (tmp_path / TABLE).write_bytes(content)
    with pytest.raises(UserError, match=message):
        siim_acr.plan(tmp_path, OPTIONS)


def test_missing_table_and_one_that_leaves_the_source(tmp_path):
    (tmp_path / "raw").mkdir()
    with pytest.raises(UserError, match=r"no train-rle\.csv"):
        siim_acr.plan(tmp_path / "raw", OPTIONS)
    outside = write_lines(tmp_path / "outside.csv", [HEADER, "1,-1"])
    (tmp_path / "raw" / TABLE).symlink_to(outside)
    with pytest.raises(UserError, match="symbolic link"):
        siim_acr.plan(tmp_path / "raw", OPTIONS)


def naive_regions(mask):
    """(left, top, right, bottom) of the regions, by flooding over the eight neighbours."""
    left = {(int(row), int(column)) for row, column in np.argwhere(mask)}
    found = set()
    while left:
        waiting, region = [left.pop()], []
        while waiting:
            row, column = waiting.pop()
            region.append((row, column))
            near = {(row + down, column + right) for down in (-1, 0, 1) for right in (-1, 0, 1)} & left
            left -= near
            waiting += near
        rows, columns = zip(*region, strict=True)
        found.add((min(columns), min(rows), max(columns) + 1, max(rows) + 1))
    return found


@given(hnp.arrays(np.bool_, (7, 5)))
def test_regions_are_those_of_a_flood(mask):
    corners = {
        tuple(
            round(side * box[name])
            for side, name in zip((5, 7, 5, 7), ("x_min", "y_min", "x_max", "y_max"), strict=True)
        )
        for box in region_boxes(mask)
    }
    assert corners == naive_regions(mask)


@pytest.fixture(scope="module")
def images_tree(tmp_path_factory):
    return tree(tmp_path_factory.mktemp("fuzzed"), [])


cell = st.text(alphabet="0123456789 -1.,x\"'\r\n;é\0", max_size=12)
known_cell = st.sampled_from(["-1", " -1", "", "4 5", "4 5 6", "7 0", f"{SIDE * SIDE} 1"]) | cell


@settings(max_examples=50)
@given(st.booleans(), st.lists(st.tuples(st.sampled_from([FIRST, SECOND, THIRD, ""]) | cell, known_cell), max_size=6))
def test_any_table_is_refused_or_accounted_for(images_tree, has_header, rows):
    lines = [HEADER] * has_header + [",".join(row) for row in rows]
    (images_tree / TABLE).write_bytes("\n".join(lines).encode())
    try:
        planned = siim_acr.plan(images_tree, OPTIONS)
    except UserError as error:
        assert TABLE in str(error)
        return
    total, readings = Ledger(), []
    for outcome in (outcome for unit in planned.units for outcome in planned.convert(unit)):
        total.merge(outcome.ledger)
        readings += [outcome.reading[1]] if outcome.reading else []
    total.check()
    assert total.tables[TABLE].rows_in == len(read_rows(images_tree / TABLE, Ledger()))
    assert total.tables[IMAGES].rows_kept == len(readings)
    for reading in readings:
        masks = [row.mask for row in read_rows(images_tree / TABLE, Ledger()) if row.image_id == reading["image_id"]]
        assert bool(reading["boxes"]) == (values(reading)["Pneumothorax"] == 1) == any(map(is_marked, masks))


def is_marked(text):
    try:
        return bool(rle.decode(text, SIDE, SIDE).any())
    except ValueError:
        return False


def test_a_list_of_ids_is_the_test_set_and_nothing_else_is_kept(tmp_path):
    numbers = [f"1.2.{n}" for n in range(12)]
    lines = [HEADER, *(f"{number}, -1" for number in numbers), f"{numbers[3]}, {run_lengths((3, 4, 5, 9))}"]
    ids = write_lines(tmp_path / "ids.txt", [numbers[7], "", *numbers[2:4]])
    rows, report = converted(tmp_path, lines, images=numbers, ids=ids)
    assert set(rows) == {numbers[2], numbers[3], numbers[7]}
    assert list(report["splits"]) == ["test"] and values(rows[numbers[3]]) == {"Pneumothorax": 1}
    assert dropped(report, IMAGES) == {"not_listed": 9} and report["readings"]["rows_in"] == 12
    assert report["tables"][TABLE]["rows_in"] == 13


def test_a_listed_id_that_the_table_lacks_is_named(tmp_path):
    ids = write_lines(tmp_path / "ids.txt", [FIRST, "1.2.0", "9.9"])
    with pytest.raises(UserError, match=r"ids\.txt: 2 ids are not in .*train-rle\.csv: 1\.2\.0, 9\.9"):
        converted(tmp_path, [HEADER, f"{FIRST}, -1"], ids=ids)
