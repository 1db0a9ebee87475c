"""Prompt files: YAML of the form `classes: {Name: [prompt, ...]}`, looked up by class name, never by place.

Instead of prompts a class may have the parts of its prompts, `{severity: [...], subtype: [...], location: [...]}`: one
of each list, in the order of the file, makes a prompt. `per_class` beside `classes` says how many of a class are drawn.
"""

from collections.abc import Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import NamedTuple

import numpy as np
import yaml

from dataset_scripts.schema import UserError

Prompts = dict[str, list[str]]

PROMPT_FOLDER = Path(__file__).parent / "prompts"
PROTOCOL_FOLDER = PROMPT_FOLDER / "protocols"


class PromptFile(NamedTuple):
    """Prompts by class, and how many of a class are drawn; None: all."""

    classes: Prompts
    per_class: int | None


def load_prompts(path: str | Path | None = None) -> Prompts:
    """Read a prompt file; without a path, all files of the package together (their names do not overlap).

    Raises:
        UserError: the file is not there, is not of the form above, or a class has no prompt.
    """
    if path is not None:
        return read_prompt_file(path).classes
    files = [read_prompt_file(file) for file in sorted(PROMPT_FOLDER.glob("*.yaml"))]
    return {name: prompts for file in files for name, prompts in file.classes.items()}


def draw_prompts(prompts: Mapping[str, Sequence[str]], per_class: int, seed: int) -> Prompts:
    """At most `per_class` prompts of each class; the draw depends on the class's name and the seed alone."""
    if per_class < 1:
        raise UserError(f"prompts per class: expected at least 1, got {per_class}")
    drawn = {}
    for name, candidates in prompts.items():
        random = np.random.default_rng([seed, *name.encode()])
        ordered = sorted(candidates)
        drawn[name] = sorted(random.permutation(ordered)[:per_class].tolist())
    return drawn


def read_prompt_file(path: str | Path) -> PromptFile:
    """One file.

    Raises:
        UserError: as `load_prompts`.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"{path}: no such prompt file")
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: not a YAML file ({' '.join(str(error).split())})") from error
    classes = content.get("classes") if isinstance(content, dict) else None
    if not isinstance(classes, dict) or not classes:
        raise UserError(f"{path}: expected `classes:` with a list of prompts under each class name")
    per_class = content.get("per_class")
    if per_class is not None and (not isinstance(per_class, int) or per_class < 1):
        raise UserError(f"{path}: per_class is {per_class!r}, expected a number of prompts, 1 or more")
    return PromptFile({str(name): _check(path, str(name), prompts) for name, prompts in classes.items()}, per_class)


def _check(path: Path, name: str, prompts: object) -> list[str]:
    if isinstance(prompts, dict):
        prompts = _combined(path, name, prompts)
    if not isinstance(prompts, list) or not prompts:
        raise UserError(f"{path}: class '{name}' has no prompts; expected a list of sentences")
    for prompt in prompts:
        if not isinstance(prompt, str) or not prompt.strip():
            raise UserError(f"{path}: class '{name}' has an empty prompt or one that is no text: {prompt!r}")
    return prompts


def _combined(path: Path, name: str, parts: Mapping[object, object]) -> list[str]:
    """Every combination of one of each part, as a phrase with a full stop; an empty part says nothing."""
    lists: list[list[str]] = []
    for part, choices in parts.items():
        if not isinstance(choices, list) or not choices or not all(isinstance(choice, str) for choice in choices):
            raise UserError(f"{path}: class '{name}': {part} is {choices!r}, expected a list of texts")
        lists.append(choices)
    phrases = [" ".join(filter(None, choice)) for choice in product(*lists)]
    prompts = [f"{phrase[:1].upper()}{phrase[1:]}." if phrase else "" for phrase in phrases]
    if len(set(prompts)) < len(prompts):
        raise UserError(f"{path}: class '{name}': the same prompt comes from two combinations")
    return prompts
