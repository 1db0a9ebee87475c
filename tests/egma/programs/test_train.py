"""The training program as users start it, on a tiny model and a small generated corpus."""

import gc
import json
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import datasets
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
import yaml
from PIL import Image
from safetensors.torch import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch.nn.parallel import DistributedDataParallel
from transformers import AutoModel, AutoProcessor, set_seed

from dataset_scripts.schema import UserError, load_readings
from egma.programs import train as train_egma
from egma.tools.processes import ROOT
from egma.training import run
from egma.training.arguments import parse_settings
from egma.training.checkpoint import find_checkpoint
from egma.training.data import TrainingData
from egma.training.devices import parameter_groups
from egma.training.run import TrainingRun
from egma.training.start import build_model
from egma.training.step import to_device

TINY = {
    "egma_config": {
        "vision_config": {
            "model_type": "swin",
            "image_size": 56,
            "embed_dim": 8,
            "depths": [1, 1],
            "num_heads": [1, 2],
            "window_size": 7,
        },
        "text_config": {
            "model_type": "bert",
            "hidden_size": 16,
            "num_hidden_layers": 1,
            "num_attention_heads": 2,
            "intermediate_size": 32,
            "max_position_embeddings": 64,
        },
        "projection_dim": 16,
    },
    "vocabulary_size": 300,
    "batch_size": 8,
    "learning_rate": 0.001,
    "max_steps": 4,
    "evaluation_steps": 2,
    # everything that draws random numbers is on
    "brightness": 0.1,
    "contrast": 0.1,
    "rotation_degrees": 5,
    "shift_fraction": 0.05,
    "flip_probability": 0.5,
}


@pytest.fixture
def preset(tmp_path: Path) -> Path:
    path = tmp_path / "tiny.yaml"
    path.write_text(yaml.safe_dump(TINY))
    return path


@pytest.fixture
def arguments(preset: Path, phantom_data: Path, tmp_path: Path) -> list[str]:
    return ["--config", str(preset), "--data", str(phantom_data), "--output_dir", str(tmp_path / "run")]


def test_training_leaves_a_model_that_loads_and_a_line_a_step(arguments: list[str], tmp_path: Path) -> None:
    assert train_egma.main(arguments) == 0
    run = tmp_path / "run"
    model, processor = AutoModel.from_pretrained(run), AutoProcessor.from_pretrained(run)
    assert processor.grid_size == model.config.grid_size == 7
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if "loss" in line] == [1, 2, 3, 4]
    assert [line["step"] for line in lines if "validation_loss" in line] == [2, 4]
    first = next(line for line in lines if "loss" in line)
    assert first["loss"] == pytest.approx(first["contrastive"] + first["gaze"] + first["mapping"], abs=1e-4)
    assert first["gaze"] > 0
    events = EventAccumulator(str(next(run.rglob("events.out.tfevents.*")).parent)).Reload()
    assert len(events.Scalars("loss")) == 4


def test_best_model_is_that_of_the_lowest_validation_loss(arguments: list[str], tmp_path: Path) -> None:
    # a learning rate that ruins the model after the first validation
    train_egma.main([*arguments, "--learning_rate", "0.5", "--warmup_fraction", "1", "--evaluation_steps", "1"])
    run = tmp_path / "run"
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    losses = {line["step"]: line["validation_loss"] for line in lines if "validation_loss" in line}
    best = min(losses, key=losses.__getitem__)
    kept = load_file(run / "model.safetensors")["logit_scale"]
    states = {step: load_file(run / f"checkpoint-{step}" / "model.safetensors") for step in (3, 4)}
    assert best not in states or torch.equal(kept, states[best]["logit_scale"])
    assert any(not torch.equal(kept, state["logit_scale"]) for state in states.values())


def test_gaze_ratio_zero_trains_without_gaze_from_the_same_weights(arguments: list[str], tmp_path: Path) -> None:
    assert train_egma.main([*arguments, "--gaze_ratio", "0", "--max_steps", "1"]) == 0
    line = json.loads((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()[0])
    assert line["gaze"] == 0
    settings = [parse_settings([*arguments, "--gaze_ratio", ratio]) for ratio in ("0", "1")]
    rows = load_readings(settings[0].data, "train")
    models = []
    for one in settings:
        set_seed(int(torch.randint(1000, ())))
        models.append(build_model(one, rows)[0].state_dict())
    assert all(torch.equal(models[0][name], models[1][name]) for name in models[0])


def test_the_newest_and_the_best_checkpoint_are_kept(arguments: list[str], tmp_path: Path) -> None:
    train_egma.main([*arguments, "--evaluation_steps", "1"])
    best = json.loads((tmp_path / "run" / "checkpoint-4" / "state.json").read_text())["best_step"]
    kept = {path.name for path in (tmp_path / "run").glob("*checkpoint-*")}
    assert kept == {"checkpoint-3", "checkpoint-4", f"checkpoint-{best}"}
    assert find_checkpoint(tmp_path / "run", "auto").name == "checkpoint-4"


def test_no_decay_on_norms_biases_and_logit_scale(tiny_model: torch.nn.Module) -> None:
    decayed, *free = parameter_groups(tiny_model, 0.1)
    free_ids = {id(parameter) for group in free for parameter in group["params"]}
    names = {name for name, parameter in tiny_model.named_parameters() if id(parameter) in free_ids}
    assert "logit_scale" in names and any("norm" in name.lower() for name in names)
    assert all(name.endswith("bias") or "norm" in name.lower() or name == "logit_scale" for name in names)
    assert decayed["weight_decay"] == 0.1 and all(group["weight_decay"] == 0 for group in free)
    assert len(decayed["params"]) + len(free_ids) == len(list(tiny_model.parameters()))


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        (["--gaze_ration", "1"], "unknown field 'gaze_ration'; did you mean 'gaze_ratio'?"),
        (["--max_step", "1"], "unknown field 'max_step'; did you mean 'max_steps'?"),
        (["--gaze_ratio", "50"], "gaze_ratio is 50.0, expected a number from 0 to 1"),
        (["--batch_size", "many"], "batch_size"),
        (["--data", "nowhere"], "nowhere: no such folder"),
        (["--batch_size", "4000"], "fewer than one batch of 4000 different images"),
        (["--model", "nowhere"], "name one start for the model"),
        (["--config", "nowhere.yaml"], "nowhere.yaml: cannot be read as a preset"),
        (["--resume", "nowhere"], "nowhere: not a complete checkpoint"),
        (["--report_to", "parchment"], "report_to is 'parchment'"),
        (["--push-to-hub", "lab/egma"], "no token for the Hub; log in with `hf auth login`"),
        (["--push-to-hub", "no good"], "no good: "),
        (["--tf32", "True"], "tf32 needs an NVIDIA GPU"),
        (["--batch_size", "44"], "fewer than one batch of 44 different images"),
        (["--positives", "all"], "positives is 'all', expected diagonal or text_match"),
        (["--micro_batch_size", "2", "--gradient_accumulation_steps", "2"], "name one of them"),
        (["--data_weights", "1,2"], "expected a number above 0 for each of 1 corpora"),
        (["--contrastive_weight", "0", "--gaze_weight", "0", "--mapping_weight", "0"], "there is nothing to learn"),
        (
            ["--contrastive_weight", "0", "--mapping_weight", "0", "--gaze_ratio", "0"],
            "only gaze_weight (1) is above 0, and no training reading has gaze",
        ),
    ],
)
def test_users_mistakes_end_in_one_sentence(
    arguments: list[str], capsys: pytest.CaptureFixture[str], extra: list[str], message: str
) -> None:
    assert train_egma.main([*arguments, *extra]) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("error: ") and message in error


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"learning_rat": 1}, "unknown field 'learning_rat'; did you mean 'learning_rate'?"),
        ({"batch_size": "many"}, "batch_size is 'many', expected int"),
        ({"egma_config": 3}, "egma_config is 3"),
        ({"egma_config": TINY["egma_config"] | {"gaze_wait": 1}}, "unknown field 'gaze_wait'; did you mean"),
        ({"egma_config": TINY["egma_config"] | {"gaze_weight": -1}}, "gaze_weight is -1, expected a finite number"),
    ],
)
def test_mistakes_in_a_preset_are_named(
    arguments: list[str], preset: Path, capsys: pytest.CaptureFixture[str], change: dict[str, object], message: str
) -> None:
    preset.write_text(yaml.safe_dump(TINY | change))
    assert train_egma.main(arguments) == 2
    assert message in capsys.readouterr().err.strip().splitlines()[-1]


def test_a_folder_with_a_run_is_not_overwritten(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert train_egma.main([*arguments, "--max_steps", "1"]) == 0
    assert train_egma.main([*arguments, "--max_steps", "1"]) == 2
    assert "already holds a run" in capsys.readouterr().err


def test_resume_refuses_changed_settings_and_damaged_checkpoints(
    arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train_egma.main(arguments) == 0
    assert train_egma.main([*arguments, "--resume", "auto", "--batch_size", "4"]) == 2
    assert "batch_size was 8 there and is 4 now" in capsys.readouterr().err
    for folder in (tmp_path / "run").glob("checkpoint-*"):
        (folder / "optimizer.safetensors").write_bytes(b"")
    assert train_egma.main([*arguments, "--resume", "auto"]) == 0
    assert "this run is finished" in capsys.readouterr().out


def test_a_loss_that_is_not_finite_stops_before_the_update_and_names_the_readings(
    arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    step, weights = TrainingRun._train_step, {}

    def poisoned(self: TrainingRun, batches: object) -> None:
        if self.step == 2:
            weights.update({n: v.clone() for n, v in self.training.model.state_dict().items()})
            batch = to_device(next(batches), self.accelerator.device)  # type: ignore[call-overload]
            batch["pixel_values"][3] = float("nan")
            batches = iter([batch])
            try:
                step(self, batches)
            finally:
                assert all(torch.equal(v, weights[n]) for n, v in self.training.model.state_dict().items())
        step(self, batches)

    monkeypatch.setattr(TrainingRun, "_train_step", poisoned)
    assert train_egma.main(arguments) == 2
    assert "step 3: the loss is nan" in capsys.readouterr().err and weights
    found = json.loads((tmp_path / "run" / "nonfinite_batch.json").read_text())
    assert found["step"] == 3 and len(found["reading_ids"]) == 8
    assert set(found["reading_ids"]) <= set(load_readings(arguments[3], "train")["reading_id"])
    assert find_checkpoint(tmp_path / "run", "auto").name == "checkpoint-2"


def test_a_gradient_that_is_not_finite_stops_too(
    arguments: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(run, "whole_step", lambda *_: (torch.tensor(1.0), {}))
    monkeypatch.setattr("accelerate.Accelerator.clip_grad_norm_", lambda *_: torch.tensor(float("inf")))
    assert train_egma.main(arguments) == 2
    assert "the gradient norm is inf; nothing was updated" in capsys.readouterr().err


def test_stops_early_and_keeps_the_best(
    arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ruin = ["--learning_rate", "0.5", "--warmup_fraction", "0", "--max_steps", "40", "--early_stopping_patience", "2"]
    assert train_egma.main([*arguments, *ruin, "--evaluation_steps", "1"]) == 0
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    losses = {line["step"]: line["validation_loss"] for line in lines if "validation_loss" in line}
    best = min(losses, key=losses.__getitem__)
    assert max(losses) == best + 2 < 40
    said = capsys.readouterr().out
    assert f"stopped at step {best + 2}: no lower validation loss in 2 validations" in said and f"step {best};" in said


def test_a_dry_run_says_what_it_takes_and_writes_nothing(
    arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train_egma.main([*arguments, "--dry_run"]) == 0
    said = capsys.readouterr().out
    model = build_model(parse_settings(arguments), load_readings(arguments[3], "train"))[0]
    assert f"whole model: {sum(p.numel() for p in model.parameters()):,} parameters" in said
    assert "8 images of 56 x 56 px" in said and "tokens" in said and "memory" in said and "for 4 steps" in said
    assert not (tmp_path / "run").exists()
    assert train_egma.main([*arguments, "--dry_run", "--data", "nowhere"]) == 2


def test_what_ran_is_recorded_and_heat_maps_are_drawn(arguments: list[str], tmp_path: Path) -> None:
    assert train_egma.main([*arguments, "--heat_map_cases", "2"]) == 0
    run = tmp_path / "run"
    state = json.loads((run / "training_state.json").read_text())
    assert state["versions"]["torch"] == torch.__version__ and state["settings"]["max_steps"] == 4
    assert state["data"]["data"]["generated"] is True and len(state["data"]["data"]["fingerprint"]) == 16
    assert state["readings_in_a_contrastive_batch"] == 8 and state["config"]["model_type"] == "egma"
    pictures = sorted((run / "heat_maps").iterdir())
    assert [path.name for path in pictures] == ["step-0000002.png", "step-0000004.png"]
    with Image.open(pictures[0]) as picture:
        assert min(picture.size) > 300
    events = EventAccumulator(str(next(run.rglob("events.out.tfevents.*")).parent)).Reload()
    assert len(events.Images("heat_maps")) == 2


def test_negatives_are_said_at_the_start(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert train_egma.main([*arguments, "--max_steps", "1", "--batch_size", "4"]) == 0
    assert "every image is compared with 4 reports (3 negatives)" in capsys.readouterr().out
    more = ["--gradient_accumulation_steps", "2", "--output_dir", arguments[5] + "2"]
    assert train_egma.main([*arguments, *more, "--max_steps", "1", "--batch_size", "4"]) == 0
    assert "are not each other's negatives" in capsys.readouterr().out


def test_text_matched_positives_train(arguments: list[str], tmp_path: Path) -> None:
    assert train_egma.main([*arguments, "--positives", "text_match", "--max_steps", "1"]) == 0
    assert train_egma.main([*arguments, "--max_steps", "1", "--output_dir", str(tmp_path / "other")]) == 0
    first, second = (
        json.loads((tmp_path / name / "metrics.jsonl").read_text().splitlines()[0]) for name in ("run", "other")
    )
    # phantom reports of healthy chests repeat; without them as negatives the loss is lower
    assert first["contrastive"] <= second["contrastive"] and first["gaze"] == second["gaze"]


@pytest.mark.parametrize("streaming", [[], ["--streaming", "True"]])
def test_several_corpora_train_together_by_their_weights(
    arguments: list[str], tmp_path: Path, phantom_data: Path, streaming: list[str]
) -> None:
    """The second holds the same pictures under its own reading ids, without gaze."""
    second = tmp_path / "second"
    shutil.copytree(phantom_data, second)
    for path in second.glob("data/*.parquet"):
        rows = datasets.Dataset.from_parquet(str(path), cache_dir=str(tmp_path / "cache"))
        other = [f"second-{name}" for name in rows["reading_id"]]
        rows = rows.map(lambda row: {"reading_id": f"second-{row['reading_id']}", "fixations": None})
        assert rows["reading_id"][:] == other
        rows.to_parquet(str(path))
    seen: list[str] = []
    mixed = ["--data", f"{phantom_data},{second}", "--data_weights", "3,1", "--max_steps", "8", *streaming]
    step = run.whole_step
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run, "whole_step", lambda a, m, taken: seen.extend(taken[0]["reading_ids"]) or step(a, m, taken))
        assert train_egma.main([*arguments, *mixed]) == 0
    share = sum(name.startswith("second-") for name in seen) / len(seen)
    assert len(seen) == 64 and 0.1 < share < 0.4
    state = json.loads((tmp_path / "run" / "training_state.json").read_text())
    assert {name: corpus["weight"] for name, corpus in state["data"].items() if name in ("data", "second")} == {
        "data": 3,
        "second": 1,
    }


def test_more_processes_than_readings_are_refused(arguments: list[str]) -> None:
    settings = parse_settings([*arguments, "--batch_size", "1"])
    readings = len(load_readings(settings.data, "train"))
    assert TrainingData(settings, rank=0, world=20).batches_per_epoch >= 1
    with pytest.raises(UserError, match=rf"{readings} readings .* fewer than one batch of {readings + 1} different"):
        TrainingData(settings, rank=0, world=readings + 1)


def test_starts_from_a_trained_model_and_from_two_towers(
    arguments: list[str], tmp_path: Path, phantom_data: Path
) -> None:
    assert train_egma.main([*arguments, "--max_steps", "1"]) == 0
    model = AutoModel.from_pretrained(tmp_path / "run")
    model.vision_model.save_pretrained(tmp_path / "vision")
    model.text_model.save_pretrained(tmp_path / "text")
    AutoProcessor.from_pretrained(tmp_path / "run").tokenizer.save_pretrained(tmp_path / "text")
    short = ["--data", str(phantom_data), "--max_steps", "1", "--batch_size", "4"]
    tuned = [*short, "--output_dir", str(tmp_path / "tuned"), "--model", str(tmp_path / "run"), "--gaze_weight", "0.5"]
    assert train_egma.main(tuned) == 0
    assert AutoModel.from_pretrained(tmp_path / "tuned").config.gaze_weight == 0.5
    towers = ["--vision_model", str(tmp_path / "vision"), "--text_model", str(tmp_path / "text")]
    assert train_egma.main([*short, "--output_dir", str(tmp_path / "joined"), *towers]) == 0


def _trained_in_process(rank: int, arguments: list[str]) -> None:
    """A whole run; the group of processes ends when no module holds it any more."""
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2", "ACCELERATE_USE_CPU": "true"}
    torch.set_num_threads(1)
    ended, destroy = [], dist.destroy_process_group

    def end(*given: object) -> None:
        ended.append([one for one in gc.get_objects() if type(one) is DistributedDataParallel])
        destroy(*given)

    dist.destroy_process_group = end
    assert train_egma.main(arguments) == 0
    assert ended == [[]]


def test_the_processes_part_after_their_modules(arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Else they hang now and then when all is done: a linear layer, the group ended first, did within 100 rounds."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    for name, value in (("MASTER_ADDR", "127.0.0.1"), ("MASTER_PORT", str(port)), ("OMP_NUM_THREADS", "1")):
        monkeypatch.setenv(name, value)
    mp.spawn(_trained_in_process, ([*arguments, "--batch_size", "4", "--max_steps", "2"],), nprocs=2)


def test_two_processes_as_the_shipped_file_starts_them(arguments: list[str], tmp_path: Path) -> None:
    launch = [sys.executable, "-m", "accelerate.commands.launch", "--config_file"]
    launch += [str(ROOT / "configs" / "accelerate" / "cpu_two_processes.yaml"), str(ROOT / "train_egma.py")]
    environment = os.environ | {"ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"}
    command = [*launch, *arguments, "--batch_size", "4", "--max_steps", "2"]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert "on 2 process(es); every image is compared with 8 reports (7 negatives)" in done.stdout
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if "loss" in line] == [1, 2]
    assert train_egma.main([*arguments, "--max_steps", "2", "--output_dir", str(tmp_path / "one")]) == 0
    one = [json.loads(line) for line in (tmp_path / "one" / "metrics.jsonl").read_text().splitlines()]
    # dropout differs between one process and two, the batch does not
    assert lines[0]["gaze"] == pytest.approx(one[0]["gaze"], rel=0.2)
    assert (tmp_path / "run" / "model.safetensors").exists()
