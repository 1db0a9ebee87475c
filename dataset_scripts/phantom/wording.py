"""How a sentence is said: in one of few ways, or, as in real reports, often in a way that nobody used before."""

import numpy as np

from dataset_scripts.phantom.world import Style, World

OPENING_SHARE, ENDING_SHARE, SHORT_SHARE = 0.32, 0.4, 0.12

OPENINGS: dict[Style, tuple[str, ...]] = {
    "a": (
        "again", "as before,", "compared with the prior examination,", "on the frontal view,", "on this projection,",
        "allowing for technique,", "incidentally,", "of note,", "in the interval,", "since the last study,",
        "within the limits of a single view,", "despite the low volumes,", "with the patient rotated,", "overall,",
    ),
    "b": (
        "today", "i see that", "in comparison,", "on review,", "as far as can be judged,", "at this time,", "currently",
        "looking at the picture,", "given the history,", "by my reading,",
    ),
}  # fmt: skip
ENDINGS: dict[Style, tuple[str, ...]] = {
    "a": (
        ", unchanged", ", new since the prior study", ", slightly more marked than before", ", less marked than before",
        ", measuring {size} millimeters", ", about {size} millimeters across", ", better seen on the lateral view",
        ", follow up in {size} weeks is suggested", ", clinical correlation is advised", ", as {size} days ago",
        ", similar to the prior", ", incompletely imaged", ", within {size} millimeters of its former size",
    ),
    "b": (
        ", stable", ", not present earlier", ", progressing", ", improving", ", of {size} millimeters",
        ", see the computed tomography", ", seen before", ", review in {size} days", ", of doubtful meaning",
        ", first seen {size} months ago",
    ),
}  # fmt: skip
# abstract sentences, which name neither side nor zone nor size
SHORT: dict[str, tuple[str, ...]] = {
    "nodule": ("there is a nodule", "nodule present"),
    "consolidation": ("there is consolidation", "there is opacity"),
    "groundglass opacity": ("there is opacity", "hazy opacity"),
    "atelectasis": ("there is atelectasis", "atelectasis noted"),
    "pleural effusion": ("there is an effusion", "effusion present"),
    "pleural thickening": ("pleural thickening",),
    "pneumothorax": ("there is a pneumothorax", "pneumothorax present"),
    "pulmonary edema": ("there is edema", "edema present"),
    "interstitial disease": ("interstitial disease", "there is fibrosis"),
    "enlarged heart": ("cardiomegaly", "large heart"),
    "enlarged hilum": ("hilar enlargement",),
    "bullae": ("emphysema", "there are bullae"),
    "hiatal hernia": ("hiatal hernia",),
    "widened mediastinum": ("widened mediastinum",),
    "rib fracture": ("there is a fracture", "rib fracture"),
    "pacemaker": ("pacemaker", "device in place"),
    "central line": ("central line", "catheter in place"),
    "endotracheal tube": ("intubated", "tube in place"),
    "sternotomy wires": ("sternal wires",),
}


def short(kind: str, world: World, rng: np.random.Generator) -> str | None:
    """An abstract sentence about a finding, now and then."""
    if world.wording == "fixed" or rng.random() >= SHORT_SHARE:
        return None
    return SHORT[kind][int(rng.integers(len(SHORT[kind])))]


def said(text: str, world: World, rng: np.random.Generator) -> str:
    """The sentence as it is said: as it is, or with an opening, an ending, or both."""
    if world.wording == "fixed" and world.style == "a":
        return text
    openings, endings = OPENINGS[world.style], ENDINGS[world.style]
    opens, ends = rng.random(2) < (OPENING_SHARE, ENDING_SHARE)
    if opens:
        text = f"{openings[int(rng.integers(len(openings)))]} {text}"
    if ends:
        text += endings[int(rng.integers(len(endings)))].format(size=int(rng.integers(2, 60)))
    return text
