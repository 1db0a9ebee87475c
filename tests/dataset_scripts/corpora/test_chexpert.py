"""CheXpert and its samples, on a table shaped like CheXpert's with invented values."""

import hashlib
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dataset_scripts import build
from dataset_scripts.corpora.chexpert import (
    EIGHT,
    FIVE,
    LABELS,
    TRAIN_TABLE,
    _Table,
    eligible_class,
    plan,
    plan_sample,
)
from dataset_scripts.corpora.splits import hashed_split
from dataset_scripts.ledger import Ledger
from dataset_scripts.plan import LazyUnits, Options
from dataset_scripts.schema import UserError
from tests.dataset_scripts.converting import convert
from tests.dataset_scripts.raw_trees import grey_picture, write_lines

# as in one copy; the other one swaps Lung Opacity and Lung Lesion
HEADER = ["Path", "Sex", "Age", "Frontal/Lateral", "AP/PA", *LABELS]


def line(path, view="Frontal", projection="AP", sex="Female", header=HEADER, **values):
    cells = {"Path": path, "Sex": sex, "Age": "60", "Frontal/Lateral": view, "AP/PA": projection}
    cells |= {name.replace("_", " "): value for name, value in values.items()}
    return ",".join(cells.get(name, "") for name in header)


def image_path(patient, split="train", view="frontal"):
    return f"CheXpert-v1.0-small/{split}/patient{patient:05d}/study1/view1_{view}.jpg"


def write_images(root, paths):
    for path in paths:
        file = root / path.partition("/")[2]
        file.parent.mkdir(parents=True, exist_ok=True)
        grey_picture(20, 16).save(file)


@pytest.fixture
def tree(tmp_path):
    root = tmp_path / "CheXpert-v1.0-small"
    lines = [
        line(image_path(1), Edema="1.0", Pneumonia="-1.0", Fracture="0.0"),
        line(image_path(2, view="lateral"), view="Lateral", projection="", sex="Unknown", Lung_Lesion="1.0"),
        line(image_path(3), projection="LL", Lung_Opacity="1.0"),
        line(image_path(3), Edema="1.0"),  # named twice
        line(image_path(4)),  # no label at all
        line(image_path(5), Edema="yes", Fracture="1.0"),
        line("somewhere.jpg", Edema="1.0"),
        line(image_path(6), Edema="1.0"),  # no picture
    ]
    write_lines(root / "train.csv", [",".join(HEADER), *lines], "\r\n")
    write_lines(root / "valid.csv", [",".join(HEADER), line(image_path(9, "valid"), **{"No_Finding": "1.0"})])
    write_images(root, [image_path(n) for n in (1, 3, 4, 5)] + [image_path(2, view="lateral"), image_path(9, "valid")])
    return root


def values(row):
    return {finding["name"]: finding["value"] for finding in row["findings"]}


def test_labels_views_and_splits(tree, tmp_path):
    rows, report = convert("chexpert", tree, tmp_path / "out")
    assert {name.split("/")[1]: values(row) for name, row in rows.items()} == {
        "patient00001": {"Edema": 1, "Pneumonia": -1, "Fracture": 0},
        "patient00002": {"Lung Lesion": 1},
        "patient00003": {"Lung Opacity": 1},
        "patient00005": {"Fracture": 1},
        "patient00009": {"No Finding": 1},
    }
    assert sorted(row["view"] for row in rows.values()) == ["AP", "AP", "AP", "LATERAL", "LL"]
    assert report["splits"]["test"]["readings"] == 1
    dropped = {reason: found["count"] for reason, found in report["tables"]["train.csv"]["dropped"].items()}
    assert dropped == {"duplicate_path": 1, "no_label": 1, "path_not_understood": 1, "image_missing": 1}
    assert report["notes"]["label_not_understood"]["first"] == ["train.csv row 6 Edema: 'yes'"]


def test_labels_are_read_by_name_in_any_order_of_columns(tree, tmp_path):
    other = [name for name in HEADER if name not in ("Lung Lesion", "Lung Opacity")]
    other = [*other[:9], "Lung Lesion", "Lung Opacity", *other[9:]]
    write_lines(tree / "train.csv", [",".join(other), line(image_path(1), header=other, Lung_Lesion="1.0")])
    rows, _ = convert("chexpert", tree, tmp_path / "out")
    assert values(rows["train/patient00001/study1/view1_frontal.jpg"]) == {"Lung Lesion": 1}


def naive_eligible(cells, classes):
    """The published rule, row by row, on a dict of cells."""
    if cells["Frontal/Lateral"] != "Frontal":
        return None
    filled = {name: float(cells[name]) if cells[name] else 0.0 for name in LABELS}
    for name in classes:
        if filled[name] == 1.0:
            others = [filled[other] for other in LABELS if other != name and other != "No Finding"]
            if all(value == 0.0 for value in others):
                return name
    return None


@given(
    st.lists(
        st.tuples(st.sampled_from(["Frontal", "Lateral"]), *[st.sampled_from(["", "", "1.0", "0.0", "-1.0"])] * 14),
        min_size=1,
        max_size=30,
    ),
    st.sampled_from([FIVE, EIGHT]),
)
def test_sampling_rule_against_a_naive_filter(tmp_path_factory, table, classes):
    path = tmp_path_factory.mktemp("table") / "train.csv"
    rows = [
        dict(zip(HEADER, (image_path(n), "Male", "50", view, "AP", *cells), strict=True))
        for n, (view, *cells) in enumerate(table)
    ]
    write_lines(path, [",".join(HEADER), *(",".join(row.values()) for row in rows)])
    assert [eligible_class(row, classes) for row in _Table(path, Ledger()).rows()] == [
        naive_eligible(row, classes) for row in rows
    ]


def sample_table(root, classes, each=230, extra=()):
    lines = [
        line(image_path(1000 * place + n), **{name.replace(" ", "_"): "1.0"})
        for place, name in enumerate(classes)
        for n in range(each)
    ]
    lines += [line(image_path(90_000 + n), Edema="1.0", Fracture="-1.0") for n in range(3)] + list(extra)
    random.Random(4).shuffle(lines)
    write_lines(root / TRAIN_TABLE, [",".join(HEADER), *lines])
    return lines


def sample_ids(root, classes, seed=0, ids=None):
    plan = plan_sample(root, Options(image_size=64, seed=seed, generated=False, ids=ids), classes)
    return [row.path for row in plan.units], plan


@pytest.mark.parametrize("classes", [FIVE, EIGHT])
def test_sample_is_balanced_and_hashed_and_does_not_depend_on_the_order(tmp_path, classes):
    lines = sample_table(tmp_path, classes)
    ids, plan = sample_ids(tmp_path, classes)
    assert len(set(ids)) == len(classes) * 200
    assert {plan.facts[f"images of {name}"] for name in classes} == {200}
    digest = hashlib.sha256("\n".join(sorted(ids)).encode()).hexdigest()
    assert digest in plan.facts.values()
    write_lines(tmp_path / TRAIN_TABLE, [",".join(HEADER), *reversed(lines)])
    assert sample_ids(tmp_path, classes)[0] == ids
    assert sample_ids(tmp_path, tuple(reversed(classes)))[1].facts.items() == plan.facts.items()
    other_seed = set(sample_ids(tmp_path, classes, seed=1)[0])
    assert len(classes) * 100 < len(other_seed & set(ids)) < len(classes) * 200


def test_sample_is_converted_and_every_row_accounted_for(tmp_path, capsys):
    source = tmp_path / "raw"
    sample_table(source, FIVE)
    ids, _ = sample_ids(source, FIVE)
    write_images(source, [f"x/{name}" for name in ids[1:]])
    rows, report = convert("chexpert_5x200", source, tmp_path / "out")
    assert set(rows) == set(ids[1:]) and set(report["splits"]) == {"test"}
    assert all(sorted(values(row)) == sorted(FIVE) and sum(values(row).values()) == 1 for row in rows.values())
    dropped = {reason: found["count"] for reason, found in report["tables"]["train.csv"]["dropped"].items()}
    assert dropped == {"not_eligible": 3, "eligible_but_not_drawn": 150, "image_missing": 1}
    digest = hashlib.sha256("\n".join(sorted(ids)).encode()).hexdigest()
    assert report["facts"]["sha256 of the sorted image ids, a line each"] == digest


def test_too_few_images_of_a_class(tmp_path):
    sample_table(tmp_path, FIVE, each=199)
    with pytest.raises(UserError, match="199 images show Atelectasis alone"):
        sample_ids(tmp_path, FIVE)


def test_a_sample_of_the_users_own(tmp_path):
    sample_table(tmp_path, FIVE)
    chosen = [image_path(n) for n in (3, 1001, 4002)]
    listed = write_lines(tmp_path / "ids.txt", [*chosen, "", chosen[0]], "\r\n")
    ids, plan = sample_ids(tmp_path, FIVE, ids=listed)
    assert ids == [path.partition("/")[2] for path in chosen]
    assert plan.facts["images of Atelectasis"] == 1 and plan.facts["images of Edema"] == 0


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("train/patient77777/study1/view1_frontal.jpg", "1 ids are not in .*patient77777"),
        ("train/patient95000/study1/view1_frontal.jpg", "does not show exactly one"),
        ("\n\n", "names no image"),
        ("\xff", "1 ids are not in"),
    ],
)
def test_bad_id_lists(tmp_path, content, message):
    sample_table(tmp_path, FIVE, extra=[line(image_path(95_000), Edema="1.0", Consolidation="1.0")])
    (tmp_path / "ids.txt").write_bytes(content.encode("latin-1"))
    with pytest.raises(UserError, match=message):
        sample_ids(tmp_path, FIVE, ids=tmp_path / "ids.txt")


@pytest.mark.parametrize(
    ("corpus", "content", "message"),
    [
        ("chexpert", None, "neither train.csv nor valid.csv"),
        ("chexpert_5x200", None, "train.csv: no such file"),
        ("chexpert", "Path;Sex;Age", "looks separated by semicolons"),
        ("chexpert", ",".join(HEADER), "no reading could be kept of 0"),
        ("chexpert", ",".join(HEADER) + "\na,b", "row 1 has 2 cells; expected 19"),
    ],
)
def test_bad_tables(tmp_path, corpus, content, message, capsys):
    source = tmp_path / "raw"
    source.mkdir()
    if content is not None:
        write_lines(source / "train.csv", [content])
    assert build.main([corpus, "--source", str(source), "--output", str(tmp_path / "out")]) == 2
    assert message in capsys.readouterr().err


def test_ids_are_for_the_samples_only(tree, tmp_path, capsys):
    argv = ["chexpert", "--source", str(tree), "--output", str(tmp_path / "out"), "--ids", "x"]
    assert build.main(argv) == 2
    assert "--ids is not for chexpert; it is for chexpert_5x200, chexpert_8x200" in capsys.readouterr().err


def test_a_link_out_of_the_source_is_not_followed(tree, tmp_path):
    outside = tmp_path / "outside.jpg"
    grey_picture(20, 16).save(outside)
    target = tree / "train/patient00006/study1/view1_frontal.jpg"
    target.parent.mkdir(parents=True)
    target.symlink_to(outside)
    _, report = convert("chexpert", tree, tmp_path / "out")
    assert report["tables"]["train.csv"]["dropped"]["path_leaves_source"]["count"] == 1


def test_a_patient_in_both_tables_is_refused(tree):
    write_lines(tree / "valid.csv", [",".join(HEADER), line(image_path(1, "valid"), Edema="1.0")])
    with pytest.raises(UserError, match="patient00001 lies in both"):
        plan(tree, Options(image_size=64, seed=0, generated=False))


def test_the_folder_above_and_several_processes_give_the_same(tree, tmp_path_factory):
    from_tables, _ = convert("chexpert", tree, tmp_path_factory.mktemp("tables") / "out")
    from_above, _ = convert("chexpert", tree.parent, tmp_path_factory.mktemp("above") / "out", num_proc=2)
    assert list(from_tables) == list(from_above)
    for name, row in from_tables.items():
        assert row["image"].tobytes() == from_above[name]["image"].tobytes()
        assert row["findings"] == from_above[name]["findings"]
    (tree.parent / "CheXpert-v1.0").mkdir()
    with pytest.raises(UserError, match=r"holds CheXpert-v1\.0 and CheXpert-v1\.0-small; name one"):
        plan(tree.parent, Options(image_size=64, seed=0, generated=False))


def test_train_patients_are_held_out_by_the_hash(tmp_path):
    write_lines(tmp_path / "train.csv", [",".join(HEADER), *(line(image_path(n), Edema="1.0") for n in range(150))])
    write_images(tmp_path, [image_path(n) for n in range(150)])
    _, report = convert("chexpert", tmp_path, tmp_path.parent / f"{tmp_path.name}-out")
    expected = [hashed_split(f"patient{n:05d}", 0, 0.98, 0.02) for n in range(150)]
    assert "validation" in expected
    assert {split: counts["readings"] for split, counts in report["splits"].items()} == {
        split: expected.count(split) for split in set(expected)
    }


def test_units_are_made_when_asked_for():
    made = []

    def make(place):
        made.append(place)
        return place

    units = LazyUnits(range(5), make)[2:]
    assert (len(units), made) == (3, [])
    assert list(units) == made == [2, 3, 4] and units[-1] == 4


BATCHES = ("batch 1 (validate & csv)", "batch 2 (train 1)", "batch 3 (train 2)", "batch 4 (train 3)")


def downloaded(root, table="train.csv", folder="", wrapper=""):
    """The four folders of the download, whose CSV says CheXpert-v1.0/train/... of all the others' patients."""
    first, *others = (root / f"CheXpert-v1.0 {name}" for name in BATCHES)
    paths = {n: image_path(n).replace("-small", "") for n in (1, 2, 3)}
    tables = root / folder if folder != "first" else first
    write_lines(tables / table, [",".join(HEADER), *(line(path, Edema="1.0") for path in paths.values())])
    write_lines(first / "valid.csv", [",".join(HEADER), line(image_path(9, "valid"), Fracture="1.0")])
    write_images(first, [image_path(9, "valid")])
    for n, batch in enumerate(others, 1):
        write_images(batch, [paths[n].replace("/train/", f"/{wrapper}")])
    return root


@pytest.mark.parametrize("wrapper", ["", "train/"])
@pytest.mark.parametrize("above", ["", "chexpertchestxrays-u20210408"])
def test_the_four_folders_of_the_download(tmp_path, above, wrapper):
    downloaded(tmp_path / "raw" / above, folder="first", wrapper=wrapper)
    write_lines(tmp_path / "raw" / above / "train_cheXbert.csv", [",".join(HEADER)])
    rows, report = convert("chexpert", tmp_path / "raw", tmp_path / "out")
    assert set(rows) == {image_path(n).partition("/")[2] for n in (1, 2, 3)} | {
        image_path(9, "valid").partition("/")[2]
    }
    assert report["readings"]["rows_dropped"] == 0
    assert report["facts"] == {
        "labels from": "train.csv, valid.csv", "label files that are not read": "train_cheXbert.csv"
    }  # fmt: skip


@pytest.mark.parametrize("table", ["train_cheXbert.csv", "train_visualCheXbert.csv"])
def test_other_labels_of_the_same_images_where_there_are_none_of_its_own(tmp_path, table):
    downloaded(tmp_path / "raw", table)
    rows, report = convert("chexpert", tmp_path / "raw", tmp_path / "out")
    assert len(rows) == 4 and report["facts"]["labels from"] == f"{table}, valid.csv"
    assert report["splits"]["test"]["readings"] == 1 and report["tables"][table]["rows_kept"] == 3


def test_labels_of_the_test_set_alone_are_named_and_not_read(tmp_path):
    write_lines(tmp_path / "groundtruth.csv", ["Study,Edema", "CheXpert-v1.0/test/patient64741/study1,1"])
    with pytest.raises(UserError, match=r"neither train.csv nor valid.csv; .* are not read: groundtruth.csv"):
        plan(tmp_path, Options(image_size=64, seed=0, generated=False))


def test_paths_of_windows_and_labels_as_floats_or_words(tmp_path):
    rows = [line(image_path(1).replace("/", "\\"), Edema="True", Fracture="False", Pneumonia="-1.000")]
    write_lines(tmp_path / "raw" / "train.csv", [",".join(HEADER), *rows])
    write_images(tmp_path / "raw", [image_path(1)])
    rows, _ = convert("chexpert", tmp_path / "raw", tmp_path / "out")
    assert values(rows["train/patient00001/study1/view1_frontal.jpg"]) == {"Edema": 1, "Fracture": 0, "Pneumonia": -1}


def test_a_list_of_ids_may_come_from_windows(tmp_path):
    sample_table(tmp_path, FIVE)
    listed = write_lines(tmp_path / "ids.txt", [image_path(3).replace("/", "\\")], "\r\n")
    assert sample_ids(tmp_path, FIVE, ids=listed)[0] == [image_path(3).partition("/")[2]]
