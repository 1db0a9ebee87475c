"""What the project offers by name: the classes of `egma`, listed once, and the commands."""

import inspect
import subprocess
import sys
from pathlib import Path

import pytest

import egma
import modeling_egma
from egma.__main__ import COMMANDS, main
from egma.tools.processes import ROOT

# added to with a minor version, taken from with a major one: CONTRIBUTING.md
API = {
    *("EgmaConfig", "EgmaForImageClassification", "EgmaGroundingPipeline", "EgmaImageProcessor", "EgmaModel"),
    *("EgmaOutput", "EgmaPreTrainedModel", "EgmaProcessor", "EgmaTextConfig", "EgmaTextModel", "EgmaVisionConfig"),
    "EgmaVisionModel",
}
SAMPLES = {"SAMPLE_MODEL", "SAMPLE_READINGS"}
PROGRAMS = {"demo", "build", "train", "evaluate", "push", "app", "convert", "export", "embed"}


def test_the_list_is_that_of_the_package() -> None:
    assert set(modeling_egma.__all__) == API
    assert set(egma.__all__) == set(dir(egma)) == API | SAMPLES


def test_every_name_is_the_documented_class_itself() -> None:
    names: dict[str, object] = {}
    exec("from egma import *", names)
    for name in API:
        assert names[name] is getattr(egma, name) is getattr(modeling_egma, name)
        assert inspect.getdoc(getattr(egma, name))
    assert all(Path(str(names[name])).is_dir() for name in SAMPLES)
    with pytest.raises(AttributeError, match="no attribute 'Nothing'"):
        egma.Nothing  # noqa: B018
    with pytest.raises(AttributeError, match="no attribute 'EgmaNothing'"):
        egma.EgmaNothing  # noqa: B018


def test_importing_the_package_loads_no_library() -> None:
    code = "import sys, egma, egma.__main__; print(*{'torch', 'transformers', 'datasets'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


def test_every_command_is_a_program() -> None:
    assert set(COMMANDS) >= PROGRAMS
    for module, does in COMMANDS.values():
        path = ROOT / Path(*module.split(".")).with_suffix(".py")
        assert path.is_file() and "def main(" in path.read_text() and does


@pytest.mark.parametrize("argv", [[], ["--help"], ["-h"]])
def test_alone_it_lists_the_commands(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(argv) == 0
    assert {line.split()[0] for line in capsys.readouterr().out.splitlines() if line.startswith("  ")} == set(COMMANDS)


@pytest.mark.parametrize(("typo", "said"), [("trian", "did you mean 'train'?"), ("qq", "expected one of demo, build")])
def test_a_typo_is_one_helpful_sentence(typo: str, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([typo]) == 2
    err = capsys.readouterr().err
    assert said in err and err.count("\n") == 1


def test_a_command_goes_to_its_program(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("egma.__main__.signal.signal", lambda *_: None)
    monkeypatch.setattr(sys, "argv", ["egma"])
    assert main(["build", "nonsense", "--source", "s", "--output", "o"]) == 2
    assert "unknown corpus 'nonsense'" in capsys.readouterr().err
    with pytest.raises(SystemExit) as ended:
        main(["build", "--help"])
    assert ended.value.code == 0 and capsys.readouterr().out.startswith("usage: egma build ")


def test_what_an_extra_would_bring_is_named(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("egma.__main__.signal.signal", lambda *_: None)
    monkeypatch.setitem(COMMANDS, "lacking", ("no_such_package.program", ""))
    assert main(["lacking"]) == 2
    assert "needs 'no_such_package': pip install 'egma[all]'" in capsys.readouterr().err
