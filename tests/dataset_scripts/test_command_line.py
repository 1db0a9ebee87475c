"""Options in either spelling, and programs that end in a sentence."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from dataset_scripts.command_line import Parser, program
from dataset_scripts.schema import UserError

NAMES = st.from_regex(r"[a-z]{2,5}([-_][a-z]{2,5}){0,3}", fullmatch=True)


@given(name=NAMES, value=st.text(min_size=1).filter(lambda text: text[0] != "-"), joined=st.booleans())
def test_dashes_and_underscores_are_one(name: str, value: str, joined: bool) -> None:
    if name in ("help", "other"):
        return
    parser = Parser("about")
    parser.add_argument(f"--{name}")
    parser.add_argument("--other")
    for spelt in (name.replace("-", "_"), name.replace("_", "-"), name):
        words = [f"--{spelt}={value}"] if joined else [f"--{spelt}", value]
        assert vars(parser.parse_args(words)) == {name.replace("-", "_"): value, "other": None}


def test_values_are_left_alone() -> None:
    parser = Parser("about")
    parser.add_argument("--batch-size")
    parser.add_argument("place")
    found = parser.parse_args(["my_folder-1", "--batch_size=a_b=--c_d"])
    assert (found.place, found.batch_size) == ("my_folder-1", "a_b=--c_d")
    with pytest.raises(UserError, match="unrecognized arguments: --batch"):
        parser.parse_args(["place", "--batch", "3"])


@pytest.mark.parametrize(
    ("fault", "code", "said"),
    [
        (UserError("it is so"), 2, "error: it is so\n"),
        (
            PermissionError(13, "Permission denied", "/out/results.json"),
            2,
            "error: /out/results.json: Permission denied\n",
        ),
        (OSError("the disk is gone"), 2, "error: the disk is gone\n"),
        (KeyboardInterrupt(), 130, "interrupted; "),
    ],
)
def test_a_program_ends_in_a_sentence(
    fault: BaseException, code: int, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    @program
    def main(argv: Sequence[str] | None = None) -> None:
        raise fault

    assert main() == code
    assert capsys.readouterr().err.startswith(said)


def test_what_is_a_fault_of_ours_is_not_hidden() -> None:
    @program
    def main(argv: Sequence[str] | None = None) -> None:
        raise ValueError("ours")

    with pytest.raises(ValueError, match="ours"):
        main()


def programs() -> dict[str, Callable[[str], tuple[Any, list[str]]]]:
    from dataset_scripts import build, gaze_quality
    from dataset_scripts.phantom import __main__ as phantom
    from egma.hub import convert
    from egma.programs import demo, embed, evaluate

    return {
        "build": lambda place: (build, ["image_text", "--source", ".", "--output", place]),
        "phantom": lambda place: (phantom, ["--readings", "8", "--output", place]),
        "gaze_quality": lambda place: (gaze_quality, [place]),
        "convert": lambda place: (convert, ["weights.bin", "--output", place]),
        "demo": lambda place: (demo, ["--output", place]),
        "embed": lambda place: (embed, ["model", "--data", "data", "--output", place]),
        "evaluate": lambda place: (evaluate, ["model", "--data", "data", "--output", place]),
    }


@pytest.mark.parametrize("name", ["build", "phantom", "gaze_quality", "convert", "demo", "embed", "evaluate"])
def test_an_output_that_cannot_be_is_one_sentence(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a_file").write_text("")
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / "metadata.csv").write_text("file_name,text\na.png,No effusion.\n")
    Image.new("L", (8, 8)).save(tmp_path / "here" / "a.png")
    monkeypatch.chdir(tmp_path / "here")
    module, words = programs()[name](str(tmp_path / "a_file" / "out"))
    assert module.main(words) == 2
    err = capsys.readouterr().err.strip().splitlines()
    assert err[-1].startswith("error: ") and "a_file" in err[-1] and "Traceback" not in "".join(err)
