"""The examples and the notebook as they stand, on a tiny model and a generated corpus."""

import ast
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from transformers import (
    Wav2Vec2Config,
    Wav2Vec2CTCTokenizer,
    Wav2Vec2FeatureExtractor,
    Wav2Vec2ForCTC,
    Wav2Vec2Processor,
)

from dataset_scripts.ledger import Ledger
from dataset_scripts.schema import load_readings
from dataset_scripts.speech.transcripts import read_transcript
from modeling_egma import EgmaModel, EgmaProcessor

EXAMPLES = Path(__file__).parents[1] / "examples"


@pytest.fixture
def model_folder(tmp_path: Path, tiny_model: EgmaModel, processor: EgmaProcessor) -> Path:
    tiny_model.save_pretrained(tmp_path / "model")
    processor.save_pretrained(tmp_path / "model")
    return tmp_path / "model"


def run(name: str, *arguments: object, path: Path = Path("/nowhere")) -> str:
    command = [sys.executable, str(EXAMPLES / name), *map(str, arguments)]
    environment = os.environ | {"MPLBACKEND": "agg", "OMP_NUM_THREADS": "1", "PATH": f"{path}:{os.environ['PATH']}"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_scripts(model_folder: Path, phantom_data: Path, tmp_path: Path) -> None:
    reading = load_readings(phantom_data, "test")[0]
    reading["image"].save(tmp_path / "radiograph.png")
    fixations = reading["fixations"]
    names = ("x", "y", "start", "duration")
    rows = zip(*(fixations[name] for name in names), strict=True)
    (tmp_path / "fixations.csv").write_text("\n".join([",".join(names), *(",".join(map(str, row)) for row in rows)]))
    lines = [f'"{s["text"]}",{s["start_seconds"]},{s["end_seconds"]}' for s in reading["sentences"]]
    (tmp_path / "sentences.csv").write_text("\n".join(["text,start,end", *lines]))
    gaze = (tmp_path / "fixations.csv", tmp_path / "sentences.csv")
    said = run("bring_your_own_gaze.py", model_folder, tmp_path / "radiograph.png", *gaze)
    assert len(said.splitlines()) == len(reading["sentences"])


def test_transcribe(tmp_path: Path) -> None:
    """A tiny recogniser with random weights; in place of ffmpeg a program that gives a second and a half of noise."""
    vocabulary = {"[PAD]": 0, "[UNK]": 1, "|": 2} | {letter: place for place, letter in enumerate("ABCDEFGH", 3)}
    (tmp_path / "vocab.json").write_text(json.dumps(vocabulary))
    tokenizer = Wav2Vec2CTCTokenizer(str(tmp_path / "vocab.json"), unk_token="[UNK]", pad_token="[PAD]")
    torch.manual_seed(0)
    config = Wav2Vec2Config(vocab_size=len(vocabulary), hidden_size=16, num_hidden_layers=1, num_attention_heads=2,
                            intermediate_size=16, num_conv_pos_embeddings=16,
                            num_conv_pos_embedding_groups=2)  # fmt: skip
    Wav2Vec2ForCTC(config).save_pretrained(tmp_path / "model")
    Wav2Vec2Processor(Wav2Vec2FeatureExtractor(), tokenizer).save_pretrained(tmp_path / "model")
    (tmp_path / "ffmpeg").write_text(
        f"#!{sys.executable}\nimport sys, numpy\nsys.stdin.buffer.read()\n"
        "noise = numpy.random.default_rng(0).normal(size=24000)\n"
        "sys.stdout.buffer.write(noise.astype(numpy.float32).tobytes())\n"
    )
    (tmp_path / "ffmpeg").chmod(0o755)
    (tmp_path / "a.wav").write_bytes(b"")
    said = run("transcribe.py", tmp_path / "a.wav", tmp_path / "a.json", tmp_path / "model", path=tmp_path)
    told = json.loads((tmp_path / "a.json").read_text())
    assert told["duration"] == 1.5 and told["model"] == str(tmp_path / "model") and "1.5 s" in said
    sentences = read_transcript(tmp_path / "a.json", 0.0, Ledger())
    assert " ".join(sentence["text"] for sentence in sentences) == told["text"]
    assert all(0 <= sentence["start_seconds"] <= sentence["end_seconds"] <= 1.5 for sentence in sentences)


def last_value(source: str, names: dict[str, object]) -> object:
    """What a cell shows: the value of its last expression, None where it ends in another statement."""
    body = ast.parse(source).body
    last = body.pop() if isinstance(body[-1], ast.Expr) else None
    exec(compile(ast.Module(body, []), "egma.ipynb", "exec"), names)
    return None if last is None else eval(compile(ast.Expression(last.value), "egma.ipynb", "eval"), names)


def without_numbers(text: str) -> str:
    return re.sub(r"\d+(\.\d+)?", "#", text)


def test_the_notebook_shows_what_its_cells_give(monkeypatch: pytest.MonkeyPatch) -> None:
    """From its own folder, on the model that comes with the package; its outputs are stored, and are those of today."""
    monkeypatch.setenv("MPLBACKEND", "agg")
    monkeypatch.chdir(EXAMPLES)
    notebook = json.loads((EXAMPLES / "egma.ipynb").read_text())
    cells = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert [cell["execution_count"] for cell in cells] == [*range(1, len(cells) + 1)]
    assert any("image/png" in output.get("data", {}) for cell in cells for output in cell["outputs"])
    names: dict[str, object] = {}
    compared = 0
    for cell in cells:
        found = last_value("".join(cell["source"]), names)
        for output in cell["outputs"]:
            assert output["output_type"] in ("display_data", "execute_result")  # no warning, no bar
            if output["output_type"] == "execute_result":
                stored = ast.literal_eval("".join(output["data"]["text/plain"]))
                assert without_numbers(repr(stored)) == without_numbers(repr(found))
                numbers = [[float(one) for one in re.findall(r"\d+\.?\d*", repr(of))] for of in (stored, found)]
                assert numbers[0] == pytest.approx(numbers[1], abs=0.011)
                compared += 1
    assert compared == 3


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["bring_your_own_gaze.py"], "missing a required argument: 'model_id'"),
        (["bring_your_own_gaze.py", "m", "i", "f", "s", "more"], "too many positional arguments"),
        (["bring_your_own_gaze.py", "m", "i", "no_such.csv", "s"], "no_such.csv: No such file or directory"),
    ],
)
def test_a_typo_in_an_example_is_no_traceback(words: list[str], said: str) -> None:
    command = [sys.executable, str(EXAMPLES / words[0]), *words[1:]]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert said in done.stderr
