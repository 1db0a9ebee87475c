"""The package's prompt files and the ways a user's file can be wrong."""

from pathlib import Path

import pytest

from dataset_scripts.corpora.chexpert import EIGHT, FIVE
from dataset_scripts.schema import UserError
from egma.inference.prompts import PROMPT_FOLDER, PROTOCOL_FOLDER, draw_prompts, load_prompts, read_prompt_file


def test_every_class_has_the_same_count_of_distinct_sentences() -> None:
    for name, prompts in load_prompts().items():
        assert len(set(prompts)) == len(prompts) == 8, name
        assert all(prompt.endswith(".") and prompt[0].isupper() for prompt in prompts), name


def test_files_of_the_package_do_not_overlap() -> None:
    counts = [len(load_prompts(file)) for file in PROMPT_FOLDER.glob("*.yaml")]
    assert sum(counts) == len(load_prompts())
    assert len(load_prompts(PROMPT_FOLDER / "reflacx.yaml")) == 15


def test_a_draw_depends_on_the_name_alone() -> None:
    prompts = load_prompts()
    drawn = draw_prompts(prompts, 3, seed=5)
    backwards = draw_prompts({name: prompts[name][::-1] for name in reversed(prompts)}, 3, seed=5)
    alone = draw_prompts({"Pneumonia": prompts["Pneumonia"]}, 3, seed=5)
    assert drawn == backwards and drawn["Pneumonia"] == alone["Pneumonia"]
    assert all(len(chosen) == 3 for chosen in drawn.values())
    assert drawn != draw_prompts(prompts, 3, seed=6)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "no such prompt file"),
        ("classes: [", "not a YAML file"),
        ("Edema: [There is edema.]", "expected `classes:`"),
        ("classes: {Edema: []}", "'Edema' has no prompts"),
        ("classes: {Edema: There is edema.}", "'Edema' has no prompts"),
        ("classes: {Edema: ['There is edema.', ' ']}", "'Edema' has an empty prompt"),
        ("classes: {Edema: [12]}", "'Edema' has an empty prompt or one that is no text: 12"),
    ],
)
def test_bad_files_are_named(tmp_path: Path, content: str | None, message: str) -> None:
    file = tmp_path / "prompts.yaml"
    if content is not None:
        file.write_text(content)
    with pytest.raises(UserError, match=message):
        load_prompts(file)


def test_the_published_counts_come_out_of_the_files() -> None:
    five = read_prompt_file(PROTOCOL_FOLDER / "chexpert_5x200.yaml")
    counts = {name: len(prompts) for name, prompts in five.classes.items()}
    assert counts == {"Atelectasis": 210, "Cardiomegaly": 15, "Consolidation": 192, "Edema": 18, "Pleural Effusion": 54}
    drawn = draw_prompts(five.classes, five.per_class or 0, seed=0)
    assert sum(map(len, drawn.values())) == 183
    assert "Mild atelectasis in the left lung." in five.classes["Atelectasis"]
    assert "Cardiomegaly." in five.classes["Cardiomegaly"]
    eight = read_prompt_file(PROTOCOL_FOLDER / "chexpert_8x200.yaml")
    assert len(eight.classes) == 8 and all(len(prompts) == 5 for prompts in eight.classes.values())
    assert len({prompt for prompts in eight.classes.values() for prompt in prompts}) == 40 and eight.per_class is None
    assert five.classes.keys() == set(FIVE) and eight.classes.keys() == set(EIGHT)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{classes: {A: {severity: mild}}}", "class 'A': severity is 'mild', expected a list of texts"),
        ("{classes: {A: {severity: ['', ''], kind: [x]}}}", "class 'A': the same prompt comes from two combinations"),
        ("{classes: {A: {severity: ['']}}}", "class 'A' has an empty prompt"),
        ("{classes: {A: [x]}, per_class: many}", "per_class is 'many', expected a number of prompts"),
    ],
)
def test_bad_combinations_are_named(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "own.yaml").write_text(content)
    with pytest.raises(UserError, match=message):
        load_prompts(tmp_path / "own.yaml")
