"""What Windows, macOS and pandas make of a corpus's files is read as what it was."""

import gzip
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dataset_scripts.corpora import tracker
from dataset_scripts.files.tables import flag, identifier, label_value, portable_path
from dataset_scripts.output.resume import fingerprint
from dataset_scripts.plan import Options
from dataset_scripts.schema import UserError
from tests.dataset_scripts import evaluation_trees as trees
from tests.dataset_scripts import raw_trees as raw
from tests.dataset_scripts.converting import convert
from tests.dataset_scripts.corpora import test_siim_gaze as siim
from tests.dataset_scripts.corpora.test_tracker import FIXATIONS, WEBVTT, folder, one

SHADOW = b"\0\5\x16\7\0\2\0\0Mac OS X        "  # how the `._name` of macOS beside a file begins


def rewritten(path, old, new):
    packed = path.suffix == ".gz"
    text = (gzip.decompress(path.read_bytes()) if packed else path.read_bytes()).decode()
    assert old in text
    content = text.replace(old, new).encode()
    path.write_bytes(gzip.compress(content) if packed else content)


# --- paths ---


def test_tracker_paths_of_windows(tmp_path):
    source = folder(tmp_path / "raw", [r"r1,pictures\a.png,gaze\1.csv,said\1.vtt"])
    (source / "pictures").mkdir()
    (source / "a.png").rename(source / "pictures" / "a.png")
    raw.write_lines(source / "gaze" / "1.csv", FIXATIONS)
    raw.write_lines(source / "said" / "1.vtt", WEBVTT)
    rows, _ = convert("tracker", source, tmp_path / "out")
    assert rows["r1"]["image_id"] == "pictures/a.png" and rows["r1"]["fixations"] and rows["r1"]["sentences"]


@pytest.mark.parametrize("table", ["metadata.csv", "metadata.jsonl"])
def test_image_text_paths_of_windows(tmp_path, table):
    (tmp_path / "raw" / "images").mkdir(parents=True)
    raw.grey_picture(40, 30).save(tmp_path / "raw" / "images" / "a.png")
    lines = ["file_name,text", r"images\a.png,Clear."]
    if table.endswith("l"):
        lines = [json.dumps({"file_name": r"images\a.png", "text": "Clear."})]
    raw.write_lines(tmp_path / "raw" / table, lines)
    rows, _ = convert("image_text", tmp_path / "raw", tmp_path / "out")
    assert [row["image_id"] for row in rows.values()] == ["images/a.png"]


@pytest.mark.parametrize("name", [r"..\..\secret.png", r"\\server\share\a.png", r"C:\a.png"])
def test_a_path_of_windows_must_not_lead_out_of_the_source_either(tmp_path, name):
    source = folder(tmp_path / "raw", [f"r1,{name},gaze.csv,", "r2,a.png,gaze.csv,"])
    _, report = convert("tracker", source, tmp_path / "out")
    reason = "image_missing" if name.startswith("C") else "path_leaves_source"
    assert list(report["readings"]["dropped"]) == [reason]


def test_studies_are_found_in_paths_of_windows(tmp_path):
    images = raw.mimic_cxr_tree(tmp_path / "images")
    for corpus, source, table in (
        ("reflacx", raw.reflacx_tree(tmp_path / "reflacx"), "main_data/metadata_phase_3.csv"),
        ("egd", raw.egd_tree(tmp_path / "egd"), "master_sheet.csv"),
    ):
        before, _ = convert(corpus, source, tmp_path / f"{corpus}1", images=images)
        text = (source / table).read_text()
        header, _, rest = text.partition("\n")
        names = header.replace("study_id", "old_study").replace("subject_id", "old_subject")
        (source / table).write_text("\n".join([names.replace("patient_id", "old_patient"), rest.replace("/", "\\")]))
        after, _ = convert(corpus, source, tmp_path / f"{corpus}2", images=images)
        assert {name: (row["subject_id"], row["study_id"]) for name, row in after.items()} == {
            name: (row["subject_id"], row["study_id"]) for name, row in before.items()
        }


def test_ms_cxr_paths_of_windows(tmp_path):
    images = raw.mimic_cxr_tree(tmp_path / "images")
    row = trees.ms_cxr_line(raw.EGD_IMAGE, "Edema", "mild edema", "0,0,200,400")
    coco = trees.as_coco([row]).replace("files/p10/p10000001/s50000001/", r"files\\p10\\p10000001\\s50000001\\")
    for name, lines in (("v1.csv", [trees.MS_CXR_HEADER, row.replace("/", "\\")]), ("v1.json", [coco])):
        raw.write_lines(tmp_path / name / f"MS_CXR_Local_Alignment_{name}", lines)
        rows, _ = convert("ms_cxr", tmp_path / name, tmp_path / f"out {name}", images=images)
        assert [row["image_id"] for row in rows.values()] == [raw.EGD_IMAGE]


# --- files of the system ---


def test_shadow_files_are_no_readings_of_the_page(tmp_path):
    recorded = {"source": "tracker/mouse", "reading_id": "r1", "image": "a.png", "sentences": [],
                "fixations": {"x": [0.5], "y": [0.5], "start": [0.0], "duration": [1.0]}}  # fmt: skip
    source = folder(tmp_path / "raw", [])
    (source / "readings.csv").unlink()
    (source / "r1.json").write_text(json.dumps(recorded))
    for name in ("._r1.json", ".DS_Store", "._a.png"):
        (source / name).write_bytes(SHADOW)
    rows, report = convert("tracker", source, tmp_path / "out")
    assert list(rows) == ["r1"] and report["readings"]["rows_in"] == 1


def test_shadow_files_beside_tables_and_pictures_change_nothing(tmp_path):
    for corpus, source, options in (
        ("rsna", trees.rsna_tree(tmp_path / "rsna"), {}),
        ("mimic_cxr", raw.mimic_cxr_tree(tmp_path / "mimic_cxr"), {}),
        ("mimic_eye", raw.mimic_eye_tree(tmp_path / "mimic_eye"), {}),
        ("nih", trees.nih_tree(tmp_path / "nih", [trees.nih_line("1.png", "Edema", "7")]), {}),
        ("siim_gaze", siim.tree(tmp_path, [siim.recording()]), {"images": tmp_path / "images"}),
    ):
        before, _ = convert(corpus, source, tmp_path / f"{corpus}1", **options)
        for root in (source, *options.values()):
            for path in [path for path in root.rglob("*") if not path.name.startswith(".")]:
                path.with_name(f"._{path.name}").write_bytes(SHADOW)
        after, report = convert(corpus, source, tmp_path / f"{corpus}2", **options)
        assert list(after) == list(before)
        assert not any("decod" in reason or "several" in reason for reason in report["notes"])


def test_looking_at_the_source_does_not_end_an_interrupted_conversion(tmp_path):
    source = raw.egd_tree(tmp_path / "raw")
    before = fingerprint(source)
    for name in (".DS_Store", "._master_sheet.csv", "Thumbs.db", "desktop.ini"):
        (source / name).write_bytes(SHADOW)
    assert fingerprint(source) == before
    (source / "more.csv").write_text("")
    assert fingerprint(source) != before


# --- flags and ids that pandas wrote ---


@pytest.mark.parametrize(("yes", "no"), [("1", "0"), ("1.0", "0.0"), ("True", "False"), ("true", "false")])
def test_flags_of_a_lab(tmp_path, yes, no):
    gaze = ["x_px,y_px,time_s,valid", *(f"50,25,{n / 100},{yes}" for n in range(30)), f"90,45,0.3,{no}"]
    row, report = one(tmp_path, "reading_id,image,gaze,transcript,generated,findings",
                      f"r1,a.png,gaze.csv,said.vtt,{yes},Edema={yes}|Mass={no}", {"gaze.csv": gaze})  # fmt: skip
    assert report["tables"]["samples"]["dropped"]["marked_invalid"]["count"] == 1
    assert row["source"] == "phantom/tracker" and report["generated"] is True
    assert {finding["name"]: finding["value"] for finding in row["findings"]} == {"Edema": 1, "Mass": 0}


@pytest.mark.parametrize(("yes", "no"), [("1", "0"), ("1.0", "0.0"), ("True", "False")])
def test_flags_of_reflacx(tmp_path, yes, no):
    source = raw.reflacx_tree(tmp_path / "raw")
    table = source / "main_data" / "metadata_phase_1.csv"
    rewritten(table, "validate,False,", f"validate,{no},")
    rewritten(table, "5,1,0,True,False", f"5,1,0,{yes},{no}")
    rewritten(source / "main_data" / "metadata_phase_3.csv", "validate,True,", f"validate,{yes},")
    images = raw.mimic_cxr_tree(tmp_path / "images")
    rows, report = convert("reflacx", source, tmp_path / "out", images=images)
    found = {finding["name"]: finding["value"] for finding in rows[raw.PHASE_1]["findings"]}
    assert (found["Quality issue"], found["Support devices"]) == (1, 0)  # no certainty of 1 of 5
    assert report["readings"]["dropped"]["eye_tracking_data_discarded"]["count"] == 1


def test_a_flag_that_is_none_is_an_error(tmp_path):
    source = raw.reflacx_tree(tmp_path / "raw")
    rewritten(source / "main_data" / "metadata_phase_1.csv", "validate,False,", "validate,maybe,")
    _, report = convert("reflacx", source, tmp_path / "out", images=raw.mimic_cxr_tree(tmp_path / "images"))
    assert "'maybe'; expected True or False" in report["readings"]["dropped"]["table_not_understood"]["first"][0]
    with pytest.raises(UserError, match="generated is 'maybe'"):
        tracker.plan(folder(tmp_path / "lab", ["r1,a.png,,,maybe"], "reading_id,image,gaze,transcript,generated"),
                     Options(64, 0, False))  # fmt: skip


def test_ids_join_though_one_table_has_them_as_floats(tmp_path):
    """CheXpert's labels of all studies were lost, and a patient with two ids may lie in two splits."""
    source = raw.mimic_cxr_tree(tmp_path / "raw")
    before, _ = convert("mimic_cxr", source, tmp_path / "out1")
    rewritten(source / "mimic-cxr-2.0.0-chexpert.csv.gz", f"10000001,{raw.STUDY},", f"10000001.0,{raw.STUDY}.0,")
    after, _ = convert("mimic_cxr", source, tmp_path / "out2")
    assert all(row["findings"] for row in before.values())
    assert {name: row["findings"] for name, row in after.items()} == {
        name: row["findings"] for name, row in before.items()
    }


def test_patients_are_the_same_with_and_without_the_point(tmp_path):
    lines = [trees.nih_line(f"{n}.png", "Edema", str(n)) for n in range(30)]
    floats = [trees.nih_line(f"{n}.png", "Edema", f"{n}.0") for n in range(30)]
    whole, first = convert("nih", trees.nih_tree(tmp_path / "a", lines), tmp_path / "out1")
    pointed, second = convert("nih", trees.nih_tree(tmp_path / "b", floats), tmp_path / "out2")
    assert [row["subject_id"] for row in pointed.values()] == [row["subject_id"] for row in whole.values()]
    assert first["splits"] == second["splits"]
    source = raw.image_text_folder(tmp_path / "c", ["file_name,text,patient_id", "a.png,Clear 1.0 cm.,12.0"])
    (row,) = convert("image_text", source, tmp_path / "out3")[0].values()
    assert row["subject_id"] == "12" and row["sentences"][0]["text"] == "Clear 1.0 cm."


def test_ids_of_a_lab_lose_the_point(tmp_path):
    source = folder(tmp_path / "raw", ["7.0,a.png,gaze.csv,said.vtt,12.0,3.0,9.0"],
                    "reading_id,image,gaze,transcript,subject_id,reader_id,study_id")  # fmt: skip
    (row,) = convert("tracker", source, tmp_path / "out")[0].values()
    assert [row[name] for name in ("reading_id", "subject_id", "reader_id", "study_id")] == ["7", "12", "3", "9"]


def test_no_mask_written_as_a_float_is_no_mask(tmp_path):
    """-1.0 was a mask that nobody could read, or in the gaze's table of masks a pneumothorax."""
    gaze = siim.tree(tmp_path, [siim.recording()])
    raw.write_lines(gaze / "train-rle.csv", ["ImageId, EncodedPixels", f"{siim.FIRST}, -1.0"])
    rows, _ = convert("siim_gaze", gaze, tmp_path / "out1", images=tmp_path / "images")
    assert rows[siim.FIRST]["findings"] == [{"name": "Pneumothorax", "value": 0}]
    trees.save_picture(tmp_path / "siim" / "1.2.3.png")
    raw.write_lines(tmp_path / "siim" / "train-rle.csv", ["ImageId, EncodedPixels", "1.2.3, -1.0"])
    rows, _ = convert("siim_acr", tmp_path / "siim", tmp_path / "out2")
    assert rows["1.2.3"]["findings"] == [{"name": "Pneumothorax", "value": 0}]


def test_rsna_targets_as_words(tmp_path):
    labels = [line[:-1] + {"1": "True", "0": "False"}[line[-1]] for line in trees.RSNA_LABELS]
    source = trees.rsna_tree(tmp_path / "raw", labels)
    rows, _ = convert("rsna", source, tmp_path / "out")
    assert len(rows) == 3 and rows["two-boxes"]["findings"][0]["value"] == 1


@given(st.integers(0, 10**12))
def test_an_id_is_the_same_as_a_whole_number_and_as_a_float(number):
    assert identifier(f"{number}") == identifier(f"{number}.0") == str(number)


@given(st.text("0123456789.-abc/\\ ", max_size=12))
def test_other_ids_stay_and_reading_is_done_once(text):
    read = identifier(text)
    assert read == text or f"{read}." + "0" * (len(text) - len(read) - 1) == text
    assert "\\" not in portable_path(text) and portable_path(portable_path(text)) == portable_path(text)
    assert flag(text) in (None, True, False) and label_value(text) in (None, -1, 0, 1)
