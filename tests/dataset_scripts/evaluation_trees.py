"""Tiny evaluation sets by hand: their structure and quirks, invented values."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from tests.dataset_scripts.raw_trees import grey_picture, write_lines

SIDE = 64  # of the pictures; the tables speak of 1024 x 1024


def save_picture(path: Path, mode: str = "L") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    grey_picture(SIDE, SIDE).convert(mode).save(path)
    return path


def save_dicom(path: Path, patient: str | None) -> Path:
    """A small uncompressed DICOM; needs pydicom."""
    from pydicom import Dataset, uid
    from pydicom.dataset import FileMetaDataset

    header = Dataset()
    header.file_meta = FileMetaDataset()
    header.file_meta.TransferSyntaxUID = uid.ExplicitVRLittleEndian
    header.SOPClassUID = header.file_meta.MediaStorageSOPClassUID = uid.DigitalXRayImageStorageForPresentation
    header.SOPInstanceUID = header.file_meta.MediaStorageSOPInstanceUID = "1.2.3"
    header.Rows = header.Columns = SIDE
    header.SamplesPerPixel, header.PhotometricInterpretation = 1, "MONOCHROME2"
    header.BitsAllocated, header.BitsStored, header.HighBit, header.PixelRepresentation = 8, 8, 7, 0
    header.PixelData = np.asarray(grey_picture(SIDE, SIDE)).tobytes()
    header["PixelData"].VR = "OB"
    if patient is not None:
        header.PatientID = patient
    path.parent.mkdir(parents=True, exist_ok=True)
    header.save_as(path, enforce_file_format=True)
    return path


RSNA_HEADER = "patientId,x,y,width,height,Target"
RSNA_LABELS = (
    "two-boxes,256.0,128.0,128.0,256.0,1",
    "two-boxes,512.0,512.0,256.0,128.0,1",
    "normal,,,,,0",
    "not-normal,,,,,0",
)
RSNA_CLASSES = (
    *("two-boxes,Lung Opacity", "two-boxes,Lung Opacity", "normal,Normal"),
    "not-normal,No Lung Opacity / Not Normal",
)


def rsna_tree(root: Path, labels: Sequence[str] = RSNA_LABELS, classes: Sequence[str] = RSNA_CLASSES) -> Path:
    """The tables, and a PNG of every patient whose name does not begin with "lost"."""
    write_lines(root / "stage_2_train_labels.csv", [RSNA_HEADER, *labels], "\r\n")
    write_lines(root / "stage_2_detailed_class_info.csv", ["patientId,class", *classes])
    for patient in {line.split(",")[0] for line in labels} - {""}:
        if not patient.startswith("lost"):
            save_picture(root / "stage_2_train_images" / f"{patient}.png")
    return root


MS_CXR_HEADER = "dicom_id,category_name,label_text,path,x,y,w,h,image_width,image_height"


def ms_cxr_line(
    image: str, category: str, phrase: str, box: str, patient: int = 10000001, size: str = "200,400"
) -> str:
    return f'{image},{category},"{phrase}",files/p10/p{patient}/s50000001/{image}.jpg,{box},{size}'


def as_coco(lines: Sequence[str]) -> str:
    """The rows of the CSV in COCO's form."""
    import csv

    rows = list(csv.DictReader([MS_CXR_HEADER, *lines]))
    categories = sorted({row["category_name"] for row in rows})
    paths = list(dict.fromkeys(row["path"] for row in rows))
    return json.dumps(
        {
            "info": {"description": "invented"},
            "categories": [{"id": number, "name": name} for number, name in enumerate(categories, 1)],
            "images": [
                {"id": number, "path": path, "file_name": Path(path).name} for number, path in enumerate(paths, 1)
            ],
            "annotations": [
                {
                    "id": number,
                    "image_id": paths.index(row["path"]) + 1,
                    "category_id": categories.index(row["category_name"]) + 1,
                    "bbox": [int(row[name]) for name in "xywh"],
                    "label_text": row["label_text"],
                    "width": int(row["image_width"]),
                    "height": int(row["image_height"]),
                }
                for number, row in enumerate(rows, 1)
            ],
        }
    )


NIH_HEADER = (
    "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,View Position,"
    "OriginalImage[Width,Height],OriginalImagePixelSpacing[x,y],"
)
NIH_BOX_HEADER = "Image Index,Finding Label,Bbox [x,y,w,h],,,"


def nih_line(image: str, labels: str, patient: str) -> str:
    return f"{image},{labels},0,{patient},60,F,PA,2500,2048,0.171,0.171,"


def nih_tree(
    root: Path, lines: Sequence[str], boxes: Sequence[str] = (), test: Sequence[str] | None = None, rgba: str = ""
) -> Path:
    """The tables, the lists (none if `test` is None), and the images but those that begin with "lost"."""
    write_lines(root / "Data_Entry_2017_v2020.csv", [NIH_HEADER, *lines])
    write_lines(root / "BBox_List_2017.csv", [NIH_BOX_HEADER, *boxes])
    names = list(dict.fromkeys(line.split(",")[0] for line in lines))
    if test is not None:
        write_lines(root / "test_list.txt", test)
        write_lines(root / "train_val_list.txt", [name for name in names if name not in test])
    for number, name in enumerate(names):
        if name and not name.startswith("lost"):
            folder = f"images_{number % 2 + 1:03d}/images" if number % 3 else "images"
            save_picture(root / folder / name, "RGBA" if name == rgba else "L")
    return root
