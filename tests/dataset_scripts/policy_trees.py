"""A tiny tree of every corpus, and what can be done to it."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from tests.dataset_scripts import evaluation_trees as sets
from tests.dataset_scripts import raw_trees as raw
from tests.dataset_scripts.corpora import (
    test_chestx_det10,
    test_chexpert,
    test_gazesearch,
    test_siim_gaze,
    test_tracker,
)
from tests.dataset_scripts.corpora import test_siim_acr as siim

IMAGES, IDS = ("--images", "images"), ("--ids", "ids.txt")
STUDY = f"files/p10/p10000001/s{raw.STUDY}"
MIMIC = tuple(f"mimic-cxr-{name}.csv" for name in ("metadata", "split"))


class Case(NamedTuple):
    """A corpus: its files are relative to `raw`, its flags name files beside that.

    `table` says which readings there are, `part` is a file that it can do without, `picture` one of its images. `left`
    is whether a reading is left without it. `tables` are those of the report.
    """

    write: Callable[[Path], object]
    table: str
    tables: tuple[str, ...]
    picture: str = ""
    part: str = ""
    left: bool = True
    flags: tuple[str, ...] = ()


def _with_images(write: Callable[[Path], object]) -> Callable[[Path], object]:
    def both(root: Path) -> None:
        write(root)
        raw.mimic_cxr_tree(root.parent / "images")

    return both


def _image_text(root: Path) -> None:
    lines = ["file_name,text,patient_id", "a.png,Clear.,1", "b.png,Edema.,2"]
    raw.image_text_folder(root, lines, {name: raw.grey_picture(20, 20) for name in ("a.png", "b.png")})


def _chexpert(root: Path) -> None:
    paths = [test_chexpert.image_path(n) for n in (1, 2, 3)]
    lines = [test_chexpert.line(path, Edema="1.0") for path in paths]
    raw.write_lines(root / "train.csv", [",".join(test_chexpert.HEADER), *lines])
    test_chexpert.write_images(root, paths)
    raw.write_lines(root.parent / "ids.txt", [path.partition("/")[2] for path in paths])


def _siim_gaze(root: Path) -> None:
    test_siim_gaze.tree(root.parent, [test_siim_gaze.recording(), test_siim_gaze.recording(test_siim_gaze.SECOND)])
    raw.write_lines(root / "train-rle.csv", [f"{test_siim_gaze.FIRST},-1", f"{test_siim_gaze.SECOND},1 2"])


def _gazesearch(root: Path) -> None:
    root.mkdir()
    paths = [test_gazesearch.scanpath(name) for name in ("a", "b")]
    (root / test_gazesearch.NAME).write_text(json.dumps(paths))


def _ms_cxr(root: Path) -> None:
    lines = [sets.ms_cxr_line(name, "Edema", "edema", "0,0,9,9") for name in (raw.EGD_IMAGE, raw.REFLACX_IMAGE)]
    raw.write_lines(root / "MS_CXR_Local_Alignment_v1.1.0.csv", [sets.MS_CXR_HEADER, *lines])


def _tracker(root: Path) -> None:
    test_tracker.folder(root, ["r1,a.png,gaze.csv,said.vtt", "r2,b.png,gaze.csv,said.vtt"])
    raw.grey_picture(test_tracker.WIDTH, test_tracker.HEIGHT).save(root / "b.png")


def _nih(root: Path) -> None:
    lines = [sets.nih_line(f"{n}_000.png", "Mass", str(n)) for n in (1, 2)]
    sets.nih_tree(root, lines, ["1_000.png,Mass,1,2,3,4,,,"])


def _siim_acr(root: Path) -> None:
    siim.tree(root, [siim.HEADER, f"{siim.FIRST},-1", f"{siim.SECOND},-1"])


_TRAIN = "train/patient00001/study1/view1_frontal.jpg"
_SAMPLE = Case(_chexpert, "train.csv", ("train.csv",), _TRAIN, flags=IDS)
_PATIENT = "patient_10000001"
CASES = {
    "mimic_eye": Case(
        raw.mimic_eye_tree,
        f"{_PATIENT}/REFLACX/metadata.csv",
        ("REFLACX/metadata.csv", "CXR-JPG/cxr_meta.csv", "CXR-JPG/cxr_split.csv", "EyeGaze/bounding_boxes.csv"),
        f"{_PATIENT}/CXR-JPG/s{raw.STUDY}/{raw.EGD_IMAGE}.jpg",
        f"{_PATIENT}/EyeGaze/bounding_boxes.csv",
    ),
    "egd": Case(
        _with_images(raw.egd_tree),
        "master_sheet.csv",
        ("EyeGaze/master_sheet.csv", "EyeGaze/fixations.csv", *MIMIC),
        f"../images/{STUDY}/{raw.EGD_IMAGE}.jpg",
        "bounding_boxes.csv",
        left=False,
        flags=IMAGES,
    ),
    "reflacx": Case(
        _with_images(raw.reflacx_tree),
        "main_data/metadata_phase_3.csv",
        ("main_data/metadata_phase_3.csv", "REFLACX/fixations.csv", *MIMIC),
        f"../images/{STUDY}/{raw.REFLACX_IMAGE}.jpg",
        f"main_data/{raw.PHASE_3}/anomaly_location_ellipses.csv",
        left=False,
        flags=IMAGES,
    ),
    "mimic_cxr": Case(
        raw.mimic_cxr_tree,
        "mimic-cxr-2.0.0-metadata.csv.gz",
        (*MIMIC, "mimic-cxr-chexpert.csv"),
        f"{STUDY}/{raw.EGD_IMAGE}.jpg",
        "mimic-cxr-2.0.0-chexpert.csv.gz",
    ),
    "ms_cxr": Case(
        _with_images(_ms_cxr),
        "MS_CXR_Local_Alignment_v1.1.0.csv",
        ("MS_CXR_Local_Alignment_v1.1.0.csv", "mimic-cxr-metadata.csv"),
        f"../images/{STUDY}/{raw.EGD_IMAGE}.jpg",
        "../images/mimic-cxr-2.0.0-metadata.csv.gz",
        flags=IMAGES,
    ),
    "image_text": Case(_image_text, "metadata.csv", ("metadata.csv",), "a.png"),
    "tracker": Case(_tracker, "readings.csv", ("readings.csv", "fixations"), "b.png"),
    "siim_gaze": Case(
        _siim_gaze,
        "cxr_gaze_data.json",
        ("cxr_gaze_data.json", "train-rle.csv"),
        f"../images/study/series/{test_siim_gaze.FIRST}.png",
        "train-rle.csv",
        flags=IMAGES,
    ),
    "gazesearch": Case(_gazesearch, test_gazesearch.NAME, ("scanpaths",)),
    "chexpert": Case(_chexpert, "train.csv", ("train.csv",), _TRAIN),
    "chexpert_5x200": _SAMPLE,
    "chexpert_8x200": _SAMPLE,
    "rsna": Case(
        sets.rsna_tree,
        "stage_2_train_labels.csv",
        ("stage_2_train_labels.csv", "stage_2_detailed_class_info.csv"),
        "stage_2_train_images/normal.png",
        "stage_2_detailed_class_info.csv",
    ),
    "siim_acr": Case(
        _siim_acr,
        "train-rle.csv",
        ("train-rle.csv",),
        f"dicom-images-train/study {siim.FIRST}/series/{siim.FIRST}.png",
    ),
    "nih": Case(
        _nih,
        "Data_Entry_2017_v2020.csv",
        ("Data_Entry_2017_v2020.csv", "BBox_List_2017.csv"),
        "images/1_000.png",
        "BBox_List_2017.csv",
    ),
    "chestx_det10": Case(
        test_chestx_det10.tree,
        "train.json",
        ("images of train.json and test.json", "boxes"),
        "train_data/train/00000007_000.png",
    ),
}
