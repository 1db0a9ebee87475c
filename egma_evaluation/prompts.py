"""Prompt files: YAML of the form `classes: {Name: [prompt, ...]}`, looked up by class name, never by place."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import yaml

from dataset_scripts.schema import UserError

Prompts = dict[str, list[str]]

PROMPT_FOLDER = Path(__file__).parent / "prompts"


def load_prompts(path: str | Path | None = None) -> Prompts:
    """Read a prompt file; without a path, all files of the package together (their names do not overlap).

    Raises:
        UserError: the file is not there, is not of the form above, or a class has no prompt.
    """
    if path is not None:
        return _read(Path(path))
    return {name: prompts for file in sorted(PROMPT_FOLDER.glob("*.yaml")) for name, prompts in _read(file).items()}


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


def _read(path: Path) -> Prompts:
    if not path.is_file():
        raise UserError(f"{path}: no such prompt file")
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: not a YAML file ({' '.join(str(error).split())})") from error
    classes = content.get("classes") if isinstance(content, dict) else None
    if not isinstance(classes, dict) or not classes:
        raise UserError(f"{path}: expected `classes:` with a list of prompts under each class name")
    return {str(name): _check(path, str(name), prompts) for name, prompts in classes.items()}


def _check(path: Path, name: str, prompts: object) -> list[str]:
    if not isinstance(prompts, list) or not prompts:
        raise UserError(f"{path}: class '{name}' has no prompts; expected a list of sentences")
    for prompt in prompts:
        if not isinstance(prompt, str) or not prompt.strip():
            raise UserError(f"{path}: class '{name}' has an empty prompt or one that is no text: {prompt!r}")
    return prompts
