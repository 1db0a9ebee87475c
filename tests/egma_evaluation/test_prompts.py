"""The package's prompt files and the ways a user's file can be wrong."""

from pathlib import Path

import pytest

from dataset_scripts.schema import UserError
from egma_evaluation.prompts import PROMPT_FOLDER, draw_prompts, load_prompts


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
