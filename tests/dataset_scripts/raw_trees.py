"""Tiny raw corpora by hand: their structure and quirks, invented values."""

import gzip
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from dataset_scripts.corpora.mimic_cxr import CHEXPERT_LABELS

STUDY = "50000001"
REFLACX_IMAGE = "aaaaaaaa-11111111-22222222-33333333-44444444"
EGD_IMAGE = "bbbbbbbb-11111111-22222222-33333333-44444444"
CALIBRATION_ID = EGD_IMAGE[:-5]
WIDTH, HEIGHT = 200, 400  # of the tables; the pictures are smaller
PHASE_3, PHASE_1, DISCARDED, NO_GAZE = "P300R000001", "P101R000002", "P300R000003", "P300R000004"

META_HEADER = ",dicom_id,subject_id,study_id,ViewPosition,Rows,Columns,in_eye_gaze,in_reflacx"
REFLACX_HEADER = (
    ",id,split,eye_tracking_data_discarded,image,dicom_id,subject_id,image_size_x,image_size_y,"
    "Airway wall thickening,Atelectasis,Consolidation,Lung nodule or mass,Other,Quality issue,Support devices"
)
FIXATION_HEADER = (
    "timestamp_start_fixation,timestamp_end_fixation,x_position,y_position,pupil_area_normalized,"
    "angular_resolution_x_pixels_per_degree,angular_resolution_y_pixels_per_degree,window_width,window_level,"
    "xmin_shown_from_image,ymin_shown_from_image,xmax_shown_from_image,ymax_shown_from_image"
)
ELLIPSE_HEADER = "xmin,ymin,xmax,ymax,certainty,Atelectasis,Consolidation,Lung nodule or mass,Support devices"
EGD_FIXATION_HEADER = "DICOM_ID,CNT,Time (in secs),FPOGX,FPOGY,FPOGS,FPOGD,FPOGID,FPOGV,X_ORIGINAL,Y_ORIGINAL"
MASTER_HEADER = (
    ",dicom_id,path,study_id,patient_id,gender,normal_reports,Normal,CHF,pneumonia,consolidation,"
    "enlarged_cardiac_silhouette,consolidation__chx,Pleural Effusion__chx,Edema__chx,cxr_exam_indication"
)

REPORT = """\
                                 FINAL REPORT
 EXAMINATION:  CHEST (PA)

 INDICATION:  ___ year old. Cough.

 FINDINGS:

 The lungs are clear.  Heart size is
 normal at 2.5 units.

 IMPRESSION:  No acute process.
"""


def write_lines(path: Path, lines: Sequence[str], line_end: str = "\n") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes("".join(line + line_end for line in lines).encode())
    return path


def grey_picture(width: int, height: int) -> Image.Image:
    return Image.fromarray((np.arange(width * height).reshape(height, width) % 251).astype(np.uint8))


def fixation(start: float, end: float, x: str, y: str) -> str:
    return f"{start},{end},{x},{y},0.5,20,40,1.0,0.5,0,0,{WIDTH},{HEIGHT // 2}"


def _reflacx_reading(folder: Path, fixations: Sequence[str], words: Sequence[str], ellipses: Sequence[str]) -> None:
    write_lines(folder / "fixations.csv", [FIXATION_HEADER, *fixations], "\r\n")
    header = "word,timestamp_start_word,timestamp_end_word"
    write_lines(folder / "timestamps_transcription.csv", [header, *words], "\r\n")
    write_lines(folder / "anomaly_location_ellipses.csv", [ELLIPSE_HEADER, *ellipses], "\r\n")
    write_lines(folder / "index.html", ["<html>"])


def _reflacx(patient: Path) -> None:
    image = f"physionet.org/files/mimic-cxr/2.0.0/files/p10/p10000001/s{STUDY}/{REFLACX_IMAGE}.dcm"
    common = f"{image},{REFLACX_IMAGE},10000001,{WIDTH},{HEIGHT}"
    write_lines(
        patient / "REFLACX" / "metadata.csv",
        [
            REFLACX_HEADER,
            f"0,{PHASE_3},train,False,{common},,3,0,2,scar|clip,,True",
            f"0,{PHASE_1},train,False,{common},5,1,0,,,True,False",
            f"1,{DISCARDED},train,True,{common},,0,0,0,,,False",
            f"2,{NO_GAZE},train,False,{common},,0,0,0,,,False",
        ],
    )
    main = patient / "REFLACX" / "main_data"
    _reflacx_reading(
        main / PHASE_3,
        [
            fixation(-0.25, 0.25, "100", "100"),  # negative time
            fixation(0.5, 0.75, "50", "200"),
            fixation(1.0, 1.5, "-3", "100"),  # left of the image
            fixation(1.5, 2.0, "100", str(HEIGHT)),  # just below it
            fixation(2.0, 2.5, "", ""),  # a blink
            fixation(3.0, 3.0, "10", "10"),  # no duration
        ],
        # "none" and "nan" are words; the full stop and the comma are rows; the last sentence lacks its full stop
        [
            *("none,0.5,0.75", '",",0.75,0.75', "nan,1.0,1.25", "seen,1.25,1.5", ".,1.5,1.5"),
            *("heart,2.0,2.25", "normal,2.25,2.5"),
        ],
        [
            "20,40,120,240,5,True,False,True,False",  # two labels
            "150,300,250,500,3,False,True,False,False",  # leaves the image
            "10,10,20,20,4,False,False,False,False",  # no label
        ],
    )
    _reflacx_reading(main / PHASE_1, [fixation(0, 1, "10", "10")], ["clear,0.5,0.75", ".,0.75,0.75"], [])
    write_lines(main / NO_GAZE / "chest_bounding_box.csv", ["xmin,ymin,xmax,ymax", "-20,40,150,440"], "\r\n")
    write_lines(main / DISCARDED / "anomaly_location_ellipses.csv", [ELLIPSE_HEADER], "\r\n")
    _reflacx_reading(main / NO_GAZE, [fixation(0, 1, "-10", "10")], [], [])


def _egd(folder: Path, indexed: bool = True) -> None:
    paths = f"files/p10/p10000001/s{STUDY}/{EGD_IMAGE}.dcm"
    indication = '"Cough\n\n// pneumonia?"'
    write_lines(
        folder / "master_sheet.csv",
        [
            MASTER_HEADER if indexed else MASTER_HEADER[1:],
            f"{'0,' if indexed else ''}{EGD_IMAGE},{paths},{STUDY},10000001,F,0,0,0,1,1,0,0.0,-1.0,,{indication}",
        ],
    )
    write_lines(
        folder / "fixations.csv",
        [
            EGD_FIXATION_HEADER,
            f"{CALIBRATION_ID},1,0.5,0.5,0.5,0.1,0.4,1,1,50,50",
            f"{EGD_IMAGE},1,0.75,1.5,0.5,0.25,0.5,2,1,50,100",
            f"{EGD_IMAGE},2,1.5,0.5,-0.2,1.0,0.5,3,1,-2,-2",
            f"{EGD_IMAGE},3,2.5,0.5,0.5,2.0,0.5,4,1,150,300",
        ],
    )
    write_lines(
        folder / "bounding_boxes.csv",
        [
            "dicom_id,bbox_name,x1,x2,y1,y2",
            f"{EGD_IMAGE},cardiac silhouette,50.0,100.0,100.0,300.0",
            f"{EGD_IMAGE},left lung,100.0,210.0,40.0,80.0",
            f"{EGD_IMAGE},right lung,-20.0,-10.0,40.0,80.0",
        ],
    )
    phrases = [("  The heart", 0.5, 1.0), ("is enlarged. No effusion. Small", 1.0, 2.0), ("opacity", 2.0, 2.5)]
    write_transcript(folder, [dict(zip(("phrase", "begin_time", "end_time"), p, strict=True)) for p in phrases])
    write_lines(folder / "audio_segmentation_transcripts" / "index.html", ["<html>"])


def write_transcript(folder: Path, phrases: list[dict[str, object]], full_text: str = " Heart is large. ") -> None:
    path = folder / "audio_segmentation_transcripts" / EGD_IMAGE / "transcript.json"
    write_lines(path, [json.dumps({"full_text": full_text, "time_stamped_text": phrases})])


def mimic_eye_tree(root: Path) -> Path:
    """One patient with four REFLACX readings of one image and one EGD reading of another; returns the root."""
    patient = root / "patient_10000001"
    pictures = patient / "CXR-JPG"
    rows = [
        f"{i},{name},10000001,{STUDY},PA,{HEIGHT},{WIDTH},False,True"
        for i, name in enumerate((REFLACX_IMAGE, EGD_IMAGE))
    ]
    write_lines(pictures / "cxr_meta.csv", [META_HEADER, *rows])
    split_rows = [f"{i},{name},{STUDY},10000001,validate" for i, name in enumerate((REFLACX_IMAGE, EGD_IMAGE))]
    write_lines(pictures / "cxr_split.csv", [",dicom_id,study_id,subject_id,split", *split_rows])
    for name in (REFLACX_IMAGE, EGD_IMAGE):
        (pictures / f"s{STUDY}").mkdir(exist_ok=True)
        grey_picture(50, 100).save(pictures / f"s{STUDY}" / f"{name}.jpg", quality=95)
    write_lines(pictures / "index.html", ["<html>"])
    write_lines(root / "index.html", ["<html>"])
    write_lines(patient / "CXR-DICOM" / f"s{STUDY}.txt", [REPORT])
    _reflacx(patient)
    _egd(patient / "EyeGaze")
    return root


def egd_tree(root: Path) -> Path:
    """The EGD reading as released; returns the root."""
    _egd(root, indexed=False)
    write_lines(root / "index.html", ["<html>"])
    return root


def reflacx_tree(root: Path) -> Path:
    """The four REFLACX readings as released, one of phase 1, each table with its phase's labels; returns the root."""
    _reflacx(root)
    (root / "REFLACX" / "main_data").rename(root / "main_data")
    (root / "REFLACX" / "metadata.csv").unlink()
    (root / "REFLACX").rmdir()
    image = f"physionet.org/files/mimic-cxr/2.0.0/files/p10/p10000001/s{STUDY}/{REFLACX_IMAGE}.dcm"
    head = "id,split,eye_tracking_data_discarded,image,dicom_id,subject_id,image_size_x,image_size_y"
    common = f"{image},{REFLACX_IMAGE},10000001,{WIDTH},{HEIGHT}"
    phase_1 = [
        f"{head},Airway wall thickening,Atelectasis,Consolidation,Quality issue,Support devices",
        f"{PHASE_1},validate,False,{common},5,1,0,True,False",
    ]
    phase_3 = [
        f"{head},Atelectasis,Consolidation,Lung nodule or mass,Other,Support devices",
        f"{PHASE_3},validate,False,{common},3,0,2,scar|clip,True",
        f"{DISCARDED},validate,True,{common},0,0,0,,False",
        f"{NO_GAZE},validate,False,{common},0,0,0,,False",
    ]
    write_lines(root / "main_data" / "metadata_phase_1.csv", phase_1, "\r\n")
    write_lines(root / "main_data" / "metadata_phase_3.csv", phase_3, "\r\n")
    write_lines(root / "main_data" / "index.html", ["<html>"])
    return root


def write_packed(path: Path, lines: Sequence[str]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress("".join(f"{line}\n" for line in lines).encode()))
    return path


def mimic_cxr_tree(root: Path) -> Path:
    """Both images, their report and the tables as MIMIC-CXR-JPG has them; returns the root."""
    names = (REFLACX_IMAGE, EGD_IMAGE)
    study = root / "files" / "p10" / "p10000001" / f"s{STUDY}"
    study.mkdir(parents=True)
    for name in names:
        grey_picture(WIDTH // 2, HEIGHT // 2).save(study / f"{name}.jpg", quality=95)
    write_lines(study / "index.html", ["<html>"])
    write_lines(study.with_suffix(".txt"), [REPORT])
    write_packed(
        root / "mimic-cxr-2.0.0-metadata.csv.gz",
        [
            "dicom_id,subject_id,study_id,PerformedProcedureStepDescription,ViewPosition,Rows,Columns,StudyDate,StudyTime",
            *(f'{name},10000001,{STUDY},"CHEST, PA",PA,{HEIGHT},{WIDTH},21010101,90101.25' for name in names),
        ],
    )
    write_packed(
        root / "mimic-cxr-2.0.0-split.csv.gz",
        ["dicom_id,study_id,subject_id,split", *(f"{name},{STUDY},10000001,validate" for name in names)],
    )
    labels = {"Atelectasis": "1.0", "Edema": "-1.0", "Pleural Effusion": "0.0"}
    write_packed(
        root / "mimic-cxr-2.0.0-chexpert.csv.gz",
        [
            f"subject_id,study_id,{','.join(CHEXPERT_LABELS)}",
            f"10000001,{STUDY},{','.join(labels.get(name, '') for name in CHEXPERT_LABELS)}",
            f"10000002,{int(STUDY) + 1},{',' * (len(CHEXPERT_LABELS) - 1)}",
        ],
    )
    return root


def image_text_folder(root: Path, lines: Sequence[str], images: dict[str, Image.Image] | None = None) -> Path:
    """`metadata.csv` with these lines, and the images that are named (one grey `a.png` unless said)."""
    write_lines(root / "metadata.csv", lines)
    for name, image in ({"a.png": grey_picture(40, 30)} if images is None else images).items():
        image.save(root / name)
    return root
