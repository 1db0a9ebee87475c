"""Every preset and accelerate file that is shipped can be used as it says."""

from pathlib import Path

import pytest
import yaml
from accelerate.commands.config.config_args import load_config_from_file

from dataset_scripts.schema import UserError
from egma.tools.processes import ROOT
from egma.training.arguments import parse_settings

CONFIGS = ROOT / "configs"
PRESETS = sorted(path.name for path in CONFIGS.glob("*.yaml"))
PLACES = ["--data", "data", "--output_dir", "run"]
TOWERS = ["--vision_model", "vision", "--text_model", "text"]


@pytest.mark.parametrize("name", PRESETS)
def test_presets_give_settings_and_each_field_counts(name: str) -> None:
    start = [] if name in ("phantom.yaml", "recipe_large.yaml") else TOWERS
    settings = parse_settings(["--config", str(CONFIGS / name), *PLACES, *start])
    for field, value in yaml.safe_load((CONFIGS / name).read_text()).items():
        assert getattr(settings, field) == value
    assert parse_settings(["--config", str(CONFIGS / name), *PLACES, *start, "--seed", "7"]).seed == 7


@pytest.mark.parametrize(
    ("row", "weights"),
    [("contrastive", (1, 0, 0)), ("gaze", (0, 1, 0)), ("egf", (1, 1, 0)), ("egm", (0, 0, 1)), ("unified", (1, 1, 1))],
)
def test_an_ablation_row_goes_over_any_preset(row: str, weights: tuple[int, int, int]) -> None:
    both = f"{CONFIGS / 'phantom.yaml'},{CONFIGS / 'ablations' / f'{row}.yaml'}"
    settings = parse_settings(["--config", both, *PLACES])
    assert (settings.contrastive_weight, settings.gaze_weight, settings.mapping_weight) == weights
    assert settings.batch_size == parse_settings(["--config", str(CONFIGS / "phantom.yaml"), *PLACES]).batch_size


def test_the_papers_settings() -> None:
    settings = parse_settings(["--config", str(CONFIGS / "mimic_eye_paper.yaml"), *PLACES, *TOWERS])
    assert settings.batch_size * 4 == 40
    assert (settings.learning_rate, settings.weight_decay, settings.epochs) == (1e-5, 1e-4, 10)
    assert (settings.warmup_fraction, settings.max_grad_norm, settings.seed) == (0.1, 1.0, 42)


@pytest.mark.parametrize("path", sorted((CONFIGS / "accelerate").glob("*.yaml")), ids=lambda path: path.stem)
def test_accelerate_reads_its_files(path: Path) -> None:
    config = load_config_from_file(str(path))
    processes = {"one_gpu": 1, "eight_gpus": 8, "two_machines": 16, "cpu_two_processes": 2, "fsdp": 8}
    assert config.num_processes == processes[path.stem]
    assert "--config_file" in path.read_text()


def test_dashes_do_for_underscores() -> None:
    settings = parse_settings(
        ["--config", str(CONFIGS / "phantom.yaml"), *PLACES, "--batch-size", "64", "--micro-batch-size", "16"]
    )
    assert (settings.batch_size, settings.micro_batch_size) == (64, 16)


def test_the_second_preset_is_checked_too(tmp_path: Path) -> None:
    (tmp_path / "bad.yaml").write_text("gaze_wait: 1\n")
    with pytest.raises(UserError, match=r"bad\.yaml: unknown field 'gaze_wait'; did you mean 'gaze_weight'"):
        parse_settings(["--config", f"{CONFIGS / 'phantom.yaml'},{tmp_path / 'bad.yaml'}", *PLACES])


def test_fields_of_the_model_go_over_the_presets_one_by_one(tmp_path: Path) -> None:
    (tmp_path / "wide.yaml").write_text("egma_config: {projection_dim: 48, text_layers: 2}\n")
    presets = f"{CONFIGS / 'phantom.yaml'},{tmp_path / 'wide.yaml'}"
    shipped = yaml.safe_load((CONFIGS / "phantom.yaml").read_text())["egma_config"]
    assert parse_settings(["--config", presets, *PLACES]).egma_config == shipped | {
        "projection_dim": 48,
        "text_layers": 2,
    }
    given = ["--config", presets, *PLACES, "--egma_config", '{"projection_dim": 64}']
    assert parse_settings(given).egma_config == shipped | {"projection_dim": 64, "text_layers": 2}
    assert parse_settings([*PLACES, *TOWERS, "--egma-config", '{"vision_stage": 3}']).egma_config == {"vision_stage": 3}
    assert parse_settings([*PLACES, *TOWERS]).egma_config == {}


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ('{"projection_dim": 64', "is no JSON"),
        ("projection_dim=64", "is no JSON"),
        ("", "is no JSON"),
        ("[1]", r"is '\[1\]', expected fields of EgmaConfig as a JSON object"),
        ("null", "is 'null', expected fields"),
        ('{"projektion_dim": 64}', "unknown field 'projektion_dim'; did you mean 'projection_dim'"),
    ],
)
def test_fields_of_the_model_that_are_none_are_refused(given: str, said: str) -> None:
    with pytest.raises(UserError, match=said):
        parse_settings([*PLACES, *TOWERS, "--egma_config", given])
