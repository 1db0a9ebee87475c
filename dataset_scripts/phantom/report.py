"""What the reader says: sentences with the places they speak of, and a time for every word."""

from dataclasses import dataclass, replace

import numpy as np

from dataset_scripts.phantom.anatomy import Body, heart_ellipse, hilum_point
from dataset_scripts.phantom.findings import Finding
from dataset_scripts.phantom.geometry import Ellipse, Side
from dataset_scripts.phantom.wording import said, short
from dataset_scripts.phantom.world import World

NOT_MENTIONED_SHARE, ENDS_EARLY_SHARE, ABNORMAL_FIRST_SHARE = 0.04, 0.08, 0.4

SEVERITY_WORDS = {
    "small": ("small", "mild", "subtle"),
    "moderate": ("moderate", "definite", "moderate"),
    "large": ("large", "extensive", "severe"),
}
SIZE_WORDS = {"small": ("small", "tiny"), "moderate": ("medium sized", "sizeable"), "large": ("large", "big")}
SIZED_KINDS = frozenset({"nodule", "hiatal hernia", "pneumothorax", "pleural effusion", "bullae"})

ABNORMAL: dict[str, tuple[str, ...]] = {
    "nodule": (
        "there is a {severity} nodule in the {side} {zone} zone",
        "{severity} round opacity in the {side} {zone} lung, likely a nodule",
        "a {severity} pulmonary nodule projects over the {side} {zone} zone",
        "nodular density in the {side} {zone} lung",
        "{severity} mass in the {side} {zone} lung zone",
        "there is a well defined nodule on the {side}, in the {zone} zone",
    ),
    "consolidation": (
        "there is {severity} consolidation in the {side} {zone} zone",
        "{side} {zone} zone airspace opacity, consistent with consolidation",
        "dense consolidation of the {side} {zone} lung",
        "{severity} airspace consolidation is seen in the {side} {zone} lung",
        "focal consolidation on the {side}, {zone} zone",
    ),
    "groundglass opacity": (
        "{severity} groundglass opacity in the {side} {zone} zone",
        "there is hazy groundglass opacity in the {side} {zone} lung",
        "faint hazy opacity over the {side} {zone} lung",
        "{side} {zone} zone shows {severity} ground glass opacity",
        "a hazy groundglass area is seen on the {side}, {zone} zone",
    ),
    "atelectasis": (
        "linear atelectasis in the {side} {zone} zone",
        "there is {severity} plate like atelectasis on the {side}, {zone} zone",
        "{severity} subsegmental atelectasis in the {side} {zone} lung",
        "bandlike opacity in the {side} {zone} lung, most likely atelectasis",
        "streaky atelectasis is present at the {side} {zone} zone",
    ),
    "pleural effusion": (
        "there is a {severity} {side} pleural effusion",
        "{severity} {side} sided pleural effusion",
        "blunting of the {side} costophrenic angle, consistent with a {severity} effusion",
        "the {side} costophrenic angle is obscured by pleural fluid",
        "{side} effusion, {severity}",
    ),
    "pleural thickening": (
        "{severity} pleural thickening along the {side} chest wall",
        "the {side} lateral pleura is thickened",
        "there is {severity} {side} pleural thickening",
        "{side} lateral pleural thickening",
        "thickened pleura on the {side}, {severity}",
    ),
    "pneumothorax": (
        "there is a {severity} {side} pneumothorax",
        "{severity} {side} apical pneumothorax",
        "a visceral pleural line is seen at the {side} apex, consistent with pneumothorax",
        "{side} pneumothorax, {severity}",
        "{severity} pneumothorax on the {side}",
    ),
    "pulmonary edema": (
        "there is {severity} pulmonary edema",
        "{severity} perihilar edema",
        "bilateral perihilar haze, consistent with pulmonary edema",
        "interstitial edema, {severity}",
        "findings of {severity} pulmonary edema in both perihilar regions",
    ),
    "interstitial disease": (
        "{severity} reticular opacities in both {zone} zones",
        "there is {severity} interstitial lung disease in the {zone} zones",
        "reticular interstitial pattern in both {zone} lungs, likely fibrosis",
        "bilateral {zone} zone interstitial changes",
        "interstitial lung disease, predominantly in the {zone} zones",
    ),
    "enlarged heart": (
        "the heart is enlarged",
        "{severity} cardiomegaly",
        "there is {severity} enlargement of the cardiac silhouette",
        "the cardiac silhouette is enlarged",
        "heart size is increased, {severity} cardiomegaly",
    ),
    "enlarged hilum": (
        "the {side} hilum is enlarged",
        "{severity} enlargement of the {side} hilum",
        "prominent {side} hilum, possible adenopathy",
        "{side} hilar enlargement",
        "there is fullness of the {side} hilum",
    ),
    "bullae": (
        "{severity} bullae at the {side} apex",
        "emphysema with bullae in the {side} upper zone",
        "{severity} emphysematous changes in the {side} upper lung",
        "there are {severity} bullae in the {side} upper lung, consistent with emphysema",
        "lucent bullous change in the {side} upper zone",
    ),
    "hiatal hernia": (
        "there is a {severity} hiatal hernia",
        "{severity} hiatal hernia behind the heart",
        "retrocardiac air fluid level, consistent with a hiatal hernia",
        "hiatal hernia is noted",
        "a {severity} hernia projects behind the heart",
    ),
    "widened mediastinum": (
        "abnormal contour of the {side} mediastinum",
        "the mediastinum is widened on the {side}",
        "{severity} bulge of the {side} upper mediastinal contour",
        "there is {severity} widening of the mediastinum to the {side}",
        "abnormal {side} mediastinal contour, {severity}",
    ),
    "rib fracture": (
        "acute {side} rib fracture",
        "there is a displaced {side} rib fracture",
        "fracture of a {side} lateral rib",
        "a {side} sided rib is fractured",
        "{side} rib fracture with {severity} displacement",
    ),
    "pacemaker": (
        "{side} chest pacemaker with its lead in the right ventricle",
        "there is a {side} sided pacemaker",
        "a pacemaker projects over the {side} chest",
        "cardiac device on the {side}, lead in place",
        "{side} pectoral pacemaker is noted",
    ),
    "central line": (
        "{side} central line ends in the superior vena cava",
        "there is a {side} subclavian catheter",
        "a {side} sided central venous catheter is in place",
        "{side} picc line, tip in the superior vena cava",
        "central venous line from the {side}",
    ),
    "endotracheal tube": (
        "endotracheal tube ends above the carina",
        "the patient is intubated, tube in good position",
        "an endotracheal tube is in place",
        "endotracheal tube in the trachea",
        "there is an endotracheal tube",
    ),
    "sternotomy wires": (
        "median sternotomy wires are intact",
        "there are sternotomy wires",
        "status post sternotomy",
        "midline sternotomy wires are noted",
        "sternal wires are seen in the midline",
    ),
}

BILATERAL = frozenset({"pulmonary edema", "interstitial disease"})
PARENCHYMAL = BILATERAL | {"nodule", "consolidation", "groundglass opacity", "atelectasis", "bullae"}


@dataclass(frozen=True)
class Spoken:
    """One sentence without its full stop, and what it speaks of, in body coordinates."""

    text: str
    places: tuple[Ellipse, ...]
    finding: Finding | None = None


@dataclass(frozen=True)
class Word:
    """One transcript row; a full stop or comma is a row of its own."""

    text: str
    start_seconds: float
    end_seconds: float


@dataclass(frozen=True)
class Normal:
    """A normal or negative statement, said only if none of the kinds `unless` is present."""

    wordings: tuple[str, ...]
    place: str
    unless: frozenset[str]


NORMAL: tuple[Normal, ...] = (
    Normal(
        (
            "the heart is of normal size", "heart size is normal", "normal cardiac silhouette", "no cardiomegaly",
            "the cardiac silhouette is within normal limits",
        ),
        "heart", frozenset({"enlarged heart"}),
    ),
    Normal(
        (
            "the mediastinum is normal", "normal mediastinal contour", "mediastinal contours are unremarkable",
            "the mediastinum is not widened",
        ),
        "mediastinum", frozenset({"widened mediastinum"}),
    ),
    Normal(
        ("the hila are normal", "no hilar enlargement", "hilar contours are unremarkable", "both hila look normal"),
        "hila", frozenset({"enlarged hilum", "pulmonary edema"}),
    ),
    Normal(
        ("no pleural effusion", "there is no pleural effusion", "the costophrenic angles are sharp"),
        "angles", frozenset({"pleural effusion"}),
    ),
    Normal(
        ("no pneumothorax is seen", "no pneumothorax", "there is no pneumothorax", "no evidence of pneumothorax"),
        "apices", frozenset({"pneumothorax"}),
    ),
    Normal(
        ("no pleural effusion or pneumothorax", "there is no effusion, no pneumothorax"),
        "pleura", frozenset({"pleural effusion", "pneumothorax"}),
    ),
    Normal(
        ("no acute fracture", "the bones are unremarkable", "no rib fracture is seen", "osseous structures are intact"),
        "ribs", frozenset({"rib fracture"}),
    ),
    Normal(
        ("no consolidation", "there is no focal consolidation", "no focal airspace opacity", "no airspace disease"),
        "lungs", frozenset({"consolidation", "groundglass opacity", "atelectasis", "pulmonary edema"}),
    ),
    Normal(
        ("no pulmonary edema", "there is no edema", "no vascular congestion"),
        "hila", frozenset({"pulmonary edema", "groundglass opacity"}),
    ),
    Normal(("no lung nodule", "there is no nodule or mass"), "lungs", frozenset({"nodule"})),
    Normal(
        ("the lungs are clear", "both lungs are clear", "clear lungs", "lungs are clear bilaterally"),
        "lungs", PARENCHYMAL,
    ),
)  # fmt: skip
NOTHING_FOUND = ("normal chest", "no acute cardiopulmonary process", "no acute findings", "normal chest radiograph")
SIDE_CLEAR = ("the {side} lung is clear", "{side} lung clear", "no opacity in the {side} lung")


def anatomy(body: Body) -> dict[str, tuple[Ellipse, ...]]:
    """The places a reader looks at for each part of the chest."""
    right, left = Ellipse(-0.45, -0.1, 0.3, 0.55), Ellipse(0.48, -0.1, 0.3, 0.55)
    apices = Ellipse(-0.35, -0.68, 0.2, 0.18), Ellipse(0.35, -0.68, 0.2, 0.18)
    angles = tuple(Ellipse(0.68 * sign, body.diaphragm_y + 0.03, 0.12, 0.12) for sign in (-1, 1))
    sides: tuple[Side, Side] = ("right", "left")
    return {
        "heart": (heart_ellipse(body),),
        "mediastinum": (Ellipse(0.02, -0.3, 0.2, 0.35),),
        "hila": tuple(Ellipse(*hilum_point(side), 0.13, 0.14) for side in sides),
        "angles": angles,
        "apices": apices,
        "pleura": angles + apices,
        "ribs": (Ellipse(-0.7, -0.1, 0.12, 0.5), Ellipse(0.7, -0.1, 0.12, 0.5)),
        "right": (right,),
        "left": (left,),
        "lungs": (right, left),
    }


def compose(findings: tuple[Finding, ...], body: Body, world: World, rng: np.random.Generator) -> tuple[Spoken, ...]:
    """The sentences of one dictation, in the order in which they are said; at least one."""
    regions = anatomy(body)
    abnormal = [_abnormal(finding, world, rng) for finding in findings if rng.random() >= NOT_MENTIONED_SHARE]
    normal = _normal_sentences(findings, regions, rng)
    sentences = abnormal + normal
    if rng.random() >= ABNORMAL_FIRST_SHARE:
        sentences = [sentences[index] for index in rng.permutation(len(sentences))]
    sentences = [replace(one, text=said(one.text, world, rng)) for one in sentences]
    if not findings and rng.random() < 0.35:
        sentences.append(Spoken(_pick(NOTHING_FOUND, rng), regions["lungs"] + regions["heart"]))
    if rng.random() < ENDS_EARLY_SHARE:
        sentences = sentences[: max(1, len(sentences) // 2)]
    return tuple(sentences)


def _abnormal(finding: Finding, world: World, rng: np.random.Generator) -> Spoken:
    words = SIZE_WORDS if finding.kind in SIZED_KINDS else SEVERITY_WORDS
    text = _pick(ABNORMAL[finding.kind], rng).format(
        severity=_pick(words[finding.severity], rng), side=finding.side, zone=finding.zone
    )
    return Spoken(short(finding.kind, world, rng) or text, finding.places, finding)


def _normal_sentences(
    findings: tuple[Finding, ...], regions: dict[str, tuple[Ellipse, ...]], rng: np.random.Generator
) -> list[Spoken]:
    present = {finding.kind for finding in findings}
    allowed = [normal for normal in NORMAL if not normal.unless & present]
    count = int(rng.integers(3, 7)) if not findings else int(rng.integers(2, 6))
    chosen = rng.permutation(len(allowed))[:count]
    said = [Spoken(_pick(allowed[index].wordings, rng), regions[allowed[index].place]) for index in chosen]
    side = _clear_side(findings)
    if side and rng.random() < 0.4:
        said.append(Spoken(_pick(SIDE_CLEAR, rng).format(side=side), regions[side]))
    return said


def _clear_side(findings: tuple[Finding, ...]) -> Side | None:
    """The side of the clear lung when exactly one lung shows something."""
    ill = {finding.side for finding in findings if finding.kind in PARENCHYMAL}
    if len(ill) != 1 or any(finding.kind in BILATERAL for finding in findings):
        return None
    return "left" if ill == {"right"} else "right"


def _pick(options: tuple[str, ...], rng: np.random.Generator) -> str:
    return options[int(rng.integers(len(options)))]


def time_words(
    sentences: tuple[Spoken, ...], words_per_second: float, first_word_seconds: float, rng: np.random.Generator
) -> tuple[tuple[Word, ...], ...]:
    """A list of words for every sentence, its full stop last, in hundredths of a second."""
    clock, spoken = first_word_seconds, []
    for sentence in sentences:
        words: list[Word] = []
        for token in f"{sentence.text}.".replace(",", " ,").replace(".", " .").split():
            if token in ",.":
                words.append(Word(token, round(clock, 2), round(clock, 2)))
                clock += rng.uniform(0.1, 0.4)
            else:
                seconds = (0.16 + 0.045 * len(token)) * rng.uniform(0.7, 1.3) * 2.5 / words_per_second
                words.append(Word(token, round(clock, 2), round(clock + seconds, 2)))
                clock += seconds + (rng.uniform(0.2, 0.6) if rng.random() < 0.06 else rng.uniform(0.0, 0.03))
        spoken.append(tuple(words))
        clock += min(5.0, float(rng.lognormal(0.1, 0.6)))
    return tuple(spoken)


def transcript(words: tuple[tuple[Word, ...], ...]) -> str:
    """The words joined, without a blank before full stops and commas."""
    joined = " ".join(word.text for sentence in words for word in sentence)
    return joined.replace(" .", ".").replace(" ,", ",")


def written_report(
    findings: tuple[Finding, ...], body: Body, world: World, rng: np.random.Generator
) -> tuple[list[str], list[str]]:
    """Sentences of the FINDINGS and of the IMPRESSION of the written report."""
    described = [sentence.text for sentence in _normal_sentences(findings, anatomy(body), rng)]
    described += [_abnormal(finding, world, rng).text for finding in findings]
    impression = [_abnormal(finding, world, rng).text for finding in findings] or [_pick(NOTHING_FOUND, rng)]
    written = [[said(text, world, rng) for text in part] for part in (described, impression)]
    return [_as_written(text) for text in written[0]], [_as_written(text) for text in written[1]]


def _as_written(text: str) -> str:
    return text[0].upper() + text[1:] + "."
