"""The folder in which README and docs are tried: everything that their commands and snippets name, in small.

Models of the Hub have stand-ins there, tiny, untrained, in folders of the same names.
"""

import json
import shutil
from pathlib import Path
from typing import Any

import torch
import yaml
from transformers import BertModel, PreTrainedTokenizerBase, SwinConfig, SwinModel

from dataset_scripts import build
from dataset_scripts.phantom import write_phantom
from dataset_scripts.schema import load_readings
from egma import SAMPLE_MODEL, SAMPLE_READINGS
from egma.tools.processes import CONFIGS
from tests.dataset_scripts import raw_trees as raw
from tests.dataset_scripts.corpora import test_chexpert as chexpert
from tests.dataset_scripts.corpora import test_tracker as tracker
from tests.egma.hub.test_convert import DIM, bert, on_disk, swin
from tests.egma.inference import test_peers as peers

SWIN, BERT, CLIP = (
    *("microsoft/swin-tiny-patch4-window7-224", "emilyalsentzer/Bio_ClinicalBERT"),
    "openai/clip-vit-base-patch32",
)
IN_VALIDATION = (113, 201, 232, 385)  # patients whom CheXpert's hash puts there
SMALL = {"max_steps": 2, "evaluation_steps": 2, "batch_size": 8, "report_to": "none", "num_workers": 0}


def make(here: Path, tokenizer: PreTrainedTokenizerBase, tiny_swin: SwinConfig) -> Path:
    """Write it all, before the first of the commands."""
    _raw_corpora(here)
    _recordings(here)
    _mouse_recordings(here / "MOUSE_RECORDINGS")
    (here / "configs").mkdir()
    for name in ("phantom", "mimic_eye_paper"):
        preset = yaml.safe_load((CONFIGS / f"{name}.yaml").read_text())
        (here / "configs" / f"{name}.yaml").write_text(yaml.safe_dump(preset | SMALL))
    for name in ("demo/egma", "ours"):
        shutil.copytree(SAMPLE_MODEL, here / "runs" / name)
    load_readings(SAMPLE_READINGS, "test")[0]["image"].save(here / "radiograph.png")
    (here / "users").write_text("anna:secret\n")
    SwinModel(tiny_swin).save_pretrained(here / SWIN)
    peers.save(here / CLIP, "clip")
    _medclip(here, tokenizer)
    return here


def _raw_corpora(here: Path) -> None:
    write_phantom(here / "MIMIC_EYE", readings=72, seed=3)
    raw.mimic_cxr_tree(here / "MIMIC_CXR_JPG")
    write_phantom(here / "gaze", readings=24, seed=3, layout="reflacx")
    (here / "REFLACX").symlink_to(next((here / "gaze").glob("reflacx-*/*")))
    (here / "MIMIC_CXR").symlink_to(next((here / "gaze").glob("mimic-cxr-jpg/*")))
    raw.image_text_folder(here / "FOLDER", ["file_name,text", "a.png,No effusion."])
    for split, patients in (("train", [*range(24), *IN_VALIDATION]), ("valid", range(900, 912))):
        lines = [
            chexpert.line(chexpert.image_path(n, split), Edema=str(float(n % 2)), Cardiomegaly=str(float(n % 3 == 0)))
            for n in patients
        ]
        raw.write_lines(here / "CHEXPERT" / f"{split}.csv", [",".join(chexpert.HEADER), *lines])
        chexpert.write_images(here / "CHEXPERT", [line.split(",")[0] for line in lines])
    places = ["--source", str(here / "CHEXPERT"), "--output", str(here / "data" / "chexpert")]
    assert build.main(["chexpert", *places]) == 0


def _recordings(here: Path) -> None:
    rows = [f"r{n},a.png,gaze.csv,said.vtt,p{n}" for n in range(4)]
    columns = "reading_id,image,gaze,transcript,subject_id"
    for name in ("RECORDINGS", "my_recordings"):
        tracker.folder(here / name, rows, columns)
    table = ["Blick X [px],Blick Y [px],when (ms),lasts (ms),Bild", "25,10,500,250,a.png", "75.5,40,1000,500,a.png"]
    tracker.folder(here / "other_recordings", rows, columns, {"gaze.csv": table})


def _mouse_recordings(folder: Path) -> None:
    folder.mkdir()
    for n in range(4):
        raw.grey_picture(100, 80 + n).save(folder / f"{n}.png")
        reading = {
            "source": "tracker/mouse", "reading_id": f"r{n}", "image": f"{n}.png", "subject_id": f"p{n}",
            "sentences": [{"text": "No effusion.", "start_seconds": 0.0, "end_seconds": 2.0}],
            "fixations": {"x": [0.3, 0.5], "y": [0.4, 0.4], "start": [0.2, 1.2], "duration": [0.5, 0.3]},
        }  # fmt: skip
        (folder / f"{n}.json").write_text(json.dumps(reading))


def _medclip(here: Path, tokenizer: Any) -> None:
    """`pytorch_model.bin` with MedCLIP's names and shapes of its own, and the text encoder that it came from."""
    config = bert().config
    config.update({"hidden_size": 64, "num_attention_heads": 1, "vocab_size": 64})
    text = BertModel(config)
    text.save_pretrained(here / BERT)
    tokenizer.save_pretrained(here / BERT)
    tensors = {f"vision_model.model.{name}": value for name, value in on_disk(swin(), here / "parts").items()}
    tensors |= {f"text_model.model.{name}": value for name, value in on_disk(text, here / "parts").items()}
    tensors["vision_model.projection_head.weight"] = torch.randn(DIM, 32)
    tensors["text_model.projection_head.weight"] = torch.randn(DIM, 64)
    tensors["logit_scale"] = torch.tensor([2.5])
    torch.save(tensors, here / "pytorch_model.bin")
