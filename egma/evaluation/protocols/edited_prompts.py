"""Does a model read "no", "left" and "right"? Of a sentence and its edited twin the true one should score more.

`negation`: "X." against "no X.", where a reading calls the finding X present or absent. `laterality`: "X on the left."
against "X on the right.", where the boxes of a present finding lie on one side of a view that is not lateral; the
image's left is the patient's right. X is the finding's name: prompts may say more than it is. A figure is the mean over
findings of the accuracies on either truth, ties half: what is blind to the image, such as a liking for "no", earns
exactly 50 %.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from dataset_scripts.schema import ABSENT, PRESENT, Reading, UserError
from egma.evaluation.statistics.bootstrap import PatientBootstrap, Statistic, mean_of_defined
from egma.inference.embeddings import ImageBank, TextBank
from egma.inference.scores import sentence_scores
from egma.tools.arrays import Array


def edited_sentences(classes: Iterable[str]) -> dict[str, dict[str, tuple[str, str]]]:
    """By kind and finding (present, absent) and (left, right)."""
    phrases = {name: name.lower().replace("_", " ").replace("/", "or") for name in classes}
    phrases = {name: phrase for name, phrase in phrases.items() if not phrase.startswith(("no ", "normal"))}
    return {
        "negation": {name: (f"{phrase}.", f"no {phrase}.") for name, phrase in phrases.items()},
        "laterality": {name: (f"{phrase} on the left.", f"{phrase} on the right.") for name, phrase in phrases.items()},
    }


def truths(reading: Reading) -> dict[str, dict[str, bool]]:
    """By kind and finding whether the first of its sentences is the true one; what the reading leaves open is out."""
    values = {finding["name"]: finding["value"] for finding in reading["findings"]}
    boxes = [] if (reading["view"] or "").casefold().startswith("l") else reading["boxes"]
    sides: dict[str, set[bool]] = {}
    for box in boxes:
        sides.setdefault(box["label"], set()).update((box["x_min"] >= 0.5, box["x_max"] > 0.5))
    return {
        "negation": {name: value == PRESENT for name, value in values.items() if value in (PRESENT, ABSENT)},
        "laterality": {name: True in of for name, of in sides.items() if len(of) == 1 and values.get(name) == PRESENT},
    }


def edited_prompts(
    readings: Sequence[Reading], images: ImageBank, texts: TextBank, classes: Iterable[str], bootstrap: PatientBootstrap
) -> dict[str, Any]:
    """Of either kind, where a finding has both truths, the number of entries, the findings, and both scores' accuracy.

    Raises:
        UserError: there is none of either kind.
    """
    found: dict[str, Any] = {}
    for kind, twins in edited_sentences(classes).items():
        known = [(one, *of) for one in readings for of in truths(one)[kind].items()]
        names = [name for name in sorted(twins) if {truth for _, of, truth in known if of == name} == {True, False}]
        entries = [(one, names.index(name), truth) for one, name, truth in known if name in names]
        if not entries:
            continue
        kept, column, truth = [one for one, *_ in entries], *np.array([of for _, *of in entries]).T
        scores = sentence_scores(images, texts, [sentence for name in names for sentence in twins[name]])
        found[kind] = {"entries": len(kept), "findings": names}
        for of_kind, score in scores.items():
            first, second = (score[images.places(kept), 2 * column + place] for place in (0, 1))
            credit = (1 + np.sign(first - second) * np.where(truth, 1, -1)) / 2
            accuracy = balanced(credit, np.eye(2 * len(names))[2 * column + truth])
            found[kind][of_kind] = bootstrap.figure(accuracy, kept, rests_on=np.full(len(kept), True)).to_json()
    if not found:
        raise UserError("edited prompts: no class is both present and absent, or on the left and on the right")
    return {**found, "chance": 0.5}


def balanced(credit: Array, belongs: Array) -> Statistic:
    """Mean over findings of the mean of both their groups' credit (n,); `belongs` (n, 2 * findings) is one-hot."""

    def statistic(weights: Array) -> Array:
        with np.errstate(invalid="ignore"):
            shares = (weights @ (belongs * credit[:, None])) / (weights @ belongs)
        return mean_of_defined(shares.reshape(len(weights), -1, 2).mean(axis=2))

    return statistic
